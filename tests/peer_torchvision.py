"""Imports torchvision as a peer, even if its operators (built for CUDA) do not load with a PyTorch for the CPU."""

import importlib.util
import sys
from types import ModuleType

import pytest

_defined = []  # keeps the libraries of operators alive; PyTorch removes their operators with them


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
        for operator in ("nms", "qnms"):  # importing torchvision requires these
            _defined[0].define(f"{operator}() -> Tensor")
        import torchvision
    return torchvision
