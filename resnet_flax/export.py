"""Exports a run's network to a file of weights with PyTorch's names:

python -m resnet_flax.export --workdir=runs/r20 --output=r20.safetensors [--step=800]

Names and layouts are those of akamaster's CIFAR networks, or torchvision's (and timm's) ImageNet networks. The file
also holds the run's config and preprocessing, so that evaluate and predict need only --weights=r20.safetensors. PyTorch
is not needed. If the other library's network computes something else, such as with the stride on another convolution, a
line on stderr says so.
"""

from absl import flags

from resnet_flax import command

flags.DEFINE_string("workdir", None, "Run directory.")
flags.DEFINE_string("output", None, "The .safetensors file to write.")
flags.DEFINE_string("step", "latest", "Checkpoint: a step, 'latest', or 'best' (by validation error).")
flags.mark_flags_as_required(["workdir", "output"])

if __name__ == "__main__":
    command.run("resnet_flax.commands.export", uses_devices=True)
