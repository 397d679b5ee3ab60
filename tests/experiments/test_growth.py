"""The work of a report and of a plan grows in proportion to the number of runs; work is counted in calls."""

import sys

from resnet_flax.reporting import record, report
from resnet_flax.sweeps.cases import Case, Request
from resnet_flax.sweeps.plan import locate, plan
from tests.experiments.folders import config, run

SIZES = (4, 8, 16)


def calls_of(function):
    """Counts the calls of all functions, those of C as well, while a function runs."""
    count = 0

    def note(_frame, event, _argument):
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(before)
    return count


def check_growth(works):
    """Twice the runs are at most twice the work, beside what does not depend on the runs."""
    works[0]()  # config files and templates are read once
    few, more, most = map(calls_of, works)
    assert most - more <= 2.05 * (more - few), (few, more, most)


def test_a_report(tmp_path):
    """Tables, rows that unfold, comparisons with published numbers; half of the runs are an experiment's."""
    works = []
    for size in SIZES:
        folder = tmp_path / str(size)
        runs = [run(folder / f"run{seed}", config(seed=seed), lines=2) for seed in range(size)]
        left = record.Record("highway", "Highway", "Why?", published=("cifar10_table6",))
        record.write(left, folder / "experiment", runs[::2])
        works.append(lambda folder=folder: report.write(folder, folder / "report"))
    check_growth(works)


def test_runs_in_folders_of_other_names(tmp_path):
    works = []
    for size in SIZES:
        runs = tmp_path / str(size)
        for seed in range(size):
            run(runs / f"mine{seed}", config(seed=seed), lines=2)
        request = Request("configs/digits.py", tmp_path, runs, seeds=range(size))
        planned = plan([Case("residual-20")], request)

        def work(planned=planned, request=request):
            assert [r.workdir.name for r in locate(planned, request)] == [f"mine{s}" for s in request.seeds]

        works.append(work)
    check_growth(works)
