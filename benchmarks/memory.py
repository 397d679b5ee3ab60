"""Peak memory of training against depth, with and without rematerialisation.

python -m benchmarks.memory [--depths=20,56,110,1202] [--remats=none,unit,stage] [--batch=128] [--step_batch=8]

"planned" is the memory that XLA allocates for a training step at --batch: temporaries, arguments and outputs, less what
they share. "peak" is the peak memory while one real step runs at --step_batch, less the memory in use before: of the
process, or on a GPU of the device. Each case runs in a process of its own. --step_batch=0 runs no real step. Takes
about 5 minutes on 2 CPU cores.
"""

import json
import subprocess
import sys
from typing import Any

from absl import flags

from benchmarks import options
from resnet_flax import command
from resnet_flax.errors import Failed

REMATS = ("none", "unit", "stage")

_DEPTHS = flags.DEFINE_list("depths", ["20", "56", "110", "1202"], "Depths of the residual networks.")
_REMATS = flags.DEFINE_list("remats", list(REMATS), "Values of model.remat.")
_BATCH = flags.DEFINE_integer("batch", 128, "Images per planned step.", lower_bound=1)
_STEP_BATCH = flags.DEFINE_integer("step_batch", 8, "Images of the real step; 0 for no real step.", lower_bound=0)

_HEADER = ("network", "remat", "batch", "planned MiB", "of which temporaries", "batch of a real step", "its peak MiB")


def main() -> None:
    """Measures each case in a process of its own, and prints the table."""
    from resnet_flax.runtime.progress import Progress

    cases = [(depth, remat) for depth in options.numbers(_DEPTHS) for remat in options.choices(_REMATS, REMATS)]
    rows = []
    with Progress(len(cases), "memory", "networks") as progress:
        for depth, remat in cases:
            planned, temporaries, peak = _in_a_process(depth, remat, _BATCH.value, _STEP_BATCH.value)
            step = (str(_STEP_BATCH.value), f"{peak / 2**20:.0f}") if _STEP_BATCH.value else ("-", "-")
            sizes = (f"{planned / 2**20:.0f}", f"{temporaries / 2**20:.0f}")
            rows.append((f"ResNet-{depth}", remat, str(_BATCH.value), *sizes, *step))
            progress.update(1, f"ResNet-{depth}, {remat}")
    options.print_and_write(_HEADER, rows)


def _in_a_process(*case: Any) -> tuple[int, int, int]:
    program = f"import json; from benchmarks.memory import measure; print(json.dumps(measure(*{case!r})))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    if done.returncode:
        raise Failed(f"ResNet-{case[0]}, remat {case[1]}: {(done.stderr.strip().splitlines() or ['killed'])[-1]}")
    return tuple(json.loads(done.stdout.splitlines()[-1]))


def measure(depth: int, remat: str, batch: int, step_batch: int) -> tuple[int, int, int]:
    """Returns the bytes that XLA plans for a step, those of its temporaries, and the peak of a real step."""
    import jax

    from benchmarks import ours

    def training(size: int) -> ours.Training:
        keys = {"model.remat": remat, "train.batch_size": size, "train.bn_group": 0}
        return ours.training(ours.load_config(f"cifar10:residual-{depth}", **keys), images=size)

    plan = training(batch).compile().memory_analysis()
    planned = (
        plan.temp_size_in_bytes + plan.argument_size_in_bytes + plan.output_size_in_bytes - plan.alias_size_in_bytes
    )
    if not step_batch:
        return planned, plan.temp_size_in_bytes, 0
    real = training(step_batch)
    real.compile()
    held = _held()
    jax.block_until_ready(real.run(1))
    return planned, plan.temp_size_in_bytes, _peak() - held


def _held() -> int:
    """Returns the bytes in use by the device, or on a CPU by the process."""
    import jax

    if stats := jax.devices()[0].memory_stats():
        return stats["bytes_in_use"]
    return 1024 * _status("VmRSS")


def _peak() -> int:
    """Returns the peak of :func:`_held` so far."""
    import jax

    if stats := jax.devices()[0].memory_stats():
        return stats["peak_bytes_in_use"]
    return 1024 * _status("VmHWM")


def _status(key: str) -> int:
    """Returns the kilobytes that Linux reports for this process under a key."""
    with open("/proc/self/status") as file:
        return int(next(line for line in file if line.startswith(key)).split()[1])


if __name__ == "__main__":
    command.run(main)
