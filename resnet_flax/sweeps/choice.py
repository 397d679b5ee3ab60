"""Chooses the best values of some keys for each case of a sweep, by the error on validation images."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax.errors import UserError
from resnet_flax.reporting import words
from resnet_flax.reporting.record import Table
from resnet_flax.reporting.tables import write_rows
from resnet_flax.sweeps import grid
from resnet_flax.sweeps.cases import Case, Outcome, Request, label_of
from resnet_flax.sweeps.declaration import Results, Stage
from resnet_flax.sweeps.grid import Point
from resnet_flax.sweeps.plan import identity, is_in_name, plan

CHOSEN = "chosen"  # the name of the group of chosen cases
AT_AN_END = "at the end of the grid: a wider one may do better"


@dataclasses.dataclass(frozen=True)
class Candidate:
    """One combination of values to choose from.

    Attributes:
      values: The values by config key.
      outcomes: The outcome of the run with each seed, or None for a run that is not among the results.
    """

    values: Point
    outcomes: Sequence[Outcome | None]

    @property
    def has_ended(self) -> bool:
        """True if all of its runs have ended."""
        return all(o is not None and o.has_ended for o in self.outcomes)

    @property
    def failure(self) -> str:
        """How one of its runs failed, or an empty text if none did."""
        return next((o.failure for o in self.outcomes if o is not None and o.failure), "")

    def mean(self, metric: str) -> float:
        """Returns the mean of a metric at the final step over the seeds; infinity if a run failed or is unfinished."""
        found = [None if o is None or o.failure else o.final.get(metric) for o in self.outcomes]
        numbers = [number for number in found if number is not None]
        return math.inf if len(numbers) < len(found) else float(np.mean(numbers))


@dataclasses.dataclass(frozen=True)
class Choice:
    """The choice for one case.

    Attributes:
      name: The label of the case without the chosen values, such as ``plain-56``.
      rest: The values of the other keys of the grid.
      candidates: The values to choose from, in the order of the grid.
    """

    name: str
    rest: Point
    candidates: Sequence[Candidate]

    @property
    def best(self) -> Candidate | None:
        """The candidate with the least validation error; None if none has finished, or while any has not ended.

        Among equal errors, the least validation loss decides, and then the order of the grid.
        """
        if not all(candidate.has_ended for candidate in self.candidates):
            return None
        best = min(self.candidates, key=lambda c: (c.mean("validation_error"), c.mean("validation_loss")))
        return best if math.isfinite(best.mean("validation_error")) else None

    @property
    def failed(self) -> bool:
        """True if every candidate has failed."""
        return all(candidate.has_ended and candidate.failure for candidate in self.candidates)

    def keys_at_end(self, over: Sequence[str]) -> list[str]:
        """Lists the keys whose chosen value is the least or the greatest candidate, and not a limit of the key."""
        found = []
        for key in over:
            values = [value for c in self.candidates if (value := c.values[key]) is not None]  # None: the derived value
            limits = (configs.KEYS[key].least, configs.KEYS[key].most)
            number = configs.KEYS[key].kind in (int, float)
            if number and len(set(values)) > 1 and self.best is not None:
                value = self.best.values[key]
                found += [key] * (value in (min(values), max(values)) and value not in limits)
        return found


@dataclasses.dataclass(frozen=True)
class Chooser:
    """Chooses values for each case of a grid.

    Attributes:
      axes: The axes of the grid.
      over: The keys whose values are chosen.
      seeds: The seeds with which the values are tried.
    """

    axes: Sequence[list[Point]]
    over: Sequence[str]
    seeds: Sequence[int]

    @property
    def keys(self) -> list[str]:
        """All keys whose values are chosen: those of ``over``, and the keys that change together with them."""
        return grid.keys_of(self._split()[1])

    def _split(self) -> tuple[list[list[Point]], list[list[Point]]]:
        chosen = [axis for axis in self.axes if not set(self.over).isdisjoint(axis[0])]
        return [axis for axis in self.axes if axis not in chosen], chosen

    def candidate_cases(self, request: Request) -> list[Case]:
        """Returns a case for each combination of values.

        Raises:
          UserError: A case has no validation images. The test images are never used for a choice.
        """
        cases = [grid.case(point, seeds=self.seeds) for point in grid.points(self.axes)]
        lacking = [run.name for run in plan(cases, request) if not run.config.data.validation]
        if lacking:
            raise UserError(
                f"--best-over={','.join(self.over)}: {lacking[0]} has data.validation=0, so it has no images to choose "
                f"by: test images are never used for a choice. Set training images aside with "
                f"--config.data.validation=N, such as a tenth of them (the paper: 5000 of CIFAR-10's 50000)"
            )
        return cases

    def second_stage(self, request: Request) -> Stage:
        """Returns the stage that trains the chosen cases with all seeds."""
        names = [choice.name for choice in self.choices([], request)]
        seeds = [seed for seed in request.seeds if seed not in self.seeds]
        over = " and ".join(self.over)
        return Stage(
            CHOSEN,
            [f"the best {over} of {name}, seed {seed}" for seed in seeds for name in names],
            f"then {len(names) * len(seeds)} more runs: the best {over} of each of {len(names)} cases, with "
            f"{_seeds(seeds)}",
            lambda results: [case for c in self.choices(results.outcomes, request) for case in self._case(c, request)],
        )

    def choices(self, outcomes: Sequence[Outcome], request: Request) -> list[Choice]:
        """Returns the choice for each case, based on the outcomes so far."""
        known = {identity(outcome.run.config): outcome for outcome in outcomes}
        rests, chosen = self._split()
        found = []
        for rest in grid.points(rests):
            candidates = []
            for values in grid.points(chosen):
                runs = plan([grid.case(rest | values, seeds=self.seeds)], request)
                candidates.append(Candidate(values, [known.get(identity(run.config)) for run in runs]))
            found.append(Choice(self._name(runs[0].config, rest), rest, candidates))
        return found

    def _name(self, config: ConfigDict, rest: Point) -> str:
        """Returns the name of a case: its network, unless that is being chosen, and the values of its other keys."""
        if set(self.keys).isdisjoint((*configs.NAME_KEYS, "model.stage_units")):
            return label_of(configs.name_of(config.model), {k: v for k, v in rest.items() if not is_in_name(k, v)})
        return label_of("", rest).strip() or "the network"

    def _case(self, choice: Choice, request: Request) -> list[Case]:
        """Returns the case to train with all seeds, or nothing while the choice is open."""
        best = choice.best
        if best is not None:
            case = grid.case(choice.rest | best.values)
            remark = " (at the end of the grid)" * bool(choice.keys_at_end(self.over))
            return [dataclasses.replace(case, label=plan([case], request)[0].label + remark)]
        if choice.failed:  # The table then has a row for one of the failed candidates.
            label = f"{choice.name}, each {' and '.join(self.over)}"
            return [grid.case(choice.rest | choice.candidates[0].values, label=label, seeds=self.seeds)]
        return []

    def report(self, results: Results) -> tuple[Table, list[str]]:
        """Writes choices.csv and choices.md; returns the table's entry in the record, and notes for the report."""
        choices = self.choices(results.outcomes, results.request)
        rows = [self._row(choice) for choice in choices]
        images = sorted({o.run.config.data.validation for o in results.outcomes})
        over = " and ".join(map(words.name, self.over))
        caption = (
            f"The {over} of each case, chosen by the error in % on {' or '.join(map(str, images))} images set aside "
            f"from training, at the final step ({_seeds(self.seeds)}). Equal errors are decided by the loss there."
        )
        notes = [f"Each case is shown at its own best {over}. {caption} Test images were not used for the choice."]
        notes += [
            f"{words.without_keys(choice.name)}: {words.setting(key, best.values[key])} is {AT_AN_END}."
            for choice in choices
            if (best := choice.best) is not None
            for key in choice.keys_at_end(self.over)
        ]
        header = ("network", *self.keys, "validation error %", "tried", "remark")
        return write_rows(results.folder / "choices.csv", header, rows, caption), notes

    def _row(self, choice: Choice) -> tuple[str, ...]:
        best, several = choice.best, len(self.keys) > 1

        def text(candidate: Candidate) -> str:
            values = candidate.values.items()
            named = ", ".join(words.setting(key, value) if several else str(value) for key, value in values)
            error = candidate.mean("validation_error")
            return f"{named}: {f'{100 * error:.2f}' if math.isfinite(error) else candidate.failure or 'not begun'}"

        at_end = choice.keys_at_end(self.over)
        remark = "; ".join(f"{words.name(key)} {AT_AN_END}" if several else AT_AN_END for key in at_end)
        if best is None:
            remark = "every value failed" if choice.failed else "not decided yet"
        return (
            words.without_keys(choice.name),
            *("-" if best is None else str(best.values[key]) for key in self.keys),
            "-" if best is None else f"{100 * best.mean('validation_error'):.2f}",
            "; ".join(map(text, choice.candidates)),
            remark,
        )


def _seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}" if seeds else "no further seed"
