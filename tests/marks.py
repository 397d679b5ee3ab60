"""Pytest marks that several files use."""

from importlib import metadata

import pytest


def slow(*values):
    """Marks a parametrised case as slow, so that only ``make test-all`` runs it."""
    return pytest.param(*values, marks=pytest.mark.slow)


with_onednn = pytest.mark.skipif(metadata.version("jaxlib") < "0.12", reason="this jaxlib is built without oneDNN")
