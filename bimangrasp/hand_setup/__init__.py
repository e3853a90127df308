"""Inspects a hand file of one's own and proposes what it does not say."""
