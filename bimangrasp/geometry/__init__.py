"""Rotations, triangle meshes, distances and sampling, without hands or objects."""
