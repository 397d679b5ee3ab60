"""Tests of the views of photographs, against separate formulas."""

import numpy as np
import pytest
from PIL import Image

from resnet_flax.data import views
from resnet_flax.data.pixels import Normalization
from resnet_flax.data.preprocessing import Preprocessing
from resnet_flax.errors import UserError

MEAN, STD = np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.3, 0.25])


def preprocessing(mean=MEAN, std=STD, resize=40, image_size=32, channels=3):
    return Preprocessing(resize, image_size, channels, "bilinear", Normalization(mean, std), ("a", "b"))


@pytest.fixture
def photo(tmp_path):
    """A photograph 60 wide and 50 high."""
    pixels = np.random.default_rng(0).integers(0, 256, (50, 60, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def resized(path, width, height, mode="RGB"):
    image = Image.open(path).convert(mode).resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(image, np.float32).reshape(height, width, -1) / 255


def square_of(photo):
    """The central square: 60x50 is resized to 48x40, of which the columns 4 to 43 are kept."""
    return resized(photo, 48, 40)[:, 4:44]


def test_the_center_view_is_the_central_crop(photo):
    found = views.center(photo, preprocessing())
    assert found.shape == (1, 32, 32, 3)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[0], ((square_of(photo) - MEAN) / STD)[4:36, 4:36], atol=1e-5)


def test_ten_crops_are_the_corners_the_centre_and_their_mirror_images(photo):
    square = (square_of(photo) - MEAN) / STD
    found = views.ten_crops(photo, preprocessing())
    assert found.shape == (10, 32, 32, 3)
    assert found.dtype == np.float32
    expected = [square[:32, :32], square[:32, 8:], square[8:, :32], square[8:, 8:], square[4:36, 4:36]]
    np.testing.assert_allclose(found[:5], expected, atol=1e-5)
    np.testing.assert_array_equal(found[5:], found[:5, :, ::-1])


def test_a_mean_image_is_cropped_with_the_image(photo):
    mean = np.random.default_rng(1).random((40, 40, 3))
    square = square_of(photo) - mean
    given = preprocessing(mean, np.ones(1))
    np.testing.assert_allclose(views.center(photo, given)[0], square[4:36, 4:36], atol=1e-5)
    np.testing.assert_allclose(views.ten_crops(photo, given)[3], square[8:, 8:], atol=1e-5)


@pytest.mark.parametrize("mean", [MEAN, np.random.default_rng(1).random((40, 40, 3))], ids=["channels", "image"])
def test_multiscale_is_the_whole_image_cropped_to_multiples_of_32(photo, mean):
    found = views.multiscale(photo, preprocessing(mean), scales=(224, 480))
    assert [v.shape for v in found] == [(1, 32, 32, 3), (1, 64, 64, 3)]
    average = mean.reshape(-1, 3).mean(0)
    # 224 -> 32: 38x32, of which the columns 3 to 34; 480 -> round(68.6) = 69: 82x69, cropped to 64x64.
    first = resized(photo, 38, 32)[:, 3:35]
    second = resized(photo, 82, 69)[2:66, 9:73]
    np.testing.assert_allclose(found[0][0], (first - average) / STD, atol=1e-5)
    np.testing.assert_allclose(found[1][0], (second - average) / STD, atol=1e-5)
    assert found[0].dtype == np.float32


def test_the_papers_scales_at_224(tmp_path):
    Image.new("RGB", (300, 200)).save(tmp_path / "black.png")
    found = views.multiscale(tmp_path / "black.png", preprocessing(resize=256, image_size=224))
    assert [v.shape[1:3] for v in found] == [(224, 320), (256, 384), (384, 576), (480, 704), (640, 960)]


def test_sides_below_32_stay(photo):
    assert views.multiscale(photo, preprocessing(image_size=28), scales=(224,))[0].shape == (1, 28, 32, 3)


def test_grey_images_have_one_channel(photo):
    given = preprocessing(np.zeros(1), np.ones(1), channels=1)
    assert views.ten_crops(photo, given).shape == (10, 32, 32, 1)
    np.testing.assert_allclose(views.center(photo, given)[0], resized(photo, 48, 40, "L")[4:36, 8:40], atol=1e-5)


def test_views_of_selects_by_name(photo):
    given = preprocessing()
    assert views.VIEWS == ("center", "10crop", "multiscale")
    np.testing.assert_array_equal(views.views_of(photo, given, "center")[0], views.center(photo, given))
    np.testing.assert_array_equal(views.views_of(photo, given, "10crop")[0], views.ten_crops(photo, given))
    assert len(views.views_of(photo, given, "multiscale")) == 5


@pytest.mark.parametrize("view", views.VIEWS)
def test_a_file_that_is_not_an_image_is_refused_by_name(tmp_path, view):
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8 no more")
    with pytest.raises(UserError, match=r"broken\.jpg"):
        views.views_of(tmp_path / "broken.jpg", preprocessing(), view)


@pytest.mark.parametrize("view", views.VIEWS)
def test_a_strip_that_would_become_huge_is_refused(tmp_path, view):
    Image.new("RGB", (60_000, 1)).save(tmp_path / "strip.png")
    with pytest.raises(UserError, match="too narrow"):
        views.views_of(tmp_path / "strip.png", preprocessing(resize=256, image_size=224), view)
