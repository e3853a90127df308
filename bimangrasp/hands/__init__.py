"""A pair of hands as tensors: kinematics, collision shapes and surfaces."""
