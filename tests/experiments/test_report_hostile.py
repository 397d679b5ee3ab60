"""A damaged or hostile folder is one row of the report. No code in it is run, and no file outside of it is read."""

import json
import os
import threading

import pytest

from resnet_flax.reporting import record, report
from resnet_flax.runs import checksums, records
from tests.commands import command
from tests.experiments.folders import config, experiment, run


def given(**values):
    def change(folder):
        found = json.loads((folder / "config.json").read_text())
        for key, value in values.items():
            section, _, name = key.partition("__")
            found[section][name] = value
        (folder / "config.json").write_text(json.dumps(found))

    return change


def write(name, content):
    def change(folder):
        (folder / name).unlink(missing_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    return change


def line(**fields):
    return write("metrics.jsonl", json.dumps({"step": 4, "train_error": 0.5, "test_error": 0.5, **fields}) + "\n")


def replaced(make, name):
    def change(folder):
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return change


DEEP = b"[" * 200_000
NAMES = ("config.json", "metrics.jsonl", "starts.jsonl", "diverged.json", "interrupted.json")
FAULTS = [
    given(data__name="../../elsewhere/evil"), given(data__name="\ud800"), given(data__name="x" * 5000),
    given(data__name="a\0b"), given(model__unit=""), given(model__block="\ud800"), given(model__depth=-3),
    given(train__steps="x"), given(optimizer__learning_rate=float("nan")), given(**{"model__{0.__class__}": 1}),
    line(train_error="x"), line(test_error=float("nan")), line(test_error=1e308), line(seconds="1"), line(seconds=None),
    line(seconds=float("nan")), line(seconds=1e308), line(step="4"), line(step=10**400), write("config.json", "[]"),
    write("starts.jsonl", "5\n"), write("starts.jsonl", "[1]\n"), write("starts.jsonl", '{"step": 0, "commit": [1]}\n'),
    write("starts.jsonl", '{"step": 0, "parameters": "x"}\n'), write("diverged.json", '{"step": 3'),
    write("starts.jsonl", '{"step": 0, "own_code": {"model.unit=own": 5}}\n'),
    write("diverged.json", '{"step": "3", "message": 4}'), lambda folder: (folder / "config.json").unlink(),
    *(write(name, DEEP) for name in NAMES if name != "metrics.jsonl"), write("metrics.jsonl", DEEP + b"\n5\n"),
    *(write(name, b"\xff") for name in ("config.json", "starts.jsonl", "diverged.json", "interrupted.json")),
    *(replaced(os.mkdir, name) for name in NAMES), *(replaced(os.mkfifo, name) for name in NAMES),
]  # fmt: skip
CUT_SHORT = [write("metrics.jsonl", b"\xff"), write("metrics.jsonl", DEEP)]


@pytest.fixture(scope="module")
def report_of_all(tmp_path_factory):
    """The Markdown and the HTML of one report on a good folder and all bad ones."""
    place = tmp_path_factory.mktemp("hostile")
    run(place / "all/good", config(seed=7))
    (place / "elsewhere").mkdir()
    (place / "elsewhere/evil.py").write_text(f"open({str(place / 'was run')!r}, 'w')\n")
    for number, break_it in enumerate(FAULTS):
        break_it(run(place / f"all/bad{number}", config()))
    for number, break_it in enumerate(CUT_SHORT):
        break_it(run(place / f"all/cut{number}", config()))
    html, markdown = report.write(place / "all", place / "out")
    assert not (place / "was run").exists()
    return markdown.read_text(), html.read_text()


def test_the_good_run_has_its_numbers(report_of_all):
    markdown, html = report_of_all
    [row] = [text for text in markdown.splitlines() if text.endswith("| all/good |")]
    assert row.startswith("| residual-20 | 7 | finished | 900 of 900 | 5.00 | 10.00 |")
    assert "all/good" in html


@pytest.mark.parametrize("number", range(len(FAULTS)))
def test_a_bad_folder_is_a_row_that_says_why(report_of_all, number):
    markdown, html = report_of_all
    [row] = [text for text in markdown.splitlines() if text.endswith(f"| all/bad{number} |")]
    assert row.startswith("| — | — | cannot be read |")
    assert f"all/bad{number}/" in html.partition("why it cannot be read")[2]


@pytest.mark.parametrize("number", range(len(CUT_SHORT)))
def test_a_last_line_that_a_crash_may_have_cut_short_is_left_out(report_of_all, number):
    [row] = [text for text in report_of_all[0].splitlines() if text.endswith(f"| all/cut{number} |")]
    assert row.startswith("| residual-20 | 0 | killed or failed after step 0, restarts at step 0 |")


def test_figures_and_tables_outside_of_the_folder_are_not_read(tmp_path):
    folder = experiment(tmp_path / "all/curves", [run(tmp_path / "all/curves/runs/x", config())])
    (tmp_path / "secret.csv").write_text("user,password\nroot,hunter2\n")
    (folder / "link.csv").symlink_to(tmp_path / "secret.csv")
    os.mkfifo(folder / "pipe.csv")
    left = json.loads((folder / record.FILE).read_text())
    names = ("../../secret.csv", str(tmp_path / "secret.csv"), "link.csv", "pipe.csv", "a\0b", "x" * 5000)
    left["tables"] = [{"file": name, "caption": "all"} for name in names]
    left["figures"] = [{"file": name, "caption": "all"} for name in names]
    left["published"] = ["../published/cifar10_table6", "/etc/hosts"]
    left["runs"] += ["a\0b", "x" * 5000]
    (folder / record.FILE).write_text(json.dumps(left))
    html, markdown = report.write(tmp_path / "all", tmp_path / "out")
    for page in (html.read_text(), markdown.read_text()):
        assert "hunter2" not in page
        assert page.count("outside the experiment") == 2 * len(names)


def test_invisible_characters_are_shown(tmp_path):
    """These are right-to-left overrides, zero-width characters and escape sequences of terminals."""
    folder = experiment(
        tmp_path / "all/curves", [run(tmp_path / "all/curves/runs/x", config())], title="a\u202eb\u200bc\x1b[2J"
    )
    html, markdown = report.write(tmp_path / "all", tmp_path / "out")
    for page in (html.read_text(), markdown.read_text()):
        assert not {"\u202e", "\u200b", "\x1b"} & set(page)
        assert "a\\u202eb\\u200bc\\x1b" in page.replace("\\\\", "\\")
    assert folder.is_dir()


def test_lines_restored_from_a_checkpoint_are_reported(tmp_path):
    folder = run(tmp_path / "all/x", config())
    texts = (folder / "metrics.jsonl").read_text().splitlines()
    place = folder / "checkpoints/900/record"
    place.mkdir(parents=True)
    kept = {"step": 900, "arrays": {}, "lines": texts, "validation_error": None}
    records.record_path(place).write_text(records.record_text(kept))
    (folder / "metrics.jsonl").write_text(
        "\n".join([*texts[:3], *texts[5:-1], texts[-1].replace("0.1,", "0.0,")]) + "\n"
    )
    text = report.write(tmp_path / "all", tmp_path / "out")[1].read_text()
    assert "all/x/metrics.jsonl: 3 lines of steps 360 to 900 lost or changed, restored from checkpoint 900" in text
    assert "| 900 of 900 | 5.00 | 10.00 |" in text


def test_an_edited_config_is_reported(tmp_path):
    run(tmp_path / "all/good", config())
    folder = run(tmp_path / "all/x", config(seed=3))
    assert (folder / checksums.FILE).is_file()
    given(optimizer__learning_rate=0.7)(folder)
    text = report.write(tmp_path / "all", tmp_path / "out")[1].read_text()
    assert "all/x/config.json: is not as the run wrote it (edited, or damaged), by its checksum in sums.json" in text
    assert "0.7" not in text


def test_several_reports_at_once_on_one_folder(tmp_path):
    """This failed when all reports used the same name for their temporary file."""
    run(tmp_path / "all/x", config())
    errors = []

    def write_report():
        try:
            for _ in range(3):
                report.write(tmp_path / "all", tmp_path / "all")
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write_report) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert {p.name for p in (tmp_path / "all").iterdir()} == {"x", "report.html", "report.md"}


def test_an_unreadable_folder_is_reported(tmp_path, bound):
    run(tmp_path / "all/good", config())
    run(tmp_path / "all/closed/y", config())
    (tmp_path / "all/closed").chmod(0)
    arguments = (f"--output={tmp_path}/out",)
    code, output = bound("-m", "experiments.report", f"--workdir={tmp_path}/all", *arguments)
    assert code == 0, output
    assert "warning: all/closed: cannot be read: Permission denied" in output
    code, output = bound("-m", "experiments.report", f"--workdir={tmp_path}/all/closed", *arguments)
    assert (code, output.count("\n")) == (2, 1), output
    assert "closed: cannot be read: Permission denied" in output
    (tmp_path / "all/closed").chmod(0o755)
    assert command("-m", "experiments.report", f"--workdir={tmp_path}/all")[0] == 0
