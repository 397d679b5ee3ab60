"""Fixtures that several files use."""

import pytest


@pytest.fixture
def fresh_cache(tmp_path, monkeypatch):
    """The folder of cached data sets of a cache that is empty."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "fresh"))
    return tmp_path / "fresh" / "resnet_flax" / "datasets"
