"""Builds an experiment that sweeps over any config keys: its flags, cases, figures and tables."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from resnet_flax import config as configs
from resnet_flax.errors import UserError
from resnet_flax.figures import curves, final_errors
from resnet_flax.reporting import words
from resnet_flax.reporting.record import Figure, Table
from resnet_flax.sweeps import grid, options
from resnet_flax.sweeps.cases import Case, Outcome, Request
from resnet_flax.sweeps.choice import CHOSEN, Chooser
from resnet_flax.sweeps.declaration import Findings, Results, Stage
from resnet_flax.sweeps.experiment import Experiment
from resnet_flax.sweeps.grid import Point
from resnet_flax.sweeps.options import Setting


def experiment(axes: Sequence[str] = (), x: str = "", **fields: Any) -> Experiment:
    """Returns the experiment that sweeps over a grid.

    Args:
      axes: The default grid, a text for each --grid.
      x: The default key of the horizontal axis. If empty, it is the grid's first key outside of --best-over.
      fields: Further fields of the experiment, such as ``title`` and ``question``.
    """
    settings = {
        "grid": Setting(
            tuple(axes),
            "KEY=VALUE,VALUE,... for a config key; repeat the flag for each key. Whole numbers may be ranges: "
            "model.depth=8..56:6. Keys that change together: model.depth,optimizer.learning_rate=20:0.1,56:0.05",
            repeated=True,
        ),
        "x": Setting(x, "Key of the grid on the horizontal axis; by default the first key."),
        "lines": Setting((), "Keys of the grid whose values the lines of the figure stand for; by default all others."),
        "best_over": Setting(
            (),
            "Keys of the grid whose best values are chosen for each case, by the error on validation images "
            "(data.validation); only the chosen values are trained with all seeds.",
        ),
        "choose_seeds": Setting((), "Seeds with which values are tried; by default the first of --seeds."),
    }
    return Experiment(settings=settings, cases=_cases, findings=_findings, then=_then, **fields)


@dataclasses.dataclass(frozen=True)
class _Roles:
    """The roles of a grid's keys in the figure.

    Attributes:
      axes: The axes of the grid.
      x: The key on the horizontal axis, or an empty text.
      lines: The keys that tell lines apart.
      chooser: The chooser of the --best-over keys, or None.
    """

    axes: Sequence[list[Point]]
    x: str
    lines: Sequence[str]
    chooser: Chooser | None

    def line(self, outcome: Outcome) -> str:
        """Returns the name of a run's line."""
        values = [_setting(key, outcome) for key in self.lines]
        name = configs.name_of(outcome.run.config.model)
        return ", ".join(values) or (name.partition("-")[0] if self.x == "model.depth" else name)

    def case(self, outcome: Outcome) -> str:
        """Returns the name of a run's case, without the values to choose from."""
        return ", ".join([self.line(outcome), *([self.at_x(outcome)] if self.x else [])])

    def tried(self, outcome: Outcome) -> str:
        """Returns the values of the --best-over keys of a run, in words."""
        return ", ".join(_setting(key, outcome) for key in (self.chooser.keys if self.chooser else ()))

    def at_x(self, outcome: Outcome) -> str:
        """Returns the value on the horizontal axis of a run, in words."""
        return _setting(self.x, outcome)


def _setting(key: str, outcome: Outcome) -> str:
    """Returns a key and its value in a run, in words. The unit is that of the network's name, such as ``vgg``."""
    config = outcome.run.config
    unit = configs.name_of(config.model).partition("-")[0]
    return unit if key == "model.unit" else words.setting(key, configs.flatten(config)[key])


def _roles(request: Request) -> _Roles:
    """Reads the roles of the keys from the settings.

    Raises:
      UserError: The grid is missing or invalid, or another setting names a key that the grid does not vary.
    """
    given = request.settings
    if not given.grid:
        raise UserError("--grid is missing: a key and its values, such as --grid model.depth=8..56:6")
    axes = grid.axes(given.grid, request)
    keys = grid.keys_of(axes)
    for flag, named in {"best_over": given.best_over, "x": [given.x] * bool(given.x), "lines": given.lines}.items():
        for key in named:
            if key not in keys and (flag, key) != ("x", "model.depth"):  # Other keys may determine the depth.
                known = f"it varies {', '.join(keys)}" if key in configs.KEYS else configs.unknown_key(key, keys)
                raise UserError(f"--{flag}={','.join(named)}: --grid does not vary {key}; {known}")
    chooser, chosen = None, []
    if given.best_over:
        seeds = options.parse_numbers("choose_seeds", given.choose_seeds) or request.seeds[:1]
        chooser = Chooser(axes, given.best_over, seeds)
        chosen = chooser.keys
    elif given.choose_seeds:
        raise UserError("--choose_seeds has no effect without --best-over")
    for key in chosen:
        if key in (given.x, *given.lines):
            raise UserError(
                f"--best-over={','.join(given.best_over)} chooses {key}, so {key} cannot be in --x or --lines"
            )
    x = given.x or next((key for key in keys if key not in chosen), "")
    with_x = next((list(axis[0]) for axis in axes if x in axis[0]), [x])
    lines = given.lines or [key for key in keys if key not in (*with_x, *chosen)]
    for axis in axes:
        shown = [key for key in axis[0] if key in (x, *lines, *chosen)]
        if len({tuple(point[key] for key in shown) for point in axis}) < len({tuple(p.items()) for p in axis}):
            mixed = " and ".join(key for key in axis[0] if key not in shown)
            flag = f"--lines={','.join(lines)}: " * bool(lines)
            raise UserError(
                f"{flag}a line would mix the values of {mixed}, which --grid varies too; add {mixed} to --lines"
            )
    return _Roles(axes, x, lines, chooser)


def _cases(request: Request) -> list[Case]:
    roles = _roles(request)
    return (
        roles.chooser.candidate_cases(request)
        if roles.chooser
        else [grid.case(point) for point in grid.points(roles.axes)]
    )


def _then(request: Request) -> Stage | None:
    chooser = _roles(request).chooser
    return chooser.second_stage(request) if chooser else None


def _findings(results: Results) -> Findings:
    """Draws the errors against x and the curves, and reports the choices of --best-over."""
    roles = _roles(results.request)
    shown, protocol = results.outcomes, ""
    tables: list[Table] = []
    notes: list[str] = []
    if roles.chooser:
        shown = results.of(CHOSEN)
        table, notes = roles.chooser.report(results)
        tables, protocol = [table], f", each at its best {' and '.join(map(words.name, roles.chooser.over))}"
    figures, runs = [], f"{results.data}: errors during training{protocol}"
    if not shown:  # No value is chosen yet.
        tried = f"{results.data}: errors of the values to choose from"
        figures.append(curves.draw(results.outcomes, results.folder / "curves.png", tried, roles.case, roles.tried))
    elif roles.x:
        figures.append(_against(shown, roles, results, protocol))
        figures.append(curves.draw(shown, results.folder / "curves.png", runs, roles.line, roles.at_x))
    else:
        figures.append(curves.draw(shown, results.folder / "curves.png", runs, line=roles.line))
    return Findings(figures, tables, notes)


def _against(shown: Sequence[Outcome], roles: _Roles, results: Results, protocol: str) -> Figure:
    x = "depth" if roles.x == "model.depth" else words.name(roles.x)
    path = results.folder / f"{roles.x.rpartition('.')[2]}.png"
    values = {configs.flatten(o.run.config)[roles.x] for o in shown}
    numbers = [v for v in values if isinstance(v, int | float) and v > 0]
    # On a linear axis, the smaller values would lie on top of each other.
    log = bool(numbers) and max(numbers) >= 16 * min(numbers)
    return final_errors.against(shown, path, f"{results.data}: error against {x}{protocol}", roles.x, roles.line, log)
