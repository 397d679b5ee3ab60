"""``evaluate --split=all``, and data sets with test images only."""

import shutil

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from tests.commands import ROOT, command
from tests.data import imagenet_files
from tests.interchange.test_file_formats import IMAGENET, random_tensors
from tests.marks import slow

PHOTOS = ROOT.parent / "shared" / "photos"


def make(folder, counts):
    rng = np.random.default_rng(0)
    for place, count in counts.items():
        (folder / place).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(rng.integers(0, 256, (40, 50, 3), np.uint8)).save(folder / place / f"{i}.png")
    return folder


def weights(path, classes):
    save_file(
        random_tensors("configs/imagenet.py", "residual-50", "imagenet", classes, stage_units=(1, 1), width=0.125), path
    )
    return f"--weights={path}"


def evaluate(*arguments):
    code, output = command("-m", "resnet_flax.evaluate", *map(str, arguments))
    assert "Traceback" not in output, output
    return code, output


@pytest.mark.parametrize(
    ("counts", "more", "split", "taken", "number"),
    [
        slow({"a": 7, "b": 5}, (), "all", "all that are there", 12),
        ({"a": 7, "b": 5}, ("--split=test",), "test", "a fifth of each class, set aside for testing", 2),
        slow({"a": 1, "b": 1}, (), "all", "all that are there", 2),
        slow({"val/a": 2, "val/b": 1}, (), "test", "those for testing", 3),
        slow({"train/a": 2, "train/b": 3}, (), "all", "all that are there", 5),
        ({"train/a": 2, "train/b": 3, "val/a": 1, "val/b": 1}, (), "test", "those for testing", 2),
        ({"train/a": 2, "train/b": 3, "val/a": 1, "val/b": 1}, ("--split=all",), "all", "all that are there", 7),
    ],
)
def test_evaluate_prints_which_images_it_uses(counts, more, split, taken, number, tmp_path):
    folder = make(tmp_path / "data", counts)
    arguments = (*IMAGENET, f"--config.data.folder={folder}", "--config.data.name=folder")
    code, output = evaluate(weights(tmp_path / "w.safetensors", 2), *arguments, *more)
    assert code == 0, output
    assert f"{number} photographs (" in output
    assert f"), {taken}, " in output
    assert output.splitlines()[-1].startswith(f"{split} error ")
    assert f" of {number})" in output.splitlines()[-1]


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="needs the real photographs")
def test_a_folder_with_test_images_only_is_evaluated_completely(tmp_path):
    arguments = (*IMAGENET, f"--config.data.folder={PHOTOS / 'val'}", "--config.data.name=folder")
    code, output = evaluate(weights(tmp_path / "w.safetensors", 4), *arguments)
    assert code == 0, output
    assert f" of {sum(1 for _ in (PHOTOS / 'val').glob('*/*'))})" in output.splitlines()[-1]


def test_the_val_tar_alone_is_enough_for_evaluation(tmp_path):
    folder = tmp_path / "tars"
    imagenet_files.write_tars(folder)
    (folder / imagenet_files_train(folder)).unlink()
    arguments = (*IMAGENET, f"--config.data.data_dir={folder}")
    code, output = evaluate(weights(tmp_path / "w.safetensors", 4), *arguments)
    assert code == 0, output
    assert f" of {len(imagenet_files.TRUTH)})" in output.splitlines()[-1]
    code, output = evaluate(weights(tmp_path / "w.safetensors", 4), *arguments, "--split=train")
    assert code == 2
    assert "has test images; choose one of them" in output.splitlines()[-1]


def imagenet_files_train(folder):
    (found,) = folder.glob("*train*")
    return found.name


@pytest.mark.slow  # 15 s; the tests around it take each split once
def test_a_run_and_its_export_are_evaluated_on_their_training_split(tmp_path):
    folder = make(tmp_path / "data", {"a": 7, "b": 5})
    (folder / "a" / "notes.txt").write_text("no image")
    settings = (
        "--config=configs/folder.py:residual-50", *IMAGENET[1:], f"--config.data.folder={folder}",
        "--config.train.steps=1", "--config.train.batch_size=4",
    )  # fmt: skip
    code, output = command("train.py", *settings, f"--workdir={tmp_path / 'run'}")
    assert code == 0, output
    assert "1 files skipped, because their names are not an image's (1 .txt)" in output
    exported = tmp_path / "run.safetensors"
    code, output = command("-m", "resnet_flax.export", f"--workdir={tmp_path / 'run'}", f"--output={exported}")
    assert code == 0, output
    for source in (f"--workdir={tmp_path / 'run'}", f"--weights={exported}"):
        code, output = evaluate(source)
        assert code == 0, output
        assert output.splitlines()[-1].startswith("test error ")
        assert " of 2)" in output.splitlines()[-1]
        code, output = evaluate(source, "--split=all")
        assert code == 0, output
        assert " of 12)" in output.splitlines()[-1]
    stripped = tmp_path / "stripped.safetensors"
    save_file(load_file(exported), stripped)  # without the run's config, like a file of another program
    code, output = evaluate(f"--weights={stripped}", *settings[:-2], "--config.data.normalization=imagenet")
    assert code == 0, output
    assert " of 12)" in output.splitlines()[-1]
    shutil.rmtree(tmp_path / "run")


def test_split_all_covers_a_named_data_set(tmp_path):
    """The digits have 1,442 training and 355 test images."""
    code, output = command(
        "train.py", "--config=configs/digits.py:residual-8", "--config.model.width=0.25", "--config.train.steps=1",
        f"--workdir={tmp_path / 'run'}",
    )  # fmt: skip
    assert code == 0, output
    code, output = evaluate(f"--workdir={tmp_path / 'run'}", "--split=all")
    assert code == 0, output
    assert "1797 images (digits), all that are there" in output
    assert output.splitlines()[-1].startswith("all error ")
    assert " of 1797)" in output.splitlines()[-1]


def test_images_of_every_suffix_that_pillow_reads_are_evaluated(tmp_path):
    folder = tmp_path / "data"
    kinds = {"jfif": "JPEG", "jpe": "JPEG", "avif": "AVIF", "jp2": "JPEG2000", "tga": "TGA"}
    for name in ("a", "b"):
        (folder / name).mkdir(parents=True)
        for suffix, form in kinds.items():
            Image.new("RGB", (40, 50), (200, 30, 30)).save(folder / name / f"1.{suffix}", form)
    arguments = (*IMAGENET, f"--config.data.folder={folder}", "--config.data.name=folder", "--view=10crop")
    file = weights(tmp_path / "w.safetensors", 2)
    code, output = evaluate(file, *arguments)
    assert code == 0, output
    assert " of 10)" in output.splitlines()[-1]
    assert "10 crops of 32 pixels in the central square of 36" in output
    broken = folder / "a" / "2.png"
    broken.write_bytes(b"nothing")
    stopped, skipped = (evaluate(file, *arguments, *more) for more in ((), ("--config.data.broken=skip",)))
    assert stopped[0] == 2
    assert f"error: {broken}: not an image" in stopped[1]
    assert stopped[1].endswith("; set data.broken=skip to continue without it\n")
    assert skipped[1].splitlines()[-1] == output.splitlines()[-1]
    broken.unlink()
    (folder / "a" / "notes.md").write_text("no image")
    code, output = command(
        "-m", "resnet_flax.predict", f"--weights={tmp_path / 'w.safetensors'}", *IMAGENET, str(folder)
    )
    assert code == 0, output
    assert "1 files skipped, because their names are not an image's (1 .md)" in output
