"""Runs a call on the nodes of a Ray cluster; nothing is imported unless engine=ray asks for it."""
