"""The report: its content is the same on both pages and in the right places, and it changes no run."""

import csv
import html
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resnet_flax import published
from resnet_flax.errors import UserError
from resnet_flax.reporting import comparison, document, gather, record, render, report, tables
from resnet_flax.runs.directory import RunDirectory
from tests.commands import ROOT, command, finish, lines, train
from tests.experiments.folders import config, experiment, run

CIFAR = "configs/cifar10.py"
QUICK = {"data__image_size": 16, "data__pad": 2, "train__steps": 6400, "schedule__milestones": (3200, 4800)}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A folder with an experiment on the digits, one on CIFAR-10, and other runs of every state."""
    root = tmp_path_factory.mktemp("report") / "all"
    runs = [
        run(root / f"curves/runs/{name}-{seed}", config(name, seed=seed), error + 0.01 * seed)
        for name, error in (("plain-20", 0.02), ("plain-56", 0.7), ("residual-56", 0.03))
        for seed in (0, 1, 2)
    ]
    experiment(root / "curves", runs)
    shared = [run(root / f"runs/r20-{s}", config("residual-20", CIFAR, seed=s), 0.08 + 0.01 * s) for s in (0, 1)]
    quick = run(root / "runs/quick", config("residual-20", CIFAR, **QUICK), 0.14)
    experiment(
        root / "deep/depth_sweep", [*shared, quick, runs[0]], experiment="depth_sweep", title="Error & depth <b>",
        notes=["| pipes | and *stars*", "<script>alert(1)</script>"], published=["cifar10_table6"],
        command="python -m experiments.depth_sweep --workdir='a b'",
    )  # fmt: skip
    run(root / "other/finished", config("residual-20", CIFAR, optimizer__weight_decay=5e-4), 0.0812)
    stopped = run(root / "other/stopped", config("residual-20"), steps=450)
    RunDirectory(stopped).write_interrupted(460)
    diverged = run(root / "other/diverged", config("plain-110"), steps=45)
    RunDirectory(diverged).write_diverged(47, "not finite")
    crashed = run(root / "other/crashed", config("residual-14"), steps=90)
    (crashed / "crash.txt").write_text("Traceback (most recent call last):\n  ...\nOSError: the disk is full\n")
    (root / "other/never").mkdir()
    RunDirectory(root / "other/never").write_config(config("residual-8"))
    (root / "other/finished/checkpoints/64000").mkdir(parents=True)
    (root / "other/finished/checkpoints/64000/config.json").write_text("no run's")
    return root


@pytest.fixture(scope="module")
def pages(workdir, tmp_path_factory):
    """The paths of report.html and report.md, in another folder."""
    return report.write(workdir, tmp_path_factory.mktemp("output") / "made here")


class Page(HTMLParser):
    """Parses an HTML page: tables as rows of cells, images, links and anchors."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.images, self.anchors, self.links, self.tags = [], [], set(), [], []
        self._cell = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        self.anchors.add(attributes.get("id"))
        self.links += [attributes[k] for k in ("src", "href") if k in attributes]
        if tag == "img":
            self.images.append(attributes)
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self._cell = []
        if tag == "br" and self._cell is not None:
            self._cell.append("\n")

    def handle_data(self, data):
        if self._cell is not None:
            self._cell.append(data)

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.tables[-1][-1].append("".join(self._cell).strip())
            self._cell = None


def markdown_tables(text):
    found, inside = [], False
    for line in text.splitlines():
        if line.startswith("|"):
            if not inside:
                found.append([])
            cells = re.split(r"(?<!\\)\|", line)[1:-1]
            if not all(re.fullmatch(r" ---:? ", c) for c in cells):
                plain = [html.unescape(re.sub(r"\\(.)", r"\1", c.strip().replace("<br>", "\n"))) for c in cells]
                found[-1].append(plain)
        inside = line.startswith("|")
    return found


def rows_of(table):
    """Returns the rows by their first cell, without the parts that unfold."""
    return {row[0]: dict(zip(table[0], row, strict=True)) for row in table[1:] if len(row) > 1}


def test_the_html_page_is_self_contained(pages):
    page = Page(pages[0].read_text())
    assert len(page.images) == 2
    for image in page.images:
        assert image["src"].startswith("data:image/png;base64,iVBOR")
        assert image["alt"].startswith("Error (%) against steps")
    assert all(link.startswith(("data:", "#")) for link in page.links)
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert {link[1:] for link in page.links if link.startswith("#")} <= page.anchors
    assert page.tags.count("figcaption") == page.tags.count("figure") == 2 + len(page.tables)


def test_both_pages_have_the_same_tables(pages):
    ours = [[row for row in table if len(row) > 1] for table in Page(pages[0].read_text()).tables]
    assert markdown_tables(pages[1].read_text()) == ours
    assert len(ours) == 6  # two of experiments, a comparison, two of other runs with theirs, the appendix
    for table in ours:
        assert len({len(row) for row in table}) == 1


def test_the_markdown_page_links_its_figures(pages):
    links = re.findall(r"^!\[.*\]\((\S+)\)$", pages[1].read_text(), re.MULTILINE)
    assert len(links) == 2
    for link in links:
        assert (pages[1].parent / unquote(link)).read_bytes().startswith(b"\x89PNG")


def test_texts_of_experiments_are_escaped(pages):
    text = pages[0].read_text()
    assert "Error &amp; depth &lt;b&gt;" in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<script>" not in text
    assert "## Error & depth \\<b\\>\n" in pages[1].read_text()
    assert "- \\| pipes \\| and \\*stars\\*\n- \\<script\\>alert(1)" in pages[1].read_text()


def test_sections_are_in_the_order_of_the_registry(pages):
    titles = re.findall(r"^## (.*)$", pages[1].read_text(), re.MULTILINE)
    assert titles == ["Plain against residual networks", "Error & depth \\<b\\>", "Other runs", "Appendix: runs"]


def comparisons(page, title="ours, by the paper's protocol"):
    return [table for table in Page(page.read_text()).tables if title in table[0]]


def test_a_number_is_in_the_column_of_its_protocol(pages):
    # The experiment on the digits alone has no table: its published numbers are of CIFAR-10.
    cifar, others = (rows_of(table) for table in comparisons(pages[0]))

    assert cifar["residual-20"] == {
        "network": "residual-20", "paper": "8.75", "peers": "—",
        "ours, by the paper's protocol": f"8.50 ± {np.std([8, 9], ddof=1):.2f} (2 seeds)",
        "ours, by another protocol": "14.00 (1 seed) [a]",
    }  # fmt: skip
    assert cifar["plain-20"]["ours, by another protocol"] == "2.00 (1 seed) [b]"  # of another experiment, on the digits
    assert others["residual-20"]["ours, by another protocol"] == "8.12 (1 seed) [a]"
    assert others["residual-20"]["ours, by the paper's protocol"] == "—"

    text = pages[1].read_text()
    assert (
        "- **\\[a\\]** images of side 16 instead of 32; padding 2 instead of 4 pixels; 6,400 steps instead of 64,000; "
        "learning rate lowered at steps 3,200, 4,800 instead of 32,000, 48,000\n- **\\[b\\]** data set digits instead"
    ) in text
    assert "- **\\[a\\]** weight decay 0.0005 instead of 0.0001\n\n" in text


def test_the_papers_column_has_only_the_papers_numbers(pages):
    printed = {}
    for n in published.read("cifar10_table6").numbers:
        printed.setdefault(f"{n.network} ({n.variant})" if n.variant else n.network, []).append(str(n))
    for table in comparisons(pages[0]):
        for network, row in rows_of(table).items():
            assert row["paper"] == "\n".join(printed.get(network, ["—"]))


changes = st.fixed_dictionaries(
    {},
    optional={
        "train__steps": st.sampled_from([64_000, 6400]),
        "data__flip": st.booleans(),
        "data__validation": st.sampled_from([0, 5000]),
        "optimizer__learning_rate": st.sampled_from([0.1, 0.05]),
        "train__log_every": st.sampled_from([100, 7]),
        "seed": st.integers(0, 3),
    },
)


@given(
    given=st.lists(changes, min_size=1, max_size=4), network=st.sampled_from(["residual-20", "plain-20", "residual-26"])
)
def test_runs_of_any_protocol_are_in_the_right_column(tmp_path_factory, given, network):
    """In any mix of runs, exactly those by the recipe are in the column for the paper's protocol."""
    matters = {"train__steps": 64_000, "data__flip": True, "data__validation": 0, "optimizer__learning_rate": 0.1}
    by_protocol, runs = {}, []
    for i, changed in enumerate(given):
        of = config(network, CIFAR, **changed)
        line = {"step": of.train.steps, "test_error": (10 + i) / 100}
        path = tmp_path_factory.getbasetemp() / str(i)
        runs.append(gather.RunFolder(path, str(i), of, [line], [], "finished"))
        if all(changed.get(key, value) == value for key, value in matters.items()):
            by_protocol.setdefault(of.seed, 10.0 + i)
    [found] = comparison.compare([published.read("cifar10_table6")], runs)
    [row] = [row for row in found.rows if row.network == network]
    values = list(by_protocol.values())
    if not values:
        assert row.ours == []
    elif len(values) == 1:
        assert row.ours == [f"{values[0]:.2f} (1 seed)"]
    else:
        assert row.ours == [f"{np.mean(values):.2f} ± {np.std(values, ddof=1):.2f} ({len(values)} seeds)"]
    assert all(re.search(r"\[[a-z]\]$", text) for text in row.ours_otherwise)
    assert {text[-2] for r in found.rows for text in r.ours_otherwise} == set(found.notes)
    assert row.paper == (["8.75"] if network == "residual-20" else [])


def test_errors_on_one_view_are_not_compared_with_ten_crops_as_equal(tmp_path):
    runs = [
        gather.read_run(run(tmp_path / x, config("residual-34", "configs/imagenet.py", model__shortcut=x), 0.26), x)
        for x in "AC"
    ]
    top1, top5 = comparison.compare([published.read("imagenet")], runs)
    rows = {row.network: row for row in top1.rows}
    for x, printed in (("A", "25.03"), ("B", "24.52"), ("C", "24.19")):
        row = rows[f"residual-34 (option {x})"]
        assert (row.paper, row.ours) == ([printed], [])
        assert row.ours_otherwise == ([] if x == "B" else ["26.00 (1 seed) [a]"])
    assert top1.notes == {
        "a": "learning rate divided at fixed epochs instead of on plateaus; tested on a single view instead of 10 crops"
    }
    assert not any(row.ours or row.ours_otherwise for row in top5.rows)


def test_highway_networks_have_another_recipe_than_their_sources(tmp_path):
    """There are two highway networks of depth 32: one in the cifar family, and the one of its paper."""

    def trained(depth, **model):
        of = config("residual-20", CIFAR)
        of.model.update({"unit": "highway", "depth": depth, **model})
        return gather.RunFolder(tmp_path, "x", of, [{"step": 64_000, "test_error": depth / 1000}], [], "finished")

    runs = [trained(32), trained(32, family="highway", block="single", width=0.5)]
    recipe = "the recipe of He et al. instead of the source's own"
    for keys in (["highway"], ["cifar10_table6"], ["cifar10_table6", "highway"]):
        [found] = comparison.compare([published.read(key) for key in keys], runs)
        rows = {row.network: row for row in found.rows}
        twin, own = rows["highway-32"], rows["highway-32 (the source's network)"]
        assert (twin.paper, twin.ours, twin.ours_otherwise) == ([], [], ["3.20 (1 seed) [b]"])
        assert own.paper[0].startswith("8.80")
        assert (own.ours, own.ours_otherwise) == ([], ["3.20 (1 seed) [a]"])
        assert found.notes == {"a": f"width 0.5 instead of 1; {recipe}", "b": recipe}


def test_errors_are_those_of_the_final_step_not_of_the_best(tmp_path):
    folder = run(tmp_path / "all/x", config("residual-20", CIFAR), 0.0812)
    file = folder / "metrics.jsonl"
    written = file.read_text().splitlines()
    file.write_text("\n".join([*written[:-1], json.dumps({"step": 63_999, "test_error": 0.0123}), written[-1]]) + "\n")
    page, text = report.write(tmp_path / "all", tmp_path / "out")
    assert "8.12 (1 seed)" in page.read_text()
    assert "1.23" not in text.read_text()


def test_the_appendix_has_a_row_for_each_run(pages, workdir):
    table = Page(pages[0].read_text()).tables[-1]
    rows = {row[-1]: dict(zip(table[0], row, strict=True)) for row in table[1:] if len(row) > 1}
    states = {folder.removeprefix("all/"): row["status"] for folder, row in rows.items()}
    assert len(rows) == 9 + 3 + 5
    assert {k: v for k, v in states.items() if v != "finished"} == {
        "other/stopped": "interrupted at step 460",
        "other/diverged": "diverged at step 47",
        "other/crashed": "crashed after step 90, restarts at step 0",
        "other/never": "not begun",
    }
    row = rows["all/curves/runs/plain-56-1"]
    start = json.loads((workdir / "curves/runs/plain-56-1/starts.jsonl").read_text())
    expected = {
        "run": "plain-56", "seed": "1", "steps": "900 of 900", "training error %": "5.00", "test error %": "71.00",
        "training time (not compiling)": "2:05", "data set": "digits", "commit": str(start["commit"] or "—"),
        "started (UTC)": start["time"][:16].replace("T", " "), "experiment": "plain_vs_residual",
    }  # fmt: skip
    assert {key: row[key] for key in expected} == expected
    assert row["device"].startswith("8 × ")
    assert rows["all/curves/runs/plain-20-0"]["experiment"] == "plain_vs_residual, depth_sweep"
    assert rows["all/other/stopped"]["steps"] == "450 of 900"


def test_a_row_unfolds_to_commands_versions_and_config(pages):
    text = pages[1].read_text()
    fold = text.partition("<details><summary>residual-20, seed 1: commands")[2].partition("</details>")[0]
    assert "python -m experiments.depth_sweep --workdir='a b'" in fold
    assert "python train.py --config=configs/cifar10.py:residual-20 --config.seed=1 --workdir=runs/r20-1-again" in fold
    assert "Differences from the paper's recipe for residual-20: none." in fold
    assert re.search(r"jax \d+\.\d+\S*, jaxlib", fold)
    assert fold.index("\nseed = 1\n") < fold.index(
        "data.data_dir = ''"
    )  # first the changed values, then the whole config
    assert "optimizer.weight_decay = 0.0001" in fold
    assert "\nThe run crashed after step 90, restarts at step 0: OSError: the disk is full\n" in text


def test_long_tables_are_folded(tmp_path):
    folder = experiment(tmp_path / "all", [run(tmp_path / "all/runs/x", config())], published=[])
    with open(folder / "table.csv", "w", newline="") as file:
        csv.writer(file).writerows([["layer", "norm"], *([i, i / 3] for i in range(100))])
    page, text = report.write(folder, tmp_path / "out")
    assert "<details><summary>Table 1: Final test error of each run. (100 rows)" in text.read_text()
    assert len(Page(page.read_text()).tables[0]) == 101


def test_the_summary_of_a_fold_is_shown_as_it_is(tmp_path):
    """Markdown leaves the inside of an HTML element alone: its own escapes would be shown, and tags would be tags."""
    fold = document.Fold("my_unit-8 <b>, a\nb", [])
    text = render._block(fold, tmp_path)
    assert "<details><summary>my_unit-8 &lt;b&gt;, a b</summary>" in text


def snapshot(folder):
    return {p: (p.stat().st_mtime_ns, p.stat().st_size) for p in folder.rglob("*")}


def test_a_report_changes_no_files_and_does_not_import_jax(workdir, tmp_path):
    before = snapshot(workdir)
    code = (
        "import sys; from pathlib import Path; from resnet_flax.reporting import report; "
        f"report.write(Path({str(workdir)!r}), Path({str(tmp_path)!r})); print('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    assert done.stderr == ""
    assert snapshot(workdir) == before


def test_by_default_the_report_is_written_to_the_folder_itself(tmp_path):
    run(tmp_path / "all/x", config())
    code, output = command("-m", "experiments.report", f"--workdir={tmp_path}/all")
    assert (code, output) == (0, f"{tmp_path}/all/report.html\n{tmp_path}/all/report.md\n")
    assert "1 run (1 finished)" in (tmp_path / "all/report.html").read_text()


def test_an_experiment_may_have_its_runs_elsewhere(tmp_path):
    shared = run(tmp_path / "shared/x", config())
    experiment(tmp_path / "all/curves", [shared], published=[])
    _, text = report.write(tmp_path / "all", tmp_path / "out")
    assert "| shared/x |" in text.read_text()
    assert "Other runs" not in text.read_text()


@pytest.mark.parametrize("seeds", [(0, 0), (0, 1)])
def test_runs_on_different_folders_have_a_row_each(tmp_path, seeds):
    """Regression test: they were one row, with the first run alone or the mean over both data sets."""
    for name, error, seed in zip(("cats", "dogs"), (0.1, 0.3), seeds, strict=True):
        of = config("residual-18", "configs/folder.py", data__folder=name, seed=seed)
        run(tmp_path / "all" / name, of, test_error=error)
    _, text = report.write(tmp_path / "all", tmp_path / "out")
    found = re.findall(
        r"^\| residual-18 \| (folder \w+) \| 1 \| [\d,]+ \| [\d.]+ \| ([\d.]+) \|", text.read_text(), re.M
    )
    assert found == [("folder cats", "10.00"), ("folder dogs", "30.00")]


def test_a_mean_over_fewer_runs_than_the_row_says_how_many():
    finished = {"run": "plain-8", "state": "finished", "training_seconds": 1.0, "parameters": 5, "train_error": 0.1}
    seeds = [finished | {"test_error": 0.2}] * 2 + [finished | {"test_error": 0.2, "test_top5_error": 0.01}]
    assert tables.rows(seeds)[0][2:6] == ("3", "10.00 ± 0.00", "20.00 ± 0.00", "1.00 (1 of 3)")


def test_a_run_that_is_training_has_the_status_running(tmp_path):
    folder = run(tmp_path / "all/x", config(), steps=90)
    with RunDirectory(folder).locked():
        assert gather.read_run(folder, "x").status == "running, after step 90"
    assert gather.read_run(folder, "x").status == "killed or failed after step 90, restarts at step 0"


def broken(tmp_path, break_it):
    folder = experiment(tmp_path / "all/curves", [run(tmp_path / "all/curves/runs/x", config())])
    break_it(folder)
    return command("-m", "experiments.report", f"--workdir={tmp_path}/all", f"--output={tmp_path}/out")


def edit(**fields):
    def change(folder):
        left = json.loads((folder / record.FILE).read_text())
        (folder / record.FILE).write_text(json.dumps({**left, **fields}))

    return change


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / "curves.png").unlink(), "The figure curves.png is missing (No such file or directory)."),
        (lambda f: (f / "curves.png").write_text("PNG"), "The figure curves.png is not a PNG file."),
        (lambda f: (f / "table.csv").unlink(), "The table table.csv is missing (No such file or directory)."),
        (lambda f: (f / "table.csv").write_bytes(b"\xff\xfe\x00"), "The table table.csv is not a CSV file."),
        (lambda f: (f / "table.csv").write_text(""), "The table table.csv is empty."),
        (lambda f: (f / "table.csv").write_text("a,b\n1\n"), "has rows longer or shorter than its header."),
        (lambda f: (f / record.FILE).write_text("{"), "all/curves/experiment.json: is not a record of an experiment"),
        (edit(figures=[{"path": "x"}]), "all/curves/experiment.json: is not a record of an experiment"),
        (edit(title=7), "all/curves/experiment.json: is not a record of an experiment: a field that must be a text"),
        (edit(published=["cifar10_tabel6"]), "'cifar10_tabel6' is not known; did you mean cifar10_table6?"),
        (
            edit(runs=["runs/x", "runs/y"]),
            "all/curves/runs/y/config.json: there is no such file, so the folder holds no run",
        ),
        (lambda f: (f / "runs/z").mkdir() or (f / "runs/z/config.json").write_text("[]"), "runs/z/config.json: is not"),
        (
            lambda f: (f / "runs/x/metrics.jsonl").write_text("7\n"),
            "all/curves/runs/x/metrics.jsonl: is not what a run",
        ),
    ],
    ids=range(13),
)
def test_a_problem_is_reported_in_its_place(tmp_path, break_it, message):
    code, output = broken(tmp_path, break_it)
    assert code == 0, output
    [warning] = [line for line in output.splitlines() if line.startswith("warning: ")]
    assert message in warning
    assert f"<strong>Missing:</strong>{html.escape(warning.removeprefix('warning: '), quote=True)}" in (
        tmp_path / "out/report.html"
    ).read_text().replace("&#39;", "&#x27;")
    assert (tmp_path / "out/report.md").read_text().count("> **Missing:**") == 1


def test_mistakes_are_refused_in_one_line(tmp_path):
    empty, single = tmp_path / "empty", tmp_path / "single/x"
    empty.mkdir()
    run(single, config())
    torn = tmp_path / "torn"
    torn.mkdir()
    (torn / "experiment.json").write_text("{")
    (tmp_path / "file").write_text("")
    cases = [
        ([f"--workdir={tmp_path}/nowhere"], "there is no such folder"),
        ([f"--workdir={empty}"], "holds no experiment.json of an experiment and no config.json of a run"),
        ([f"--workdir={torn}"], "nothing there can be read: torn/experiment.json: is not a record of an experiment"),
        ([f"--workdir={single}"], f"--workdir={single} is a single run; give --output=FOLDER for its report\n"),
        ([f"--workdir={tmp_path}/single", f"--output={single}/report"], "is inside a run directory"),
        ([f"--workdir={tmp_path}/single", f"--output={tmp_path}/file"], "cannot be written"),
        ([], "workdir"),
    ]
    for arguments, message in cases:
        code, output = command("-m", "experiments.report", *arguments)
        assert code == 2, output
        assert output.startswith("error: ")
        assert message in output
        assert output.count("\n") == 1


def test_a_record_is_read_as_it_was_written(tmp_path):
    written = record.Record(
        "x", "Title", "Why?", (record.Figure("a.png", "A"),), (record.Table("a.csv", "B"),), ["n"], ["highway"], [], "c"
    )
    record.write(written, tmp_path, [tmp_path / "runs/x"])
    read = record.read(tmp_path)
    assert (read.figures, read.tables, read.runs) == (written.figures, written.tables, ["runs/x"])
    (tmp_path / record.FILE).unlink()
    with pytest.raises(UserError, match="cannot be read: No such file"):
        record.read(tmp_path)


def page_with(text, cell):
    blocks = [document.Text(text), document.Grid("Table 1", text, ("h", text), [(cell, [text, "x"])])]
    return document.Document("T", [], [document.Section("S", "s", blocks)])


@pytest.fixture(scope="module")
def usual_tags():
    return Page(render.html(page_with("a", "a"))).tags


@given(text=st.text(max_size=40), cell=st.text(max_size=40))
def test_any_text_is_escaped(tmp_path_factory, usual_tags, text, cell):
    """No text of a note or a cell opens an element, or ends a cell, a line or a heading."""
    page = page_with(text, cell)
    assert Page(render.html(page)).tags == usual_tags
    found = render.markdown(page, tmp_path_factory.getbasetemp())
    [table] = markdown_tables(found)
    assert [len(row) for row in table] == [2, 2]
    assert len(re.findall(r"^#{1,6}( |$)", found, re.MULTILINE)) == 2
    assert "<br>" not in found.replace("<br>x", "")


@pytest.mark.parametrize(
    ("cells", "numeric"),
    [
        (["1", "2.5", "—"], True),
        (["6.61 ± 0.16", "1,727,962", "2:05"], True),
        (["900 of 900", "-3e-5", "7%"], True),
        (["1.00 (1 of 3)", "6.61 ± 0.16 (2 of 3)"], True),
        (["8.27 (best epoch)", "1"], False),
        (["—", "—"], False),
        (["plain-20", "1"], False),
        ([], False),
    ],
)
def test_columns_of_numbers_are_recognised(cells, numeric):
    assert document.Grid("", "", ("x",), [(cell,) for cell in cells]).numeric == [numeric]


def test_the_report_on_a_real_run(tmp_path):
    short = ("--config.train.steps=20", "--config.train.log_every=10", "--config.model.width=0.25")
    code, output = finish(train(tmp_path / "all/r8", *short, "--config.schedule.milestones=(10,15)"))
    assert code == 0, output
    page, _ = report.write(tmp_path / "all", tmp_path / "out")
    [row] = [row for row in Page(page.read_text()).tables[-1][1:] if len(row) > 1]
    final = lines(tmp_path / "all/r8")[-1]
    errors = [f"{100 * final[key]:.2f}" for key in ("train_error", "test_error")]
    assert row[:6] == ["residual-8", "0", "finished", "20 of 20", *errors]
    assert "width 0.25 instead of 1" in page.read_text()
