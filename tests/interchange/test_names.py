"""Export to PyTorch's names and import again give the same bits, and PyTorch's network gives the same logits."""

import dataclasses
import importlib.util

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_flax import config
from resnet_flax.errors import UserError
from resnet_flax.interchange import files, names
from resnet_flax.interchange.weights import deviations, variables
from resnet_flax.networks import build
from resnet_flax.networks.families import FAMILIES
from resnet_flax.networks.units import UNITS, Unit
from tests.marks import slow
from tests.networks.small import variables_of
from tests.peer_torchvision import torchvision


def network(family="cifar", block="basic", depth=20, **keys):
    c = config.base()
    c.model.update(dict(family=family, block=block, depth=depth) | keys)
    return build(c.model, 10)


def weights(tensors):
    return files.Weights("there.th", dict(tensors))


def read(net, shape, tensors, family="cifar", **keys):
    file = weights(tensors)
    return names.from_tensors(net, shape, file, "it", names.layout_of(file, family), **keys)


def there_and_back(net, shape, family="cifar"):
    x = jnp.zeros((1, *shape))
    variables = variables_of(net, x)
    tensors = names.to_tensors(net, shape, variables, family)
    back = read(net, shape, tensors, family)
    assert jax.tree.structure(back) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, back, variables)
    assert sum(t.size for t in tensors.values()) == sum(leaf.size for leaf in jax.tree.leaves(variables))
    return variables, tensors


@settings(max_examples=4)
@given(st.integers(1, 6), st.sampled_from(sorted(UNITS)), st.sampled_from("ABC"))
def test_any_network_survives_export_and_import_bit_for_bit(n, unit, shortcut):
    there_and_back(network(depth=6 * n + 2, unit=unit, shortcut=shortcut, width=0.25), (8, 8, 3))


@pytest.mark.parametrize(("block", "depth"), [slow("basic", 18), ("bottleneck", 50)])
def test_names_equal_torchvisions(block, depth):
    net = network("imagenet", block, depth, shortcut="B", width=0.125)
    _, tensors = there_and_back(net, (32, 32, 3), "imagenet")
    expected = {"conv1.weight", "bn1.running_var", "layer2.0.downsample.0.weight", "layer2.0.downsample.1.bias",
                "layer4.1.conv2.weight", "fc.weight", "fc.bias"}  # fmt: skip
    assert expected <= tensors.keys()
    if importlib.util.find_spec("torchvision") is None:
        return  # without torchvision, its own names cannot be compared
    theirs = getattr(torchvision().models, f"resnet{depth}")().state_dict()
    assert tensors.keys() == {name for name in theirs if not name.endswith("num_batches_tracked")}


@pytest.mark.parametrize(("option", "padding"), [slow("A", "end"), ("A", "both"), slow("B", "end")])
def test_a_pytorch_network_loads_the_export_and_gives_the_same_logits(option, padding):
    torch = pytest.importorskip("torch")
    from tests.interchange.torch_model import Network, logits

    net = network(depth=14, shortcut=option, shortcut_padding=padding)
    variables, tensors = there_and_back(net, (16, 16, 3))
    model = Network(2, option, padding == "both")
    result = model.load_state_dict({k: torch.tensor(v) for k, v in tensors.items()}, strict=False)
    assert not result.unexpected_keys
    assert all(name.endswith("num_batches_tracked") for name in result.missing_keys)
    images = np.random.default_rng(0).standard_normal((4, 16, 16, 3)).astype(np.float32)
    ours = jax.jit(lambda v, x: net.apply(v, x, train=False))(variables, images)
    np.testing.assert_allclose(ours, logits(model, images), rtol=1e-4, atol=1e-4)

    # Import the weights again, with the names of a data-parallel model.
    saved = {f"module.{name}": value.numpy() for name, value in model.state_dict().items()}
    again = read(net, (16, 16, 3), saved)
    jax.tree.map(np.testing.assert_array_equal, again, variables)


def test_tensors_that_do_not_fit_are_named():
    shape = (32, 32, 3)
    net = network(depth=20)
    tensors = names.to_tensors(net, shape, variables_of(net, jnp.zeros((1, *shape))), "cifar")
    with pytest.raises(
        UserError, match=r"does not fit it: missing: .*layer1\.3.* more; the file's stages have 3, 3, 3"
    ):
        read(network(depth=32), shape, tensors)
    with pytest.raises(UserError, match=r"left over: extra;"):
        read(net, shape, tensors | {"extra": np.ones(1)})
    with pytest.raises(UserError, match=r"of another shape: linear\.bias is \(3,\) and must be \(10,\).*reset_head"):
        read(net, shape, tensors | {"linear.bias": np.ones(3)})


@pytest.mark.parametrize("lacking", [False, True])
def test_the_head_can_be_reset(lacking):
    """The file's head is ignored, whether it has one or not. All other tensors must fit."""
    shape = (32, 32, 3)
    net, other = network(depth=8), network(depth=8).clone(classes=4)
    variables, mine = (variables_of(n, jnp.zeros((1, *shape))) for n in (net, other))
    tensors = names.to_tensors(net, shape, variables, "cifar")
    if lacking:
        tensors = {name: t for name, t in tensors.items() if not name.startswith("linear.")}
    found = read(other, shape, tensors, without_head=True)
    jax.tree.map(np.testing.assert_array_equal, found["params"]["stage3"], variables["params"]["stage3"])
    assert "dense" not in found["params"]
    found["params"]["dense"] = mine["params"]["dense"]
    assert jax.tree.structure(found) == jax.tree.structure(mine)
    with pytest.raises(UserError, match=r"missing: conv1\.weight"):
        read(other, shape, {k: v for k, v in tensors.items() if k != "conv1.weight"}, without_head=True)


@pytest.mark.parametrize(
    ("path", "name", "keys", "expected"),
    [
        ("imagenet", "residual-50", {"model.bottleneck_stride": "3x3"}, []),
        ("imagenet", "residual-18", {}, []),  # no bottlenecks
        (
            "imagenet", "residual-50", {},
            ["model.bottleneck_stride=first, and torchvision's network has 3x3"],
        ),
        (
            "imagenet", "residual-18", {"model.shortcut": "A", "model.bn_epsilon": 1e-3},
            ["model.shortcut=A, and torchvision's network has B",
             "model.bn_epsilon=0.001, and torchvision's network has 1e-05"],
        ),
        ("imagenet", "plain-18", {"model.norm": "none", "model.bn_epsilon": 1e-3}, []),
        ("cifar10", "residual-20", {"model.shortcut_padding": "both"}, []),
        ("cifar10", "residual-20", {"model.shortcut": "B"}, []),
        ("cifar10", "residual-20", {}, ["model.shortcut_padding=end, and akamaster's network has both"]),
        ("cifar10", "plain-20", {}, ["model.unit=plain, and akamaster's network has residual"]),
        ("cifar10", "plain-20", {"model.shortcut": "B"}, ["model.unit=plain, and akamaster's network has residual"]),
        ("cifar10", "highway-20", {}, []),  # the names of its gates are not akamaster's
        ("imagenet", "plain-18", {}, []),  # torchvision's network has more names, those of projections
        ("cifar10", "vgg-16", {}, []),  # akamaster has none
    ],
)  # fmt: skip
def test_differences_from_the_other_librarys_network_are_listed(path, name, keys, expected):
    c = config.resolve(config.load(f"configs/{path}.py", name, keys))
    assert deviations(c) == expected


@pytest.mark.parametrize(("unit", "remarks"), [("residual", 0), ("plain", 1)])
def test_a_file_that_is_loaded_into_other_units_is_remarked_on(unit, remarks, capsys):
    shape, keys = (8, 8, 3), {"depth": 8, "width": 0.25}
    net = network(**keys)
    tensors = names.to_tensors(net, shape, variables_of(net, jnp.zeros((1, *shape))), "cifar")
    c = config.resolve(config.load("configs/cifar10.py", f"{unit}-8", {"model.width": 0.25}))
    variables(weights(tensors), build(c.model, 10), shape, c.model)
    error = capsys.readouterr().err
    assert error.count("in akamaster's layout, whose networks have residual units; model.unit=plain") == remarks


class OwnUnit(Unit):
    """``y = relu(alpha norm(F(x)) + shortcut(x))``, with a parameter of its own and a norm of Flax."""

    @nn.compact
    def __call__(self, x, train):
        alpha = self.param("alpha", nn.initializers.ones, ())
        y = nn.BatchNorm(use_running_average=not train, name="norm1")(self.branch(x, train))
        return nn.relu(alpha * y + self.shortcut(x, train))


def test_a_unit_of_the_users_own_survives_export_and_import(monkeypatch, tmp_path):
    monkeypatch.setitem(UNITS, "own", OwnUnit)
    net, shape = network(depth=14, unit="own", width=0.25), (8, 8, 3)
    expected, tensors = there_and_back(net, shape)
    own = {name: tensor.shape for name, tensor in tensors.items() if "alpha" in name or "layer3.1.norm1" in name}
    assert own == {f"layer{i}.{j}.alpha": () for i in (1, 2, 3) for j in (0, 1)} | {
        f"layer3.1.norm1.{leaf}": (16,) for leaf in ("scale", "bias", "mean", "var")
    }
    files.write(tmp_path / "own.safetensors", tensors, "{}", "{}")
    file = files.read(tmp_path / "own.safetensors")
    back = names.from_tensors(net, shape, file, "it", names.layout_of(file, "cifar"))
    jax.tree.map(np.testing.assert_array_equal, back, expected)


def test_a_family_of_the_users_own_survives_export_and_import(monkeypatch):
    """Regression test: a traceback without a message."""
    monkeypatch.setitem(FAMILIES, "mine", dataclasses.replace(FAMILIES["cifar"]))
    net = network("mine", depth=8, width=0.25)
    _, tensors = there_and_back(net, (8, 8, 3), "mine")
    assert "layer3.0.conv1.weight" in tensors
    c = config.base()
    c.model.family = "mine"
    assert deviations(c) == []
