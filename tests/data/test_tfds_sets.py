"""Tests of prepared TFDS data sets with images of any mode, size and builder config."""

import numpy as np
import pytest
from PIL import Image

from resnet_flax import config, model
from resnet_flax.data import decoding
from resnet_flax.data.images import center
from resnet_flax.errors import UserError
from resnet_flax.runs import checksums, rules
from resnet_flax.training import loop
from tests.commands import command
from tests.data.prepared_sets import grey, prepare
from tests.data.test_labels import load
from tests.training.small import small_config


def noise(height, width, channels=3, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def by_first_pixel(images):
    return images[np.lexsort(images[:, 0, 0].T)]


def test_palette_images_are_read_as_colours(tmp_path):
    """Both pipelines read the colour red, not its index in the palette."""
    image = Image.new("P", (8, 8), 1)
    image.putpalette([0, 0, 0, 255, 0, 0])
    grey_one = Image.new("L", (8, 8), 7)
    prepare(tmp_path, "Palette", {"train": [(image, 0), (grey_one, 1)], "test": [(image, 0)]}, ["a", "b"])
    data = load(tmp_path, "palette")
    assert (data.test.images == [255, 0, 0]).all()
    assert sorted(data.train.images[:, 0, 0].tolist()) == [[7, 7, 7], [255, 0, 0]]
    streamed = load(tmp_path, "palette", "stream")
    assert (np.asarray(decoding.read_photo(streamed.test[0])) == [255, 0, 0]).all()


def test_several_builder_configs_are_refused_unless_one_is_named(tmp_path):
    for name, value in (("a", 10), ("b", 20)):
        examples = {"train": grey([value] * 4, [0, 1] * 2), "test": grey([value], [0])}
        prepare(tmp_path, "Multi", examples, ["x", "y"], builder_config=name)
    with pytest.raises(
        UserError, match="several builder configs are prepared in .*multi; name one of multi/a, multi/b$"
    ):
        load(tmp_path, "multi")
    assert (load(tmp_path, "multi/b").train.images == 20).all()
    place = tmp_path / "multi" / "a" / "1.0.0"
    assert (load(place, "multi").train.images == 10).all()
    assert (load(place, "multi/a").train.images == 10).all()
    with pytest.raises(UserError, match="data.name='multi/b'"):
        load(place, "multi/b")


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A folder of images of 20x32 and 33x20 pixels; and the file of the second training image."""
    folder = tmp_path_factory.mktemp("wide")
    shapes = [(20, 32), (33, 20), (20, 32), (33, 20)]
    train = [(noise(*shape, seed=i), i % 2) for i, shape in enumerate(shapes)]
    prepare(folder, "Wide", {"train": train, "test": train[:2]}, ["a", "b"])
    return folder, [image for image, _ in train]


@pytest.mark.parametrize(("resize", "size"), [(19, 16), (18, 16), (0, 16)])
def test_the_shorter_side_is_resized_and_the_centre_cropped(wide, resize, size):
    """Images keep their aspect ratio; central crops equal those of photographs on disk."""
    folder, arrays = wide
    data = load(folder, "wide", resize=resize, interpolation="bilinear", image_size=size)
    side = resize or size
    assert data.train.images.shape == (4, side, side, 3)
    found = center(np.asarray(data.train.images), size, size)
    expected = np.stack([decoding.resize_and_crop(array, side, size, 3, "bilinear") for array in arrays])
    np.testing.assert_array_equal(by_first_pixel(found), by_first_pixel(expected))


def test_the_folder_config_crops_data_by_name(wide, tmp_path):
    folder, _ = wide
    c = config.load("configs/folder.py", "residual-18")
    c.update_from_flattened_dict({
        "data.name": "wide", "data.data_dir": str(folder), "data.image_size": 16, "data.resize": 19,
        "model.stage_units": (1,), "model.width": 0.125, "train.steps": 1, "train.batch_size": 8,
        "train.eval_batch_size": 8, "train.log_every": 1, "train.eval_every": 1,
    })  # fmt: skip
    last = loop.run(c, tmp_path)
    net = model.from_run(tmp_path)
    assert (net.preprocessing.resize, net.preprocessing.image_size) == (19, 16)
    # The test error of training equals that of the network on the files.
    _, arrays = wide
    wrong = [int(np.argmax(net.features(net.prepare(a))["logits"])) != i for i, a in enumerate(arrays[:2])]
    assert last["test_error"] == np.mean(wrong)


def test_earlier_runs_that_squashed_images_count_as_old(wide, tmp_path):
    """They are not resumed, and their evaluation says so."""

    def reasons(**overrides):
        return rules.old_rules(config.resolve(small_config(**{"data__name": "wide"} | overrides)), 1)

    assert "data.resize was ignored" in reasons(data__image_size=16, data__resize=19)[0]
    assert "were squashed into a square" in reasons(data__image_size=16)[0]
    assert reasons() == reasons(data__name="cifar10", data__image_size=16) == []
    folder, _ = wide
    c = small_config(
        model__stage_units=(1,), train__steps=1, train__batch_size=8, data__name="wide", data__data_dir=str(folder),
        data__image_size=16,
    )  # fmt: skip
    loop.run(c, tmp_path)
    for file, new, old in [("starts.jsonl", f'"rules": {rules.RULES}', '"rules": 1'),
                           ("config.json", '"resize": 0', '"resize": 19')]:  # fmt: skip
        (tmp_path / file).write_text((tmp_path / file).read_text().replace(new, old))
    (tmp_path / checksums.FILE).unlink()  # which earlier versions did not write
    code, output = command("-m", "resnet_flax.evaluate", f"--workdir={tmp_path}")
    assert code == 0, output
    assert "begun under an old rule, and evaluated by today's: its images were resized to data.image_size" in output


def test_a_transparent_set_trains_and_predicts(tmp_path):
    examples = [(noise(9, 9, 4, seed=i), i % 2) for i in range(8)]
    prepare(tmp_path / "data", "Clear", {"train": examples, "test": examples[:2]}, ["a", "b"], channels=4)
    c = small_config(
        model__stage_units=(1,), train__steps=1, train__batch_size=8, data__name="clear",
        data__data_dir=str(tmp_path / "data"), data__image_size=8,
    )  # fmt: skip
    loop.run(c, tmp_path / "run")
    net = model.from_run(tmp_path / "run")
    path = tmp_path / "1.png"
    Image.fromarray(examples[0][0]).save(path)
    decoded = load(tmp_path / "data", "clear").test.images
    np.testing.assert_array_equal(
        by_first_pixel(decoded),
        by_first_pixel(np.stack([decoding.resize_and_crop(e, 8, 8, 4, "box") for e, _ in examples[:2]])),
    )
    assert net.prepare(path).shape == (1, 8, 8, 4)
    assert net.features(net.prepare([path, examples[1][0]]))["logits"].shape == (2, 2)
    Image.fromarray(examples[0][0][..., :3]).save(path)  # an opaque image without an alpha channel
    assert net.prepare(str(path)).shape == (1, 8, 8, 4)
