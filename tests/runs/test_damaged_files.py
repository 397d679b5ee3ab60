"""Reading a run directory: a damaged, hostile or edited file gives one line that names it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnet_flax import config as configs
from resnet_flax.errors import UserError
from resnet_flax.runs import checksums
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.runs.file_names import CHECKPOINTS, CONFIG, DIVERGED, INTERRUPTED, METRICS, RECORD, STARTS
from resnet_flax.runs.records import record_path, record_text
from tests.training.small import small_config

LINES = [{"step": s, "train_error": 0.5, "test_error": s / 100, "seconds": 1.5} for s in (2, 4, 6, 8)]
TEXTS = [json.dumps(line) for line in LINES]
BROKEN = [{"image": "a\nb"}, {"image": "22.png"}, {"image": "333.png", "reason": "it is empty"}]


@pytest.fixture
def folder(tmp_path):
    """A run directory with checksums, and with a checkpoint of step 6 that stores three of the four lines."""
    checksums.write(tmp_path / CONFIG, configs.to_json(configs.resolve(small_config())))
    checksums.write(tmp_path / METRICS, "".join(text + "\n" for text in TEXTS))
    checksums.write(tmp_path / STARTS, json.dumps({"step": 0, "parameters": 7, "classes": 10}) + "\n")
    checksums.write(tmp_path / DIVERGED, json.dumps({"step": 9, "message": "not finite"}))
    checksums.write(tmp_path / INTERRUPTED, json.dumps({"step": 9}))
    place = tmp_path / CHECKPOINTS / "6" / RECORD
    place.mkdir(parents=True)
    record = {"step": 6, "arrays": {}, "lines": TEXTS[:3], "validation_error": None}
    record_path(place).write_text(record_text(record))
    return tmp_path


def refusal(read):
    """Returns the message for the user, or None."""
    try:
        read()
    except UserError as error:
        return str(error)
    return None


READ = {
    CONFIG: RunDirectory.config, METRICS: RunDirectory.metrics, STARTS: RunDirectory.starts,
    DIVERGED: RunDirectory.diverged, INTERRUPTED: RunDirectory.interrupted,
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_a_flipped_bit_anywhere_is_noticed(folder, name):
    path, read = folder / name, READ[name]
    content = path.read_bytes()
    right = read(RunDirectory(folder))
    assert right
    for place in range(0, len(content), max(1, len(content) // 40)):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises(UserError, match=rf"/{name}: is not as the run wrote it .* delete .*/sums.json"):
            read(RunDirectory(folder))
    path.unlink()
    with pytest.raises(UserError, match=rf"/{name}: is missing"):
        read(RunDirectory(folder))
    path.write_bytes(content)
    assert read(RunDirectory(folder)) == right


def test_a_damaged_file_of_sums_is_noticed(folder):
    content = (folder / checksums.FILE).read_bytes()
    start = content.index(b'"metrics.jsonl"')
    of_metrics = range(start, content.index(b"}", start))
    for place in range(0, len(content), 7):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        (folder / checksums.FILE).write_bytes(changed)
        said = refusal(RunDirectory(folder).check) or refusal(RunDirectory(folder).repaired_metrics)
        assert said is None or "sums.json" in said
        assert said or place in of_metrics  # The sum of these is then known from the checkpoint.
        assert said or RunDirectory(folder).repaired_metrics()[0] in (LINES, LINES[:3])
    (folder / checksums.FILE).unlink()
    RunDirectory(folder).check()


HOSTILE = [
    b"", b"\xff\xfe", b"5", b"[1]", b"null", b'"x"', b"{", b"[" * 100_000, b'{"a":' * 100_000, b'{"step": "4"}',
    b'{"step": -1}', b'{"step": true}', b'{"step": 1e400}', b'{"step": 4, "train_error": "x"}',
    b'{"step": 4, "seconds": null}', b'{"step": 4, "seconds": NaN}', b'{"step": 4, "seconds": "1"}',
    b'{"step": 4, "test_error": 1.5}', b'{"step": 4, "test_error": [1]}',
]  # fmt: skip
# Places in HOSTILE of what these files may hold: nothing, a line that was cut short, and keys of other versions.
HARMLESS = {STARTS: {0, 1, 6, 13, 14, 15, 16, 17}, INTERRUPTED: {13, 14, 15, 16, 17, 18}}


@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("name", READ)
def test_content_that_no_run_writes_is_refused_in_one_line(tmp_path, name, content):
    """The folder has no checksums, like a run of an earlier version. Some files may hold some of the contents."""
    (tmp_path / name).write_bytes(content + b"\n")
    said = refusal(lambda: READ[name](RunDirectory(tmp_path)))
    assert bool(said) == (HOSTILE.index(content) not in HARMLESS.get(name, ()))
    assert not said or (str(tmp_path / name) in said and "\n" not in said and len(said) < 500)


def test_null_stands_for_a_number_that_is_not_finite(tmp_path):
    line = {"step": 4, "test_loss": None, "train_loss": None, "test_error": 0.5, "test_error_raw": None, "seconds": 1.5}
    line["train_angular_error_degrees"] = 40.0  # a metric of the user's own
    (tmp_path / METRICS).write_text(json.dumps(line) + "\n")
    assert RunDirectory(tmp_path).metrics() == [line]
    for wrong in ({"seconds": None}, {"step": None}, {"test_error_raw": 1.5}, {"train_top5_error": 1.5}):
        (tmp_path / METRICS).write_text(json.dumps(line | wrong) + "\n")
        assert refusal(RunDirectory(tmp_path).metrics), wrong


def hostile_config(**values):
    given = json.loads(configs.to_json(configs.resolve(small_config())))
    for key, value in values.items():
        section, _, name = key.partition("__")
        given[section][name] = value
    return json.dumps(given)


@pytest.mark.parametrize(
    "values",
    [
        {"data__name": "../../elsewhere/evil"}, {"data__name": "/etc/passwd"}, {"data__name": "x" * 5000},
        {"data__name": "\ud800"}, {"data__name": ""}, {"data__name": "a\0b"}, {"data__name": 7}, {"model__unit": ""},
        {"model__unit": "../x"}, {"model__depth": "20"}, {"model__depth": -3}, {"model__block": "x"},
        {"train__steps": 1.5}, {"optimizer__learning_rate": float("nan")}, {"model__{0.__class__}": 1},
        {"model__family": "__import__"},
    ],
    ids=str,
)  # fmt: skip
def test_a_config_that_nobody_trained_is_refused(tmp_path, values):
    (tmp_path / CONFIG).write_text(hostile_config(**values))
    with pytest.raises(UserError, match=r"config.json: is not what a run writes: ") as refused:
        RunDirectory(tmp_path).config()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", ["folder", "pipe", "link to itself"])
@pytest.mark.parametrize("name", READ)
def test_anything_but_a_file_is_refused_in_one_line(tmp_path, name, kind):
    """Reading must not wait for a pipe that nobody writes to."""
    path = tmp_path / name
    {"folder": os.mkdir, "pipe": os.mkfifo, "link to itself": lambda p: os.symlink(p, p)}[kind](path)
    with pytest.raises(UserError, match=rf"/{name}: cannot be read: "):
        READ[name](RunDirectory(tmp_path))


def changed(number, text):
    def change(texts):
        return [*texts[:number], text, *texts[number + 1 :]]

    return change


@pytest.mark.parametrize(
    ("damage", "lines", "said"),
    [
        (lambda texts: texts, LINES, ""),
        (changed(1, TEXTS[1].replace("0.04", "0.02")), LINES, "1 line of step 4 lost or changed, restored from"),
        (changed(0, "\0" * 60), LINES, "1 line of step 2 lost or changed, restored from checkpoint 6"),
        (lambda texts: texts[1:], LINES, "1 line of step 2 lost or changed, restored from checkpoint 6"),
        (lambda texts: texts[3:], LINES, "3 lines of steps 2 to 6 lost or changed, restored from checkpoint 6"),
        (lambda texts: [], LINES[:3], "restored from checkpoint 6; lines after step 6 lost or damaged"),
        (lambda texts: texts[:3], LINES[:3], "lines after step 6 lost or damaged, left out"),
        (changed(3, TEXTS[3].replace("0.08", "0.09")), LINES[:3], "lines after step 6 lost or damaged, left out"),
        (lambda texts: [texts[1], texts[0], *texts[2:]], LINES, "duplicated or out of order, restored"),
        (lambda texts: [texts[0], *texts], LINES, "duplicated or out of order, restored"),
    ],
    ids=range(10),
)  # fmt: skip
def test_lines_of_metrics_are_restored_from_a_checkpoint(folder, damage, lines, said):
    (folder / METRICS).write_text("".join(text + "\n" for text in damage(TEXTS)))
    found, words = RunDirectory(folder).repaired_metrics()
    assert found == lines
    assert (said in words) if said else not words
    assert "\n" not in words


def test_a_line_that_a_crash_cut_short_is_not_reported_as_damage(folder):
    with open(folder / METRICS, "a") as file:
        file.write('{"step": 10, "test_err')
    assert RunDirectory(folder).repaired_metrics() == (LINES, "")


def test_lines_of_later_steps_in_a_checkpoint_are_left_out(folder):
    record = RunDirectory(folder).record(6) | {"lines": TEXTS}
    place = folder / CHECKPOINTS / "6" / RECORD
    record_path(place).write_text(record_text(record))
    assert RunDirectory(folder).repaired_metrics() == (LINES, "")


def test_a_checkpoint_without_a_record_repairs_nothing(folder):
    """An earlier version wrote the checkpoint. The checksum of the file still reveals damage."""
    record_path(folder / CHECKPOINTS / "6" / RECORD).parent.rename(folder / "gone")
    assert RunDirectory(folder).repaired_metrics() == (LINES, "")
    (folder / METRICS).write_text("\n".join(TEXTS[1:]) + "\n")
    with pytest.raises(UserError, match="metrics.jsonl: is not as the run wrote it"):
        RunDirectory(folder).repaired_metrics()


def test_a_damaged_record_is_refused(folder):
    path = record_path(folder / CHECKPOINTS / "6" / RECORD)
    content = path.read_bytes()
    for place in range(0, len(content), 5):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises(UserError, match=r"record.json: is not what a run writes"):
            RunDirectory(folder).record(6)
    path.write_bytes(content)
    (folder / CHECKPOINTS / "6").rename(folder / CHECKPOINTS / "7")
    with pytest.raises(UserError, match="it is of step 6"):
        RunDirectory(folder).record(7)


@pytest.mark.parametrize("module", ["resnet_flax.runs.resume", "experiments.report"])
def test_a_run_directory_is_read_without_jax(module):
    code = f"import sys, {module}; print([name for name in ('jax', 'orbax', 'optax', 'flax') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@given(cut=st.integers(0, sum(len(json.dumps(line)) + 1 for line in BROKEN)))
def test_a_line_that_was_cut_short_does_not_damage_the_next_one(tmp_path_factory, cut):
    run = RunDirectory(tmp_path_factory.mktemp("cut"))
    for line in BROKEN:
        path = run.note_broken(line)
    content = path.read_bytes()
    assert content.decode() == "".join(json.dumps(line) + "\n" for line in BROKEN)
    path.write_bytes(content[:cut])
    ends = [len("".join(json.dumps(line) + "\n" for line in BROKEN[: i + 1])) for i in range(3)]
    whole = [line for line, end in zip(BROKEN, ends, strict=True) if end - 1 <= cut]  # its line break may be missing
    assert run.broken() == whole
    run.note_broken({"image": "4.png"})
    assert run.broken() == [*whole, {"image": "4.png"}]


def test_a_start_is_on_disk_before_its_checksum(tmp_path, monkeypatch):
    """Regression test: after a power cut, the checksum was that of a line which the disk had never received."""
    synced, fsync = [], os.fsync

    def noted(file):
        synced.append((Path(os.readlink(f"/proc/self/fd/{file}")).name, os.fstat(file).st_size))
        fsync(file)

    monkeypatch.setattr(os, "fsync", noted)
    RunDirectory(tmp_path).record_start(0, 269_722, 10, {})
    assert synced[0] == (STARTS, (tmp_path / STARTS).stat().st_size)
    assert [name.partition("-")[0] for name, _ in synced[1:]] == [f".{checksums.FILE}"]


def test_a_folder_without_files_has_no_lines(tmp_path):
    assert RunDirectory(tmp_path).starts() == RunDirectory(tmp_path).metrics() == RunDirectory(tmp_path).broken() == []
