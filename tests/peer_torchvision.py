"""torchvision as a peer, also where its operators, built for CUDA, cannot be loaded beside a PyTorch for the CPU."""

import importlib.util
import sys
from types import ModuleType

import pytest

_defined = []  # libraries of operators; PyTorch forgets what nobody holds


def torchvision() -> ModuleType:
    """Imports torchvision; skips the test where it is not installed. Its transforms and networks need no operators."""
    torch = pytest.importorskip("torch")
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed (requirements-peer.txt)")
    try:
        import torchvision
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        _defined.append(torch.library.Library("torchvision", "DEF"))
        for operator in ("nms", "qnms"):  # those that torchvision asks for when it is imported
            _defined[0].define(f"{operator}() -> Tensor")
        import torchvision
    return torchvision
