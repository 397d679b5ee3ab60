"""The installed package: a single package in site-packages, with configs and experiments inside, and a command."""

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


def test_requirements_are_ranges_from_the_older_tested_versions():
    """Every tested version is in its range, and every requirement is tested."""
    least = versions("\n".join(PROJECT["project"]["dependencies"]))
    pinned = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if "==" in line]
    older = versions("\n".join(line for line in pinned if 'python_version >= "3.12"' not in line))
    older.pop("jaxlib")  # jax's own
    older |= {"pillow": versions((ROOT / "requirements-track.txt").read_text())["pillow"]}  # Trackio's
    assert least == older


def test_extras_are_ranges_from_the_tested_versions():
    extras = PROJECT["project"]["optional-dependencies"]
    for extra in ("track", "wandb", "ray"):
        files = "requirements-ray.txt" if extra == "ray" else "requirements-track.txt"
        for name, least in versions("\n".join(extras[extra])).items():
            assert versions((ROOT / files).read_text())[name] == least
    assert versions("\n".join(extras["dev"])) == versions((ROOT / "requirements-dev.txt").read_text())


def test_the_list_of_packages_is_complete():
    listed = PROJECT["tool"]["setuptools"]["packages"]
    there = {".".join(file.relative_to(ROOT).parent.parts) for file in (ROOT / "resnet_flax").rglob("*.py")}
    assert sorted(listed) == sorted(there | {"resnet_flax.configs", "resnet_flax.experiments"})


@pytest.mark.parametrize("folder", ["configs", "experiments"])
def test_configs_and_experiments_do_not_import_each_other_by_their_checkout_names(folder):
    for file in (ROOT / folder).glob("*.py"):
        assert not re.search(r"^\s*(from|import) (configs|experiments)\b", file.read_text(), re.M), file


def built(folder):
    """Builds a wheel from a copy of the checkout."""
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
    """A folder with the wheel's files, like site-packages. All other packages are those of the tests' environment."""
    folder = tmp_path_factory.mktemp("wheel")
    pytest.importorskip("setuptools", "77")
    with zipfile.ZipFile(built(folder)) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(installed, folder, *arguments):
    """Runs ``resnet-flax ARGUMENTS...`` in a folder without access to the checkout."""
    return command(
        "-c", "from resnet_flax.main import main; main()", *arguments,
        prefix=("env", "-C", str(folder), sys.executable), environment={"PYTHONPATH": str(installed)},
    )  # fmt: skip


def test_make_setup_installs_the_checkout_itself(tmp_path):
    """Also for the tests and for the peers."""
    for target in ("setup", "setup-dev", "setup-peer"):
        made = ["make", "--dry-run", target, f"VENV={tmp_path}/venv", f"PYTHON={sys.executable}"]
        done = subprocess.run(made, cwd=ROOT, capture_output=True, text=True, check=True)
        (line,) = [line for line in done.stdout.splitlines() if "--editable" in line]
        assert line.endswith("--no-deps --editable .")
        assert done.stdout.index("requirements.txt") < done.stdout.index(line)


def test_the_wheel_installs_a_single_package(installed):
    names = {path.name for path in installed.iterdir() if not path.name.endswith(".dist-info")}
    assert names == {"resnet_flax"}
    for folder in ("configs", "experiments"):
        assert {p.name for p in (installed / "resnet_flax" / folder).glob("*.py")} == {
            p.name for p in (ROOT / folder).glob("*.py")
        }
    (entry,) = installed.glob("*.dist-info/entry_points.txt")
    assert "resnet-flax = resnet_flax.main:main" in entry.read_text()


def test_the_console_command_trains_and_sweeps_from_any_folder(installed, tmp_path):
    small = [f"--config.{key}" for key in ("model.width=0.25", "train.steps=4", "train.batch_size=16")]
    code, output = run(installed, tmp_path, "train", "--config=digits:residual-8", "--workdir=run", *small)
    assert (code, "step 4: training error" in output) == (0, True), output
    sweep = ["plain_vs_residual", "--depths=8", "--units=residual", "--workdir=sweep"]
    code, output = run(installed, tmp_path, *sweep, *small)
    assert (code, (tmp_path / "sweep" / "curves.png").is_file()) == (0, True), output


def test_commands_are_listed_and_unknown_ones_refused():
    code, output = command("-m", "resnet_flax", "--help")
    assert (code, all(name in output for name in shipped.names("experiments"))) == (0, True), output
    code, output = command("-m", "resnet_flax", "trian")
    assert (code, output) == (2, "error: resnet-flax has no command 'trian'; did you mean train?\n")


@pytest.mark.slow
def test_the_wheel_installs_into_an_empty_environment(tmp_path):
    """pip installs the requirements, too."""
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
