"""Standard output and standard error, which may be closed, full, or a pipe whose reader has gone."""

import errno
import io
import os
import sys
from typing import Any


class ReaderGoneError(Exception):
    """Nobody reads a command's output any more."""


class Stream:
    """A standard stream whose writes do not fail: after the first that does, what is written is dropped.

    Attributes:
      failure: why, or None.

    Args:
      stream: the one that it stands for.
      ends_with_reader: whether a reader that has gone raises :class:`ReaderGoneError`.
    """

    def __init__(self, stream: io.TextIOWrapper, ends_with_reader: bool = False) -> None:
        self._stream, self._ends_with_reader = stream, ends_with_reader
        self.failure: OSError | None = None

    def write(self, text: str) -> int:
        try:
            self._stream.write(text)
        except OSError as error:
            self._fail(error)
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._fail(error)

    @property
    def reader_gone(self) -> bool:
        """True where the stream was a pipe whose reader has ended."""
        return self.failure is not None and self.failure.errno == errno.EPIPE

    def _fail(self, error: OSError) -> None:
        self.failure = error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())  # what is still in buffers, here or in libraries, goes there
        os.close(nowhere)
        if self._ends_with_reader and self.reader_gone:
            raise ReaderGoneError from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def protect(ends_with_reader: bool = False) -> Stream:
    """Puts a :class:`Stream` in place of both; returns that of standard output."""
    for descriptor in range(3):  # a closed one would be given to the next file that is opened
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    # A class or a file may have a name that is not UTF-8, or that the terminal's encoding lacks.
    found = {}
    for name in ("stdout", "stderr"):
        before = getattr(sys, name) or open(os.devnull, "w")  # noqa: SIM115 (to the end)
        before.reconfigure(errors="backslashreplace")
        found[name] = Stream(before, ends_with_reader and name == "stdout")
        setattr(sys, name, found[name])
        _replace_in_logging(before, found[name])
    return found["stdout"]


def _replace_in_logging(before: Any, after: Stream) -> None:
    """The handlers of absl and of Python keep the stream that they found when they were imported."""
    absl = sys.modules.get("absl.logging")
    handlers = [absl.get_absl_handler().python_handler] if absl else []
    for handler in handlers:
        if handler.stream in (before, None):
            handler.stream = after
