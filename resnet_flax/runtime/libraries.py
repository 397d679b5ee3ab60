"""Suppresses output of libraries that repeats our own messages, and their slow imports."""

import contextlib
import sys
from collections.abc import Iterator

from absl import logging


def quieten_orbax() -> None:
    """Hides tracebacks that orbax and TensorStore print for errors that they also raise, and a remark of orbax's."""
    # An error in a thread of orbax is raised again by save or wait.
    logging.get_absl_logger().addFilter(lambda record: not (record.exc_info and "orbax" in record.pathname))
    # Orbax deletes the incomplete checkpoint of a killed process. The line "resuming at step" says what the user needs.
    logging.get_absl_logger().addFilter(lambda record: "Attempted to create temporary directory" not in str(record.msg))
    # When a read or write fails, TensorStore cancels the others, and each of their threads prints a traceback.
    before = sys.unraisablehook
    sys.unraisablehook = lambda what: str(what.exc_value) == "Event loop is closed" or before(what)


@contextlib.contextmanager
def errors_only() -> Iterator[None]:
    """Hides absl's warnings, such as orbax's note that a folder opened for reading is not written to."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


@contextlib.contextmanager
def without_torch() -> Iterator[None]:
    """Keeps libraries from importing PyTorch if it is installed, which would take seconds."""
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]  # None makes the import fail
    try:
        yield
    finally:
        if hidden:
            del sys.modules["torch"]
