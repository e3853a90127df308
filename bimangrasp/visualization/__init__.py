"""Draws pictures and makes pages. Nothing here is imported by what makes or tests grasps."""
