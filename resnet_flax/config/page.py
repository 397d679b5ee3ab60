"""The table of keys as text: docs/config.md, and the end of ``--help``."""

from resnet_flax.config.key import Key
from resnet_flax.config.table import KEYS

_TOP = """# Keys of a config

`--config.KEY=VALUE` sets a key. The files in [configs/](../configs) change these defaults for their data sets.
`python -m resnet_flax.config > docs/config.md` makes this page from
[resnet_flax/config/table.py](../resnet_flax/config/table.py).
"""
_HEADER = "| key | default | values | meaning | notes |\n| --- | --- | --- | --- | --- |\n"


def page() -> str:
    """Returns docs/config.md; registries are imported for the names of their choices."""
    sections = dict.fromkeys(name.rpartition(".")[0] for name in KEYS)
    parts = [_TOP]
    for section in sections:
        rows = [_row(key) for key in KEYS.values() if key.name.rpartition(".")[0] == section]
        parts.append((f"## {section}\n\n" if section else "") + _HEADER + "".join(rows))
    return "\n".join(parts)


def keys_in_help(flag: str) -> str:
    """Returns a line for each key of a config flag: its default, its meaning, and when it has an effect."""
    lines = []
    for key in KEYS.values():
        condition = " and ".join(filter(None, (key.only, key.when)))
        lines.append(f"  {f'{key.name}={key.default}':<36}  {key.meaning}" + (f" [{condition}]" if condition else ""))
    return "\n".join([f"--{flag}.KEY=VALUE sets a key of the config. docs/config.md says more of them:", *lines])


def _row(key: Key) -> str:
    default = "" if key.default == "" else f"`{key.default}`"
    values = ", ".join(f"`{name}`" for name in key.names()) or key.bounds() or key.kind.__name__
    notes = [
        f"refused unless {_in_words(key.only)}" if key.only else "",
        f"in effect where {_in_words(key.when)}" if key.when else "",
        "follows other keys in some files" if key.derived else "",
        "" if key.resume == "same" else f"{key.resume} on resume",
        "" if key.protocol else "not compared with recipes",
    ]
    return f"| `{key.name}` | {default} | {values} | {key.meaning} | {'; '.join(filter(None, notes))} |\n"


def _in_words(condition: str) -> str:
    def words(part: str) -> str:
        name, equals, choices = part.partition("=")
        verb = f"is {'not ' if name.endswith('!') else ''}{choices.replace('|', ' or ')}" if equals else "is set"
        return f"`{name.removesuffix('!')}` {verb}"

    return " and ".join(map(words, condition.split(" and ")))
