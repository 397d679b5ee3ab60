"""Tests of the decoding of all kinds of photographs, of files that are not photographs, and of resizing."""

import io
import struct
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageOps

from resnet_flax.data import decoding
from resnet_flax.data.images import center
from resnet_flax.errors import UserError
from tests.peer_torchvision import torchvision

# Red left of the middle, blue right of it, green below: no rotation or mirroring leaves it as it is.
RED, GREEN, BLUE, WHITE = (200, 10, 10), (10, 200, 10), (10, 10, 200), (255, 255, 255)


def upright():
    pixels = np.empty((24, 40, 3), np.uint8)
    pixels[:, :20], pixels[:, 20:], pixels[16:] = RED, BLUE, GREEN
    return Image.fromarray(pixels)


def noise(height, width, channels=3):
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


def read(path, channels=3):
    image = decoding.read_photo(path, channels)
    assert image.mode == {1: "L", 3: "RGB"}[channels]
    return np.asarray(image).astype(int)


def saved(path, image, **keys):
    image.save(path, **keys)
    return path


# The pixels that a rotated camera stores: the inverse of the transformation that turns them upright.
INVERSES = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("orientation", INVERSES)
def test_every_orientation_comes_out_upright(tmp_path, orientation, suffix):
    image, method = upright(), INVERSES[orientation]
    stored = image if method is None else image.transpose(method)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    path = saved(tmp_path / f"photo{suffix}", stored, exif=exif, quality=95)
    found = read(path)
    assert found.shape == (24, 40, 3)
    assert np.abs(found - np.asarray(image)).mean() < 8  # JPEG's loss at the edges; any other orientation is 40 away
    with Image.open(path) as again:
        np.testing.assert_array_equal(found, np.asarray(ImageOps.exif_transpose(again)))


def test_damaged_exif_data_do_not_lose_the_photograph(tmp_path):
    path = saved(tmp_path / "a.jpg", upright(), exif=b"Exif\0\0" + bytes(range(40)))
    assert read(path).shape == (24, 40, 3)


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_is_converted_to_rgb(tmp_path, suffix):
    path = saved(tmp_path / f"a{suffix}", upright().convert("CMYK"))
    with Image.open(path) as image:
        assert image.mode == "CMYK"
    if suffix == ".jpg":
        # Adobe writes inverted values, with a marker.
        assert b"Adobe" in path.read_bytes()
    assert np.abs(read(path) - np.asarray(upright())).mean() < 3


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_grey_values_of_16_bits_are_scaled(tmp_path, suffix):
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    path = saved(tmp_path / f"a{suffix}", Image.fromarray(values))
    expected = np.rint(values / 257)
    np.testing.assert_array_equal(read(path, 1), expected)
    np.testing.assert_array_equal(read(path), np.repeat(expected[..., None], 3, 2))


def test_grey_values_of_16_bits_with_the_other_byte_order(tmp_path):
    values = np.asarray([[0, 257, 65535], [32768, 514, 256]])
    header = b"MM\0*" + struct.pack(">I", 20) + values.astype(">u2").tobytes()
    tags = [(256, 3), (257, 2), (258, 16), (259, 1), (262, 1), (273, 8), (277, 1), (278, 2), (279, 12)]
    entries = b"".join(
        struct.pack(">HHIHH", tag, 3, 1, value, 0) if tag != 273 else struct.pack(">HHII", tag, 4, 1, value)
        for tag, value in tags
    )
    path = tmp_path / "a.tif"
    path.write_bytes(header + struct.pack(">H", len(tags)) + entries + bytes(4))
    with Image.open(path) as image:
        assert image.mode == "I;16B"
    np.testing.assert_array_equal(read(path, 1), np.rint(values / 257))


@pytest.mark.parametrize(("white", "scale"), [(1, 255), (255, 1), (65535, 1 / 257)])
def test_floats_are_scaled_by_the_smallest_range_that_holds_them(tmp_path, white, scale):
    values = np.linspace(0, white, 35, dtype=np.float32).reshape(5, 7)
    with_gaps = values.copy()
    with_gaps[0, :3] = np.nan, np.inf, -1
    path = saved(tmp_path / "a.tif", Image.fromarray(with_gaps))
    found = read(path, 1)
    assert found[0, :3].tolist() == [0, 255, 0]
    np.testing.assert_allclose(found.ravel()[3:], (values * scale).ravel()[3:], atol=0.51)


def transparent_images():
    """By kind, an image with a transparent right half, whose colour must not show; and the colour of its left half."""
    alpha = np.zeros((4, 6), np.uint8)
    alpha[:, :3] = 255
    mask = Image.fromarray(alpha)
    rgba, grey = Image.new("RGBA", (6, 4), RED), Image.new("L", (6, 4), 50)
    rgba.putalpha(mask)
    palette = Image.fromarray((alpha == 0).astype(np.uint8)).convert("P")
    palette.putpalette(RED + BLUE)
    key = Image.fromarray(np.where(alpha[..., None] > 0, np.uint8(RED), np.uint8(BLUE)))
    wide = Image.fromarray(np.where(alpha > 0, np.uint16(50 * 257), np.uint16(7)))
    return {
        "RGBA": (rgba, {}, RED),
        "LA": (Image.merge("LA", (grey, mask)), {}, (50, 50, 50)),
        "P, one colour": (palette, {"transparency": 1}, RED),
        "P, alphas": (palette, {"transparency": bytes([255, 0])}, RED),
        "RGB, a colour": (key, {"transparency": BLUE}, RED),
        "I;16, a value": (wide, {"transparency": 7}, (50, 50, 50)),
    }


@pytest.mark.parametrize("kind", transparent_images())
def test_transparent_images_are_put_on_white(tmp_path, kind):
    image, keys, color = transparent_images()[kind]
    path = saved(tmp_path / "a.png", image, **keys)
    found = read(path)
    assert (found[:, :3] == color).all()
    assert (found[:, 3:] == WHITE).all()
    assert (read(path, 1)[:, 3:] == 255).all()


def test_half_transparent_is_half_white(tmp_path):
    path = saved(tmp_path / "a.png", Image.new("RGBA", (3, 3), (0, 0, 0, 128)))
    assert set(read(path).ravel()) == {127}


def test_a_palette_with_an_alpha_for_each_pixel(tmp_path):
    palette = Image.new("PA", (2, 1))
    palette.putpalette(RED + BLUE)
    palette.putpixel((0, 0), (0, 255))
    palette.putpixel((1, 0), (1, 0))
    assert np.asarray(decoding._in_mode(palette, "RGB")).tolist() == [[list(RED), list(WHITE)]]


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png", ".tif"])
def test_the_first_of_several_images_is_read(tmp_path, suffix):
    frames = [Image.new("RGB", (8, 8), color) for color in (RED, BLUE, GREEN)]
    path = saved(tmp_path / f"a{suffix}", frames[0], save_all=True, append_images=frames[1:])
    with Image.open(path) as image:
        assert image.n_frames == 3
    assert np.abs(read(path) - RED).max() <= 8


@pytest.mark.parametrize("mode", ["1", "L", "P", "YCbCr"])
def test_other_modes_are_converted_to_rgb(tmp_path, mode):
    image = Image.fromarray((noise(9, 5) > 127).astype(np.uint8) * 255).convert("L").convert(mode)
    path = saved(tmp_path / "a.tif", image)
    np.testing.assert_array_equal(read(path), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".gif"])
def test_a_truncated_file_is_refused_by_name(tmp_path, suffix):
    path = saved(tmp_path / f"whole{suffix}", Image.fromarray(noise(60, 60)))
    content = path.read_bytes()
    cut = tmp_path / f"cut{suffix}"
    cut.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=f"cut\\{suffix}: .*") as error:
        decoding.read_photo(cut)
    assert "\n" not in str(error.value)


def not_photos(folder):
    (folder / "text.jpg").write_text("no photo\n")
    (folder / "empty.png").touch()
    (folder / "folder.png").mkdir()
    return {
        "text.jpg": "not an image, or of a format that Pillow cannot read",
        "empty.png": "not an image, or of a format that Pillow cannot read",
        "folder.png": "cannot be read: Is a directory",
        "missing.png": "there is no such file",
    }


@pytest.mark.parametrize("name", ["text.jpg", "empty.png", "folder.png", "missing.png"])
def test_files_that_are_not_photographs_are_refused_by_name(tmp_path, name):
    message = not_photos(tmp_path)[name]
    with pytest.raises(UserError) as error:
        decoding.read_photo(tmp_path / name)
    assert str(error.value) == f"{tmp_path / name}: {message}"


def test_a_file_without_read_permission_is_refused(tmp_path, monkeypatch):
    def refuse(path, mode):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(UserError, match="a.png: cannot be read: Permission denied$"):
        decoding.read_photo(tmp_path / "a.png")


def test_too_many_pixels_are_refused(tmp_path, monkeypatch):
    path = saved(tmp_path / "bomb.png", Image.fromarray(noise(20, 20)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 150)
    with pytest.raises(UserError, match=r"bomb.png: more than 300 pixels: too large, or a decompression bomb$"):
        decoding.read_photo(path)


def test_warnings_of_pil_are_suppressed_and_filters_are_restored(tmp_path, monkeypatch):
    path = saved(tmp_path / "large.png", Image.fromarray(noise(20, 20)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 300)  # 400 pixels: PIL warns
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(Image.DecompressionBombWarning):
            Image.open(path)
        before = list(warnings.filters)
        with ThreadPoolExecutor(8) as pool:
            assert len(list(pool.map(decoding.read_photo, [path] * 200))) == 200
        assert warnings.filters == before


def test_a_narrow_strip_is_refused_instead_of_resized(tmp_path):
    path = saved(tmp_path / "strip.png", Image.new("RGB", (3000, 1)))
    with pytest.raises(UserError, match=r"strip.png: 3000x1 pixels are too narrow to resize the shorter side to 224"):
        decoding.resize_and_crop(path, 224, 224, 3, "bilinear")


FILTERS = {"box": Image.Resampling.BOX, "bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
SIZES = [(50, 31), (31, 50), (37, 37), (20, 64), (33, 20), (7, 9)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("interpolation", FILTERS)
def test_resizing_the_shorter_side_equals_pils_resizing(size, interpolation):
    image = Image.fromarray(noise(*size))
    found = decoding.resize_short(image, 20, interpolation)
    width, height = image.size
    expected = (20, 20 * height // width) if width <= height else (20 * width // height, 20)
    assert found.size == expected
    np.testing.assert_array_equal(np.asarray(found), np.asarray(image.resize(expected, FILTERS[interpolation])))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("interpolation", FILTERS)
def test_resizing_and_cropping_equal_torchvisions(size, interpolation):
    transforms = torchvision().transforms
    image = Image.fromarray(noise(*size))
    mode = transforms.InterpolationMode(interpolation)
    expected = transforms.CenterCrop(17)(transforms.Resize(20, mode)(image))
    found = center(decoding.as_array(decoding.resize_short(image, 20, interpolation)), 17, 17)
    np.testing.assert_array_equal(found, np.asarray(expected))


# torchvision's CenterCrop takes int(round((H - h) / 2.0)), and Python rounds halves to the even neighbour.
@pytest.mark.parametrize(("height", "top"), [(8, 0), (9, 0), (10, 1), (11, 2), (12, 2), (13, 2), (15, 4)])
def test_the_central_crop_is_rounded_like_torchvisions(height, top):
    array = noise(height, 10)
    np.testing.assert_array_equal(center(array, 8, 10), array[top : top + 8])
    transposed = array.transpose(1, 0, 2)
    np.testing.assert_array_equal(center(transposed, 10, 8), transposed[:, top : top + 8])


def test_a_crop_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match="a crop of 8x9 is larger than the images of 8x8 pixels"):
        center(noise(8, 8), 8, 9)


@pytest.mark.parametrize("channels", [1, 3])
def test_resize_and_crop_reads_resizes_and_crops(tmp_path, channels):
    path = saved(tmp_path / "a.png", Image.fromarray(noise(50, 31)))
    found = decoding.resize_and_crop(path, 20, 16, channels, "bilinear")
    assert (found.shape, found.dtype) == ((16, 16, channels), np.uint8)
    with Image.open(path) as image:
        resized = image.convert({1: "L", 3: "RGB"}[channels]).resize((20, 32), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found[..., 0], np.asarray(resized).reshape(32, 20, channels)[8:24, 2:18, 0])


def test_the_content_of_a_file_decides_its_format(tmp_path):
    """People rename files."""
    content = io.BytesIO()
    Image.new("RGB", (4, 4), RED).save(content, "PNG")
    (tmp_path / "a.jpg").write_bytes(content.getvalue())
    assert (read(tmp_path / "a.jpg") == RED).all()
