"""Parsing of grids over config keys: lists, ranges, and keys that change together."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnet_flax import config as configs
from resnet_flax.errors import UserError
from resnet_flax.sweeps import grid, options
from resnet_flax.sweeps.cases import Request
from resnet_flax.sweeps.ranges import integers

FLOATS = st.floats(1e-6, 1e6)


def values(text):
    """Returns the values of an axis with one key."""
    return [value for point in grid.parse(text) for value in point.values()]


@given(st.lists(st.integers(1, 2000), min_size=1, max_size=5))
def test_a_list_of_whole_numbers(numbers):
    assert values(f"model.depth={','.join(map(str, numbers))}") == numbers


@given(st.lists(FLOATS, min_size=1, max_size=4))
def test_a_list_of_numbers(numbers):
    assert values(f"optimizer.learning_rate={','.join(map(repr, numbers))}") == numbers


def test_a_list_of_tuples():
    assert values("model.stage_units=(3,4,6),(1,1)") == [(3, 4, 6), (1, 1)]
    with pytest.raises(UserError, match="must be a tuple of positive int"):
        grid.parse("model.stage_units=(3,x)")


@given(st.integers(-50, 500), st.integers(0, 40), st.integers(1, 30))
def test_a_range_is_pythons_with_the_last_number_included(first, more, step):
    last = first + more * step
    expected = list(range(first, last + 1, step))
    assert integers(f"{first}..{last}:{step}") == expected
    assert options.parse_numbers("seeds", [f"{first}..{last}:{step}", "7"]) == [*expected, 7]
    if step > 1:  # A last number that is missed is refused, and the proposed range is valid.
        with pytest.raises(UserError, match=rf"miss {last + 1}; write ") as found:
            integers(f"{first}..{last + 1}:{step}")
        assert integers(str(found.value).rpartition("write ")[2]) == expected


def test_ranges_and_lists_may_be_combined():
    assert values("model.depth=8..56:6") == [8, 14, 20, 26, 32, 38, 44, 50, 56]
    assert values("model.depth=8,20..32:12,110") == [8, 20, 32, 110]
    assert options.parse_numbers("seeds", ["0..4"]) == [0, 1, 2, 3, 4]


@given(st.lists(st.tuples(st.integers(1, 2000), FLOATS), min_size=1, max_size=4))
def test_keys_that_change_together(pairs):
    text = ",".join(f"{depth}:{rate!r}" for depth, rate in pairs)
    found = grid.parse(f"model.depth,optimizer.learning_rate={text}")
    assert [(p["model.depth"], p["optimizer.learning_rate"]) for p in found] == pairs


@given(st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_points_are_all_combinations(lengths):
    keys = ["model.depth", "train.steps", "train.batch_size", "data.pad"][: len(lengths)]
    axes = [grid.parse(f"{key}=1..{length}") for key, length in zip(keys, lengths, strict=True)]
    found = grid.points(axes)
    assert len({tuple(p.items()) for p in found}) == len(found) == math.prod(lengths)
    assert all(list(p) == keys for p in found)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "model.depth=56..8:6",
            "56..8:6: a range goes up from its first number to its last, in steps of at least 1, such as",
        ),
        ("model.depth=8..56:0", "8..56:0: a range goes up"),
        ("model.depth=8..57:6", "steps of 6 from 8 miss 57; write 8..56:6"),
        ("train.steps=1..1000000000", "a range may hold at most 10,000 numbers"),
        ("optimizer.learning_rate=1..3", "it must be a float, such as 0.1; only whole numbers have ranges"),
        (
            "model.depth,optimizer.learning_rate=20:0.1,56",
            "'56' must hold a value for each of the 2 keys, separated by colons",
        ),
        (
            "model.depth,optimizer.learning_rate=8..20:0.1",
            "keys that change together take single values, and '8..20' is a range",
        ),
        ("model.depth,optimizer.lr=8:0.1", "config has no key 'optimizer.lr'; did you mean optimizer.learning_rate"),
        ("model.depth,seed=8:1", "give seeds as --seeds="),
        ("model.depth", "--grid 'model.depth' is not of the form KEY=VALUE,VALUE,..."),
    ],
)
def test_an_invalid_axis_is_refused(text, message):
    with pytest.raises(UserError) as found:
        grid.parse(text)
    assert message in str(found.value)


REQUEST = Request("configs/digits.py", Path("x"), Path("x/runs"))


@pytest.mark.parametrize("key", configs.RESUME_MAY_CHANGE)
def test_values_that_do_not_make_different_runs_are_refused(key):
    """Regression test: of ``--grid data.workers=0,4``, only the first value was trained."""
    first, second = {bool: ("true", "false"), int: ("0", "4"), str: ("a", "b")}[configs.KEYS[key].kind]
    for text in (f"{key}={first},{second}", f"model.depth,{key}=8:{first},20:{first},20:{second}"):
        with pytest.raises(UserError, match=rf": {key} may change on resume, so .* of its own and --config.{key}$"):
            grid.axes([text], REQUEST)
    for text in (f"{key}={first}", f"model.depth,{key}=8:{first},20:{second}"):
        assert grid.axes([text], REQUEST) == [grid.parse(text)]


def test_an_invalid_range_of_seeds_is_refused():
    with pytest.raises(UserError, match=r"^--seeds=4\.\.0: a range goes up"):
        options.parse_numbers("seeds", ["4..0"])
