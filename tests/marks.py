"""Marks of tests."""

from importlib import metadata

import pytest


def slow(*values):
    """One more case of a kind, for ``make test-all``."""
    return pytest.param(*values, marks=pytest.mark.slow)


# For what jaxlib 0.10 has not inside.
with_onednn = pytest.mark.skipif(metadata.version("jaxlib") < "0.12", reason="this jaxlib has no oneDNN inside")
