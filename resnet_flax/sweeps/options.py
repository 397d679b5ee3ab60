"""The flags of experiments, and the request that they make."""

import dataclasses
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from absl import flags
from ml_collections import config_flags

from resnet_flax import config as configs
from resnet_flax.errors import UserError
from resnet_flax.paths import expanded
from resnet_flax.sweeps.cases import Cluster, Request
from resnet_flax.sweeps.ranges import integers
from resnet_flax.tracking import table

LAUNCHERS = ("local", "ray")


@dataclasses.dataclass(frozen=True)
class Setting:
    """A flag of one experiment. The type of its default is its type: a number, a text, a bool, or a tuple of these.

    Attributes:
      default: The default value.
      help: The help text.
      least: The smallest allowed number, or None.
      most: The largest allowed number, or None.
      repeated: If true, the flag is given once for each text, instead of once with commas.
      may_be_empty: If true, an empty list is allowed although the default is not empty.
    """

    default: Any
    help: str
    least: float | None = None
    most: float | None = None
    repeated: bool = False
    may_be_empty: bool = False

    def define(self, name: str, values: flags.FlagValues) -> None:
        """Defines the flag."""
        more: dict[str, Any] = {"flag_values": values, "module_name": "flags of this experiment"}
        limits = {"lower_bound": self.least, "upper_bound": self.most, **more}
        if self.repeated:
            flags.DEFINE_multi_string(name, list(self.default), self.help, **more)
        elif isinstance(self.default, tuple):
            flags.DEFINE_list(name, [str(value) for value in self.default], self.help, **more)
        elif isinstance(self.default, bool):
            flags.DEFINE_bool(name, self.default, self.help, **more)
        elif isinstance(self.default, int):
            flags.DEFINE_integer(name, self.default, self.help, **limits)
        elif isinstance(self.default, float):
            flags.DEFINE_float(name, self.default, self.help, **limits)
        else:
            flags.DEFINE_string(name, self.default, self.help, **more)

    def value(self, name: str, values: flags.FlagValues) -> Any:
        """Returns the flag's value from the command line.

        Raises:
          UserError: A value in a list is of the wrong type or outside of the limits, or the list is empty and must not
            be.
        """
        given: Any = values[name].value
        if self.repeated or not isinstance(self.default, tuple):
            return given
        kind = type(self.default[0]) if self.default else str
        self._check_length(f"--{name}=", given)
        if kind is str:
            return tuple(given)
        numbers = parse_numbers(name, given, kind)
        self._check_limits(f"--{name}", numbers)
        return tuple(numbers)

    def checked(self, name: str, value: Any) -> Any:
        """Checks a value given from Python and returns it in the form that the command line would give.

        Raises:
          UserError: The value is of the wrong type, outside of the limits, or empty and must not be.
        """
        several = isinstance(self.default, tuple)
        kind = (type(self.default[0]) if self.default else str) if several else type(self.default)
        if several != isinstance(value, list | tuple):
            wanted = "a list" if several else "a single value"
            raise UserError(f"{name}={value!r} must be {wanted}, such as {self.default!r}")
        if several and not self.repeated:
            self._check_length(f"{name}={value!r}", value)
        if several and not self.default:  # such as seeds, which are texts because they may be ranges
            value = tuple(str(part) if type(part) is int else part for part in value)
        for part in value if several else [value]:
            fits = type(part) is kind or (kind is float and type(part) is int)
            if not fits:
                raise UserError(f"{name}={value!r} must be of type {kind.__name__}, and {part!r} is not")
            self._check_limits(name, [part])
        return list(value) if self.repeated else value

    def _check_limits(self, name: str, numbers: Sequence[Any]) -> None:
        for number in numbers:
            if self.least is not None and number < self.least:
                raise UserError(f"{name}={number!r} must be at least {self.least}")
            if self.most is not None and number > self.most:
                raise UserError(f"{name}={number!r} must be at most {self.most}")

    def _check_length(self, given: str, values: Sequence[Any]) -> None:
        if not values and self.default and not self.may_be_empty:
            raise _empty(given, self.default)


def define(
    config: str,
    seeds: Sequence[int],
    settings: Mapping[str, Setting],
    values: flags.FlagValues = flags.FLAGS,
) -> None:
    """Defines the flags that all experiments share, and a flag for each setting of the experiment.

    Args:
      config: The default config file.
      seeds: The default seeds.
      settings: The settings by name.
      values: The flags object to define them in.
    """
    for name, setting in settings.items():  # The experiment's own flags come first in --help.
        setting.define(name, values)
    config_flags.DEFINE_config_file(
        "config",
        configs.config_path(config),
        "Config file of all runs. --config.KEY=VALUE sets a key for all runs.",
        flag_values=values,
    )
    numbers = [str(seed) for seed in seeds]
    flags.DEFINE_list(
        "seeds",
        numbers,
        f"Seeds, as numbers and not as a count: 0,1 or 0..4; --seeds=3 is the seed 3 alone. The default is "
        f"{','.join(numbers)}. Figures and tables show the mean and the standard deviation over the seeds.",
        flag_values=values,
    )
    flags.DEFINE_string("workdir", None, "Folder of the experiment's figures and tables.", flag_values=values)
    flags.DEFINE_string(
        "runs",
        None,
        "Folder of the run directories, by default runs/ in the workdir; experiments with the same folder share runs.",
        flag_values=values,
    )
    table.define_flag(values)
    flags.DEFINE_bool("dry-run", False, "Print the runs and stop.", flag_values=values)
    flags.DEFINE_bool(
        "draw",
        False,
        "Execute no run; write figures and tables of the results so far, while runs train or after they were stopped.",
        flag_values=values,
    )
    _define_launcher(values)
    flags.mark_flag_as_required("workdir", values)


def _define_launcher(values: flags.FlagValues) -> None:
    """Defines the flags that say where the runs are executed."""
    flags.DEFINE_enum(
        "launcher",
        "local",
        LAUNCHERS,
        "local: execute the runs here, one after the other; ray: as tasks of a Ray cluster, whose nodes must all see "
        "the folder of the runs, the data, and this checkout with its environment at the same paths, on a shared file "
        "system.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "ray_address",
        None,
        "HOST:PORT of the cluster; by default $RAY_ADDRESS, or else a cluster that is started on this machine.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "ray_workers",
        None,
        "Runs at a time on a cluster of this machine; by default as many as its cores and GPUs allow.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_float(
        "gpus_per_run",
        None,
        "GPUs for each run on Ray; with 0.5, two runs share a GPU. By default 1 if the cluster has GPUs, else 0.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_float("cpus_per_run", 1, "CPU cores for each run on Ray.", lower_bound=0.01, flag_values=values)


def request_from_flags(settings: Mapping[str, Setting], given: flags.FlagValues = flags.FLAGS) -> Request:
    """Returns the request that the command line makes.

    Raises:
      UserError: A value is of the wrong type, a list is empty, or a tracker is unknown or not installed.
    """
    if not given.seeds:
        raise _empty("--seeds=", [0, 1])
    path, _, network = config_flags.get_config_filename(given["config"]).partition(":")
    folder = expanded(given.workdir)
    return Request(
        config=path,
        network=network,
        overrides=config_flags.get_override_values(given["config"]),
        seeds=parse_numbers("seeds", given.seeds, int),
        folder=folder,
        runs=expanded(given.runs) if given.runs else folder / "runs",
        settings=SimpleNamespace(**{name: setting.value(name, given) for name, setting in settings.items()}),
        dry_run=bool(given["dry-run"].value),
        draw=given.draw,
        launcher=given.launcher,
        cluster=Cluster(given.ray_address, given.ray_workers, given.gpus_per_run, given.cpus_per_run),
        trackers=table.requested_trackers(given),
    )


def _empty(given: str, example: Sequence[Any]) -> UserError:
    return UserError(f"{given} is empty: give at least one value, such as {','.join(map(str, example))}")


def parse_numbers(flag: str, texts: Sequence[str], kind: type = int) -> list[Any]:
    """Parses the values of a list flag. Whole numbers may be ranges.

    Raises:
      UserError: A value is not a number, or a range is invalid. The message names the flag.
    """
    try:
        return [number for text in texts for number in (integers(text) if kind is int else [kind(text)])]
    except UserError as error:
        raise UserError(f"--{flag}={error}") from None
    except ValueError:
        kinds = {int: "whole numbers", float: "numbers"}[kind]
        raise UserError(f"--{flag}={','.join(texts)} must be {kinds} separated by commas") from None
