"""Refuses to resume a run that is another one: of another config, on other images, or begun under old rules."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax.errors import UserError
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.runs.file_names import CONFIG
from resnet_flax.runs.rules import RULES, refusals, rules_in

if TYPE_CHECKING:  # it brings jax with it
    from resnet_flax.data.preprocessing import Preprocessing


def check_config(run: RunDirectory, config: ConfigDict) -> None:
    """Refuses a folder that holds a run of another config, and says in which keys they differ."""
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
    """How to resume a run whose config differs in nothing but values that follow from others."""
    keys = {text.partition(":")[0] for text in differing}
    schedule = {"schedule.decay_steps", "schedule.milestones"}
    if there.train.steps < config.train.steps and keys <= schedule:
        old = configs.flatten(there)
        return (
            f". A schedule that follows train.steps is another one when these grow; to resume with the old one (a "
            f"rate of 0 where a cosine has ended), set {', '.join(f'{key}={old[key]}' for key in sorted(keys))}"
        )
    starts = run.starts()
    if starts and rules_in(starts) < RULES and keys <= configs.DERIVED:
        return (
            f". It was begun under an old rule: values that a config file derives did not follow the keys that were "
            f"set; --config=configs/from_json.py:{run.path / CONFIG} resumes it as it was begun"
        )
    return ""


def check_rules(run: RunDirectory, config: ConfigDict) -> None:
    """Refuses a run that was begun under an old rule; one without a checkpoint is new, one finished is done.

    Args:
      config: resolved; it equals the folder's, but for keys that do not matter (:func:`check_config`).
    """
    _refuse_old(run, config, "; ".join(refusals(config, run.rules())))


def check_images(run: RunDirectory, preprocessing: "Preprocessing", photographs: dict[str, Any] | None) -> None:
    """Refuses other images or classes than the run was begun on, and photographs in another order.

    The config may be the same: another folder may lie at ``data.folder``, or the same one elsewhere.

    Args:
      photographs: of a stream, as :meth:`RunDirectory.photographs` returns them.
    """
    if run.config() is None:
        return
    there = run.readable_preprocessing()
    if there is not None and (differing := there.differences(preprocessing)):
        raise UserError(
            f"--workdir={run.path} holds a run on other images; choose another folder, or its images. They differ in "
            f"{'; '.join(differing)}"
        )
    known, now = run.photographs(), photographs
    if known is not None and now is not None and known["fingerprint"] != now["fingerprint"]:
        raise UserError(
            f"--workdir={run.path}: its photographs are not those it was begun on, or come in another order: "
            f"{known['train']} + {known['test']} ({known['where']}) there, {now['train']} + {now['test']} "
            f"({now['where']}) now; choose another folder, or the same photographs"
        )


def check_tested(run: RunDirectory, config: ConfigDict, now: str) -> None:
    """Refuses a run of old rules whose test images have no labels.

    Args:
      now: on which images it would be tested today.
    """
    if run.rules() < 2:
        _refuse_old(run, config, f"its test images have no labels, and now it would be {now}")


def _refuse_old(run: RunDirectory, config: ConfigDict, reason: str) -> None:
    if reason and run.has_checkpoint() and not run.is_finished(config):
        raise UserError(
            f"--workdir={run.path} holds a run that cannot be resumed: it was begun under an old rule: {reason}. It "
            f"can still be evaluated and exported; to train anew, choose another folder"
        )
