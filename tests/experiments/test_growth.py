"""The work of a report and of a plan grows in proportion to the number of runs. Work is counted in function calls."""

import sys

from resnet_flax.reporting import record, report
from resnet_flax.sweeps.cases import Case, Request
from resnet_flax.sweeps.plan import locate, plan
from tests.experiments.folders import config, run

SIZES = (4, 8, 16)


def calls_of(function):
    """Returns the number of all function calls, including C functions, that a function makes."""
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
    """Asserts that twice the runs take at most twice the work, apart from a constant."""
    works[0]()  # The first call reads config files and templates, which are cached.
    few, more, most = map(calls_of, works)
    assert most - more <= 2.05 * (more - few), (few, more, most)


def test_the_work_of_a_report_is_linear(tmp_path):
    """The report has tables, rows that unfold, and comparisons. Half of the runs belong to an experiment."""
    works = []
    for size in SIZES:
        folder = tmp_path / str(size)
        runs = [run(folder / f"run{seed}", config(seed=seed), lines=2) for seed in range(size)]
        left = record.Record("highway", "Highway", "Why?", published=("cifar10_table6",))
        record.write(left, folder / "experiment", runs[::2])
        works.append(lambda folder=folder: report.write(folder, folder / "report"))
    check_growth(works)


def test_the_work_of_finding_runs_under_other_names_is_linear(tmp_path):
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
