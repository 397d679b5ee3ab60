"""Weights of torchvision's and timm's networks are read, and exported weights load into these networks."""

import jax
import numpy as np
import pytest

from resnet_flax import config, model
from resnet_flax.interchange import files, names
from tests.interchange import random_weights
from tests.marks import slow
from tests.peer_torchvision import torchvision


def network_of(library: str, depth: int):
    """A network of the library with seven classes, and with random weights and statistics."""
    models = torchvision().models  # timm imports it, too
    torch = pytest.importorskip("torch")
    if library == "timm":
        net = pytest.importorskip("timm").create_model(f"resnet{depth}", num_classes=7)
    else:
        net = getattr(models, f"resnet{depth}")(num_classes=7)
    state = {n: t if n.endswith("tracked") else torch.tensor(random_weights.tensor(n, t.shape))
             for n, t in net.state_dict().items()}  # fmt: skip
    net.load_state_dict(state)
    return net.eval()


@pytest.mark.parametrize(
    ("library", "depth"),
    [("torchvision", 18), ("torchvision", 50), slow("torchvision", 152), slow("timm", 18), slow("timm", 50)],
)
def test_weights_are_read_and_exported_bit_for_bit(library, depth, tmp_path):
    torch = pytest.importorskip("torch")
    theirs, again = network_of(library, depth), network_of(library, depth)
    torch.save(theirs.state_dict(), tmp_path / "theirs.pth")
    ours = model.from_weights(tmp_path / "theirs.pth", config.load("configs/imagenet.py", f"residual-{depth}"))
    assert ours.config.model.bottleneck_stride == "3x3"
    assert (ours.preprocessing.resize, ours.preprocessing.image_size) == (256, 224)

    images = np.random.default_rng(0).standard_normal((2, 64, 64, 3)).astype(np.float32)
    with torch.no_grad():
        logits = theirs(torch.tensor(images).permute(0, 3, 1, 2)).numpy()
    np.testing.assert_allclose(ours.features(images)["logits"], logits, rtol=0, atol=1e-4 * np.abs(logits).max())

    tensors = names.to_tensors(ours.network, (64, 64, 3), ours.variables, "imagenet")
    files.write(tmp_path / "ours.safetensors", tensors, config.to_json(ours.config), ours.preprocessing.to_json())
    from safetensors.torch import load_file

    for tensor in again.state_dict().values():
        tensor.zero_()
    result = again.load_state_dict(load_file(tmp_path / "ours.safetensors"), strict=False)
    assert not result.unexpected_keys
    assert all(name.endswith("num_batches_tracked") for name in result.missing_keys)
    for name, value in again.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(value, theirs.state_dict()[name], rtol=0, atol=0)
    reread = model.from_weights(tmp_path / "ours.safetensors")
    jax.tree.map(np.testing.assert_array_equal, reread.variables, ours.variables)
    assert reread.preprocessing.to_json() == ours.preprocessing.to_json()
