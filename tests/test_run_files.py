"""The reader of a run's folder: what is damaged, hostile or edited is one line that names the file."""

import json
import os

import pytest

from resnet_flax import config as configs
from resnet_flax import run_files, sums
from resnet_flax.errors import UserError
from resnet_flax.run_files import RunFiles
from tests.training.small import small_config

LINES = [{"step": s, "train_error": 0.5, "test_error": s / 100, "seconds": 1.5} for s in (2, 4, 6, 8)]
TEXTS = [json.dumps(line) for line in LINES]


@pytest.fixture
def folder(tmp_path):
    """As a run leaves it: with sums, and with a checkpoint of step 6 that carries three of four lines."""
    sums.write(tmp_path / run_files.CONFIG, configs.to_json(configs.resolve(small_config())))
    sums.write(tmp_path / run_files.METRICS, "".join(text + "\n" for text in TEXTS))
    sums.write(tmp_path / run_files.STARTS, json.dumps({"step": 0, "parameters": 7, "classes": 10}) + "\n")
    sums.write(tmp_path / run_files.DIVERGED, json.dumps({"step": 9, "message": "not finite"}))
    sums.write(tmp_path / run_files.INTERRUPTED, json.dumps({"step": 9}))
    place = tmp_path / run_files.CHECKPOINTS / "6" / run_files.RECORD
    place.mkdir(parents=True)
    record = {"step": 6, "arrays": {}, "lines": TEXTS[:3], "validation_error": None}
    run_files.record_path(place).write_text(run_files.record_text(record))
    return tmp_path


def refusal(read):
    """Returns what a user is told, or None."""
    try:
        read()
    except UserError as error:
        return str(error)
    return None


READ = {
    run_files.CONFIG: RunFiles.config, run_files.METRICS: RunFiles.metrics, run_files.STARTS: RunFiles.starts,
    run_files.DIVERGED: RunFiles.diverged, run_files.INTERRUPTED: RunFiles.interrupted,
}  # fmt: skip


@pytest.mark.parametrize("name", READ)
def test_a_flipped_bit_anywhere_is_noticed(folder, name):
    path, read = folder / name, READ[name]
    content = path.read_bytes()
    right = read(RunFiles(folder))
    assert right
    for place in range(0, len(content), max(1, len(content) // 40)):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises(UserError, match=rf"/{name}: is not as the run wrote it .* delete .*/sums.json"):
            read(RunFiles(folder))
    path.unlink()
    with pytest.raises(UserError, match=rf"/{name}: is missing"):
        read(RunFiles(folder))
    path.write_bytes(content)
    assert read(RunFiles(folder)) == right


def test_a_damaged_file_of_sums_is_noticed(folder):
    content = (folder / sums.FILE).read_bytes()
    for place in range(0, len(content), 7):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        (folder / sums.FILE).write_bytes(changed)
        said = refusal(RunFiles(folder).check) or refusal(RunFiles(folder).mended)
        assert said is None or "sums.json" in said
        assert said or RunFiles(folder).mended()[0] in (LINES, LINES[:3])
    (folder / sums.FILE).unlink()
    RunFiles(folder).check()


HOSTILE = [
    b"", b"\xff\xfe", b"5", b"[1]", b"null", b'"x"', b"{", b"[" * 100_000, b'{"a":' * 100_000, b'{"step": "4"}',
    b'{"step": -1}', b'{"step": true}', b'{"step": 1e400}', b'{"step": 4, "train_error": "x"}',
    b'{"step": 4, "seconds": null}', b'{"step": 4, "seconds": NaN}', b'{"step": 4, "seconds": "1"}',
    b'{"step": 4, "test_error": 1.5}', b'{"step": 4, "test_error": [1]}',
]  # fmt: skip


@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("name", READ)
def test_what_a_run_does_not_write_is_one_line(tmp_path, name, content):
    """Without sums, as in a run of an earlier version."""
    (tmp_path / name).write_bytes(content + b"\n")
    said = refusal(lambda: READ[name](RunFiles(tmp_path)))
    assert not said or (str(tmp_path / name) in said and "\n" not in said and len(said) < 500)


def test_null_is_a_number_that_is_not_finite(tmp_path):
    line = {"step": 4, "test_loss": None, "train_loss": None, "test_error": 0.5, "test_error_raw": None, "seconds": 1.5}
    (tmp_path / run_files.METRICS).write_text(json.dumps(line) + "\n")
    assert RunFiles(tmp_path).metrics() == [line]
    for wrong in ({"seconds": None}, {"step": None}, {"test_error_raw": 1.5}, {"test_error_raw": -0.5}):
        (tmp_path / run_files.METRICS).write_text(json.dumps(line | wrong) + "\n")
        assert refusal(RunFiles(tmp_path).metrics), wrong


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
    (tmp_path / run_files.CONFIG).write_text(hostile_config(**values))
    with pytest.raises(UserError, match=r"config.json: is not what a run writes: ") as refused:
        RunFiles(tmp_path).config()
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("kind", ["folder", "pipe", "link to itself"])
@pytest.mark.parametrize("name", READ)
def test_what_is_no_file_is_one_line(tmp_path, name, kind):
    """A pipe that nobody fills must not be waited for."""
    path = tmp_path / name
    {"folder": os.mkdir, "pipe": os.mkfifo, "link to itself": lambda p: os.symlink(p, p)}[kind](path)
    with pytest.raises(UserError, match=rf"/{name}: cannot be read: "):
        READ[name](RunFiles(tmp_path))


def changed(number, text):
    def change(texts):
        return [*texts[:number], text, *texts[number + 1 :]]

    return change


@pytest.mark.parametrize(
    ("damage", "lines", "said"),
    [
        (lambda texts: texts, LINES, ""),
        (changed(1, TEXTS[1].replace("0.04", "0.02")), LINES, "1 line of step 4 lost or changed, put back from"),
        (changed(0, "\0" * 60), LINES, "1 line of step 2 lost or changed, put back from checkpoint 6"),
        (lambda texts: texts[1:], LINES, "1 line of step 2 lost or changed, put back from checkpoint 6"),
        (lambda texts: texts[3:], LINES, "3 lines of steps 2 to 6 lost or changed, put back from checkpoint 6"),
        (lambda texts: [], LINES[:3], "put back from checkpoint 6; lines after step 6 lost or damaged"),
        (lambda texts: texts[:3], LINES[:3], "lines after step 6 lost or damaged, left out"),
        (changed(3, TEXTS[3].replace("0.08", "0.09")), LINES[:3], "lines after step 6 lost or damaged, left out"),
        (lambda texts: [texts[1], texts[0], *texts[2:]], LINES, "doubled or in another order, put back"),
        (lambda texts: [texts[0], *texts], LINES, "doubled or in another order, put back"),
    ],
    ids=range(10),
)  # fmt: skip
def test_lines_of_metrics_are_put_back_from_a_checkpoint(folder, damage, lines, said):
    (folder / run_files.METRICS).write_text("".join(text + "\n" for text in damage(TEXTS)))
    found, words = RunFiles(folder).mended()
    assert found == lines
    assert (said in words) if said else not words
    assert "\n" not in words


def test_a_line_that_a_crash_cut_short_is_no_damage(folder):
    with open(folder / run_files.METRICS, "a") as file:
        file.write('{"step": 10, "test_err')
    assert RunFiles(folder).mended() == (LINES, "")


def test_lines_of_later_steps_in_a_checkpoint_are_left_out(folder):
    record = RunFiles(folder).record(6) | {"lines": TEXTS}
    place = folder / run_files.CHECKPOINTS / "6" / run_files.RECORD
    run_files.record_path(place).write_text(run_files.record_text(record))
    assert RunFiles(folder).mended() == (LINES, "")


def test_a_checkpoint_without_a_record_mends_nothing(folder):
    """As an earlier version wrote it; with the sum that later lines have, what is damaged is still noticed."""
    run_files.record_path(folder / run_files.CHECKPOINTS / "6" / run_files.RECORD).parent.rename(folder / "gone")
    assert RunFiles(folder).mended() == (LINES, "")
    (folder / run_files.METRICS).write_text("\n".join(TEXTS[1:]) + "\n")
    with pytest.raises(UserError, match="metrics.jsonl: is not as the run wrote it"):
        RunFiles(folder).mended()


def test_a_damaged_record_is_refused(folder):
    path = run_files.record_path(folder / run_files.CHECKPOINTS / "6" / run_files.RECORD)
    content = path.read_bytes()
    for place in range(0, len(content), 5):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        with pytest.raises(UserError, match=r"record.json: is not what a run writes"):
            RunFiles(folder).record(6)
    path.write_bytes(content)
    (folder / run_files.CHECKPOINTS / "6").rename(folder / run_files.CHECKPOINTS / "7")
    with pytest.raises(UserError, match="it is of step 6"):
        RunFiles(folder).record(7)


def test_it_does_not_wait_for_jax(tmp_path):
    import subprocess
    import sys

    code = "import sys; from resnet_flax.run_files import RunFiles; print('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
