"""Notebooks run from their first cell to their last, and are committed with their output."""

import contextlib
import io
import re

import nbformat
import pytest
from matplotlib import pyplot as plt
from nbclient import NotebookClient

from resnet_flax.networks.units import UNITS
from tests.commands import ROOT

PERCENT = r"\d+\.\d%"
NAMES = sorted(path.name for path in (ROOT / "notebooks").glob("*.ipynb"))
SMALLER = {
    "DEPTHS, STEPS = (20, 56), 450": "DEPTHS, STEPS = (8,), 4", "-56": "-8", "-20": "-8",
    "**more}": '"model.width": 0.25, "train.batch_size": 16, "train.log_every": 2, **more}',
}  # fmt: skip


def read(name):
    return nbformat.read(ROOT / "notebooks" / name, as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(cell):
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A folder that looks like the checkout, but has its own runs."""
    (tmp_path / "notebooks").mkdir()  # not a link, because the cells change to its parent folder
    for name in ("configs", "notebooks/images", "results", "train.py"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_cells_are_committed_with_their_results(name):
    for cell in code(read(name)):
        assert cell.execution_count
        assert cell.outputs or not re.search(r"print\(|plt\.show\(", cell.source), cell.source
        assert all(output.output_type in ("stream", "display_data") for output in cell.outputs)
        assert "/tmp" not in printed(cell)


def test_the_weights_notebook_prints_its_committed_results(checkout, monkeypatch):
    monkeypatch.setattr(plt, "show", plt.close)
    scope = {}
    for cell in code(read("weights.ipynb")):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(cell.source, scope)
        assert re.sub(PERCENT, "", out.getvalue()) == re.sub(PERCENT, "", printed(cell))
        now, there = ([float(t[:-1]) for t in re.findall(PERCENT, text)] for text in (out.getvalue(), printed(cell)))
        assert now == pytest.approx(there, abs=0.3)


def test_the_depth_notebook_runs_with_few_steps(checkout, monkeypatch):
    monkeypatch.setattr(plt, "show", plt.close)
    monkeypatch.setitem(UNITS, "scaled", None)
    scope = {}
    for cell in code(read("depth.ipynb")):
        source = cell.source
        for there, smaller in SMALLER.items():
            source = source.replace(there, smaller)
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(source, scope)
        if "counts.parameters" in source:
            (plain, residual) = re.findall(r": ([\d,]+) parameters, ([\d.]+) million", out.getvalue())
            assert plain == residual  # shortcuts have no parameters
    assert {run.status for run in scope["runs"].values()} == {scope["run"].status} == {"finished"}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_notebooks_run_unchanged(checkout, monkeypatch, name):
    """Each notebook runs in a kernel, in less than four minutes on two idle cores."""
    monkeypatch.delenv("XLA_FLAGS")  # the tests' flags make compilation fast but computation slow
    notebook = read(name)
    NotebookClient(notebook, timeout=500, resources={"metadata": {"path": str(checkout / "notebooks")}}).execute()
    for cell in code(notebook):
        assert not [output for output in cell.outputs if output.output_type == "error"]
    assert (checkout / "runs").is_dir() == (name == "depth.ipynb")
