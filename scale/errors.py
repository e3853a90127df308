"""Defines the error that ends a run which cannot go on."""


class RunError(RuntimeError):
    """A run that cannot go on. The message says why, and where to look."""
