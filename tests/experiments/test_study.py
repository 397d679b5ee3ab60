"""The commands of docs/study.md work in another folder. They are shortened here."""

import csv
import re
import shlex

import pytest

from tests.commands import ROOT, finish, start

PAGE = (ROOT / "docs" / "study.md").read_text()
CONFIG, FRAME = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
LINES = re.findall(r"^resnet-flax (.*)", PAGE.replace("\\\n", " "), re.MULTILINE)
COMMANDS = [["-m", "resnet_flax", *shlex.split(line)] for line in LINES]
# Replacements of arguments: two depths, two weight decays, one seed.
SHORTER = {
    "--seeds=0..2": "--seeds=0",
    "model.depth=8..32:12": "model.depth=8..14:6",
    "optimizer.weight_decay=1e-5,1e-4,1e-3,1e-2": "optimizer.weight_decay=1e-5,1e-2",
}
STEPS = (
    "--config.train.steps=12", "--config.train.log_every=4", "--config.train.eval_every=12",
    "--config.model.width=0.25", "--config.train.batch_size=16", "--config.schedule.milestones=(6,9)",
)  # fmt: skip


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """The folder of the study, and the output of each command."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "decay.py").write_text(CONFIG)
    printed = []
    for given in COMMANDS:
        arguments = [SHORTER.get(argument, argument) for argument in given]
        arguments += STEPS if given[2] == "sweep" else ()
        own = {"XDG_CACHE_HOME": str(folder / "cache")}  # A test counts the compiled programs in this cache.
        code, output = finish(start(*arguments, cwd=folder, environment=own))
        assert code == 0, output
        printed.append(output)
    return folder, printed


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_five_commands_end_in_the_figure(study):
    folder, printed = study
    assert len(printed) == 5
    assert "plain-32" in printed[0]
    assert [line.rpartition(": ")[2] for line in printed[1].splitlines()] == ["12 steps"] * 4
    assert "figure: decay/weight_decay.png" in printed[2]
    assert printed[3].splitlines()[-1] == "4 runs: 4 finished"
    assert (folder / "decay" / "weight_decay.png").read_bytes().startswith(b"\x89PNG")
    assert "weight_decay.png" in (folder / "decay" / "report.md").read_text()
    found = rows(folder / "decay" / "runs.csv")
    assert {(int(row["model.depth"]), float(row["optimizer.weight_decay"])) for row in found} == {
        (depth, decay) for depth in (8, 14) for decay in (1e-5, 1e-2)
    }
    assert {row["state"] for row in found} == {"finished"}
    assert 0 < float(found[0]["test_error"]) < 1


def test_different_weight_decays_share_a_compiled_step(study):
    """There is one compiled step for each depth, with learning rate and weight decay as arguments."""
    folder, _ = study
    steps = [path.name for path in (folder / "cache").rglob("*") if re.match("jit_.*steps.*-cache$", path.name)]
    assert len(steps) == 2, steps


def test_the_documented_data_frame(study, monkeypatch):
    pandas = pytest.importorskip("pandas")
    folder, _ = study
    monkeypatch.chdir(folder)
    found = {}
    exec(FRAME, found)
    assert found["errors"]["count"].to_numpy().tolist() == [[1, 1], [1, 1]]
    assert isinstance(found["errors"], pandas.DataFrame)
