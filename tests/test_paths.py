"""Paths that users give: the home folder, addresses, and paths that are too long."""

from pathlib import Path

import pytest

from resnet_flax.config import config_path
from resnet_flax.errors import UserError
from resnet_flax.interchange import files
from resnet_flax.paths import expanded


def test_a_tilde_is_expanded_unless_a_file_has_that_name(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~notes.jpg").touch()
    assert expanded("~/r50.pth") == tmp_path / "home" / "r50.pth"
    assert expanded("~notes.jpg") == Path("~notes.jpg")
    assert expanded("~nobody-of-that-name/x") == Path("~nobody-of-that-name/x")
    assert expanded("a/~/b") == Path("a/~/b")


def test_a_tilde_of_a_config_file_is_expanded(tmp_path, monkeypatch):
    """Regression test: ml_collections, which loads the file that --config names, does not expand it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.py").touch()
    assert config_path("~/mine.py") == str(tmp_path / "mine.py")


def test_a_name_that_is_too_long_is_refused():
    with pytest.raises(UserError, match="aaa...: this path of 300 characters is longer"):
        files.read(expanded("a" * 300))


@pytest.mark.parametrize("name", ["gs://bucket/runs", "hdfs://host/runs", Path("s3://bucket/runs")], ids=str)
def test_an_address_is_refused_as_a_path(name):
    with pytest.raises(UserError, match="URLs are not supported; mount the .*:// storage"):
        expanded(name)


def test_a_path_that_is_too_long_is_refused():
    with pytest.raises(UserError, match="this path of 3000 characters is longer"):
        expanded("x" * 3000)
