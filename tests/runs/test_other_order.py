"""Tests on the same images in another order, as in another form of a data set: other splits, and other batches."""

import json
import shutil

import numpy as np
import pytest

from resnet_flax import config
from resnet_flax.data import datasets
from resnet_flax.errors import UserError
from resnet_flax.evaluation_config import config_of_file, config_of_run
from resnet_flax.evaluation_set import Trained, load_evaluation_set
from resnet_flax.interchange.files import Weights
from resnet_flax.runs import checksums, resume
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.runs.file_names import PHOTOGRAPHS
from resnet_flax.training import loop
from resnet_flax.training.readiness import images_record
from tests.commands import command, finish, free_port, start
from tests.data.prepared_sets import prepare
from tests.data.test_archives import CLASSES, planes, write

NAMES = CLASSES["cifar10"]


def config_of(folder, **keys):
    given = {
        "data.data_dir": str(folder), "data.validation": 12, "data.normalization": "none", "model.stage_units": (1,),
        "model.width": 0.25, "train.batch_size": 8, "train.steps": 2, "train.log_every": 2, "train.eval_every": 2,
        "train.checkpoint_every": 2, "schedule.milestones": (1, 2),
    }  # fmt: skip
    return config.load("configs/cifar10.py", "residual-8", given | keys)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """60 training images as an archive and as a set that TFDS has prepared, and a run on the archive."""
    folder, rng = tmp_path_factory.mktemp("order"), np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (70, 32, 32, 3), np.uint8), rng.integers(0, 10, 70)
    records = np.concatenate([labels[:, None].astype(np.uint8), planes(images)], 1)
    files = {f"data_batch_{i + 1}.bin": records[12 * i : 12 * i + 12].tobytes() for i in range(5)}
    files |= {"test_batch.bin": records[60:].tobytes(), "batches.meta.txt": "\n".join(NAMES).encode()}
    (folder / "archive").mkdir()
    write(folder / "archive" / "cifar-10-binary.tar.gz", files)
    examples = list(zip(images, labels, strict=True))
    prepare(folder / "prepared", "Cifar10", {"train": examples[:60][::-1], "test": examples[60:]}, NAMES)
    loop.run(config_of(folder / "archive"), folder / "run")
    return folder


def images_of(split):
    return {image.tobytes() for image in split.images}


def load(place, split, **keys):
    """Returns the images on which the run is evaluated with a config for the prepared set."""
    given = config.load("configs/cifar10.py", "residual-8", {"model.stage_units": (1,), **keys})
    given.data.data_dir = str(place / "prepared")
    chosen = load_evaluation_set(
        config_of_run(place / "run", given), split, trained=Trained.of_run(RunDirectory(place / "run"))
    )
    return chosen.splits[split]


def test_other_validation_images_are_not_evaluated_as_held_out(place):
    first, second = (datasets.load(config_of(place / form).data) for form in ("archive", "prepared"))
    whole = [images_of(data.train) | images_of(data.validation) for data in (first, second)]
    assert whole[0] == whole[1]
    assert len(images_of(second.validation) & images_of(first.train)) > 0
    code, output = command(
        "-m", "resnet_flax.evaluate", f"--workdir={place / 'run'}", "--split=validation",
        "--config=configs/cifar10.py:residual-8", "--config.model.stage_units=(1,)",
        f"--config.data.data_dir={place / 'prepared'}",
    )  # fmt: skip
    assert code == 2, output
    last = output.splitlines()[-1]
    assert f"{place / 'run'}: its images are not those it was begun on, or come in another order: 48 + 10 (" in last
    assert "cifar-10-binary.tar.gz) then, 48 + 10 (" in last
    assert "cifar10/1.0.0) now; so --split=validation is no longer what was set aside in training" in last
    with pytest.raises(UserError, match="its images are not those it was begun on"):
        load(place, "train")
    assert images_of(load(place, "test")) == images_of(first.test)
    # Pixels of another size, and photographs on disk, are not compared.
    assert len(load(place, "validation", **{"data.image_size": 16})) == 12
    streamed = {"data.pipeline": "stream", "data.image_size": 32, "data.pad": 0}
    assert len(load(place, "validation", **streamed)) == 12


def test_a_run_on_a_subset_is_not_evaluated_on_another(place, tmp_path):
    """A subset of training images depends on their order, too."""
    c = config_of(place / "archive", **{"data.validation": 0, "data.subset": 48})
    run = RunDirectory(tmp_path)
    run.write_config(config.resolve(c))
    run.write_images(RunDirectory(place / "run").preprocessing(), images_record(datasets.load(c.data)))
    assert len(load_evaluation_set(config_of_run(tmp_path), "train", trained=Trained.of_run(run)).splits["train"]) == 48
    held_out = config.load("configs/cifar10.py", "residual-8", {"model.stage_units": (1,), "data.validation": 5})
    held_out.data.data_dir = str(place / "archive")
    with pytest.raises(UserError, match=r"data.validation=5: .* set 0 images aside .*; choose --split=test$"):
        load_evaluation_set(config_of_run(tmp_path, held_out), "validation", trained=Trained.of_run(run))
    c.data.data_dir = str(place / "prepared")
    with pytest.raises(UserError, match="so --split=train is no longer what was set aside in training"):
        load_evaluation_set(config_of_run(tmp_path, c), "train", trained=Trained.of_run(run))
    chosen = load_evaluation_set(config_of_run(tmp_path, c), "test", trained=Trained.of_run(run))
    assert len(chosen.splits["test"]) == 10


def test_other_sizes_of_the_splits_are_evaluated_if_the_images_are_the_same(place):
    """Regression test: a part of the training images was taken for other images than those trained on."""
    run = RunDirectory(place / "run")

    def split(name, **keys):
        given = config.load("configs/cifar10.py", "residual-8", {"model.stage_units": (1,), **keys})
        given.data.data_dir = str(place / "archive")
        return load_evaluation_set(config_of_run(run.path, given), name, trained=Trained.of_run(run)).splits[name]

    trained = datasets.load(config_of(place / "archive").data)
    part = images_of(split("train", **{"data.subset": 10}))
    assert len(part) == 10
    assert part < images_of(trained.train)
    part = images_of(split("validation", **{"data.validation": 5}))
    assert len(part) == 5
    assert part < images_of(trained.validation)
    with pytest.raises(UserError, match=r"data.validation=13: .* set 12 images aside .*; choose at most 12"):
        split("validation", **{"data.validation": 13})


def test_a_file_of_weights_is_not_evaluated_on_images_that_its_run_was_trained_on(place):
    run = RunDirectory(place / "run")
    documents = config.to_json(run.existing_config()), run.preprocessing().to_json(), json.dumps(run.photographs())
    file = Weights(place / "run.safetensors", {}, *documents)

    def split(form, **keys):
        given = config.load("configs/cifar10.py", "residual-8", {"model.stage_units": (1,), **keys})
        given.data.data_dir = str(place / form)
        return load_evaluation_set(config_of_file(file, given), "validation", trained=Trained.of_file(file))

    with pytest.raises(
        UserError, match=r"data.validation=13: .*run.safetensors: its run's training set 12 images aside"
    ):
        split("archive", **{"data.validation": 13})
    trained = datasets.load(config_of(place / "archive").data)
    assert images_of(split("archive").splits["validation"]) == images_of(trained.validation)
    with pytest.raises(UserError, match=r"run.safetensors: its run's images are not those it was begun on, or come in"):
        split("prepared")


def test_a_run_resumes_on_the_same_images_in_the_same_order(place, tmp_path):
    shutil.copytree(place / "archive", tmp_path / "copy")
    shutil.copytree(place / "run", tmp_path / "run")
    longer = {"train.steps": 4}
    with pytest.raises(UserError, match=r"its images are not those .* another order: .*; choose another folder, or"):
        loop.run(config_of(place / "prepared", **longer), tmp_path / "run")
    assert loop.run(config_of(tmp_path / "copy", **longer), tmp_path / "run")["step"] == 4


def test_runs_of_an_earlier_version_are_not_compared(place, tmp_path):
    shutil.copytree(place / "run", tmp_path / "run")
    for name in (PHOTOGRAPHS, checksums.FILE):
        (tmp_path / "run" / name).unlink()
    now = images_record(datasets.load(config_of(place / "prepared").data))
    preprocessing = RunDirectory(place / "run").preprocessing()
    with pytest.raises(UserError, match="its images are not those it was begun on"):
        resume.check_images(RunDirectory(place / "run"), preprocessing, now)
    resume.check_images(RunDirectory(tmp_path / "run"), preprocessing, now)


def test_hosts_with_the_images_in_different_orders_stop(place, tmp_path):
    join = (f"--coordinator=localhost:{free_port()}", "--processes=2")
    processes = [
        start(
            "train.py", "--config=configs/cifar10.py:residual-8", f"--config.data.data_dir={place / form}",
            "--config.data.normalization=none", "--config.train.batch_size=8", f"--workdir={tmp_path / 'run'}",
            *join, f"--process={i}",
        )
        for i, form in enumerate(("archive", "prepared"))
    ]  # fmt: skip
    results = [finish(process) for process in processes]
    assert [code for code, _ in results] == [2, 2], results
    assert all("cifar10: the images of process 1 differ from those of process 0" in output for _, output in results)
