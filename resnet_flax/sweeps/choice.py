"""The choice of the best values for each case of a sweep, by the error on validation images."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from resnet_flax import config as configs
from resnet_flax.errors import UserError
from resnet_flax.reporting.record import Table
from resnet_flax.reporting.tables import write_rows
from resnet_flax.sweeps import grid
from resnet_flax.sweeps.cases import Case, Outcome, Request, label_of
from resnet_flax.sweeps.declaration import Results, Stage
from resnet_flax.sweeps.grid import Point
from resnet_flax.sweeps.plan import identity, is_in_name, plan

CHOSEN = "chosen"  # the group of the chosen cases
AT_AN_END = "at the end of the grid: a wider one may do better"


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One of the values that a choice is made among.

    Attributes:
      values: by config key.
      outcomes: of its runs, a seed each; None for one that is not among the results.
    """

    values: Point
    outcomes: Sequence[Outcome | None]

    @property
    def has_ended(self) -> bool:
        """Whether nothing of it is still to be run."""
        return all(o is not None and o.has_ended for o in self.outcomes)

    @property
    def failure(self) -> str:
        """How a run of it failed, if any did."""
        return next((o.failure for o in self.outcomes if o is not None and o.failure), "")

    def mean(self, metric: str) -> float:
        """Returns the mean of a metric at the final step; infinite where a run has not come to it."""
        found = [None if o is None or o.failure else o.final.get(metric) for o in self.outcomes]
        numbers = [number for number in found if number is not None]
        return math.inf if len(numbers) < len(found) else float(np.mean(numbers))


@dataclasses.dataclass(frozen=True)
class Choice:
    """The choice for one case.

    Attributes:
      name: of the case without what is chosen, such as ``plain-56``.
      rest: its values by config key, but for those chosen.
      tried: the values to choose from, in the order of the grid.
    """

    name: str
    rest: Point
    tried: Sequence[Candidate]

    @property
    def best(self) -> Candidate | None:
        """The one with the least validation error, then validation loss, then the first; None while any is running."""
        if not all(tried.has_ended for tried in self.tried):
            return None
        best = min(self.tried, key=lambda t: (t.mean("validation_error"), t.mean("validation_loss")))
        return best if math.isfinite(best.mean("validation_error")) else None

    @property
    def failed(self) -> bool:
        """Whether no value came to its end."""
        return all(tried.has_ended and tried.failure for tried in self.tried)

    def keys_at_end(self, over: Sequence[str]) -> list[str]:
        """Lists the keys whose chosen value is the least or the greatest tried, and could be smaller or greater."""
        found = []
        for key in over:
            values = [tried.values[key] for tried in self.tried]
            limits = (configs.KEYS[key].least, configs.KEYS[key].most)
            number = configs.KEYS[key].kind in (int, float)
            if number and min(values) < max(values) and self.best is not None:
                value = self.best.values[key]
                found += [key] * (value in (min(values), max(values)) and value not in limits)
        return found


@dataclasses.dataclass(frozen=True)
class Chooser:
    """Chooses values for each case of a grid.

    Attributes:
      axes: of the grid.
      over: the keys whose values are chosen.
      seeds: with which they are tried.
    """

    axes: Sequence[list[Point]]
    over: Sequence[str]
    seeds: Sequence[int]

    @property
    def keys(self) -> list[str]:
        """The keys that are chosen: those asked for, and those that change together with them."""
        return grid.keys_of(self._split()[1])

    def _split(self) -> tuple[list[list[Point]], list[list[Point]]]:
        chosen = [axis for axis in self.axes if not set(self.over).isdisjoint(axis[0])]
        return [axis for axis in self.axes if axis not in chosen], chosen

    def candidate_cases(self, request: Request) -> list[Case]:
        """Returns a case for each combination of values.

        Raises:
          UserError: a case has no validation images to choose by; the test images never choose.
        """
        cases = [grid.case(point, seeds=self.seeds) for point in grid.points(self.axes)]
        lacking = [run.name for run in plan(cases, request) if not run.config.data.validation]
        if lacking:
            raise UserError(
                f"--best-over={','.join(self.over)}: {lacking[0]} has data.validation=0, so nothing to choose by: the "
                f"test images must not choose. Set training images aside by --config.data.validation=N, such as a "
                f"tenth of them (the paper: 5000 of CIFAR-10's 50000)"
            )
        return cases

    def second_stage(self, request: Request) -> Stage:
        """Returns the stage that runs the chosen cases with all seeds."""
        names = [choice.name for choice in self.choices([], request)]
        seeds = [seed for seed in request.seeds if seed not in self.seeds]
        over = " and ".join(self.over)
        said = f"then {len(names) * len(seeds)} more: the best {over} of each of {len(names)}, with {_seeds(seeds)}"
        return Stage(
            CHOSEN,
            [f"the best {over} of {name}, seed {seed}" for seed in seeds for name in names],
            said,
            lambda results: [case for c in self.choices(results.outcomes, request) for case in self._case(c)],
        )

    def choices(self, outcomes: Sequence[Outcome], request: Request) -> list[Choice]:
        """Returns the choice for each case, by the outcomes of the runs so far."""
        known = {identity(outcome.run.config): outcome for outcome in outcomes}
        rests, chosen = self._split()
        found = []
        for rest in grid.points(rests):
            tried = []
            for values in grid.points(chosen):
                runs = plan([grid.case(rest | values, seeds=self.seeds)], request)
                tried.append(Candidate(values, [known.get(identity(run.config)) for run in runs]))
            name = configs.name_of(runs[0].config.model)
            found.append(Choice(label_of(name, {k: v for k, v in rest.items() if not is_in_name(k, v)}), rest, tried))
        return found

    def _case(self, choice: Choice) -> list[Case]:
        """Returns the case to run with all seeds; none as long as the choice is open."""
        best = choice.best
        if best is not None:
            label = label_of(choice.name, best.values) + (
                " (at the end of the grid)" if choice.keys_at_end(self.over) else ""
            )
            return [grid.case(choice.rest | best.values, label=label)]
        if choice.failed:  # a row that says so, of the runs that there are
            label = f"{choice.name}, each {' and '.join(self.over)}"
            return [grid.case(choice.rest | choice.tried[0].values, label=label, seeds=self.seeds)]
        return []

    def report(self, results: Results) -> tuple[Table, list[str]]:
        """Writes choices.csv; returns what the report says of it, and notes."""
        choices = self.choices(results.outcomes, results.request)
        rows = [self._row(choice) for choice in choices]
        images = sorted({o.run.config.data.validation for o in results.outcomes})
        over = " and ".join(self.over)
        caption = (
            f"The {over} of each case, chosen by the error in % on {' or '.join(map(str, images))} images set aside "
            f"from training, at the final step ({_seeds(self.seeds)}); of equal ones by the loss there."
        )
        notes = [f"Each case at its own best {over}. {caption} The test images did not choose."]
        notes += [
            f"{choice.name}: {key}={best.values[key]} is {AT_AN_END}."
            for choice in choices
            if (best := choice.best) is not None
            for key in choice.keys_at_end(self.over)
        ]
        header = ("network", *self.keys, "validation error %", "tried", "remark")
        return write_rows(results.folder / "choices.csv", header, rows, caption), notes

    def _row(self, choice: Choice) -> tuple[str, ...]:
        best, several = choice.best, len(self.keys) > 1

        def said(tried: Candidate) -> str:
            values = ", ".join(f"{key}={v}" if several else str(v) for key, v in tried.values.items())
            error = tried.mean("validation_error")
            return f"{values}: {f'{100 * error:.2f}' if math.isfinite(error) else tried.failure or 'not begun'}"

        remark = "; ".join(f"{key} {AT_AN_END}" if several else AT_AN_END for key in choice.keys_at_end(self.over))
        if best is None:
            remark = "no value came to its end" if choice.failed else "not decided yet"
        return (
            choice.name,
            *("-" if best is None else str(best.values[key]) for key in self.keys),
            "-" if best is None else f"{100 * best.mean('validation_error'):.2f}",
            "; ".join(map(said, choice.tried)),
            remark,
        )


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}" if seeds else "no further seed"
