"""The table of keys as text, for docs/config.md and for the end of ``--help``."""

from ml_collections import ConfigDict

from resnet_flax.config.key import Key
from resnet_flax.config.table import KEYS, flatten

_TOP = """# Keys of a config

`--config.KEY=VALUE` sets a key. The files in [configs/](../configs) change these defaults for their data sets:
`python train.py --config=configs/folder.py:residual-18 --help` shows the values of that file.
`python -m resnet_flax.config > docs/config.md` generates this page from
[resnet_flax/config/table.py](../resnet_flax/config/table.py).

In the column of notes, "refused unless" means that otherwise any value but the default ends the command with an error.
"has an effect only if" means that otherwise the key is ignored, and a remark says so if you set it (`init.reset_head`
is refused instead). Units without gates ignore `model.gate_bias` without a remark. Reports that compare a run with
published recipes leave out the keys that are "not part of a recipe". A run resumes only with the same values, except
for keys that "may change", and keys that "may grow" to larger values.
"""
_HEADER = "| key | default | values | meaning | notes |\n| --- | --- | --- | --- | --- |\n"


def page() -> str:
    """Returns the text of docs/config.md. Imports the registries, to list their names."""
    sections = dict.fromkeys(name.rpartition(".")[0] for name in KEYS)
    parts = [_TOP]
    for section in sections:
        rows = [_row(key) for key in KEYS.values() if key.name.rpartition(".")[0] == section]
        parts.append((f"## {section}\n\n" if section else "") + _HEADER + "".join(rows))
    return "\n".join(parts)


def keys_in_help(flag: str, config: ConfigDict | None = None) -> str:
    """Returns one line for each key: its value, its meaning, and the condition under which it has an effect.

    Args:
      flag: The name of the config flag.
      config: The config whose values to show; None for the defaults.
    """
    values = {} if config is None else flatten(config)
    shown = f"Without --{flag} on the command line, these are the defaults, which a config file changes"
    if config is not None:
        shown = f"These are the values of the --{flag} file and of the flags on this command line"
    lines = [f"--{flag}.KEY=VALUE sets a key of the config. docs/config.md describes them in full. {shown}:"]
    for key in (key for key in KEYS.values() if key.name != "module"):  # which --module sets
        condition = " and ".join(filter(None, (key.only, key.when)))
        value = f"{key.name}={values.get(key.name, key.default)}"
        lines.append(f"  {value:<36}  {key.meaning}" + (f" [{condition}]" if condition else ""))
    return "\n".join(lines)


def _row(key: Key) -> str:
    default = "" if key.default == "" else f"`{key.default}`"
    values = ", ".join(f"`{name}`" for name in key.names()) or key.bounds() or key.kind.__name__
    notes = [
        f"refused unless {_in_words(key.only)}" if key.only else "",
        f"has an effect only if {_in_words(key.when)}" if key.when else "",
        "some config files derive it from other keys" if key.derived else "",
        "" if key.resume == "same" else f"{key.resume} on resume",
        "" if key.protocol else "not part of a recipe",
    ]
    return f"| `{key.name}` | {default} | {values} | {key.meaning} | {'; '.join(filter(None, notes))} |\n"


def _in_words(condition: str) -> str:
    def words(part: str) -> str:
        name, equals, choices = part.partition("=")
        verb = f"is {'not ' if name.endswith('!') else ''}{choices.replace('|', ' or ')}" if equals else "is set"
        return f"`{name.removesuffix('!')}` {verb}"

    return " and ".join(map(words, condition.split(" and ")))
