"""A command continues if its standard output or error is closed, full, or a pipe whose reader has gone."""

import os
import subprocess
import sys

import pytest

from tests import xla_flags
from tests.commands import ROOT, lines
from tests.experiments.folders import config, run
from tests.marks import slow

SMALL = ("--config.train.steps=4", "--config.train.batch_size=16", "--config.model.width=0.25",
         "--config.train.log_every=2", "--config.train.eval_every=4")  # fmt: skip
CASES = {
    # redirection: (exit code of training and of a command that only prints, its message)
    ">&-": (0, ""),
    "2>&-": (0, ""),
    ">&- 2>&-": (0, ""),
    "<&- >&- 2>&-": (0, ""),
    ">/dev/full": (1, "error: the result could not be written to standard output: No space left on device"),
    "2>/dev/full": (0, ""),
    ">/dev/full 2>/dev/full": (1, ""),
    "| true": (0, ""),
    "2>&1 | true": (0, ""),
    "2>&1 | head -1": (0, ""),
}


def shell(redirected, *arguments):
    """Runs a redirected command; returns its exit code, not that of ``head``, and its visible output."""
    text = f"set -o pipefail; {' '.join([sys.executable, *map(str, arguments)])} {redirected}"
    environment = os.environ | {"XLA_FLAGS": xla_flags.QUICK}
    done = subprocess.run(["bash", "-c", text], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("redirected", CASES)
def test_a_report_is_written_without_its_streams(tmp_path, redirected):
    folder = run(tmp_path / "all/x", config()).parent
    (tmp_path / "all/bad").mkdir()
    (tmp_path / "all/bad/config.json").write_text("[]")  # causes a warning on standard error
    code, output = shell(redirected, "-m", "experiments.report", f"--workdir={folder}")
    right, said = CASES[redirected]
    assert code == right, output
    assert "Traceback" not in output
    assert "Exception ignored" not in output
    assert said in output
    assert (folder / "report.html").is_file()


@pytest.mark.parametrize(
    "redirected",
    [
        slow(">&- 2>&-"),
        slow("2>&1 | head -1"),
        ">/dev/full 2>/dev/full",
    ],
)
def test_training_continues_without_its_streams(tmp_path, redirected):
    code, output = shell(
        redirected, "train.py", "--config=configs/digits.py:residual-8", *SMALL, f"--workdir={tmp_path}"
    )
    assert code == CASES[redirected][0], output
    assert "Traceback" not in output
    assert [line["step"] for line in lines(tmp_path)] == [2, 4]
