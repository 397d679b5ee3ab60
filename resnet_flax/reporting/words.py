"""Words for a figure: a key's name and value, a label without keys, and how the seeds of a label ended."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from resnet_flax import config as configs
from resnet_flax.errors import UserError
from resnet_flax.sweeps.cases import Outcome

_SAY_THEMSELVES = ("model.family", "model.unit", "model.block")
_SETTING = re.compile(r"\b([a-z]+\.\w+)=(\([^)]*\)|\S+)")


def name(key: str) -> str:
    """Returns the words for a config key: ``weight decay`` for ``optimizer.weight_decay``.

    Raises:
      UserError: no config has that key.
    """
    if key not in configs.KEYS:
        raise UserError(configs.unknown_key(key, list(configs.KEYS)))
    return configs.KEYS[key].words


def value(given: Any) -> str:
    """Returns a value as an axis shows it: ``0.001``, ``yes``, ``3, 4, 6``."""
    if isinstance(given, bool):
        return "yes" if given else "no"
    if isinstance(given, list | tuple):
        return ", ".join(map(str, given)) or "the usual"
    return f"{given:g}" if isinstance(given, float) else str(given).replace("_", " ") if given != "" else "none"


def setting(key: str, given: Any) -> str:
    """Returns a key and its value in words: ``weight decay 0.001``, ``56 layers``, ``plain``, ``no flips``."""
    if key == "model.depth":
        return f"{given} layers"
    if key in _SAY_THEMSELVES:
        return value(given)
    if isinstance(given, bool):
        return f"{'' if given else 'no '}{name(key)}"
    return f"{name(key)} {value(given)}"


def without_keys(label: str) -> str:
    """Returns a label with words in place of keys: ``plain-56, dropout 0.5`` for ``plain-56 model.dropout=0.5``."""

    def words(found: re.Match[str]) -> str:
        key, text = found.groups()
        if key not in configs.KEYS:
            return found[0]
        try:
            return ", " + setting(key, configs.KEYS[key].parse(text))
        except (KeyError, ValueError):
            return f", {name(key)} {text}"

    return re.sub(r"\s*,\s*", ", ", _SETTING.sub(words, label)).removeprefix(", ").replace("_", " ")


def ending(members: Sequence[Outcome]) -> str:
    """Returns how the seeds of one label failed: ``diverged``, ``1 of 3 seeds diverged``; empty where none did."""
    failures = Counter(o.failure for o in members if o.failure)
    if failures.total() == len(members) and len(failures) == 1:
        return next(iter(failures))
    parts = [f"{count} of {len(members)} seeds {what}" for what, count in failures.items()]
    return ", ".join(parts)
