"""Scaling at a fixed global batch: a device's program, its collectives and the host's work, by devices and processes.

python -m benchmarks.scaling [--batch=128] [--device_counts=1,2,4,8] [--process_counts=2,4] [--output=FILE.csv]

The devices are CPU devices of one process, or processes with one device each, joined as in a run. Kernels, copies,
collectives and bytes are read from the compiled program, for one training step on one device; the body of a loop counts
as often as it runs. A device with fewer images runs fewer iterations of the convolution's loops. So compare its program
with the row of a single device that trains on as many images, which is below it. BN normalises as many images together
as the smallest share has.

"host ms a call" is the processor time of the thread that launches the calls. It covers all that a run does in a call of
--steps_a_call steps: synchronising with the other processes, launching, and fetching the metrics' sums. "ms of no
steps" is the wall-clock time of a call without steps, which is the overhead of a call. During both, a transfer to a
device would raise an error. (The number of steps, 4 bytes per device, is sent once, before the measurement.) "ms a
step" is wall-clock time, too. All devices share the cores of this machine, so the table does not show what more
hardware would gain. Takes about 5 minutes on 2 CPU cores.
"""

import json
import os
import re
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

from absl import flags

from benchmarks import options
from resnet_flax import command
from resnet_flax.errors import Failed, UserError

_NETWORK = flags.DEFINE_string("network", "cifar10:residual-20", "FILE:NAME of the config.")
_BATCH = flags.DEFINE_integer("batch", 128, "Images per step, over all devices.", lower_bound=1)
_DEVICES = flags.DEFINE_list("device_counts", ["1", "2", "4", "8"], "Numbers of devices of one process.")
_PROCESSES = flags.DEFINE_list("process_counts", ["2", "4"], "Numbers of processes with one device each.")
_STEPS = flags.DEFINE_integer("steps_a_call", 4, "Steps per measured call.", lower_bound=1)
_GROUP = flags.DEFINE_integer("bn_group", None, "Value of train.bn_group, with --here.")
_HERE = flags.DEFINE_bool(
    "here", False, "Measures this process's devices and prints JSON; used by the benchmark itself."
)

_HEADER = (
    "batch", "processes", "devices", "images a device", "kernels", "copies", "MB moved", "collectives",
    "bytes given to them", "host ms a call", "least", "most", "ms of no steps", "ms a step",
)  # fmt: skip


class Case(NamedTuple):
    """Processes and devices that share a batch."""

    processes: int
    devices: int  # per process
    batch: int

    @property
    def images(self) -> int:
        """The number of images per device."""
        return self.batch // (self.processes * self.devices)


def main() -> None:
    """Measures each case in processes of its own, and prints the table; with ``--here``, measures this process."""
    if _HERE.value:
        print(json.dumps(measure(_NETWORK.value, _BATCH.value, _GROUP.value, _STEPS.value, options.ROUNDS.value)))
        return
    wanted = list(cases())
    import jax

    from resnet_flax.runtime.progress import Progress

    jax.config.update("jax_platforms", "cpu")
    group = min(case.images for case in wanted)
    alone = [Case(1, 1, case.images) for case in wanted]
    wanted = sorted({*wanted, *alone}, key=lambda case: (-case.images, -case.batch, case.processes))
    rows = []
    with Progress(len(wanted), "scaling", "cases") as progress:
        for case in wanted:
            found = _in_processes(case, group)
            counts = found["counts"]
            host = (pick(found["host"]) for pick in (statistics.median, min, max))
            clock = (statistics.median(found[name]) for name in ("no_steps", "step"))
            rows.append(
                (str(case.batch), str(case.processes), str(case.processes * case.devices), str(case.images),
                 f"{counts['kernels']:.0f}", f"{counts['copies']:.0f}", f"{counts['bytes'] / 1e6:.4g}",
                 f"{counts['collectives']:.0f}", f"{counts['collective_bytes']:.0f}",
                 *(f"{1e3 * seconds:.3g}" for seconds in host), *(f"{1e3 * seconds:.4g}" for seconds in clock))
            )  # fmt: skip
            progress.update(1, f"{case.processes} processes, {case.devices} devices each, batch {case.batch}")
    options.print_and_write(_HEADER, rows)


def cases() -> Iterator[Case]:
    """Yields the cases that the flags define.

    Raises:
      UserError: A number of devices does not divide the batch.
    """
    for flag, of_processes in ((_DEVICES, False), (_PROCESSES, True)):
        for count in options.numbers(flag) if flag.value else ():
            if _BATCH.value % count:
                raise UserError(f"--{flag.name}={','.join(flag.value)}: {count} does not divide --batch={_BATCH.value}")
            yield Case(count, 1, _BATCH.value) if of_processes else Case(1, count, _BATCH.value)


def _in_processes(case: Case, group: int) -> dict[str, Any]:
    """Starts the processes of a case; returns the measurements that the first one prints."""
    kept = re.sub(r"--xla_force_host_platform_device_count=\S*", "", os.environ.get("XLA_FLAGS", ""))
    given = {"XLA_FLAGS": f"{kept} --xla_force_host_platform_device_count={case.devices}", "JAX_PLATFORMS": "cpu"}
    command_line = [
        sys.executable, "-m", "benchmarks.scaling", "--here", f"--network={_NETWORK.value}", f"--batch={case.batch}",
        f"--bn_group={group}", f"--steps_a_call={_STEPS.value}", f"--rounds={options.ROUNDS.value}",
    ]  # fmt: skip
    if case.processes > 1:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        command_line += [f"--coordinator=localhost:{port}", f"--processes={case.processes}"]
    joined = [[f"--process={i}"] if case.processes > 1 else [] for i in range(case.processes)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": os.environ | given}
    started = [subprocess.Popen([*command_line, *one], **pipes) for one in joined]
    said = [process.communicate() for process in started]  # if one fails, the others end, too
    for process, (_, error) in zip(started, said, strict=True):
        if process.returncode:
            raise Failed(f"{' '.join(process.args[1:])}: {(error.strip().splitlines() or ['killed'])[-1]}")
    return json.loads(said[0][0].splitlines()[-1])


def measure(network: str, batch: int, group: int | None, count: int, rounds: int) -> dict[str, Any]:
    """Compiles the training step for the devices of all processes, and calls it as a run does.

    Returns:
      ``counts`` of a step's program; and in each round the seconds of the ``host`` per call, of a call with
      ``no_steps``, and of a ``step``. With several processes, these are the longest.
    """
    import dataclasses

    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    from benchmarks import ours
    from resnet_flax.measurements.hlo import Program
    from resnet_flax.runtime.hosts import Hosts

    keys = {"train.batch_size": batch, "train.bn_group": group or batch // jax.device_count()}
    training, hosts = ours.training(ours.load_config(network, **keys), images=max(batch, 1024)), Hosts()
    counts = Program(training.compile().as_text()).step()

    def call(steps: int, transfers: str) -> tuple[float, float]:
        clock, processor = time.perf_counter(), time.thread_time()
        hosts.next_call(False, steps)
        with jax.transfer_guard_host_to_device(transfers):
            training.run(steps)
        jax.device_get(training.state.sums)
        return time.perf_counter() - clock, time.thread_time() - processor

    found: dict[str, list[float]] = {"host": [], "no_steps": [], "step": []}
    for steps in (0, count):
        call(steps, "allow")
    for _ in range(rounds):
        found["no_steps"].append(call(0, "disallow_explicit")[0])
        clock, processor = call(count, "disallow_explicit")
        found["host"].append(processor)
        found["step"].append(clock / count)
    if hosts.count > 1:
        found = {
            name: multihost_utils.process_allgather(np.array(values, np.float32)).max(0).tolist()
            for name, values in found.items()
        }
    return {"counts": dataclasses.asdict(counts), **found}


if __name__ == "__main__":
    command.run(main, uses_devices=True)
