"""Finds the config files and experiments that come with the project."""

from pathlib import Path

PACKAGE = Path(__file__).parent


def folder(name: str) -> Path:
    """Returns the folder ``configs`` or ``experiments``: inside an installed package, beside it in a checkout."""
    inside = PACKAGE / name
    return inside if inside.is_dir() else PACKAGE.parent / name


def names(name: str) -> list[str]:
    """Lists the files of such a folder by name, without the suffix."""
    return sorted(file.stem for file in folder(name).glob("[!_]*.py"))
