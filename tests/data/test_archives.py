"""Tests of CIFAR archives: small ones made here in both formats, damaged ones and hostile ones."""

import hashlib
import io
import os
import pickle
import tarfile

import numpy as np
import pytest

from resnet_flax import config
from resnet_flax.data import archives, datasets
from resnet_flax.errors import UserError

CLASSES = {"cifar10": [f"class{i}" for i in range(10)], "cifar100": [f"fine{i}" for i in range(100)]}


def images_of(name, split, count):
    rng = np.random.default_rng([len(name), split == "test"])
    return rng.integers(0, 256, (count, 32, 32, 3), np.uint8), rng.integers(0, len(CLASSES[name]), count)


def planes(images):
    return images.transpose(0, 3, 1, 2).reshape(len(images), -1)


def binary_files(name):
    train, labels = images_of(name, "train", 20)
    test, test_labels = images_of(name, "test", 7)

    def records(images, labels):
        fine = labels[:, None].astype(np.uint8)
        prefix = fine if name == "cifar10" else np.concatenate([fine // 5, fine], 1)  # coarse, then fine
        return np.concatenate([prefix, planes(images)], 1).astype(np.uint8).tobytes()

    if name == "cifar10":
        files = {
            f"data_batch_{i + 1}.bin": records(train[4 * i : 4 * i + 4], labels[4 * i : 4 * i + 4]) for i in range(5)
        }
        return files | {
            "test_batch.bin": records(test, test_labels),
            "batches.meta.txt": "\n".join(CLASSES[name]).encode(),
        }
    return {
        "train.bin": records(train, labels),
        "test.bin": records(test, test_labels),
        "fine_label_names.txt": "\n".join(CLASSES[name]).encode(),
    }


def python_files(name):
    train, labels = images_of(name, "train", 20)
    test, test_labels = images_of(name, "test", 7)
    key = b"labels" if name == "cifar10" else b"fine_labels"

    def batch(images, labels):
        return pickle.dumps({b"data": planes(images), key: labels.tolist()}, protocol=2)

    meta = pickle.dumps(
        {b"label_names" if name == "cifar10" else b"fine_label_names": [c.encode() for c in CLASSES[name]]}
    )
    if name == "cifar10":
        files = {f"data_batch_{i + 1}": batch(train[4 * i : 4 * i + 4], labels[4 * i : 4 * i + 4]) for i in range(5)}
        return files | {"test_batch": batch(test, test_labels), "batches.meta": meta}
    return {"train": batch(train, labels), "test": batch(test, test_labels), "meta": meta}


def write(path, files):
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo("folder/" + name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def data_config(name, folder, **keys):
    return config.base().data.to_dict() | {"name": name, "data_dir": str(folder), "download": False} | keys


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.parametrize("kind", ["binary", "python"])
def test_both_formats_of_an_archive_give_the_same_images(tmp_path, name, kind):
    archive = f"{name[:5]}-{name[5:]}-{kind}.tar.gz"
    write(tmp_path / archive, (binary_files if kind == "binary" else python_files)(name))
    data = datasets.load(data_config(name, tmp_path))
    for split, count in (("train", 20), ("test", 7)):
        images, labels = images_of(name, split, count)
        np.testing.assert_array_equal(getattr(data, split).images, images)
        np.testing.assert_array_equal(getattr(data, split).labels, labels)
    assert list(data.classes) == CLASSES[name]
    assert data.train.labels.dtype == np.int32


class Hostile:
    def __reduce__(self):
        return os.system, ("touch hostile",)


def test_a_pickle_that_calls_a_function_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = python_files("cifar10") | {"data_batch_3": pickle.dumps({b"data": Hostile(), b"labels": []})}
    write(tmp_path / "cifar-10-python.tar.gz", files)
    with pytest.raises(UserError, match=r"asks for (posix|nt)\.system"):
        datasets.load(data_config("cifar10", tmp_path))
    assert not (tmp_path / "hostile").exists()


@pytest.mark.parametrize("damage", ["cut", "empty", "text", "flipped bit", "overwritten"])
def test_a_damaged_archive_is_refused_by_name(tmp_path, damage):
    """One wrong bit in a pixel shows only in gzip's checksum, which lies behind the last image."""
    path = write(tmp_path / "cifar-10-binary.tar.gz", binary_files("cifar10"))
    content = path.read_bytes()
    half = len(content) // 2
    damaged = {
        "cut": content[:half], "empty": b"", "text": b"404 not found",
        "flipped bit": content[:half] + bytes([content[half] ^ 4]) + content[half + 1 :],
        "overwritten": content[:half] + b"\xff" * half,
    }  # fmt: skip
    path.write_bytes(damaged[damage])
    with pytest.raises(UserError, match=r"cifar-10-binary.tar.gz: the tar archive is damaged or cut short"):
        datasets.load(data_config("cifar10", tmp_path))


def test_an_archive_of_another_data_set_is_refused_by_name(tmp_path):
    write(tmp_path / "cifar-10-binary.tar.gz", binary_files("cifar100"))
    with pytest.raises(UserError, match=r"not the cifar10 archive of its authors: it holds no batches.meta.txt"):
        datasets.load(data_config("cifar10", tmp_path))


def serve(monkeypatch, content):
    class Response(io.BytesIO):
        headers = {"Content-Length": str(len(content))}  # noqa: RUF012 (as of urllib's)

    monkeypatch.setattr(archives.urllib.request, "urlopen", lambda url, timeout: Response(content))


def test_a_download_is_checked_and_kept(tmp_path, monkeypatch, capsys):
    content = write(tmp_path / "made.tar.gz", binary_files("cifar10")).read_bytes()
    md5 = hashlib.md5(content).hexdigest()
    monkeypatch.setitem(archives.ARCHIVES, "cifar10", {"cifar-10-binary.tar.gz": md5})
    serve(monkeypatch, content)
    folder = tmp_path / "new"
    folder.mkdir()
    data = datasets.load(data_config("cifar10", folder, download=True))
    assert len(data.train) == 20
    assert [p.name for p in folder.iterdir()] == ["cifar-10-binary.tar.gz"]


def test_a_download_with_another_sum_is_deleted(tmp_path, monkeypatch):
    serve(monkeypatch, b"something else")
    with pytest.raises(UserError, match="MD5 sum .* instead of c32a1d4a.*was deleted"):
        datasets.load(data_config("cifar10", tmp_path, download=True))
    assert list(tmp_path.iterdir()) == []


def test_a_download_that_fails_says_where_to_put_the_archive(tmp_path, monkeypatch):
    def fail(url, timeout):
        raise OSError("no route to host")

    monkeypatch.setattr(archives.urllib.request, "urlopen", fail)
    with pytest.raises(UserError, match=r"could not be downloaded \(no route to host\); put one of cifar-10-binary"):
        datasets.load(data_config("cifar10", tmp_path, download=True))
