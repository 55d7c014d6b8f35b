"""Errors of the store.

StoreError
├── ConfigError         a setting is missing, unknown or of the wrong type
├── NotFoundError       no such row for this tenant
├── ConflictError       the row is not in a state that allows the change
├── UnavailableError    the database is missing, locked or damaged
└── AssetError          a data file of an installed package is missing or damaged
"""


class StoreError(Exception):
    """Base of all errors that the store raises."""


class ConfigError(StoreError):
    """A setting is missing, unknown or of the wrong type; the message names it."""


class NotFoundError(StoreError):
    """The tenant has no such row."""


class ConflictError(StoreError):
    """The row is not in a state that allows the change."""


class UnavailableError(StoreError):
    """The database is missing, locked or damaged."""


class AssetError(StoreError):
    """A data file of an installed package is missing or damaged; the message names the file."""
