"""The weights that results/cifar10 holds: the errors its table names, and networks that PyTorch users can load."""

import re

import jax
import numpy as np
import pytest

from resnet_flax import model
from tests.commands import ROOT, command
from tests.interchange.test_commands import CIFAR10, HAS_CIFAR10

CIFAR = ROOT / "results" / "cifar10"
WEIGHTS = sorted((CIFAR / "weights").glob("*.safetensors"))
NAMES = [path.stem for path in WEIGHTS]


def test_the_table_names_every_file_and_no_other():
    assert _test_errors().keys() == set(NAMES)


@pytest.mark.slow
@pytest.mark.skipif(not HAS_CIFAR10, reason="needs CIFAR-10")
@pytest.mark.parametrize("path", WEIGHTS, ids=NAMES)
def test_the_error_is_that_of_the_table_to_the_last_image(path):
    """The file names its network and how images are prepared, so no config is given."""
    place = {"TFDS_DATA_DIR": str(CIFAR10)}
    code, output = command("-m", "resnet_flax.evaluate", f"--weights={path}", environment=place, quick=False)
    assert code == 0, output
    error = _test_errors()[path.stem]
    assert f"test error {error:.2f}% ({round(100 * error)} of 10000)" in output


@pytest.mark.parametrize("path", WEIGHTS, ids=NAMES)
def test_a_pytorch_network_takes_them_and_gives_the_same_logits(path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    from tests.interchange.torch_model import Network, logits

    unit, depth = path.stem.split("-")[:2]
    peer = Network((int(depth) - 2) // 6, "A" if unit == "residual" else None)
    missing, unexpected = peer.load_state_dict(load_file(path), strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    net = model.from_weights(path)
    images = np.random.default_rng(0).standard_normal((4, 32, 32, 3)).astype(np.float32)
    ours = jax.jit(lambda v, x: net.network.apply(v, x, train=False))(net.variables, images)
    assert torch.tensor(np.asarray(ours)).std() > 0.5
    np.testing.assert_allclose(ours, logits(peer, images), rtol=1e-4, atol=1e-4)


def _test_errors() -> dict[str, float]:
    """Test errors in percent by file, as the tables of results/cifar10/README.md give them beside the link."""
    row = r"^\| ([\w-]+)[^|]* \|.* ([\d.]+) \| \[[^]]+\]\(weights/(\1[\w-]*)\.safetensors\) \|$"
    rows = re.findall(row, (CIFAR / "README.md").read_text(), re.MULTILINE)
    return {file: float(error) for _, error, file in rows}
