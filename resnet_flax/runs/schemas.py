"""Checks the structure of the files in a run directory, without jax.

The functions ``check_...`` raise a ValueError or TypeError with the reason, and the caller adds the file's name.
"""

import json
import math
import re
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax.errors import UserError
from resnet_flax.registry import DATA_NAME, NAME

# Keys of metrics.jsonl that hold the fraction of images that are classified wrongly. Metrics of a user's own may have
# any other name, and any values.
ERRORS = re.compile("(train|test|validation)_(top5_)?error(_clean|_raw)*")
_SECTIONS = ("model", "data", "optimizer", "schedule", "train")


def read_config(content: bytes, path: Path) -> ConfigDict:
    """Parses the content of a config.json.

    Args:
      path: The file's path, for messages.

    Raises:
      UserError: The content is not a config.
    """
    try:
        given = json.loads(content)
        if not isinstance(given, dict) or not all(isinstance(given.get(s), dict) for s in _SECTIONS):
            raise ValueError(f"it lacks one of the sections {', '.join(_SECTIONS)}")
        found = configs.from_json(json.dumps(given))
        flat = configs.flatten(found)
        for name, key in configs.KEYS.items():
            key.check_type(flat.get(name))
            _check_text(key, flat[name])
        if flat["model.depth"] < 1 or flat["train.steps"] < 1:
            raise ValueError("a depth and steps are at least 1")
        configs.apply_name(configs.base(), configs.name_of(found.model))
        for name in flat:
            if not re.fullmatch(r"[\w.]{1,100}", name):
                raise ValueError(f"{name[:40]!r} is not a key")
        return found
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise invalid_file(path, error) from None


def _check_text(key: configs.Key, text: Any) -> None:
    """Refuses a value that its key does not allow, or that is unsafe in a file name.

    Registered names are only checked for their characters, so that no registry has to be imported.
    """
    if isinstance(key.choices, tuple):
        if key.choices and text not in key.choices:
            raise ValueError(f"{key.name}={text[:40]!r} is none of {', '.join(key.choices)}")
    elif not re.fullmatch(NAME, text):
        raise ValueError(f"{key.name}={text[:40]!r} is not a name")
    if key.name == "data.name" and (not re.fullmatch(DATA_NAME, text) or ".." in text.split("/")):
        raise ValueError(f"{key.name}={text[:40]!r} is not a name")


def invalid_file(path: Path, why: object) -> UserError:
    """Builds the error for a file whose content a run does not write."""
    return UserError(f"{path}: is not what a run writes: {' '.join(str(why).split())[:300]}")


def _check_dict(line: Any) -> None:
    if not isinstance(line, dict):
        raise ValueError(f"{str(line)[:40]!r} is not a JSON object")


def check_step(line: Any) -> None:
    """Refuses a value that is not an object with a step."""
    _check_dict(line)
    if type(line.get("step")) is not int or not 0 <= line["step"] < 2**63:
        raise ValueError("it has no step")


def check_line(line: Any) -> None:
    """Refuses a line of metrics with a value that is not a number, or an error that is not a fraction.

    Null stands for a number that is not finite, such as a loss beyond float32. ``seconds`` must be finite.
    """
    check_step(line)
    for key, value in line.items():
        if value is None and key != "seconds":
            continue
        if key != "step" and (not isinstance(value, int | float) or isinstance(value, bool)):
            raise ValueError(f"{key[:40]} is not a number")
        most = 1 if ERRORS.fullmatch(key) else 1e15 if key == "seconds" else math.nan
        if not math.isnan(most) and not 0 <= value <= most:
            raise ValueError(f"{key[:40]}={value} is not in [0, {most:g}]")


def check_start(line: Any) -> None:
    """Refuses a value that is not a line of starts.jsonl."""
    check_step(line)
    for key in ("parameters", "classes"):
        if type(line.get(key, 0)) is not int or line.get(key, 0) < 0:
            raise ValueError(f"{key} is not a number")
    own_code = line.get("own_code", {})
    if not isinstance(own_code, dict) or not all(isinstance(text, str) for text in own_code.values()):
        raise ValueError("own_code holds no checksums")
    for key, value in line.items():
        if key == "own_code":
            continue
        if not isinstance(value, str | int | float | None) or (isinstance(value, str) and len(value) > 500):
            raise ValueError(f"{key[:40]} is neither a short text nor a number")


def check_diverged(line: Any) -> None:
    """Refuses a value that is not the content of a diverged.json."""
    check_step(line)
    if not isinstance(line.get("message"), str):
        raise ValueError("it has no message")


def check_broken(line: Any) -> None:
    """Refuses a value that is not a line of broken_images.jsonl."""
    _check_dict(line)
    if not isinstance(line.get("image"), str):
        raise ValueError("it names no image")


def check_photographs(line: Any) -> None:
    """Refuses a value that is not the content of a photographs.json."""
    _check_dict(line)
    for key, kind in (("fingerprint", str), ("where", str), ("train", int), ("test", int)):
        if not isinstance(line.get(key), kind):
            raise ValueError(f"{key} is missing")
    if not isinstance(line.get("form", ""), str):  # an earlier version did not write it
        raise ValueError("form is not a text")
