"""A run's network as a file of weights with PyTorch's names:

python -m resnet_flax.export --workdir=runs/r20 --output=r20.safetensors [--step=800]

Names and layouts are those of akamaster's CIFAR networks, or torchvision's (and timm's) for ImageNet's. The file also
holds the run's config and how its images were prepared, so that evaluate and predict need nothing but
--weights=r20.safetensors. PyTorch is not needed.
"""

from pathlib import Path

from absl import flags

from resnet_flax import command
from resnet_flax import config as configs

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_OUTPUT = flags.DEFINE_string("output", None, "The .safetensors file to write.")
_STEP = flags.DEFINE_string("step", "latest", "Checkpoint: a step, 'latest', or 'best' (by validation error).")
flags.mark_flags_as_required(["workdir", "output"])


def main() -> None:
    """Reads a checkpoint, and writes the file."""
    from resnet_flax import model
    from resnet_flax.interchange import files, names

    output = Path(_OUTPUT.value)
    found = model.from_run(Path(_WORKDIR.value), _STEP.value)
    side, channels = found.preprocessing.image_size, found.preprocessing.channels
    tensors = names.to_tensors(found.network, (side, side, channels), found.variables, found.config.model.family)
    files.write(output, tensors, configs.to_json(found.config), found.preprocessing.to_json())
    print(f"{output}: {len(tensors)} tensors of {found.title}, step {found.step}")


if __name__ == "__main__":
    command.run(main, uses_devices=True)
