"""The ways a command ends before its work is done, and their exit codes."""

DONE, FAILED, USER_MISTAKE, INTERRUPTED, DIVERGED = 0, 1, 2, 3, 4


class UserError(ValueError):
    """The user's mistake: one line that names what was given, what would fit, and where."""

    exit_code = USER_MISTAKE


class UnknownName(UserError):
    """A config names something that is not registered; a file of the user's own, not run yet, may define it."""


class Busy(UserError):
    """Another process holds the run's folder."""


class Interrupted(Exception):
    """Stopped by a signal, saved, and resumable with the same command."""

    exit_code = INTERRUPTED


class Diverged(Exception):
    """The loss, or a parameter, is not finite any more."""

    exit_code = DIVERGED


class Failed(Exception):
    """Part of the work ended in an error of the program or the machine; the rest is done."""

    exit_code = FAILED
