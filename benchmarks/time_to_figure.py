"""Seconds of each phase of ``make curves``: starting, getting ready, training.

python -m benchmarks.time_to_figure [--output=FILE.csv] [--argument=--depths=8 --argument=--config.train.steps=100]

Runs experiments.plain_vs_residual in an empty folder with an empty compilation cache, and notes when it prints each
line. Takes about 2 minutes on 2 CPU cores.
"""

import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from absl import flags

from benchmarks import options
from resnet_flax import command
from resnet_flax.errors import Failed

_ARGUMENTS = flags.DEFINE_multi_string("argument", [], "Argument of experiments.plain_vs_residual; may be repeated.")

_HEADER = ("phase", "seconds", "share")
_START = re.compile(r"run \d+ of \d+: (.+?)(;|$)")
_READY = re.compile(r".*; ready after [\d.]+ s$")


def main() -> None:
    """Runs the experiment once, and prints the table."""
    with tempfile.TemporaryDirectory() as folder:
        phases = phases_of(_lines_of(Path(folder), list(_ARGUMENTS.value)))
    total = sum(seconds for _, seconds in phases)
    rows = [(name, f"{seconds:.1f}", f"{seconds / total:.0%}") for name, seconds in phases]
    options.print_and_write(_HEADER, [*rows, ("total", f"{total:.1f}", "100%")])


def phases_of(lines: list[tuple[float, str]]) -> list[tuple[str, float]]:
    """Returns names and seconds of the phases.

    A run has two phases: until it is ready to train (data, network, compiling), and until the next run or the end.

    Args:
      lines: The experiment's lines, each with the second at which it was printed; the last one marks the end.
    """
    marks = [(0.0, "starting Python and the libraries")]
    for at, line in lines:
        if found := _START.match(line):
            marks.append((at, f"{found[1]}: data, network, compiling"))
        elif _READY.match(line):
            marks.append((at, marks[-1][1].partition(":")[0] + ": training and evaluating"))
    end = lines[-1][0]
    times = [at for at, _ in marks[1:]] + [end]
    return [(name, until - at) for (at, name), until in zip(marks, times, strict=True)]


def _lines_of(folder: Path, arguments: list[str]) -> list[tuple[float, str]]:
    arguments = arguments or ["--config=configs/digits.py", "--depths=20,56", "--seeds=0"]
    given = [sys.executable, "-m", "experiments.plain_vs_residual", *arguments, f"--workdir={folder / 'curves'}"]
    lines, start = [], time.perf_counter()
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    with subprocess.Popen(
        given, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        for line in process.stdout:
            lines.append((time.perf_counter() - start, line.rstrip("\n")))
            print(line, end="", file=sys.stderr, flush=True)
    lines.append((time.perf_counter() - start, "end"))
    if process.returncode:
        raise Failed(f"experiments.plain_vs_residual ended with exit code {process.returncode}; see its output above")
    return lines


if __name__ == "__main__":
    command.run(main)
