"""Tests that central crops on disk, in memory and in every view are at the place of torchvision's CenterCrop."""

import numpy as np
import pytest
from PIL import Image

from resnet_flax import config
from resnet_flax.data import cache, datasets, decoding, folders, views
from resnet_flax.data.images import center
from resnet_flax.data.pixels import Normalization
from resnet_flax.data.preprocessing import Preprocessing
from resnet_flax.errors import UserError
from resnet_flax.runs import resume, rules
from resnet_flax.runs.directory import RunDirectory
from tests.peer_torchvision import torchvision

PAIRS = [(235, 224), (234, 224), (256, 224), (224, 224)]  # (resize, crop); timm usually takes the first
LONG = range(0, 12)  # by how many pixels the longer side exceeds the shorter


def image_of(more, wide, short):
    """An image whose pixels encode their positions."""
    rows, columns = (short, short + more) if wide else (short + more, short)
    place = np.arange(rows * columns).reshape(rows, columns)
    return np.stack([place % 251, place // 251 % 251, place // 251**2], -1).astype(np.uint8)


def by_formula(array, side):
    """The formula of torchvision.transforms.functional.center_crop."""
    top, left = (int(round((length - side) / 2.0)) for length in array.shape[:2])  # noqa: RUF046
    return array[top : top + side, left : left + side]


@pytest.mark.parametrize(("resize", "side"), PAIRS)
def test_all_ways_to_crop_take_the_same_pixels(resize, side):
    none = Normalization(np.zeros(1), np.full(1, 1 / 255))
    preprocessing = Preprocessing(resize, side, 3, "bilinear", none, ("a",))
    for more in LONG:
        for wide in (True, False):
            array = image_of(more, wide, resize)
            expected = by_formula(array, side)
            np.testing.assert_array_equal(decoding.resize_and_crop(array, resize, side, 3, "bilinear"), expected)
            square = decoding.square_around_crop(array, resize, side, 3, "bilinear")
            assert square.shape == (resize, resize, 3)
            np.testing.assert_array_equal(center(square, side, side), expected)
            (view,) = views.views_of(array, preprocessing, "center")
            np.testing.assert_allclose(view[0], expected, atol=1e-3)
            np.testing.assert_allclose(views.ten_crops(array, preprocessing)[4], expected, atol=1e-3)


def test_torchvision_agrees():
    transforms = torchvision().transforms
    rng = np.random.default_rng(0)
    for width, height in [(300, 245), (311, 236), (247, 313), (235, 400)]:
        image = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
        expected = np.asarray(transforms.CenterCrop(224)(transforms.Resize(235)(image)))
        square = decoding.square_around_crop(image, 235, 224, 3, "bilinear")
        np.testing.assert_array_equal(center(square, 224, 224), expected)


@pytest.fixture
def photos(tmp_path):
    for name in ("a", "b"):
        for i in range(5):
            path = tmp_path / "photos" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image_of(i, i % 2 == 0, 19)).save(path)
    return tmp_path / "photos"


def folder_config(photos, **keys):
    c = config.load("configs/folder.py", "residual-18")
    c.update_from_flattened_dict({
        "data.folder": str(photos), "data.image_size": 16, "data.resize": 19, "model.stage_units": (1,),
        "model.width": 0.125, "train.steps": 1, "train.batch_size": 8, "train.eval_batch_size": 8,
    } | keys)  # fmt: skip
    return c


def test_cached_images_of_the_old_format_are_not_used(photos, tmp_path, monkeypatch):
    """The cache holds an entry of the previous format, whose squares are off by one pixel."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = folder_config(photos).data
    with monkeypatch.context() as before:
        before.setattr(cache, "_FORMAT", 1)
        before.setattr(
            decoding,
            "square_around_crop",
            lambda path, resize, side, *more: decoding.resize_and_crop(path, resize, resize, *more),
        )
        old = datasets.load(data)
    new = datasets.load(data)
    found = folders.scan(photos)
    different = 0
    for split in ("train", "test"):
        files = [path for path, _ in getattr(found, split)]
        images = np.asarray(getattr(new, split).images)
        expected = np.stack([by_formula(np.asarray(Image.open(path)), 16) for path in files])
        np.testing.assert_array_equal(center(images, 16, 16), expected)
        different += (center(np.asarray(getattr(old, split).images), 16, 16) != expected).any((1, 2, 3)).sum()
    assert different > 0


def test_only_runs_whose_crops_moved_count_as_old(photos, tmp_path):
    def old(**keys):
        return rules.old_rules(config.resolve(folder_config(photos, **keys)), 1)

    assert len(old()) == len(old(**{"data.resize": 18})) == 1
    assert old(**{"data.resize": 20}) == old(**{"data.resize": 0}) == old(**{"data.resize": 16}) == []
    assert old(**{"data.pipeline": "stream"}) == []  # streamed crops were always rounded once


def test_an_old_run_is_not_resumed_and_a_finished_one_is_kept(begun_before):
    workdir = begun_before / "photographs"
    c = RunDirectory(workdir).config()
    resume.check_rules(RunDirectory(workdir), c)
    c.train.steps, c.schedule.decay_steps = 30, 20
    with pytest.raises(UserError, match="an old rule: its photographs were cropped up to a pixel off the centre"):
        resume.check_rules(RunDirectory(workdir), c)
