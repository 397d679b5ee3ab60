"""Seconds from nothing to a compiled step of the CIFAR-10 recipe: python -m tests.runs.compile_time DEPTH...

Prints a line of JSON for each depth: of tracing, initialising and compiling, in seconds of CPU.
"""

import json
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np

from resnet_flax import config
from resnet_flax.data.resident import Normalization, Resident, Stream
from resnet_flax.networks import build
from resnet_flax.training import optimizer as optimizers
from resnet_flax.training.devices import DATA_AXIS, data_mesh, replicated
from resnet_flax.training.schedule import learning_rate
from resnet_flax.training.state import initial_state
from resnet_flax.training.step import make_train_steps


def measure(depth: int) -> float:
    jax.clear_caches()
    # Not the clock's seconds: those grow with whatever else the machine does.
    before = time.process_time()
    c = config.resolve(config.load("configs/cifar10.py", f"residual-{depth}"))
    everywhere = replicated(data_mesh())
    network = build(c.model, 10, c.train.bn_group, DATA_AXIS)
    optimizer = optimizers.build(c.optimizer, learning_rate(c.optimizer, c.schedule))
    state = jax.block_until_ready(initial_state(network, optimizer, c.seed, (32, 32, 3), everywhere))
    stream = Stream(
        c.seed,
        c.train.batch_size,
        c.data.pad,
        c.data.flip,
        Normalization(np.zeros((32, 32, 3)), np.ones(1)),
        jnp.float32,
    )
    data = Resident(
        jax.ShapeDtypeStruct((50_000, 32, 32, 3), jnp.uint8, sharding=everywhere),
        jax.ShapeDtypeStruct((50_000,), jnp.int32, sharding=everywhere),
    )
    make_train_steps(network, optimizer, stream, data_mesh()).compile(state, data)
    return time.process_time() - before


if __name__ == "__main__":
    for depth in map(int, sys.argv[1:]):
        print(json.dumps([depth, measure(depth)]), flush=True)
