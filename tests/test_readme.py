"""README's config file runs as it stands there; every command of README and of the results is one that parses."""

import re
import shlex

import pytest

from tests.commands import ROOT, command, lines

# docs/study.md is run by tests/experiments/test_study.py.
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md",
         *sorted(page for page in (ROOT / "docs").glob("*.md") if page.name != "study.md"),
         *sorted((ROOT / "results").rglob("README.md"))]  # fmt: skip


def commands_in(page):
    """The commands of Python in a page's blocks and tables, each as its arguments; optional flags are given."""
    text = page.read_text().replace("\\\n", " ")
    blocks = "\n".join(block for kind, block in re.findall(r"^```(.*?)\n(.*?)^```", text, re.S | re.M) if not kind)
    inside = re.findall(r"`(python (?:-m|train\.py) [^`]+)`", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M))
    found = [line for line in blocks.splitlines() if re.match(r"(srun .*)?python ", line)] + inside
    for line in found:
        # [--all] stands for what may be left out, NAME for the rows of the table that it heads.
        plain = re.sub(r"[\[\]]", "", line.partition("python ")[2]).partition(" >")[0]
        names = [""]
        if ".NAME" in plain:
            rows = text[text.index(line) :].partition("\n\n")[0].splitlines()[2:]
            names = [name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])]
        for name in names:
            yield shlex.split(plain.replace("NAME", name), comments=True)


NO_SWEEPS = ("experiments.report", "experiments.status", "experiments.all")
COMMANDS = {shlex.join(given): given for page in PAGES for given in commands_in(page)}


@pytest.mark.parametrize("given", COMMANDS.values(), ids=COMMANDS)
def test_commands_are_known(given, tmp_path):
    """An experiment prints its runs; of the others the flags are read, and the config file with what is set in it."""
    program = given[: 2 if given[0] == "-m" else 1]
    flags = [g for g in given[len(program) :] if g != "..."]
    if "..." in given:
        flags += ["--config=configs/digits.py:plain-8", "--workdir=runs/x"]
    if program[-1] == "pytest":
        assert all((ROOT / flag).exists() for flag in flags if flag.startswith("tests"))
    elif program[-1] == "resnet_flax.config":
        assert flags == []  # it has no flags; tests/test_config.py compares what it prints
    elif program[-1].startswith("experiments.") and program[-1] not in NO_SWEEPS:
        code, output = command(*program, *flags, f"--workdir={tmp_path}", "--dry-run")
        assert code == 0, output
        assert f"{tmp_path}" in output or "experiments.cost" in program
    else:
        code, output = command(*program, *flags, "--flag_of_no_command")
        assert (code, output.splitlines()[-1].partition(";")[0]) == (2, "error: unknown flag --flag_of_no_command")


def test_a_config_file_of_ones_own(tmp_path):
    (text,) = [
        b for b in re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S) if "register(" in b
    ]
    file, run = tmp_path / "mine.py", tmp_path / "run"
    file.write_text(text)
    code, output = command("train.py", f"--config={file}", f"--workdir={run}")
    assert code == 0, output
    assert "2 classes (above, below); 48 + 12 images; tested on a fifth of its training images" in output
    last = lines(run)[-1]
    # Trained on negatives and tested on the images themselves: the network has learned it the wrong way round.
    assert last["train_error"] < 0.3
    assert last["test_error"] > 0.5
    assert last["train_margin"] > 0 < last["test_margin"]
    assert last["whole_norm"] > 0
    code, output = command("-m", "resnet_flax.evaluate", f"--workdir={run}", f"--config={file}")
    assert code == 0, output
    *_, margin, usual = output.splitlines()
    assert margin == f"test margin {last['test_margin']:.4f}"
    assert (
        usual
        == f"test error {last['test_error']:.2%} ({12 * last['test_error']:.0f} of 12), loss {last['test_loss']:.4f}"
    )
    code, output = command("-m", "resnet_flax.evaluate", f"--workdir={run}")
    assert code == 2
    assert "data.name='squares': looked for a prepared TFDS data set" in output.splitlines()[-1]
