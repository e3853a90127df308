"""Represents a pair of hands as tensors: kinematics, collision shapes and surfaces."""
