"""Keeps libraries from printing what this project says in a line, and from importing what nobody needs."""

import contextlib
import sys
from collections.abc import Iterator

from absl import logging


def quieten_orbax() -> None:
    """Hides the tracebacks that orbax and TensorStore print of errors that are raised as well."""
    # What made a thread of orbax fail: saving and waiting raise the same.
    logging.get_absl_logger().addFilter(lambda record: not (record.exc_info and "orbax" in record.pathname))
    # Of reads and writes that are given up when one fails, TensorStore's threads print a traceback each.
    before = sys.unraisablehook
    sys.unraisablehook = lambda what: str(what.exc_value) == "Event loop is closed" or before(what)


@contextlib.contextmanager
def errors_only() -> Iterator[None]:
    """Hides absl's warnings, such as those in which orbax says that a folder opened for reading is not written to."""
    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        logging.set_verbosity(before)


@contextlib.contextmanager
def without_torch() -> Iterator[None]:
    """Hides PyTorch from what is imported meanwhile; libraries would import it, in seconds, where it is installed."""
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]  # what refuses the import of a name
    try:
        yield
    finally:
        if hidden:
            del sys.modules["torch"]
