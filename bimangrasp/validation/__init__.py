"""Decides with a physics simulator whether grasps hold their object, under one of two protocols."""
