"""The code of a registry's entry: the file that defines it, and a checksum."""

import contextlib
import hashlib
import inspect
from collections.abc import Callable
from pathlib import Path
from types import CodeType
from typing import Any


def defining_file(entry: Any) -> Path | None:
    """Returns the file that defines a registry's entry, or the function or class inside it; None for a notebook."""
    with contextlib.suppress(TypeError, OSError):  # a class defined in a notebook has no file
        file = Path(inspect.getsourcefile(_code(entry) or type(None)) or "").absolute()
        return file if file.is_file() else None
    return None


def checksum(entry: Any) -> str:
    """Returns the SHA-256 of the file that defines an entry, or of its code if no file does; "" if it has no code."""
    file, code = defining_file(entry), _code(entry)
    if code is None:
        return ""
    return hashlib.sha256(file.read_bytes() if file else _text(code).encode()).hexdigest()


def _code(entry: Any) -> Callable | None:
    inside = vars(entry).values() if hasattr(entry, "__dict__") else ()
    return next((code for code in (entry, *inside) if inspect.isfunction(code) or inspect.isclass(code)), None)


def _text(code: Callable) -> str:
    """Returns the text of a function, or of a class's functions and plain values; instructions where there is none."""
    if inspect.isfunction(code):
        with contextlib.suppress(TypeError, OSError):  # a notebook keeps the text of its cells, and a prompt does not
            return inspect.getsource(code)
        return str(_instructions(_innermost(code).__code__))
    own = {}
    for name, value in vars(code).items():
        if inspect.isfunction(value):
            file = _innermost(value).__code__.co_filename
            if file != "<string>" and not Path(file).is_file():  # neither generated nor a library's
                own[name] = _text(value)
        elif all(isinstance(v, bool | int | float | str) for v in (value if isinstance(value, tuple) else [value])):
            own |= {} if name.startswith("__") else {name: repr(value)}
    return str(sorted(own.items()))


def _innermost(function: Callable) -> Callable:
    """Returns the function that a decorated one wraps; itself if that is not a Python function."""
    inner = inspect.unwrap(function)
    return inner if inspect.isfunction(inner) else function


def _instructions(code: CodeType) -> list[Any]:
    """Returns what a function does, without the place where it is written; equal in every process."""
    values = [
        _instructions(c) if inspect.iscode(c) else sorted(map(repr, c)) if isinstance(c, frozenset) else repr(c)
        for c in code.co_consts
    ]
    return [code.co_code.hex(), code.co_names, values]
