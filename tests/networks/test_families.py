"""The families' depths, and the sizes of their networks compared with published ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from resnet_flax import config
from resnet_flax.analysis import counts
from resnet_flax.networks import build, depth_of, units_of
from resnet_flax.networks.families import BLOCKS, FAMILIES, HIGHWAY_UNITS, IMAGENET_UNITS, VGG_UNITS
from resnet_flax.networks.units import UNITS
from tests.marks import slow

CIFAR_BLOCKS = FAMILIES["cifar"].blocks
CIFAR, IMAGENET = (32, 32, 3), (224, 224, 3)

# Parameters. CIFAR: derived from the paper's section 4.2 (option A, 10 classes); its Table 6 prints them as 0.27M,
# 0.46M, 0.66M, 0.85M, 1.7M and 19.4M. ImageNet: those of torchvision (option B, 1,000 classes).
SIZES = {
    ("cifar", "basic", 20, "A"): 269_722,
    ("cifar", "basic", 32, "A"): 464_154,
    ("cifar", "basic", 44, "A"): 658_586,
    ("cifar", "basic", 56, "A"): 853_018,
    ("cifar", "basic", 110, "A"): 1_727_962,
    ("cifar", "basic", 1202, "A"): 19_421_274,
    ("imagenet", "basic", 18, "B"): 11_689_512,
    ("imagenet", "basic", 34, "B"): 21_797_672,
    ("imagenet", "bottleneck", 50, "B"): 25_557_032,
    ("imagenet", "bottleneck", 101, "B"): 44_549_160,
    ("imagenet", "bottleneck", 152, "B"): 60_192_808,
}
# Multiply-adds, derived from Table 1, with the stride on the first 1x1 and on the 3x3.
MULTIPLY_ADDS = {
    (18, "first"): 1_814_073_344,
    (34, "first"): 3_663_761_408,
    (50, "first"): 3_857_973_248,
    (50, "3x3"): 4_089_184_256,
    (101, "first"): 7_570_194_432,
    (101, "3x3"): 7_801_405_440,
    (152, "first"): 11_282_415_616,
    (152, "3x3"): 11_513_626_624,
}
# Parameters and multiply-adds of torchvision's vgg11_bn, ..., vgg19_bn (1,000 classes, with BN). torchvision prints the
# multiply-adds as 7.61e9, 11.31e9, 15.47e9 and 19.63e9.
VGG_SIZES = {
    11: (132_868_840, 7_609_090_048),
    13: (133_053_736, 11_308_466_176),
    16: (138_365_992, 15_470_264_320),
    19: (143_678_248, 19_632_062_464),
}
# Parameters on CIFAR-10 with BN; and in millions as arXiv:1507.06228 prints them, with as many digits.
HIGHWAY_SIZES = {19: (2_292_266, "2.3"), 32: (1_246_796, "1.25")}
# Parameters of the other units, in the CIFAR family. Pre-activation: derived from arXiv:1603.05027, which prints 1.7M
# and 10.2M. Highway: those of the plain twin, and a gate of 9 f^2 + f parameters for each layer that keeps its shape.
UNIT_SIZES = {
    ("preactivation", "basic", 110, "A"): 1_727_962,
    ("preactivation", "bottleneck", 164, "B"): 1_703_258,
    ("preactivation", "bottleneck", 1001, "B"): 10_327_706,
    ("highway", "basic", 20, "A"): 269_722 + 6 * (9 * 16**2 + 16) + 5 * (9 * 32**2 + 32) + 5 * (9 * 64**2 + 64),
    ("highway", "basic", 56, "A"): 853_018 + 18 * (9 * 16**2 + 16) + 17 * (9 * 32**2 + 32) + 17 * (9 * 64**2 + 64),
}


def network(family, block, depth, unit="residual", shortcut="A", classes=None, **keys):
    c = config.base()
    c.model.update(family=family, block=block, depth=depth, unit=unit, shortcut=shortcut, **keys)
    return build(c.model, classes or (10 if family == "cifar" else 1000))


def size(family, *args, **kwargs):
    return counts.parameters(network(family, *args, **kwargs), CIFAR if family == "cifar" else IMAGENET)


@pytest.mark.parametrize(("which", "expected"), SIZES.items(), ids=str)
def test_published_sizes(which, expected):
    family, block, depth, shortcut = which
    assert size(family, block, depth, shortcut=shortcut) == expected


@pytest.mark.parametrize(
    "which", [slow(k) if k[2] in (34, 44, 56, 101, 110, 152) else k for k in SIZES if k[2] != 1202], ids=str
)
def test_plain_twins(which):
    """A plain net has as many parameters as its residual twin with option A; with B and C it lacks the projections."""
    family, block, depth, _ = which
    plain = size(family, block, depth, "plain")
    assert plain == size(family, block, depth, "residual", "A")
    expansion = 4 if block == "bottleneck" else 1
    stem, *filters = (16, 16, 32, 64) if family == "cifar" else (64, 64, 128, 256, 512)
    units = units_of(family, block, depth)
    before = [stem] + [f * expansion for f in filters[:-1]]
    after = [f * expansion for f in filters]

    def projection(c, f):
        return c * f + 2 * f  # a 1x1 convolution and a BN

    changes = [projection(c, f) if c != f or i > 0 else 0 for i, (c, f) in enumerate(zip(before, after, strict=True))]
    assert size(family, block, depth, "residual", "B") - plain == sum(changes)
    every = [projection(c, f) + (n - 1) * projection(f, f) for c, f, n in zip(before, after, units, strict=True)]
    assert size(family, block, depth, "residual", "C") - plain == sum(every)


@pytest.mark.parametrize(("which", "expected"), UNIT_SIZES.items(), ids=str)
def test_sizes_of_other_units(which, expected):
    unit, block, depth, shortcut = which
    assert size("cifar", block, depth, unit, shortcut) == expected


def test_convolutions_of_preactivation_1001():
    """Their kernels have the 10.2M parameters that arXiv:1603.05027 prints."""
    net = network("cifar", "bottleneck", 1001, "preactivation", "B")
    shapes = jax.eval_shape(net.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *CIFAR), jnp.float32))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes) if leaf.ndim >= 4) == 10_175_920


def test_every_unit_has_a_tested_size():
    """A new unit must be added to the sizes above; plain networks are tested as twins of residual ones."""
    assert set(UNITS) == {"plain", "residual"} | {which[0] for which in UNIT_SIZES}


@pytest.mark.parametrize(("depth", "expected"), VGG_SIZES.items())
def test_sizes_of_vgg(depth, expected):
    c = config.resolve(config.load("configs/imagenet.py", f"vgg-{depth}"))
    net = build(c.model, 1000)
    assert (counts.parameters(net, IMAGENET), counts.multiply_adds(net, IMAGENET)) == expected


@pytest.mark.parametrize(("depth", "expected"), [(16, 138_357_544), (19, 143_667_240)])
def test_sizes_of_vgg_without_bn(depth, expected):
    """They are those of the paper, and of torchvision's vgg16 and vgg19: a convolution has one bias, not two."""
    c = config.resolve(config.load("configs/imagenet.py", f"vgg-{depth}", {"model.norm": "none"}))
    assert counts.parameters(build(c.model, 1000), IMAGENET) == expected


@pytest.mark.parametrize(("depth", "expected"), HIGHWAY_SIZES.items())
def test_sizes_of_the_highway_family(depth, expected):
    """With and without BN they round to the printed number; the twins have the same layers without gates."""
    parameters, printed = expected
    ours = network("highway", "single", depth, "highway", classes=10)
    assert counts.parameters(ours, CIFAR) == parameters
    digits = len(printed.partition(".")[2])
    for norm in ("batch", "none"):
        count = counts.parameters(network("highway", "single", depth, "highway", classes=10, norm=norm), CIFAR)
        assert f"{count / 1e6:.{digits}f}" == printed
    plain, residual = (network("highway", "single", depth, unit, classes=10) for unit in ("plain", "residual"))
    assert (plain.stage_units, plain.stage_filters) == (ours.stage_units, ours.stage_filters)
    stages = enumerate(zip(ours.stage_filters, ours.stage_units, strict=True))
    gates = sum((9 * f * f + f) * (n - (i > 0)) for i, (f, n) in stages)  # the first layer of stages 2, 3, 4 is plain
    assert counts.parameters(plain, CIFAR) == counts.parameters(residual, CIFAR) == parameters - gates


def test_every_family_and_depth_has_a_tested_size():
    """A new family or depth must be added to the sizes above."""
    assert {k[0] for k in SIZES} | {"vgg", "highway"} == set(FAMILIES)
    assert set(VGG_SIZES) == set(VGG_UNITS["single"])
    assert set(HIGHWAY_SIZES) == set(HIGHWAY_UNITS["single"])
    assert {name for name, family in FAMILIES.items() if family.units is None} == {"cifar"}
    pinned = {(k[1], k[2]) for k in SIZES if k[0] == "imagenet"}
    assert pinned == {(block, depth) for block, depths in IMAGENET_UNITS.items() for depth in depths}
    assert {k[1] for k in SIZES} | {"single"} == set(BLOCKS)
    assert {depth for depth, _ in MULTIPLY_ADDS} == {depth for _, depth in pinned}


@pytest.mark.parametrize(("which", "expected"), MULTIPLY_ADDS.items(), ids=str)
def test_published_multiply_adds(which, expected):
    depth, stride = which
    block = "basic" if depth < 50 else "bottleneck"
    ours = counts.multiply_adds(network("imagenet", block, depth, shortcut="B", bottleneck_stride=stride), IMAGENET)
    assert ours == expected


@given(st.sampled_from(CIFAR_BLOCKS), st.integers(1, 400))
def test_cifar_depths(block, n):
    """Depths are 6n+2 and 9n+2, and ``depth_of`` returns them from the units."""
    layers = {"basic": 6, "bottleneck": 9}[block] * n + 2
    assert units_of("cifar", block, layers) == (n, n, n)
    assert depth_of("cifar", block, (n, n, n)) == layers


@given(st.sampled_from(CIFAR_BLOCKS), st.integers(-10, 3000))
def test_other_cifar_depths_are_refused(block, depth):
    layers = {"basic": 6, "bottleneck": 9}[block]
    if depth > 2 and (depth - 2) % layers == 0:
        return
    with pytest.raises(ValueError, match=rf"model.depth={depth} is no {block} network .* {layers}n\+2"):
        units_of("cifar", block, depth)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (dict(family="imagenet", depth=20), "which has basic: 18, 34; bottleneck: 50, 101, 152"),
        (dict(family="imagenet", block="bottleneck", depth=34), "which has basic: 18, 34; bottleneck: 50, 101, 152"),
        (dict(depth=21), r"20, \.\.\.; near 21: 20, 26"),
        (dict(unit="residul"), "choose one of plain, residual"),
        (dict(family="vgg", block="single", depth=17), "the vgg family, which has single: 11, 13, 16, 19"),
        (dict(family="highway", block="single", depth=20), "the highway family, which has single: 19, 32"),
        (dict(family="vgg"), "model.block='basic' does not fit the vgg family; choose single"),
        (dict(block="single"), "does not fit the cifar family; choose basic or bottleneck"),
        (
            dict(stage_filters=(16, 32)),
            r"model.stage_filters=\(16, 32\) has filters for 2 stages, but the network has 3",
        ),
        (dict(family="svhn"), "choose one of cifar, imagenet, vgg, highway"),
        (dict(block="wide"), "choose one of basic, bottleneck, single"),
        (dict(initialization="kaiming"), "choose one of he, "),
        (dict(stage_units=(1, 2, 3, 4)), "1 to 3 stages"),
        (dict(norm="none", zero_init_last=True, shortcut="B"), "there is no scale"),
        (dict(zero_init_last=True), "choose model.shortcut B or C"),
        (dict(unit="plain", zero_init_last=True), "it fits residual"),
        (dict(unit="highway", block="bottleneck", depth=29), "no bottleneck form; choose model.block basic or single"),
    ],
    ids=str,
)
def test_models_that_cannot_be_built_are_refused(keys, message):
    given = dict(family="cifar", block="basic", depth=20) | keys
    with pytest.raises(ValueError, match=message):
        network(**given)


@settings(max_examples=30)
@given(
    st.sampled_from(CIFAR_BLOCKS), st.sampled_from(sorted(UNITS)), st.sampled_from("ABC"),
    st.integers(5, 20), st.integers(5, 20), st.integers(1, 4), st.integers(2, 11),
)  # fmt: skip
def test_any_side_and_channel_count(block, unit, shortcut, height, width, channels, classes):
    assume(block in UNITS[unit].blocks)
    net = network("cifar", block, 11 if block == "bottleneck" else 8, unit, shortcut, classes)
    x = jax.ShapeDtypeStruct((2, height, width, channels), jnp.float32)
    (logits, named), variables = jax.eval_shape(
        lambda key, x: net.init_with_output(key, x, False, True), jax.random.key(0), x
    )
    assert logits.shape == (2, classes)
    expansion = 4 if block == "bottleneck" else 1
    sides = [(height, width)]
    for _ in range(2):
        sides.append(tuple(-(-s // 2) for s in sides[-1]))
    for i, (side, filters) in enumerate(zip(sides, (16, 32, 64), strict=True), start=1):
        assert named[f"stage{i}"].shape == (2, *side, filters * expansion)
    assert named["stem"].shape == (2, height, width, 16)
    assert named["pooled"].shape == (2, 64 * expansion)
    assert named["logits"].shape == logits.shape
    assert {a.dtype for a in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@settings(max_examples=12)
@given(
    st.sampled_from([("vgg", depth) for depth in VGG_UNITS["single"]] + [("highway", 19), ("highway", 32)]),
    st.sampled_from(sorted(UNITS)), st.integers(1, 40), st.integers(1, 40), st.integers(1, 4),
)  # fmt: skip
def test_any_side_and_channel_count_where_pooling_halves(which, unit, height, width, channels):
    """Sides are halved and rounded up before each stage of stride 2, and once more before VGG's dense layers."""
    family, depth = which
    net = network(family, "single", depth, unit, classes=7, hidden=(5, 6))
    x = jax.ShapeDtypeStruct((2, height, width, channels), jnp.float32)
    (logits, named), variables = jax.eval_shape(
        lambda key, x: net.init_with_output(key, x, False, True), jax.random.key(0), x
    )
    side = (height, width)
    for i, (stride, filters) in enumerate(zip(net.stage_strides, net.stage_filters, strict=True), start=1):
        side = tuple(-(-s // stride) for s in side)
        assert named[f"stage{i}"].shape == (2, *side, filters)
    positions = (-(-side[0] // 2)) * (-(-side[1] // 2)) if family == "vgg" else 1
    assert named["pooled"].shape == (2, net.stage_filters[-1] * positions)
    assert variables["params"]["hidden1"]["kernel"].shape == (named["pooled"].shape[1], 5)
    assert variables["params"]["dense"]["kernel"].shape == (6, 7)
    assert logits.shape == (2, 7)
    assert ("stem" in named) == (family == "highway")
    assert depth_of(family, "single", net.stage_units) == sum(net.stage_units) + 3 == depth


def test_stage_filters_take_the_place_of_the_familys():
    net = network("cifar", "bottleneck", 29, stage_filters=(8, 24, 40), width=0.5)
    assert (net.stem.filters, net.stage_filters) == (4, (16, 48, 80))
    assert network("highway", "single", 32, "plain", stage_filters=(1, 2, 3, 4)).stage_filters == (1, 2, 3, 4)
    # With explicit units, widths are the family's, even if the depth happens to be one with widths of its own.
    assert network("highway", "single", 32, "plain", stage_units=(4, 5, 10, 10)).stage_filters == (32, 48, 80, 128)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("cifar10", "plain-56"), ("cifar10", "residual-bottleneck-164"), ("digits", "highway-20"),
        ("imagenet", "residual-34"), ("imagenet", "preactivation-152"), ("imagenet", "vgg-16"), ("cifar100", "vgg-11"),
        ("highway", "highway-19"), ("highway", "plain-32"), ("highway", "preactivation-19"),
    ],
)  # fmt: skip
def test_names_name_networks(file, name):
    """``name_of`` returns the name by which a config was loaded, and config.json restores the same network."""
    c = config.resolve(config.load(f"configs/{file}.py", name))
    assert config.name_of(c.model) == name
    again = config.resolve(config.from_json(config.to_json(c)))
    assert config.differences(c, again) == []
    assert build(again.model, 10) == build(c.model, 10)


def test_widths_of_vggs_dense_layers_depend_on_the_data():
    for file, hidden in (("imagenet", (4096, 4096)), ("cifar10", (512, 512)), ("digits", (512, 512))):
        model = config.load(f"configs/{file}.py", "vgg-16").model
        assert (model.family, model.unit, model.block, model.hidden) == ("vgg", "plain", "single", hidden)
        assert model.dropout == 0.5
    assert config.base().model.dropout == 0


def test_logits_are_computed_from_the_named_intermediates():
    net = network("cifar", "basic", 8, stage_units=(1, 2))
    x = jax.random.normal(jax.random.key(0), (3, 8, 8, 1))
    variables = jax.jit(net.init)(jax.random.key(1), x)
    logits, named = net.apply(variables, x, False, True)
    np.testing.assert_array_equal(logits, net.apply(variables, x))
    assert list(named) == ["stem", "stage1", "stage2", "pooled", "logits"]
    np.testing.assert_allclose(named["pooled"], named["stage2"].mean((1, 2)), rtol=1e-5)
    dense = variables["params"]["dense"]
    np.testing.assert_allclose(logits, named["pooled"] @ dense["kernel"] + dense["bias"], rtol=1e-4, atol=1e-5)


def test_width_multiplies_every_stage():
    net = network("cifar", "basic", 8, width=2.5)
    assert (net.stem.filters, net.stage_filters) == (40, (40, 80, 160))
    assert network("imagenet", "bottleneck", 50, width=0.25).stage_filters == (64, 128, 256, 512)


def test_bottleneck_strides():
    """With the stride on the 3x3, the first 1x1 works at full resolution; otherwise at half."""
    first = network("cifar", "bottleneck", 11, bottleneck_stride="first")
    second = network("cifar", "bottleneck", 11, bottleneck_stride="3x3")
    assert counts.parameters(first, CIFAR) == counts.parameters(second, CIFAR)
    # The first 1x1 at full instead of half resolution: 64 -> 32 at 32x32 and 128 -> 64 at 16x16, 3/4 of them
    # additional.
    more = 64 * 32 * 32 * 32 * 3 // 4 + 128 * 64 * 16 * 16 * 3 // 4
    assert counts.multiply_adds(second, CIFAR) - counts.multiply_adds(first, CIFAR) == more


@pytest.mark.parametrize("unit", sorted(UNITS))
@pytest.mark.parametrize(
    ("family", "block", "depth"), [("cifar", "basic", 14), ("vgg", "single", 11), ("highway", "single", 19)]
)
@pytest.mark.parametrize("norm", ["batch", "none"])
def test_dtype_affects_only_the_computation(family, block, depth, unit, norm):
    """Every stage computes in bfloat16, but parameters, statistics and logits are float32."""
    net = network(family, block, depth, unit, dtype="bfloat16", hidden=(8,), norm=norm)
    x = jax.ShapeDtypeStruct((2, 8, 8, 1), jnp.float32)
    (logits, named), variables = jax.eval_shape(
        lambda key, x: net.init_with_output(key, x, False, True), jax.random.key(0), x
    )
    assert {a.dtype for name, a in named.items() if a.ndim == 4} == {jnp.dtype("bfloat16")}
    assert logits.dtype == jnp.float32
    assert {a.dtype for a in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("unit", ["residual"])
def test_zero_initialised_last_scale_makes_units_the_identity(unit):
    net = network("cifar", "basic", 20, unit, zero_init_last=True, stage_units=(4,), shortcut="B")
    x = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    variables = jax.jit(net.init)(jax.random.key(1), x)
    _, named = net.apply(variables, x, False, True)
    np.testing.assert_allclose(named["stage1"], named["stem"], atol=1e-6)


def test_zero_initialised_last_scales_learn():
    """With option B each of them has a gradient at the start. (With option A those of new channels would have none.)"""
    net = network("cifar", "basic", 14, "residual", zero_init_last=True, shortcut="B")
    x = jax.random.normal(jax.random.key(0), (8, 8, 8, 3))
    variables = jax.jit(net.init)(jax.random.key(1), x)

    def loss(params):
        return jnp.square(net.apply({**variables, "params": params}, x, True, mutable=["batch_stats"])[0] - 1).sum()

    gradients = jax.jit(jax.grad(loss))(variables["params"])
    for stage in ("stage1", "stage2", "stage3"):
        for units in ("first", "rest"):
            assert (gradients[stage][units]["bn2"]["scale"] != 0).mean() > 0.9, (stage, units)
