"""Lists a network's layers and their cost, stage by stage, without reading data or compiling anything:

python -m resnet_flax.summary --config=configs/imagenet.py:residual-50 [--batch=32] [--image=H,W,C] [--json]

Each stage has a row: its output shape, its number of units, its parameters, the multiply-adds of classifying one image
(convolutions and dense layers), and the size of the activations that a training step keeps for the backward pass
(defined in resnet_flax/analysis/activations.py). Below are the totals, and the numbers that the paper and torchvision
publish for the same network.
"""

from absl import flags
from ml_collections import config_flags

from resnet_flax import command

config_flags.DEFINE_config_file("config", None, "FILE:UNIT-DEPTH, such as configs/imagenet.py:residual-50.")
flags.DEFINE_integer("batch", None, "Batch size for the activations; by default the config's train.batch_size.")
flags.DEFINE_list("image", None, "Shape H,W,C of an image; by default the data set's, if it is known.")
flags.DEFINE_integer("classes", None, "Number of classes; by default the data set's.")
flags.DEFINE_bool("json", False, "Print JSON instead of tables, with exact numbers and bytes.")
flags.mark_flag_as_required("config")

if __name__ == "__main__":
    command.run("resnet_flax.commands.summary")
