"""Commands refuse weights and losses that are not finite; training reports them and writes null."""

import json

import numpy as np
import pytest
from PIL import Image

from resnet_flax import model
from resnet_flax.errors import UserError
from resnet_flax.interchange import files
from resnet_flax.reporting import gather
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.training import loop
from tests.commands import command, streams
from tests.training.small import small_config


def altered(given, path, change):
    """Writes a copy of a file of weights with changed tensors."""
    there = files.read(given)
    tensors = {name: np.array(tensor) for name, tensor in there.tensors.items()}
    change(tensors)
    files.write(path, tensors, there.config, there.preprocessing)
    return path


@pytest.fixture
def with_nan(begun_before, tmp_path):
    """An exported network with one NaN in its second stage. ReLUs remove the NaN, so the loss is still a number."""

    def change(tensors):
        tensors["layer2.0.conv2.weight"][1, 2, 0, 0] = np.nan

    return altered(begun_before / "finished.safetensors", tmp_path / "nan.safetensors", change)


def test_evaluate_names_the_layer_and_ends_with_code_4(with_nan):
    code, out, error = streams("-m", "resnet_flax.evaluate", f"--weights={with_nan}")
    assert code == 4
    assert "stage2.1.conv2 kernel (1 of 576 numbers)" in error
    assert "Traceback" not in error
    assert "test error" not in out


def test_predict_refuses_weights_that_are_not_finite(with_nan, tmp_path):
    Image.new("L", (8, 8), 100).save(tmp_path / "image.png")
    code, out, error = streams("-m", "resnet_flax.predict", f"--weights={with_nan}", str(tmp_path / "image.png"))
    assert (code, out) == (2, "")
    assert (
        error.strip().splitlines()[-1].startswith("error: the network has weights that are not finite: stage2.1.conv2")
    )


def test_training_does_not_start_from_weights_that_are_not_finite(with_nan, tmp_path):
    with pytest.raises(UserError, match=r"nan\.safetensors holds weights that are not finite: stage2\.1\.conv2 kernel"):
        loop.run(small_config(init__weights=str(with_nan)), tmp_path / "run")


def test_infinite_weights_are_refused_on_export(begun_before):
    net = model.from_run(begun_before / "finished")
    net.check_finite()
    net.variables["params"]["stem_conv"]["kernel"] = np.full((3, 3, 1, 4), np.inf)
    with pytest.raises(UserError, match=r"stem_conv kernel \(36 of 36 numbers\)$"):
        net.check_finite()


def test_training_continues_after_a_test_loss_that_is_not_finite(begun_before, tmp_path, capfd):
    """The running statistics overflow, but the parameters are finite: in training, BN uses the batch's statistics."""

    def change(tensors):
        tensors["layer3.0.bn2.running_mean"][:] = -4e37
        tensors["layer3.0.bn2.running_var"][:] = 0

    weights = altered(begun_before / "finished.safetensors", tmp_path / "overflows.safetensors", change)
    workdir = tmp_path / "run"
    c = small_config(init__weights=str(weights), train__steps=8, model__bn_momentum=0.9999)
    loop.run(c, workdir)
    assert "step 4: not finite: test_loss (null in metrics.jsonl); training continues" in capfd.readouterr().err

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    written = [json.loads(t, parse_constant=refuse) for t in (workdir / "metrics.jsonl").read_text().splitlines()]
    assert [(line["step"], line["test_loss"]) for line in written] == [(4, None), (8, None)]
    assert all(np.isfinite(line["train_loss"]) for line in written)
    # Commands that read the run accept the null.
    assert loop.run(c, workdir) == RunDirectory(workdir).metrics()[-1] == written[-1]
    assert gather.read_run(workdir, "run").final("test_loss") is None
    # The weights are finite, so evaluate names the images.
    code, output = command("-m", "resnet_flax.evaluate", f"--workdir={workdir}")
    assert code == 4
    assert "test: the loss of 355 images is not finite: that of 355 images: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, ..." in output
