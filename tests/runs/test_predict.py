"""``python -m resnet_flax.predict`` with a network that was trained for two steps on a small folder."""

import json
import os
import select
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from resnet_flax import model
from tests.commands import command, start, streams
from tests.runs import reference_views

SKY = os.fsdecode("空 sky".encode() + b"\xe9")  # not valid UTF-8, and with a letter that matplotlib's font lacks


def draw(path, color, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 60, (4, 4, 3), np.uint8).repeat(11, 0).repeat(13, 1)
    Image.fromarray(noise + np.asarray(color, np.uint8)).save(path)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "photos"
    for i in range(5):
        draw(folder / "red" / f"{i}.jpg", (190, 0, 0), i)
        draw(folder / SKY / f"{i}.png", (0, 0, 190), 10 + i)
    return folder


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("run")
    code, output = command(
        "train.py", "--config=configs/folder.py:residual-18", f"--config.data.folder={photos}", f"--workdir={workdir}",
        "--config.data.image_size=32", "--config.data.resize=36", "--config.model.stage_units=(1,)",
        "--config.model.width=0.25", "--config.train.steps=2", "--config.train.batch_size=4",
        "--config.train.eval_batch_size=4",
    )  # fmt: skip
    assert code == 0, output
    return workdir


def predict(run, *arguments):
    return streams("-m", "resnet_flax.predict", f"--workdir={run}", *map(str, arguments))


def test_predict_prints_a_row_for_a_file(run, photos):
    code, out, error = predict(run, photos / "red" / "0.jpg", "--top=5")
    assert code == 0, error
    (row,) = out.splitlines()
    assert row.startswith(str(photos / "red" / "0.jpg"))
    assert "空 sky\ufffd" in row
    assert row.count("%") == 2  # --top=5 of two classes
    assert "residual-basic-4: 1 image, center" in error


def test_predict_writes_json_and_a_picture_for_a_folder(run, photos, tmp_path):
    picture = tmp_path / "new" / "out.png"
    code, out, error = predict(run, "--json", "--batch-size=3", f"--picture={picture}", photos, photos / "red")
    assert code == 0, error
    found = [json.loads(line) for line in out.splitlines()]
    expected = [str(p) for p in sorted(photos.rglob("*.*"))]
    assert [f["file"] for f in found] == expected + expected[:5]
    for f in found:
        assert {c["class"] for c in f["top"]} == {"red", SKY}
        probabilities = [c["probability"] for c in f["top"]]
        assert probabilities == sorted(probabilities, reverse=True)
        assert sum(probabilities) == pytest.approx(1, abs=1e-5)
    assert found[0]["top"] == found[10]["top"]
    assert error.splitlines()[-1] == f"{picture}: the first 12 images, 3 more are left out"
    assert len(error.splitlines()) == 2  # no warnings of letters that a font lacks
    with Image.open(picture) as image:
        assert image.format == "PNG"
        assert min(image.size) > 500
    assert [p.name for p in picture.parent.iterdir()] == ["out.png"]


@pytest.mark.parametrize("view", ["10crop", "multiscale"])
def test_views_average_over_the_crops(run, photos, view):
    """The averages equal those over crops from PIL and NumPy, and differ from the centre crop's predictions."""
    code, out, error = predict(run, "--json", f"--view={view}", photos / "red")
    assert code == 0, error
    found = [{c["class"]: c["probability"] for c in json.loads(line)["top"]} for line in out.splitlines()]
    net, files = model.from_run(run), [photos / "red" / f"{i}.jpg" for i in range(5)]
    cut = [reference_views.crops(file, 36, 32) | {"multiscale": reference_views.scales(file, 32)} for file in files]
    expected, centre = ([reference_views.probabilities(net, c[name]) for c in cut] for name in (view, "center"))
    found = np.array([[f["red"], f[SKY]] for f in found])
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert np.abs(found - centre).max() > 1e-3


def test_rows_are_printed_at_once_and_a_closed_pipe_is_no_mistake(run, photos, tmp_path):
    """The second file is a pipe without content until the first row was read. Then the reader closes its pipe."""
    pipe, red = tmp_path / "pipe.jpg", photos / "red"
    os.mkfifo(pipe)
    process = start(
        "-m", "resnet_flax.predict", f"--workdir={run}", "--batch-size=1", str(red / "0.jpg"), str(pipe),
        str(red / "1.jpg"), stderr=subprocess.PIPE,
    )  # fmt: skip
    assert select.select([process.stdout], [], [], 200)[0]
    assert process.stdout.readline().startswith(str(red / "0.jpg"))
    process.stdout.close()
    pipe.write_bytes(b"no image")
    assert process.wait(timeout=100) == 0
    lines = process.stderr.read().splitlines()
    process.stderr.close()
    assert len(lines) == 2, lines
    assert lines[1].startswith(f"{pipe}: ")


def test_broken_files_are_named_and_the_others_classified(run, photos, tmp_path):
    for name in ("1.jpg", "3.jpg"):
        shutil.copy(photos / "red" / name, tmp_path)
    (tmp_path / "2.jpg").write_bytes(b"\xff\xd8 no more")
    code, out, error = predict(run, tmp_path)
    assert code == 2, error
    assert [row.split()[0] for row in out.splitlines()] == [str(tmp_path / n) for n in ("1.jpg", "3.jpg")]
    assert sum(str(tmp_path / "2.jpg") in line for line in error.splitlines()) == 1
    assert error.splitlines()[-1] == "error: 1 of 3 files could not be read; the lines above name them"
    code, out, error = predict(run, tmp_path / "2.jpg")
    assert (code, out) == (2, "")
    assert error.splitlines()[-1].startswith(f"error: {tmp_path / '2.jpg'}: ")


def test_a_mistake_is_reported_in_one_line(tmp_path):
    """The mistakes are found before a network is loaded."""
    (tmp_path / "notes.txt").write_text("no image")
    some = ("--workdir=somewhere",)
    for arguments, message in [
        ((*some, tmp_path), f"{tmp_path}: no images are in this folder"),
        ((*some, tmp_path / "gone.jpg"), f"{tmp_path / 'gone.jpg'}: there is no such file or folder"),
        ((*some, "a" * 300), "aaa...: this path of 300 characters is longer than file systems allow"),
        (some, "name an image or a folder of images"),
        ((tmp_path,), "give either --workdir"),
        ((*some, "--picture=out.jpg", tmp_path), "--picture=out.jpg must end in .png"),
        ((*some, "--top=0", tmp_path), "top"),
        ((*some, tmp_path, "--no-such-flag=1"), "unknown flag --no_such_flag"),
        ((*some, "--config=configs/folder.py:residual-18", tmp_path), "--config goes with --weights"),
    ]:
        code, out, error = streams("-m", "resnet_flax.predict", *map(str, arguments))
        assert (code, out) == (2, ""), error
        assert len(error.splitlines()) == 1, error
        assert message in error
