"""Where the config files and the experiments lie that come with the project."""

from pathlib import Path

PACKAGE = Path(__file__).parent


def folder(name: str) -> Path:
    """``configs`` or ``experiments``: inside the package where it is installed, beside it in a checkout."""
    inside = PACKAGE / name
    return inside if inside.is_dir() else PACKAGE.parent / name


def names(name: str) -> list[str]:
    """What is in such a folder, by the names of its files."""
    return sorted(file.stem for file in folder(name).glob("[!_]*.py"))
