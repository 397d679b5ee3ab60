"""A run's network as a file of weights with PyTorch's names:

python -m resnet_flax.export --workdir=runs/r20 --output=r20.safetensors [--step=800]

Names and layouts are those of akamaster's CIFAR networks, or torchvision's (and timm's) for ImageNet's. The file also
holds the run's config and how its images were prepared, so that evaluate and predict need nothing but
--weights=r20.safetensors. PyTorch is not needed. Where the others' network of these names computes something else, such
as strides on another convolution, a line on stderr says so.
"""

import sys

from absl import flags

from resnet_flax import command
from resnet_flax import config as configs
from resnet_flax.paths import expanded

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_OUTPUT = flags.DEFINE_string("output", None, "The .safetensors file to write.")
_STEP = flags.DEFINE_string("step", "latest", "Checkpoint: a step, 'latest', or 'best' (by validation error).")
flags.mark_flags_as_required(["workdir", "output"])


def main() -> None:
    """Reads a checkpoint, and writes the file."""
    import jax

    from resnet_flax import model
    from resnet_flax.interchange import files, names
    from resnet_flax.interchange.weights import deviations

    output = expanded(_OUTPUT.value)
    found = model.from_run(expanded(_WORKDIR.value), _STEP.value)
    found.check_finite()
    if jax.process_index() > 0:  # its variables are those of the first one
        return
    shape, family = found.preprocessing.image_shape, found.config.model.family
    tensors = names.to_tensors(found.network, shape, found.variables, family)
    files.write(output, tensors, configs.to_json(found.config), found.preprocessing.to_json())
    if differing := deviations(found.config):
        print(f"{output}: loaded there, it gives other logits: {'; '.join(differing)}", file=sys.stderr)
    print(f"{output}: {len(tensors)} tensors of {found.title}, step {found.step}")


if __name__ == "__main__":
    command.run(main, uses_devices=True)
