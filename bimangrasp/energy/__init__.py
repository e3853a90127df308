"""Defines the energy of grasps: its terms, their weights, and the two ways to evaluate them."""
