"""Compile time does not grow with depth: ResNet-1202's training step is ready as soon as ResNet-20's."""

import json
import statistics

from tests.commands import streams


def test_1202_layers_compile_as_fast_as_20():
    """Traced, initialised, compiled at CIFAR's shapes and batch 128, without a cache; medians of three, alternating."""
    code, out, error = streams("-m", "tests.runs.compile_time", *["20", "1202"] * 3)
    assert code == 0, error
    seconds = {20: [], 1202: []}
    for line in out.splitlines():
        depth, value = json.loads(line)
        seconds[depth].append(value)
    shallow, deep = (statistics.median(seconds[depth]) for depth in (20, 1202))
    assert len(seconds[1202]) == 3
    assert deep <= 1.2 * shallow, seconds
    assert max(shallow, deep) < 20, seconds
