"""The differences of a run from the paper's recipe in words, and the command that trains it again."""

import shlex

import pytest
from absl import flags
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import config_flags

from resnet_flax import config as configs
from resnet_flax.networks.families import IMAGENET_UNITS
from resnet_flax.reporting.protocol import default_of, protocol_differences, train_command
from tests.experiments.folders import config

RECIPES = [
    ("residual-20", "configs/cifar10.py"),
    ("plain-110", "configs/cifar10.py"),
    ("residual-bottleneck-164", "configs/cifar10.py"),
    ("residual-50", "configs/imagenet.py"),
    ("plain-18", "configs/imagenet.py"),
]


@pytest.mark.parametrize(("name", "file"), RECIPES)
def test_the_recipe_itself_has_no_differences(name, file):
    assert protocol_differences(config(name, file)) == []


@given(
    seed=st.integers(0, 2**31),
    data_dir=st.text("abc/", max_size=5),
    every=st.integers(1, 10**6),
    flag=st.booleans(),
)
def test_keys_that_change_no_result_are_no_differences(seed, data_dir, every, flag):
    of = config(
        "residual-20", "configs/cifar10.py", seed=seed, data__data_dir=data_dir, data__download=flag,
        train__log_every=every, train__eval_every=every, train__checkpoint_every=every, train__eval_batch_size=every,
        train__eval_train=flag, train__keep_checkpoints=every, model__unroll=flag, data__image_size=32,
        optimizer__beta1=0.5, schedule__warmup_learning_rate=0.5, schedule__decay_steps=every,
        model__bottleneck_stride="3x3", train__bn_group=64, model__stage_units=(3, 3, 3) if flag else (),
    )  # fmt: skip
    assert protocol_differences(of) == []


@pytest.mark.parametrize(
    ("changes", "differences"),
    [
        ({"train__steps": 6400}, ["6,400 steps instead of 64,000"]),
        ({"train__steps": 64_001}, ["64,001 steps instead of 64,000"]),
        (
            {"schedule__milestones": (3200, 4800)},
            ["learning rate lowered at steps 3,200, 4,800 instead of 32,000, 48,000"],
        ),
        ({"optimizer__learning_rate": 0.01}, ["learning rate 0.01 instead of 0.1"]),
        (
            {"train__batch_size": 64},
            ["batches of 64 images instead of 128", "batch normalisation over 32 images instead of 64"],
        ),
        ({"train__bn_group": 0}, ["batch normalisation over 128 images instead of 64"]),
        ({"data__image_size": 16}, ["images of side 16 instead of 32"]),
        ({"data__validation": 5000}, ["5,000 training images set aside instead of 0"]),
        ({"data__pad": 2}, ["padding 2 instead of 4 pixels"]),
        ({"data__flip": False}, ["no random flips"]),
        ({"data__normalization": "channel"}, ["images normalised by channel instead of pixel_mean"]),
        ({"optimizer__weight_decay": 5e-4}, ["weight decay 0.0005 instead of 0.0001"]),
        ({"optimizer__decay": "kernels"}, ["weight decay on kernels instead of all"]),
        ({"optimizer__nesterov": True}, ["Nesterov momentum"]),
        ({"optimizer__name": "adamw"}, ["optimizer adamw instead of sgd"]),
        (
            {"optimizer__name": "adamw", "optimizer__beta2": 0.95},
            ["optimizer adamw instead of sgd", "optimizer.beta2 0.95 instead of 0.999"],
        ),
        ({"schedule__name": "cosine"}, ["cosine schedule instead of piecewise"]),
        (
            {"schedule__name": "cosine", "schedule__decay_steps": 100},
            ["cosine schedule instead of piecewise", "half a cosine over 100 steps"],
        ),
        ({"schedule__warmup_steps": 400}, ["400 steps of warm-up instead of 0"]),
        ({"model__width": 0.25}, ["width 0.25 instead of 1"]),
        ({"model__shortcut": "B"}, ["shortcut option B instead of A"]),
        ({"model__shortcut_padding": "both"}, ["zero channels of shortcuts at both instead of end"]),
        ({"model__initialization": "lecun"}, ["initialisation lecun instead of he"]),
        (
            {"model__zero_init_last": True, "model__shortcut": "B"},
            ["shortcut option B instead of A", "last scale of every unit starting at 0"],
        ),
        ({"model__bn_momentum": 0.99}, ["batch-normalisation momentum 0.99 instead of 0.9"]),
        ({"model__dtype": "bfloat16"}, ["computed in bfloat16 instead of float32"]),
        ({"model__stage_units": (4, 3, 2)}, ["stages of 4, 3, 2 units instead of the usual"]),
    ],
    ids=lambda v: ",".join(v) if isinstance(v, dict) else "",
)
def test_differences_are_listed_in_words(changes, differences):
    assert protocol_differences(config("residual-20", "configs/cifar10.py", **changes)) == differences


def test_every_other_key_makes_a_difference():
    """A change of any single key is listed, except for the keys that this test names."""
    base = configs.flatten(config("residual-20", "configs/cifar10.py"))
    silent = []
    for key, value in base.items():
        other = {bool: True, int: 7, float: 0.77, str: "other", tuple: (5,), type(None): 0.77}[type(value)]
        other = (not value) if isinstance(value, bool) else other
        changed = config("residual-20", "configs/cifar10.py")
        with changed.unlocked():
            changed.update_from_flattened_dict({key: other})
        if key not in ("model.family", "model.unit", "model.block", "model.depth") and not protocol_differences(
            changed
        ):
            silent.append(key)
    # These have no effect with SGD, a piecewise schedule, no warm-up, basic units, images of the original size in
    # memory, and random initial values.
    without_effect = [
        "model.bottleneck_stride", "optimizer.beta1", "optimizer.beta2", "optimizer.epsilon",
        "schedule.decay_steps", "schedule.warmup_learning_rate", "data.interpolation", "init.reset_head",
        "optimizer.trust_coefficient", "schedule.warmup", "data.scales", "data.least_area", "data.class_order",
    ]  # fmt: skip
    # The seed, paths of data, the frequencies of logging, evaluation and checkpoints, and ways to save memory.
    no_protocol = [
        "seed", "module", "data.data_dir", "data.folder", "data.download", "data.workers", "data.threads",
        "data.broken",
        "train.log_every", "train.eval_every", "train.eval_batch_size", "train.eval_train", "train.checkpoint_every",
        "train.keep_checkpoints", "model.unroll", "model.remat", "init.adopt", "train.accumulate", "train.metrics",
    ]  # fmt: skip
    assert sorted(silent) == sorted([*no_protocol, *without_effect])


def test_a_network_of_another_family_is_not_the_papers():
    """The highway paper's residual-32 has other widths and units of one layer, under the same name."""
    of = config("residual-32", "configs/highway.py")
    assert configs.name_of(of.model) == "residual-32"
    assert "model.family highway instead of cifar" in protocol_differences(of)


def test_derived_values_are_compared_as_resolved():
    of = config("highway-20", "configs/cifar10.py")
    assert of.model.gate_bias is not None
    assert protocol_differences(of) == []
    assert "gate_bias" not in train_command(of, "runs/x")
    given = of.model.gate_bias - 1
    assert protocol_differences(config("highway-20", "configs/cifar10.py", model__gate_bias=given)) == [
        f"gate bias {given:g} instead of {of.model.gate_bias:g}"
    ]


def test_the_short_imagenet_recipe_lists_its_differences():
    said = protocol_differences(config("residual-50", "configs/imagenet_short.py"))
    assert "random crops by inception instead of scale" in said
    assert "colour augmentation of deviation 0 instead of 0.1" in said
    assert "linear warm-up instead of constant" in said
    assert "label smoothing 0.1 instead of 0" in said
    assert not [phrase for phrase in said if "warm-up at a learning rate" in phrase or "shorter sides" in phrase]


def test_settings_of_normalisation_are_no_differences_without_normalisation():
    of = config("residual-20", "configs/cifar10.py", model__norm="none", model__bn_momentum=0.5, train__bn_group=0)
    assert protocol_differences(of) == ["normalisation none instead of batch"]


@pytest.mark.parametrize("name", ["plain-20", "highway-20"])
def test_the_shortcut_option_is_no_difference_in_networks_without_shortcuts(name):
    assert protocol_differences(config(name, "configs/cifar10.py", model__shortcut="C")) == []


def test_other_data_sets_are_differences():
    assert protocol_differences(config("plain-56"))[:2] == [
        "data set digits instead of cifar10",
        "images of side 8 instead of 32",
    ]
    assert protocol_differences(config("plain-56", "configs/cifar100.py")) == ["data set cifar100 instead of cifar10"]


def test_a_published_variant_is_no_difference():
    of = config("residual-34", "configs/imagenet.py", model__shortcut="C")
    assert protocol_differences(of) == ["shortcut option C instead of B"]
    assert protocol_differences(of, {"model.shortcut": "C"}) == []


names = st.one_of(
    st.builds(
        "{}-{}".format,
        st.sampled_from(["plain", "residual", "preactivation"]),
        st.integers(1, 40).map(lambda n: 6 * n + 2),
    ),
    st.builds("residual-bottleneck-{}".format, st.integers(1, 40).map(lambda n: 9 * n + 2)),
)


@given(name=names)
def test_the_name_of_a_config_is_found_from_its_values(name):
    assert configs.name_of(configs.apply_name(configs.base(), name).model) == name


@pytest.mark.parametrize("depth", [d for by in IMAGENET_UNITS.values() for d in by])
def test_the_name_of_an_imagenet_config_is_found_from_its_values(depth):
    of = configs.load("configs/imagenet.py", f"residual-{depth}")
    assert configs.name_of(of.model) == f"residual-{depth}"


@pytest.mark.parametrize(
    ("name", "file", "changes"),
    [
        ("plain-56", "configs/digits.py", {}),
        ("residual-20", "configs/digits.py", {"seed": 3, "model__width": 0.25, "data__data_dir": "a folder/$x"}),
        ("residual-bottleneck-29", "configs/cifar10.py", {"data__flip": False, "schedule__milestones": ()}),
        ("residual-110", "configs/cifar100.py", {"model__stage_units": (2, 3), "optimizer__nesterov": True}),
        ("residual-50", "configs/imagenet.py", {"schedule__name": "cosine", "optimizer__learning_rate": 1e-5}),
        # Runs from before derived values followed the values that are set.
        (
            "plain-20",
            "configs/digits.py",
            {"train__batch_size": 64, "train__steps": 900, "schedule__milestones": (450, 675)},
        ),
        ("plain-20", "configs/cifar10.py", {"train__batch_size": 96, "train__bn_group": 64}),
    ],
)
def test_the_command_that_trains_a_run_again_gives_the_same_config(monkeypatch, name, file, changes):
    of = config(name, file, **changes)
    python, script, *arguments = shlex.split(train_command(of, "runs/x"))
    assert (python, script, arguments.pop()) == ("python", "train.py", "--workdir=runs/x-again")
    monkeypatch.setattr("sys.argv", [script, *arguments])  # where config_flags looks for overrides
    values = flags.FlagValues()
    holder = config_flags.DEFINE_config_file("config", flag_values=values)
    values([script, *arguments])
    assert configs.flatten(configs.resolve(holder.value)) == configs.flatten(of)


def test_the_command_that_trains_a_run_again_names_its_files():
    of = config("residual-20", module="/a/unit.py,/a/metric.py", seed=3)
    assert train_command(of, "runs/x") == (
        "python train.py --config=configs/digits.py:residual-20 --module=/a/unit.py --module=/a/metric.py "
        "--config.seed=3 --workdir=runs/x-again"
    )


def test_a_config_of_another_version_is_trained_again_from_its_json():
    of = config("residual-20")
    with of.unlocked():
        of.model.squeeze = 0.5
    of.module = "/a/unit.py,/my files/metric.py"
    own = "--module=/a/unit.py --module='/my files/metric.py'"
    assert f"--config=configs/from_json.py:runs/x/config.json {own} " in train_command(of, "runs/x")
    assert protocol_differences(of)[-1] == "model.squeeze 0.5 instead of none"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("digits", "plain-20"),
        ("cifar10", "residual-20"),
        ("cifar100", "residual-20"),
        ("folder", "residual-50"),
        ("imagenet", "residual-50"),
        ("imagenet", "vgg-16"),
    ],
)
def test_a_run_is_compared_with_the_config_file_of_its_data(file, name):
    c = config(name, f"configs/{file}.py")
    found, _ = default_of(c)
    assert found == f"configs/{'imagenet' if c.model.family == 'imagenet' else file}.py:{name}"
