"""The names of the files and folders in a run directory, which are defined only here."""

import os
from collections.abc import Collection
from pathlib import Path

CONFIG = "config.json"  # the complete config, enough to repeat the run
METRICS = "metrics.jsonl"  # a line each time the run logs
STARTS = "starts.jsonl"  # a line for each start: the time, the step, the environment
DIVERGED = "diverged.json"  # the step at which the loss was not finite; deleted when the run starts again
INTERRUPTED = "interrupted.json"  # the step at which a signal stopped the run; deleted when it resumes
PREPROCESSING = "preprocessing.json"  # the preprocessing of images, and the classes
PHOTOGRAPHS = "photographs.json"  # which images a run was begun on; it resumes only with the same ones
BROKEN = "broken_images.jsonl"  # unreadable images that were skipped
CRASH = "crash.txt"  # the error that ended a run of an experiment; deleted when the run starts again
WORKER_LOG = "run.log"  # the output of a cluster's workers
CHECKPOINTS = "checkpoints"  # a folder with a subfolder for each step
DAMAGED = "damaged_checkpoints"  # a folder for checkpoints that could not be read
RECORD = "record"  # a folder in a checkpoint: checksums of its arrays, and the metrics up to its step
EXPERIMENT, PLAN = "experiment.json", "plan.json"  # of an experiment's folder, which is no run directory
TRACKER_ID = "tracker_id"  # the run's id at a tracker
LOCK = ".lock"

_OF_A_RUN = (CONFIG, METRICS, STARTS)


def broken_name(process: int) -> str:
    """Returns the name of the file in which a process lists the images that it skipped."""
    return BROKEN if not process else BROKEN.replace(".", f"-{process}.", 1)


def holds_run(names: Collection[str]) -> bool:
    """Whether a folder with files of these names is, or was, a run directory."""
    return not set(_OF_A_RUN).isdisjoint(names)


def is_run(folder: Path) -> bool:
    """Whether a folder is, or was, a run directory; False if it does not exist."""
    return any(os.path.lexists(folder / name) for name in _OF_A_RUN)
