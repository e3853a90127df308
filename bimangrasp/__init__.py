"""Bimanual dexterous grasps by energy minimisation: hands, objects, energies and the sampler."""
