"""Files of BimanGrasp and DexGraspBench."""
