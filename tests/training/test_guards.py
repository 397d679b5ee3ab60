"""Guards against slow loops: repeated compilation, host-to-device transfers, and superfluous arithmetic."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_flax import config
from resnet_flax.analysis import counts
from resnet_flax.analysis.counts import multiply_adds_of
from resnet_flax.networks import build
from resnet_flax.training import loop
from resnet_flax.training import optimizer as optimizers
from resnet_flax.training.evaluation import Evaluate
from resnet_flax.training.state import abstract_state
from resnet_flax.training.step import TrainSteps, training_step
from tests.marks import slow
from tests.training.small import small_config


def long_config():
    """A config with calls of all lengths, and with evaluations and checkpoints at different steps."""
    return small_config(
        model__stage_units=(2,), train__steps=40, train__log_every=3, train__eval_every=10, train__checkpoint_every=8
    )


def test_nothing_is_compiled_after_the_first_checkpoint_and_evaluation(tmp_path, monkeypatch):
    """By then every kind of call has been made, so all programs exist."""
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, _, **__: compiled.append(event) if event.endswith("backend_compile_duration") else None
    )
    try:
        seen, in_evaluations = {}, 0
        call, evaluate = TrainSteps.__call__, Evaluate.__call__

        def counted(self, state, data, count):
            seen[int(state.step)] = len(compiled)
            return call(self, state, data, count)

        def counted_evaluate(self, variables, blocks):
            nonlocal in_evaluations
            before = len(compiled)
            result = evaluate(self, variables, blocks)
            in_evaluations += len(compiled) - before
            return result

        monkeypatch.setattr(TrainSteps, "__call__", counted)
        monkeypatch.setattr(Evaluate, "__call__", counted_evaluate)
        loop.run(long_config(), tmp_path / "run")
    finally:
        jax.monitoring.clear_event_listeners()
    warm = min(step for step in seen if step >= 20)
    assert seen[warm] > 0
    assert len([step for step in seen if step > warm]) >= 5
    assert len(compiled) == seen[warm]
    assert in_evaluations == 0  # evaluations are compiled in the background


class Guarded(loop.Progress):
    """Refuses implicit transfers. Progress is entered around the loop, so it can hold the guard."""

    def __enter__(self):
        self.guard = jax.transfer_guard_host_to_device("disallow")
        self.guard.__enter__()
        return super().__enter__()

    def __exit__(self, *exception):
        super().__exit__(*exception)
        self.guard.__exit__(*exception)


def test_nothing_is_transferred_in_the_loop(tmp_path, monkeypatch):
    """The loop makes only explicit transfers (the number of steps), and a call of the steps makes none at all."""
    calls = []

    def guarded(self, state, data, count):
        numbers = self._arguments(count)
        calls.append(count)
        with jax.transfer_guard_host_to_device("disallow_explicit"):
            return jax.block_until_ready(self.program(state, data, *numbers))

    monkeypatch.setattr(TrainSteps, "__call__", guarded)
    monkeypatch.setattr(loop, "Progress", Guarded)
    loop.run(long_config(), tmp_path / "run")
    assert sum(calls) == 40


def test_the_guard_sees_a_transfer(tmp_path, monkeypatch):
    """A transfer that is put into the loop on purpose is found, and no other."""
    reached = []

    def careless(self, state, data, count):
        numbers = self._arguments(count)
        reached.append("before")
        jnp.asarray(np.ones(3)) + 1
        reached.append("after")
        return self.program(state, data, *numbers)

    monkeypatch.setattr(TrainSteps, "__call__", careless)
    monkeypatch.setattr(loop, "Progress", Guarded)
    with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
        loop.run(long_config(), tmp_path / "run")
    assert reached == ["before"]


@pytest.mark.parametrize(
    ("file", "name", "image"),
    [
        slow("cifar10", "residual-20", (32, 32, 3)),
        slow("cifar10", "plain-56", (32, 32, 3)),
        ("cifar10", "residual-bottleneck-164", (32, 32, 3)),
        ("cifar10", "highway-20", (32, 32, 3)),
        slow("cifar10", "preactivation-110", (32, 32, 3)),
        slow("imagenet", "residual-50", (224, 224, 3)),
        slow("imagenet", "vgg-16", (224, 224, 3)),
    ],
)
def test_a_step_has_three_times_the_multiply_adds_of_the_network(file, name, image):
    """One pass is forward, one for gradients of the layers' inputs, one for gradients of kernels; within 3%."""
    c = config.load(f"configs/{file}.py", name)
    network, batch = build(c.model, 10), 4
    optimizer = optimizers.build(c.optimizer, lambda step: 0.1)
    state = abstract_state(network, optimizer, image, jax.sharding.SingleDeviceSharding(jax.devices()[0]))
    images, labels = jax.ShapeDtypeStruct((batch, *image), jnp.float32), jax.ShapeDtypeStruct((batch,), jnp.int32)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), batch)) if network.dropout else None
    step = lambda s, x, y, k: training_step(  # noqa: E731
        s, x, y, network=network, optimizer=optimizer, dropout_keys=k
    )
    counted = multiply_adds_of(step, state, images, labels, keys)
    assert counted == pytest.approx(3 * batch * counts.multiply_adds(network, image), rel=0.03)
