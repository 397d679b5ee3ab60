"""Checks that a run can be resumed: it must have the same config, images and training rules."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax.errors import UserError
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.runs.file_names import CONFIG, EXPERIMENT, PLAN
from resnet_flax.runs.rules import RULES, refusals, rules_in

if TYPE_CHECKING:  # the module imports jax
    from resnet_flax.data.preprocessing import Preprocessing


def check_config(run: RunDirectory, config: ConfigDict) -> None:
    """Refuses a folder that holds an experiment, or a run of another config, and names the keys that differ."""
    if any((run.path / name).is_file() for name in (EXPERIMENT, PLAN)):
        raise UserError(f"--workdir={run.path} is the folder of an experiment; choose another one for a single run")
    run.check()
    there = run.config()
    if there is None:
        return
    differing = configs.differences(there, config)
    if differing:
        raise UserError(
            f"--workdir={run.path} holds a run of another config; choose another folder, or the same config "
            f"(train.steps may grow). They differ in {'; '.join(differing)}{_hint(run, there, config, differing)}"
        )


def _hint(run: RunDirectory, there: ConfigDict, config: ConfigDict, differing: Sequence[str]) -> str:
    """Says how to resume a run if only derived keys differ; otherwise returns an empty text."""
    keys = {text.partition(":")[0] for text in differing}
    schedule = {"schedule.decay_steps", "schedule.milestones"}
    if there.train.steps < config.train.steps and keys <= schedule:
        old = configs.flatten(there)
        return (
            f". The schedule is derived from train.steps, so more steps change it; to resume with the old one (at a "
            f"rate of 0 once a cosine has ended), set {', '.join(f'{key}={old[key]}' for key in sorted(keys))}"
        )
    starts = run.starts()
    if starts and rules_in(starts) < RULES and keys <= configs.DERIVED:
        return (
            f". It was begun under an old rule: values that a config file derives did not follow the keys that were "
            f"set; --config=configs/from_json.py:{run.path / CONFIG} resumes it with its own config"
        )
    return ""


def remarks(run: RunDirectory, config: ConfigDict) -> list[str]:
    """Returns a line on each file, or entry of a notebook, of the user's own that has changed since a start of the run.

    A run without the record of its files, as of an earlier version, gives no line.

    Args:
      config: The resolved config, which must have passed :func:`check_config`.
    """
    now = configs.checksums(config)
    if not now:
        return []
    starts = run.starts()
    begun = max((i for i, start in enumerate(starts) if start["step"] == 0), default=0)  # a restart forgets the others
    changed: dict[str, int] = {}
    for start in reversed(starts[begun:]):
        there = start.get("own_code", {})
        changed |= {name: start["step"] for name, digest in now.items() if there.get(name, digest) != digest}
    files = configs.own_files(configs.flatten(config))
    notebook = "{}, defined in a notebook,"
    where = {str(files.get(name) or notebook.format(name)): step for name, step in changed.items()}
    return [
        f"{run.path}: {code} has changed since the start at step {step}; unless only comments did, this run's results "
        f"are not those of the code as it is now: to have them, choose a new run directory"
        for code, step in where.items()
    ]


def remarks_on_finished(run: RunDirectory, config: ConfigDict) -> list[str]:
    """Returns the lines of :func:`remarks`, and one on metrics that the config names and the run did not measure."""
    measured = set(configs.names_in(run.existing_config().train.metrics))
    missing = [name for name in configs.names_in(config.train.metrics) if name not in measured]
    lacks = (
        f"{run.path}: its metrics.jsonl lacks {', '.join(missing)}, which train.metrics did not name while the run "
        f"trained; evaluate measures per-example metrics"
    )
    return remarks(run, config) + [lacks] * bool(missing)


def check_rules(run: RunDirectory, config: ConfigDict) -> None:
    """Refuses an unfinished run with a checkpoint that was begun under old training rules.

    Args:
      config: The resolved config, which must have passed :func:`check_config`.
    """
    _refuse_old(run, config, "; ".join(refusals(config, run.rules())))


def check_images(run: RunDirectory, preprocessing: "Preprocessing", photographs: dict[str, Any] | None) -> None:
    """Refuses other images or classes than the run was begun on, and images in another order.

    The config alone does not show this: the content of ``data.folder`` may have changed, and a data set by name has
    another order in another form.

    Args:
      photographs: The description of the images, as :meth:`RunDirectory.photographs` returns it; None does not
        compare their order.
    """
    if run.config() is None:
        return
    there = run.preprocessing(damaged_as_none=True)
    if there is not None and (differing := there.differences(preprocessing)):
        raise UserError(
            f"--workdir={run.path} holds a run on other images; choose another folder, or its images. They differ in "
            f"{'; '.join(differing)}"
        )
    known = run.photographs()
    if known is None or photographs is None:
        return
    if changed := changed_photographs(known, photographs):
        noun = photographs["form"].split()[0]
        raise UserError(
            f"--workdir={run.path}: its {noun} are not those it was begun on, or come in another order: "
            f"{changed}; choose another folder, or the same {noun}"
        )


def changed_photographs(then: dict[str, Any], now: dict[str, Any]) -> str:
    """Returns the numbers and places of both if a run was begun on other images; otherwise an empty text.

    Images in another form, such as on disk instead of in memory, are not compared.
    """
    if then.get("form", "photographs") != now["form"] or then["fingerprint"] == now["fingerprint"]:
        return ""
    text = "{train} + {test} ({where})"
    return f"{text.format(**then)} then, {text.format(**now)} now"


def check_tested(run: RunDirectory, config: ConfigDict, now: str) -> None:
    """Refuses a run of the first rules whose test images have no labels.

    Args:
      now: A clause that says on which images it would be tested today.
    """
    if run.rules() < 2:
        _refuse_old(run, config, f"its test images have no labels, and now it would be {now}")


def _refuse_old(run: RunDirectory, config: ConfigDict, reason: str) -> None:
    if reason and run.steps() and not run.is_finished(config):
        raise UserError(
            f"--workdir={run.path} holds a run that cannot be resumed: it was begun under an old rule: {reason}. It "
            f"can still be evaluated and exported; to train it again, choose another folder"
        )
