"""Runs all experiments on one config, one after the other with shared runs, and writes the report.

python -m experiments.all --workdir=runs/all [--config=configs/digits.py] [--seeds=0] [--only=claims,cost] [--dry-run]

Each experiment is a command of its own, which is printed before it starts. Finished runs are skipped, so the same
command resumes after a stop. If an experiment fails, the others still run, and the exit code tells of it at the end.
"""

import shlex
import signal
import subprocess
import sys

from absl import flags

from resnet_flax import command
from resnet_flax.errors import Diverged, Failed, Interrupted, UserError
from resnet_flax.reporting import report
from resnet_flax.sweeps import options
from resnet_flax.sweeps.cases import Request
from resnet_flax.sweeps.shipped import ALL

# This command's own flags, with and without a value; each experiment gets all others.
_WITH_VALUE, _SWITCHES = ("only", "workdir", "runs"), ("dry-run", "draw")


def main() -> None:
    """Runs the experiments, then writes report.html and report.md into the workdir."""
    request, only = options.request_from_flags({}), flags.FLAGS.only
    folder = request.folder
    unknown = [name for name in only if name not in ALL]
    if unknown:
        raise UserError(f"--only={','.join(unknown)} is not known; choose from {', '.join(ALL)}")
    codes: dict[str, int] = {}
    for i, name in enumerate(only, start=1):
        arguments = _arguments(name, request)
        print(f"experiment {i} of {len(only)}: python {shlex.join(arguments)}", file=sys.stderr, flush=True)
        codes[name] = _run([sys.executable, *arguments])
        if codes[name] in (UserError.exit_code, Interrupted.exit_code):
            kind = UserError if codes[name] == UserError.exit_code else Interrupted
            raise kind(f"{name} stopped; the same command resumes from there")
    if request.dry_run:
        return
    for path in report.write(folder, folder):
        print(f"report: {path}")
    failed = {name: code for name, code in codes.items() if code}
    if failed:
        failure = Diverged if set(failed.values()) == {Diverged.exit_code} else Failed
        listed = ", ".join(f"{name} (exit code {code})" for name, code in failed.items())
        raise failure(f"not every run finished in {listed}")


def _arguments(name: str, request: Request) -> list[str]:
    """Returns the command of one experiment: the flags of this command without --only, and a workdir of its own."""
    given, is_value = [], False
    for argument in sys.argv[1:]:
        flag, equals, _ = argument.lstrip("-").partition("=")
        own = argument.startswith("-") and flag in (*_WITH_VALUE, *_SWITCHES)
        given += [argument] * (not own and not is_value)
        is_value = own and flag in _WITH_VALUE and not equals
    given += ["--dry-run"] * request.dry_run + ["--draw"] * request.draw
    return ["-m", "resnet_flax", name, *given, f"--workdir={request.folder / name}", f"--runs={request.runs}"]


def _run(arguments: list[str]) -> int:
    """Runs a command and returns its exit code. SIGINT and SIGTERM are left to the child process."""
    process = subprocess.Popen(arguments)
    forwarded = {s: signal.signal(s, lambda number, _: process.send_signal(number)) for s in (signal.SIGTERM,)}
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)  # The terminal sends it to the child as well.
    try:
        return process.wait()
    finally:
        signal.signal(signal.SIGINT, previous)
        for number, handler in forwarded.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    flags.DEFINE_list("only", list(ALL), "Experiments to run.")
    options.define("configs/digits.py", (0,), {})
    command.run(main)
