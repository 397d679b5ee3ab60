"""Sweeps over any keys: their choices, files and figures, for stand-ins of runs that end with given errors."""

import csv
import dataclasses
import errno
import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.sweep import EXPERIMENT
from resnet_flax.errors import Diverged, Failed, Interrupted, UserError
from resnet_flax.reporting import gather, record, status, tables
from resnet_flax.reporting.record import Figure
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.runs.file_names import CHECKPOINTS, METRICS
from resnet_flax.sweeps import choice, earlier, execution, plan, runner
from resnet_flax.sweeps.cases import Case, Outcome, Request
from resnet_flax.sweeps.declaration import Findings
from resnet_flax.sweeps.options import Setting
from tests.commands import command
from tests.experiments import folders

RATES = (0.001, 0.01, 0.1, 1.0)
# Validation and test error in % by unit and rate; None diverges. The least test error is not that of the best rate.
ERRORS = {
    "plain": {0.001: (20, 5), 0.01: (10, 9), 0.1: (15, 4), 1.0: None},
    "residual": {0.001: (4, 8), 0.01: (6, 3), 0.1: (7, 2), 1.0: (30, 1)},
}
END = "at the end of the grid"
GRID = ("model.unit=plain,residual", "model.depth=8", f"optimizer.learning_rate={','.join(map(str, RATES))}")


def request(folder, grid=GRID, **given):
    modes = {mode: given.pop(mode) for mode in ("dry_run", "draw") if mode in given}
    return Request(
        "configs/digits.py", folder, folder / "runs", overrides={"data.validation": 144}, seeds=(0, 1, 2),
        settings=SimpleNamespace(grid=list(grid), **given), **modes,
    )  # fmt: skip


def end(run, errors):
    """Writes the files of a run that ends with these errors in %, or diverges."""
    if run.is_finished or run.directory.diverged():
        return
    steps, seed = run.config.train.steps, run.config.seed
    folders.run(run.workdir, run.config, steps=steps if errors else 90)
    if not errors:
        RunDirectory(run.workdir).write_diverged(91, "the loss is not finite")
        return
    validation, test = (error / 100 + 0.001 * seed for error in errors)
    line = {"step": steps, "train_error": 0.05, "test_error": test, "validation_error": validation,
            "validation_loss": validation, "seconds": 0.1 + 0.2}  # fmt: skip
    lines = (run.workdir / METRICS).read_text().splitlines()[:-1]
    (run.workdir / METRICS).write_text("\n".join([*lines, json.dumps(line)]) + "\n")
    (run.workdir / CHECKPOINTS / str(steps)).mkdir(parents=True)


@pytest.fixture
def runs(monkeypatch):
    """Replaces training: runs end with ERRORS. ``until`` sets after how many runs a signal comes."""
    state = SimpleNamespace(begun=[], until=None)

    def execute(planned, request, announcement):
        print(announcement, end="\n" * bool(announcement), file=sys.stderr)
        for run in planned:
            if state.until is not None and len(state.begun) >= state.until:
                raise execution.Stopped("stopped by SIGTERM", execution.read_outcomes(planned))
            if not (run.is_finished or run.directory.diverged()):
                state.begun.append(run.name)
                end(run, ERRORS[run.config.model.unit][run.config.optimizer.learning_rate])
        return execution.read_outcomes(planned)

    monkeypatch.setattr(runner, "execute", execute)
    return state


@pytest.fixture
def drawn(monkeypatch):
    """Replaces figures by empty files. Only test_each_case_at_its_own_best draws real ones."""

    def draw(outcomes, path, title, *more, **keys):
        assert outcomes
        path.touch()
        return Figure(path.name, title)

    monkeypatch.setattr("resnet_flax.figures.final_errors.against", draw)
    monkeypatch.setattr("resnet_flax.figures.curves.draw", draw)


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def contents(folder, names=("runs.csv", "table.md", "choices.md")):
    return {name: (folder / name).read_text() for name in names}


def best(folder, **more):
    return request(folder, best_over=("optimizer.learning_rate",), **more)


def test_each_case_at_its_own_best(tmp_path, runs, capsys):
    """The least validation error with one seed decides. The table has test errors of the choice with all seeds."""
    runner.carry_out(EXPERIMENT, "sweep", best(tmp_path))  # A candidate has diverged, which is no failure.
    plain, residual = "plain-8 optimizer.learning_rate=0.01", f"residual-8 optimizer.learning_rate=0.001 ({END})"
    labels_in_words = "plain-8, learning rate 0.01", f"residual-8, learning rate 0.001 ({END})"
    tried = [f"{unit}-8 optimizer.learning_rate={rate}, seed 0" for unit in ("plain", "residual") for rate in RATES]
    assert capsys.readouterr().err.splitlines() == [
        "8 runs: 8 cases x 1 seed (0)",
        "then 4 more runs: the best optimizer.learning_rate of each of 2 cases, with seeds 1, 2",
    ]
    assert runs.begun == [*tried, *(f"{label}, seed {seed}" for seed in (1, 2) for label in (plain, residual))]
    table = rows(tmp_path / "table.csv")
    assert [(row["network"], row["seeds"], row["test error %"]) for row in table] == [
        (labels_in_words[0], "3", "9.10 ± 0.10"),
        (labels_in_words[1], "3", "8.10 ± 0.10"),
    ]
    plain, residual = rows(tmp_path / "choices.csv")
    assert plain["tried"] == "0.001: 20.00; 0.01: 10.00; 0.1: 15.00; 1.0: diverged"
    assert (plain["optimizer.learning_rate"], plain["validation error %"], plain["remark"]) == ("0.01", "10.00", "")
    assert residual["remark"] == "at the end of the grid: a wider one may do better"
    record = json.loads((tmp_path / "experiment.json").read_text())
    assert "residual-8: learning rate 0.001 is at the end of the grid: a wider one may do better." in record["notes"]
    assert "on 144 images set aside from training" in record["notes"][0]
    assert [figure["file"] for figure in record["figures"]] == ["unit.png", "curves.png"]
    assert len(record["runs"]) == 8 + 4
    # A second time, no run is begun, and the same files are written.
    before, begun = contents(tmp_path), len(runs.begun)
    runner.carry_out(EXPERIMENT, "sweep", best(tmp_path))
    assert (contents(tmp_path), len(runs.begun)) == (before, begun)


def test_runs_csv_has_the_numbers_of_the_runs(tmp_path, runs, drawn):
    """The file has a row for each run, a column for each key that varies, and the exact numbers of metrics.jsonl."""
    runner.carry_out(EXPERIMENT, "sweep", best(tmp_path))
    found = rows(tmp_path / "runs.csv")
    assert list(found[0]) == [
        "run", "group", "model.unit", "optimizer.learning_rate", "seed", "state", "step", "train_error", "test_error",
        "validation_error", "validation_loss", "parameters", "training_seconds", "folder",
    ]  # fmt: skip
    assert len(found) == len({row["folder"] for row in found}) == 12
    for row in found:
        last = json.loads((tmp_path / row["folder"] / METRICS).read_text().splitlines()[-1])
        finished = row["state"] == "finished"
        assert [float(row[key]) for key in ("test_error", "train_error", "step")] == [
            last[key] for key in ("test_error", "train_error", "step")
        ]
        assert row["validation_error"] == (repr(last["validation_error"]) if finished else "")
        of = RunDirectory(tmp_path / row["folder"]).config()
        assert row["model.unit"] == of.model.unit
        assert (float(row["optimizer.learning_rate"]), int(row["seed"])) == (of.optimizer.learning_rate, of.seed)
    assert {row["state"] for row in found} == {"finished", "diverged"}
    assert sum(row["group"] == "chosen" for row in found) == 6


def test_a_run_that_only_served_to_choose_is_not_among_the_chosen(tmp_path, runs, drawn, monkeypatch):
    """Regression test: it has the label of the choice, and a mean with it would favour the choice."""
    shown = {}
    monkeypatch.setattr("resnet_flax.figures.final_errors.against", lambda outcomes, path, *more: (
        shown.update({path.name: outcomes}), Figure(path.name, ""))[1])  # fmt: skip
    results = runner.carry_out(EXPERIMENT, "sweep", best(tmp_path, choose_seeds=("5",)))
    chosen = results.of("chosen")
    assert sorted((o.run.config.model.unit, o.run.config.seed) for o in chosen) == [
        (unit, seed) for unit in ("plain", "residual") for seed in (0, 1, 2)
    ]
    assert len(results.of("")) == 8
    assert shown == {"unit.png": chosen}
    found = rows(tmp_path / "runs.csv")
    assert [(row["group"], row["seed"]) for row in found if row["seed"] == "5"] == [("", "5")] * 8
    assert sum(row["group"] == "chosen" for row in found) == 6 == len(found) - 8


def test_a_config_file_that_is_edited_between_the_stages_changes_no_run(tmp_path, runs, drawn, monkeypatch):
    """Regression test: the results of the first stage were not found, and the second was skipped without a word."""
    file = tmp_path / "mine.py"
    text = "from resnet_flax import config\n\n\ndef get_config(name='plain-8'):\n    return config.load('digits', name"
    file.write_text(f"{text})\n")
    execute = runner.execute

    def edit(*arguments):
        file.write_text(f"{text}, {{'train.batch_size': 7}})\n")
        return execute(*arguments)

    monkeypatch.setattr(runner, "execute", edit)
    sweep = dataclasses.replace(best(tmp_path), config=str(file))
    results = runner.carry_out(EXPERIMENT, "sweep", sweep)
    assert len(results.of("chosen")) == 6
    assert {o.run.config.train.batch_size for o in results.outcomes} == {32}
    assert plan.plan([Case("plain-8")], sweep)[0].config.train.batch_size == 7  # the next command's


def test_a_second_stage_without_runs_is_a_failure(tmp_path, drawn, monkeypatch):
    def execute(planned, request, announcement):
        for run in planned:
            folders.run(run.workdir, run.config)  # without errors of validation images
            (run.workdir / CHECKPOINTS / str(run.config.train.steps)).mkdir(parents=True)
        return execution.read_outcomes(planned)

    monkeypatch.setattr(runner, "execute", execute)
    with pytest.raises(Failed, match="^4 later runs, such as the best .* of plain-8, seed 1, were not trained: "):
        runner.carry_out(EXPERIMENT, "sweep", best(tmp_path))
    assert len(rows(tmp_path / "runs.csv")) == 8


@pytest.mark.parametrize("until", [0, 3, 8, 10])
def test_a_stopped_sweep_draws_the_results_so_far_and_resumes(tmp_path, runs, drawn, until):
    """Stopped in its first stage, between the stages, or in its second, a sweep ends like an uninterrupted one."""
    runs.until = until
    with pytest.raises(Interrupted, match="stopped by SIGTERM"):
        runner.carry_out(EXPERIMENT, "sweep", best(tmp_path / "stopped"))
    found = rows(tmp_path / "stopped" / "runs.csv")
    assert sum(row["state"] == "not begun" for row in found) == len(found) - until
    record = json.loads((tmp_path / "stopped" / "experiment.json").read_text())
    assert record["notes"][0].startswith(f"Drawn before all runs have ended: of {len(found)} runs, ")
    assert len(record["runs"]) == until
    assert bool(record["figures"]) == (until > 0)
    assert all((tmp_path / "stopped" / figure["file"]).is_file() for figure in record["figures"])
    if until:
        remarks = [row["remark"] for row in rows(tmp_path / "stopped" / "choices.csv")]
        assert remarks.count("not decided yet") == (2 if until < 4 else 0)
        gathered = gather.gather(tmp_path / "stopped")
        assert [len(e.problems) for e in gathered.experiments] == [0]
    runs.until = None
    for name in ("stopped", "whole"):
        runner.carry_out(EXPERIMENT, "sweep", best(tmp_path / name))
    assert contents(tmp_path / "stopped") == contents(tmp_path / "whole")
    assert len(runs.begun) == 2 * 12


def test_the_status_shows_the_second_stage(tmp_path, runs, drawn):
    runs.until = 2
    with pytest.raises(Interrupted):
        runner.carry_out(EXPERIMENT, "sweep", best(tmp_path))
    names = [row[0] for row in status.read(tmp_path).rows if row[1] == "not begun"]
    assert len(names) == 6 + 4
    assert "the best optimizer.learning_rate of plain-8, seed 1" in names
    runs.until = 9
    with pytest.raises(Interrupted):
        runner.carry_out(EXPERIMENT, "sweep", best(tmp_path))
    assert [row[0] for row in status.read(tmp_path).rows if row[1] == "not begun"] == [
        "runs/residual-8-validation=144-learning_rate=0.001-seed1",
        "runs/plain-8-validation=144-learning_rate=0.01-seed2",
        "runs/residual-8-validation=144-learning_rate=0.001-seed2",
    ]


def test_a_dry_run_prints_the_first_stage_and_how_many_follow(tmp_path, capsys):
    runner.carry_out(EXPERIMENT, "sweep", best(tmp_path, dry_run=True, choose_seeds=("0..1",)))
    *first, last = capsys.readouterr().out.splitlines()
    assert len(first) == 2 * 8
    assert last == "then 2 more runs: the best optimizer.learning_rate of each of 2 cases, with seed 2"
    assert list(tmp_path.iterdir()) == []


def test_a_choice_without_validation_images_is_refused(tmp_path):
    code, output = command(
        "-m", "experiments.sweep", *(f"--grid={axis}" for axis in GRID), "--best-over=optimizer.learning_rate",
        f"--workdir={tmp_path / 'x'}",
    )  # fmt: skip
    assert code == 2
    assert "data.validation=0, so it has no images to choose by: test images are never used for a choice" in output
    assert "--config.data.validation=N" in output
    assert len(output.splitlines()) == 1
    assert not (tmp_path / "x").exists()


def test_a_case_whose_values_all_fail_has_a_row(tmp_path, runs, drawn, monkeypatch):
    monkeypatch.setitem(ERRORS, "plain", dict.fromkeys(RATES))
    with pytest.raises(Diverged, match="1 of 7 runs did not end: plain-8, each optimizer.learning_rate, seed 0: div"):
        runner.carry_out(EXPERIMENT, "sweep", best(tmp_path))
    plain = rows(tmp_path / "table.csv")[0]
    assert (plain["network"], plain["seeds"]) == ("plain-8, each learning rate", "1 (1 diverged)")
    assert rows(tmp_path / "choices.csv")[0]["remark"] == "every value failed"


def test_draw_trains_nothing(tmp_path, runs, drawn, monkeypatch):
    """The flag draws during training, or after a sweep was killed before it wrote any table."""
    runs.until = 5
    with pytest.raises(Interrupted):
        runner.carry_out(EXPERIMENT, "sweep", best(tmp_path))
    for name in ("runs.csv", "table.csv", "experiment.json"):
        (tmp_path / name).unlink()
    monkeypatch.setattr(runner, "execute", None)  # a call would fail
    begun = sorted(tmp_path.glob("runs/*"))
    with RunDirectory(begun[0]).locked():
        runner.carry_out(EXPERIMENT, "sweep", best(tmp_path, draw=True))
    assert [row["state"] for row in rows(tmp_path / "runs.csv")].count("not begun") == 3 + 2
    assert (tmp_path / "unit.png").is_file()  # The rate of plain networks is already chosen.
    assert sorted(tmp_path.glob("runs/*")) == begun


COMMAND = "python -m experiments.sweep --workdir=runs/mine --grid model.depth=8 '--config.data.folder=a b'"


@pytest.mark.parametrize(
    ("command", "given", "drawn_with"),
    [
        (COMMAND, "--workdir={folder} --draw", ["--workdir={folder}", "--draw"]),
        (COMMAND, "--draw --workdir {folder} --runs=x", ["--workdir={folder}", "--runs=x", "--draw"]),
        (COMMAND.replace("-m experiments.sweep", "/a.b/experiments/sweep.py"), "--workdir={folder} --draw",
         ["--workdir={folder}", "--draw"]),
        (COMMAND, "--workdir={folder}", None),
        (COMMAND, "--workdir={folder} --draw --seeds=1", None),
        (COMMAND, "--workdir={folder} --draw --workdir", None),
        (COMMAND.replace("sweep", "depth_sweep"), "--workdir={folder} --draw", None),
        ("", "--workdir={folder} --draw", None),
    ],
)  # fmt: skip
def test_draw_alone_repeats_the_folders_command(tmp_path, monkeypatch, command, given, drawn_with):
    monkeypatch.setattr(record, "command", lambda: command)
    record.write_plan(tmp_path, {tmp_path / "runs" / "x": "plain-8"})
    given = given.format(folder=tmp_path).split()
    before = ["--workdir=runs/mine", "--grid", "model.depth=8", "--config.data.folder=a b"]
    expected = given if drawn_with is None else [*before, *(text.format(folder=tmp_path) for text in drawn_with)]
    assert earlier.arguments_to_draw(given, "sweep") == expected
    (tmp_path / record.PLAN).write_text('{"runs/x": "plain-8"}')  # An earlier version wrote it.
    assert earlier.arguments_to_draw(given, "sweep") == given
    record.write(record.Record("sweep", "x", "y", command=command), tmp_path)
    assert earlier.arguments_to_draw(given, "sweep") == expected


def test_a_call_from_python_is_recorded_in_place_of_the_command(tmp_path, runs, drawn):
    asked = dataclasses.replace(request(tmp_path, grid=("model.unit=residual", GRID[2])), call="carry_out('a b')")
    runner.carry_out(EXPERIMENT, "sweep", asked)
    assert record.latest_command(tmp_path) == record.read(tmp_path).command == "carry_out('a b')"


def test_the_path_of_a_program_is_quoted(monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    monkeypatch.setattr(sys, "argv", ["/my project/mine.py", "--draw", "--seeds=1"])
    assert record.command() == "python '/my project/mine.py' --seeds=1"


def test_a_recorded_command_trains_the_runs(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x.py", "--draw", "--workdir=runs/a b", "--draw=true", "--drawn=1", "-draw"])
    assert record.command().endswith(" '--workdir=runs/a b' --drawn=1")


def test_results_of_finished_runs_are_not_replaced_by_results_without_them(tmp_path, runs, drawn, capsys):
    """Regression test: ``--draw`` without the sweep's flags replaced its table by that of the default grid."""
    smaller = {"grid": ("model.unit=residual", *GRID[1:]), "x": "optimizer.learning_rate"}
    runner.carry_out(EXPERIMENT, "sweep", request(tmp_path, **smaller))
    assert capsys.readouterr().err == "12 runs: 4 cases x 3 seeds (0, 1, 2)\n"
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    begun = list(runs.begun)
    fewer = ("model.unit=residual", "model.depth=8", "optimizer.learning_rate=0.01,0.1,1")
    for draw in (True, False):
        with pytest.raises(UserError, match=r"results of 3 finished runs that .* such as runs/residual-8-") as refused:
            runner.carry_out(EXPERIMENT, "sweep", request(tmp_path, draw=draw, grid=fewer))
        assert record.read(tmp_path).command in str(refused.value)
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before
    (tmp_path / record.FILE).unlink()  # A killed sweep has only its plan.
    with pytest.raises(UserError, match="of 12 finished runs"):
        runner.carry_out(EXPERIMENT, "sweep", request(tmp_path, grid=("model.unit=plain", *GRID[1:]), draw=True))
    assert runs.begun == begun
    with pytest.raises(Diverged):  # A larger grid keeps them.
        runner.carry_out(EXPERIMENT, "sweep", request(tmp_path))
    assert len(rows(tmp_path / "runs.csv")) == 24


def test_results_of_further_seeds_are_not_replaced_by_those_of_the_first(tmp_path, runs, drawn):
    """Regression test: with --best-over, a run with any seed counted as planned, so forgotten --seeds replaced them."""
    runner.carry_out(EXPERIMENT, "sweep", best(tmp_path))
    before = {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    for draw in (True, False):
        fewer = dataclasses.replace(best(tmp_path, draw=draw), seeds=(0,))
        with pytest.raises(UserError, match=r"results of 4 finished runs that .*-seed[12]\."):
            runner.carry_out(EXPERIMENT, "sweep", fewer)
    assert {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == before


def test_a_chosen_network_has_its_own_name(tmp_path, runs, drawn):
    """Regression test: where the network itself is chosen, the choice had the name of the last candidate."""
    together = ("model.unit=plain", "model.depth,optimizer.learning_rate=8:0.01,20:0.1")
    results = runner.carry_out(EXPERIMENT, "sweep", best(tmp_path, grid=together))
    assert [row["network"] for row in rows(tmp_path / "table.csv")] == [f"plain-8, learning rate 0.01 ({END})"]
    assert {(o.run.config.model.depth, o.run.label) for o in results.of("chosen")} == {
        (8, f"plain-8 optimizer.learning_rate=0.01 ({END})")
    }
    [chosen] = rows(tmp_path / "choices.csv")
    assert (chosen["network"], chosen["model.depth"]) == ("plain", "8")


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.booleans()), min_size=1, max_size=6),
    st.permutations(range(6)),
)
def test_the_choice_is_the_least_error_then_the_least_loss(tried, order):
    """The choice equals a sort. A failed value is never chosen, and the ends of a grid are those of its values."""
    run = SimpleNamespace()
    values = [0.1 * (1 + place) for place in order[: len(tried)]]
    among = [
        choice.Candidate(
            {"optimizer.learning_rate": value},
            [Outcome(run, [{"validation_error": error / 10, "validation_loss": loss / 10}], 0, 0, "crashed" * failed)],
        )
        for value, (error, loss, failed) in zip(values, tried, strict=True)
    ]
    found = choice.Choice("plain-8", {}, among)
    whole = [t for t in among if not t.outcomes[0].failure]
    assert found.failed == (not whole)
    if not whole:
        assert found.best is None
        return
    least = sorted(whole, key=lambda t: (t.mean("validation_error"), t.mean("validation_loss")))[0]
    assert found.best is least
    value = least.values["optimizer.learning_rate"]
    at_an_end = len(values) > 1 and value in (min(values), max(values))
    assert found.keys_at_end(["optimizer.learning_rate"]) == ["optimizer.learning_rate"] * at_an_end


def test_a_limit_of_a_key_is_no_end_of_the_grid():
    """Weight decay cannot be less than 0, so 0 is not reported as an end."""
    line = {"validation_error": 0.1, "validation_loss": 0.1}
    among = [
        choice.Candidate({"optimizer.weight_decay": decay}, [Outcome(None, [line | {"validation_error": decay}], 0, 0)])
        for decay in (0.0, 0.1)
    ]
    assert choice.Choice("plain-8", {}, among).keys_at_end(["optimizer.weight_decay"]) == []


@pytest.mark.parametrize(
    ("values", "at_an_end"), [((None, -1.0, -2.0), False), ((-1.0, None, -2.0), True), ((None,), False)]
)
def test_a_derived_value_is_no_end_of_the_grid(values, at_an_end):
    """Regression test: None among the values of model.gate_bias ended in a TypeError, after all runs."""
    losses = [{"validation_error": 0.1 * place, "validation_loss": 0.1} for place in range(1, 1 + len(values))]
    among = [
        choice.Candidate({"model.gate_bias": value}, [Outcome(None, [line], 0, 0)])
        for value, line in zip(values, losses, strict=True)
    ]
    assert choice.Choice("highway-8", {}, among).keys_at_end(["model.gate_bias"]) == ["model.gate_bias"] * at_an_end


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"grid": ()}, "--grid is missing"),
        (
            {"x": "optimizer.weight_decay"},
            "--x=optimizer.weight_decay: --grid does not vary optimizer.weight_decay; it",
        ),
        (
            {"x": "model.dept"},
            "--grid does not vary model.dept; config has no key 'model.dept'; did you mean model.depth",
        ),
        ({"lines": ("model.width",)}, "--lines=model.width: --grid does not vary model.width; it varies model.unit, "),
        (
            {"x": "model.depth", "lines": ("model.unit",)},
            "a line would mix the values of optimizer.learning_rate, which",
        ),
        (
            {"grid": ("model.depth,optimizer.learning_rate=20:0.1,20:0.05,56:0.05",)},
            "a line would mix the values of optimizer.learning_rate, which",
        ),
        (
            {
                "grid": ("model.unit,optimizer.learning_rate=plain:0.1,plain:0.01,residual:0.1", "model.depth=8,20"),
                "lines": ("model.unit",),
                "x": "model.depth",
            },
            "--lines=model.unit: a line would mix the values of optimizer.learning_rate, which",
        ),
        (
            {"best_over": ("model.unit",), "x": "model.unit"},
            "chooses model.unit, so model.unit cannot be in --x or --lines",
        ),
        ({"best_over": ("optimizer.momentum",)}, "--best_over=optimizer.momentum: --grid does not vary"),
        ({"choose_seeds": ("0",)}, "--choose_seeds has no effect without --best-over"),
        ({"best_over": ("model.unit",), "choose_seeds": ("1..0",)}, "--choose_seeds=1..0: a range goes up"),
    ],
    ids=str,
)
def test_invalid_roles_of_keys_are_refused(tmp_path, given, message):
    with pytest.raises(UserError) as found:
        runner.carry_out(EXPERIMENT, "sweep", request(tmp_path, **given))
    assert message in str(found.value)
    assert list(tmp_path.iterdir()) == []


def test_axes_and_lines(tmp_path, runs, monkeypatch):
    """Rates are on a logarithmic axis. Other keys have a line for each value; keys that change together share it."""
    seen = {}

    def against(outcomes, path, title, x, line, log):
        seen.update(x=x, log=log, lines={line(o) for o in outcomes}, file=path.name)
        raise RuntimeError("enough")

    monkeypatch.setattr("resnet_flax.figures.final_errors.against", against)
    for place, ((x, axes), expected) in enumerate({
        ("optimizer.learning_rate", ("model.unit=plain", "model.depth=8,14", "optimizer.learning_rate=0.001,0.1")): (
            True, {"plain, 8 layers", "plain, 14 layers"}, "learning_rate.png"),
        ("model.depth", ("model.depth,optimizer.learning_rate=8:0.001,14:0.01", "model.unit=plain,residual")): (
            False, {"plain", "residual"}, "depth.png"),
        ("optimizer.learning_rate", ("optimizer.learning_rate=0.01,0.1", "model.depth=8")): (
            False, {"8 layers"}, "learning_rate.png"),
    }.items()):  # fmt: skip
        with pytest.raises(RuntimeError, match="enough"):
            runner.carry_out(EXPERIMENT, "sweep", request(tmp_path / str(place), x=x, grid=axes))
        assert (seen["log"], seen["lines"], seen["file"]) == expected


@pytest.mark.parametrize(("folder", "why"), [("file", "File exists"), ("file/new/sweep", "Not a directory")])
def test_a_workdir_that_cannot_be_written_is_refused_before_the_first_run(folder, why, tmp_path, runs):
    (tmp_path / "file").touch()
    where = tmp_path / folder
    with pytest.raises(UserError, match=rf"^--workdir={where}: cannot be written: {why}; finished runs are kept$"):
        runner.carry_out(EXPERIMENT, "sweep", request(where))
    assert runs.begun == []


def test_a_full_disk_after_the_runs_is_reported_in_one_line(tmp_path, runs, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(tables, "write_runs", full)
    with pytest.raises(UserError, match=r"cannot be written: No space left on device; finished runs are kept$"):
        runner.carry_out(EXPERIMENT, "sweep", request(tmp_path, grid=("model.unit=residual", GRID[2])))
    assert len(list((tmp_path / "runs").iterdir())) == len(runs.begun) == 12


def test_the_error_of_another_file_is_not_taken_for_the_folders(tmp_path, runs):
    def findings(results):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "/nowhere/else")

    experiment = EXPERIMENT.__class__(
        "x", "y", lambda _: [Case("residual-8", {"optimizer.learning_rate": 0.1})], findings
    )
    with pytest.raises(FileNotFoundError):
        runner.carry_out(experiment, "x", request(tmp_path))


@pytest.mark.parametrize("text", ["of {0.1, 1}", "a rate of $10^{-3}$", "{data.nothing}", "{"])
def test_braces_that_name_no_setting_are_refused_before_the_first_run(text, tmp_path, runs):
    """Regression test: they ended in a KeyError after all runs."""
    for title, question in ((text, "y"), ("x", text)):
        experiment = dataclasses.replace(EXPERIMENT, title=title, question=question)
        with pytest.raises(UserError, match=r"stand for \{grid\}, .*, \{data\}; double others: \{\{ \}\}$"):
            runner.carry_out(experiment, "sweep", request(tmp_path))
    assert runs.begun == list(tmp_path.iterdir()) == []


def test_two_networks_under_one_label_are_refused(tmp_path, runs):
    """Regression test: the table had the mean and the deviation over two networks, as if over two seeds."""
    rate = {"optimizer.learning_rate": 0.1}
    cases = [Case("plain-8", rate, label="mine"), Case("plain-20", rate, label="mine")]
    experiment = EXPERIMENT.__class__("x", "y", lambda _: cases, lambda _: Findings())
    with pytest.raises(
        UserError, match=r"two cases have the label 'mine', .* differ in model.depth=8 and 20; give each"
    ):
        runner.carry_out(experiment, "x", request(tmp_path))
    assert runs.begun == []


def test_groups_share_a_run_under_other_labels(tmp_path, runs, drawn):
    """Regression test: the second group was empty, because its runs have the label of the first."""
    rate = {"optimizer.learning_rate": 0.1}
    cases = {"a": [Case("plain-8", rate, label="x")], "b": [Case("plain-8", rate, label="y")]}
    experiment = EXPERIMENT.__class__("x", "y", lambda _: cases, lambda _: Findings())
    results = runner.carry_out(experiment, "x", request(tmp_path))
    assert [len(results.of(group)) for group in "ab"] == [3, 3]
    assert len(runs.begun) == 3


def test_a_command_line_that_is_not_utf8_is_recorded(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["mine.py", "--workdir=caf\udce9 é"])
    record.write_plan(tmp_path, {})
    assert record.latest_command(tmp_path).endswith("'--workdir=caf\udce9 é'")


def test_tables_are_written_even_if_figures_of_unfinished_runs_fail(tmp_path, runs, capsys):
    """A user's own experiment may read a metric that an unfinished run lacks."""
    experiment = EXPERIMENT.__class__(
        title="x", question="y", cases=lambda _: [Case("plain-8", {"optimizer.learning_rate": r}) for r in RATES],
        findings=lambda results: [o.final["test_error"] for o in results.outcomes],
    )  # fmt: skip
    runs.until = 1
    with pytest.raises(Interrupted):
        runner.carry_out(experiment, "x", request(tmp_path))
    assert "no figures could be drawn of the runs so far: KeyError" in capsys.readouterr().out
    assert [row["state"] for row in rows(tmp_path / "runs.csv")].count("not begun") == 11


def test_the_readable_table_is_made_of_the_tidy_rows(tmp_path, runs, drawn):
    results = runner.carry_out(EXPERIMENT, "sweep", request(tmp_path, grid=("model.unit=residual", GRID[2])))
    found = rows(tmp_path / "runs.csv")
    means = [
        np.mean([100 * float(row["test_error"]) for row in found if float(row["optimizer.learning_rate"]) == rate])
        for rate in RATES
    ]
    table = tables.rows(tables.tidy(results.outcomes))
    assert [row[4].split()[0] for row in table] == [f"{mean:.2f}" for mean in means]


def test_readable_tables_have_the_words_of_figures_and_raw_ones_have_keys(tmp_path, runs, drawn, capsys):
    runner.carry_out(EXPERIMENT, "sweep", request(tmp_path, grid=("model.unit=residual", GRID[2])))
    in_words = [f"residual-20, learning rate {rate}" for rate in ("0.001", "0.01", "0.1", "1")]
    assert [row["network"] for row in rows(tmp_path / "table.csv")] == in_words
    for text in ((tmp_path / "table.md").read_text(), capsys.readouterr().out):
        assert [line.split(" | ")[0] for line in text.splitlines() if "residual" in line] == [
            f"| {label}" for label in in_words
        ]
    raw = rows(tmp_path / "runs.csv")
    assert raw[0]["run"] == "residual-20 optimizer.learning_rate=0.001"
    assert raw[0]["optimizer.learning_rate"] == "0.001"


def test_ranges_work_in_the_flags_of_all_experiments(tmp_path):
    assert Setting((20,), "").default == (20,)
    code, output = command(
        "-m", "experiments.plain_vs_residual", "--depths=8..20:6", "--seeds=0..1", "--units=plain", "--dry-run",
        f"--workdir={tmp_path}",
    )  # fmt: skip
    assert code == 0, output
    assert [line.rpartition("/")[2].partition(":")[0] for line in output.splitlines()] == [
        f"plain-{depth}-seed{seed}" for seed in (0, 1) for depth in (8, 14, 20)
    ]


def test_identity_ignores_keys_that_may_change_on_resume():
    a, b = folders.config(train__log_every=7), folders.config(data__data_dir="/data")
    assert plan.identity(folders.config()) == plan.identity(b) != plan.identity(a)


def test_a_key_that_no_run_uses_is_remarked_on(tmp_path, capsys):
    """A key on the command line that one of the runs uses is not."""
    runner.carry_out(EXPERIMENT, "sweep", request(tmp_path, ("model.unit=plain,residual",), dry_run=True))
    assert "no effect" not in capsys.readouterr().err
    grid = ("model.unit=plain,residual", "model.shortcut_padding=end,both", "optimizer.beta1=0.8,0.9")
    runner.carry_out(EXPERIMENT, "sweep", request(tmp_path, grid, dry_run=True))
    assert capsys.readouterr().err == "optimizer.beta1 has no effect here: it is used with optimizer.name!=sgd|lars\n"
