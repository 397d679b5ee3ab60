"""akamaster's ResNet-20 (8.27% on CIFAR-10), rewritten in every file format, gives the same variables bit for bit."""

import jax
import numpy as np
import pytest

from resnet_flax import config, model
from tests.interchange.test_commands import PEER
from tests.interchange.test_file_formats import FORMS

pytestmark = pytest.mark.skipif(not PEER.is_file(), reason="needs akamaster's weights")
KEYS = {"data.image_size": 32}


@pytest.fixture(scope="module")
def peer():
    """The network, and the file's tensors without the prefix of their names and without PyTorch's batch counts."""
    from resnet_flax.interchange import files

    net = model.from_weights(PEER, config.load("configs/cifar10.py", "residual-20", KEYS))
    tensors = {name.removeprefix("module."): np.array(t) for name, t in files.read(PEER).tensors.items()}
    return net, {name: t for name, t in tensors.items() if t.dtype == np.float32}


@pytest.mark.parametrize("form", FORMS)
def test_each_format_holds_the_same_network(form, peer, tmp_path):
    """The network and its preprocessing are equal, so all formats give the 8.27% that test_commands.py measures."""
    original, tensors = peer
    name, content, _ = FORMS[form]
    (tmp_path / name).write_bytes(content(tensors))
    net = model.from_weights(tmp_path / name, config.load("configs/cifar10.py", "residual-20", KEYS))
    assert jax.tree.structure(net.variables) == jax.tree.structure(original.variables)
    jax.tree.map(np.testing.assert_array_equal, net.variables, original.variables)
    assert net.network == original.network
    assert net.config.to_dict() == original.config.to_dict()
    assert net.preprocessing.to_json() == original.preprocessing.to_json()
