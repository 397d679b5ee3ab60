"""Tests of class folders: layouts, the split, refused folders, the cache, and crops."""

import os
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import SingleDeviceSharding
from PIL import Image

from resnet_flax import config
from resnet_flax.data import datasets, decoding, folders, layouts, loaders, pixels
from resnet_flax.data.images import Images, center
from resnet_flax.data.transforms import Transform, example_keys
from resnet_flax.errors import UserError
from resnet_flax.networks import build
from resnet_flax.training.devices import DATA_AXIS, data_mesh, replicated
from resnet_flax.training.evaluation import make_evaluate
from resnet_flax.training.reestimation import reestimate

PHOTOS = Path(__file__).parents[3] / "shared" / "photos"


def load(data):
    """Decodes the folder of a config's section ``data`` without the cache."""
    found = folders.scan(Path(data["folder"]))
    return folders.decode(found, folders.decoded_side(data), data.get("interpolation", "box"))


def photo(path, value=0, size=(12, 9)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (value, value, value)).save(path)
    return path


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


def data_config(folder, **keys):
    given = config.base().data.to_dict() | {"name": "folder", "download": False}
    return given | {"folder": str(folder), "image_size": 8, "resize": 0, "interpolation": "bilinear"} | keys


def relative(found, split):
    return [(str(path.relative_to(found.folder)), label) for path, label in getattr(found, split)]


@pytest.mark.parametrize(
    ("train", "test"),
    [("train", "val"), ("train", "valid"), ("train", "validation"), ("train", "test"), ("Train", "Val"),
     ("TRAIN", "TEST")],
)  # fmt: skip
def test_a_folder_with_a_folder_for_each_split(tmp_path, train, test):
    names = ["dog/1.jpg", "cat/b.PNG", "cat/a.jpeg"]
    touch(tmp_path, *(f"{train}/{name}" for name in names), f"{test}/cat/c.webp", f"{test}/dog/2.bmp")
    found = folders.scan(tmp_path)
    assert found.classes == ("cat", "dog")
    expected = [(f"{train}/cat/a.jpeg", 0), (f"{train}/cat/b.PNG", 0), (f"{train}/dog/1.jpg", 1)]
    assert relative(found, "train") == expected
    assert relative(found, "test") == [(f"{test}/cat/c.webp", 0), (f"{test}/dog/2.bmp", 1)]


def test_val_is_preferred_to_test(tmp_path):
    touch(tmp_path, *(f"{split}/{name}/1.jpg" for split in ("train", "val", "test") for name in ("cat", "dog")))
    assert relative(folders.scan(tmp_path), "test") == [("val/cat/1.jpg", 0), ("val/dog/1.jpg", 1)]
    for found in (folders.scan(tmp_path), folders.scan(tmp_path, testing=True)):
        assert found.note == "the network is tested on the folder val; not used: test"


def test_train_may_be_a_class(tmp_path):
    touch(tmp_path, *(f"{name}/{i}.jpg" for name in ("car", "plane", "train") for i in range(2)))
    assert folders.scan(tmp_path).classes == ("car", "plane", "train")


def test_what_counts_as_an_image(tmp_path):
    images = [f"cat/{i}{suffix}" for i, suffix in enumerate([*folders.SUFFIXES, ".JPEG", ".Tif"])]
    others = ["cat/notes.txt", "cat/.hidden.jpg", "cat/jpg", ".git/a.jpg", "cat/.thumbnails/a.jpg", "README.md"]
    touch(tmp_path, *images, *others, "dog/deep/deeper/1.jpg", "dog/2.jpg")
    found = folders.scan(tmp_path)
    assert found.classes == ("cat", "dog")
    files = [name for name, _ in relative(found, "train") + relative(found, "test")]
    assert sorted(files) == sorted([*images, "dog/deep/deeper/1.jpg", "dog/2.jpg"])


def test_links_are_followed_once(tmp_path):
    touch(tmp_path / "pool", *(f"{i}.jpg" for i in range(3)))
    touch(tmp_path / "data" / "dog", "1.jpg", "2.jpg")
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "pool")
    (tmp_path / "pool" / "again").symlink_to(tmp_path / "pool")
    found = folders.scan(tmp_path / "data")
    assert Counter(label for _, label in found.train + found.test) == {0: 3, 1: 2}


def test_the_split_never_changes(tmp_path):
    """NumPy has frozen the permutation, so the split is the same in every version and on every machine."""
    touch(tmp_path, *(f"cat/{i:02}.jpg" for i in range(10)), *(f"dog/{i}.jpg" for i in range(2)))
    found = folders.scan(tmp_path)
    assert relative(found, "test") == [("cat/02.jpg", 0), ("cat/08.jpg", 0), ("dog/1.jpg", 1)]
    assert folders.scan(tmp_path) == found


@settings(max_examples=25)
@given(st.lists(st.integers(2, 40), min_size=2, max_size=4))
def test_a_fifth_of_every_class_is_for_testing(tmp_path_factory, counts):
    folder = tmp_path_factory.mktemp("split")
    for label, count in enumerate(counts):
        touch(folder, *(f"class{label}/{i:03}.png" for i in range(count)))
    found = folders.scan(folder)
    assert found == folders.scan(folder)
    train, test = set(found.train), set(found.test)
    assert not train & test
    assert len(train) + len(test) == len(found.train) + len(found.test) == sum(counts)
    assert list(found.train) == sorted(train)
    assert list(found.test) == sorted(test)
    for path, label in train | test:
        assert path.parent.name == found.classes[label]
    for label, count in enumerate(counts):
        share = sum(1 for _, other in test if other == label)
        assert 1 <= share < count
        assert abs(share - count / 5) <= 0.6


WRONG = {
    "empty": ([], r"^{folder}: it holds no class folders; expected is one folder for each class"),
    "images lie about": (["1.jpg", "2.jpg"], r"^{folder}: it holds images, but no class folders; expected"),
    "one class": (["cat/1.jpg"], r"^{folder}: at least two class folders are needed, but it has only cat; expected"),
    "a class without images": (["cat/1.jpg", "cat/2.jpg", "dog/a.txt"], r"^{folder}: the class folder dog holds no im"),
    "one image": (["cat/1.jpg", "dog/1.jpg", "dog/2.jpg"], r"^{folder}: the class folder cat holds 1 image; at least"),
    "no test": (
        ["train/cat/1.jpg", "train/dog/1.jpg"],
        r"^{folder}: it has a folder train, but none of val, valid, validation, test; name {folder}/train instead to "
        r"test on a fifth of its images$",
    ),
    "no test, capital": (
        ["Train/cat/1.jpg", "Train/dog/1.jpg"],
        r"it has a folder Train, .* name {folder}/Train instead to test on a fifth of its images$",
    ),
    "no train": (
        [f"{split}/{name}/{i}.jpg" for split in ("val", "test") for name in ("cat", "dog") for i in range(2)],
        r"^{folder}: its folders are test, val, which are not classes; expected is one folder for each class .* a "
        r"folder train and one of val, valid, validation and test with a folder for each class in both$",
    ),
    "training": (
        [f"{split}/{name}/{i}.jpg" for split in ("Training", "Validation") for name in ("cat", "dog") for i in "12"],
        r"^{folder}: its folders are Training, Validation, which are not classes; expected",
    ),
    "empty test": (["train/cat/1.jpg", "train/dog/1.jpg", "val/a.txt"], r"^{folder}/val: it holds no class folders"),
    "lacking in val": (
        [*(f"train/{c}/1.jpg" for c in "abc"), *(f"val/{c}/1.jpg" for c in "ab")],
        r"^{folder}: train has the class c, but val does not; both need the same classes$",
    ),
    "lacking in train": (
        [*(f"train/{c}/1.jpg" for c in "ab"), *(f"val/{c}/1.jpg" for c in "abcdefghi")],
        r"^{folder}: val has the classes c, d, e, f, g and 2 more, but train does not; both need the same classes$",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_folders_that_are_not_data_sets_are_refused_in_one_line(tmp_path, case):
    files, message = WRONG[case]
    with pytest.raises(UserError, match=message.replace("{folder}", str(tmp_path))) as error:
        folders.scan(touch(tmp_path, *files))
    assert "\n" not in str(error.value)


def test_a_missing_folder_is_refused(tmp_path):
    for path in (tmp_path / "none", photo(tmp_path / "file.jpg")):
        with pytest.raises(UserError, match=f"^data.folder={path}: there is no such folder$"):
            folders.scan(path)


@pytest.mark.parametrize("name", ["", "cat", "dog/deep"])
def test_a_folder_without_read_permission_is_refused(tmp_path, monkeypatch, name):
    touch(tmp_path, "cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/deep/2.jpg")
    scandir, listdir = os.scandir, os.listdir

    def refusing(function):
        def call(path):
            if Path(path) == tmp_path / name:
                raise PermissionError(13, "Permission denied", str(path))
            return function(path)

        return call

    monkeypatch.setattr(os, "scandir", refusing(scandir))
    monkeypatch.setattr(os, "listdir", refusing(listdir))
    with pytest.raises(UserError, match=f"^{tmp_path / name}: cannot be read: Permission denied$"):
        folders.scan(tmp_path)


def test_a_link_to_a_missing_file_is_refused(tmp_path):
    touch(tmp_path, "cat/1.jpg", "dog/1.jpg", "dog/2.jpg")
    (tmp_path / "cat" / "2.jpg").symlink_to(tmp_path / "gone.jpg")
    with pytest.raises(UserError, match="cat/2.jpg: this link points to a file that does not exist"):
        folders.scan(tmp_path)


@pytest.fixture
def photos(tmp_path):
    """A folder with two classes of five grey photographs each, of several sizes; the brightness tells them apart."""
    for i in range(5):
        photo(tmp_path / "photos" / "dark" / f"{i}.png", 10 * i, size=(9 + i, 20))
        photo(tmp_path / "photos" / "light" / f"{i}.png", 200 + 10 * i, size=(20, 9 + i))
    return tmp_path / "photos"


def test_images_are_resized_and_cropped_with_their_labels(photos):
    train, test, classes = load(data_config(photos))
    assert classes == ("dark", "light")
    assert (train.images.shape, test.images.shape) == ((8, 8, 8, 3), (2, 8, 8, 3))
    assert train.images.dtype == np.uint8
    assert train.labels.dtype == np.int32
    found = folders.scan(photos)
    for images, files in ((train, found.train), (test, found.test)):
        np.testing.assert_array_equal(images.labels, [label for _, label in files])
        for image, (path, label) in zip(images.images, files, strict=True):
            assert (image == 200 * label + 10 * int(path.stem)).all()


def test_the_side_of_stored_photographs(photos):
    assert load(data_config(photos, image_size=6, resize=7))[0].images.shape == (8, 7, 7, 3)
    with pytest.raises(UserError, match=r"^data.image_size=0: photographs differ in size; set the side"):
        datasets.load(data_config(photos, image_size=0))
    with pytest.raises(UserError, match=r"^data.resize=7 must be at least data.image_size=8"):
        datasets.load(data_config(photos, resize=7))


def test_a_damaged_photograph_is_named(photos, fresh_cache):
    (photos / "light" / "3.png").write_bytes((photos / "light" / "3.png").read_bytes()[:40])
    with pytest.raises(UserError, match="light/3.png: "):
        datasets.load(data_config(photos))
    assert not fresh_cache.exists()


def test_available_memory_is_checked_before_decoding(photos, monkeypatch):
    monkeypatch.setattr(folders, "_available_memory", lambda: 10 * 3000 * 3000 * 3)
    monkeypatch.setattr(decoding, "square_around_crop", None)  # a call would fail
    message = r"^10 images of 3000x3000 pixels take 0.3 GiB, and 0.3 GiB of memory are available; choose a smaller"
    with pytest.raises(UserError, match=message):
        load(data_config(photos, resize=3000))


def test_available_memory_is_known_on_this_system():
    assert 2**20 < folders._available_memory() < 2**50


def test_photographs_are_split_into_train_validation_and_test(photos):
    data = datasets.load(data_config(photos, validation=3))
    assert (len(data.train), len(data.validation), len(data.test)) == (5, 3, 2)
    assert data.classes == ("dark", "light")
    with pytest.raises(UserError, match="must be below the 8 training images of .*photos"):
        datasets.load(data_config(photos, validation=8))


def test_photographs_in_memory_have_the_fingerprint_of_those_on_disk(photos):
    """A fingerprint does not depend on the place of the folder. It changes if one is added, renamed or set aside."""
    settings = {"validation": 3, "subset": 4}
    data = data_config(photos, **settings)
    first = datasets.load(data).fingerprint
    assert first == datasets.load(data, pipeline="stream").fingerprint == datasets.load_for_evaluation(data).fingerprint
    moved = photos.rename(photos.with_name("moved"))
    assert datasets.load(data_config(moved, **settings)).fingerprint == first
    found = [first, *(datasets.load(data_config(moved, **{key: 1})).fingerprint for key in settings)]
    photo(moved / "dark" / "9.png", 99)
    found.append(datasets.load(data_config(moved, **settings)).fingerprint)
    (moved / "dark" / "9.png").rename(moved / "dark" / "8.png")
    found.append(datasets.load(data_config(moved, **settings)).fingerprint)
    assert len(set(found)) == 5


def test_a_second_load_decodes_nothing(photos, fresh_cache, monkeypatch):
    first = datasets.load(data_config(photos))
    (entry,) = fresh_cache.iterdir()
    assert entry.name.startswith("folder-photos-")
    monkeypatch.setattr(decoding, "square_around_crop", None)  # a call would fail
    monkeypatch.chdir(photos.parent)
    for folder in (photos, "photos"):
        second = datasets.load(data_config(folder))
        np.testing.assert_array_equal(first.train.images, second.train.images)
        np.testing.assert_array_equal(first.test.labels, second.test.labels)
    # The same squares serve a smaller crop whose offset has the same remainder.
    assert datasets.load(data_config(photos, image_size=4, resize=8)).train.images.shape == (8, 8, 8, 3)


def test_changes_that_make_another_cache_entry(photos, fresh_cache):
    def entries(**keys):
        datasets.load(data_config(photos, **keys))
        return len(list(fresh_cache.iterdir()))

    assert [entries(), entries(resize=9), entries(interpolation="bicubic"), entries(interpolation="box")] == [
        1,
        2,
        3,
        4,
    ]
    photo(photos / "dark" / "1.png", 77)
    assert entries() == 5
    photo(photos / "dark" / "9.png", 99)
    assert entries() == 6
    # The same files, but another class links to one of them.
    (photos / "dark" / "link.png").symlink_to(photos / "dark" / "9.png")
    assert entries() == 7
    (photos / "dark" / "link.png").rename(photos / "light" / "link.png")
    assert entries() == 8


def test_a_long_folder_name_is_cut_in_the_cache(tmp_path):
    folder = tmp_path / ("ü" * 120)
    for name in ("cat", "dog"):
        photo(folder / name / "1.png"), photo(folder / name / "2.png")
    assert len(datasets.load(data_config(folder)).train) == 2


def test_data_sets_by_name_are_resized():
    found = {
        name: datasets.load(data_config("", name="digits", image_size=5, interpolation=name)).test.images
        for name in ("box", "bilinear", "bicubic")
    }
    default = data_config("", name="digits", image_size=5, interpolation=config.base().data.interpolation)
    np.testing.assert_array_equal(datasets.load(default).test.images, found["box"])
    first = Image.fromarray(datasets.load(default | {"image_size": 0}).test.images[0, ..., 0])
    for name, images in found.items():
        expected = first.resize((5, 5), getattr(Image.Resampling, name.upper()))
        np.testing.assert_array_equal(images[0, ..., 0], np.asarray(expected))
    assert loaders._Size(32).cache_name("cifar10") == "cifar10"
    assert loaders._Size(0, "bicubic").cache_name("cifar10") == "cifar10"
    assert loaders._Size(32, "bicubic").cache_name("cifar10") == "cifar10-bicubic"


def random_images(n, side):
    rng = np.random.default_rng(0)
    return Images(rng.integers(0, 256, (n, side, side, 3), np.uint8), np.arange(n, dtype=np.int32))


def batch(data, step=0, **keys):
    half = pixels.Normalization(np.full(3, 0.5), np.ones(1))
    size, seed = keys.pop("batch_size", 32), 7
    transform = Transform(half, jnp.float32, **keys)
    arrays = layouts.put(data, SingleDeviceSharding(jax.devices()[0]))
    place = jnp.arange(size, dtype=jnp.uint32)
    found = layouts.shuffled(size).batch_at(arrays, seed, jnp.int32(step), place) | {"place": place}
    images, labels = transform.train(found, seed, jnp.int32(step)), found["labels"]
    keys = example_keys(seed, "augmentation", jnp.int32(step), place)
    bits = jax.vmap(lambda key: jax.random.bits(key, (3,), jnp.uint32))(keys)
    return np.asarray(images), np.asarray(labels), np.asarray(bits)


def in_numpy(data, labels, bits, pad, flip, side, places):
    """Returns the augmentation in NumPy, from the same random bits."""
    expected = []
    for label, (vertical, horizontal, mirrored) in zip(labels, bits.tolist(), strict=True):
        image = np.pad(data.images[label] / 255 - 0.5, ((pad, pad), (pad, pad), (0, 0)))
        top, left = vertical % places, horizontal % places
        image = image[top : top + side, left : left + side]
        expected.append(image[:, ::-1] if flip and mirrored % 2 else image)
    return np.stack(expected)


@pytest.mark.parametrize("pad", [0, 2])
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("keys", [{}, {"crop": 0}])
def test_without_a_crop_the_augmentation_equals_numpys(pad, flip, keys):
    data = random_images(40, 6)
    images, labels, bits = batch(data, step=3, pad=pad, flip=flip, **keys)
    expected = in_numpy(data, labels, bits, pad, flip, side=6, places=2 * pad + 1)
    np.testing.assert_allclose(images, expected, atol=1e-6)


@pytest.mark.parametrize(("pad", "crop"), [(0, 5), (2, 5), (0, 8), (1, 8), (1, 10)])
def test_random_crops_equal_numpys(pad, crop):
    data = random_images(40, 8)
    images, labels, bits = batch(data, step=3, pad=pad, flip=True, crop=crop)
    assert images.shape == (32, crop, crop, 3)
    expected = in_numpy(data, labels, bits, pad, True, side=crop, places=8 + 2 * pad - crop + 1)
    np.testing.assert_allclose(images, expected, atol=1e-6)


def test_all_crops_are_equally_likely():
    data = Images(np.arange(36, dtype=np.uint8).reshape(1, 6, 6, 1), np.zeros(1, np.int32))
    images, _, _ = batch(data, pad=0, flip=False, crop=4, batch_size=900)
    corners = np.rint((images[:, 0, 0, 0] + 0.5) * 255).astype(int)
    counts = Counter(corners.tolist())
    assert sorted(counts) == [0, 1, 2, 6, 7, 8, 12, 13, 14]
    assert sum((n - 100) ** 2 / 100 for n in counts.values()) < 26.1  # 8 degrees of freedom: once in 1,000


def test_a_crop_larger_than_the_images_is_refused():
    with pytest.raises(ValueError, match="a crop of 9 is larger than the padded images, 8x8"):
        batch(random_images(4, 8), pad=0, flip=False, crop=9)
    with pytest.raises(ValueError, match="a crop of 9x9 is larger than the images of 8x8 pixels"):
        center(jnp.zeros((1, 8, 8, 3)), 9, 9)


def test_evaluation_and_reestimation_use_the_central_crop():
    """Large images with ``crop`` give the same results as images that are already cropped."""
    data = random_images(23, 12)
    cropped = Images(data.images[:, 2:10, 2:10], data.labels % 10)
    data = Images(data.images, data.labels % 10)
    c = config.base()
    c.model.update(unit="plain", stage_units=(1,), stage_filters=(4,))
    network, mesh = build(c.model, 10, axis_name=DATA_AXIS), data_mesh()
    normalization = pixels.normalization("channel", data)
    variables = jax.jit(build(c.model, 10).init)(jax.random.key(0), jnp.ones((1, 8, 8, 3)))
    found = []
    for images, crop in ((data, 8), (cropped, 0)):
        transform = Transform(normalization, jnp.float32, crop=crop)
        batches = (images.images[i : i + 10] for i in range(0, 23, 10))
        statistics = reestimate(network, variables["params"], transform, batches)
        evaluate = make_evaluate(network, layouts.ordered(16), transform, 10, mesh)
        evaluated = {"params": variables["params"], "batch_stats": statistics}
        found.append((evaluate(evaluated, [layouts.put(images, replicated(mesh))]), statistics))
    assert found[0][0].errors == found[1][0].errors
    assert found[0][0].loss == pytest.approx(found[1][0].loss, rel=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found[0][1], found[1][1])


def test_caffes_normalization():
    data = random_images(4, 8)
    found = pixels.normalization("caffe", data)(jnp.asarray(data.images), jnp.float32)
    np.testing.assert_allclose(found, data.images - np.asarray([123.68, 116.779, 103.939]), atol=1e-4)
    with pytest.raises(ValueError, match="data.normalization='caffe' needs images with 3 channels, but these have 1"):
        pixels.normalization("caffe", Images(data.images[..., :1], data.labels))


def test_the_folder_config_loads_photographs(photos):
    c = config.load("configs/folder.py", "residual-34", {"data.folder": str(photos)})
    config.validate(c)
    assert (c.model.depth, c.model.block, c.data.image_size, c.data.resize) == (34, "basic", 224, 256)
    train, _, _ = load(c.data)
    assert train.images.shape == (8, 256, 256, 3)


@pytest.mark.skipif(not PHOTOS.is_dir(), reason=f"no photographs in {PHOTOS}")
def test_the_shared_photographs_load(fresh_cache):
    data = datasets.load(data_config(PHOTOS, image_size=56, resize=64))
    assert len(data.classes) >= 2
    assert data.train.images.shape[1:] == data.test.images.shape[1:] == (64, 64, 3)
    assert len(np.unique(data.train.images.reshape(len(data.train), -1), axis=0)) == len(data.train)
    assert 60 < data.train.images.mean() < 180
    assert data.train.images.std((1, 2)).min() > 0.5
