"""Inspects the file of a user's hand and proposes what the file does not state."""
