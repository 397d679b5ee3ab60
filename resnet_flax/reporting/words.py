"""Words for figures and readable tables: names and values of keys, labels without keys, and how seeds failed."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

from resnet_flax import config as configs
from resnet_flax.errors import UserError
from resnet_flax.sweeps.cases import Outcome

_SAY_THEMSELVES = ("model.family", "model.unit", "model.block")
_SETTING = re.compile(r"\b([a-z]+\.\w+)=(\([^)]*\)|\S+)")
_KEY = re.compile(r"\b[a-z]+\.[a-z]\w*")


def name(key: str) -> str:
    """Returns the words for a config key, such as ``weight decay`` for ``optimizer.weight_decay``.

    Raises:
      UserError: There is no such key.
    """
    if key not in configs.KEYS:
        raise UserError(configs.unknown_key(key, list(configs.KEYS)))
    return configs.KEYS[key].words


def value(given: Any) -> str:
    """Returns a value as the ticks of an axis show it, such as ``0.001``, ``yes`` or ``3, 4, 6``."""
    if isinstance(given, bool):
        return "yes" if given else "no"
    if isinstance(given, list | tuple):
        return ", ".join(map(str, given)) or "the usual"
    return f"{given:g}" if isinstance(given, float) else str(given).replace("_", " ") if given != "" else "none"


def setting(key: str, given: Any) -> str:
    """Returns a key and its value in words, such as ``weight decay 0.001``, ``56 layers`` or ``no flips``."""
    if key == "model.depth":
        return f"{given} layers"
    if key in _SAY_THEMSELVES:
        return value(given)
    if isinstance(given, bool):
        return f"{'' if given else 'no '}{name(key)}"
    return f"{name(key)} {value(given)}"


def without_keys(label: str) -> str:
    """Returns a label with words for its keys, such as ``plain-56, dropout 0.5`` for ``plain-56 model.dropout=0.5``."""

    def words(found: re.Match[str]) -> str:
        key, text = found.groups()
        if key not in configs.KEYS:
            return found[0]
        try:
            return ", " + setting(key, configs.KEYS[key].parse(text))
        except (KeyError, ValueError):
            return f", {name(key)} {text}"

    text = re.sub(r"\s*,\s*", ", ", _SETTING.sub(words, label)).removeprefix(", ")
    return _KEY.sub(lambda key: name(key[0]) if key[0] in configs.KEYS else key[0], text).replace("_", " ")


def ending(members: Sequence[Outcome]) -> str:
    """Returns how the seeds of one label failed, such as ``1 of 3 seeds diverged``, or an empty text if none did."""
    failures = Counter(o.failure for o in members if o.failure)
    if failures.total() == len(members) and len(failures) == 1:
        return next(iter(failures))
    parts = [f"{count} of {len(members)} seeds {what}" for what, count in failures.items()]
    return ", ".join(parts)
