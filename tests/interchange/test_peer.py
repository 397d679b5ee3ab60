"""akamaster's ResNet-20 (8.27% on CIFAR-10), rewritten in every file format, gives the same variables bit for bit."""

import jax
import numpy as np
import pytest

from resnet_flax import config, model
from tests.commands import command
from tests.interchange.test_commands import CIFAR10, PEER
from tests.interchange.test_file_formats import FORMS

pytestmark = pytest.mark.skipif(not PEER.is_file(), reason="needs akamaster's weights")
KEYS = {"data.image_size": 32}


@pytest.fixture(scope="module")
def peer():
    """The variables, and the file's tensors without the prefix of their names and without PyTorch's batch counts."""
    from resnet_flax.interchange import files

    net = model.from_weights(PEER, config.load("configs/cifar10.py", "residual-20", KEYS))
    tensors = {name.removeprefix("module."): np.array(t) for name, t in files.read(PEER).tensors.items()}
    return net.variables, {name: t for name, t in tensors.items() if t.dtype == np.float32}


@pytest.mark.parametrize("form", FORMS)
def test_each_format_holds_the_same_variables(form, peer, tmp_path):
    variables, tensors = peer
    name, content, _ = FORMS[form]
    (tmp_path / name).write_bytes(content(tensors))
    net = model.from_weights(tmp_path / name, config.load("configs/cifar10.py", "residual-20", KEYS))
    assert jax.tree.structure(net.variables) == jax.tree.structure(variables)
    jax.tree.map(np.testing.assert_array_equal, net.variables, variables)


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_each_format_errs_on_827_images(form, peer, tmp_path):
    name, content, _ = FORMS[form]
    (tmp_path / name).write_bytes(content(peer[1]))
    code, output = command(
        "-m", "resnet_flax.evaluate", "--config=configs/cifar10.py:residual-20", f"--config.data.data_dir={CIFAR10}",
        f"--weights={tmp_path / name}", quick=False,
    )  # fmt: skip
    assert code == 0, output
    assert "test error 8.27% (827 of 10000)" in output
