"""Each benchmark with small settings: the table that it prints, and the CSV with machine, versions and commit."""

import csv
import dataclasses
import importlib.util
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from benchmarks import ours
from resnet_flax.analysis.counts import parameters
from resnet_flax.networks import build
from resnet_flax.training.devices import data_mesh, replicated
from resnet_flax.training.setup import network_of
from tests.commands import streams


def run(tmp_path, module, *arguments):
    """Runs a benchmark; returns its rows by column, and the values of the comment lines."""
    path = tmp_path / "new" / "table.csv"
    code, out, error = streams("-m", f"benchmarks.{module}", *arguments, f"--output={path}")
    assert code == 0, error
    text = path.read_text().splitlines()
    comments = dict(line[2:].split(": ", 1) for line in text if line.startswith("# "))
    rows = list(csv.DictReader(line for line in text if not line.startswith("# ")))
    for row in rows:
        assert f"| {' | '.join(row.values())} |" in out
    about = {key: json.loads(value) for key, value in comments.items()}
    assert about["command"].startswith(f"python -m benchmarks.{module} ")
    assert {"date", "jax", "commit", "processor", "cores", "device"} <= about.keys()
    return rows, about


@pytest.mark.slow
def test_train_step(tmp_path):
    peers = ["flax", "pytorch"] if importlib.util.find_spec("torch") else ["flax"]
    small = ["--networks=digits:residual-8", "--batches=4", "--rounds=3", "--turn_seconds=0"]
    rows, about = run(tmp_path, "train_step", *small, "--peers=flax,pytorch")
    assert [row["who"] for row in rows] == ["ours", *peers]
    for row in rows:
        assert float(row["least"]) <= float(row["images/s"]) <= float(row["most"])
        assert float(row["images/s"]) == pytest.approx(4e3 / float(row["ms a step"]), rel=2e-3)
        assert row["steps of a run"] == "900"
        assert float(row["minutes for them"]) == pytest.approx(900 * float(row["ms a step"]) / 6e4, rel=2e-3)
    assert rows[0]["ours over it"] == "1 (1 to 1)"
    assert ("torch" in about) == ("pytorch" in peers)


@pytest.mark.slow
def test_compile_time(tmp_path):
    rows, _ = run(tmp_path, "compile_time", "--depths=8,14", "--unrolled=14", "--rounds=1")
    assert [(row["network"], row["program"], row["cache"]) for row in rows] == [
        (f"ResNet-{depth}", program, cache)
        for depth, program in ((8, "scanned"), (14, "scanned"), (14, "unrolled"))
        for cache in ("none", "cached")
    ]
    assert all(
        float(cached["seconds"]) < float(cold["seconds"]) for cold, cached in zip(*[iter(rows)] * 2, strict=True)
    )


@pytest.mark.slow
def test_memory(tmp_path):
    rows, _ = run(tmp_path, "memory", "--depths=32", "--remats=none,unit", "--batch=16", "--step_batch=4")
    planned, again = (float(row["planned MiB"]) for row in rows)
    assert again < 0.7 * planned
    assert all(float(row["its peak MiB"]) > 0 for row in rows)


@pytest.mark.slow
def test_input(tmp_path):
    rows, _ = run(tmp_path, "input", "--network=cifar10:residual-8", "--batches=4", "--rounds=1")
    assert [row["what"] for row in rows][:2] == ["step", "resident"]
    assert float(rows[1]["images/s"]) > float(rows[0]["images/s"])


@pytest.mark.slow
def test_pipeline(tmp_path):
    small = ["--workers=0,1", "--augmentations=scale", "--batch=4", "--turn_images=4", "--rounds=1"]
    rows, about = run(tmp_path, "pipeline", *small)
    peers = ["pytorch", "pytorch, float32"] if importlib.util.find_spec("torch") else []
    assert [row["who"] for row in rows] == ["ours", *peers] * 2
    assert [row["workers"] for row in rows] == ["1", *"1" * len(peers), "0 (threads)", *"1" * len(peers)]
    assert all(float(row["images/s"]) > 0 for row in rows)
    assert ("torch" in about) == bool(peers)


@pytest.mark.parametrize("augmentation", ["inception", "scale"])
def test_the_pipelines_peer_crops_as_we_do(augmentation):
    """Both crop the same places and sizes on average; the image's colours encode each pixel's position."""
    loader = pytest.importorskip("benchmarks.peers.pytorch_loader")
    import torch
    from PIL import Image

    from resnet_flax.data.streaming import Pipeline

    torch.manual_seed(0)
    y, x = np.mgrid[:300, :400]
    image = Image.fromarray(np.stack([x * 255 / 399, y * 255 / 299, 0 * x], -1).round().astype(np.uint8))
    pipeline = Pipeline(32, 48, augmentation=augmentation, scales=(40, 70))
    transform = loader.RandomResizedCrop(32) if augmentation == "inception" else loader.RandomScaleCrop(32, (40, 70))
    rng, count = np.random.default_rng(0), 1500
    flat = dataclasses.replace(pipeline, flip=False)
    ours = np.stack([flat.crop(image, rng) for _ in range(count)])
    theirs = np.stack([np.asarray(transform(image)) for _ in range(count)])

    def seen(pixels):  # the position of a crop's centre, and its extent across and down
        pixels = pixels.astype(float)
        middle = pixels[:, 15:17, 15:17].mean((1, 2))
        across, down = pixels[:, 16, -1] - pixels[:, 16, 0], pixels[:, -1, 16] - pixels[:, 0, 16]
        return np.stack([middle[:, 0], middle[:, 1], across[:, 0], down[:, 1]], 1)

    ours, theirs = seen(ours), seen(theirs)
    error = np.hypot(ours.std(0), theirs.std(0)) / count**0.5
    assert (np.abs(ours.mean(0) - theirs.mean(0)) < 4 * error).all()
    np.testing.assert_allclose(ours.std(0), theirs.std(0), rtol=0.12)


@pytest.mark.slow
def test_roofline(tmp_path):
    rows, _ = run(tmp_path, "roofline", "--networks=cifar10:residual-8", "--batches=4", "--rounds=1", "--matrix=64")
    (row,) = rows
    # ResNet-8: 12.5M multiply-adds per image in the forward pass, three times that in a step, less the images'
    # gradient.
    assert float(row["GFLOP a step"]) == pytest.approx(2 * 4 * (3 * 12.46 - 0.442) / 1e3, rel=0.02)


@pytest.mark.slow
def test_scaling(tmp_path):
    """Every device gives the same bytes to the collectives, and computes as a single device with as many images."""
    small = ["--network=digits:residual-8", "--batch=16", "--device_counts=1,2", "--process_counts=2", "--rounds=2"]
    rows, _ = run(tmp_path, "scaling", *small)
    columns = ("batch", "processes", "devices", "images a device")
    placed = {tuple(int(row[name]) for name in columns): row for row in rows}
    assert list(placed) == [(16, 1, 1, 16), (16, 1, 2, 8), (16, 2, 2, 8), (8, 1, 1, 8)]
    assert {row["collectives"] for row in rows} == {"2"}
    (given,) = {int(row["bytes given to them"]) for row in rows}
    # The gradients, BN's running statistics, the loss, and the number of errors.
    config = ours.load_config("digits:residual-8")
    shape, classes = ours.shape_and_classes(config)
    variables = jax.eval_shape(
        lambda x: build(config.model, classes).init(jax.random.key(0), x, train=False), np.zeros((1, *shape), "float32")
    )
    assert given == 4 * (sum(leaf.size for leaf in jax.tree.leaves(variables)) + 1 + 1)
    alone = placed[8, 1, 1, 8]
    for shared in (placed[16, 1, 2, 8], placed[16, 2, 2, 8]):
        # The shared program has some more kernels, for the means over devices.
        assert int(shared["kernels"]) == pytest.approx(int(alone["kernels"]), rel=0.05)
        assert (shared["copies"], shared["MB moved"]) == (alone["copies"], alone["MB moved"])
    assert all(0 < float(row["least"]) <= float(row["host ms a call"]) <= float(row["most"]) for row in rows)


@pytest.mark.slow
def test_time_to_figure(tmp_path):
    short = [f"--argument={a}" for a in ("--depths=8", "--units=plain", "--config.train.steps=20")]
    rows, _ = run(tmp_path, "time_to_figure", "--argument=--config=configs/digits.py", *short)
    assert [row["phase"].rpartition(": ")[2] for row in rows] == [
        "starting Python and the libraries", "data, network, compiling", "training and evaluating", "total",
    ]  # fmt: skip
    assert sum(float(row["seconds"]) for row in rows[:-1]) == pytest.approx(float(rows[-1]["seconds"]), abs=0.3)


def test_a_run_on_a_gpu_and_its_benchmark_train_the_same_network(monkeypatch):
    mesh = SimpleNamespace(devices=np.array([SimpleNamespace(platform="gpu")]))
    monkeypatch.setattr(ours, "data_mesh", lambda: mesh)
    monkeypatch.setattr(ours, "replicated", lambda mesh: replicated(data_mesh()))
    monkeypatch.setattr(ours, "initial_state", lambda *_: None)
    monkeypatch.setattr(ours, "make_train_steps", lambda network, *_, **__: network)
    for remat in ("none", "unit"):
        config = ours.load_config("digits:residual-8", **{"model.remat": remat})
        network = ours.training(config, images=1).steps
        assert network == network_of(config, 10, mesh)
        assert network.layers.gpu == (remat == "none")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train_step", "--networks=cifar10:plain-20"], "the peers are residual networks"),
        (["train_step", "--networks=cifar99:residual-20"], "configs/cifar99.py"),
        (["train_step", "--dtypes=float8"], "--dtypes=float8: choose from float32, bfloat16"),
        (["pipeline", "--workers=1,-2"], "--workers=1,-2 must be whole numbers of at least 0"),
        (["pipeline", "--folder=nowhere"], "nowhere: there is no such folder"),
        (["memory", "--depths=20,x"], "--depths=20,x must be whole numbers"),
        (["scaling", "--device_counts=1,3"], "--device_counts=1,3: 3 does not divide --batch=128"),
        (["targets", "--rows=h100,residual-21"], "--rows=h100,residual-21: no row has all of these"),
    ],
)
def test_mistakes_are_one_line(arguments, message):
    code, out, error = streams("-m", f"benchmarks.{arguments[0]}", *arguments[1:])
    assert (code, out) == (2, "")
    assert message in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    "name", ["cifar10:residual-20", "cifar10:residual-bottleneck-20", "imagenet:residual-18", "imagenet:residual-50"]
)
def test_the_peers_have_our_parameters(name):
    """The peers in Flax and PyTorch have as many parameters as ours, and logits of the right shape."""
    from benchmarks.peers import flax_obvious
    from benchmarks.peers.network_sizes import sizes_of

    config = ours.load_config(name)
    shape, classes = ours.shape_and_classes(config)
    sizes = sizes_of(config, classes, shape[0])
    expected = parameters(build(config.model, classes), shape)
    network = flax_obvious.ResNet(sizes, "float32")
    images = jax.ShapeDtypeStruct((2, *shape), "float32")
    logits, variables = jax.eval_shape(lambda x: network.init_with_output(jax.random.key(0), x), images)
    assert logits.shape == (2, classes)
    assert sum(leaf.size for leaf in jax.tree.leaves(variables["params"])) == expected

    torch = pytest.importorskip("torch")
    from benchmarks.peers import pytorch

    with torch.device("meta"):
        model = pytorch.ResNet(sizes)
        assert model(torch.zeros(2, shape[2], *shape[:2])).shape == (2, classes)
    assert sum(p.numel() for p in model.parameters()) == expected
