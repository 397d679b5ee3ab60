"""Tests of random crops: inside the image, distributed as published, equal to resizing first and cropping then."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy import stats

from resnet_flax.data import crops, decoding, streaming

SIZES = st.integers(1, 2000)


@given(SIZES, SIZES, st.integers(1, 300), st.integers(0, 300), st.integers(0, 2**32 - 1))
def test_a_scale_crop_lies_in_the_image(width, height, side, more, seed):
    shorter = side + more
    left, top, right, bottom = crops.scale_crop(width, height, shorter, side, np.random.default_rng(seed))
    # PIL refuses boxes that reach beyond the image in single precision.
    assert np.float32(right) <= width
    assert np.float32(bottom) <= height
    assert min(left, top) >= 0
    expected = side * min(width, height) / shorter
    assert (right - left, bottom - top) == pytest.approx((expected, expected))


@given(SIZES, SIZES, st.floats(0.01, 1), st.integers(0, 2**32 - 1))
def test_an_inception_crop_lies_in_the_image(width, height, least_area, seed):
    box = crops.inception_crop(width, height, least_area, np.random.default_rng(seed))
    left, top, right, bottom = box
    assert all(isinstance(edge, int) for edge in box)
    assert 0 <= left < right <= width
    assert 0 <= top < bottom <= height


def test_every_offset_of_a_scale_crop_is_equally_likely():
    """With 12x8 pixels resized to 9x6, a crop of 4 has 6 places across and 3 down."""
    rng = np.random.default_rng(0)
    counts = np.zeros((6, 3))
    for _ in range(3600):
        left, top, _, _ = crops.scale_crop(12, 8, 6, 4, rng)
        counts[round(left * 6 / 8), round(top * 6 / 8)] += 1
    assert stats.chisquare(counts.ravel()).pvalue > 0.001


def test_the_papers_scales_are_equally_likely(monkeypatch):
    """Section 3.4: "its shorter side randomly sampled in [256, 480]", both ends included."""
    boxes = []
    monkeypatch.setattr(streaming.crops, "cut", lambda image, box, *rest, **keys: boxes.append(box))
    pipeline = streaming.Pipeline(224, 256, augmentation="scale", scales=(256, 480))
    image, rng = Image.new("RGB", (500, 375)), np.random.default_rng(0)
    for _ in range(225 * 40):
        pipeline.crop(image, rng)
    shorter = [round(224 / (right - left) * 375) for left, _, right, _ in boxes]
    counts = np.bincount(shorter)
    assert (min(shorter), max(shorter)) == (256, 480)
    assert stats.chisquare(counts[256:]).pvalue > 0.001


def torchvisions(width, height, scale, ratio, rng):
    """``RandomResizedCrop.get_params`` as published (pytorch/vision, transforms/transforms.py): top, left, h, w."""
    area = height * width
    log_ratio = np.log(ratio)
    for _ in range(10):
        target_area = area * rng.uniform(scale[0], scale[1])
        aspect_ratio = math.exp(rng.uniform(log_ratio[0], log_ratio[1]))
        w = round(math.sqrt(target_area * aspect_ratio))
        h = round(math.sqrt(target_area / aspect_ratio))
        if 0 < w <= width and 0 < h <= height:
            i = rng.integers(0, height - h + 1)
            j = rng.integers(0, width - w + 1)
            return i, j, h, w
    in_ratio = float(width) / float(height)
    if in_ratio < min(ratio):
        w = width
        h = round(w / min(ratio))
    elif in_ratio > max(ratio):
        h = height
        w = round(h * max(ratio))
    else:
        w = width
        h = height
    i = (height - h) // 2
    j = (width - w) // 2
    return i, j, h, w


@pytest.mark.parametrize(
    ("width", "height", "least"), [(500, 375, 0.08), (375, 500, 0.5), (90, 400, 0.08), (700, 90, 0.3)]
)
def test_inception_crops_are_distributed_as_torchvisions(width, height, least):
    rng, other = np.random.default_rng(0), np.random.default_rng(1)

    def about(left, top, w, h):
        return w * h / (width * height), w / h, left / (width - w + 1), top / (height - h + 1)

    ours, theirs = [], []
    for _ in range(3000):
        left, top, right, bottom = crops.inception_crop(width, height, least, rng)
        ours.append(about(left, top, right - left, bottom - top))
        i, j, h, w = torchvisions(width, height, (least, 1), (3 / 4, 4 / 3), other)
        theirs.append(about(j, i, w, h))
    for a, b in zip(zip(*ours, strict=True), zip(*theirs, strict=True), strict=True):
        assert stats.ks_2samp(a, b).pvalue > 0.001


@pytest.mark.parametrize("size", [(10, 1000), (1000, 10), (64, 64), (80, 60), (3, 2)])
def test_if_no_draw_fits_the_crop_is_central(size):
    """No crop of the whole area fits into an extreme shape; a square crop may fit into a square."""
    i, j, h, w = torchvisions(*size, (2, 2), (3 / 4, 4 / 3), np.random.default_rng(0))

    class Whole(np.random.Generator):
        """Random generator that draws twice the area, which never fits."""

        def uniform(self, low, high):
            return 2.0 if high == 1 else super().uniform(low, high)

    box = crops.inception_crop(*size, 0.08, Whole(np.random.PCG64(0)))
    assert box == (j, i, j + w, i + h)


def clouds(width, height):
    small = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("width", "height"), [(500, 375), (333, 500), (1200, 801)])
def test_a_cut_is_the_crop_of_the_whole_image_resized(width, height, interpolation):
    image, rng, side = clouds(width, height), np.random.default_rng(0), 224
    for shorter in (256, 300, 480):
        box = crops.scale_crop(width, height, shorter, side, rng)
        cut = crops.cut(image, box, side, interpolation)
        filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
        np.testing.assert_array_equal(cut, np.asarray(image.resize((side, side), filters[interpolation], box)))
        whole = np.asarray(decoding.resize_short(image, shorter, interpolation))
        left, top = (round(edge * shorter / min(width, height)) for edge in box[:2])
        expected = whole[top : top + side, left : left + side]
        # The whole image's longer side is rounded down to whole pixels, which moves its far end by up to one.
        assert np.abs(cut.astype(float) - expected).mean() < 1.5
        moved = np.abs(cut[:, 8:].astype(float) - expected[:, :-8]).mean()
        assert moved > 3 * np.abs(cut.astype(float) - expected).mean()


def test_a_cut_can_be_mirrored_and_grey():
    image = clouds(60, 40)
    plain, mirrored = (crops.cut(image, (3, 2, 35, 34), 16, "bilinear", flip=flip) for flip in (False, True))
    np.testing.assert_array_equal(mirrored, plain[:, ::-1])
    assert (plain.shape, plain.dtype) == ((16, 16, 3), np.uint8)
    assert crops.cut(image.convert("L"), (0, 0, 40, 40), 16, "bilinear").shape == (16, 16, 1)


@given(st.integers(1, 120), st.integers(1, 120), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_every_size_of_photograph_can_be_cut(width, height, side, seed):
    image = Image.new("RGB", (width, height), (10, 200, 30))
    for kind in crops.CROPS:
        pipeline = streaming.Pipeline(side, side + 3, augmentation=kind, scales=(side, side + 9))
        pixels = pipeline.crop(image, np.random.default_rng(seed))
        np.testing.assert_array_equal(pixels, np.broadcast_to(np.uint8([10, 200, 30]), (side, side, 3)))
