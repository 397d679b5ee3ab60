"""A run directory: its lock, the checks before a resume, and whether the run is finished."""

import dataclasses
import errno
import fcntl
import json
import shutil
import threading

import pytest
from PIL import Image

from resnet_flax import config
from resnet_flax.errors import UserError
from resnet_flax.registry import Registry
from resnet_flax.runs import checksums, resume
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.runs.file_names import CONFIG, LOCK, METRICS, PHOTOGRAPHS, PREPROCESSING, STARTS
from resnet_flax.runtime.environment import environment
from resnet_flax.runtime.hosts import Hosts
from resnet_flax.training import loop, schedule
from resnet_flax.training.readiness import check_images, images_record
from resnet_flax.training.setup import prepare
from tests.training.small import small_config


def finished_folder(path, c):
    RunDirectory(path).write_config(c)
    (path / METRICS).write_text(json.dumps({"step": c.train.steps}) + "\n")
    (path / "checkpoints" / str(c.train.steps)).mkdir(parents=True)
    return path


def resolved(**overrides):
    return config.resolve(small_config(**overrides))


def test_a_folder_in_use_is_locked_until_it_is_released(tmp_path):
    with RunDirectory(tmp_path / "new" / "run").locked():
        assert (tmp_path / "new" / "run").is_dir()
        with (
            pytest.raises(UserError, match=r"new/run: another process is running there; wait for it"),
            RunDirectory(tmp_path / "new" / "run").locked(),
        ):
            pass
    with RunDirectory(tmp_path / "new" / "run").locked():
        pass


def test_a_look_at_the_lock_does_not_refuse_a_start(tmp_path):
    """Regression test: ``status --watch`` holds the lock for a moment, and a start at that moment was refused."""
    with RunDirectory(tmp_path).locked():
        pass
    with open(tmp_path / LOCK, "rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        threading.Timer(0.2, fcntl.flock, [file, fcntl.LOCK_UN]).start()
        with RunDirectory(tmp_path).locked():
            pass


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK])
def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch, number):
    """Regression test: the lock was then a file, which outlived a killed process, so no later start was possible."""

    def flock(file, operation):
        raise OSError(number, "not here")

    monkeypatch.setattr(fcntl, "flock", flock)
    run = RunDirectory(tmp_path)
    for lock in (run.locked, lambda: run.wait_until_free(1, lambda: False)):
        with pytest.raises(UserError, match=f"^--workdir={tmp_path}: its file system has no locks"), lock():
            pass
    assert not run.is_locked()


def test_the_first_host_decides_that_a_run_is_finished(tmp_path, monkeypatch):
    """Another host may not see the last checkpoint yet."""

    class SecondHost(Hosts):
        first = property(lambda self: False, lambda self, value: None)

        def from_first(self, numbers):
            return [1]

    finished_folder(tmp_path, resolved())
    (tmp_path / "checkpoints" / "12").rename(tmp_path / "checkpoints" / "8")
    monkeypatch.setattr(loop, "Hosts", SecondHost)
    assert loop.run(resolved(), tmp_path) == {"step": 12}


def test_an_error_releases_the_lock(tmp_path):
    def fail():
        with RunDirectory(tmp_path).locked():
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with RunDirectory(tmp_path).locked():
        pass


def test_a_folder_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(UserError, match="file/run: cannot be created: Not a directory"),
        RunDirectory(tmp_path / "file" / "run").locked(),
    ):
        pass


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({}, None),
        ({"train__steps": 13}, None),
        ({"data__download": False}, None),
        ({"train__steps": 11}, "train.steps: 12 there, 11 now"),
        ({"seed": 1, "model__width": 0.5}, "differ in model.width: 0.25 there, 0.5 now; seed: 0 there, 1 now"),
    ],
    ids=str,
)
def test_a_run_of_another_config_is_refused(tmp_path, overrides, message):
    resume.check_config(RunDirectory(tmp_path), resolved())  # an empty folder accepts any config
    RunDirectory(tmp_path).write_config(resolved())
    if message is None:
        resume.check_config(RunDirectory(tmp_path), resolved(**overrides))
    else:
        with pytest.raises(UserError, match=message):
            resume.check_config(RunDirectory(tmp_path), resolved(**overrides))


@pytest.mark.parametrize(
    ("overrides", "finished"),
    [
        ({}, True),
        ({"data__download": False}, True),  # the key does not affect results
        ({"train__steps": 13}, False),
        ({"seed": 1}, False),
    ],
    ids=str,
)
def test_a_run_is_finished_if_its_own_config_has_reached_the_last_step(tmp_path, overrides, finished):
    finished_folder(tmp_path, resolved())
    assert RunDirectory(tmp_path).is_finished(resolved(**overrides)) is finished


@pytest.mark.parametrize("lost", ["config", "metrics", "checkpoint", "last line"])
def test_a_folder_that_lacks_something_is_not_finished(tmp_path, lost):
    finished_folder(tmp_path, resolved())
    if lost == "config":
        checksums.remove(tmp_path / CONFIG)
    elif lost == "metrics":
        (tmp_path / METRICS).unlink()
    elif lost == "checkpoint":
        (tmp_path / "checkpoints" / "12").rename(tmp_path / "checkpoints" / "8")
    else:
        (tmp_path / METRICS).write_text('{"step": 8}\n')
    assert not RunDirectory(tmp_path).is_finished(resolved())


def test_the_status_is_finished_once_the_last_checkpoint_is_complete(tmp_path):
    """Regression test: the last line of metrics, which is written before that checkpoint, decided alone."""
    run, checkpoint = RunDirectory(finished_folder(tmp_path, resolved())), tmp_path / "checkpoints" / "12"
    run.record_start(0, 269_722, 10, environment())

    def status():
        return str(run.status(run.metrics(), 12))

    assert status() == "finished"
    with run.locked():  # A command looks at the finished run.
        assert status() == "finished"
    checkpoint.rename(checkpoint.with_name("12.orbax-checkpoint-tmp"))
    with run.locked():
        assert status() == "running, after step 12"
    assert status() == "killed or failed after step 12, restarts at step 0"
    (tmp_path / "checkpoints" / "8").mkdir()
    assert status() == "killed or failed after step 12, resumes at step 8"
    shutil.rmtree(tmp_path / "checkpoints")
    assert status() == "finished"  # as the runs in results/
    with run.locked():
        assert status() == "running, after step 12"


def test_each_start_records_its_environment(tmp_path):
    assert RunDirectory(tmp_path).record_start(0, 269_722, 10, environment()) == []
    assert RunDirectory(tmp_path).record_start(500, 269_722, 10, environment()) == []
    first, second = (json.loads(text) for text in (tmp_path / STARTS).read_text().splitlines())
    assert (first["step"], second["step"], second["parameters"], second["classes"]) == (0, 500, 269_722, 10)
    assert first["devices"] == 8
    versions = {"python", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy"}
    machine = {"commit", "device", "processes", "cores", "processor"}
    assert versions | machine | {"matmul_precision", "convolution_chunk", "xla_flags"} <= first.keys()


def test_long_flags_of_xla_are_recorded_in_short(tmp_path, monkeypatch):
    """Regression test: with more than 500 characters, starts.jsonl could not be read again."""
    run, long = RunDirectory(tmp_path), "--xla_flag=true " * 60
    monkeypatch.setenv("XLA_FLAGS", long)
    assert run.record_start(0, 269_722, 10, environment.__wrapped__()) == []
    monkeypatch.setenv("XLA_FLAGS", long.replace(" ", "  "))
    assert run.record_start(1, 269_722, 10, environment.__wrapped__()) == []
    monkeypatch.setenv("XLA_FLAGS", long + "--another=1")
    assert len(run.record_start(2, 269_722, 10, environment.__wrapped__())) == 1
    assert len(run.starts()) == 3


def test_a_run_that_resumes_in_another_environment_says_so(tmp_path):
    run, here = RunDirectory(tmp_path), {"jax": "0.10.0", "python": "3.11", "devices": 8}
    run.record_start(0, 269_722, 10, here | {"jax": "0.0.1", "python": "3.0", "devices": 1})
    assert run.record_start(500, 269_722, 10, here) == ["jax 0.0.1, now 0.10.0", "devices 1, now 8"]
    assert run.record_start(600, 269_722, 10, here) == []
    assert run.record_start(0, 269_722, 10, here | {"jax": "0.0.1"}) == []  # a restart does not compare


def test_a_start_deletes_the_notes_on_how_the_run_ended_before(tmp_path):
    """Regression test: a run that got past the step at which it had diverged was called diverged for ever."""
    run = RunDirectory(tmp_path)
    run.write_config(resolved())
    run.write_diverged(5, "the loss is not finite")
    run.write_crash("OSError")
    run.write_interrupted(4)
    run.record_start(4, 269_722, 10, environment())
    assert {path.name for path in tmp_path.iterdir()} == {CONFIG, STARTS, checksums.FILE}
    run.check()


def photos(folder, classes, values=(0, 250)):
    for name, value in zip(classes, values, strict=True):
        (folder / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (8, 8), (value, value, i)).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture
def of_folder(tmp_path):
    """Two functions: one builds a config for a folder, the other begins a run on photographs of cats and dogs."""

    def config_of(name, normalization):
        place = {"data__folder": str(tmp_path / name), "data__image_size": 8, "data__normalization": normalization}
        return resolved(**place)

    def begun(normalization):
        photos(tmp_path / "pets", ("cat", "dog"))
        c = config_of("pets", normalization)
        (tmp_path / "run").mkdir()
        RunDirectory(tmp_path / "run").write_config(c)
        setup = prepare(c)
        RunDirectory(tmp_path / "run").write_images(setup.preprocessing, images_record(setup.dataset))
        return tmp_path / "run"

    return config_of, begun


def test_a_run_does_not_resume_with_other_classes(tmp_path, of_folder):
    """Other classes are refused, whether as many or more, and the run's files stay unchanged."""
    config_of, begun = of_folder
    workdir = begun("imagenet")
    before = {p.name: p.read_bytes() for p in workdir.iterdir()}
    photos(tmp_path / "two", ("car", "dog"))
    photos(tmp_path / "three", ("cat", "cow", "dog"), (0, 90, 250))
    for name, now in (("two", "car, dog"), ("three", "cat, cow, dog")):
        with pytest.raises(UserError, match=rf"/run holds a run on other .* in classes there: cat, dog; now: {now}$"):
            loop.run(config_of(name, "imagenet"), workdir)
    assert {p.name: p.read_bytes() for p in workdir.iterdir() if p.name != ".lock"} == before


def test_moved_images_are_accepted_and_changed_ones_are_refused(tmp_path, of_folder):
    config_of, begun = of_folder
    workdir = begun("channel")
    (tmp_path / "pets").rename(tmp_path / "moved")
    there = prepare(config_of("moved", "channel")).preprocessing
    resume.check_images(RunDirectory(workdir), there, None)
    photos(tmp_path / "brighter", ("cat", "dog"), (80, 250))
    brighter = prepare(config_of("brighter", "channel")).preprocessing
    with pytest.raises(UserError, match=r"differ in the mean of the training images; the std of the training images$"):
        resume.check_images(RunDirectory(workdir), brighter, None)
    with pytest.raises(UserError, match=r"image_size there: 8, now: 7$"):
        resume.check_images(RunDirectory(workdir), dataclasses.replace(there, image_size=7), None)
    written = (workdir / PREPROCESSING).stat().st_mtime_ns
    RunDirectory(workdir).write_images(there)
    assert (workdir / PREPROCESSING).stat().st_mtime_ns == written
    (workdir / PREPROCESSING).write_bytes(b"\xff")  # damaged
    with pytest.raises(UserError, match=r"preprocessing.json: is not as the run wrote it .* delete .*/sums.json"):
        resume.check_images(RunDirectory(workdir), there, None)
    (workdir / checksums.FILE).unlink()  # as in a run of an earlier version, where the file is written again
    resume.check_images(RunDirectory(workdir), there, None)
    RunDirectory(workdir).write_images(there)
    resume.check_images(RunDirectory(workdir), there, None)


@pytest.mark.parametrize("normalization", ["imagenet", "none"])
def test_photographs_in_memory_may_move_but_not_change(tmp_path, of_folder, normalization):
    """Statistics do not tell constantly normalised images apart; another photograph would move the test images."""
    config_of, begun = of_folder
    workdir = begun(normalization)
    (tmp_path / "pets").rename(tmp_path / "moved")
    c = config_of("moved", normalization)

    def check():
        setup = prepare(c)
        check_images(RunDirectory(workdir), c, setup.dataset, setup.normalization)

    check()
    (tmp_path / "moved" / "cat" / "new.png").write_bytes((tmp_path / "moved" / "cat" / "0.png").read_bytes())
    with pytest.raises(
        UserError, match=r"its photographs are not those .*: 4 \+ 2 \(.*pets\) then, 5 \+ 2 \(.*moved\) now"
    ):
        loop.run(c, workdir)
    (workdir / PHOTOGRAPHS).unlink()  # as in a run of an earlier version
    (workdir / checksums.FILE).unlink()
    check()


def test_a_damaged_config_is_named(tmp_path):
    for content in (b"{", b"\xff", b"[]"):
        (tmp_path / CONFIG).write_bytes(content)
        with pytest.raises(UserError, match=rf"^{tmp_path / 'config.json'}: "):
            RunDirectory(tmp_path).config()


def test_more_steps_change_a_cosine_schedule(tmp_path):
    RunDirectory(tmp_path).write_config(resolved(schedule__name="cosine"))
    with pytest.raises(UserError, match=r"decay_steps: 12 there, 20 now.* cosine .* set schedule.decay_steps=12$"):
        resume.check_config(RunDirectory(tmp_path), resolved(schedule__name="cosine", train__steps=20))
    resume.check_config(
        RunDirectory(tmp_path), resolved(schedule__name="cosine", train__steps=20, schedule__decay_steps=12)
    )


def test_a_run_of_a_users_schedule_resumes_though_its_decay_steps_were_not_derived(tmp_path, monkeypatch):
    monkeypatch.setattr(schedule, "SCHEDULES", Registry("schedule", schedule.SCHEDULES))
    schedule.SCHEDULES["linear"] = lambda rate, section: lambda step: rate
    now = resolved(schedule__name="linear")
    assert now.schedule.decay_steps == now.train.steps
    before = now.copy_and_resolve_references()
    before.schedule.decay_steps = 0
    RunDirectory(tmp_path).write_config(before)
    resume.check_config(RunDirectory(tmp_path), now)


def test_more_steps_change_derived_milestones(tmp_path):
    given = {"schedule.name": "piecewise", "data.folder": "photos"}
    RunDirectory(tmp_path).write_config(config.resolve(config.load("configs/folder.py", None, given)))
    given["train.steps"] = 4000
    with pytest.raises(UserError, match=r"\(2000, 3000\) now.*, set schedule.milestones=\(1000, 1500\)$"):
        resume.check_config(RunDirectory(tmp_path), config.resolve(config.load("configs/folder.py", None, given)))
    given["schedule.milestones"] = (1000, 1500)
    resume.check_config(RunDirectory(tmp_path), config.resolve(config.load("configs/folder.py", None, given)))
