"""A run's folder: who may write there, which run it holds, and on what it was run."""

import contextlib
import datetime
import errno
import functools
import os
import platform
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from ml_collections import ConfigDict

from resnet_flax import config as configs
from resnet_flax import json_lines, processor, sums
from resnet_flax.atomic import write_atomically
from resnet_flax.errors import Busy, UserError
from resnet_flax.run_files import CONFIG, DIVERGED, INTERRUPTED, STARTS, RunFiles

__all__ = ["CONFIG", "DIVERGED", "INTERRUPTED", "STARTS", "write_atomically"]

# How runs are trained, as far as it matters to their results: :mod:`~.rules` says which old runs are of another kind.
# 1: commit 4cfe0ac and before, which recorded no rules.
RULES = 3

_LOCK = ".lock"
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextlib.contextmanager
def locked(workdir: Path) -> Iterator[None]:
    """Holds the run's folder for this process; another one is refused. The lock ends with the process."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--workdir={workdir}: cannot be made: {error.strerror}") from None
    lock = FileLock(workdir / _LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise Busy(f"--workdir={workdir}: another process is running there; wait for it, or choose another") from None
    except OSError as error:
        raise UserError(f"--workdir={workdir}: cannot be written: {error.strerror}") from None
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def room_for(workdir: Path) -> Iterator[None]:
    """Says in one line that a file of the run could not be written, or read."""
    try:
        yield
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise UserError(
                f"{error.filename or workdir}: cannot be written: {error.strerror}. What was saved before stays; with "
                f"room there, the same command goes on"
            ) from None
        if not error.filename or workdir.absolute() not in Path(str(error.filename)).absolute().parents:
            raise
        raise UserError(
            f"{error.filename}: cannot be used: {error.strerror}. What was saved before stays; with that mended, the "
            f"same command goes on"
        ) from None


def wait_until_free(workdir: Path, seconds: float, give_up: Callable[[], bool]) -> bool:
    """Waits, at most so long, for a process that holds the run's folder and is about to end, such as on a lost node.

    Args:
      workdir: of the run; it is there.
      seconds: after which it gives up; -1 for never.
      give_up: asked while waiting; True ends it.

    Returns:
      whether it is free.
    """
    with contextlib.suppress(Timeout), FileLock(workdir / _LOCK).acquire(timeout=seconds, cancel_check=give_up):
        return True
    return False


def check_config(workdir: Path, config: ConfigDict) -> None:
    """Refuses a folder that holds a run of another config, and says in which keys they differ."""
    RunFiles(workdir).check()
    there = read_config(workdir)
    if there is None:
        return
    differing = configs.differences(there, config)
    if differing:
        raise UserError(
            f"--workdir={workdir} holds a run of another config; choose another folder, or the same config "
            f"(train.steps may grow). They differ in {'; '.join(differing)}{_hint(workdir, there, config, differing)}"
        )


def _hint(workdir: Path, there: ConfigDict, config: ConfigDict, differing: Sequence[str]) -> str:
    """How to resume a run whose config differs in nothing but values that follow from others."""
    keys = {text.partition(":")[0] for text in differing}
    schedule = {"schedule.decay_steps", "schedule.milestones"}
    if there.train.steps < config.train.steps and keys <= schedule:
        old = configs.flatten(there)
        return (
            f". A schedule that follows train.steps is another one when these grow; to resume with the old one (a "
            f"rate of 0 where a cosine has ended), set {', '.join(f'{key}={old[key]}' for key in sorted(keys))}"
        )
    starts = RunFiles(workdir).starts()
    if starts and rules_in(starts) < RULES and keys <= configs.DERIVED:
        return (
            f". It was begun under an old rule: values that a config file derives did not follow the keys that were "
            f"set; --config=configs/from_json.py:{workdir / CONFIG} resumes it as it was begun"
        )
    return ""


def read_config(workdir: Path) -> ConfigDict | None:
    """The config of the run that the folder holds, or None.

    Raises:
      UserError: it is damaged; it names the file.
    """
    return RunFiles(workdir).config()


def write_config(workdir: Path, config: ConfigDict) -> None:
    """Writes config.json, whole or not at all, where it does not hold the same."""
    path, text = workdir / CONFIG, configs.to_json(config)
    if not path.is_file() or path.read_text() != text:
        sums.write(path, text)


def is_finished(workdir: Path, config: ConfigDict) -> bool:
    """Whether the folder holds this very run, to its last step."""
    # Imported here: who only reads or writes a folder's files (the report) does not wait for jax and orbax.
    from resnet_flax.training.checkpoints import has_checkpoint

    there = read_config(workdir)
    if there is None or configs.differences(there, config) or there.train.steps != config.train.steps:
        return False
    try:
        lines = RunFiles(workdir).mended()[0]
    except UserError:  # a resume says what is wrong with them
        return False
    return bool(lines) and lines[-1]["step"] >= config.train.steps and has_checkpoint(workdir, config.train.steps)


def record_start(workdir: Path, step: int, parameters: int, classes: int, data: str = "") -> list[str]:
    """Adds a line to starts.jsonl: when, at which step, the run's rules, the network's size, versions, device.

    Args:
      data: what is to be known of the images, such as which were set aside for testing.

    Returns:
      What a run that goes on does not go on with, a text each: the same bits are promised with all of it the same.
    """
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    here = environment()
    starts = RunFiles(workdir).starts() if step else []
    rules = rules_in(starts) if step else RULES
    line = {"time": now, "step": step, "rules": rules, "parameters": parameters, "classes": classes, **here}
    line |= {"data": data} if data else {}
    before = starts[-1:]
    json_lines.append(workdir / STARTS, line)
    sums.note(workdir / STARTS, (workdir / STARTS).read_bytes())
    sums.remove(workdir / INTERRUPTED)
    # Not where an earlier version of this code wrote no such thing.
    return [f"{key} {there[key]}, now {value}" for there in before for key, value in here.items()
            if key in there and key not in ("python", "orbax-checkpoint") and there[key] != value]  # fmt: skip


def rules_of(workdir: Path) -> int:
    """The rules under which a folder's run was begun: 1 where none are recorded.

    Raises:
      UserError: its starts.jsonl is damaged.
    """
    return rules_in(RunFiles(workdir).starts())


def rules_in(starts: Sequence[Mapping[str, Any]]) -> int:
    """The rules under which a run with these lines of starts.jsonl was begun."""
    rules = starts[-1].get("rules", 1) if starts else 1
    return rules if type(rules) is int else 1


@functools.cache
def environment() -> dict[str, Any]:
    """Returns versions, commit, devices, cores and precision: all that a result depends on beside its config."""
    import jax

    from resnet_flax.networks.cpu_convolution import CHUNK_ELEMENTS

    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        "python": platform.python_version(),
        **{name: metadata.version(name) for name in packages},
        "commit": _commit(),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "cores": os.cpu_count(),
        "processor": processor.name(),
        "convolution_chunk": CHUNK_ELEMENTS,
        "matmul_precision": jax.config.jax_default_matmul_precision or "default",
    }


def _commit() -> str | None:
    here = Path(__file__).resolve().parent
    try:
        git = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"]
        return subprocess.run(git, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None  # not a checkout, or no git
