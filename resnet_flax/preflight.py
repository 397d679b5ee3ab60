r"""Checks before a long run that the data set is complete and fast enough, and that the checkpoints fit on the disk:

python -m resnet_flax.preflight --config=configs/imagenet.py:residual-50 --config.data.data_dir=FOLDER \
    [--workdir=runs/r50] [--sample=200 | --all]

Lists where it looked for the data set, what it expected there, what it found, and what a run would use. Decodes a
sample of the photographs, or all of them, and names those that cannot be read. Measures how fast the config's threads
and workers make batches. Compares the free disk space with the size of the checkpoints. The exit code is 0 if a run
could start; otherwise it is 2, and the last line says why. Data sets that are kept in memory are read completely, as in
a run.

python -m resnet_flax.preflight --config=configs/imagenet.py:residual-50 --target=h100:8

only compiles the training step for accelerators that this machine need not have. It says whether the step fits their
memory, and if not, what would make it fit. From their published rates it computes the least time of a step and of the
run, and which rate limits it. This needs their compilers and Python 3.12 or later: pip install -e '.[cuda13]' or
'.[tpu]'.
"""

from absl import flags
from ml_collections import config_flags

from resnet_flax import command

config_flags.DEFINE_config_file("config", None, "FILE:UNIT-DEPTH, such as configs/imagenet.py:residual-50.")
flags.DEFINE_string("workdir", None, "Run directory of the planned run.")
flags.DEFINE_integer("sample", 200, "Number of photographs to decode, from all splits together.", lower_bound=1)
flags.DEFINE_string("target", None, "Accelerators to compile for: h100:1 to h100:8, v5e:2x2, 4x4, 8x8 or 16x16.")
flags.DEFINE_bool("all", False, "Decode every photograph.")
flags.mark_flag_as_required("config")

if __name__ == "__main__":
    command.run("resnet_flax.commands.preflight")
