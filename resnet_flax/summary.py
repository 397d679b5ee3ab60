"""Lists a network's layers and their cost, stage by stage; no data, no training, nothing compiled:

python -m resnet_flax.summary --config=configs/imagenet.py:residual-50 [--batch=32] [--image=H,W,C] [--json]

A row a stage: the shape of its output, how many units it has, its parameters, the multiply-adds of classifying one
image (those of convolutions and of the dense layer), and what a training step on a batch keeps of it for the backward
pass (resnet_flax/analysis/activations.py says exactly what). Then the totals, and the numbers that the paper and
torchvision publish for the very same network. --batch is by default the config's train.batch_size.
"""

from absl import flags
from ml_collections import config_flags

from resnet_flax import command

config_flags.DEFINE_config_file("config", None, "FILE:UNIT-DEPTH, such as configs/imagenet.py:residual-50.")
flags.DEFINE_integer("batch", None, "Images whose activations are counted; by default train.batch_size.")
flags.DEFINE_list("image", None, "H,W,C of an image; by default the data set's, where it is known by name.")
flags.DEFINE_integer("classes", None, "Length of the output; by default as many as the data set has.")
flags.DEFINE_bool("json", False, "Print JSON instead of tables; bytes and numbers in full.")
flags.mark_flag_as_required("config")

if __name__ == "__main__":
    command.run("resnet_flax.commands.summary")
