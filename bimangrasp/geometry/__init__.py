"""Computes with rotations, triangle meshes, distances and samples; knows no hands and no objects."""
