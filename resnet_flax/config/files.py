"""Config files, and a config as JSON."""

import json
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from resnet_flax import shipped
from resnet_flax.config.names import check_depth
from resnet_flax.config.own_code import execute, explained
from resnet_flax.config.table import KEYS, base, flatten, unknown_key
from resnet_flax.errors import UserError
from resnet_flax.paths import expanded


def load(path: str, name: str | None = None, overrides: Mapping[str, Any] | None = None) -> ConfigDict:
    """Reads ``get_config`` of a Python file, calls it with a name, and applies overrides by dotted key.

    Args:
      path: of the file; or of one that comes with the project: ``digits``, ``configs/digits.py``.
      name: of the network, such as ``residual-56``.
      overrides: values that count as set by the user (:func:`set_by_user`).

    Raises:
      UserError: there is no such file or key, or the file raised.
    """
    path = config_path(path)
    module = execute(path, "config")
    if not hasattr(module, "get_config"):
        raise UserError(f"--config={path}: the file has no function get_config")
    try:
        c = module.get_config(name) if name else module.get_config()
    except (Exception, SystemExit) as error:
        raise explained(error, str(expanded(path))) or error from None
    if overrides:
        unknown = [key for key in overrides if key not in flatten(c)]
        if unknown:
            raise UserError(unknown_key(unknown[0], list(flatten(c))))
        for key, value in overrides.items():
            if key in KEYS:
                KEYS[key].check_type(value)
        c.update_from_flattened_dict(dict(overrides))
        check_depth(c, overrides.keys())
        object.__setattr__(c, _SET_BY_USER, frozenset(overrides))
    return c


_SET_BY_USER = "_set_by_user"  # an attribute, not a key


def set_by_user(c: ConfigDict | None) -> frozenset[str]:
    """The keys that :func:`load` was given for this config, in dotted form."""
    return getattr(c, "__dict__", {}).get(_SET_BY_USER, frozenset())


def to_json(c: ConfigDict) -> str:
    """Writes a config as JSON: complete, enough to run it again."""
    return json.dumps(c.to_dict(), indent=2) + "\n"


def from_json(text: str) -> ConfigDict:
    """Reads the config that :func:`to_json` wrote."""
    c = base()
    try:
        with c.unlocked():
            c.update_from_flattened_dict(flatten(json.loads(text)))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"not the JSON of a config: {' '.join(str(error).split())}") from None
    return c


def config_path(path: str) -> str:
    """The path of a config file as it was given; of one that comes with the project, from any folder.

    Raises:
      UserError: there is no such file.
    """
    if expanded(path).is_file():
        return path
    name = path.removeprefix("configs/").removesuffix(".py")
    if name not in (known := shipped.names("configs")):
        raise UserError(
            f"--config={path}: there is no such file; those that come with the project are {', '.join(known)}"
        )
    return str(shipped.folder("configs") / f"{name}.py")
