"""Files are replaced atomically, even by several writers at once."""

import os
import threading

import pytest

from resnet_flax.atomic import replacing, write_atomically


def test_several_writers_do_not_disturb_one_another(tmp_path):
    """When all writers used the same temporary file, some of them failed."""
    path, errors = tmp_path / "page.html", []
    texts = [str(i) * 200_000 for i in range(6)]

    def write(text):
        try:
            for _ in range(5):
                write_atomically(path, text)
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=(text,)) for text in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert path.read_text() in texts
    assert os.listdir(tmp_path) == ["page.html"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / ("x" * 250)  # as long as a name may be
    write_atomically(path, "old")
    with pytest.raises(TypeError):
        write_atomically(path, None)

    def fail():
        with replacing(path) as temporary:
            temporary.write_text("new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert path.read_text() == "old"
    assert len(os.listdir(tmp_path)) == 1


def test_other_users_may_read_the_file(tmp_path):
    mask = os.umask(0o022)
    try:
        write_atomically(tmp_path / "file", b"\xff")
    finally:
        os.umask(mask)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o644
