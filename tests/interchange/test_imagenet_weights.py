"""ImageNet networks with weights of Keras give the same logits as Keras's own networks."""

import json

import h5py
import jax
import numpy as np
import pytest

from resnet_flax import config, model
from resnet_flax.errors import UserError
from resnet_flax.interchange import names
from tests.interchange import random_weights
from tests.interchange.keras_golden import CLASSES, GOLDEN, SIDE
from tests.marks import slow

CONFIG = "configs/imagenet.py"


def assert_logits(found, expected):
    found, expected = np.asarray(found), np.asarray(expected)
    assert np.abs(found - expected).max() <= 1e-4 * np.abs(expected).max()


def write_old_keras(path, tensors, suffix=":0", group=""):
    """Writes tensors as Keras 2 did; ``model.save`` put them into a group."""
    with h5py.File(path, "w") as file:
        top = file.create_group(group) if group else file
        layers = list(dict.fromkeys(name.partition("/")[0] for name in tensors))
        top.attrs["layer_names"] = [layer.encode() for layer in (*layers, "avg_pool")]
        top.create_group("avg_pool").attrs["weight_names"] = []
        for layer in layers:
            mine = [name for name in tensors if name.startswith(f"{layer}/")]
            place = top.create_group(layer)
            place.attrs["weight_names"] = [f"{name}{suffix}".encode() for name in mine]
            for name in mine:
                place[f"{name}{suffix}"] = tensors[name]


def write_keras_3(path, tensors, named=True):
    """Writes tensors as ``save_weights`` of Keras 3 does."""
    with h5py.File(path, "w") as file:
        file.create_group("vars")
        file.create_group("layers/activation/vars").attrs["name"] = "conv1_relu"
        for i, layer in enumerate(dict.fromkeys(name.partition("/")[0] for name in tensors)):
            place = file.create_group(f"layers/layer_{i}/vars")
            if named:
                place.attrs["name"] = layer
            for j, name in enumerate(name for name in tensors if name.startswith(f"{layer}/")):
                place[str(j)] = tensors[name]


def keras_tensors(depth, classes):
    """Draws every tensor of Keras's network of a depth, in Keras's order within a layer."""
    from resnet_flax.interchange.weight_layouts import LAYOUTS
    from resnet_flax.networks import build

    network = build(config.load(CONFIG, f"residual-{depth}").model, classes)
    found = {}
    for entry in names.entries(network, (SIDE, SIDE, 3), LAYOUTS["keras"]):
        found[entry.name] = random_weights.tensor(entry.name, entry.shape)
        if entry.absorbed:
            found[entry.absorbed] = random_weights.tensor(entry.absorbed, entry.shape)
    order = ("kernel", "bias", "gamma", "beta", "moving_mean", "moving_variance")
    return dict(sorted(found.items(), key=lambda kv: order.index(kv[0].rpartition("/")[2])))


def keras_model(path, depth=50):
    return model.from_weights(path, config.load(CONFIG, f"residual-{depth}", {"data.image_size": SIDE}),
                              {"data.image_size"})  # fmt: skip


def normalized(net, images):
    n = net.preprocessing.normalization
    return ((images / 255 - n.mean) / n.std).astype(np.float32)


def test_logits_equal_keras(tmp_path):
    """Keras computed the logits (keras_golden.py). The old and the new file format give the same variables."""
    tensors, images = keras_tensors(50, CLASSES), random_weights.images(2, SIDE)
    write_old_keras(tmp_path / "old.h5", tensors)
    write_old_keras(tmp_path / "saved.h5", tensors, suffix="", group="model_weights")
    write_keras_3(tmp_path / "new.weights.h5", tensors)
    nets = [keras_model(tmp_path / name) for name in ("old.h5", "saved.h5", "new.weights.h5")]
    assert nets[0].config.model.bottleneck_stride == "first"
    assert_logits(nets[0].features(normalized(nets[0], images))["logits"], json.loads(GOLDEN.read_text())["logits"])
    for net in nets[1:]:
        jax.tree.map(np.testing.assert_array_equal, net.variables, nets[0].variables)


def published_keras_names():
    """Names and shapes in the published ResNet-50 file of keras-applications, derived from the code of that library."""
    names = {"conv1_conv/kernel": (7, 7, 3, 64), "conv1_conv/bias": (64,), "probs/kernel": (2048, CLASSES)}
    norms = {"conv1_bn": 64}
    channels = 64
    for stage, (filters, blocks) in enumerate([(64, 3), (128, 4), (256, 6), (512, 3)], start=2):
        for block in range(1, blocks + 1):
            kernels = [(1, 1, channels, filters), (3, 3, filters, filters), (1, 1, filters, 4 * filters)]
            layers = list(enumerate(kernels, start=1))
            layers += [(0, (1, 1, channels, 4 * filters))] if block == 1 else []
            for layer, shape in layers:
                place = f"conv{stage}_block{block}_{layer}"
                names |= {f"{place}_conv/kernel": shape, f"{place}_conv/bias": shape[-1:]}
                norms[f"{place}_bn"] = shape[-1]
            channels = 4 * filters
    for layer, length in norms.items():
        names |= {f"{layer}/{leaf}": (length,) for leaf in ("gamma", "beta", "moving_mean", "moving_variance")}
    return names | {"probs/bias": (CLASSES,)}


@pytest.mark.parametrize("head", ["probs", slow("fc1000")])
def test_published_keras_files_name_the_last_layer_otherwise(head, tmp_path):
    """The last layer has another name. The logits equal those of the same tensors under today's names."""
    shapes = published_keras_names()
    assert sum(np.prod(shape) for shape in shapes.values()) == 25_636_712 - 2049 * (1000 - CLASSES)  # Keras's summary
    today = {name: random_weights.tensor(name.replace("probs", "predictions"), shape) for name, shape in shapes.items()}
    write_old_keras(tmp_path / "w.h5", {name.replace("probs", head): tensor for name, tensor in today.items()})
    net = keras_model(tmp_path / "w.h5")
    logits = net.features(normalized(net, random_weights.images(2, SIDE)))["logits"]
    assert_logits(logits, json.loads(GOLDEN.read_text())["logits"])


@pytest.mark.slow
@pytest.mark.parametrize("depth", [50, 101, 152])
def test_logits_equal_keras_networks_in_pytorch(depth, tmp_path):
    pytest.importorskip("torch")
    from tests.interchange.torch_imagenet import keras_logits

    tensors, images = keras_tensors(depth, 9), random_weights.images(2, SIDE)
    write_old_keras(tmp_path / "old.h5", tensors)
    net = keras_model(tmp_path / "old.h5", depth)
    assert_logits(net.features(normalized(net, images))["logits"], keras_logits(depth, tensors, images))


def test_a_keras_file_that_does_not_fit_is_explained(tmp_path):
    tensors = keras_tensors(50, CLASSES)
    write_old_keras(tmp_path / "deep.h5", tensors)
    with pytest.raises(UserError, match=r"does not fit imagenet residual-101: missing: .*have 3, 4, 6, 3 units"):
        keras_model(tmp_path / "deep.h5", 101)
    write_keras_3(tmp_path / "nameless.weights.h5", tensors, named=False)
    with pytest.raises(UserError, match=r"weights\.h5: /layers/layer_\d+ has no name that identifies the layer"):
        keras_model(tmp_path / "nameless.weights.h5")
    (tmp_path / "text.h5").write_text("no HDF5")
    with pytest.raises(UserError, match="text.h5: no file of weights .it begins with"):
        keras_model(tmp_path / "text.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = np.zeros(3)
    with pytest.raises(UserError, match="an HDF5 file, but not of Keras's weights"):
        keras_model(tmp_path / "other.h5")


def test_imagenets_classes_are_in_the_usual_order():
    from resnet_flax.interchange.class_names import imagenet_classes

    classes = imagenet_classes()
    assert len(classes) == len(set(classes)) == 1000
    # Known indices of three WordNet numbers on https://www.image-net.org: n01440764, n02123045 and n15075141.
    assert (classes[0], classes[281], classes[999]) == ("tench", "tabby", "toilet tissue")
