"""The tables and notes of the ``cost`` experiment."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path

from resnet_flax.measurements.convolution_stacks import BOTTLENECK, FIGURE_5, PAIRS, TWO_64, TWO_256, Stack, times
from resnet_flax.measurements.network_cost import Cost
from resnet_flax.measurements.timing import Spread
from resnet_flax.reporting import tables
from resnet_flax.reporting.record import Table
from resnet_flax.runtime.environment import environment

_Written = tuple[Table, str]


def write_networks(costs: Sequence[Cost], path: Path, batch: int) -> _Written:
    """Writes a row for each network: its counts, and the times of its training step."""
    header = (
        "network", "parameters", "multiply-adds", "activations MB", "compile s", "step ms", "least ms", "most ms",
    )  # fmt: skip
    rows = [
        (
            c.label, f"{c.parameters:,}", f"{c.multiply_adds:,}", f"{c.activation_bytes / 1e6:.2f}",
            f"{c.compile_seconds:.1f}", *_milliseconds(c.step),
        )
        for c in costs
    ]  # fmt: skip
    caption = (
        f"Cost of networks: multiply-adds to classify one image; activations kept for the backward pass of a batch of "
        f"{batch}; seconds to compile the training step; milliseconds of a step (median, least and most of "
        f"{_rounds(costs)} rounds)."
    )
    return _write(path, header, rows, caption)


def write_bottleneck(layers: Mapping[str, Spread], path: Path, batch: int) -> _Written:
    """Writes a row for each stack of layers of Fig. 5, and for two wide 3x3 layers without a bottleneck."""
    header = (
        "layers", "parameters", "multiply-adds", "of the bottleneck's", "forward ms", "forward and backward ms",
        "time over the bottleneck's",
    )  # fmt: skip
    rows, base = [], times(layers, BOTTLENECK)
    for stack in FIGURE_5:
        t = times(layers, stack)
        numbers = (f"{stack.parameters:,}", f"{stack.multiply_adds:,}")
        share = f"{stack.multiply_adds / BOTTLENECK.multiply_adds:.3f}"
        took = "1" if stack is BOTTLENECK else t.both.over(base.both).text()
        rows.append((stack.name, *numbers, share, _milliseconds(t.forward)[0], _milliseconds(t.both)[0], took))
    side = BOTTLENECK.side
    caption = (
        f"The building blocks of Fig. 5 on {side}x{side} images, batch {batch}, with convolutions and ReLUs alone. "
        f"Multiply-adds are those of one image. Times are medians; the ratio of times (forward and backward) has the "
        f"least and the most in brackets."
    )
    return _write(path, header, rows, caption)


def write_one_by_one(layers: Mapping[str, Spread], path: Path, batch: int) -> _Written:
    """Writes a row for each shape: the ratio of a 1x1 to a 3x3 convolution in parameters, multiply-adds and time."""
    header = (
        "shape", "multiply-adds", "parameters", "forward, time", "forward and backward, time", "1x1 ms", "3x3 ms",
    )  # fmt: skip
    rows = []
    for one, three in PAIRS:
        small, large = times(layers, one), times(layers, three)
        shape = f"{one.channels} channels, {one.side}x{one.side}"
        rows.append(
            (
                shape, str(_multiply_adds_ratio(one, three)), str(Fraction(one.parameters, three.parameters)),
                small.forward.over(large.forward).text(2), small.both.over(large.both).text(2),
                _milliseconds(small.both)[0], _milliseconds(large.both)[0],
            )
        )  # fmt: skip
    caption = (
        f"Ratios of a 1x1 convolution to a 3x3 convolution with as many filters, batch {batch}: multiply-adds, "
        f"parameters, and time (median, least and most of the rounds). Milliseconds are those of forward and backward."
    )
    return _write(path, header, rows, caption)


def notes(costs: Sequence[Cost], layers: Mapping[str, Spread], batch: int) -> list[str]:
    """Returns sentences on what the numbers show."""
    where = environment()
    found = [
        f"Measured on {where['processor']} ({where['cores']} cores, {where['device']}), jax {where['jax']}, batch "
        f"{batch}. Networks were measured by turns in {_rounds(costs)} rounds; brackets hold the least and the most."
    ]
    found += _growth(costs) + _against_the_first_unit(costs) + _compiling(costs)
    return found + _bottleneck(layers) + _one_by_one(layers)


def _growth(costs: Sequence[Cost]) -> list[str]:
    found = []
    for unit in dict.fromkeys(c.unit for c in costs):
        line = sorted((c for c in costs if c.unit == unit), key=lambda c: c.depth)
        shallow, deep = line[0], line[-1]
        if shallow is not deep:
            found.append(
                f"{unit}, from {shallow.depth} to {deep.depth} layers: "
                f"×{deep.parameters / shallow.parameters:.2f} parameters, "
                f"×{deep.multiply_adds / shallow.multiply_adds:.2f} multiply-adds, "
                f"×{deep.activation_bytes / shallow.activation_bytes:.2f} activation memory, "
                f"×{deep.step.over(shallow.step).text()} time a step."
            )
    return found


def _against_the_first_unit(costs: Sequence[Cost]) -> list[str]:
    """Compares every other unit with the first one at the greatest depth, where differences are largest."""
    depth, (first, *others) = max(c.depth for c in costs), dict.fromkeys(c.unit for c in costs)
    at_depth = {c.unit: c for c in costs if c.depth == depth}
    found = []
    for unit in others:
        a, b = at_depth[unit], at_depth[first]
        ratio = a.step.over(b.step)
        found.append(
            f"{depth} layers, {unit} relative to {first}: parameters ×{a.parameters / b.parameters:.3f}, multiply-adds "
            f"×{a.multiply_adds / b.multiply_adds:.3f}, activation memory "
            f"×{a.activation_bytes / b.activation_bytes:.3f}, time a step ×{ratio.text()}: {_verdict(ratio)}."
        )
    return found


def _verdict(ratio: Spread) -> str:
    return f"longer in {sum(r > 1 for r in ratio.rounds)} of {len(ratio.rounds)} rounds"


def _compiling(costs: Sequence[Cost]) -> list[str]:
    by_depth: dict[int, list[float]] = {}
    for c in costs:
        by_depth.setdefault(c.depth, []).append(c.compile_seconds)
    ranges = ", ".join(f"{min(v):.1f} to {max(v):.1f} s at {depth} layers" for depth, v in sorted(by_depth.items()))
    return [f"Compiling a training step once took, from the fastest to the slowest unit, {ranges}."]


def _bottleneck(layers: Mapping[str, Spread]) -> list[str]:
    bottleneck = times(layers, BOTTLENECK).both
    comparisons = [
        f"{bottleneck.over(times(layers, other).both).text()} times as long as {other.name}, for "
        f"{BOTTLENECK.multiply_adds / other.multiply_adds:.3f} of their multiply-adds"
        for other in (TWO_64, TWO_256)
    ]
    return [f"Forward and backward, the bottleneck of Fig. 5 (256-64-64-256) took {', and '.join(comparisons)}."]


def _one_by_one(layers: Mapping[str, Spread]) -> list[str]:
    counts = {_multiply_adds_ratio(one, three) for one, three in PAIRS}
    exact = "exactly 1/9" if counts == {Fraction(1, 9)} else f"from {min(counts)} to {max(counts)}"
    ratios: dict[str, list[float]] = {way: [] for way in ("forward", "both")}
    for one, three in PAIRS:
        for way, values in ratios.items():
            small, large = (getattr(times(layers, stack), way) for stack in (one, three))
            values.append(small.over(large).median)
    forward, both = ([*sorted(values)] for values in ratios.values())
    near = sum(abs(9 * value - 1) <= 0.25 for value in both)
    return [
        f"A 1x1 convolution has {exact} of a 3x3 convolution's multiply-adds in all of {len(PAIRS)} shapes (1/9 is the "
        f"ratio of the kernels' areas). It takes {forward[0]:.2f} to {forward[-1]:.2f} of its time forward, and "
        f"{both[0]:.2f} to {both[-1]:.2f} forward and backward (medians; 1/9 is 0.11), which is within a quarter of "
        f"1/9 in {near} of {len(PAIRS)} shapes."
    ]


def _multiply_adds_ratio(one: Stack, three: Stack) -> Fraction:
    return Fraction(one.multiply_adds, three.multiply_adds)


def _milliseconds(spread: Spread) -> tuple[str, str, str]:
    median, least, most = (f"{1e3 * v:.4g}" for v in (spread.median, spread.least, spread.most))
    return median, least, most


def _rounds(costs: Sequence[Cost]) -> int:
    return len(costs[0].step.rounds)


def _write(path: Path, header: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> _Written:
    return tables.write_rows(path, header, rows, caption), tables.to_markdown(header, rows)
