"""Compile time does not grow with depth: ResNet-1202's training step compiles as fast as ResNet-20's."""

import json

import pytest

from tests.commands import streams

# CPU time rather than wall-clock time, which depends on the machine's load.
PROGRAM = """
import json
from benchmarks.compile_time import measure
for depth in (20, 1202, 1202, 20):
    print(json.dumps([depth, measure(depth).processor]))
"""


@pytest.mark.slow
def test_1202_layers_compile_as_fast_as_20():
    """Tracing, initialisation and compilation at CIFAR's shapes and batch 128, without a cache; best of two."""
    code, out, error = streams("-c", PROGRAM)
    assert code == 0, error
    seconds = {20: [], 1202: []}
    for line in out.splitlines():
        depth, value = json.loads(line)
        seconds[depth].append(value)
    assert len(seconds[20]) == len(seconds[1202]) == 2
    assert min(seconds[1202]) <= 1.2 * min(seconds[20]), seconds
    assert max(map(min, seconds.values())) < 20, seconds
