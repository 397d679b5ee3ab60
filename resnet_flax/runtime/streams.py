"""Makes stdout and stderr safe to write to, even if they are closed, full, or a pipe without a reader."""

import errno
import io
import os
import sys
from typing import Any


class ReaderGoneError(Exception):
    """The reader of the command's output pipe has ended."""


class Stream:
    """A standard stream whose writes do not raise; after a failed write, all further output is dropped.

    Attributes:
      failure: The error of the failed write, or None.

    Args:
      stream: The wrapped stream.
      ends_with_reader: Whether to raise :class:`ReaderGoneError` when the reader of a pipe has ended.
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
        """Whether the stream was a pipe whose reader has ended."""
        return self.failure is not None and self.failure.errno == errno.EPIPE

    def _fail(self, error: OSError) -> None:
        self.failure = error
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self._stream.fileno())  # also drops what is still buffered, here or in libraries
        os.close(nowhere)
        if self._ends_with_reader and self.reader_gone:
            raise ReaderGoneError from None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def protect(ends_with_reader: bool = False) -> Stream:
    """Replaces stdout and stderr by :class:`Stream`; returns the one of stdout."""
    for descriptor in range(3):  # the next opened file would get the number of a closed descriptor
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    # Names of classes and files may not be valid UTF-8, or not exist in the terminal's encoding.
    found = {}
    for name in ("stdout", "stderr"):
        before = getattr(sys, name) or open(os.devnull, "w")  # noqa: SIM115 (stays open)
        before.reconfigure(errors="backslashreplace")
        found[name] = Stream(before, ends_with_reader and name == "stdout")
        setattr(sys, name, found[name])
        _replace_in_logging(before, found[name])
    return found["stdout"]


def _replace_in_logging(before: Any, after: Stream) -> None:
    """Replaces the stream in absl's log handler, which keeps the one that it found when it was imported."""
    absl = sys.modules.get("absl.logging")
    handlers = [absl.get_absl_handler().python_handler] if absl else []
    for handler in handlers:
        if handler.stream in (before, None):
            handler.stream = after
