"""Reads and writes files of BimanGrasp and DexGraspBench."""
