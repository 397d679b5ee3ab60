r"""Loss and error of a trained network:

python -m resnet_flax.evaluate --workdir=runs/r20 [--split=test] [--step=800]
python -m resnet_flax.evaluate --config=configs/cifar10.py:residual-20 --weights=resnet20.th
python -m resnet_flax.evaluate --config=configs/imagenet.py:residual-50 --weights=resnet50.pth \
    --config.data.folder=FOLDER [--view=10crop]

Of a run's newest checkpoint, or with --step=best of the one with the least validation error; --config is then only
needed to evaluate with other data than the run's own, or to say where it lies: --config=FILE:NAME
--config.data.data_dir=... Or of a file of weights of PyTorch, Keras or
safetensors, in any of the forms in docs/weights.md (neither PyTorch nor Keras is needed, and nothing in the file is
run); FILE#KEY names a part of a checkpoint. The last line is such as
`test error 8.27% (827 of 10000), loss 0.3012`. Weights or a loss that are not finite end the command with exit code 4
and a line that says in which layers, or of which images.

Photographs in a folder are looked at in one --view (arXiv:1512.03385, section 3.4): the center crop; 10crop, averaged,
whose corners are those of the central square (torchvision's TenCrop takes them from the whole rectangle); or
multiscale, fully convolutional at several scales, averaged.

--split=all evaluates every image that is there. With weights that others made, it is the default where a folder has no
split of its own; a run, and a file that export wrote, keep the split of their training. A folder with nothing but val,
or ImageNet's val tar and development kit, will do.
"""

from absl import flags
from ml_collections import config_flags

from resnet_flax import command

config_flags.DEFINE_config_file("config", None, "FILE:UNIT-DEPTH; by default the run's own config.json.")
flags.DEFINE_string("workdir", None, "Folder of the run.")
flags.DEFINE_string("weights", None, "File of weights, in place of a run.")
flags.DEFINE_enum(
    "split", None, ("test", "validation", "train", "all"),
    "Images to evaluate on: by default those for testing; all, where others' weights meet photographs without a split.",
)  # fmt: skip
flags.DEFINE_enum("view", "center", ("center", "10crop", "multiscale"), "How photographs are looked at.")
flags.DEFINE_bool("reestimate_bn", False, "Replace BN's running statistics by their average over the training images.")
flags.DEFINE_string("step", "latest", "Checkpoint: a step, 'latest', or 'best' (by validation error).")

if __name__ == "__main__":
    command.run("resnet_flax.commands.evaluate", uses_devices=True)
