"""Tests of the index of a tar against tarfile's reading, and of incomplete tars."""

import gzip
import io
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resnet_flax.data import tars
from resnet_flax.errors import UserError


def write_tar(members, format=tarfile.PAX_FORMAT):
    """Returns a tar of (name, bytes) as bytes; a name that ends with / is a folder."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return file.getvalue()


def content_of(tar):
    """Returns the contents of a tar by name, read by tarfile alone."""
    found = {}
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        for member in archive.getmembers():
            if member.isfile():
                inside = archive.extractfile(member).read()
                if member.name.endswith(".tar"):
                    found |= {f"{member.name}/{name}": data for name, data in content_of(inside).items()}
                else:
                    found[member.name] = inside
    return found


def indexed(path):
    found = tars.members(path)
    return {name.decode(): found.open(i).read() for i, name in enumerate(found.names)}


def random_bytes(count, seed=0):
    return np.random.default_rng(seed).bytes(count)


CLASSES = [
    (f"n0144076{i}.tar", write_tar([(f"n0144076{i}_{j}.JPEG", random_bytes(90 * j + i, j)) for j in range(4)]))
    for i in range(3)
]


@pytest.mark.parametrize("format", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT])
def test_tars_inside_a_tar_are_indexed(tmp_path, format):
    long = "val/" + "x" * 60 + "/" + "y" * 50 + ".JPEG"  # beyond the 100 bytes of the oldest headers
    tar = write_tar([*CLASSES, ("val/", b""), (long, b"long"), ("last.JPEG", b"")], format)
    path = tmp_path / "a.tar"
    path.write_bytes(tar)
    assert indexed(path) == content_of(tar)
    assert list(indexed(path)) == [*(f"n0144076{i}.tar/n0144076{i}_{j}.JPEG" for i in range(3) for j in range(4)),
                                   long, "last.JPEG"]  # fmt: skip
    assert tars.members(path).name(0) == f"{path}: n01440760.tar/n01440760_0.JPEG"


sizes = st.lists(st.integers(0, 1600), min_size=1, max_size=5)


@settings(max_examples=40)
@given(sizes, sizes, st.integers(0, 2**32 - 1))
def test_members_of_every_size_are_indexed(tmp_path_factory, outer, inner, seed):
    inside = write_tar([(f"{i}.jpg", random_bytes(size, [seed, i])) for i, size in enumerate(inner)])
    files = [(f"{i}.jpg", random_bytes(size, [seed, 9, i])) for i, size in enumerate(outer)]
    tar = write_tar([*files[:1], ("inner.tar", inside), *files[1:]])
    path = tmp_path_factory.mktemp("tar") / "a.tar"
    path.write_bytes(tar)
    assert indexed(path) == content_of(tar)


def test_names_that_are_not_utf8_are_kept(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(write_tar([("b\udcff.jpg", b"1")], tarfile.GNU_FORMAT))
    found = tars.members(path)
    assert found.names.tolist() == [b"b\xff.jpg"]
    assert "b\ufffd.jpg" in found.name(0)


def test_the_index_is_kept_until_the_file_changes(tmp_path, monkeypatch):
    path = tmp_path / "a.tar"
    path.write_bytes(write_tar([("a.jpg", b"first")]))
    first = indexed(path)
    with monkeypatch.context() as patch:
        patch.setattr(tars, "_read", None)  # a call would fail
        assert indexed(path) == first
    path.write_bytes(write_tar([("b.jpg", b"second")] * 30))
    assert indexed(path) == {"b.jpg": b"second"}


def test_a_copy_that_is_cut_anywhere_is_refused(tmp_path):
    """The cuts lie between and inside members, in headers, contents and the end mark, of the outer and an inner tar."""
    tar = write_tar(CLASSES)
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        last = archive.getmembers()[-1]
    end = last.offset_data + -(-last.size // 512) * 512  # only zeros follow
    places = sorted({*range(1, end + 1024, 509), *range(512, end + 1024, 512)} - {end + 1024})
    assert len(places) > 100
    for place in places:
        path = tmp_path / f"{place}.tar"
        path.write_bytes(tar[:place])
        with pytest.raises(UserError, match="not a complete tar file") as error:
            tars.members(path)
        assert str(path) in str(error.value)
        assert "\n" not in str(error.value)
    path = tmp_path / "whole.tar"
    path.write_bytes(tar[: end + 1024])
    assert indexed(path) == content_of(tar)


@pytest.mark.parametrize("kept", [0, 100, 512, 700, 1024, 1536])
def test_an_incomplete_inner_tar_is_refused(tmp_path, kept):
    name, inside = CLASSES[1]
    path = tmp_path / "a.tar"
    path.write_bytes(write_tar([CLASSES[0], (name, inside[:kept]), CLASSES[2]]))
    with pytest.raises(UserError, match=f"a.tar: {name}: not a complete tar file"):
        tars.members(path)


@pytest.mark.parametrize("content", [b"", b"no tar" * 1000, gzip.compress(write_tar(CLASSES)), random_bytes(9999)])
def test_files_that_are_not_tars_are_refused(tmp_path, content):
    path = tmp_path / "a.tar"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"a\.tar: not a complete tar file"):
        tars.members(path)


def test_a_tar_without_files_is_refused(tmp_path):
    path = tmp_path / "a.tar"
    path.write_bytes(write_tar([("folder/", b"")]))
    with pytest.raises(UserError, match="this tar file holds no files"):
        tars.members(path)


def test_names_with_braces_are_not_read_as_formats(tmp_path):
    """Messages contain the names of a tar's members."""
    path = tmp_path / "{0.__class__}.tar"
    path.write_bytes(b"no tar" * 200)
    with pytest.raises(UserError, match=r"\{0.__class__\}.tar"):
        tars.members(path)
