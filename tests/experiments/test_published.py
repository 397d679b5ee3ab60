"""Published numbers are those that the papers print, each with its source. An invalid table is refused."""

import collections
import json
import re

import pytest

from resnet_flax import published
from resnet_flax.errors import UserError

# Copied from the papers, independently of the JSON files.
# (table, metric, network, variant, statistic) -> (value, spread)
PRINTED = {
    ("cifar10_table6", "test error %", "residual-20", "", "as printed"): (8.75, 0),
    ("cifar10_table6", "test error %", "residual-32", "", "as printed"): (7.51, 0),
    ("cifar10_table6", "test error %", "residual-44", "", "as printed"): (7.17, 0),
    ("cifar10_table6", "test error %", "residual-56", "", "as printed"): (6.97, 0),
    ("cifar10_table6", "test error %", "residual-110", "", "best"): (6.43, 0),
    ("cifar10_table6", "test error %", "residual-110", "", "mean"): (6.61, 0.16),
    ("cifar10_table6", "test error %", "residual-1202", "", "as printed"): (7.93, 0),
    ("cifar10_table6", "test error %", "fitnet-19", "", "as printed"): (8.39, 0),
    ("cifar10_table6", "test error %", "highway-19", "the source's network", "best"): (7.54, 0),
    ("cifar10_table6", "test error %", "highway-19", "the source's network", "mean"): (7.72, 0.16),
    ("cifar10_table6", "test error %", "highway-32", "the source's network", "as printed"): (8.80, 0),
    **{
        ("cifar10_peers", "test error %", f"residual-{depth}", "", "best epoch"): (error, 0)
        for depth, error in ((20, 8.27), (32, 7.37), (44, 6.90), (56, 6.61))
    },
    **{
        ("cifar10_peers", "test error %", f"residual-{depth}", "", "as printed"): (error, 0)
        for depth, error in ((20, 8.29), (32, 7.63), (44, 7.14), (56, 6.94))
    },
    ("cifar10_peers", "test error %", "residual-110", "", "best epoch"): (6.32, 0),
    ("cifar10_peers", "test error %", "residual-110", "", "as printed"): (6.73, 0),
    ("highway", "test error %", "highway-19", "the source's network", "best"): (100 - 92.46, 0),
    ("highway", "test error %", "highway-19", "the source's network", "mean"): (100 - 92.28, 0.16),
    ("highway", "test error %", "highway-32", "the source's network", "as printed"): (100 - 91.20, 0),
    ("preactivation", "test error %", "residual-110", "", "median"): (6.61, 0),
    ("preactivation", "test error %", "preactivation-110", "", "median"): (6.37, 0),
    ("preactivation", "test error %", "preactivation-bottleneck-164", "", "median"): (5.46, 0),
    ("preactivation", "test error %", "preactivation-bottleneck-1001", "", "median"): (4.92, 0),
    ("preactivation", "test error %", "residual-bottleneck-164", "", "median"): (5.93, 0),
    ("preactivation", "test error %", "residual-bottleneck-1001", "", "median"): (7.61, 0),
    ("imagenet", "top-1 error %", "plain-18", "", "as printed"): (27.94, 0),
    ("imagenet", "top-1 error %", "residual-18", "option A", "as printed"): (27.88, 0),
    ("imagenet", "top-5 error %", "residual-34", "option A", "as printed"): (7.76, 0),
    ("imagenet", "top-1 error %", "residual-34", "option B", "as printed"): (24.52, 0),
    ("imagenet", "top-5 error %", "residual-34", "option B", "as printed"): (7.46, 0),
    ("imagenet", "top-1 error %", "residual-34", "option C", "as printed"): (24.19, 0),
    ("imagenet", "top-1 error %", "residual-50", "", "as printed"): (22.85, 0),
    ("imagenet", "top-5 error %", "residual-50", "", "as printed"): (6.71, 0),
    ("imagenet", "top-1 error %", "residual-101", "", "as printed"): (21.75, 0),
    ("imagenet", "top-5 error %", "residual-101", "", "as printed"): (6.05, 0),
    ("imagenet", "top-1 error %", "residual-152", "", "as printed"): (21.43, 0),
    ("imagenet", "top-1 error %", "plain-34", "", "as printed"): (28.54, 0),
    ("imagenet", "top-1 error %", "residual-34", "option A", "as printed"): (25.03, 0),
    ("imagenet", "top-5 error %", "residual-34", "option C", "as printed"): (7.40, 0),
    ("imagenet", "top-5 error %", "residual-152", "", "as printed"): (5.71, 0),
}
ROWS = collections.Counter(place[0] for place in PRINTED)  # every row of a table is one of these


@pytest.mark.parametrize("place", PRINTED, ids=lambda p: "-".join(p[::2]))
def test_numbers_are_as_printed(place):
    key, metric, network, variant, statistic = place
    [number] = [
        n
        for n in published.read(key).numbers
        if (n.metric, n.network, n.variant, n.statistic) == (metric, network, variant, statistic)
    ]
    assert (number.value, number.spread) == pytest.approx(PRINTED[place])


def test_every_table_is_whole_and_names_its_sources():
    tables = {table.key: table for table in published.read_all()}
    assert tables.keys() == ROWS.keys() == set(published.keys())
    for key, table in tables.items():
        assert len(table.numbers) == ROWS[key], key
        for number in table.numbers:
            assert re.fullmatch(r"arXiv:\d{4}\.\d{5}|https://\S+\.\S+", number.address), (key, number.network)
    peers = [n for n in tables["cifar10_peers"].numbers if n.by == "akamaster"]
    assert all("best test epoch of 200, hence optimistic" in n.protocol for n in peers)
    assert [k for k, t in tables.items() if t.role == "peers"] == ["cifar10_peers"]


@pytest.mark.parametrize(
    ("number", "text"),
    [
        ({"value": 8.75}, "8.75"),
        ({"value": 6.61, "spread": 0.16, "statistic": "mean", "runs": 5}, "6.61 ± 0.16 (mean of 5)"),
        ({"value": 7.54, "statistic": "best"}, "7.54 (best)"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_a_numbers_text_has_its_spread_and_statistic(number, text):
    given = {
        "network": "residual-20",
        "data": "cifar10",
        "metric": "test error %",
        "by": "",
        "source": "",
        "address": "",
    }
    assert str(published.Number(**{**given, "where": "", **number})) == text


GOOD = {
    "network": "residual-20", "data": "cifar10", "metric": "test error %", "value": 8.75,
    "by": "A", "source": "B", "address": "arXiv:1512.03385", "where": "Table 6",
}  # fmt: skip


def write(folder, *rows, **fields):
    table = {"title": "T", "role": "paper", "notes": [], "defaults": {}, "rows": rows, **fields}
    (folder / "mine.json").write_text(json.dumps(table))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": "ResNet20"}, "network 'ResNet20' is not UNIT-DEPTH"),
        ({"metric": "accuracy"}, "metric is not one of"),
        ({"value": 0.0}, "value 0.0 is not an error in percent"),
        ({"value": "8.75"}, "value '8.75' is not an error in percent"),
        ({"spread": -1}, "spread -1 is not a standard deviation"),
        ({"statistic": "luck"}, "statistic 'luck' is not one of"),
        ({"address": "see the paper"}, "neither arXiv:NUMBER nor https"),
        ({"address": ""}, "neither arXiv:NUMBER nor https"),
        ({"source": ""}, "by, source, where and data must not be empty"),
        ({"variant": "x", "config": {"model.shortcuts": "A"}}, "keys that no config has: model.shortcuts"),
        ({"config": {"model.shortcut": "A"}}, "variant and config must be given together"),
        ({"colour": "red"}, "not a table of published numbers"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_an_invalid_row_is_refused(tmp_path, change, message):
    write(tmp_path, GOOD)
    assert published.read("mine", tmp_path).numbers[0].value == 8.75
    write(tmp_path, {**GOOD, **change})
    with pytest.raises(UserError, match="mine.json") as refusal:
        published.read("mine", tmp_path)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_an_invalid_table_is_refused(tmp_path):
    write(tmp_path, GOOD, GOOD)
    with pytest.raises(UserError, match="two rows give this number; keep one"):
        published.read("mine", tmp_path)
    write(tmp_path, GOOD, role="friends")
    with pytest.raises(UserError, match="role 'friends' is not known; choose one of paper, peers"):
        published.read("mine", tmp_path)
    (tmp_path / "mine.json").write_text("{")
    with pytest.raises(UserError, match="not a table of published numbers"):
        published.read("mine", tmp_path)
    with pytest.raises(UserError, match="'cifar10_table' is not known; did you mean cifar10_table6"):
        published.read("cifar10_table")
