"""The names of the files and folders in a run directory. No other module knows them."""

from collections.abc import Collection

CONFIG = "config.json"  # complete, enough to run it again
METRICS = "metrics.jsonl"  # a line each time the run logs
STARTS = "starts.jsonl"  # each start: when, at which step, on what
DIVERGED = "diverged.json"  # the step whose loss was not finite
INTERRUPTED = "interrupted.json"  # the step at which a signal ended it; gone once it resumes
PREPROCESSING = "preprocessing.json"  # how images are brought to what the network sees, and the classes
PHOTOGRAPHS = "photographs.json"  # of a stream: which photographs, so that it resumes with these alone
BROKEN = "broken_images.jsonl"  # images that could not be read and were passed over
CRASH = "crash.txt"  # why a run of an experiment ended in an error of the program or the machine
WORKER_LOG = "run.log"  # what the workers of a cluster printed
CHECKPOINTS = "checkpoints"  # a folder; its folders are named by the step
DAMAGED = "damaged_checkpoints"  # beside it: those that could not be read
RECORD = "record"  # in a checkpoint: the sums of its arrays, and the metrics up to its step
TRACKER_ID = "tracker_id"  # what trackers that keep a run elsewhere know it by
LOCK = ".lock"


def broken_name(process: int) -> str:
    """Returns the name of the file in which a process lists the images that it passed over."""
    return BROKEN if not process else BROKEN.replace(".", f"-{process}.", 1)


def holds_run(names: Collection[str]) -> bool:
    """Whether a folder with files of these names is, or was, a run's."""
    return not {CONFIG, METRICS, STARTS}.isdisjoint(names)
