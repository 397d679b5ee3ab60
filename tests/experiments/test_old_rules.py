"""Runs that were begun under old rules are marked in tables and reports, and a sweep refuses to resume them."""

import pytest

from resnet_flax import config as configs
from resnet_flax.errors import UserError
from resnet_flax.reporting import tables
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.sweeps.cases import PlannedRun, Request
from resnet_flax.sweeps.execution import execute, outcome
from tests.commands import command


def run_in(workdir):
    return PlannedRun(configs.resolve(RunDirectory(workdir).config()), workdir, workdir.name)


def test_a_table_marks_them(begun_before, tmp_path):
    outcomes = [outcome(run_in(begun_before / name)) for name in ("finished", "finished_average")]
    assert [row[0] for row in tables.rows(tables.tidy(outcomes))] == ["finished", "finished average (old rules)"]
    assert "Old rules: its average of the parameters" in tables.write(outcomes, tmp_path).caption
    assert tables.write(outcomes[:1], tmp_path).caption == tables.CAPTION


def test_a_report_marks_them(begun_before):
    code, output = command("-m", "experiments.report", f"--workdir={begun_before}")
    assert code == 0, output
    page = (begun_before / "report.md").read_text()
    assert "finished (old rules)" in page
    assert "The run was begun under an old rule: its average of the parameters" in page
    assert "The run was begun under an old rule: its photographs were cropped up to a pixel off the centre" in page
    assert page.count("finished (old rules)") == 2


def test_a_sweep_refuses_to_resume_them_before_its_first_run(begun_before):
    given = [run_in(begun_before / name) for name in ("interrupted", "interrupted_average")]
    with pytest.raises(UserError, match="interrupted_average holds a run that cannot be resumed"):
        execute(given, Request("configs/digits.py", begun_before, begun_before / "runs"))
