"""Runs a call in the parent, from its first check to its report."""
