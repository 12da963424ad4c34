"""An event that cannot be written -> the one exception that this package raises for it. Pure."""


class EventError(ValueError):
    """The event cannot be written. The message names the part and the reason. Nothing was sent to the database."""
