"""The ways a command ends before its work is done, and their exit codes."""

DONE, USER_MISTAKE, INTERRUPTED, DIVERGED = 0, 2, 3, 4


class UserError(ValueError):
    """The user's mistake: one line that names what was given, what would fit, and where."""

    exit_code = USER_MISTAKE


class Interrupted(Exception):
    """Stopped by a signal, saved, and resumable with the same command."""

    exit_code = INTERRUPTED


class Diverged(Exception):
    """The loss, or a parameter, is not finite any more."""

    exit_code = DIVERGED
