"""Data sets of bimanual grasps: exact quotas per object, on every GPU, reproducible to the byte."""
