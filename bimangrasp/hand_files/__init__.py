"""Reads hands from MJCF, URDF and YAML files."""
