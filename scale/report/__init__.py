"""Tells how a run came out: its status and the page of mode=report."""
