"""The cost experiment: its counts, its times, and the tables and notes made of them."""

import csv
import math
import re
import statistics
import time
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnet_flax import config
from resnet_flax.analysis import counts
from resnet_flax.measurements import convolution_stacks, timing
from resnet_flax.measurements.timing import Spread
from resnet_flax.networks import build
from resnet_flax.reporting import record
from tests.commands import command

TINY = ("--batch=2", "--rounds=2", "--turn_seconds=0", "--config.model.width=0.25")
POSITIVE = st.floats(1e-6, 1e3)


def cost(workdir, *arguments):
    return command("-m", "experiments.cost", f"--workdir={workdir}", *TINY, *arguments)


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cost")
    code, output = cost(folder, "--depths=8,14", "--units=plain,residual")
    assert code == 0, output
    return folder, output


def rows(path):
    with open(path) as file:
        return list(csv.DictReader(file))


def number(text):
    return float(text.replace(",", ""))


@pytest.mark.slow
def test_counts_are_those_of_the_networks(done):
    folder, _ = done
    found = rows(folder / "networks.csv")
    assert [row["network"] for row in found] == ["plain-8", "residual-8", "plain-14", "residual-14"]
    for row in found:
        c = config.load("configs/digits.py", row["network"], {"model.width": 0.25})
        network, image = build(c.model, 10), (8, 8, 1)
        assert number(row["parameters"]) == counts.parameters(network, image)
        assert number(row["multiply-adds"]) == counts.multiply_adds(network, image)
        assert number(row["activations MB"]) > 0
        assert 0 < number(row["least ms"]) <= number(row["step ms"]) <= number(row["most ms"])
        assert number(row["compile s"]) > 0


@pytest.mark.slow
def test_all_its_files_are_written(done):
    folder, output = done
    left = record.read(folder)
    assert left.experiment == "cost"
    assert (folder / left.figures[0].file).read_bytes().startswith(b"\x89PNG")
    assert [table.file for table in left.tables] == ["networks.csv", "bottleneck.csv", "convolutions.csv"]
    for table in left.tables:
        markdown = (folder / table.file).with_suffix(".md").read_text()
        assert markdown in output
        assert len(markdown.splitlines()) == 2 + len(rows(folder / table.file))
    assert not list(folder.glob("*.partial"))


@pytest.mark.slow
def test_notes_quote_the_numbers_of_the_tables(done):
    folder, _ = done
    notes = record.read(folder).notes
    by_name = {row["network"]: row for row in rows(folder / "networks.csv")}
    grows = number(by_name["plain-14"]["multiply-adds"]) / number(by_name["plain-8"]["multiply-adds"])
    assert any(
        note.startswith("plain, from 8 to 14 layers:") and f"×{grows:.2f} multiply-adds" in note for note in notes
    )
    [beside] = [note for note in notes if note.startswith("14 layers, residual relative to plain: parameters ×1.000")]
    assert re.search(r"time a step ×\S+ \(\S+ to \S+\): longer in [012] of 2 rounds\.$", beside)
    [ninth] = [note for note in notes if "1x1" in note]
    assert "exactly 1/9 of a 3x3 convolution's multiply-adds in all of 4 shapes" in ninth


@pytest.mark.slow
def test_tables_of_layers_have_the_counts_of_convolutions(done):
    folder, _ = done
    bottleneck, narrow, wide = rows(folder / "bottleneck.csv")
    # Weights are 1x1 down, 3x3 and 1x1 up in the bottleneck, and two 3x3 layers in the others.
    assert number(bottleneck["parameters"]) == 256 * 64 + 9 * 64 * 64 + 64 * 256
    assert number(narrow["parameters"]) == 2 * 9 * 64 * 64
    assert number(wide["parameters"]) == 2 * 9 * 256 * 256
    for row in (bottleneck, narrow, wide):
        assert number(row["multiply-adds"]) == 14 * 14 * number(row["parameters"])
    for row in rows(folder / "convolutions.csv"):
        assert (row["multiply-adds"], row["parameters"]) == ("1/9", "1/9")
        assert number(row["1x1 ms"]) > 0 < number(row["3x3 ms"])


def test_a_dry_run_lists_the_measurements(tmp_path):
    code, output = cost(tmp_path / "new", "--depths=8,14", "--dry-run")
    assert code == 0, output
    assert "residual-14: images of 8x8x1, batch 2, 2 rounds" in output
    assert "bottleneck 256-64-64-256: batch 2, 2 rounds" in output
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--depths=9"], "model.depth=9 is no basic network"),
        (["--depths=8,x"], "--depths=8,x must be whole numbers"),
        (["--units=residul"], "model.unit='residul' is not known"),
        (["--batch=0"], "batch"),
        (["--config.data.name=birds"], "data.name='birds': the shape of its images is not known"),
    ],
    ids=str,
)
def test_mistakes_are_refused_in_one_line(tmp_path, arguments, message):
    code, output = cost(tmp_path, *arguments, "--dry-run")
    assert code == 2, output
    assert message in output
    assert len(output.strip().splitlines()) == 1


@pytest.mark.parametrize("stack", convolution_stacks.STACKS, ids=lambda stack: stack.name)
def test_stacks_are_convolutions(stack):
    """A stack equals NumPy's sum over the shifts of the padded images."""
    generator = np.random.default_rng(0)
    x = generator.normal(size=(1, 5, 6, stack.channels))
    kernels = [generator.normal(size=shape) / math.sqrt(math.prod(shape[:3])) for shape in stack.kernels]
    expected = x
    for i, kernel in enumerate(kernels):
        expected = np.maximum(expected, 0) if i else expected
        k = kernel.shape[0]
        padded = np.pad(expected, ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)))
        shifts = [(a, b) for a in range(k) for b in range(k)]
        expected = sum(padded[:, a : a + 5, b : b + 6] @ kernel[a, b] for a, b in shifts)
    found = stack(x.astype(np.float32), [kernel.astype(np.float32) for kernel in kernels])
    np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize(("one", "three"), convolution_stacks.PAIRS, ids=lambda stack: stack.name)
def test_a_1x1_convolution_has_a_ninth_of_a_3x3_ones_counts(one, three):
    assert Fraction(one.multiply_adds, three.multiply_adds) == Fraction(one.parameters, three.parameters)
    assert Fraction(one.multiply_adds, three.multiply_adds) == Fraction(1, 9)


def test_turns_alternate_and_are_counted():
    order = []
    calls = {name: (lambda name=name: order.append(name)) for name in "abc"}
    turns = []
    measured = timing.time_in_turns(calls, rounds=3, seconds=0, done=turns.append)
    assert turns == list("abc" + "cba" + "abc")
    assert order == list("aabbcc") + turns  # each is called twice before the rounds
    assert all(len(spread.rounds) == 3 for spread in measured.values())


def test_no_measured_time_is_shorter_than_the_sleep_in_it():
    """A slow machine may take longer than the sleep, but never less."""
    calls = {"short": lambda: time.sleep(0.002), "long": lambda: time.sleep(0.02)}
    measured = timing.time_in_turns(calls, rounds=5, seconds=0.01, done=lambda _: None)
    assert measured["short"].least >= 0.002
    assert measured["long"].least >= 0.02
    assert measured["long"].over(measured["short"]).median > 2


@given(st.lists(st.tuples(POSITIVE, POSITIVE), min_size=1, max_size=9))
def test_a_ratio_of_spreads_is_made_of_the_ratios_of_rounds(pairs):
    a, b = (Spread(values) for values in zip(*pairs, strict=True))
    assert a.least <= a.median <= a.most
    assert a.median == statistics.median(a.rounds)
    ratio = a.over(b)
    assert ratio.rounds == tuple(x / y for x, y in pairs)
    assert a.over(a).rounds == (1.0,) * len(pairs)
    assert ratio.text() == f"{ratio.median:.3g} ({ratio.least:.3g} to {ratio.most:.3g})"
