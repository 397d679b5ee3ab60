"""``preflight``: its messages about complete, missing and damaged data sets, and about the disk."""

import shutil

import pytest

from tests.commands import streams
from tests.data import imagenet_files as files

TINY = (
    "--config=configs/imagenet.py:residual-18", "--config.model.width=0.125", "--config.data.pipeline=stream",
    "--config.data.image_size=32", "--config.data.resize=36", "--config.train.batch_size=4",
    "--config.train.steps=7",
)  # fmt: skip


def preflight(*arguments):
    return streams("-m", "resnet_flax.preflight", *arguments)


@pytest.fixture(scope="module")
def tars(tmp_path_factory):
    return files.write_tars(tmp_path_factory.mktemp("imagenet"))


def test_preflight_accepts_a_complete_data_set(tars, tmp_path):
    code, out, error = preflight(*TINY, f"--config.data.data_dir={tars}", f"--workdir={tmp_path / 'new' / 'run'}")
    assert code == 0, error
    size = (tars / "ILSVRC2012_img_val.tar").stat().st_size
    assert f"{tars / 'imagenet2012'} (prepared by TFDS: dataset_info.json and array_record files): not there" in out
    assert f"{tars / 'ILSVRC2012_img_val.tar'} (original tar files: 6,744,924,160 bytes): {size:,} bytes" in out
    assert f"used: tar files in {tars}" in out
    assert "classes: 4; train 12 images, test 7 images" in out
    assert "decoded: 19 images, 0 of them cannot be read" in out
    assert "images/s by " in out
    assert "; 7 steps of 4 images take at least 0:0" in out
    # keep_checkpoints=2 and the one being written; 4 bytes for each parameter and its momentum, and little else.
    from resnet_flax import config
    from resnet_flax.analysis.counts import parameters
    from resnet_flax.networks import build

    c = config.load("configs/imagenet.py", "residual-18", {"model.width": 0.125})
    megabytes = 8 * parameters(build(c.model, 4), (32, 32, 3)) / 1e6
    (line,) = [line for line in out.splitlines() if line.startswith("disk: ")]
    assert f" GiB free in {tmp_path}; at most 3 checkpoints of " in line
    assert float(line.partition("3 checkpoints of ")[2].split()[0]) == pytest.approx(megabytes, rel=0.03, abs=0.1)
    assert out.splitlines()[-1] == "a run could start"
    assert list(tmp_path.iterdir()) == []


def test_photographs_that_cannot_be_read(tmp_path):
    files.write_folders(tmp_path)
    whole = sorted(tmp_path.rglob("*.JPEG"))
    for path in (whole[3], whole[-1]):
        path.write_bytes(path.read_bytes()[:300])
    arguments = [*TINY, f"--config.data.data_dir={tmp_path}", "--all"]
    code, out, error = preflight(*arguments)
    assert code == 2
    assert error.splitlines()[-1].startswith("error: 2 of 19 images cannot be read, named above; repair or remove them")
    for path in (whole[3], whole[-1]):
        assert f"  {path}: cannot be read as an image; is the file complete?" in out
    code, out, error = preflight(*arguments, "--config.data.broken=skip")
    assert code == 0, error
    assert "decoded: 19 images, 2 of them cannot be read" in out


def test_every_broken_file_of_data_in_memory_is_named(tmp_path):
    files.write_folders(tmp_path)
    whole = sorted(tmp_path.rglob("*.JPEG"))
    for path in (whole[3], whole[5], whole[-1]):
        path.write_bytes(path.read_bytes()[:300])
    code, out, error = preflight(
        "--config=configs/folder.py:residual-18", "--config.data.image_size=32", "--config.data.resize=36",
        f"--config.data.folder={tmp_path}",
    )  # fmt: skip
    assert code == 2
    for path in (whole[3], whole[5], whole[-1]):
        assert f"  {path}: cannot be read as an image; is the file complete?" in out
    last = error.splitlines()[-1]
    assert last.startswith("error: 3 images cannot be read, named above; the first: ")
    assert last.endswith("or skip such files with data.pipeline=stream and data.broken=skip")


def test_the_last_line_says_what_keeps_a_run_from_starting(tars, tmp_path):
    code, out, error = preflight(*TINY, f"--config.data.data_dir={tmp_path}")
    assert code == 2
    assert out.count("not there") == 6
    assert error.splitlines()[-1].startswith("error: data.name='imagenet2012' was not found; looked for ")
    half = tmp_path / "half"
    shutil.copytree(tars, half)
    train = half / "ILSVRC2012_img_train.tar"
    train.write_bytes(train.read_bytes()[:7000])
    code, out, error = preflight(*TINY, f"--config.data.data_dir={half}")
    assert code == 2
    assert f"{train} (original tar files: a tar for each class inside, 147,897,477,120 bytes): 7,000 bytes" in out
    assert error.splitlines()[-1].startswith(f"error: {train}")
    assert "was it copied completely?" in error
    assert "Traceback" not in error


def test_preflight_checks_data_in_memory_and_the_disk(tmp_path):
    digits = ("--config=configs/digits.py:residual-8",)
    code, out, error = preflight(*digits, f"--workdir={tmp_path}")
    assert code == 0, error
    assert "classes: 10; train 1,442 images, test 355 images" in out
    assert "checkpoints of " in out
    (tmp_path / "file").touch()
    code, _, error = preflight(*digits, f"--workdir={tmp_path / 'file' / 'run'}")
    assert code == 2
    assert f"error: --workdir={tmp_path / 'file' / 'run'}: {tmp_path / 'file'} cannot be written" in error
    code, _, error = preflight(*digits, "--sample=0")
    assert code == 2
    assert "sample" in error
