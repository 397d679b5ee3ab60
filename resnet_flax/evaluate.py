"""Loss and error of a trained network:

python -m resnet_flax.evaluate --workdir=runs/r20 [--split=test] [--step=800]

Of the newest checkpoint, or with --step=best of the one with the least validation error. --config is only needed to
evaluate with other data than the run's own, or to say where it lies: --config=FILE:NAME --config.data.data_dir=...
The last line is such as `test error 8.27% (827 of 10000), loss 0.3012`.
"""

from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from resnet_flax import command
from resnet_flax import config as configs
from resnet_flax.errors import UserError

_CONFIG = config_flags.DEFINE_config_file("config", None, "FILE:UNIT-DEPTH; by default the run's own config.json.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
_SPLIT = flags.DEFINE_enum("split", "test", ("test", "validation", "train"), "Images to evaluate on.")
_STEP = flags.DEFINE_string("step", "latest", "Checkpoint: a step, 'latest', or 'best' (by validation error).")
flags.mark_flag_as_required("workdir")


def main() -> None:
    """Evaluates a checkpoint and prints its loss and error."""
    from resnet_flax.data import resident
    from resnet_flax.training import evaluation, loop, trained
    from resnet_flax.training.checkpoints import Checkpoints
    from resnet_flax.training.devices import replicated

    workdir = Path(_WORKDIR.value)
    config = _config(workdir)
    with Checkpoints(workdir, read_only=True) as checkpoints:
        step = _step(checkpoints, workdir)
    parts = loop.prepare(config)
    images = getattr(parts.dataset, _SPLIT.value)
    if not len(images):
        raise UserError(
            f"--split={_SPLIT.value}: the run set no images aside (data.validation=0); choose test or train"
        )
    restored = trained.restore(parts, workdir, step)
    evaluate = evaluation.make_evaluate(parts.network, parts.normalization, config.train.eval_batch_size, parts.mesh)
    result = evaluate(restored.params, restored.batch_stats, resident.put(images, replicated(parts.mesh)))
    print(f"{workdir}: step {step} of {config.train.steps}")
    print(f"{_SPLIT.value} {result}")


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


def _step(checkpoints: "Checkpoints", workdir: Path) -> int:  # noqa: F821 (imported where it is used)
    there, wanted = checkpoints.steps(), _STEP.value
    if not there:
        raise UserError(f"--workdir={workdir}: the run has no checkpoint yet")
    if wanted == "latest":
        return there[-1]
    if wanted == "best":
        best = checkpoints.best_step()
        if best is None:
            raise UserError("--step=best: the run has no validation split (data.validation=0) to choose by")
        return best
    if not wanted.isdecimal() or int(wanted) not in there:
        raise UserError(f"--step={wanted}: choose 'latest', 'best', or one of {', '.join(map(str, there))}")
    return int(wanted)


if __name__ == "__main__":
    command.run(main, uses_devices=True)
