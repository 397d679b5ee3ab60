r"""Evaluates a trained network: loss and error on a split.

python -m resnet_flax.evaluate --workdir=runs/r20 [--split=test] [--step=800]
python -m resnet_flax.evaluate --config=configs/cifar10.py:residual-20 --weights=resnet20.th
python -m resnet_flax.evaluate --config=configs/imagenet.py:residual-50 --weights=resnet50.pth \
    --config.data.folder=FOLDER [--view=10crop]

With --workdir, the run's newest checkpoint is evaluated, or with --step=best the one with the lowest validation error.
--config is then only needed for other data, or if the data have moved: --config=FILE:NAME --config.data.data_dir=...

With --weights, a file of weights is evaluated: PyTorch, Keras or safetensors, in any format of docs/weights.md.
FILE#KEY names a part of a checkpoint. Neither PyTorch nor Keras is needed, and no code in the file is run.

The last line reads like `test error 8.27% (827 of 10000), loss 0.3012`. If a weight or the loss is not finite, the exit
code is 4 and the last line names the layers or the images.

--view says which crops of a photograph are averaged (arXiv:1512.03385, section 3.4): the center crop; 10crop, whose
corners are those of the central square (torchvision's TenCrop takes those of the whole rectangle); or multiscale, fully
convolutional at several scales.

--split=all evaluates every image. It is the default for weights that others trained, if the folder is not split into
training and test images; a run, and a file from export, keep the split of their training. A run's folder that has
changed since is refused, if it has no split of its own. For --split=test, a folder with nothing but val is enough, and
so are ImageNet's val tar and development kit.
"""

from absl import flags
from ml_collections import config_flags

from resnet_flax import command

config_flags.DEFINE_config_file("config", None, "FILE:UNIT-DEPTH; by default the run's own config.json.")
flags.DEFINE_string("workdir", None, "Run directory.")
flags.DEFINE_string("weights", None, "File of weights, instead of a run.")
flags.DEFINE_enum(
    "split", None, ("test", "validation", "train", "all"),
    "Images to evaluate on; by default test, or all for others' weights and photographs without a split.",
)  # fmt: skip
flags.DEFINE_enum("view", "center", ("center", "10crop", "multiscale"), "Crops of a photograph to average over.")
flags.DEFINE_bool("reestimate_bn", False, "Replace BN's running statistics by their average over the training images.")
flags.DEFINE_string("step", "latest", "Checkpoint: a step, 'latest', or 'best' (by validation error).")

if __name__ == "__main__":
    command.run("resnet_flax.commands.evaluate", uses_devices=True)
