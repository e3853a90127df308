"""Finds out why a pair of hands fails to hold objects, and names the settings to try."""
