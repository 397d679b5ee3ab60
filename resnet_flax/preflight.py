r"""Before a long run: is the data set there and whole, how fast does it come, will the checkpoints fit?

python -m resnet_flax.preflight --config=configs/imagenet.py:residual-50 --config.data.data_dir=FOLDER \
    [--workdir=runs/r50] [--sample=200 | --all]

Says where the data set was looked for, what was wanted there and what was found, and what a run would use; decodes a
sample of the photographs (or all of them) and names those that cannot be read; measures how fast the config's threads
and workers make batches; and sets the free disk space beside what the checkpoints take. Exit code 0: a run could
start; 2: it could not, and the last line says why. Data sets that are kept in memory are read whole, as a run does.

python -m resnet_flax.preflight --config=configs/imagenet.py:residual-50 --target=h100:8

compiles the training step for accelerators that are not here, and looks at nothing else: does it fit their memory, and
what would make it fit; how long does a step, and the run, take at least by their published rates, and what binds. Needs
their compilers, with Python 3.12 or later: pip install -e '.[cuda13]' or '.[tpu]'.
"""

from absl import flags
from ml_collections import config_flags

from resnet_flax import command

config_flags.DEFINE_config_file("config", None, "FILE:UNIT-DEPTH, such as configs/imagenet.py:residual-50.")
flags.DEFINE_string("workdir", None, "Folder that the run would have.")
flags.DEFINE_integer("sample", 200, "Photographs that are decoded, of all splits.", lower_bound=1)
flags.DEFINE_string("target", None, "Accelerators to compile for: h100:1 to h100:8, v5e:2x2, 4x4, 8x8 or 16x16.")
flags.DEFINE_bool("all", False, "Decode every photograph.")
flags.mark_flag_as_required("config")

if __name__ == "__main__":
    command.run("resnet_flax.commands.preflight")
