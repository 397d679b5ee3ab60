"""The example in docs/experiments.md works as a command."""

import json

from tests.commands import command, lines
from tests.pages import block


def test_the_documented_experiment_runs(tmp_path):
    code = block("EXPERIMENT.run()")
    assert len(code.splitlines()) <= 40
    (tmp_path / "width.py").write_text(code)
    exit_code, output = command(
        str(tmp_path / "width.py"), f"--workdir={tmp_path / 'out'}", "--widths=0.125,0.25", "--config.train.steps=4",
        "--config.train.eval_every=4", "--config.train.batch_size=16",
        "--config.schedule.milestones=(2,3)",
    )  # fmt: skip
    assert exit_code == 0, output
    record = json.loads((tmp_path / "out" / "experiment.json").read_text())
    assert (record["experiment"], record["question"]) == ("width", "Does a wider network err less?")
    assert (tmp_path / "out" / record["figures"][0]["file"]).read_bytes().startswith(b"\x89PNG")
    assert len(record["runs"]) == 2
    for run in record["runs"]:
        assert lines(tmp_path / "out" / run)[-1]["step"] == 4
    assert (tmp_path / "out" / "table.csv").read_text().count("\n") == 3
