"""Reads, repairs and decomposes meshes, and represents the object that is grasped."""
