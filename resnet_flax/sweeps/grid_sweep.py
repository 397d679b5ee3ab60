"""A sweep over any keys of a config, as an experiment: its flags, its cases, its figures and tables."""

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
    """Returns the experiment of a grid.

    Args:
      axes: the grid where none is given, a text for each --grid.
      x: the key on the horizontal axis where none is given; by default the grid's first that is not chosen over.
      fields: of the declaration, such as ``title`` and ``question``.
    """
    settings = {
        "grid": Setting(
            tuple(axes),
            "KEY=VALUE,VALUE,... of the config, once for each key. Whole numbers may be ranges: model.depth=8..56:6. "
            "Keys that change together: model.depth,optimizer.learning_rate=20:0.1,56:0.05",
            repeated=True,
        ),
        "x": Setting(x, "Key of the grid on the horizontal axis; by default its first one."),
        "lines": Setting((), "Keys of the grid that a line of the figure stands for; by default all others."),
        "best_over": Setting(
            (),
            "Keys of the grid whose values are tried and chosen for each case, by the error on validation images "
            "(data.validation); only the chosen ones run with all seeds.",
        ),
        "choose_seeds": Setting((), "Seeds with which values are tried; by default the first of --seeds."),
    }
    return Experiment(settings=settings, cases=_cases, findings=_findings, then=_then, **fields)


@dataclasses.dataclass(frozen=True)
class _Roles:
    """The parts that the keys of a grid have in its figure.

    Attributes:
      axes: of the grid.
      x: the key on the horizontal axis; "" where there is none.
      lines: the keys that tell lines apart.
      chooser: of the values that are chosen, if any are.
    """

    axes: Sequence[list[Point]]
    x: str
    lines: Sequence[str]
    chooser: Chooser | None

    def line(self, outcome: Outcome) -> str:
        """Names the line of a run."""
        said = [_setting(key, outcome) for key in self.lines]
        name = configs.name_of(outcome.run.config.model)
        return ", ".join(said) or (name.partition("-")[0] if self.x == "model.depth" else name)

    def case(self, outcome: Outcome) -> str:
        """Names the case of a run, without what is chosen for it."""
        return ", ".join([self.line(outcome), *([self.at_x(outcome)] if self.x else [])])

    def tried(self, outcome: Outcome) -> str:
        """Names the values of a run that may be chosen."""
        return ", ".join(_setting(key, outcome) for key in (self.chooser.keys if self.chooser else ()))

    def at_x(self, outcome: Outcome) -> str:
        """Names the place of a run on the horizontal axis."""
        return _setting(self.x, outcome)


def _setting(key: str, outcome: Outcome) -> str:
    """Returns a value of a run in words; a unit as its network's name has it: vgg networks are made of plain ones."""
    config = outcome.run.config
    unit = configs.name_of(config.model).partition("-")[0]
    return unit if key == "model.unit" else words.setting(key, configs.flatten(config)[key])


def _roles(request: Request) -> _Roles:
    """Reads the settings.

    Raises:
      UserError: the grid is missing or cannot be, or another setting names what it does not vary.
    """
    given = request.settings
    if not given.grid:
        raise UserError("--grid is missing: a key and its values, such as --grid model.depth=8..56:6")
    axes = grid.axes(given.grid, request)
    keys = grid.keys_of(axes)
    for flag, named in {"best_over": given.best_over, "x": [given.x] * bool(given.x), "lines": given.lines}.items():
        for key in named:
            if key not in keys and (flag, key) != ("x", "model.depth"):  # which follows from other keys, too
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
            raise UserError(f"--best-over={','.join(given.best_over)} chooses {key}: it is on no axis and of no line")
    x = given.x or next((key for key in keys if key not in chosen), "")
    with_x = next((list(axis[0]) for axis in axes if x in axis[0]), [x])
    lines = given.lines or [key for key in keys if key not in (*with_x, *chosen)]
    for axis in axes:
        if len(axis) > 1 and set(axis[0]).isdisjoint((*with_x, *lines, *chosen)):
            raise UserError(
                f"--lines={','.join(lines)}: {', '.join(axis[0])} varies, too, and a line would mix its values; add it"
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
    """Draws the errors against x, and the curves; of values that are chosen, reports which."""
    roles = _roles(results.request)
    shown, protocol = results.outcomes, ""
    tables: list[Table] = []
    notes: list[str] = []
    if roles.chooser:
        shown = results.of(CHOSEN)
        table, notes = roles.chooser.report(results)
        tables, protocol = [table], f", each at its best {' and '.join(map(words.name, roles.chooser.over))}"
    figures, runs = [], f"{results.data}: the runs behind it{protocol}"
    if not shown:  # nothing is chosen yet
        tried = f"{results.data}: the values that are tried"
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
    # A linear axis would lay the smaller ones upon each other.
    log = bool(numbers) and max(numbers) >= 16 * min(numbers)
    return final_errors.against(shown, path, f"{results.data}: error against {x}{protocol}", roles.x, roles.line, log)
