"""Trains the network of a config:

python train.py --config=configs/digits.py:residual-20 --workdir=runs/r20 [--config.train.steps=500 ...]

Fine-tuning, which starts from weights of this or another project:

python train.py --config=configs/folder.py:residual-50 --config.data.folder=photos --workdir=runs/photos \
    --config.init.weights=resnet50.pth --reset-head [--config.optimizer.trainable=head]

The same command resumes a run that was stopped. Exit codes: 0 done, 2 a mistake in the command or its config, 3 stopped
by a signal, resumable, 4 diverged.
"""

from absl import flags
from ml_collections import config_flags

from resnet_flax import command
from resnet_flax.tracking import table

config_flags.DEFINE_config_file("config", None, "FILE:UNIT-DEPTH, such as configs/digits.py:plain-56.")
flags.DEFINE_string("workdir", None, "Run directory: config, metrics, checkpoints.")
flags.DEFINE_bool("reset_head", False, "Short for --config.init.reset_head.")
table.define_flag()
flags.mark_flags_as_required(["config", "workdir"])

if __name__ == "__main__":
    command.run("resnet_flax.commands.train", uses_devices=True)
