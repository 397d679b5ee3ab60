"""The commands with files of weights: akamaster's file is evaluated, and a run is exported and evaluated again."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from tests.commands import ROOT, command, finish, train

PEER = ROOT.parent / "shared" / "weights" / "akamaster" / "resnet20-12fca82f.th"
CIFAR10 = os.environ.get("TFDS_DATA_DIR") or ROOT.parent / "shared" / "tfds"
HAS_CIFAR10 = (Path(CIFAR10) / "cifar10").is_dir()


@pytest.mark.slow  # half a minute on two cores; test_peer.py compares the variables, the next test the logits
@pytest.mark.skipif(not PEER.is_file() or not HAS_CIFAR10, reason="needs akamaster's weights and CIFAR-10")
def test_akamasters_resnet_20_errs_on_827_images():
    """akamaster publishes this error on all 10,000 test images."""
    arguments = ["--config=configs/cifar10.py:residual-20", f"--config.data.data_dir={CIFAR10}", f"--weights={PEER}"]
    code, output = command("-m", "resnet_flax.evaluate", *arguments, quick=False)
    assert code == 0, output
    assert "test error 8.27% (827 of 10000)" in output
    assert "model.shortcut_padding=both, data.normalization=imagenet" in output


@pytest.mark.skipif(not PEER.is_file(), reason="needs akamaster's weights")
def test_akamasters_logits_equal_pytorchs():
    """PyTorch reads the file into an independent network, and we read it into ours."""
    torch = pytest.importorskip("torch")
    import jax

    from resnet_flax import config
    from resnet_flax.interchange import files, names
    from resnet_flax.networks import build
    from tests.interchange.torch_model import Network, logits

    state = torch.load(PEER, map_location="cpu", weights_only=True)["state_dict"]
    model = Network(3, "A", both=True)
    model.load_state_dict({name.removeprefix("module."): value for name, value in state.items()}, strict=False)

    c = config.base()
    c.model.shortcut_padding = "both"
    network = build(c.model, 10)
    file = files.read(PEER)
    layout = names.layout_of(file, "cifar")
    assert layout.name == "akamaster's"
    variables = names.from_tensors(network, (32, 32, 3), file, "residual-20", layout)
    images = np.random.default_rng(0).standard_normal((16, 32, 32, 3)).astype(np.float32)
    ours = jax.jit(lambda v, x: network.apply(v, x, train=False))(variables, images)
    np.testing.assert_allclose(ours, logits(model, images), rtol=1e-4, atol=1e-4)


def test_an_exported_run_evaluates_like_the_run(tmp_path):
    workdir, exported = tmp_path / "run", tmp_path / "new" / "r8.safetensors"
    code, output = finish(train(workdir, "--config.train.steps=20", "--config.model.width=0.25"))
    assert code == 0, output
    code, expected = command("-m", "resnet_flax.evaluate", f"--workdir={workdir}")
    assert code == 0, expected
    code, output = command("-m", "resnet_flax.export", f"--workdir={workdir}", f"--output={exported}")
    assert code == 0, output
    assert "tensors of residual-8, step 20" in output
    code, found = command("-m", "resnet_flax.evaluate", f"--weights={exported}")
    assert code == 0, found
    assert found.splitlines()[-1] == expected.splitlines()[-1]
    code, output = command("-m", "resnet_flax.evaluate", f"--weights={exported}", "--reestimate_bn", "--split=train")
    assert code == 0, output
    assert "BN statistics: averages over 1442 training images, 32 at a time" in output
    assert output.splitlines()[-1].startswith("train error ")
    code, output = command(
        "-m", "resnet_flax.evaluate", f"--weights={exported}", "--config=configs/digits.py:residual-14"
    )
    assert code == 2
    assert "holds another network than --config names" in output

    from safetensors.numpy import load_file, safe_open

    tensors = load_file(exported)
    content = bytearray(exported.read_bytes())
    content[-3] ^= 64
    (tmp_path / "flipped.safetensors").write_bytes(content)
    code, output = command("-m", "resnet_flax.evaluate", f"--weights={tmp_path / 'flipped.safetensors'}")
    assert code == 0, output
    assert "flipped.safetensors: not as it was exported, by its checksums: " in output
    assert "checksums" not in found
    assert tensors["conv1.weight"].shape == (4, 1, 3, 3)
    assert tensors["linear.weight"].dtype == np.float32
    with safe_open(exported, framework="numpy") as file:
        assert json.loads(file.metadata()["resnet_flax.config"])["model"]["depth"] == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either --workdir=FOLDER of a run or --weights=FILE"),
        (["--weights=nowhere.th", "--config=configs/digits.py"], "--weights=nowhere.th: there is no such file"),
        (["--weights=README.md", "--config=configs/digits.py"], "must be a file of safetensors, PyTorch or Keras"),
    ],
)
def test_a_mistake_is_reported_in_one_line(arguments, message):
    code, output = command("-m", "resnet_flax.evaluate", *arguments)
    assert code == 2
    assert message in output
    assert "Traceback" not in output
