"""The main function of ``python train.py``."""

import sys

import jax
from absl import flags

from resnet_flax import command
from resnet_flax import config as configs
from resnet_flax.tracking import table
from resnet_flax.tracking.tracker import Tracking
from resnet_flax.training import loop


def main() -> None:
    """Trains to the last step and prints its errors."""
    config = flags.FLAGS.config
    if flags.FLAGS.reset_head:
        config.init.reset_head = True
    if jax.process_index() == 0:
        for remark in configs.without_effect(command.given_keys("config"), [configs.resolve(config)]):
            print(remark, file=sys.stderr)
    line = loop.run(config, flags.FLAGS.workdir, Tracking(table.requested_trackers()))
    if jax.process_index() == 0:
        raw = f" ({line['test_error_raw']:.2%} without the average)" if "test_error_raw" in line else ""
        errors = f"training error {line['train_error']:.2%}, test error {line['test_error']:.2%}{raw}"
        print(f"step {line['step']}: {errors}")
