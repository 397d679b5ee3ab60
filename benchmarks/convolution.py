"""Times of the convolution and its two gradients, layer by layer: ours, XLA's own, and other formulations.

python -m benchmarks.convolution [--layers=32x16x16,32x16x32/2] [--batch=128] [--rounds=5] [--output=FILE.csv]

A layer is written SIDExCHANNELSxFILTERS, or SIDExCHANNELSxFILTERS/STRIDE; kernels are 3x3. "ours" is the formulation
that resnet_flax/networks/cpu_convolution.py chooses (on a GPU, XLA's own). All are compiled with this project's
options, except "default options"; "oneDNN" is compiled as in long runs, if jaxlib contains oneDNN. Takes about 2
minutes on 2 CPU cores.
"""

import re
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from absl import flags

from benchmarks import options
from resnet_flax import command
from resnet_flax.errors import UserError

_LAYERS = flags.DEFINE_list(
    "layers", ["32x16x16", "16x32x32", "8x64x64", "32x16x32/2", "16x32x64/2"],
    "Layers, each SIDExCHANNELSxFILTERS or SIDExCHANNELSxFILTERS/STRIDE. Default: those of the CIFAR networks.",
)  # fmt: skip
_BATCH = flags.DEFINE_integer("batch", 128, "Images per call.", lower_bound=1)
_TURN_SECONDS = flags.DEFINE_float("turn_seconds", 0.2, "Approximate seconds of a turn.", lower_bound=0)

_HEADER = ("layer", "what", "how", "ms", "least", "most", "GFLOP/s", "ours over it")


class Layer(NamedTuple):
    """Sizes of a 3x3 convolution of square images."""

    name: str
    side: int
    channels: int
    filters: int
    stride: int


def main() -> None:
    """Measures every formulation of each layer in turns, and prints the table."""
    from resnet_flax.measurements.timing import time_in_turns
    from resnet_flax.runtime.progress import Progress

    layers, rows = [_layer(text) for text in _LAYERS.value], []
    with Progress(len(layers), "convolutions", "layers") as progress:
        for layer in layers:
            calls = _calls(layer, _BATCH.value)
            spreads = time_in_turns(calls, options.ROUNDS.value, _TURN_SECONDS.value, lambda _: None)
            flops = 2 * 9 * _BATCH.value * (-(-layer.side // layer.stride)) ** 2 * layer.channels * layer.filters
            for (what, how), s in spreads.items():
                times = (f"{1e3 * seconds:.3g}" for seconds in (s.median, s.least, s.most))
                ratio = s.over(spreads[what, "ours"]).text()
                rows.append((layer.name, what, how, *times, f"{flops / s.median / 1e9:.4g}", ratio))
            progress.update(1, layer.name)
    options.print_and_write(_HEADER, rows)


def _layer(text: str) -> Layer:
    found = re.fullmatch(r"(\d+)x(\d+)x(\d+)(?:/(\d))?", text)
    if not found or not all(int(number) for number in found.groups("1")):
        raise UserError(
            f"--layers={text}: must be SIDExCHANNELSxFILTERS or SIDExCHANNELSxFILTERS/STRIDE, such as 32x16x32/2"
        )
    return Layer(text, *(int(number) for number in found.groups("1")))


def _calls(layer: Layer, batch: int) -> dict[tuple[str, str], Callable[[], Any]]:
    """Returns compiled calls by (result, formulation)."""
    import jax

    from resnet_flax.networks import compilation
    from resnet_flax.networks import cpu_convolution as cpu
    from resnet_flax.networks import xla_convolution as xla
    from resnet_flax.networks.compilation import jit
    from resnet_flax.networks.convolution import convolution

    keys = [jax.random.key(i) for i in range(3)]
    x = jax.random.normal(keys[0], (batch, layer.side, layer.side, layer.channels))
    kernel = jax.random.normal(keys[1], (3, 3, layer.channels, layer.filters)) / 3
    stride = layer.stride
    dy = jax.random.normal(keys[2], jax.eval_shape(lambda x, k: convolution(x, k, stride), x, kernel).shape)

    def pulled(x: Any, kernel: Any, dy: Any, which: int) -> Any:
        return jax.vjp(lambda *a: convolution(*a, stride), x, kernel)[1](dy)[which]

    ways = {
        ("forward", "ours"): lambda x, kernel, dy: convolution(x, kernel, stride),
        ("forward", "XLA's"): lambda x, kernel, dy: xla.forward(x, kernel, stride),
        ("forward", "9 shifts, whole batch"): lambda x, kernel, dy: cpu.matrix_forward(x, kernel, stride),
        ("input gradient", "ours"): partial(pulled, which=0),
        ("input gradient", "XLA's"): lambda x, kernel, dy: xla.input_gradient(x, kernel, dy, stride),
        ("kernel gradient", "ours"): partial(pulled, which=1),
        ("kernel gradient", "XLA's"): lambda x, kernel, dy: xla.kernel_gradient(x, kernel, dy, stride),
        ("kernel gradient", "9 shifts, whole batch"): partial(_by_shifts_of_the_input, stride=stride),
    }
    if stride > 1:
        ways["input gradient", "zeros put between"] = partial(_from_dilated_gradient, stride=stride)
    else:
        ways |= {
            ("forward", "pairs"): lambda x, kernel, dy: cpu.paired_forward(x, kernel),
            ("forward", "Winograd's"): lambda x, kernel, dy: cpu.winograd_forward(x, kernel),
            ("kernel gradient", "Winograd's"): cpu.winograd_kernel_gradient,
            ("kernel gradient", "a convolution"): cpu.swapped_kernel_gradient,
        }
    ways["kernel gradient", "products"] = partial(cpu.product_kernel_gradient, stride=stride)
    calls = {name: partial(jit(way), x, kernel, dy) for name, way in ways.items()}
    if compilation.has_onednn():  # long runs use it
        for (what, how), way in ways.items():
            if how in ("ours", "XLA's"):
                calls[what, f"{how}, oneDNN"] = partial(jit(way, onednn=True), x, kernel, dy)
    # jax.jit without this project's compiler options.
    calls["forward", "XLA's, default options"] = partial(jax.jit(ways["forward", "XLA's"]), x, kernel, dy)
    return dict(sorted(calls.items(), key=lambda item: item[0][0]))  # forward, input gradient, kernel gradient


def _from_dilated_gradient(x: Any, kernel: Any, dy: Any, stride: int) -> Any:
    """Computes the input's gradient by a forward convolution of the output's gradient, dilated with zeros."""
    import jax.numpy as jnp

    from resnet_flax.networks import cpu_convolution as cpu
    from resnet_flax.networks import xla_convolution as xla

    dilated = cpu.dilate(dy, stride, x.shape[1:3])
    return xla.forward(dilated, jnp.flip(kernel, (0, 1)).swapaxes(2, 3), 1)


def _by_shifts_of_the_input(x: Any, kernel: Any, dy: Any, stride: int) -> Any:
    """Computes the kernel's gradient by one matrix product with all shifts of all images."""
    from resnet_flax.networks import cpu_convolution as cpu

    columns = cpu.shifts(x, 3, stride).reshape(-1, 9 * x.shape[-1])
    return (columns.T @ dy.reshape(-1, dy.shape[-1])).reshape(kernel.shape)


if __name__ == "__main__":
    command.run(main, uses_devices=True)
