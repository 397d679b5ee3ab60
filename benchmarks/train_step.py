"""Images per second of a whole training step: ours, PyTorch and the obvious Flax version, in turns in one run.

python -m benchmarks.train_step [--networks=cifar10:residual-20,imagenet:residual-50] [--batches=32,128]
    [--dtypes=float32,bfloat16] [--peers=flax,pytorch,pytorch-compiled] [--rounds=5] [--output=FILE.csv]

A step includes forward and backward pass, optimizer and BN statistics. Ours also draws, crops and flips its batch on
the device, whereas the peers train on one fixed batch there. BN normalises the whole batch in all of them. PyTorch is
measured if it is installed (requirements-peer.txt), with channels_last, and autocast for bfloat16; its ResNet-50 is
torchvision's if that is installed. The last column projects the time of all steps of the config (64,000 for cifar10, as
in the paper), without evaluation. Default on a CPU: ResNet-20, batch 128, float32, which takes 3 to 5 minutes on 2
cores. Default on a GPU: everything.
"""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from typing import Any

from absl import flags

from benchmarks import options
from resnet_flax import command

CIFAR = ("cifar10:residual-20", "cifar10:residual-56", "cifar10:residual-110")
IMAGENET = ("imagenet:residual-18", "imagenet:residual-50")
PEERS = ("flax", "pytorch", "pytorch-compiled")

_NETWORKS = flags.DEFINE_list("networks", None, "FILE:NAME of each config. Default: ResNet-20 on a CPU, all on a GPU.")
_BATCHES = flags.DEFINE_list("batches", None, "Images per step. Default: 128 on a CPU, 64 to 512 on a GPU.")
_DTYPES = flags.DEFINE_list("dtypes", None, "Types of the computation. Default: float32; on a GPU, bfloat16, too.")
_PEERS = flags.DEFINE_list("peers", list(PEERS), "Peers to measure beside ours.")
_TURN_SECONDS = flags.DEFINE_float("turn_seconds", 2.0, "Approximate seconds of a turn.", lower_bound=0)
_STEPS_A_CALL = flags.DEFINE_integer(
    "steps_a_call", None, "Steps per call. Default: 8 on a CPU (about two seconds, as in a run), 50 on a GPU.",
    lower_bound=1,
)  # fmt: skip

_HEADER = (
    "network", "dtype", "batch", "who", "images/s", "least", "most", "ms a step", "ours over it",
    "steps of a run", "minutes for them",
)  # fmt: skip


def main() -> None:
    """Measures every combination, prints each row as soon as it is known, and at last the table."""
    peers = options.choices(_PEERS, PEERS)
    import jax

    if importlib.util.find_spec("torch") is None:
        peers = [peer for peer in peers if not peer.startswith("pytorch")]
        print("PyTorch is not installed, so it is not measured", file=sys.stderr)
    rows = []
    for name, dtype, batch in _cases(jax.default_backend() == "gpu"):
        rows += _measure(name, dtype, batch, peers)
        jax.clear_caches()
    measured_torch = any(peer.startswith("pytorch") for peer in peers)
    packages = [p for p in ("torch", "torchvision") if measured_torch and importlib.util.find_spec(p)]
    options.print_and_write(_HEADER, rows, packages)


def _cases(gpu: bool) -> Iterator[tuple[str, str, int]]:
    networks = _NETWORKS.value or ((*CIFAR, *IMAGENET) if gpu else CIFAR[:1])
    dtypes = options.choices(_DTYPES, ("float32", "bfloat16"), ("float32", "bfloat16") if gpu else ("float32",))
    for name in networks:
        usual = ["128"] if not gpu else ["128", "512"] if name.startswith("cifar") else ["64", "256"]
        batches = options.numbers(_BATCHES) if _BATCHES.value else [int(b) for b in usual]
        yield from ((name, dtype, batch) for dtype in dtypes for batch in batches)


def _measure(name: str, dtype: str, batch: int, peers: list[str]) -> list[tuple[str, ...]]:
    """Returns a row for ours and for each peer. A peer that fails has no row, and its error goes to stderr."""
    import jax

    from benchmarks import ours
    from resnet_flax.measurements.timing import time_in_turns
    from resnet_flax.runtime.progress import Progress

    count = _STEPS_A_CALL.value or (50 if jax.default_backend() == "gpu" else 8)
    calls: dict[str, Callable[[], Any]] = {}
    for who, make in _contestants(name, dtype, batch, peers):
        try:
            run = make()
            jax.block_until_ready(run(1))
        except Exception as error:  # a peer's compiler may raise anything; ours must work
            if who == "ours":
                raise
            print(f"{who} cannot run {name}: {str(error).strip().splitlines()[0]}", file=sys.stderr)
            continue
        calls[who] = lambda run=run: run(count)
    title = f"{name}, {dtype}, batch {batch}"
    with Progress(len(calls) * options.ROUNDS.value, title, "turns") as progress:
        spreads = time_in_turns(calls, options.ROUNDS.value, _TURN_SECONDS.value, lambda who: progress.update(1, who))
    rows, steps = [], ours.load_config(name, **{"train.batch_size": batch}).train.steps
    for who, spread in spreads.items():
        images = [batch * count / seconds for seconds in (spread.median, spread.most, spread.least)]
        ratio = spread.over(spreads["ours"]).text()
        step = spread.median / count
        projected = f"{1e3 * step:.4g}", ratio, str(steps), f"{step * steps / 60:.4g}"
        rows.append((name, dtype, str(batch), who, *(f"{i:.4g}" for i in images), *projected))
        print("  ".join(rows[-1]), file=sys.stderr)
    return rows


def _contestants(
    name: str, dtype: str, batch: int, peers: list[str]
) -> Iterator[tuple[str, Callable[[], Callable[[int], Any]]]]:
    """Yields each contestant's name, and a function that builds its ``run(count)``."""
    from benchmarks import ours
    from benchmarks.peers import flax_obvious
    from benchmarks.peers.network_sizes import sizes_of

    config = ours.load_config(name, **{"model.dtype": dtype, "train.batch_size": batch, "train.bn_group": 0})
    shape, classes = ours.shape_and_classes(config)
    sizes = sizes_of(config, classes, shape[0])
    yield "ours", lambda: ours.training(config).run
    if "flax" in peers:
        yield "flax", lambda: flax_obvious.training(sizes, dtype, batch)
    for peer in peers:
        if peer.startswith("pytorch"):
            from benchmarks.peers import pytorch

            yield peer, lambda peer=peer: pytorch.training(sizes, dtype, batch, peer == "pytorch-compiled")


if __name__ == "__main__":
    command.run(main, uses_devices=True)
