"""Data files that installed packages ship, read without importing those packages."""

import hashlib
from importlib.util import find_spec
from pathlib import Path

from store.errors import AssetError


def read_package_file(package: str, *parts: str, sha256: str) -> bytes:
    """Return the content of a file inside the installed top-level *package*, whose code does not run.

    Raises:
        AssetError: the package is not installed, it has no such file, or the content's SHA-256 is not *sha256*.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise AssetError(f"{'/'.join((package, *parts))} is missing: the package {package!r} is not installed")
    path = Path(spec.submodule_search_locations[0], *parts)
    try:
        content = path.read_bytes()
    except OSError as exc:
        raise AssetError(f"cannot read {path}: {exc}") from exc
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise AssetError(f"{path} is damaged or of another version: its SHA-256 is {found}, not {sha256}")
    return content
