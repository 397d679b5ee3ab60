"""Exceptions that end a command early, and the commands' exit codes."""

DONE, FAILED, USER_MISTAKE, INTERRUPTED, DIVERGED = 0, 1, 2, 3, 4


class UserError(ValueError):
    """A mistake of the user. The message is one line: what was given, where, and what would fit."""

    exit_code = USER_MISTAKE


class UnknownName(UserError):
    """A config names something that is not registered; a module of the user's that has not run yet may define it."""


class Busy(UserError):
    """Another process holds the lock of the run directory."""


class Interrupted(Exception):
    """A signal stopped the run. It is saved, and the same command resumes it."""

    exit_code = INTERRUPTED


class Diverged(Exception):
    """The loss or a parameter is no longer finite."""

    exit_code = DIVERGED


class Failed(Exception):
    """Part of the work failed with an error of the program or the machine. The rest is done."""

    exit_code = FAILED


def first_line(error: BaseException) -> str:
    """Returns the first line of an error's message, which may be pages long, or its type if it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
