"""Damages a run directory on purpose, one fault at a time, and checks resume, evaluate and report on it:

python -m tests.faults --seed=0 --flips=40 --others=20

After each fault, it calls evaluate and report on the damaged folder, resumes the run, and calls evaluate and report
again. The right answers are the numbers without the fault, or one line and exit code 2. Wrong answers are any other
number, a traceback, a hang, or a report without the other run. Everything runs in one process, which keeps its compiled
programs.
"""

import argparse
import contextlib
import io
import json
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

import jax
from absl import flags

from resnet_flax import config as configs
from resnet_flax import evaluate as _flags  # noqa: F401 (defines the flags)
from resnet_flax.commands import evaluate
from resnet_flax.errors import UserError
from resnet_flax.reporting import report
from resnet_flax.runs.metrics import WALL_CLOCK
from resnet_flax.training import loop

_LIMIT_SECONDS = 60.0  # for all commands after a fault, on a busy machine
_NOT_DAMAGED = ("events.out", ".lock")  # no result depends on these


def config(steps):
    c = configs.load("configs/digits.py", "residual-8")
    c.update_from_flattened_dict({
        "model.width": 0.25, "model.stage_units": (1,), "data.subset": 64, "data.validation": 64,
        "train.batch_size": 16, "train.steps": steps, "train.log_every": 2, "train.eval_every": 4,
        "train.checkpoint_every": 4, "train.keep_checkpoints": 2, "schedule.milestones": (6, 9),
    })  # fmt: skip
    return c


def files(folder):
    found = (p for p in sorted(folder.rglob("*")) if p.is_file() and p.stat().st_size)
    return [p for p in found if not p.name.startswith(_NOT_DAMAGED)]


def flip(rng, folder):
    """Flips one bit: half of the time in a random file, otherwise in a random byte, which favours large files."""
    every = files(folder)
    path = rng.choice(every) if rng.random() < 0.5 else rng.choices(every, [p.stat().st_size for p in every])[0]
    content, place, bit = bytearray(path.read_bytes()), rng.random(), rng.randrange(8)
    place = int(place * len(content))
    content[place] ^= 1 << bit
    path.write_bytes(content)
    return f"bit {bit} of byte {place} of {path.relative_to(folder)}"


def cut(rng, folder):
    path = rng.choice(files(folder))
    size = rng.randrange(path.stat().st_size)
    path.write_bytes(path.read_bytes()[:size])
    return f"{path.relative_to(folder)} cut to {size} bytes"


def zero(rng, folder):
    path = rng.choice(files(folder))
    content = bytearray(path.read_bytes())
    start = rng.randrange(len(content))
    end = rng.randint(start + 1, len(content))
    content[start:end] = bytes(end - start)
    path.write_bytes(content)
    return f"bytes {start} to {end} of {path.relative_to(folder)} zeroed"


def delete(rng, folder):
    folders = [p for p in sorted(folder.rglob("*")) if p.is_dir()]
    path = rng.choice(files(folder) + folders)
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    return f"{path.relative_to(folder)} deleted"


def swap(rng, folder):
    steps = [p for p in (folder / "checkpoints").iterdir() if p.is_dir()]
    pairs = [steps] if len(steps) == 2 and rng.random() < 0.2 else [rng.sample(files(folder), 2)]
    (one, other), between = pairs[0], folder / "between"
    one.rename(between)
    other.rename(one)
    between.rename(other)
    return f"{one.relative_to(folder)} and {other.relative_to(folder)} swapped"


OTHERS = (cut, zero, delete, swap)


def answer(work, *arguments):
    """Returns the output of a command; None if it ends with one line and exit code 2."""
    output = io.StringIO()
    refused = None
    try:
        with contextlib.redirect_stdout(output):
            work(*arguments)
    except UserError as error:
        refused = error
    if refused is None:
        return output.getvalue()
    assert "\n" not in str(refused).strip(), refused
    assert refused.exit_code == 2
    print(f"    {refused}", file=sys.stderr)
    return None


def evaluate_output(run, step="latest"):
    flags.FLAGS.unparse_flags()
    flags.FLAGS(["evaluate", f"--workdir={run}", f"--step={step}"])
    found = answer(evaluate.main)
    return found and found.replace(str(run), "RUN")


def metrics_after_resume(run):
    """Resumes a run; returns its metrics without wall-clock times, or None if it is refused."""
    if answer(loop.run, configs.resolve(config(12)), run) is None:
        return None
    lines = [json.loads(text) for text in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in WALL_CLOCK} for line in lines]


def row(run):
    """Returns the run's row in the report, or None if it cannot be read; checks that the other run has its row."""
    page = report.write(run.parent, run.parents[1] / "report")[1].read_text().splitlines()
    rows = {line.split(" | ")[-1].strip("| "): line for line in page if line.startswith("| ")}
    label = f"{run.parent.name}/{run.name}"
    assert "| finished |" in rows[f"{run.parent.name}/whole"], "the other run's row is lost"
    if label not in rows:  # only if no file of the run is left
        assert not any((run / name).exists() for name in ("config.json", "metrics.jsonl", "starts.jsonl"))
        return None
    return None if "cannot be read" in rows[label] else rows[label]


def without_clock(text):
    """Splits a row into cells, without the duration and the start time of training."""
    cells = text.split(" | ")
    return cells[:6] + cells[7:10] + cells[11:]


class Faults:
    """The run that is damaged, and the right answers for it.

    Args:
      place: An empty folder.
    """

    def __init__(self, place):
        self.place = place
        self.begun, self.whole = place / "begun", place / "runs" / "whole"
        loop.run(configs.resolve(config(8)), self.begun)
        self.before = {self.said(self.begun, step) for step in ("4", "8")}
        shutil.copytree(self.begun, self.whole)
        self.metrics = metrics_after_resume(self.whole)
        self.after = self.said(self.whole, "12")
        shutil.copytree(self.begun, place / "runs" / "run")
        self.row_before = row(place / "runs" / "run")
        shutil.rmtree(place / "runs" / "run")

    def said(self, run, step):
        return evaluate_output(run, step).partition(" of ")[::2]

    def check(self, damage, rng):
        """Tries one fault; returns its description and the outcome."""
        run, started = self.place / "runs" / "run", time.monotonic()
        shutil.copytree(self.begun, run)
        what = damage(rng, run)
        print(what, file=sys.stderr)
        try:
            said = evaluate_output(run)
            assert said is None or said.partition(" of ")[::2] in self.before, said
            found = row(run)
            assert found is None or found == self.row_before, (found, self.row_before)
            lines = metrics_after_resume(run)
            if lines is None:
                return what, "refused"
            assert lines == self.metrics, [a for a, b in zip(lines, self.metrics, strict=False) if a != b]
            assert evaluate_output(run).partition(" of ")[::2] == self.after
            found = row(run)
            assert found
            assert "| finished |" in found
            assert time.monotonic() - started < _LIMIT_SECONDS
            return what, "the same"
        except Exception as error:
            raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
        finally:
            shutil.rmtree(run)


def main(seed, flips, others):
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    rng, ends = random.Random(seed), {}
    with tempfile.TemporaryDirectory() as place:
        jax.config.update("jax_compilation_cache_dir", f"{place}/cache")
        faults, failures = Faults(Path(place)), []
        for damage in [flip] * flips + [OTHERS[i % len(OTHERS)] for i in range(others)]:
            try:
                _, end = faults.check(damage, rng)
                ends[end] = ends.get(end, 0) + 1
            except AssertionError as error:
                failures.append(str(error))
                print(f"FAILED: {error}", file=sys.stderr)
    print(f"seed {seed}: {flips + others} faults: {', '.join(f'{n} {end}' for end, n in ends.items())}")
    for failure in failures:
        print(failure)
    return 1 if failures else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name, default in (("seed", 0), ("flips", 40), ("others", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    sys.exit(main(**vars(parser.parse_args())))
