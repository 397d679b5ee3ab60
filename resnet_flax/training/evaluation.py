"""Loss, error and the other metrics of a network on a split: every image counts once."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, PartitionSpec

from resnet_flax.data.layouts import DATA_AXIS, Arrays, Layout, device_batch
from resnet_flax.data.transforms import Transform
from resnet_flax.networks import Network, on_one_device
from resnet_flax.networks.compilation import jit
from resnet_flax.training import metric_functions
from resnet_flax.training.devices import on_host


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Metrics of a split.

    Attributes:
      sums: of each metric over the images, by name; whole numbers are counts.
      images: how many there are.
    """

    sums: Mapping[str, float | int]
    images: int

    def mean(self, name: str) -> float:
        """The metric of that name; of a count, the fraction of the images."""
        return self.sums[name] / max(self.images, 1)

    @property
    def loss(self) -> float:
        """The mean loss."""
        return self.mean("loss")

    @property
    def errors(self) -> int:
        """How many images are classified wrongly."""
        return int(self.sums["error"])

    @property
    def error(self) -> float:
        """The fraction classified wrongly."""
        return self.mean("error")

    def lines(self, split: str) -> list[str]:
        """The metrics in words, a line each, the usual one last: ``test error 8.27% (827 of 10000), loss 0.3012``."""
        others = [name for name in self.sums if name not in ("loss", "error")]
        return [f"{split} {self._text(name)}" for name in others] + [f"{split} {self}"]

    def _text(self, name: str) -> str:
        title = metric_functions.in_title(name)
        if isinstance(self.sums[name], int):
            return f"{title} {self.mean(name):.2%} ({self.sums[name]} of {self.images})"
        return f"{title} {self.mean(name):.4f}"

    def __str__(self) -> str:
        return f"{self._text('error')}, {self._text('loss')}"


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Evaluates variables on blocks of arrays: ``(variables, blocks) -> Evaluation``.

    Attributes:
      program: jitted, ``(variables, arrays) -> sums``.
      metrics: names of what it sums beside ``images``.
    """

    program: Any
    metrics: Sequence[str]

    def __call__(self, variables: dict[str, Any], blocks: Iterable[Arrays]) -> Evaluation:
        totals = dict.fromkeys(self.metrics, 0) | {"images": 0}
        for arrays in blocks:
            found = jax.device_get(self.program(_of_network(variables), arrays))
            totals = {name: total + found[name].item() for name, total in totals.items()}
        return Evaluation(totals, totals.pop("images"))

    def compile(self, variables: dict[str, Any], arrays: Arrays) -> None:
        """Compiles for arguments like these, which may be shapes alone; calls with such then find it compiled."""
        self.program.trace(_of_network(variables), arrays).lower().compile()


def _of_network(variables: dict[str, Any]) -> dict[str, Any]:
    return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}


def make_evaluate(
    network: Network,
    layout: Layout,
    transform: Transform,
    batch_size: int,
    mesh: Mesh,
    metrics: Sequence[str] = metric_functions.ALWAYS,
) -> Evaluate:
    """Builds ``(variables, blocks) -> Evaluation``, with running statistics and no augmentation.

    Batches are split over all devices. The last one is filled up with images that do not count, so the result is
    that of the whole split whatever the batch size and the number of devices. Arrays come in blocks: one that holds a
    whole split, or many of batches from the disk.

    Args:
      layout: how the batches lie in the arrays.
      batch_size: of all devices together; it is rounded up to a multiple of their number.
      metrics: names of metrics of examples.
    """
    per_device, batches = -(-batch_size // mesh.size), layout.batches
    assert batches is not None, "a layout of training"
    everyone = PartitionSpec()

    def batch_sums(variables: dict, batch: dict[str, Array]) -> dict[str, Array]:
        logits: Any = network.apply(variables, transform.evaluate(batch["images"]), train=False)
        found = metric_functions.measured(metrics, logits, batch)
        return metric_functions.summed(found, batch["mask"]) | {"images": batch["mask"].sum(dtype=jnp.int32)}

    @jit
    @partial(jax.shard_map, mesh=mesh, in_specs=(everyone, layout.spec), out_specs=everyone, check_vma=False)
    def sums(variables: dict, arrays: Arrays) -> dict[str, Array]:
        def at(i: Array) -> dict[str, Array]:
            return batch_sums(variables, device_batch(layout, arrays, 0, i, per_device))

        none = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), jax.eval_shape(lambda: at(jnp.int32(0))))
        add = lambda i, totals: jax.tree.map(jnp.add, totals, at(i))  # noqa: E731
        return lax.psum(lax.fori_loop(0, batches(arrays), add, none), DATA_AXIS)

    return Evaluate(sums, metrics)


def of_log_probabilities(scores: np.ndarray, labels: np.ndarray) -> Evaluation:
    """Metrics by the logarithms of class probabilities [N, classes], such as averages over views."""
    with jax.enable_x64(True), jax.default_device(jax.local_devices(backend="cpu")[0]):
        logits, batch = jnp.asarray(scores, np.float64), {"labels": jnp.asarray(labels)}
        names = metric_functions.for_classes(logits.shape[1])
        sums = metric_functions.summed(metric_functions.measured(names, logits, batch))
        return Evaluation({name: total.item() for name, total in sums.items()}, len(labels))


def not_finite(
    network: Network, transform: Transform, variables: dict[str, Any], batches: Iterable[dict[str, np.ndarray]]
) -> np.ndarray:
    """Finds the images of a split whose loss is not finite; returns their places [n], growing.

    Args:
      batches: the images in order: ``images``, ``labels``, and which of them ``counts``.
    """
    alone = on_one_device(network)

    @jit
    def losses(variables: dict, pixels: Array, labels: Array) -> Array:
        logits = alone.apply(variables, transform.evaluate(pixels), train=False)
        return metric_functions.loss(logits, {"labels": labels})

    variables, found = on_host(variables), []
    for batch in batches:
        found.append(np.isfinite(losses(variables, batch["images"], batch["labels"])) | ~batch["counts"])
    return np.flatnonzero(~np.concatenate(found))
