"""``python -m resnet_flax.summary``: its tables, its JSON and its messages."""

import json
import re

import pytest

from resnet_flax import config
from resnet_flax.analysis import counts
from resnet_flax.networks import build
from tests.commands import command
from tests.marks import slow


def summary(*arguments, **keys):
    return command("-m", "resnet_flax.summary", *arguments, **keys)


def as_json(*arguments):
    code, output = summary(*arguments, "--json")
    assert code == 0, output
    return json.loads(output)


# Parameters are torchvision's. Multiply-adds are Table 1 of arXiv:1512.03385, exact, with strides on the first 1x1.
@pytest.mark.parametrize(
    ("depth", "parameters", "multiply_adds"),
    [
        slow(18, 11_689_512, 1_814_073_344),
        slow(34, 21_797_672, 3_663_761_408),
        (50, 25_557_032, 3_857_973_248),
        slow(101, 44_549_160, 7_570_194_432),
        slow(152, 60_192_808, 11_282_415_616),
    ],
)
def test_imagenet_totals(depth, parameters, multiply_adds):
    found = as_json(f"--config=configs/imagenet.py:residual-{depth}", "--batch=1")
    assert found["image"] == [224, 224, 3]
    total = found["total"]
    assert (total["parameters"], total["multiply_adds"]) == (parameters, multiply_adds)
    for count in ("parameters", "multiply_adds", "activation_bytes", "units"):
        assert sum(stage[count] for stage in found["stages"]) == total[count]
    assert [p["value"] for p in found["published"] if p["quantity"] == "parameters"] == [parameters]


@pytest.mark.parametrize(
    ("file", "name", "image"),
    [
        ("digits", "plain-56", (8, 8, 1)), ("cifar10", "residual-bottleneck-29", (32, 32, 3)),
        ("cifar100", "residual-1202", (32, 32, 3)),
    ],
)  # fmt: skip
def test_totals_are_the_counts(file, name, image):
    found = as_json(f"--config=configs/{file}.py:{name}")
    c = config.load(f"configs/{file}.py", name)
    classes = 100 if file == "cifar100" else 10
    assert (tuple(found["image"]), found["classes"], found["batch"]) == (image, classes, c.train.batch_size)
    network = build(c.model, classes)
    assert found["total"]["parameters"] == counts.parameters(network, image)
    assert found["total"]["multiply_adds"] == counts.multiply_adds(network, image)


def test_the_table_lists_stages_totals_and_published_sizes():
    code, output = summary("--config=configs/cifar10.py:residual-20", "--batch=7")
    assert code == 0, output
    assert "activations, batch 7" in output
    assert re.search(r"^stage2 +16x16x32 +3 +51,072 +12,976,128 +[\d.]+ MB$", output, re.MULTILINE)
    assert re.search(r"^total +9 +269,722 +40,551,040 ", output, re.MULTILINE)
    assert re.search(r"^parameters +0\.27e6 +269,722 +-0\.10%  ResNet-20: arXiv:1512.03385, Table 6$", output, re.M)


def test_the_image_shape_and_the_classes_can_be_given():
    found = as_json(
        "--config=configs/cifar10.py:residual-20", "--config.data.name=birds", "--image=48,64,1", "--classes=200"
    )
    assert found["stages"][1]["output"] == [48, 64, 16]
    assert found["stages"][-1]["output"] == [200]
    assert found["published"] == []
    resized = as_json("--config=configs/cifar10.py:residual-20", "--config.data.image_size=16", "--batch=1")
    assert resized["stages"][0]["output"] == [16, 16, 16]


def test_double_precision_needs_no_environment_variable():
    single = as_json("--config=configs/digits.py:plain-8")
    both = "--config.model.dtype=float64", "--config.model.param_dtype=float64"
    double = as_json("--config=configs/digits.py:plain-8", *both)
    assert double["total"]["parameters"] == single["total"]["parameters"]
    ratio = double["total"]["activation_bytes"] / single["total"]["activation_bytes"]
    assert 1.8 < ratio < 2  # masks stay bytes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--config"),
        (["--config=configs/imagenet.py:residual-51"], "model.depth=51 is no network of the imagenet family"),
        (["--config=configs/imagenet.py:residual-50", "--batch=0"], "--batch=0 must be at least 1"),
        (["--config=configs/imagenet.py:residual-50", "--classes=0"], "--classes=0 must be at least 1"),
        (["--config=configs/imagenet.py:residual-50", "--image=224,224"], "--image=224,224 must be H,W,C"),
        (["--config=configs/imagenet.py:residual-50", "--image=0,224,3"], "--image=0,224,3 must be H,W,C"),
        (
            ["--config=configs/imagenet.py:residual-50", "--config.data.image_size=0"],
            "the side of the crop, such as 224",
        ),
        (["--config=configs/cifar10.py:plain-8", "--config.data.name=birds"], "data.name='birds'"),
        (["--config=configs/cifar10.py:plain-8", "--config.data.name=birds", "--image=8,8,3"], "give --classes=N"),
        (["--config=configs/cifar10.py:plain-8", "--bach=3"], "did you mean --batch"),
    ],
    ids=str,
)
def test_mistakes_are_one_line_each(arguments, message):
    code, output = summary(*arguments)
    assert code == 2, output
    assert message in output
    assert len(output.strip().splitlines()) == 1
