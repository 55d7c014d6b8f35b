"""Errors of the store.

StoreError
├── ConfigError         a setting is missing, unknown or of the wrong type
├── NotFoundError       no such row for this tenant
├── ConflictError       the row is not in a state that allows the change
├── InvalidError        a value that was given is not one that the field can hold
├── UnavailableError    the database is missing, locked or damaged
├── AssetError          a data file of an installed package is missing or damaged
└── DamagedModelError   a stored classifier cannot be used
"""


class StoreError(Exception):
    """Base of all errors that the store raises."""


class ConfigError(StoreError):
    """A setting is missing, unknown or of the wrong type; the message names it."""


class NotFoundError(StoreError):
    """The tenant has no such row."""


class ConflictError(StoreError):
    """The row is not in a state that allows the change."""


class InvalidError(StoreError, ValueError):
    """A value that was given is not one that its field can hold; ``field`` names it, "" means all of it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field


class UnavailableError(StoreError):
    """The database is missing, locked or damaged."""


class AssetError(StoreError):
    """A data file of an installed package is missing or damaged; the message names the file."""


class DamagedModelError(StoreError):
    """A stored classifier is damaged, of another version, or made for other embeddings."""
