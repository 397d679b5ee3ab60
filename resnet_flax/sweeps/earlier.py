"""Keeps the results of earlier commands in an experiment's folder: repeats their arguments, refuses to drop runs."""

import argparse
import contextlib
import os
import re
import shlex
from collections.abc import Sequence

from resnet_flax.errors import UserError
from resnet_flax.paths import expanded
from resnet_flax.reporting import record
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.sweeps.cases import PlannedRun, Request
from resnet_flax.sweeps.plan import identity

_PLACES = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
_PLACES.add_argument("--workdir")
_PLACES.add_argument("--runs")
_PLACES.add_argument("--draw", action="store_true")


def arguments_to_draw(given: Sequence[str], name: str) -> list[str]:
    """Returns the arguments of the folder's latest command, for ``--draw`` without flags that say what to run.

    Args:
      given: The arguments of this command. They are returned unchanged if they hold other flags, or if the folder has
        no record of a command of the same experiment.
      name: The name of the experiment's command.
    """
    try:
        ours, others = _PLACES.parse_known_args(given)
        if not (ours.draw and ours.workdir) or others:
            return list(given)
        _, *words = shlex.split(record.latest_command(expanded(ours.workdir)))
        program, *before = words[1:] if words[0] == "-m" else words
        theirs, _ = _PLACES.parse_known_args(before)
    except (argparse.ArgumentError, ValueError, IndexError):
        return list(given)
    if re.split(r"[./\\]", program.removesuffix(".py"))[-1] != name:
        return list(given)
    moved = [f"--{k}={v}" for k in ("workdir", "runs") if (v := getattr(ours, k)) not in (None, getattr(theirs, k))]
    return [*before, *moved, "--draw"]


def check_kept(runs: Sequence[PlannedRun], request: Request, any_seed: bool) -> None:
    """Refuses to replace the results of finished runs by results without them.

    Args:
      runs: The planned runs.
      request: The request to the experiment.
      any_seed: Whether a run with another of the request's seeds counts as planned, because a second stage may add it.

    Raises:
      UserError: The folder's record or plan holds a finished run that is not planned.
    """
    planned, known = {run.workdir.resolve() for run in runs}, {_key(run, any_seed) for run in runs}
    seeds = {*request.seeds, *(run.config.seed for run in runs)}
    dropped = []
    for path in record.recorded_runs(request.folder):
        with contextlib.suppress(UserError):  # A run that cannot be read has no results to keep.
            directory = RunDirectory(path)
            config = None if path in planned else directory.config()
            if config is not None and directory.is_finished(config):
                kept = config.seed in seeds and _key(PlannedRun(config, path, ""), any_seed) in known
                dropped += [path] * (not kept)
    if dropped:
        command = record.latest_command(request.folder)
        raise UserError(
            f"--workdir={request.folder} holds the results of {len(dropped)} finished run{'s' * (len(dropped) > 1)} "
            f"that this command leaves out, such as {os.path.relpath(dropped[0], request.folder.resolve())}. To keep "
            f"them, give the flags of the earlier command{f' ({command})' * bool(command)}, and add to them. For other "
            f"results, choose another --workdir; --runs={request.runs} shares the runs with it"
        )


def _key(run: PlannedRun, any_seed: bool) -> tuple[object, ...]:
    config = run.config.copy_and_resolve_references()
    if any_seed:
        config.seed = 0
    return identity(config)
