"""Each experiment from its command to its record: the runs that it plans, and the files that it writes."""

import collections
import csv
import dataclasses
import json
import sys
from types import SimpleNamespace

import pytest

from experiments import all as all_of_them
from experiments import claims, initialisation, layer_norms, plain_vs_residual, shortcuts
from resnet_flax import config as configs
from resnet_flax.errors import UserError
from resnet_flax.figures import curves, final_errors
from resnet_flax.reporting.record import Figure
from resnet_flax.sweeps.cases import Case, Request
from resnet_flax.sweeps.declaration import Results
from resnet_flax.sweeps.plan import plan, shortened
from tests.commands import command
from tests.figures.test_figures import outcome

SMALL = (
    "--config.train.steps=8", "--config.train.log_every=4", "--config.train.eval_every=8", "--config.model.width=0.25",
    "--config.train.batch_size=16", "--config.schedule.milestones=(4,6)",
)  # fmt: skip


def experiment(name, folder, *arguments):
    code, output = command("-m", f"experiments.{name}", f"--workdir={folder}", *SMALL, *arguments)
    assert code == 0, output
    return output


def rows(path):
    with open(path) as file:
        return list(csv.DictReader(file))


def check_record(folder, name, runs):
    record = json.loads((folder / "experiment.json").read_text())
    assert record["experiment"] == name
    assert record["command"].startswith(f"python -m experiments.{name} --")
    assert f" --workdir={folder}" in record["command"]
    assert len(record["runs"]) == runs
    for run in record["runs"]:
        assert (folder / run / "config.json").is_file()
    for figure in record["figures"]:
        assert (folder / figure["file"]).read_bytes().startswith(b"\x89PNG")
    for table in record["tables"]:
        assert len(rows(folder / table["file"])) >= 1
        assert (folder / table["file"]).with_suffix(".md").is_file()
    return record


@pytest.mark.parametrize(
    ("name", "planned"),
    [
        ("plain_vs_residual", ["plain-20", "residual-20", "plain-56", "residual-56"]),
        ("shortcuts", ["plain-20", "residual-20 A", "residual-20 B", "residual-20 C"]),
        ("initialisation", ["plain-20 he", "residual-20 orthogonal", "residual-20 B he, last scale 0"]),
        (
            "claims",
            [
                "plain-56 model.dropout=0.5",
                "plain-56 optimizer.weight_decay=0.001",
                "residual-8",
                "plain-20 without BN",
            ],
        ),
        ("highway", ["highway-20", "plain-32", "highway-32 of its paper, the widths of 19 layers, 0.125 of the width"]),
        ("propagation", ["preactivation-56", "highway-20 without BN"]),
        ("layer_norms", ["plain-56", "residual-56"]),
    ],
)
def test_a_dry_run_lists_the_planned_runs(tmp_path, name, planned):
    output = experiment(name, tmp_path / "x", "--dry-run")
    for label in planned:
        steps = 4 if name == "propagation" else 8
        assert f": {label} on digits, seed 0: {steps} steps" in output
    assert not (tmp_path / "x").exists()


def test_layer_norms(tmp_path):
    """Every line has every layer."""
    given = ("--depths=8", "--units=residual")
    output = experiment("layer_norms", tmp_path, *given)
    record = check_record(tmp_path, "layer_norms", 1)
    assert record["figures"][0]["file"] == "layer_norms.png"
    assert "| residual-8 |" in output
    written = (tmp_path / record["runs"][0] / "metrics.jsonl").read_text().splitlines()
    # The stem, six layers and the BN of each, and the dense layer.
    assert [sum(key.startswith("gradient_norm/") for key in json.loads(line)) for line in written] == [15, 15]


@pytest.mark.slow
def test_highway(tmp_path):
    experiment("highway", tmp_path, "--depths=8", "--units=plain,highway", "--published=False")
    record = check_record(tmp_path, "highway", 2)
    before, after = rows(tmp_path / "gates.csv")
    assert (before["network"], before["when"], before["gates"]) == ("highway-8", "at initialisation", "4")
    assert after["when"] == "after training"
    # The bias starts at -1 in 8 layers: sigmoid(-1) = 0.27.
    assert float(before["mean T"]) == pytest.approx(0.27, abs=0.05)
    assert any(before["mean T"] in note and after["mean T"] in note for note in record["notes"])


@pytest.mark.slow
def test_propagation(tmp_path):
    arguments = ("--depths=8", "--units=plain,residual", "--norms=batch", "--initializations=he,lecun", "--images=16")
    experiment("propagation", tmp_path, *arguments)
    record = check_record(tmp_path, "propagation", 2)
    # Two networks, two initialisations and after training; 8 weights, 7 responses twice.
    layers = rows(tmp_path / "layers.csv")
    assert len(layers) == 2 * 3 * (8 + 7 + 7)
    assert {row["when"] for row in layers} == {"at initialisation", "after training"}
    summary = rows(tmp_path / "summary.csv")
    first, last = (
        float(next(r["value"] for r in layers if r["quantity"] == "activations" and r["layer"] == name))
        for name in ("stem_response", "stage3.1.response2")
    )
    assert float(summary[0]["activation gradient, first/last"]) == pytest.approx(first / last, rel=0.01)
    text = " ".join(record["notes"])
    assert "Claim: gradients vanish" in text
    assert "vanishing is unlikely" in text
    assert "he initialisation" in text
    assert "lecun initialisation" in text


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_all_of_them_and_the_report(tmp_path):
    """The commands of ``make experiments`` with 8 steps for each run. A second time, no run is started again."""
    arguments = ("-m", "experiments.all", f"--workdir={tmp_path}", *SMALL)
    code, output = command(*arguments, timeout=3500)
    assert code == 0, output
    for name in (
        "plain_vs_residual",
        "depth_sweep",
        "claims",
        "shortcuts",
        "initialisation",
        "highway",
        "propagation",
        "cost",
    ):
        assert (tmp_path / name / "experiment.json").is_file()
    assert (tmp_path / "report.html").stat().st_size > 500_000
    assert (tmp_path / "report.md").is_file()
    starts = {p: p.read_text() for p in tmp_path.glob("runs/*/starts.jsonl")}
    code, output = command(*arguments, timeout=1000)
    assert code == 0, output
    assert starts == {p: p.read_text() for p in tmp_path.glob("runs/*/starts.jsonl")}


def test_cifar10_plans_the_papers_runs(tmp_path):
    """Ten networks are trained for 64,000 steps. One flag scales steps, milestones and warm-up."""
    whole = ["-m", "experiments.cifar10", f"--workdir={tmp_path}", "--dry-run"]
    code, output = command(*whole)
    assert code == 0, output
    lines = [line.partition(": ")[2] for line in output.splitlines() if " on cifar10, seed 0: " in line]
    names = [f"{unit}-{depth}" for unit in ("plain", "residual") for depth in (20, 32, 44, 56)]
    names += ["residual-110", "residual-1202"]
    assert lines == [f"{name} on cifar10, seed 0: 64000 steps" for name in names]
    code, output = command(*whole, "--fraction=0.1", "--networks=residual-110")
    assert code == 0, output
    assert "milestones=3200,4800-warmup_steps=40" in output
    assert "seed 0: 6400 steps" in output
    code, output = command(*whole, "--networks=highway-20")
    assert (code, "the paper's networks are plain-DEPTH and residual-DEPTH" in output) == (2, True)


def test_cifar10_on_a_fraction_of_the_digits(tmp_path):
    """A small version of the whole experiment: runs, Figs. 1, 6 and 7, the table, and the note on the protocol."""
    folder = tmp_path / "cifar10"
    given = ["--networks=plain-8,residual-8", "--fraction=0.5", "--images=8"]
    code, output = command(
        "-m", "experiments.cifar10", f"--workdir={folder}", "--config=configs/digits.py", *SMALL, *given
    )
    assert code == 0, output
    record = check_record(folder, "cifar10", runs=2)
    assert [figure["file"] for figure in record["figures"]] == ["figure6.png", "figure1.png", "figure7.png"]
    assert all("0.5 of the schedule" in figure["caption"] for figure in record["figures"])
    (note,) = record["notes"]
    assert note.startswith(
        "The protocol differs from the paper's (0.5 of the schedule): data set digits instead of cifar10; "
    )
    assert "; 4 steps instead of 64,000; " in note
    assert note.endswith("Compare these errors with one another, and not with the paper's.")
    assert "| plain-8 |" in output


def test_claims_name_the_seeds_that_diverged():
    """The mean in a note is over the other seeds, and says so."""
    ends = [outcome(56, seed, failure=failure) for seed, failure in enumerate(("", "diverged", "diverged"))]
    assert claims._errors(ends) == ("training error 1.50%, test error 3.00% (2 of 3 seeds diverged, not in the mean)")
    assert claims._errors([*ends[1:], outcome(56, 3, failure="crashed")]) == (
        "2 of 3 seeds diverged, 1 of 3 seeds crashed"
    )


@pytest.mark.parametrize(("steps", "every"), [(450, 25), (90, 5), (45, 2), (64, 4), (7, 1), (1, 1)])
def test_a_shortened_run_logs_equal_windows(tmp_path, steps, every):
    """The final training error is a mean over as many steps as the others, if a divisor of the steps allows it."""
    request = Request("configs/digits.py", tmp_path, tmp_path, overrides={"train.log_every": 100})
    case = shortened(Case("plain-8"), steps / 900, request)
    assert (case.scaled["train.steps"], case.scaled["train.log_every"]) == (steps, every)


def test_layer_norms_of_runs_without_metrics_are_not_drawn(tmp_path):
    """Regression test: the figure of a run that diverged under an experiment without these metrics was a traceback."""
    without = outcome(56, failure="diverged")
    request = Request("configs/digits.py", tmp_path, tmp_path)
    for run in (without, dataclasses.replace(without, lines=[])):
        found = layer_norms.findings(Results(request, [run], {}))
        assert (found.figures, found.notes) == ((), ["No run's last line has these metrics, so nothing is drawn."])
    whole = outcome(20)
    whole.lines[:] = [line | {"gradient_norm/stem_conv": 0.5, "update_ratio/stem_conv": 0.1} for line in whole.lines]
    found = layer_norms.findings(Results(request, [without, whole], {}))
    assert [figure.file for figure in found.figures] == ["layer_norms.png"]
    assert found.notes == ["Not drawn, because their last line lacks these metrics: plain-56, seed 0."]


def test_layer_norms_of_a_run_that_another_command_trained_are_refused(tmp_path):
    said = "the run was trained without the metrics gradient_norm and update_ratio; choose another --workdir"
    with pytest.raises(UserError, match=said) as refusal:
        layer_norms.findings(Results(Request("configs/digits.py", tmp_path, tmp_path), [outcome(56)], {}))
    assert refusal.value.exit_code == 2


@pytest.mark.parametrize("module", [initialisation, shortcuts, plain_vs_residual])
def test_a_line_of_a_figure_has_runs_of_one_kind(tmp_path, monkeypatch, module):
    """Regression test: a line of ``initialisation`` was the mean over all depths, as if they were seeds."""
    lines = collections.defaultdict(list)

    def draw(outcomes, path, title, panel=curves.unit, line=curves.layers):
        for o in outcomes:
            lines[panel(o), line(o)].append(configs.flatten(o.run.config) | {"seed": 0})
        return Figure(path.name, title)

    monkeypatch.setattr(curves, "draw", draw)
    monkeypatch.setattr(final_errors, "side_by_side", lambda outcomes, path, title: Figure(path.name, title))
    settings = {name: setting.default for name, setting in module.EXPERIMENT.settings.items()} | {"depths": (8, 14)}
    request = Request("configs/digits.py", tmp_path, tmp_path, seeds=(0, 1), settings=SimpleNamespace(**settings))
    planned = plan(module.cases(request), request)
    module.findings(Results(request, [dataclasses.replace(outcome(), run=run) for run in planned], {}))
    assert sum(map(len, lines.values())) == len(planned)
    for members in lines.values():
        assert members == [members[0]] * 2


def test_every_flag_of_all_reaches_each_experiment(tmp_path, monkeypatch):
    """Only the flags that say what all of them do are left out, with their values in either form."""
    passed = ["--module=own.py", "--config", "configs/digits.py", "--noconfig.data.flip", "--seeds=0,1"]
    own = ["--only=claims,cost", "--workdir", str(tmp_path), "--runs", "r", "--dry-run"]
    monkeypatch.setattr(sys, "argv", ["all", *own[:3], *passed, *own[3:], "--nocompilation_cache"])
    request = Request("configs/digits.py", tmp_path, tmp_path / "r", dry_run=True)
    assert all_of_them._arguments("claims", request) == [
        "-m", "resnet_flax", "claims", *passed, "--nocompilation_cache", "--dry-run",
        f"--workdir={tmp_path / 'claims'}", f"--runs={tmp_path / 'r'}",
    ]  # fmt: skip
