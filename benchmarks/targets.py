"""Compiles the training step for accelerators that this machine does not have; counts memory, kernels and least time.

python -m benchmarks.targets --output=results/benchmarks/targets.csv [--rows=residual-50,v5e] [--seconds=600]

Requires Python 3.12 or later and the compilers: pip install -e '.[cuda13,tpu]'. Each row is compiled in a process of
its own, which is stopped after --seconds; its row then says so. The file is written after each row. If the command is
repeated, it resumes: rows in the file are not compiled again.

Nothing is run. "ms at best" is a lower bound by published rates (resnet_flax/measurements/chips.py), and "binds" names
the rate that gives it. Operations and "least GB" are counted from the step's equations. Kernels, calls, copies,
collectives and "program's GB" are read from the compiled program, for one step on one device. "ms for these" is the
time that the program's GB take in the device's memory. It is not a bound, since a cache may hold some of them, but
nearer to the time of a real step. "units" is "default" (scanned, or unrolled if few) or "unrolled". Takes about an hour
and a half on one CPU core.
"""

import csv
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from absl import flags

from benchmarks import options
from resnet_flax import command
from resnet_flax.errors import UserError
from resnet_flax.paths import expanded

_ROWS = flags.DEFINE_list("rows", [], "Compiles only rows whose first columns contain all of these. Default: all rows.")
_SECONDS = flags.DEFINE_integer("seconds", 600, "Seconds after which a row's process is stopped.", lower_bound=1)

_GIB = 2**30
_IMAGES = 50_000  # CIFAR-10's training images
_STEP = (
    "compile s", "GiB a device", "temporaries", "fits", "kernels", "library calls", "copies", "layout changes",
    "collectives", "MB given to them", "GFLOP", "least GB", "program's GB", "ms for these", "compute ms", "memory ms",
    "launches ms", "all-reduce ms", "ms at best", "binds", "images/s at best",
)  # fmt: skip


class Case(NamedTuple):
    """A row of the table: a network of configs/, the target, and the config's settings."""

    network: str
    target: str
    dtype: str
    batch: int
    units: str = "default"
    remat: str = "none"

    @property
    def text(self) -> tuple[str, ...]:
        """The row's first columns, as text."""
        return tuple(map(str, self))


def cases() -> Iterator[Case]:
    """Yields the rows, the most informative first."""
    r20, r110, r1202, r50 = (
        "cifar10:residual-20", "cifar10:residual-110", "cifar10:residual-1202", "imagenet:residual-50",
    )  # fmt: skip
    for dtype in ("float32", "bfloat16"):
        yield Case(r20, "h100:1", dtype, 128)
    yield Case(r110, "h100:1", "float32", 128)
    yield Case(r110, "h100:1", "bfloat16", 128)
    for remat in ("none", "unit"):
        yield Case(r1202, "h100:1", "float32", 128, remat=remat)
    yield Case(r1202, "h100:1", "bfloat16", 128)
    for target, batch in (("h100:1", 256), ("h100:8", 2048)):
        for dtype in ("bfloat16", "float32"):
            yield Case(r50, target, dtype, batch)
    yield Case(r20, "v5e:2x2", "bfloat16", 128)
    yield Case(r50, "v5e:2x2", "bfloat16", 256)
    yield Case(r20, "v5e:2x2", "float32", 128)
    for units in ("default", "unrolled"):
        yield Case(r110, "v5e:2x2", "bfloat16", 128, units)
    yield Case(r20, "h100:8", "float32", 128)
    yield Case(r110, "h100:8", "bfloat16", 128)
    yield Case(r50, "h100:8", "bfloat16", 8192)
    yield Case(r50, "h100:8", "bfloat16", 8192, remat="unit")
    yield Case(r1202, "v5e:2x2", "bfloat16", 128, remat="unit")
    yield Case(r20, "v5e:4x4", "bfloat16", 128)
    yield Case(r50, "v5e:4x4", "bfloat16", 2048)
    yield Case(r50, "v5e:16x16", "bfloat16", 8192)


def main() -> None:
    """Compiles the rows that the file lacks, writes it after each, and prints the table."""
    wanted = [case for case in cases() if all(any(part in t for t in case.text) for part in _ROWS.value)]
    if not wanted:
        raise UserError(f"--rows={','.join(_ROWS.value)}: no row has all of these in its first columns; name fewer")
    from resnet_flax.runtime.progress import Progress

    rows = _written()
    with Progress(len(wanted), "targets", "rows") as progress:
        for case in wanted:
            if case.text not in rows:
                rows[case.text] = _in_a_process(case, _SECONDS.value)
                order = {known.text: place for place, known in enumerate(cases())}
                rows = dict(sorted(rows.items(), key=lambda item: order.get(item[0], len(order))))
                options.write((*Case._fields, *_STEP), [(*text, *row) for text, row in rows.items()])
            progress.update(1, " ".join(case.text))
    options.print_and_write((*Case._fields, *_STEP), [(*text, *row) for text, row in rows.items()], ("jaxlib",))


def _written() -> dict[tuple[str, ...], list[str]]:
    """Reads the rows that the file of ``--output`` contains."""
    if not options.OUTPUT.value or not expanded(options.OUTPUT.value).exists():
        return {}
    lines = itertools.filterfalse(lambda line: line.startswith("# "), expanded(options.OUTPUT.value).open())
    count = len(Case._fields)
    header, *found = csv.reader(lines)
    if tuple(header) != (*Case._fields, *_STEP):
        raise UserError(f"--output={options.OUTPUT.value}: the file contains another table; name a new file")
    return {tuple(row[:count]): row[count:] for row in found}


def _in_a_process(case: Case, seconds: int) -> Sequence[str]:
    program = f"import json; from benchmarks.targets import measure, Case; print(json.dumps(measure({case!r})))"
    try:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return [f"more than {seconds}", *[""] * (len(_STEP) - 1)]
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"ended by signal {-done.returncode}"])[-1]
        if "UserError" in last:
            raise UserError(last.partition(": ")[2])
        return [f"failed: {last[:100]}", *[""] * (len(_STEP) - 1)]
    return json.loads(done.stdout.splitlines()[-1])


def measure(case: Case) -> list[str]:
    """Compiles a row's step and returns the row's other columns. This process must not have used jax before."""
    from resnet_flax.measurements import targets

    targets.set_up()
    from benchmarks import ours

    keys = {"model.dtype": case.dtype, "train.batch_size": case.batch, "model.remat": case.remat}
    config = ours.load_config(case.network, **keys, **{"model.unroll": case.units == "unrolled"})
    target = targets.parse(case.target)
    step = targets.TargetStep(config, target, target.mesh(), _IMAGES)
    work, compiled = step.work(), step.compile()
    bound, c = step.bound(compiled, work), compiled.counts
    launched, moved = ["?"] * 6, ["?"] * 2
    if c is not None:
        whole = (c.kernels, c.library_calls, c.copies, c.layout_changes, c.collectives)
        launched = [*(f"{n:.0f}" for n in whole), f"{c.collective_bytes / 1e6:.4g}"]
        moved = [f"{c.bytes / 1e9:.3g}", f"{1e3 * c.bytes / target.chip.memory_bandwidth:.3g}"]
    return [
        f"{compiled.seconds:.0f}", f"{compiled.needed / _GIB:.2f}", f"{compiled.temporaries / _GIB:.2f}",
        "yes" if step.fits(compiled) else "no", *launched,
        f"{work.flops / 1e9:.4g}", f"{work.least_bytes / 1e9:.3g}", *moved,
        *(f"{1e3 * seconds:.3g}" for seconds in bound.seconds.values()),
        f"{1e3 * bound.least:.3g}", bound.binds, f"{case.batch / bound.least:,.0f}",
    ]  # fmt: skip


if __name__ == "__main__":
    command.run(main)
