"""The step for accelerators that this machine does not have: lowering for them, and the counts of its work."""

import importlib.util
import math
import re
from functools import partial

import jax
import jax.numpy as jnp
import pytest

from benchmarks import ours
from resnet_flax.analysis.counts import least_bytes_of
from resnet_flax.measurements import targets
from resnet_flax.measurements.chips import CHIPS
from resnet_flax.measurements.hlo import Program, size
from resnet_flax.networks.convolution import convolution
from resnet_flax.training.devices import data_mesh
from tests.commands import streams
from tests.training.small import small_config

SMALL = ("--config=configs/digits.py:residual-8", "--config.model.width=0.25", "--config.train.batch_size=16")
# A streamed network of 18 layers and 3 projections, 32 pixels wide.
STREAMED = {
    "model.width": 0.125, "data.image_size": 32, "data.resize": 36, "train.batch_size": 16, "train.bn_group": 2,
}  # fmt: skip


def step(config, target="h100:8", images=64):
    """Returns the step of a config for a target, with the tests' CPU devices in place of the target's."""
    return targets.TargetStep(config, targets.parse(target), data_mesh(), images)


@pytest.mark.parametrize(("where", "layers"), [("memory", 1 + 6), ("disk", 1 + 16 + 3)])
def test_the_step_lowers(where, layers):
    """Each layer is XLA's own convolution with two gradients; only the images need no gradient (XLA may find out)."""
    config = (
        ours.load_config("imagenet:residual-18", **STREAMED) if where == "disk" else small_config(train__bn_group=2)
    )
    traced = step(config).trace()
    for platform in ("cuda", "tpu"):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert text.count("stablehlo.convolution(") in (3 * layers - 1, 3 * layers), platform
        assert text.count("stablehlo.while") >= 1, platform


def test_the_work_of_a_step():
    """ResNet-50 has the published 4.089e9 multiply-adds per image forward, and twice that backward, less the stem."""
    counted = step(ours.load_config("imagenet:residual-50", **{"train.batch_size": 256})).work()
    stem = 112 * 112 * 64 * 49 * 3
    assert counted.flops == pytest.approx(2 * 32 * (3 * 4.089e9 - stem), rel=1e-3)
    assert counted.gradient_bytes == 4 * 25_557_032
    again = step(ours.load_config("imagenet:residual-50", **{"train.batch_size": 256, "model.remat": "unit"})).work()
    units = 4.089e9 - stem - 2048 * 1000
    assert again.flops == pytest.approx(counted.flops + 2 * 32 * units, rel=1e-3)


def test_least_bytes():
    """The forward pass moves x, w, y; the gradients move dy, w, dx and x, dy, dw."""
    x, kernel = jnp.zeros((2, 8, 8, 4), jnp.bfloat16), jnp.zeros((3, 3, 4, 16), jnp.bfloat16)
    y = 2 * 8 * 8 * 16
    both = jax.value_and_grad(lambda x, kernel: convolution(x, kernel, 1).astype(jnp.float32).sum(), (0, 1))
    assert least_bytes_of(partial(convolution, stride=1), x, kernel) == 2 * (x.size + kernel.size + y)
    assert least_bytes_of(both, x, kernel) == 3 * 2 * (x.size + kernel.size + y)


def test_all_reduce():
    """On a torus with 2 n^2 links in each of two directions, on a square of four devices, and with a switch."""
    v5e, h100 = CHIPS["v5e"], CHIPS["h100"]
    assert v5e.all_reduce_seconds(1e9, (16, 16)) == pytest.approx(2 * 255 / 256 / 200)
    assert v5e.all_reduce_seconds(1e9, (2, 2)) == pytest.approx(2 * 3 / 4 / 100)
    assert h100.all_reduce_seconds(9e9, (8,)) == pytest.approx(9 / 450)
    assert h100.all_reduce_seconds(9e9, (1,)) == 0


PROGRAM = """HloModule jit_steps, is_scheduled=true

%fused_slice (p0: f32[50000,8], p1: s32[]) -> f32[2,8] {
  %p0 = f32[50000,8]{1,0} parameter(0)
  %p1 = s32[] parameter(1)
  ROOT %slice = f32[2,8]{1,0} dynamic-slice(%p0, %p1, %p1), dynamic_slice_sizes={2,8}
}

%fused_transpose (p: f32[4,8]) -> f32[8,4] {
  %p = f32[4,8]{1,0} parameter(0)
  ROOT %t = f32[8,4]{1,0} transpose(%p), dimensions={1,0}
}

%inner (carry: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %carry = (s32[], f32[4,8]{1,0}) parameter(0)
  %x = f32[4,8]{1,0} get-tuple-element(%carry), index=1
  %call = (f32[4,8]{1,0}, u8[0]{0}) custom-call(%x), custom_call_target="__cudnn$convForward"
  ROOT %again = (s32[], f32[4,8]{1,0}) tuple(%x, %call)
}

%body (state: (s32[], f32[4,8], f32[50000,8])) -> (s32[], f32[4,8], f32[50000,8]) {
  %state = (s32[], /*index=1*/f32[4,8]{1,0}, f32[50000,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%state), index=0
  %w = f32[4,8]{1,0} get-tuple-element(%state), index=1
  %data = f32[50000,8]{1,0} get-tuple-element(%state), index=2
  %batch = f32[2,8]{1,0} fusion(%data, %i), kind=kLoop, calls=%fused_slice
  %same = f32[4,8]{1,0} copy(%w)
  %other = f32[4,8]{0,1} copy(%w)
  %turned = f32[8,4]{1,0} fusion(%same), kind=kInput, calls=%fused_transpose
  %loop = (s32[], f32[4,8]{1,0}) while(%state), condition=%c, body=%inner, backend_config={"known_trip_count":{"n":"3"}}
  %sum = f32[4,8]{1,0} all-reduce-start(%same), replica_groups={{0,1}}, to_apply=%add
  %done = f32[4,8]{1,0} all-reduce-done(%sum)
  ROOT %next = (s32[], f32[4,8]{1,0}, f32[50000,8]{1,0}) tuple(%i, %done, %data)
}

ENTRY %main (a: f32[4,8], b: f32[50000,8]) -> f32[4,8] {
  %a = f32[4,8]{1,0} parameter(0)
  %b = f32[50000,8]{1,0} parameter(1)
  %before = f32[8,4]{1,0} fusion(%a), kind=kInput, calls=%fused_transpose
  %steps = (s32[], f32[4,8]{1,0}, f32[50000,8]{1,0}) while(%before), condition=%more, body=%body
  ROOT %out = f32[4,8]{1,0} get-tuple-element(%steps), index=1
}
"""


def test_iterations_of_a_loop_are_read_from_its_condition():
    """Programs for TPUs do not note the number of iterations."""
    noted = ', backend_config={"known_trip_count":{"n":"3"}}'
    condition = """
%c (carry: (s32[], f32[4,8])) -> pred[] {
  %carry = (s32[]{:T(128)}, f32[4,8]{1,0}) parameter(0)
  %limit = s32[]{:T(128)} constant(5)
  %i = s32[]{:T(128)} get-tuple-element(%carry), index=0
  ROOT %less = pred[]{:T(512)} compare(%i, %limit), direction=LT
}
"""
    assert Program(PROGRAM.replace(noted, "")).step().library_calls == 1
    assert Program(PROGRAM.replace(noted, "").replace("\n%body", condition + "\n%body")).step().library_calls == 5


def test_counts_of_a_programs_text():
    program, array = Program(PROGRAM), 4 * 8 * 4
    counts = program.step()
    assert (counts.kernels, counts.library_calls, counts.copies, counts.layout_changes) == (4, 3, 2, 2)
    assert (counts.collectives, counts.collective_bytes, counts.launches) == (1, array, 8)
    # The slice counts as read and written, with its index. The other kernels read and write one array each.
    assert counts.bytes == (2 * 64 + 4) + (2 + 1 + 3 + 1) * 2 * array
    assert (program.outside_step().kernels, program.outside_step().bytes) == (1, 2 * array)
    assert size("(bf16[3,5]{1,0:T(8,128)(2,1)}, pred[7]{0}, f8e4m3fn[2]{0}, s32[])") == 30 + 7 + 2 + 4
    assert size("f32[8]{0:T(256)S(1)}") == 0  # in a TPU's on-chip memory
    with pytest.raises(ValueError, match="no loop"):
        Program("ENTRY %main (a: f32[]) -> f32[] {\n  ROOT %a = f32[] parameter(0)\n}\n").step()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--target=h100:9"], "--target=h100:9: choose from h100:1 to h100:8"),
        (["--target=v5e:2x4"], "--target=v5e:2x4: choose from "),
        (["--target=h100:3"], "train.batch_size=16 is not divisible by the 3 devices; 15 or 18 would be"),
        (["--target=v5e:2x2", "--config.model.dtype=float16"], "model.dtype=float16: on v5e choose from bfloat16, f"),
    ],
)
def test_mistakes_are_one_line(arguments, message):
    code, _, error = streams("-m", "resnet_flax.preflight", *SMALL, *arguments)
    assert code == 2
    assert message in error
    assert len(error.splitlines()) == 1


INSTALLED = {
    "h100:1": importlib.util.find_spec("jax_cuda13_plugin") is not None,
    "v5e:2x2": importlib.util.find_spec("libtpu") is not None,
}


def test_a_target_whose_compiler_is_not_installed():
    missing = [target for target, there in INSTALLED.items() if not there]
    if not missing:
        pytest.skip("both compilers are installed")
    code, out, error = streams("-m", "resnet_flax.preflight", *SMALL, f"--target={missing[0]}")
    assert code == 2
    assert "not compiled, so it is unknown whether the run fits and how many kernels a step starts" in out
    assert "these are lower bounds from published rates, not measurements" in out
    extra = "cuda13" if missing[0].startswith("h100") else "tpu"
    assert f"error: --target={missing[0]}: no compiler for it is installed; pip install -e '.[{extra}]'" in error
    assert "Traceback" not in error


def needs(target):
    return pytest.mark.skipif(not INSTALLED[target], reason=f"the compiler for {target} is not installed")


@pytest.mark.slow
@pytest.mark.parametrize("target", [pytest.param(target, marks=needs(target)) for target in INSTALLED])
def test_a_small_step_compiles(target):
    found = targets.parse(target)
    code, out, error = streams("-m", "resnet_flax.preflight", *SMALL, "--config.train.steps=10", f"--target={target}")
    assert code == 0, error
    assert f"target: {target}, {found.devices} device" in out
    assert ": fits" in out
    (line,) = re.findall(r"a step: (\d+) kernels .* (\d+) library calls, (\d+) operations between", out)
    kernels, calls, between = map(int, line)
    # cuDNN computes each convolution and all but one of the gradients, and cuBLAS the dense layer. A TPU has no
    # library.
    assert calls == (3 * 7 - 1 + 3 if found.chip.launch_seconds else 0)
    assert kernels > 3 * 7
    assert (between > 0) == (found.devices > 1)
    assert "10 steps of 16 images take at least 0.00 hours" in out


@pytest.mark.slow
@needs("h100:1")
def test_a_run_that_follows_the_advice_fits():
    large = ("--config=configs/imagenet.py:residual-18", "--target=h100:1", "--config.train.batch_size=16384")
    code, out, error = streams("-m", "resnet_flax.preflight", *large)
    assert code == 2
    assert "does not fit" in out
    advised = error.rpartition(" with ")[2].split()
    code, out, error = streams("-m", "resnet_flax.preflight", *large, *advised)
    assert code == 0, error
    assert ": fits" in out


def test_a_bound_says_what_binds():
    counted = targets.Work(flops=494.7e12, least_bytes=0, gradient_bytes=0)
    found = step(small_config(train__bn_group=2)).bound(None, counted)
    assert (found.binds, found.least) == ("compute", pytest.approx(1.0))
    assert math.isclose(found.seconds["launches"], 0)
