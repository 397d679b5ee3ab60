"""PyTorch's names and layouts for the variables of our networks, and back.

CIFAR networks are named as in akamaster's repository (``layer1.0.conv1.weight``, ``linear``, ``shortcut.0``),
ImageNet's as in torchvision (``fc``, ``downsample.0``); either is understood in a file. What they have no name for
keeps ours.
A scanned stage's stacked variables are taken apart, unit by unit: ``layer1.0`` is ``stage1.first``, ``layer1.1`` the
first of ``stage1.rest``.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnet_flax.errors import UserError
from resnet_flax.interchange.files import Weights
from resnet_flax.networks import Network

_LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
_LAYERS = {"stem_conv": "conv1", "stem_bn": "bn1", "shortcut_conv": "shortcut.0", "shortcut_bn": "shortcut.1"}


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor of PyTorch's, and where ours is.

    Attributes:
      name: PyTorch's.
      path: collection, modules and leaf of ours.
      index: of the unit in a scanned stage's stack, or None.
      shape: of PyTorch's tensor.
    """

    name: str
    path: tuple[str, ...]
    index: int | None
    shape: tuple[int, ...]


def entries(network: Network, image_shape: tuple[int, int, int], family: str) -> list[Entry]:
    """Every tensor of a network, in our order.

    Args:
      image_shape: (H, W, C).
      family: ``imagenet`` for torchvision's names, else akamaster's.
    """
    variables = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, *image_shape)), train=False))
    found = []
    for key_path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        path = tuple(key.key for key in key_path)
        for index, shape in _units(path, leaf.shape):
            name = _name(path, index)
            if family == "imagenet":
                name = _as_torchvision(name)
            found.append(Entry(name, path, index, _their_shape(shape)))
    return found


def to_pytorch(entries: list[Entry], variables: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Our variables by PyTorch's names, in its layouts: kernels OIHW and [out, in]."""
    tensors = {}
    for entry in entries:
        value = np.asarray(_at(variables, entry.path))
        tensors[entry.name] = _to_theirs(value if entry.index is None else value[entry.index])
    return tensors


def from_pytorch(entries: list[Entry], weights: Weights, what: str) -> dict[str, Any]:
    """Our variables from a file's tensors.

    Args:
      what: the network, in words, for messages.

    Raises:
      UserError: tensors are missing, left over or of another shape; it names them.
    """
    given = {_plain(name): tensor for name, tensor in weights.tensors.items()}
    given = {name: tensor for name, tensor in given.items() if not name.endswith("num_batches_tracked")}
    wanted = {_plain(entry.name): entry for entry in entries}
    problems = [
        _listed("missing", [wanted[name].name for name in wanted if name not in given]),
        _listed("left over", [name for name in given if name not in wanted]),
        _listed(
            "of another shape",
            [f"{entry.name} is {given[name].shape} and must be {entry.shape}"
             for name, entry in wanted.items() if name in given and given[name].shape != entry.shape],
        ),
    ]  # fmt: skip
    if any(problems):
        held = _held(given)
        raise UserError(f"{weights.path}: does not fit {what}: {'; '.join(p for p in problems if p)}{held}")

    variables: dict[str, Any] = {}
    stacks: dict[tuple[str, ...], list[np.ndarray]] = {}
    for name, entry in wanted.items():
        value = _to_ours(given[name])
        if entry.index is None:
            _put(variables, entry.path, value)
        else:
            stacks.setdefault(entry.path, []).append(value)
    for path, values in stacks.items():
        _put(variables, path, np.stack(values))
    return variables


def is_akamaster(weights: Weights) -> bool:
    """Whether the file is named as akamaster's CIFAR networks and does not say itself how it was trained."""
    plain = {name.removeprefix("module.") for name in weights.tensors}
    return weights.config is None and {"layer1.0.conv1.weight", "linear.weight"} <= plain


def _units(path: tuple[str, ...], shape: tuple[int, ...]) -> Iterator[tuple[int | None, tuple[int, ...]]]:
    """The unit's index in the stack and the shape of its part; None where nothing is stacked."""
    if "rest" not in path:
        yield None, shape
        return
    for i in range(shape[0]):
        yield i, shape[1:]


def _name(path: tuple[str, ...], index: int | None) -> str:
    _, *modules, leaf = path
    if modules[0].startswith("stage"):
        unit = 0 if modules[1] == "first" else 1 + index
        modules = [f"layer{modules[0].removeprefix('stage')}", str(unit), *modules[2:]]
    if modules == ["dense"]:
        modules = ["linear"]
    return ".".join([*(_LAYERS.get(m, m) for m in modules), _LEAVES[leaf]])


def _as_torchvision(name: str) -> str:
    return ("fc" + name.removeprefix("linear") if name.startswith("linear.") else name).replace(
        ".shortcut.", ".downsample."
    )


def _plain(name: str) -> str:
    """A name in the one form in which those of either source are compared."""
    return _as_torchvision(name.removeprefix("module."))


def _their_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    if len(shape) == 4:
        return (shape[3], shape[2], shape[0], shape[1])
    return shape[::-1]


def _to_theirs(value: np.ndarray) -> np.ndarray:
    return value.transpose(3, 2, 0, 1) if value.ndim == 4 else value.T


def _to_ours(value: np.ndarray) -> np.ndarray:
    return value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T


def _at(tree: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    for key in path:
        tree = tree[key]
    return tree


def _put(tree: dict[str, Any], path: tuple[str, ...], value: np.ndarray) -> None:
    for key in path[:-1]:
        tree = tree.setdefault(key, {})
    tree[path[-1]] = value


def _listed(what: str, names: list[str]) -> str:
    if not names:
        return ""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return f"{what}: {', '.join(names[:3])}{more}"


def _held(given: Mapping[str, np.ndarray]) -> str:
    """What the file holds, as far as its names tell."""
    units: dict[int, int] = {}
    for name in given:
        stage, _, rest = name.partition(".")
        unit = rest.partition(".")[0]
        if stage.startswith("layer") and stage[5:].isdecimal() and unit.isdecimal():
            units[int(stage[5:])] = max(units.get(int(stage[5:]), 0), int(unit) + 1)
    if not units:
        return ""
    return f"; the file's stages have {', '.join(str(units[s]) for s in sorted(units))} units"
