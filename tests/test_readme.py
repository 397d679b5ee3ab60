"""The documentation: its commands parse, its code runs, its links are valid, and its messages occur in the package."""

import ast
import functools
import importlib
import re
import shlex

import pytest
import yaml

from resnet_flax import main
from resnet_flax.errors import DIVERGED, DONE, FAILED, INTERRUPTED, USER_MISTAKE
from tests.commands import ROOT, command, lines
from tests.pages import DOCS, NOTEBOOKS, PAGES, README, WRITTEN, block, prose, python_blocks


def blocks_of_commands(page):
    """Returns the lines of a page's blocks without a language. A backslash joins two lines."""
    text = page.read_text().replace("\\\n", " ")
    return "\n".join(re.findall(r"^```\n(.*?)^```", text, re.S | re.M)).splitlines()


def commands_in(page):
    """Yields the arguments of each Python command in a page's blocks and tables, with all optional flags."""
    text = page.read_text().replace("\\\n", " ")
    around = prose(page).replace("\\\n", " ")
    found = [line for line in blocks_of_commands(page) if re.match(r"(srun .*)?python |resnet-flax ", line)]
    found += re.findall(r"`(python (?:-m|train\.py) [^`]+|resnet-flax [a-z]\w* [^`]+)`", around)
    for line in found:
        # [--all] is an optional flag. NAME stands for each name in the first column of the table below.
        plain = re.sub(r"[\[\]]", "", re.sub(r"^(srun .*)?python ", "", line)).partition(" >")[0]
        names = [""]
        if ".NAME" in plain:
            rows = text[text.index(line) :].partition("\n\n")[0].splitlines()[2:]
            names = [name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])]
        for name in names:
            given = shlex.split(plain.replace("NAME", name), comments=True)
            if given[0] == "resnet-flax":
                package = "resnet_flax" if given[1] in main.COMMANDS else "experiments"
                given = ["-m", f"{package}.{given[1]}", *given[2:]]
            yield given


NO_SWEEPS = ("experiments.report", "experiments.status", "experiments.all")
COMMANDS = {shlex.join(given): given for page in PAGES for given in commands_in(page)}


@pytest.mark.parametrize("given", COMMANDS.values(), ids=COMMANDS)
def test_commands_parse(given, tmp_path):
    """Experiments do a dry run. For other commands, the flags and the config file are parsed."""
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
        trains_nothing = "experiments.cost" in program or "--trained=False" in flags
        assert output if trains_nothing else f"{tmp_path}" in output
    elif "--help" in flags:
        code, output = command(*program, *flags)
        assert (code, "--config.KEY=VALUE sets a key" in output) == (0, True), output
    else:
        code, output = command(*program, *flags, "--flag_of_no_command")
        assert (code, output.splitlines()[-1].partition(";")[0]) == (2, "error: unknown flag --flag_of_no_command")


def test_targets_of_make_and_files_for_pip_exist():
    made = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    project = (ROOT / "pyproject.toml").read_text()
    for page in WRITTEN:
        text = page.read_text()
        in_blocks = [line for line in blocks_of_commands(page) if line.startswith("make ")]
        for line in in_blocks + re.findall(r"`(make [^`]+)`", text):
            targets = [word for word in shlex.split(line, comments=True)[1:] if "=" not in word]
            assert set(targets) <= made, (page, line)
        for file in re.findall(r"pip install -r (\S+\.txt)", text):
            assert (ROOT / file).is_file(), (page, file)
        for extra in re.findall(r"pip install (?:-e )?'\.\[(\w+)\]'", text):
            assert f"\n{extra} = [" in project, (page, extra)


def test_the_readme_is_short():
    assert len(README.read_text().splitlines()) <= 120


def test_every_page_is_named_on_another_page():
    for page in DOCS:
        others = [p for p in (README, *DOCS) if p != page]
        assert any(page.name in p.read_text() for p in others), page


@functools.cache
def anchors(page):
    """Returns the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ +(.*)$", prose(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_are_valid(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(page))):
        if re.match(r"https?:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert ROOT in there.parents, target
        assert not anchor or anchor in anchors(there), target


@pytest.mark.parametrize("page", [p for p in WRITTEN if python_blocks(p)], ids=lambda page: page.name)
def test_imports_in_code_exist(page):
    for text in python_blocks(page):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module)
                for alias in node.names:
                    assert hasattr(module, alias.name) or importlib.import_module(f"{node.module}.{alias.name}")


def test_the_documented_config_file_with_own_data(tmp_path):
    file, run = tmp_path / "mine.py", tmp_path / "run"
    file.write_text(block("register("))
    code, output = command("train.py", f"--config={file}", f"--workdir={run}")
    assert code == 0, output
    assert "2 classes (above, below); 48 + 12 images; tested on a fifth of its training images" in output
    last = lines(run)[-1]
    # It is trained on negatives and tested on the images themselves, so most test predictions are wrong.
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


TROUBLES = ROOT / "docs" / "troubleshooting.md"
PLACEHOLDER = re.compile(
    r"'?\b(?:ADDRESS|CHANGES|CONDITION|FILES?|FOLDER|KEYS?|NAMES?|NETWORK|PLACES|REASONS?|REST|RUNS|SIGNAL|SIZE|SPLIT|"
    r"STEPS|TYPE|VALUE|WANTED|N|M)\b'?"
)


@functools.cache
def texts_of_the_package():
    """Returns every text in the package's source, with a NUL character for each filled-in value."""
    found = []
    for path in [*(ROOT / "resnet_flax").rglob("*.py"), *(ROOT / "experiments").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(v.value if isinstance(v, ast.Constant) else "\0" for v in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


MESSAGES = [
    message
    for row in TROUBLES.read_text().partition("## Messages")[2].splitlines()
    if row.startswith("| `")
    for message in re.findall(r"^\| `([^`]+)` \|", row)
]


def test_at_least_twenty_messages_are_explained():
    assert len(set(MESSAGES)) == len(MESSAGES) >= 20


@pytest.mark.parametrize("message", MESSAGES)
def test_quoted_messages_occur_in_the_package(message):
    """The fixed words of a message occur in this order in one text of the source."""
    fixed = [part for part in PLACEHOLDER.split(message) if part.strip("'")]
    assert sum(map(len, fixed)) >= 15, "too little is quoted to be found by"
    pattern = re.compile(".*".join(map(re.escape, fixed)), re.S)
    assert any(pattern.search(text) for text in texts_of_the_package())


def test_each_exit_code_is_explained():
    rows = re.findall(r"^\| (\d) \| [^|]+ \|", TROUBLES.read_text(), re.M)
    assert [int(code) for code in rows] == [DONE, FAILED, USER_MISTAKE, INTERRUPTED, DIVERGED]


def test_continuous_integration_runs_the_projects_own_script():
    """The script runs with both versions of Python. Pre-commit hooks are local and download nothing."""
    flow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    job = flow["jobs"]["test"]
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12"]
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [repository["repo"] for repository in hooks["repos"]] == ["local"]
    assert {hook["language"] for hook in hooks["repos"][0]["hooks"]} == {"system"}
