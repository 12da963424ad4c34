"""The one error of this package. Pure."""


class EventError(ValueError):
    """The event cannot be written as it is; the message says which part and why. Nothing was sent to the database."""
