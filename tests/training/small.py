"""A config small enough for tests: 8 layers, a quarter of the width, the digits."""

from resnet_flax import config


def small_config(name="residual-8", **overrides):
    c = config.load("configs/digits.py", name)
    c.model.width = 0.25
    c.train.batch_size = 16
    c.train.steps = 12
    c.train.log_every = c.train.eval_every = 4
    c.train.checkpoint_every = 4
    c.schedule.milestones = (6, 9)
    c.update_from_flattened_dict({k.replace("__", "."): v for k, v in overrides.items()})
    return c
