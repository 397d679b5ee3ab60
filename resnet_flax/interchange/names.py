"""Converts a network's variables to a file's tensors and back, with the names and axes of ``weight_layouts.py``.

The stacked variables of a scanned stage are split into units. In PyTorch's names, ``layer1.0`` is ``stage1.first`` and
``layer1.1`` is the first unit of ``stage1.rest``.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from resnet_flax.errors import UserError
from resnet_flax.interchange.files import Weights
from resnet_flax.interchange.published import check_architecture
from resnet_flax.interchange.weight_layouts import WeightLayout, common_prefix, of_family, of_names
from resnet_flax.networks import Network

HEAD = "dense"  # our name of the last layer, which has an output per class


@dataclasses.dataclass(frozen=True)
class Entry:
    """One of our tensors and its counterpart in a file.

    Attributes:
      name: The tensor's name in the file.
      path: The path of our variable: collection, modules and leaf.
      index: The unit's index in a scanned stage's stack, or None.
      shape: The tensor's shape in the file.
      absorbed: The name of the file's tensor to subtract from this one, or None.
    """

    name: str
    path: tuple[str, ...]
    index: int | None
    shape: tuple[int, ...]
    absorbed: str | None = None

    @property
    def modules(self) -> tuple[str, ...]:
        """The path of our layer, without the collection and the leaf."""
        return self.path[1:-1]


def entries(network: Network, image_shape: tuple[int, int, int], layout: WeightLayout | str) -> list[Entry]:
    """Lists every tensor of a network, in the order of our variables.

    Args:
      image_shape: (H, W, C).
      layout: The file's layout, or a family's name for the layout of exported files.
    """
    layout = of_family(layout) if isinstance(layout, str) else layout
    variables = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, *image_shape)), train=False))
    found = []
    for key_path, leaf in jax.tree_util.tree_leaves_with_path(variables):
        path = tuple(key.key for key in key_path)
        _, *modules, name = path
        for index, shape in _units(path, leaf.shape):
            their_shape = layout.to_theirs(np.broadcast_to(np.float32(0), shape), tuple(modules)).shape
            absorbed = None
            if name == "mean" and modules[-1] in layout.absorbed:
                absorbed = layout.tensor((*modules[:-1], layout.absorbed[modules[-1]]), "bias", index)
            found.append(Entry(layout.tensor(tuple(modules), name, index), path, index, their_shape, absorbed))
    return found


def to_tensors(
    network: Network, image_shape: tuple[int, int, int], variables: Mapping[str, Any], layout: WeightLayout | str
) -> dict[str, np.ndarray]:
    """Converts our variables to a layout's names and axes: ``{name: array}``.

    Raises:
      ValueError: The layout cannot be written, because it has tensors that ours do not have (Keras's biases).
    """
    layout = of_family(layout) if isinstance(layout, str) else layout
    if layout.absorbed:
        raise ValueError(f"{layout.name} layout is only read")
    tensors = {}
    for entry in entries(network, image_shape, layout):
        value = np.asarray(_at(variables, entry.path))
        tensors[entry.name] = layout.to_theirs(value if entry.index is None else value[entry.index, ...], entry.modules)
    return tensors


def from_tensors(
    network: Network,
    image_shape: tuple[int, int, int],
    weights: Weights,
    what: str,
    layout: WeightLayout,
    without_head: bool = False,
) -> dict[str, Any]:
    """Converts a file's tensors to our variables.

    Args:
      what: A description of the network for messages.
      layout: The file's layout.
      without_head: Whether to leave out the last dense layer, even if the file has one.

    Raises:
      UserError: Tensors are missing, left over or of another shape; the message names them.
    """
    wanted = entries(network, image_shape, layout)
    given = layout.by_name(weights.tensors, common_prefix(weights.tensors))
    if without_head:
        head = layout.layer((HEAD,), None) + layout.separator
        given = {name: tensor for name, tensor in given.items() if not name.startswith(head)}
        wanted = [entry for entry in wanted if entry.modules != (HEAD,)]
    _check(wanted, given, weights, what, layout)

    variables: dict[str, Any] = {}
    stacks: dict[tuple[str, ...], list[np.ndarray]] = {}
    for entry in wanted:
        value = layout.to_ours(given[entry.name], entry.modules)
        value = value - given[entry.absorbed] if entry.absorbed else value
        if entry.index is None:
            _put(variables, entry.path, value)
        else:
            stacks.setdefault(entry.path, []).append(value)
    for path, values in stacks.items():
        _put(variables, path, np.stack(values))
    return variables


def _check(
    wanted: list[Entry], given: Mapping[str, np.ndarray], weights: Weights, what: str, layout: WeightLayout
) -> None:
    shapes = {entry.name: entry.shape for entry in wanted}
    # An absorbed bias has the shape of the mean that it is subtracted from.
    shapes |= {entry.absorbed: entry.shape for entry in wanted if entry.absorbed}
    misshapen = [name for name in shapes if name in given and given[name].shape != shapes[name]]
    others = layout.by_name(weights.others, common_prefix(weights.tensors))
    missing = sorted((name for name in shapes if name not in given), key=lambda name: name not in others)
    problems = [
        _listed("missing", [f"{name} (it is {others[name]})" if name in others else name for name in missing]),
        _listed("left over", [name for name in given if name not in shapes]),
        _listed(
            "of another shape", [f"{name} is {given[name].shape} and must be {shapes[name]}" for name in misshapen]
        ),
    ]
    if not any(problems):
        return
    head = layout.layer((HEAD,), None) + layout.separator
    wrong = [name for name in shapes if name in misshapen or name not in given]
    hint = ""
    if all(name.startswith(head) for name in wrong) and not any(name not in shapes for name in given):
        hint = "; to train on classes of your own, start with a random last layer: init.reset_head=True (--reset-head)"
    raise UserError(
        f"{weights.path}: does not fit {what}: {'; '.join(p for p in problems if p)}{_describe_units(given, layout)}"
        f"{hint}"
    )


def classes_of(weights: Weights, family: str) -> int:
    """Returns the number of classes of a file's network; 0 if the file lacks the last layer."""
    layout = layout_of(weights, family)
    bias = layout.by_name(weights.tensors, common_prefix(weights.tensors)).get(layout.tensor((HEAD,), "bias", None))
    return 0 if bias is None else len(bias)


def layout_of(weights: Weights, family: str) -> WeightLayout:
    """Recognises the layout of a file.

    Raises:
      UserError: The file's name identifies a network that computes something else than ours.
    """
    if weights.config is not None:
        return of_family(family)
    check_architecture(Path(weights.path))
    return of_names([*weights.tensors, *weights.others], family)


def _units(path: tuple[str, ...], shape: tuple[int, ...]) -> Iterator[tuple[int | None, tuple[int, ...]]]:
    """Yields each unit's index in the stack and its shape; for a variable that is not stacked, None and its shape."""
    if "rest" not in path:
        yield None, shape
        return
    for i in range(shape[0]):
        yield i, shape[1:]


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


def _describe_units(given: Mapping[str, np.ndarray], layout: WeightLayout) -> str:
    """Returns how many units each stage of the file has, as a clause for a message; empty if no name tells."""
    pattern = re.compile(
        re.escape(layout.unit).replace(r"\{stage\}", r"(\d+)").replace(r"\{unit\}", r"(\d+)").replace(r"\{layer\}", "")
    )
    units: dict[int, set[int]] = {}
    for name in given:
        if found := pattern.match(name):
            units.setdefault(int(found[1]), set()).add(int(found[2]))
    if not units:
        return ""
    return f"; the file's stages have {', '.join(str(len(units[s])) for s in sorted(units))} units"
