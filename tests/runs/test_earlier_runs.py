"""Runs that an earlier commit wrote can still be resumed, evaluated, reported and exported."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.commands import command, lines
from tests.marks import slow

# The text that the earlier commit printed for the last checkpoint of each run.
SAID = {"finished": "step 20 of 20", "finished_average": "step 20 of 20", "photographs": "step 20 of 20"}


def final_errors(folder, split="test"):
    return lines(folder)[-1][f"{split}_error"]


@pytest.mark.parametrize("name", [slow("finished"), "finished_average"])
def test_an_earlier_run_is_evaluated(begun_before, name):
    code, output = command("-m", "resnet_flax.evaluate", f"--workdir={begun_before / name}")
    assert code == 0, output
    wrong = round(355 * final_errors(begun_before / name))
    assert f"test error {100 * wrong / 355:.2f}% ({wrong} of 355)" in output.splitlines()[-1]
    assert SAID[name] in output


def test_an_earlier_run_is_exported_as_before(begun_before, tmp_path):
    again = tmp_path / "again.safetensors"
    code, output = command("-m", "resnet_flax.export", f"--workdir={begun_before / 'finished'}", f"--output={again}")
    assert code == 0, output
    ours, theirs = load_file(again), load_file(begun_before / "finished.safetensors")
    assert ours.keys() == theirs.keys()
    for name in theirs:
        np.testing.assert_array_equal(ours[name], theirs[name])


def test_an_interrupted_earlier_run_is_resumed(begun_before, tmp_path):
    workdir = begun_before / "interrupted"
    config, before = workdir / "config.json", lines(workdir)
    config.write_text(config.read_text().replace('"steps": 400', '"steps": 60'))  # so that the rest does not take long
    assert before[-1]["step"] < json.loads(config.read_text())["train"]["steps"] == 60
    given = ("train.py", f"--config=configs/from_json.py:{config}")
    code, output = command(*given, f"--workdir={workdir}")
    assert code == 0, output
    assert f"at step {before[-1]['step']} of 60" in output
    assert lines(workdir)[: len(before)] == before
    assert [line["step"] for line in lines(workdir)] == list(range(1, 61))
    # An uninterrupted run gives the same bits on the machine that began the run, and differs by rounding on others.
    code, output = command(*given, f"--workdir={tmp_path / 'whole'}")
    assert code == 0, output
    for key in ("train_loss", "test_loss"):
        ours, whole = ([line[key] for line in lines(folder) if key in line] for folder in (workdir, tmp_path / "whole"))
        np.testing.assert_allclose(ours, whole, rtol=1e-3)


def test_photographs_keep_the_class_order_of_the_earlier_run(begun_before):
    """The classes 1, 10 and 2 were sorted by name, and are sorted by number today."""
    workdir = begun_before / "photographs"
    assert json.loads((workdir / "preprocessing.json").read_text())["classes"] == ["1", "10", "2"]
    code, output = command(
        "-m", "resnet_flax.evaluate", f"--workdir={workdir}", "--config=configs/folder.py:residual-18",
        "--config.model.stage_units=(1,)", f"--config.data.folder={begun_before / 'photos'}",
        "--config.data.image_size=16", "--config.data.resize=19",
    )  # fmt: skip
    assert code == 0, output
    assert f"({round(3 * final_errors(workdir))} of 3)" in output.splitlines()[-1]


def test_the_report_shows_earlier_runs(begun_before):
    code, output = command("-m", "experiments.report", f"--workdir={begun_before}")
    assert code == 0, output
    page = (begun_before / "report.md").read_text().replace("\\", "")
    for name in ("finished", "interrupted", "photographs", "sweep"):
        assert f"{begun_before.name}/{name}" in page


def test_a_half_finished_sweep_is_resumed_by_its_command(begun_before):
    given = json.loads((begun_before / "sweep" / "command.json").read_text())[1:]
    first = next(begun_before.glob("sweep/runs/plain-8-*"))
    first = first.rename(first.with_name("named-by-another-rule"))  # a run is found by its config, not by its name
    starts, before = (first / "starts.jsonl").read_text(), lines(first, without=())
    code, output = command(*(f"--workdir={begun_before / 'sweep'}" if "workdir" in g else g for g in given))
    assert code == 0, output
    assert lines(first, without=()) == before
    assert (first / "starts.jsonl").read_text() == starts
    assert len(list((begun_before / "sweep" / "runs").iterdir())) == 2
    assert (begun_before / "sweep" / "table.csv").read_text().count("\n") == 3
