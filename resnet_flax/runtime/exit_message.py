"""A line on stderr for the case that this process ends without one: killed, or aborted by a library."""

import subprocess
import sys

_SPEAK = "import sys\nif sys.stdin.read() != 'done': print(sys.argv[1], file=sys.stderr)"

_speaker: subprocess.Popen | None = None


def leave(text: str) -> None:
    """Has that line printed if this process ends before :func:`cancel`.

    jax ends a process by ``abort`` where the one that holds the coordination service is gone, which no Python code
    sees; so another process waits for the end of a pipe.
    """
    global _speaker
    cancel()
    # In a session of its own: a signal to all of a terminal's processes is not for it.
    command = [sys.executable, "-I", "-S", "-c", _SPEAK, text]
    _speaker = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, start_new_session=True
    )


def cancel() -> None:
    """Cancels the message: this process ends by itself, and says why."""
    global _speaker
    if _speaker is not None:
        _speaker.communicate("done")
        _speaker = None
