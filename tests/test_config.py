"""Tests of configs: names of networks, refused values and their messages, derived keys, and JSON."""

import ast
import copy
import functools
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_collections import FieldReference

from resnet_flax import config
from resnet_flax.config import page, suggestions
from resnet_flax.errors import UserError
from resnet_flax.networks.units import UNITS
from resnet_flax.reporting.protocol import protocol_differences
from resnet_flax.training.recipe import Recipe

ROOT = Path(__file__).parents[1]
KEYS = config.flatten(config.base())

# Values of each type that every key of that type allows, and values that no such key allows.
FITTING = {
    int: st.integers(1, 10_000),
    float: st.floats(1e-6, 0.99),
    bool: st.booleans(),
    str: st.text(),
    tuple: st.lists(st.integers(1, 10_000), unique=True).map(lambda steps: tuple(sorted(steps))),
    type(None): st.none() | st.floats(-9, 9),  # None is derived from other keys
}
OTHER_TYPES = {
    int: [1.5, "1", None, True],
    float: ["0.1", None, float("nan"), float("inf")],
    bool: [1, "True", None],
    str: [1, None, ("a",)],
    tuple: [5, "5", (0,), (1.5,), ("a",), (-3, 4)],
    type(None): ["0.1", float("nan"), (1.0,)],
}

STREAM = {"data.pipeline": "stream", "data.image_size": 224, "data.pad": 0}


def with_values(**values):
    c = config.base()
    with c.ignore_type(), c.unlocked():
        for key, value in values.items():
            section, _, name = key.replace("__", ".").rpartition(".")
            (c[section] if section else c)[name] = value
    return c


def refusal(**values):
    with pytest.raises(UserError) as found:
        config.validate(with_values(**values))
    message = str(found.value)
    assert len(message.splitlines()) == 1
    return message


def test_the_base_is_the_papers_cifar10_recipe():
    """Section 4.2 of arXiv:1512.03385."""
    c = config.base()
    config.validate(c)
    assert (c.train.steps, c.train.batch_size, c.schedule.milestones, c.schedule.factor) == (
        64_000, 128, (32_000, 48_000), 0.1,
    )  # fmt: skip
    assert (c.optimizer.name, c.optimizer.learning_rate, c.optimizer.momentum) == ("sgd", 0.1, 0.9)
    assert (c.optimizer.weight_decay, c.model.shortcut, c.model.initialization) == (1e-4, "A", "he")
    assert (c.data.pad, c.data.flip, c.data.normalization, c.model.zero_init_last) == (4, True, "pixel_mean", False)


@functools.cache
def names_read():
    """Returns what the code reads as an attribute or by a constant subscript; texts and comments do not count."""
    sources = [p for p in [*(ROOT / "resnet_flax").rglob("*.py"), ROOT / "train.py"] if p.parent.name != "config"]
    sources.append(ROOT / "resnet_flax/config/validation.py")
    nodes = [node for p in sources for node in ast.walk(ast.parse(p.read_text()))]
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    subscripts = [node.slice for node in nodes if isinstance(node, ast.Subscript)]
    return attributes | {place.value for place in subscripts if isinstance(place, ast.Constant)}


@pytest.mark.parametrize("key", KEYS)
def test_every_key_is_read_somewhere(key):
    assert key.rpartition(".")[2] in names_read()


@pytest.mark.parametrize("key", config.KEYS.values(), ids=lambda key: key.name)
def test_every_row_is_consistent_with_the_others(key):
    """Its default is allowed, and its conditions name other keys and their choices."""
    assert KEYS[key.name] == key.default
    assert not key.choices or key.default in key.names()
    key.check(key.default)
    parts = [part for part in f"{key.only} and {key.when}".split(" and ") if part]
    for name, equals, values in (part.replace("!", "").partition("=") for part in parts):
        assert name in set(KEYS) - {key.name}
        assert not equals or set(values.split("|")) <= set(config.KEYS[name].names())


def test_the_page_of_keys_is_up_to_date():
    """``python -m resnet_flax.config > docs/config.md`` generates it, with the names of registries."""
    text = (ROOT / "docs" / "config.md").read_text()
    assert page.page() == text
    assert all(f"| `{key}` |" in text for key in KEYS)
    assert all(f"`{unit}`" in text for unit in UNITS)


def test_one_row_is_enough_for_a_new_key(monkeypatch):
    """Refusals, rules of resume, the page, ``--help`` and reports are all made from the row."""
    row = config.Key(
        "train.patience", 3, "evaluations without progress", least=1, below=9, resume="may grow",
        when="schedule.name=cosine", phrase="patience {} instead of {}",
    )  # fmt: skip
    monkeypatch.setitem(config.KEYS, row.name, row)
    assert "| `train.patience` | `3` | in [1, 9) | evaluations without progress | has an effect only if " in page.page()
    assert "  train.patience=3   " in config.keys_in_help("config")
    assert "evaluations without progress" in config.keys_in_help("config")
    old, new = with_values(**{row.name: 3}), with_values(**{row.name: 5, "schedule.name": "cosine"})
    config.validate(new)
    assert config.differences(old, with_values(**{row.name: 4})) == []
    assert config.differences(with_values(**{row.name: 4}), old) == ["train.patience: 4 there, 3 now"]
    assert refusal(**{row.name: 9}) == "train.patience=9 must be in [1, 9)"
    assert refusal(**{row.name: 1.5}).endswith("is of type float; it must be an int, such as 3")
    assert "patience 5 instead of none" in protocol_differences(config.resolve(new))
    assert "patience" not in str(protocol_differences(config.resolve(with_values(**{row.name: 5}))))


def test_configs_are_read_without_jax():
    """Neither ``--help`` nor reports wait for jax; registries are imported when their names are needed."""
    code = (
        "import sys; from resnet_flax import config; from resnet_flax.runs.schemas import read_config; "
        "c = config.load('configs/digits.py', 'plain-8', {'optimizer.name': 'lars'}); "
        "read_config(config.to_json(c).encode(), None); config.keys_in_help('config'); assert 'jax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize(
    ("name", "family", "unit", "block", "depth"),
    [
        ("residual-56", "cifar", "residual", "basic", 56),
        ("plain-bottleneck-164", "cifar", "plain", "bottleneck", 164),
        ("residual-basic-110", "cifar", "residual", "basic", 110),
        ("residual-34", "imagenet", "residual", "basic", 34),
        ("residual-50", "imagenet", "residual", "bottleneck", 50),
        ("plain-18", "imagenet", "plain", "basic", 18),
    ],
)
def test_names_set_unit_block_and_depth(name, family, unit, block, depth):
    c = config.base()
    c.model.family = family
    config.apply_name(c, name)
    assert (c.model.unit, c.model.block, c.model.depth) == (unit, block, depth)
    config.validate(c)


@pytest.mark.parametrize(
    "name", ["", "residual", "residual-", "-20", "20", "residual-2x", "residual-wide-20", "a-b-c-1"]
)
def test_names_of_other_forms_are_refused(name):
    with pytest.raises(UserError, match=rf"{re.escape(repr(name))} is not UNIT-DEPTH .* such as residual-56"):
        config.apply_name(config.base(), name)


@pytest.mark.parametrize(
    ("key", "value"), [(key, value) for key, default in KEYS.items() for value in OTHER_TYPES[type(default)]], ids=str
)
def test_a_value_of_the_wrong_type_is_refused(key, value):
    message = refusal(**{key: value})
    assert message.startswith(f"{key}={value!r} is of type {type(value).__name__}; it must be a")


@pytest.mark.parametrize("key", [key.name for key in config.KEYS.values() if key.choices])
def test_another_choice_is_refused_and_the_choices_are_listed(key):
    message = refusal(**{key: "other"})
    own = "; --module=FILE if you define it" * isinstance(config.KEYS[key].choices, str)
    assert message == f"{key}='other' is not known; choose one of {', '.join(config.KEYS[key].names())}{own}"


@pytest.mark.parametrize("key", [key for key in config.KEYS.values() if key.bounds()], ids=lambda key: key.name)
def test_a_number_out_of_bounds_is_refused(key):
    outside = [
        *([] if key.least is None else [key.least - 1]), *([] if key.most is None else [key.most + 1]),
        *([] if key.above is None else [key.above]), *([] if key.below is None else [key.below]),
    ]  # fmt: skip
    for value in outside:
        assert refusal(**{key.name: key.kind(value)}) == f"{key.name}={key.kind(value)} must be {key.bounds()}"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train.steps": 0}, "train.steps=0 must be at least 1"),
        ({"optimizer.learning_rate": 0.0}, "optimizer.learning_rate=0.0 must be above 0"),
        ({"optimizer.momentum": 1.0}, r"optimizer.momentum=1.0 must be in \[0, 1\)"),
        ({"model.bn_momentum": -0.1}, r"model.bn_momentum=-0.1 must be in \[0, 1\)"),
        ({"schedule.milestones": (5, 5)}, r"schedule.milestones=\(5, 5\) must be increasing"),
        ({"train.steps": 2**25}, r"must be below 2\*\*32 images"),
        ({"model.depth": 21}, "model.depth=21 is no basic network"),
        ({"model.unit": "residul"}, "model.unit='residul' is not known; choose one of plain, residual"),
        ({"model.initialization": "hee"}, "model.initialization='hee' is not known; choose one of he, "),
        ({"model.stage_units": (1, 2, 3, 4)}, "does not fit the cifar family: 1 to 3 stages"),
        ({"train.batchsize": 5}, "config has no key 'train.batchsize'; did you mean train.batch_size"),
        ({"moodel": 5}, "config has no key 'moodel'; did you mean "),
        *[
            ({key: value}, rf"^{key}=.* has no effect; set data.pipeline=stream$")
            for key, value in {
                "data.augmentation": "scale",
                "data.scales": (1, 2),
                "data.least_area": 0.5,
                "data.colour": 0.1,
                "data.broken": "skip",
            }.items()
        ],
        ({"data.pipeline": "stream"}, "data.image_size=0: photographs differ in size"),
        (STREAM | {"data.pad": 4}, "data.pad=4: streamed images are not padded"),
        (STREAM | {"data.resize": 100}, "data.resize=100 must be at least data.image_size=224, or 0"),
        (
            STREAM | {"data.augmentation": "scale", "data.scales": (200, 300)},
            r"data.scales=\(200, 300\) must be the smallest",
        ),
    ],
    ids=str,
)
def test_values_that_do_not_fit_are_refused(values, message):
    assert re.search(message, refusal(**values))


@pytest.mark.parametrize(
    ("given", "rest"),
    [
        ("data.path", "did you mean data.folder or data.data_dir?"),
        ("model.channels", "did you mean model.width or model.stage_filters?"),
        ("optimizer.lr_decay", "did you mean schedule.factor or schedule.milestones?"),
        ("train.save_every", "did you mean train.checkpoint_every?"),
        ("loader.num_workers", "did you mean data.workers?"),
        ("model.Dropout-Rate", "did you mean model.dropout?"),
        ("train.seed", "did you mean seed?"),
        ("data.batch_size", "did you mean train.batch_size?"),
        ("train.nesterov", "did you mean optimizer.nesterov?"),
        ("train.gpus", "JAX_PLATFORMS=cpu or cuda in the environment chooses the devices, all of which are used: "
         "docs/devices.md"),
        ("train.output_dir", "--workdir=FOLDER names the run directory"),
    ],
)  # fmt: skip
def test_names_of_other_projects_are_answered(given, rest):
    assert config.unknown_key(given, list(KEYS)) == f"config has no key {given!r}; {rest}"


def test_names_of_other_projects_stand_for_keys():
    """None of them is a key's own name, which would be found without a list."""
    own = {key.rpartition(".")[2] for key in KEYS}
    assert {key for keys in suggestions._OTHERS_NAMES.values() for key in keys} <= set(KEYS)
    assert not own & (suggestions._OTHERS_NAMES.keys() | suggestions._NO_KEY.keys())
    assert not suggestions._OTHERS_NAMES.keys() & suggestions._NO_KEY.keys()


def test_a_missing_key_is_named():
    c = config.base()
    with c.unlocked():
        del c.train.steps
    with pytest.raises(UserError, match="lacks the key 'train.steps'"):
        config.validate(c)


@given(st.data())
def test_json_restores_the_config(data):
    """This holds for values of any type in any keys, and writing the restored config gives the same JSON."""
    keys = data.draw(st.lists(st.sampled_from(list(KEYS)), unique=True))
    c = with_values(**{key: data.draw(FITTING[type(KEYS[key])], label=key) for key in keys})
    again = config.from_json(config.to_json(c))
    assert config.flatten(again) == config.flatten(c)
    assert config.to_json(again) == config.to_json(c)
    assert config.differences(again, c) == []


@given(st.data())
def test_differences_are_listed_with_both_values(data):
    key = data.draw(st.sampled_from(list(KEYS)))
    there, now = data.draw(st.lists(FITTING[type(KEYS[key])], min_size=2, max_size=2, unique=True))
    found = config.differences(with_values(**{key: there}), with_values(**{key: now}))
    may_differ = key in config.RESUME_MAY_CHANGE or (key == "train.steps" and now > there)
    assert found == ([] if may_differ else [f"{key}: {there!r} there, {now!r} now"])


def test_derived_values_are_written_out():
    c = config.resolve(with_values(**{"model.stage_units": (3, 4, 6), "schedule.name": "cosine"}))
    assert c.model.depth == 2 * 13 + 2
    assert c.schedule.decay_steps == 64_000
    assert config.flatten(config.resolve(c)) == config.flatten(c)


def test_a_depth_that_contradicts_the_stages_is_refused():
    """A depth equal to that of the stages is accepted, and a depth from the config's name is replaced."""
    stages = {"model.stage_units": (1, 1, 1)}
    assert config.resolve(config.load("configs/digits.py", "residual-20", stages)).model.depth == 8
    config.load("configs/digits.py", "residual-20", stages | {"model.depth": 8})
    with pytest.raises(UserError, match=r"^model.depth=20 has no effect beside .*\(1, 1, 1\), which make 8 layers"):
        config.load("configs/digits.py", "residual-20", stages | {"model.depth": 20})


@pytest.mark.parametrize("key", [key for key in config.KEYS.values() if key.when], ids=lambda key: key.name)
def test_a_key_without_effect_is_remarked_on(key):
    """A row of the table names its condition; the remark is given unless the values of one of the configs meet it.

    Code of the user's own may read any key: an optimizer or schedule that is not the project's meets the condition.
    """
    parts = [part for part in key.when.split(" and ") if "=" in part]
    met = {  # values that meet every condition of the table
        "model.unit": "residual", "model.shortcut": "A", "model.block": "bottleneck", "model.norm": "batch",
        "data.folder": "photos", "init.weights": "x.safetensors", "schedule.warmup_steps": 1,
        "optimizer.name": "own", "schedule.name": "own",
    } | dict(part.split("=") for part in parts if "!" not in part)  # fmt: skip
    unmet = met | {
        "model.block": "basic", "model.norm": "none", "data.folder": "", "init.weights": "",
        "data.augmentation": "crop", "data.pipeline": "resident", "schedule.warmup_steps": 0,
    } | dict(part.partition("|")[0].split("!=") for part in parts if "!" in part)  # fmt: skip
    yes, no = with_values(**met), with_values(**unmet)
    assert config.without_effect([key.name], [yes]) == config.without_effect([key.name], [no, yes]) == []
    assert config.without_effect([key.name, "seed", "x"], [no]) == [
        f"{key.name} has no effect here: it is used with {key.when}"
    ]


def test_an_optimizer_and_a_schedule_of_the_users_own_may_read_any_key():
    c = config.load("configs/cifar10.py", "residual-20", {"optimizer.name": "own", "schedule.name": "own"})
    keys = [key for key in KEYS if key.startswith(("optimizer.", "schedule.")) and "warmup" not in key]
    assert config.without_effect(keys, [c]) == []
    c.optimizer.beta1 = 0.5
    assert any(text.startswith("optimizer.beta1 0.5 instead of 0.9") for text in protocol_differences(c))


def test_resolving_leaves_the_given_config_alone():
    c = with_values(**{"schedule.name": "cosine"})
    config.resolve(c)
    assert c.schedule.decay_steps == 0


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda p: p.stem)
def test_the_config_files_of_the_project_are_valid(path):
    if path.stem == "from_json":
        with pytest.raises(UserError, match="name a run's config.json after the colon"):
            config.load(str(path))
        return
    names = {"imagenet": "plain-34", "imagenet_short": "plain-34", "folder": "plain-34", "highway": "plain-19"}
    name = names.get(path.stem, "plain-20")
    c = config.load(str(path), name, {"train.steps": 7})
    config.validate(c)
    assert (c.model.unit, c.train.steps) == ("plain", 7)
    config.validate(config.load(str(path)))
    with pytest.raises(UserError, match="no key 'train.step'; did you mean train.steps"):
        config.load(str(path), overrides={"train.step": 7})
    with pytest.raises(UserError, match="^train.steps='7' is of type str; it must be an int, such as 64000$"):
        config.load(str(path), name, {"train.steps": "7"})


def test_the_imagenet_recipe_is_the_papers():
    """Section 3.4 of arXiv:1512.03385."""
    c = config.resolve(config.load("configs/imagenet.py", "residual-50"))
    assert (c.train.batch_size, c.train.steps, c.optimizer.learning_rate) == (256, 600_000, 0.1)
    assert (c.optimizer.weight_decay, c.optimizer.momentum, c.model.dropout) == (1e-4, 0.9, 0)
    assert (c.data.pipeline, c.data.augmentation, c.data.scales, c.data.image_size) == (
        "stream",
        "scale",
        (256, 480),
        224,
    )
    assert (c.data.flip, c.data.colour, c.data.normalization) == (True, 0.1, "pixel_mean")
    assert (c.model.shortcut, c.train.bn_group, c.data.interpolation) == ("B", 32, "bilinear")


def test_the_short_recipe_of_imagenet():
    for name in ("residual-18", "residual-152", "plain-18", "preactivation-50", "vgg-16"):
        c = config.resolve(config.load("configs/imagenet_short.py", name))
        assert c.schedule.decay_steps == c.train.steps == 40 * 1251
        assert c.schedule.warmup_steps == 5 * 1251
        assert c.model.zero_init_last == (name.startswith("residual"))
    c = config.resolve(config.load("configs/imagenet_short.py", "residual-50"))
    assert (c.optimizer.weight_decay, c.optimizer.decay, c.optimizer.nesterov) == (5e-5, "kernels", True)
    assert (c.model.bottleneck_stride, c.model.dtype, c.data.normalization) == ("3x3", "bfloat16", "imagenet")


def test_cifar10_of_110_layers_warms_up_and_bottlenecks_project():
    c = config.load("configs/cifar10.py", "residual-110")
    assert (c.schedule.warmup_steps, c.schedule.warmup_learning_rate, c.train.bn_group) == (400, 0.01, 64)
    assert config.load("configs/cifar10.py", "residual-56").schedule.warmup_steps == 0
    assert config.load("configs/cifar10.py", "residual-bottleneck-164").model.shortcut == "B"


def test_a_file_without_get_config_is_refused(tmp_path):
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(UserError, match="has no function get_config"):
        config.load(str(tmp_path / "empty.py"))


@pytest.mark.parametrize(
    ("file", "given", "wanted"),
    [
        ("cifar10", {"model.depth": 110}, {"schedule.warmup_steps": 400}),
        ("cifar10", {"model.stage_units": (18, 18, 18)}, {"schedule.warmup_steps": 400}),
        ("cifar10", {"model.depth": 110, "schedule.warmup_steps": 0}, {"schedule.warmup_steps": 0}),
        ("cifar10", {"model.block": "bottleneck", "model.depth": 164}, {"model.shortcut": "B"}),
        ("cifar10", {"train.batch_size": 96}, {"train.bn_group": 48}),
        ("cifar10", {"train.batch_size": 96, "train.bn_group": 32}, {"train.bn_group": 32}),
        ("imagenet_short", {"train.batch_size": 256}, {
            "optimizer.learning_rate": 0.1, "train.steps": 40 * 5004, "schedule.warmup_steps": 5 * 5004,
            "schedule.decay_steps": 40 * 5004, "train.eval_every": 5004,
        }),
        ("imagenet_short", {"model.unit": "plain"}, {"model.zero_init_last": False}),
        ("imagenet", {"train.batch_size": 512}, {
            "schedule.milestones": (75_068, 150_136, 225_205), "train.steps": 300_000,
        }),
        ("digits", {"train.batch_size": 64}, {"train.steps": 440, "schedule.milestones": (220, 330)}),
        ("digits", {"train.steps": 1800}, {"schedule.milestones": (450, 675), "train.log_every": 45}),
        ("digits", {"train.batch_size": 64, "schedule.milestones": (50,)}, {"schedule.milestones": (50,)}),
        ("folder", {"schedule.name": "piecewise"}, {"schedule.milestones": (1000, 1500)}),
        ("folder", {"schedule.name": "piecewise", "train.steps": 1}, {"schedule.milestones": ()}),
        ("folder", {"train.steps": 10}, {"schedule.milestones": (32_000, 48_000), "schedule.decay_steps": 10}),
        ("folder", {}, {"data.image_size": 224, "data.resize": 256}),
        ("folder", {"data.image_size": 32}, {"data.resize": 37}),
        ("folder", {"data.image_size": 32, "data.resize": 40}, {"data.resize": 40}),
        ("folder", {"data.resize": 300}, {"data.image_size": 224}),
        ("imagenet", {}, {"data.resize": 256, "data.scales": (256, 480)}),
        ("imagenet_short", {"data.image_size": 112}, {"data.resize": 128, "data.scales": (128, 240)}),
        ("imagenet", {"model.depth": 18}, {"model.block": "basic"}),
        ("cifar10", {"model.family": "vgg", "model.depth": 16, "model.unit": "plain"}, {
            "model.block": "single", "model.hidden": (512, 512), "model.dropout": 0.5,
        }),
        ("digits", {}, {"train.steps": 900, "schedule.milestones": (450, 675), "train.log_every": 45}),
    ],
    ids=str,
)  # fmt: skip
def test_derived_keys_follow_the_users_values(file, given, wanted):
    c = config.load(f"configs/{file}.py", None)
    for one in (copy.deepcopy(c), c):  # config flags copy a config
        one.update_from_flattened_dict(given)
        flat = config.flatten(config.resolve(one))
        assert {key: flat[key] for key in wanted} == wanted
        assert config.flatten(config.from_json(config.to_json(config.resolve(one)))) == flat


@pytest.mark.parametrize("file", [p.stem for p in Path("configs").glob("*.py") if p.stem != "from_json"])
def test_all_derived_keys_are_in_the_list(file):
    """Runs from before these keys were derived are recognised by them (``runs.resume.check_config``)."""
    c = config.load(f"configs/{file}.py")
    references = {
        f"{section}.{name}" for section in c if section != "seed" for name in c[section]
        if c[section].get_ref(name)._ops or isinstance(c[section].get_ref(name)._value, FieldReference)
    }  # fmt: skip
    assert {"model.block", "model.dropout", "model.hidden"} <= references <= config.DERIVED


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_size_without_derived_values_is_refused_itself(batch):
    for file in ("digits", "cifar10", "imagenet", "imagenet_short"):
        with pytest.raises(UserError, match=f"train.batch_size={batch} must be at least 1"):
            config.resolve(config.load(f"configs/{file}.py", None, {"train.batch_size": batch}))


def test_gate_biases_read_from_json_follow_the_depth(tmp_path):
    c = config.resolve(config.load("configs/digits.py", "highway-20"))
    (tmp_path / "config.json").write_text(config.to_json(c))
    again = config.load("configs/from_json.py", str(tmp_path / "config.json"), {"model.depth": 8})
    assert config.resolve(again).model.gate_bias == -1.0
    assert config.flatten(config.resolve(config.load("configs/from_json.py", str(tmp_path / "config.json")))) == (
        config.flatten(c)
    )


def test_a_cosine_read_from_json_decays_over_all_steps(tmp_path):
    (tmp_path / "config.json").write_text(config.to_json(config.resolve(with_values(**{"schedule.name": "cosine"}))))
    c = config.load("configs/from_json.py", str(tmp_path / "config.json"), {"train.steps": 100_000})
    assert config.resolve(c).schedule.decay_steps == 100_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n1 / 0\n", "line 2: ZeroDivisionError: division by zero"),
        ("import sys\nsys.exit(0)\n", "line 2: SystemExit: 0"),
        ("def get_config(name=None):\n    return {}['a']\n", "line 2: KeyError: 'a'"),
        ("x = (\n", "line 1: SyntaxError: '(' was never closed"),
    ],
)
def test_a_config_file_that_raises_is_explained(tmp_path, text, message):
    (tmp_path / "bad.py").write_text(text)
    with pytest.raises(UserError) as found:
        config.load(str(tmp_path / "bad.py"))
    assert str(found.value) == f"--config={tmp_path / 'bad.py'}, {message}"


def test_a_derived_whole_number_of_a_real_key_is_a_real_number():
    """Regression test: an average's decay of 0, not 0.0, was no number of the compiled step, and a traceback."""
    c = config.load("configs/digits.py", "plain-8")
    config.follow(c, "optimizer.ema", lambda steps: 0.9999 if steps > 10_000 else 0, "train.steps")
    assert type(config.resolve(c).optimizer.ema) is float
    assert "optimizer.ema" in Recipe(config.resolve(c)).numbers
    c.train.steps = 20_000
    assert config.resolve(c).optimizer.ema == 0.9999


@pytest.mark.parametrize("unit", ["plain", "residual"])
def test_a_network_of_single_layers_in_a_family_of_the_users_own_has_a_name(unit):
    """Regression test: the run's own config.json was refused after compiling."""
    model = config.base().model.to_dict() | {"family": "mine", "unit": unit, "block": "single", "depth": 20}
    assert config.name_of(model) == f"{unit}-single-20"
    c = config.apply_name(config.base(), f"{unit}-single-20")
    assert (c.model.unit, c.model.block, c.model.depth) == (unit, "single", 20)
