"""The costs of a network's stages: they add up, and each equals a count by hand."""

import jax
import jax.numpy as jnp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_flax import config
from resnet_flax.analysis import counts
from resnet_flax.analysis.stage_costs import stage_costs
from resnet_flax.networks import build
from resnet_flax.networks.units import UNITS
from tests.marks import slow

CIFAR, IMAGENET = (32, 32, 3), (224, 224, 3)
SOME = [unit if unit == "preactivation" else slow(unit) for unit in UNITS]


def network(name="residual-8", classes=10, file="cifar10", **keys):
    c = config.load(f"configs/{file}.py", name, {f"model.{key}": value for key, value in keys.items()})
    config.validate(c)
    return build(c.model, classes)


def test_resnet_20_by_hand():
    """Section 4.2: 3x3 layers of 16, 32 and 64 filters on images of side 32, 16 and 8; option A costs nothing."""
    stem, *stages, head = stage_costs(network("residual-20"), CIFAR, 1)
    assert [s.name for s in (stem, *stages, head)] == ["stem", "stage1", "stage2", "stage3", "head"]
    assert (stem.output, head.output) == ((32, 32, 16), (10,))
    assert [s.output for s in stages] == [(32, 32, 16), (16, 16, 32), (8, 8, 64)]
    assert [s.units for s in (stem, *stages, head)] == [0, 3, 3, 3, 0]
    bn = 2
    assert stem.parameters == 9 * 3 * 16 + bn * 16
    assert stem.multiply_adds == 9 * 3 * 16 * 32 * 32
    assert head.parameters == 64 * 10 + 10
    assert head.multiply_adds == 64 * 10
    for stage, before, filters, side in zip(stages, (16, 16, 32), (16, 32, 64), (32, 16, 8), strict=True):
        weights = 9 * filters * (before + 5 * filters)
        assert stage.parameters == weights + 6 * bn * filters
        assert stage.multiply_adds == weights * side**2


@pytest.mark.parametrize("depth", [18, 50, *(slow(d) for d in (34, 101, 152))])
def test_stages_of_table_1(depth):
    """Output sizes and numbers of units are those of Table 1."""
    _, *stages, head = stage_costs(network(f"residual-{depth}", 1000, "imagenet"), IMAGENET, 1)
    expansion = 4 if depth >= 50 else 1
    assert [s.output for s in stages] == [
        (56, 56, 64 * expansion), (28, 28, 128 * expansion), (14, 14, 256 * expansion), (7, 7, 512 * expansion),
    ]  # fmt: skip
    layers = 3 if depth >= 50 else 2
    assert layers * sum(s.units for s in stages) + 2 == depth
    assert head.parameters == 512 * expansion * 1000 + 1000


@pytest.mark.parametrize("unit", SOME)
@given(
    st.sampled_from([1, 2, 3]), st.sampled_from([16, 25]), st.sampled_from([1, 3]), st.sampled_from([2, 10]),
    st.booleans(), st.sampled_from(["float32", "bfloat16"]),
)  # fmt: skip
@settings(max_examples=3)
def test_costs_of_stages_add_up(unit, n, side, channels, classes, unroll, dtype):
    net = network(f"{unit}-{6 * n + 2}", classes, width=0.25, unroll=unroll, dtype=dtype)
    image = (side, side, channels)
    stages = stage_costs(net, image, 4)
    assert sum(s.parameters for s in stages) == counts.parameters(net, image)
    assert sum(s.multiply_adds for s in stages) == counts.multiply_adds(net, image)
    assert all(s.parameters > 0 and s.multiply_adds > 0 and s.activation_bytes > 0 for s in stages)


@pytest.mark.parametrize(
    ("family", "unit", "depth", "names"),
    [
        ("vgg", "plain", 11, ["stage1", "stage2", "stage3", "stage4", "stage5", "head"]),
        ("highway", "highway", 19, ["stem", "stage1", "stage2", "stage3", "stage4", "head"]),
    ],
)
@pytest.mark.parametrize("norm", ["batch", slow("none")])
def test_other_families(family, unit, depth, names, norm):
    """Costs also add up with and without a stem, with other layers after the last stage, and with dropout."""
    net = network(
        f"{unit}-20", family=family, block="single", depth=depth, width=0.25, hidden=(24, 16), dropout=0.5, norm=norm
    )
    stages = stage_costs(net, CIFAR, 4)
    assert [s.name for s in stages] == names
    assert [s.units for s in stages if s.name.startswith("stage")] == list(net.stage_units)
    assert sum(s.parameters for s in stages) == counts.parameters(net, CIFAR)
    assert sum(s.multiply_adds for s in stages) == counts.multiply_adds(net, CIFAR)
    features = net.stage_filters[-1]
    dense = [(features, 24), (24, 16), (16, 10)]
    pointwise = features * features + (2 if norm == "batch" else 1) * features if family == "highway" else 0
    assert stages[-1].parameters == pointwise + sum(a * b + b for a, b in dense)


@pytest.mark.parametrize("unit", SOME)
def test_a_longer_stage_changes_only_its_own_costs(unit):
    """Each additional unit in the second stage costs more there, and nothing in other stages."""
    by_length = {n: stage_costs(network(f"{unit}-8", stage_units=(2, n, 2)), CIFAR, 4) for n in (2, 3, 4)}
    for i, (two, three, four) in enumerate(zip(*by_length.values(), strict=True)):
        for count in ("parameters", "multiply_adds", "activation_bytes"):
            first, second = getattr(three, count) - getattr(two, count), getattr(four, count) - getattr(three, count)
            if two.name == "stage2":
                assert first > 0, (i, count)
                # With one unit after the first, there is no loop; a loop stores more.
                assert first == second or count == "activation_bytes"
            else:
                assert first == second == 0, (two.name, count)


def test_activations_grow_with_the_batch():
    net = network()
    one, two, four = (stage_costs(net, CIFAR, n) for n in (16, 32, 64))
    for a, b, c in zip(one, two, four, strict=True):
        assert c.activation_bytes - b.activation_bytes == 2 * (b.activation_bytes - a.activation_bytes) > 0


def test_bn_groups_and_meshes_do_not_change_costs():
    c = config.load("configs/cifar10.py", "residual-8")
    apart = build(c.model, 10, bn_group=2, axis_name="data")
    assert stage_costs(apart, CIFAR, 8) == stage_costs(build(c.model, 10), CIFAR, 8)


def test_nothing_is_compiled():
    compiled = []

    def listen(event, *_, **__):
        if "compile" in event:
            compiled.append(event)

    net = network("plain-14")
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        stage_costs(net, (20, 20, 2), 3)
        assert [event for event in compiled if "backend_compile" in event] == []
        jax.jit(lambda x: x + 41.5)(jnp.ones(3))  # shows that the listener notices compilations
        assert [event for event in compiled if "backend_compile" in event]
    finally:
        jax.monitoring.clear_event_listeners()
