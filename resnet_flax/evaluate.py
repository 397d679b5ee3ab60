"""Loss and error of a trained network:

python -m resnet_flax.evaluate --workdir=runs/r20 [--split=test] [--step=800]
python -m resnet_flax.evaluate --config=configs/cifar10.py:residual-20 --weights=resnet20.th

Of a run's newest checkpoint, or with --step=best of the one with the least validation error; --config is then only
needed to evaluate with other data than the run's own, or to say where it lies: --config=FILE:NAME
--config.data.data_dir=... Or of a file of weights: .safetensors, or PyTorch's .th, .pth, .pt (PyTorch is not needed,
and nothing in the file is run). The last line is such as `test error 8.27% (827 of 10000), loss 0.3012`.
"""

import sys
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from resnet_flax import command
from resnet_flax import config as configs
from resnet_flax.errors import UserError

_CONFIG = config_flags.DEFINE_config_file("config", None, "FILE:UNIT-DEPTH; by default the run's own config.json.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_WEIGHTS = flags.DEFINE_string("weights", None, "File of weights, in place of a run.")
_SPLIT = flags.DEFINE_enum("split", "test", ("test", "validation", "train"), "Images to evaluate on.")
_REESTIMATE = flags.DEFINE_bool(
    "reestimate_bn", False, "Replace BN's running statistics by their average over the training images."
)
_STEP = flags.DEFINE_string("step", "latest", "Checkpoint: a step, 'latest', or 'best' (by validation error).")


def main() -> None:
    """Evaluates a checkpoint or a file of weights, and prints the loss and the error."""
    from resnet_flax.data import resident
    from resnet_flax.training import evaluation, loop, trained
    from resnet_flax.training.checkpoints import Checkpoints
    from resnet_flax.training.devices import replicated

    if (_WORKDIR.value is None) == (_WEIGHTS.value is None):
        raise UserError("give either --workdir=FOLDER of a run or --weights=FILE")
    if _WEIGHTS.value:
        from resnet_flax.interchange import weights

        file = weights.read(Path(_WEIGHTS.value))
        config = weights.config_of(file, _CONFIG.value, set_keys("config"))
    else:
        workdir = Path(_WORKDIR.value)
        config = _config(workdir)
        with Checkpoints(workdir, read_only=True) as checkpoints:
            step = checkpoints.choose(_STEP.value)
    parts = loop.prepare(config)
    images = getattr(parts.dataset, _SPLIT.value)
    if not len(images):
        raise UserError(
            f"--split={_SPLIT.value}: the run set no images aside (data.validation=0); choose test or train"
        )
    if _WEIGHTS.value:
        variables = weights.variables(file, parts)
        print(file.path)
    else:
        variables = trained.Trained(parts, trained.restore(parts, workdir, step)).variables
        print(f"{workdir}: step {step} of {config.train.steps}")
    evaluate = evaluation.make_evaluate(parts.network, parts.normalization, config.train.eval_batch_size, parts.mesh)
    if _REESTIMATE.value:
        from resnet_flax.training.reestimation import make_reestimate

        if not variables.get("batch_stats"):
            raise UserError("--reestimate_bn: the network has no BN (model.norm='none')")
        batch = config.train.bn_group or config.train.batch_size
        reestimate = make_reestimate(parts.network, parts.normalization, batch)
        train = resident.put(parts.dataset.train, replicated(parts.mesh))
        variables = {**variables, "batch_stats": reestimate(variables["params"], train)}
        print(f"BN statistics: averages over {len(parts.dataset.train)} training images, {batch} at a time")
    data = resident.put(images, replicated(parts.mesh))
    result = evaluate(variables["params"], variables.get("batch_stats", {}), data)
    print(f"{_SPLIT.value} {result}")


def set_keys(flag: str) -> set[str]:
    """The keys of a config flag that the command line sets: ``{"data.data_dir"}`` of ``--config.data.data_dir=...``."""
    found = (argument.lstrip("-").partition("=")[0] for argument in sys.argv[1:] if argument.startswith("-"))
    return {name.removeprefix(f"{flag}.") for name in found if name.startswith(f"{flag}.")}


def _config(workdir: Path) -> ConfigDict:
    from resnet_flax.training import workdir as folders

    trained = folders.read_config(workdir)
    if trained is None:
        raise UserError(f"--workdir={workdir}: no run is there (it has no {folders.CONFIG})")
    if _CONFIG.value is None:
        return configs.resolve(trained)
    given = configs.resolve(_CONFIG.value)
    differing = [d for d in configs.differences(trained, given) if d.startswith("model.")]
    if differing:
        raise UserError(f"--workdir={workdir} holds another network than --config names: {'; '.join(differing)}")
    # The optimizer's state is part of a checkpoint, so what trained it says what is in there.
    given.optimizer = trained.optimizer
    if given.data.name == trained.data.name:
        # What set images aside and normalised pixels in training holds here, too; only the place may be another.
        for key in configs.flatten(trained.data):
            if f"data.{key}" not in configs.LOCATIONS:
                given.data[key] = trained.data[key]
    return given


if __name__ == "__main__":
    command.run(main, uses_devices=True)
