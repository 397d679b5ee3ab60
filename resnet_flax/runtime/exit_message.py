"""Prints a message on stderr if this process is killed, or aborted by a library."""

import subprocess
import sys

_PROGRAM = "import sys\nif sys.stdin.read() != 'done': print(sys.argv[1], file=sys.stderr)"

_helper: subprocess.Popen | None = None


def register(text: str) -> None:
    """Has a line printed if this process ends before :func:`cancel` is called; replaces an earlier line.

    jax calls ``abort`` when the process with the coordination service is gone, and no Python code runs after that. So a
    helper process waits until its stdin closes, and prints the line.
    """
    global _helper
    cancel()
    # In a session of its own, so that a Ctrl-C on the terminal does not end it.
    command = [sys.executable, "-I", "-S", "-c", _PROGRAM, text]
    _helper = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True
    )


def cancel() -> None:
    """Cancels the message, for a process that ends normally or prints its own."""
    global _helper
    if _helper is not None:
        _helper.communicate("done")
        _helper = None
