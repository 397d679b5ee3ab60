"""Files of one JSON object a line, of which a crash or a full disk may have cut one short."""

import json
from pathlib import Path
from typing import Any


def read(path: Path) -> list[dict[str, Any]]:
    """The whole lines, in order; none where there is no such file."""
    if not path.is_file():
        return []
    found = []
    for text in path.read_text().splitlines():
        try:
            found.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return found


def append(path: Path, line: dict[str, Any]) -> None:
    """Adds a line; not to the end of one that was cut short."""
    with open(path, "a+b") as file:
        if file.tell():
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(line).encode() + b"\n")
