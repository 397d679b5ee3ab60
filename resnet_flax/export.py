"""A run's network as a file of weights with PyTorch's names:

python -m resnet_flax.export --workdir=runs/r20 --output=r20.safetensors [--step=800]

Names and layouts are those of akamaster's CIFAR networks, or torchvision's for ImageNet's; the file also holds the
run's config, so that `python -m resnet_flax.evaluate --weights=r20.safetensors` needs no other. PyTorch is not needed.
"""

from pathlib import Path

from absl import flags

from resnet_flax import command
from resnet_flax import config as configs
from resnet_flax.errors import UserError

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_OUTPUT = flags.DEFINE_string("output", None, "The .safetensors file to write.")
_STEP = flags.DEFINE_string("step", "latest", "Checkpoint: a step, 'latest', or 'best' (by validation error).")
flags.mark_flags_as_required(["workdir", "output"])


def main() -> None:
    """Reads a checkpoint, and writes the file."""
    from resnet_flax.interchange import files, names
    from resnet_flax.training import trained
    from resnet_flax.training import workdir as folders
    from resnet_flax.training.checkpoints import Checkpoints

    workdir, output = Path(_WORKDIR.value), Path(_OUTPUT.value)
    config = folders.read_config(workdir)
    if config is None:
        raise UserError(f"--workdir={workdir}: no run is there (it has no {folders.CONFIG})")
    with Checkpoints(workdir, read_only=True) as checkpoints:
        step = checkpoints.choose(_STEP.value)
    loaded = trained.load(configs.resolve(config), workdir, step)
    network, shape = trained.on_one_device(loaded.parts.network), loaded.parts.dataset.train.images.shape[1:]
    tensors = names.to_pytorch(names.entries(network, shape, config.model.family), loaded.variables)
    files.write(output, tensors, configs.to_json(config))
    print(f"{output}: {len(tensors)} tensors of {configs.name_of(config.model)}, step {step}")


if __name__ == "__main__":
    command.run(main, uses_devices=True)
