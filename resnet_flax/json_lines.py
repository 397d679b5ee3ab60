"""Files of one JSON object a line, of which a crash or a full disk may have cut one short."""

import json
from pathlib import Path
from typing import Any


def append(path: Path, line: dict[str, Any]) -> None:
    """Adds a line; not to the end of one that was cut short."""
    with open(path, "a+b") as file:
        if file.tell():
            file.seek(-1, 2)
            if file.read(1) != b"\n":
                file.write(b"\n")
        file.write(json.dumps(line).encode() + b"\n")
