"""Configs that need more memory than any machine has are refused before anything of that size is built."""

import time

import jax
import pytest

from resnet_flax import config, memory
from resnet_flax.errors import UserError
from resnet_flax.networks import build
from resnet_flax.training import loop
from resnet_flax.training.state import abstract_variables
from tests.commands import streams
from tests.training.small import small_config


@pytest.mark.parametrize(
    ("file", "name", "shape", "given"),
    [
        ("cifar10", "residual-20", (32, 32, 3), {}),
        ("cifar10", "plain-56", (32, 32, 3), {"model.width": 2.0}),
        ("cifar10", "residual-bottleneck-164", (32, 32, 3), {}),
        ("cifar10", "highway-20", (32, 32, 3), {}),
        ("cifar10", "vgg-16", (32, 32, 3), {}),
        ("imagenet", "residual-18", (224, 224, 3), {}),
        ("imagenet", "residual-50", (224, 224, 3), {}),
        ("highway", "plain-32", (32, 32, 3), {}),
        ("digits", "residual-8", (8, 8, 1), {"model.stage_units": (1, 2), "model.hidden": (100, 10)}),
    ],
)
def test_the_lower_bound_is_close_to_the_number_of_parameters(file, name, shape, given):
    network = build(config.load(f"configs/{file}.py", name, given).model, 10)
    params = abstract_variables(network, shape, None)["params"]
    there = sum(leaf.size for leaf in jax.tree.leaves(params))
    gates = 2 if "highway" in name else 1
    assert 0.75 * there / gates < memory.minimum_parameters(network) <= there


def test_the_lower_bound_is_close_for_a_published_network():
    """ResNet-152 has 60.2 million parameters (torchvision). The bound leaves out shortcuts, BN and the stem."""
    network = build(config.load("configs/imagenet.py", "residual-152").model, 1000)
    assert memory.minimum_parameters(network) == pytest.approx(60_192_808, rel=0.06)


HUGE = [
    ("model.depth", 6_000_002, "at least 96,767,977,024 parameters, 360 GiB"),
    ("model.stage_units", (10**9, 1, 1), "at least 4,608,000,069,184 parameters"),
    ("model.width", 1e9, "GiB; this machine has"),
    ("model.stage_filters", (10**9, 1, 1), "GiB; this machine has"),
    ("model.hidden", (10**9,), r"model.hidden=\(1000000000,\): the network has at least"),
    ("train.batch_size", 2 * 10**9, "train.batch_size=2000000000: a batch of images of 8x8 pixels.* of memory"),
    ("train.eval_batch_size", 2 * 10**9, "train.eval_batch_size=2000000000: a batch"),
    ("data.pad", 10**9, "a batch of images of 8x8 pixels, data.pad=1000000000"),
    ("data.image_size", 10**6, "a batch of images of 1000000x1000000 pixels"),
]


@pytest.mark.parametrize(("key", "value", "message"), HUGE, ids=[key for key, *_ in HUGE])
def test_a_config_too_large_for_any_machine_is_refused_at_once(tmp_path, monkeypatch, key, value, message):
    monkeypatch.setattr(memory, "installed", lambda: 32 * 2**30)
    c = small_config(
        **{"train__steps": 2, "schedule__milestones": (), "model__width": 1.0, key.replace(".", "__"): value}
    )
    start = time.perf_counter()
    with pytest.raises(UserError, match=message):
        loop.run(c, tmp_path / "run")
    assert time.perf_counter() - start < 5  # takes a second on an idle machine
    assert [path.name for path in (tmp_path / "run").glob("*")] in ([], [".lock"])


def test_gradients_and_the_optimizers_state_are_counted():
    """A network's parameters may fit although its training step does not."""
    c = config.resolve(small_config(model__stage_units=(2**16, 1, 1), model__width=1.0))
    network = build(c.model, 10)
    memory.check_network(network, c.model)
    needed = 4 * memory.minimum_parameters(network) * len(jax.local_devices())
    for optimizer, copies in (("sgd", 3), ("adamw", 4)):
        c.optimizer.name = optimizer
        for there, fits in ((copies * needed + 2**20, True), (copies * needed - 1, False)):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(memory, "installed", lambda there=there: there)
                if fits:
                    memory.check_training(c, network)
                else:
                    with pytest.raises(UserError, match=f"the state of optimizer.name={optimizer} take at least"):
                        memory.check_training(c, network)


@pytest.mark.slow
def test_a_process_does_not_grow_with_each_run(tmp_path):
    """Regression test: glibc kept what compilations had freed, about 100 MB of it after the first of these runs."""
    program = f"""
from resnet_flax import memory
from resnet_flax.training import loop
from tests.training.small import small_config
for seed in range(6):
    loop.run(small_config("residual-20", seed=seed, train__steps=4), "{tmp_path}/" + str(seed))
    for trim in (lambda: None, memory.return_free):
        trim()
        print(*(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS")), flush=True)
"""
    code, output, error = streams("-c", program)
    assert code == 0, error
    kilobytes = [int(line) for line in output.splitlines()]
    assert len(kilobytes) == 12
    assert kilobytes[0] - kilobytes[1] < 30_000  # The run has left nothing to return.
    assert kilobytes[-1] - kilobytes[2] < 40_000
