"""The package as it is installed: one name in site-packages, with configs and experiments inside, and one command."""

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile

import pytest

from resnet_flax import shipped
from tests.commands import ROOT, command

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def versions(text):
    return dict(re.findall(r"^([A-Za-z][\w-]*)[=>]=([\d.]+)", text, re.M))


def test_its_requirements_are_ranges_from_the_older_tested_versions():
    """Each one that is tested is in the range, and nothing is required that is not tested."""
    least = versions("\n".join(PROJECT["project"]["dependencies"]))
    pinned = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if "==" in line]
    older = versions("\n".join(line for line in pinned if 'python_version >= "3.12"' not in line))
    older.pop("jaxlib")  # jax's own
    older |= {"pillow": versions((ROOT / "requirements-track.txt").read_text())["pillow"]}  # Trackio's
    assert least == older


def test_its_extras_are_ranges_from_the_tested_versions():
    extras = PROJECT["project"]["optional-dependencies"]
    for extra in ("track", "wandb", "ray"):
        files = "requirements-ray.txt" if extra == "ray" else "requirements-track.txt"
        for name, least in versions("\n".join(extras[extra])).items():
            assert versions((ROOT / files).read_text())[name] == least
    assert versions("\n".join(extras["dev"])) == versions((ROOT / "requirements-dev.txt").read_text())


def test_its_list_of_packages_is_whole():
    listed = PROJECT["tool"]["setuptools"]["packages"]
    there = {".".join(file.relative_to(ROOT).parent.parts) for file in (ROOT / "resnet_flax").rglob("*.py")}
    assert sorted(listed) == sorted(there | {"resnet_flax.configs", "resnet_flax.experiments"})


@pytest.mark.parametrize("folder", ["configs", "experiments"])
def test_what_moves_into_it_imports_nothing_by_its_name_in_a_checkout(folder):
    for file in (ROOT / folder).glob("*.py"):
        assert not re.search(r"^\s*(from|import) (configs|experiments)\b", file.read_text(), re.M), file


def built(folder):
    """A wheel of a copy of the checkout."""
    copy = folder / "copy"
    for name in ("resnet_flax", "configs", "experiments"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    build = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir"]
    done = subprocess.run([*build, folder, copy], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the wheel's files, as in site-packages; the rest is the tests' own environment."""
    folder = tmp_path_factory.mktemp("wheel")
    pytest.importorskip("setuptools", "77")
    with zipfile.ZipFile(built(folder)) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(installed, folder, *arguments):
    """``resnet-flax ARGUMENTS...`` in a folder from which no checkout is seen."""
    return command(
        "-c", "from resnet_flax.main import main; main()", *arguments,
        prefix=("env", "-C", str(folder), sys.executable), environment={"PYTHONPATH": str(installed)},
    )  # fmt: skip


def test_it_puts_one_name_into_site_packages(installed):
    names = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert names == {"resnet_flax"}
    for folder in ("configs", "experiments"):
        assert {p.name for p in (installed / "resnet_flax" / folder).glob("*.py")} == {
            p.name for p in (ROOT / folder).glob("*.py")
        }
    (entry,) = installed.glob("*.dist-info/entry_points.txt")
    assert "resnet-flax = resnet_flax.main:main" in entry.read_text()


def test_its_command_trains_and_sweeps_from_any_folder(installed, tmp_path):
    small = [f"--config.{key}" for key in ("model.width=0.25", "train.steps=4", "train.batch_size=16")]
    code, output = run(installed, tmp_path, "train", "--config=digits:residual-8", "--workdir=run", *small)
    assert (code, "step 4: training error" in output) == (0, True), output
    sweep = ["plain_vs_residual", "--depths=8", "--units=residual", "--workdir=sweep"]
    code, output = run(installed, tmp_path, *sweep, *small)
    assert (code, (tmp_path / "sweep" / "curves.png").is_file()) == (0, True), output


def test_its_commands_are_listed_and_others_refused():
    code, output = command("-m", "resnet_flax", "--help")
    assert (code, all(name in output for name in shipped.names("experiments"))) == (0, True), output
    code, output = command("-m", "resnet_flax", "trian")
    assert (code, output) == (2, "error: resnet-flax has no command 'trian'; did you mean train?\n")


@pytest.mark.slow
def test_it_is_installed_into_an_empty_environment(tmp_path):
    """With its requirements, from wherever pip gets them."""
    wheel, environment = built(tmp_path), tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True)
    subprocess.run([environment / "bin" / "pip", "install", "--quiet", wheel], check=True)
    small = ["--config.train.steps=10", "--config.model.width=0.25"]
    name = environment / "bin" / "resnet-flax"
    for arguments in (
        ["train", "--config=digits:residual-8", "--workdir=run"],
        ["plain_vs_residual", "--depths=8", "--workdir=sweep"],
    ):
        done = subprocess.run([name, *arguments, *small], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
