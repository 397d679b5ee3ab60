"""Every flag that takes a path refuses an address and too long a path, before anything is read or written."""

import pytest

from tests.commands import ROOT, command
from tests.marks import slow

DIGITS = "--config=configs/digits.py"
ADDRESS = "gs://bucket/x"
GIVEN = [
    ("train.py", DIGITS, f"--workdir={ADDRESS}"),
    ("train.py", f"--config={ADDRESS}", "--workdir={}"),
    ("train.py", f"--config=configs/from_json.py:{ADDRESS}", "--workdir={}"),
    ("train.py", DIGITS, "--workdir={}", f"--config.data.data_dir={ADDRESS}", "--config.data.name=mnist"),
    ("train.py", DIGITS, "--workdir={}", f"--config.init.weights={ADDRESS}"),
    ("train.py", "--config=configs/folder.py", "--workdir={}", f"--config.data.folder={ADDRESS}"),
    ("train.py", "--config=configs/imagenet.py", "--workdir={}", f"--config.data.folder={ADDRESS}"),
    ("-m", "resnet_flax.preflight", DIGITS, f"--workdir={ADDRESS}"),
    ("-m", "resnet_flax.preflight", "--config=configs/folder.py", f"--config.data.folder={ADDRESS}"),
    ("-m", "resnet_flax.evaluate", f"--workdir={ADDRESS}"),
    ("-m", "resnet_flax.evaluate", f"--weights={ADDRESS}"),
    ("-m", "resnet_flax.export", f"--workdir={ADDRESS}", "--output={}/x.safetensors"),
    ("-m", "resnet_flax.export", "--workdir={}", f"--output={ADDRESS}"),
    ("-m", "resnet_flax.predict", f"--workdir={ADDRESS}", "README.md"),
    ("-m", "resnet_flax.predict", "--workdir={}", f"--picture={ADDRESS}.png", "README.md"),
    ("-m", "resnet_flax.predict", "--workdir={}", ADDRESS),
    ("-m", "experiments.plain_vs_residual", f"--workdir={ADDRESS}"),
    ("-m", "experiments.depth_sweep", "--workdir={}", f"--runs={ADDRESS}"),
    ("-m", "experiments.all", f"--workdir={ADDRESS}", "--only=cost"),
    ("-m", "experiments.report", f"--workdir={ADDRESS}"),
    ("-m", "experiments.report", "--workdir={}", f"--output={ADDRESS}"),
    ("-m", "benchmarks.memory", f"--output={ADDRESS}"),
]


# One address for each command and each kind of flag; the others are slow.
QUICK = (0, 4, 6, 7, 9, 11, 12, 15, 17, 20, 21)


@pytest.mark.parametrize(
    "given",
    [g if i in QUICK else slow(g) for i, g in enumerate(GIVEN)],
    ids=lambda g: " ".join(g),
)
def test_an_address_is_refused_as_a_path(tmp_path, given):
    code, output = command(*(argument.format(tmp_path) for argument in given))
    assert code == 2, output
    assert "URLs are not supported; mount the gs:// storage" in output
    assert len(output.splitlines()) == 1, output
    assert not list(ROOT.glob("gs:*"))


@pytest.mark.parametrize("given", [g for g in GIVEN if g[1] != "resnet_flax.predict"][::4], ids=" ".join)
def test_a_path_of_3000_characters_is_refused(tmp_path, given):
    code, output = command(*(a.format(tmp_path).replace(ADDRESS, 3000 * "x") for a in given))
    assert code == 2, output
    assert "characters is longer than file systems allow" in output
    assert len(output.splitlines()) == 1, output
