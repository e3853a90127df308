"""Defines the error that a user's mistake raises."""


class InputError(ValueError):
    """An input that cannot be used. The message says what was given, what was wanted and what to do."""
