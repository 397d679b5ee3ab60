"""Marks of tests."""

import pytest


def slow(*values):
    """One more case of a kind, for ``make test-all``."""
    return pytest.param(*values, marks=pytest.mark.slow)
