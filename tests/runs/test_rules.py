"""Runs that were begun under old training rules: which of them can be resumed."""

import json

import pytest

from resnet_flax import config
from resnet_flax.errors import UserError
from resnet_flax.runs import resume, rules
from resnet_flax.runs.directory import RunDirectory
from resnet_flax.runs.file_names import CONFIG, STARTS
from resnet_flax.training import loop
from tests.training.small import small_config


@pytest.mark.parametrize("name", ["finished_average", "interrupted_average"])
def test_a_run_with_an_average_of_the_old_rule_is_not_resumed(begun_before, name):
    """A finished run reports that. An unfinished run, or one with more steps, is refused and left unchanged."""
    workdir = begun_before / name
    c = RunDirectory(workdir).config()
    if name == "finished_average":
        assert loop.run(c, workdir)["step"] == 20
        c.train.steps = 30
    before = {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file() and p.name != ".lock"}
    with pytest.raises(UserError, match=r"it was begun under an old rule: .*optimizer\.ema.*choose another folder$"):
        loop.run(c, workdir)
    assert {p: p.read_bytes() for p in workdir.rglob("*") if p.is_file() and p.name != ".lock"} == before


def test_a_run_with_lars_of_the_old_rule_is_not_resumed(begun_before):
    workdir = begun_before / "interrupted"
    c = RunDirectory(workdir).config()
    c.optimizer.name = "lars"
    RunDirectory(workdir).write_config(config.resolve(c))
    with pytest.raises(UserError, match=r"cannot be resumed: it was begun under an old rule: its LARS"):
        loop.run(c, workdir)


def test_a_run_keeps_the_rules_of_its_first_start(tmp_path):
    assert RunDirectory(tmp_path).rules() == 1
    (tmp_path / STARTS).write_text('{"step": 0}\n')  # as commit 4cfe0ac wrote it
    RunDirectory(tmp_path).record_start(10, 100, 10, {})
    assert RunDirectory(tmp_path).rules() == 1  # a resumed run keeps its rules
    RunDirectory(tmp_path).record_start(0, 100, 10, {})
    RunDirectory(tmp_path).record_start(10, 100, 10, {})
    assert RunDirectory(tmp_path).rules() == rules.RULES  # a restarted run has today's rules
    assert json.loads((tmp_path / STARTS).read_text().splitlines()[-1])["rules"] == rules.RULES


def test_only_affected_configs_have_old_rules():
    plain, average = config.resolve(small_config()), config.resolve(small_config(optimizer__ema=0.9))
    assert rules.old_rules(plain, 1) == rules.old_rules(average, rules.RULES) == []
    assert len(rules.old_rules(average, 1)) == 1


# Config file, keys that the user set, and the derived values of commit 4cfe0ac, which did not follow those keys.
BEFORE = [
    ("cifar10", {"model.depth": 110}, {"schedule.warmup_steps": 0}),
    ("cifar10", {"model.block": "bottleneck", "model.depth": 164}, {"model.shortcut": "A", "schedule.warmup_steps": 0}),
    ("cifar10", {"train.batch_size": 192}, {"train.bn_group": 64}),
    ("imagenet_short", {"train.batch_size": 256}, {
        "optimizer.learning_rate": 0.4, "train.steps": 50_040, "train.eval_every": 1251, "train.checkpoint_every": 1251,
        "schedule.warmup_steps": 6255, "schedule.decay_steps": 50_040,
    }),
    ("digits", {"train.batch_size": 64}, {
        "schedule.milestones": (450, 675), "train.steps": 900, "train.log_every": 45, "train.eval_every": 45,
        "train.checkpoint_every": 225,
    }),
    ("folder", {"train.steps": 4000, "data.folder": "photos"}, {"schedule.decay_steps": 2000}),
    ("folder", {"data.image_size": 32, "data.folder": "photos"}, {"data.resize": 256}),
    ("imagenet", {"data.image_size": 64}, {"data.resize": 256, "data.scales": (256, 480)}),
]  # fmt: skip


@pytest.mark.parametrize(("file", "given", "then"), BEFORE, ids=str)
def test_a_run_with_derived_values_of_the_old_rule_is_recognised(tmp_path, file, given, then):
    """The run's command is refused with advice on how to resume; its own config resumes it; and tables mark it."""
    now = config.resolve(config.load(f"configs/{file}.py", None, given))
    old = config.resolve(config.load(f"configs/{file}.py", None, given | then))
    RunDirectory(tmp_path).write_config(old)
    (tmp_path / STARTS).write_text('{"step": 0}\n')
    (tmp_path / "checkpoints" / "10").mkdir(parents=True)
    with pytest.raises(UserError, match=r"begun under an old rule: .* --config=configs/from_json.py:.* resumes it"):
        resume.check_config(RunDirectory(tmp_path), now)
    again = config.resolve(config.load("configs/from_json.py", str(tmp_path / CONFIG)))
    resume.check_config(RunDirectory(tmp_path), again)
    resume.check_rules(RunDirectory(tmp_path), again)
    reason, begun_under = "its schedule, shortcut or bn_group is what its config file has for another depth, ", 1
    if "data.image_size" in given:
        reason, begun_under = "its photographs were resized to the 256 pixels that its config file has for crops", 3
    (found,) = rules.old_rules(old, begun_under)
    assert found.startswith(reason)
    assert rules.old_rules(old, rules.RULES) == rules.old_rules(now, begun_under) == []
