"""Which images a run was begun on, so that it goes on with these alone."""

import json
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax import sums
from resnet_flax.data.datasets import Data
from resnet_flax.data.pixels import Normalization
from resnet_flax.data.prepared import TESTED
from resnet_flax.data.preprocessing import Preprocessing
from resnet_flax.errors import UserError
from resnet_flax.run_files import PHOTOGRAPHS, PREPROCESSING, RunFiles
from resnet_flax.training.checkpoints import has_checkpoint
from resnet_flax.training.parts import Parts
from resnet_flax.training.workdir import is_finished, read_config, rules_of


def check(workdir: Path, parts: Parts) -> None:
    """Refuses to go on with a run on other images than it was begun on; see the two functions below."""
    check_preprocessing(workdir, parts.preprocessing)
    _check_test(workdir, parts)
    check_photographs(workdir, parts.dataset)


def write(workdir: Path, parts: Parts) -> None:
    """Writes what :func:`check` compares with, where it is not there yet."""
    write_preprocessing(workdir, parts.preprocessing)
    write_photographs(workdir, parts.dataset)


def check_preprocessing(workdir: Path, preprocessing: Preprocessing) -> None:
    """Refuses to go on with a run on other classes, or on images that are prepared otherwise, than it was begun on.

    The config may be the same: another folder may lie at ``data.folder``, or the same one elsewhere.
    """
    there = _read_preprocessing(workdir) if read_config(workdir) is not None else None
    differing = [] if there is None else there.differences(preprocessing)
    if differing:
        raise UserError(
            f"--workdir={workdir} holds a run on other images; choose another folder, or its images. They differ in "
            f"{'; '.join(differing)}"
        )


def _check_test(workdir: Path, parts: Parts) -> None:
    """Refuses to resume a run of old rules that was tested on images without labels, and would be on others now."""
    changed = parts.dataset.note.startswith(TESTED) and rules_of(workdir) < 2
    if changed and has_checkpoint(workdir) and not is_finished(workdir, parts.config):
        raise UserError(
            f"--workdir={workdir} holds a run that cannot be resumed: it was begun under an old rule: its test images "
            f"have no labels, and now it would be {parts.dataset.note}. It can still be evaluated and exported; to "
            f"train anew, choose another folder"
        )


def check_photographs(workdir: Path, dataset: Data) -> None:
    """Refuses to go on with a stream of other photographs, or in another order, than the run was begun on."""
    there, now = RunFiles(workdir).photographs(), _described(dataset)
    if read_config(workdir) is None or there is None or now["fingerprint"] is None:
        return
    if there["fingerprint"] != now["fingerprint"]:
        raise UserError(
            f"--workdir={workdir}: its photographs are not those it was begun on, or come in another order: "
            f"{there['train']} + {there['test']} ({there['where']}) there, {now['train']} + {now['test']} "
            f"({now['where']}) now; choose another folder, or the same photographs"
        )


def write_photographs(workdir: Path, dataset: Data) -> None:
    """Writes photographs.json, where it is not there yet: see :func:`check_photographs`."""
    if dataset.fingerprint() is not None and not (workdir / PHOTOGRAPHS).is_file():
        sums.write(workdir / PHOTOGRAPHS, json.dumps(_described(dataset)) + "\n")


def _described(dataset: Data) -> dict[str, Any]:
    return {
        "fingerprint": dataset.fingerprint(), "where": dataset.where, "train": len(dataset.train),
        "test": len(dataset.test),
    }  # fmt: skip


def known_normalization(workdir: Path, config: ConfigDict) -> Normalization | None:
    """That of the same run, started in the folder before: what it is a statistic of is not read again."""
    there = read_config(workdir)
    if there is None or configs.differences(there, config):
        return None
    preprocessing = _read_preprocessing(workdir)
    return None if preprocessing is None else preprocessing.normalization


def _read_preprocessing(workdir: Path) -> Preprocessing | None:
    """Reads preprocessing.json; None if it is missing, or damaged and without a sum, and is to be written anew."""
    text = RunFiles(workdir).preprocessing()
    try:
        return None if text is None else Preprocessing.from_json(text)
    except ValueError:
        return None


def write_preprocessing(workdir: Path, preprocessing: Preprocessing) -> None:
    """Writes preprocessing.json, whole or not at all, where it is not there yet: see :func:`check_preprocessing`."""
    if _read_preprocessing(workdir) is None:
        sums.write(workdir / PREPROCESSING, preprocessing.to_json())
