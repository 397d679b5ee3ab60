"""Runs that were begun under old rules: which are refused on resume, and which are not."""

import json

import pytest

from resnet_flax import config
from resnet_flax.errors import UserError
from resnet_flax.training import loop, rules
from resnet_flax.training import workdir as folders
from tests.training.small import small_config


@pytest.mark.parametrize("name", ["finished_average", "interrupted_average"])
def test_an_average_begun_under_the_old_rule_is_not_resumed(begun_before, name):
    """One that is finished says so; one that is not, or is to go further, is refused in one line and left as it was."""
    workdir = begun_before / name
    c = folders.read_config(workdir)
    if name == "finished_average":
        assert loop.run(c, workdir)["step"] == 20
        c.train.steps = 30
    before = {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file() and p.name != ".lock"}
    with pytest.raises(UserError, match=r"it was begun under an old rule: .*optimizer\.ema.*choose another folder$"):
        loop.run(c, workdir)
    assert {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file() and p.name != ".lock"} == before


def test_lars_begun_under_the_old_rule_is_not_resumed(begun_before):
    workdir = begun_before / "interrupted"
    c = folders.read_config(workdir)
    c.optimizer.name = "lars"
    folders.write_config(workdir, config.resolve(c))
    with pytest.raises(UserError, match=r"cannot be resumed: it was begun under an old rule: its LARS"):
        loop.run(c, workdir)


def test_the_rules_of_a_run_are_those_of_its_beginning(tmp_path):
    assert folders.rules_of(tmp_path) == 1
    (tmp_path / folders.STARTS).write_text('{"step": 0}\n')  # as 4cfe0ac wrote it
    folders.record_start(tmp_path, 10, 100, 10)
    assert folders.rules_of(tmp_path) == 1  # resumed: what it was
    folders.record_start(tmp_path, 0, 100, 10)
    folders.record_start(tmp_path, 10, 100, 10)
    assert folders.rules_of(tmp_path) == folders.RULES  # begun anew
    assert json.loads((tmp_path / folders.STARTS).read_text().splitlines()[-1])["rules"] == folders.RULES


def test_only_what_changed_is_of_an_old_kind():
    plain, average = config.resolve(small_config()), config.resolve(small_config(optimizer__ema=0.9))
    assert rules.old_rules(plain, 1) == rules.old_rules(average, folders.RULES) == []
    assert len(rules.old_rules(average, 1)) == 1
