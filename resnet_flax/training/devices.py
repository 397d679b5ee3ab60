"""The mesh of all devices of all hosts, and what hosts have to agree on."""

import contextlib
import os
import re
import sys
import traceback
from collections.abc import Iterator
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from resnet_flax import last_word
from resnet_flax.data.layouts import DATA_AXIS
from resnet_flax.errors import Diverged, Failed, Interrupted, UserError

# What errors of a collective operation say where another process is gone, by platform.
_LOST = re.compile(
    "gloo.*(connection|read error|timed? ?out|reset)|nccl.*(remote|abort|closed)|heartbeat|barrier.*(timed out|failed)"
    "|closed by peer|reset by peer|unavailable|deadline_exceeded|coordination service", re.IGNORECASE | re.DOTALL,
)  # fmt: skip


def data_mesh() -> Mesh:
    """All devices of all hosts along one axis, ``data``."""
    # From jax 0.11 on the default is Explicit axes, under which a Linen step does not compile.
    return jax.make_mesh((jax.device_count(),), (DATA_AXIS,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def on_host(tree: Any) -> Any:
    """What every device of every host holds whole, as arrays of one device of this host."""
    return jax.tree.map(lambda array: array.addressable_data(0), tree)


def check_batch(batch_size: int, bn_group: int, devices: int) -> None:
    """Refuses a batch, or a BN group, that the devices cannot share evenly."""
    if batch_size % devices:
        below, above = batch_size // devices * devices, -(-batch_size // devices) * devices
        nearest = " or ".join(str(b) for b in (below, above) if b)
        raise UserError(f"train.batch_size={batch_size} is not divisible by the {devices} devices; {nearest} would be")
    if not bn_group:
        return
    local = batch_size // devices
    if batch_size % bn_group or (local % bn_group and bn_group % local):
        raise UserError(
            f"train.bn_group={bn_group} does not fit train.batch_size={batch_size} on {devices} devices: it must "
            f"divide the batch, and divide the {local} images of a device or be a multiple of them"
        )


def check_parts(config: ConfigDict, devices: int) -> None:
    """Refuses a ``train.accumulate`` that does not divide a device's images, or whose parts would split a BN group."""
    parts, local = config.train.accumulate, config.train.batch_size // devices
    if local % parts:
        raise UserError(f"train.accumulate={parts} must divide the {local} images of a device")
    group = config.train.bn_group or config.train.batch_size
    if parts > 1 and config.model.norm == "batch" and local // parts % group:
        raise UserError(
            f"train.accumulate={parts} makes parts of {local // parts} images, and a BN would normalise {group} "
            f"together; set train.bn_group to a divisor of {local // parts}"
        )


def agree(stop: bool, count: int) -> tuple[bool, int]:
    """What all hosts do next: stop if one of them was told to; as many steps as the first one says.

    Without it, hosts that measure different times, or of which one is signalled, would wait for each other for
    ever.
    """
    if jax.process_count() == 1:
        return stop, count
    everyone = multihost_utils.process_allgather(np.array([stop, count], np.int32))
    return bool(everyone[:, 0].any()), int(everyone[0, 1])


def raise_together(error: Exception | None) -> None:
    """Raises what went wrong on one host on every host, so that none waits for the one that left."""
    if jax.process_count() > 1:
        anywhere = multihost_utils.process_allgather(np.array([error is not None]))
        if error is None and anywhere.any():
            hosts = ", ".join(str(i) for i in np.flatnonzero(anywhere))
            error = UserError(f"process {hosts} refused to start; its own message says why")
    if error is not None:
        raise error


def check_same(fingerprint: str, what: str) -> None:
    """Refuses hosts that found different things: they would wait for each other, or learn from a mixture.

    Args:
      fingerprint: hexadecimal digits, at most 16.
      what: it is of.
    """
    if jax.process_count() == 1:
        return
    halves = np.frombuffer(bytes.fromhex(fingerprint), np.int32)
    everyone = multihost_utils.process_allgather(halves)
    others = np.flatnonzero((everyone != everyone[0]).any(1))
    if len(others):
        raise UserError(
            f"{what} of process {', '.join(map(str, others))} are not those of process 0; every host needs the same, "
            f"in the same form"
        )


@contextlib.contextmanager
def alone(note: str) -> Iterator[None]:
    """Where several hosts compute together: one that fails alone, or finds another one lost, ends at once.

    Otherwise it would wait for the others (in the checkpoint writer, in jax's own end), and they for it.

    Args:
      note: what is said of the run that could go on.
    """
    try:
        yield
    except (Interrupted, Diverged):
        raise  # all of them end so, at the same step
    except (Exception, KeyboardInterrupt) as error:
        if jax.process_count() == 1:
            raise
        _leave(error, note)


def is_loss(error: BaseException) -> bool:
    """Whether an error says that another process is gone."""
    return isinstance(error, RuntimeError | ValueError) and bool(_LOST.search(str(error)))


def _leave(error: BaseException, note: str) -> NoReturn:
    who = f"process {jax.process_index()} of {jax.process_count()}"
    if isinstance(error, UserError):
        code, text = error.exit_code, f"error: {who}: {error}"
    elif isinstance(error, KeyboardInterrupt):
        code, text = Interrupted.exit_code, f"{who}: stopped by a second SIGINT; not saved"
    elif is_loss(error):
        code = Interrupted.exit_code
        text = f"error: {who}: another process is lost ({str(error).splitlines()[0]:.200}). {note}"
    else:
        code, text = Failed.exit_code, f"{traceback.format_exc()}error: {who} failed. {note}"
    sys.stderr.write(f"{text}\n")  # at once: print has two parts, between which other threads may print
    last_word.take_back()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def wait_for_all(name: str) -> None:
    """Returns when every host has come here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)
