"""Trains what a config names:

python train.py --config=configs/digits.py:residual-20 --workdir=runs/r20 [--config.train.steps=500 ...]

From weights, own or others', instead of random values (fine-tuning):

python train.py --config=configs/folder.py:residual-50 --config.data.folder=photos --workdir=runs/photos \
    --config.init.weights=resnet50.pth --reset-head [--config.optimizer.trainable=head]

The same command goes on where an earlier one was stopped. Exit codes: 0 done, 2 a mistake in the command or its
config, 3 stopped by a signal, saved and resumable, 4 diverged.
"""

from absl import flags
from ml_collections import config_flags

from resnet_flax import command

_CONFIG = config_flags.DEFINE_config_file("config", None, "FILE:UNIT-DEPTH, such as configs/digits.py:plain-56.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run: config, metrics, checkpoints.")
_RESET_HEAD = flags.DEFINE_bool("reset_head", False, "Short for --config.init.reset_head.")
flags.mark_flags_as_required(["config", "workdir"])


def main() -> None:
    """Trains to the last step and prints the errors there."""
    import jax

    from resnet_flax.training import loop

    if _RESET_HEAD.value:
        _CONFIG.value.init.reset_head = True
    line = loop.run(_CONFIG.value, _WORKDIR.value)
    if jax.process_index() == 0:
        raw = f" ({line['test_error_raw']:.2%} without the average)" if "test_error_raw" in line else ""
        errors = f"training error {line['train_error']:.2%}, test error {line['test_error']:.2%}{raw}"
        print(f"step {line['step']}: {errors}")


if __name__ == "__main__":
    command.run(main, uses_devices=True)
