"""The imports of the package, read from its syntax trees: at the top, in no circle, in one direction."""

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

from resnet_flax.sweeps.registry import ORDER

ROOT = Path(__file__).parents[1]
MOST_INSIDE = 25  # of launchers, optional packages, worker processes, and what neither --help nor a report waits for


@functools.cache
def modules():
    """Path and tree of each module of the package and of the experiments, by its dotted name."""
    found = {}
    for folder in ("resnet_flax", "experiments"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found[name] = path, ast.parse(path.read_text())
    return found


def imported(node):
    """The modules of ours that an import names."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = [f"{node.module}.{a.name}" if f"{node.module}.{a.name}" in modules() else node.module
                 for a in node.names]  # fmt: skip
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        names = [node.value]  # of what is imported by its name, once flags are parsed
    else:
        names = []
    return {name for name in names if name in modules()}


def test_imports_stand_at_the_top():
    """But for a few, each with its reason in a comment on its line, or above it and its neighbours."""
    inside, without_reason = [], []
    for path, tree in modules().values():
        lines = path.read_text().splitlines()
        functions = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
        found = {n.lineno for f in functions for n in ast.walk(f) if isinstance(n, ast.Import | ast.ImportFrom)}
        for line in sorted(found):
            inside.append(f"{path.relative_to(ROOT)}:{line}")
            first = line
            while first - 1 in found or (first > 2 and first - 2 in found and not lines[first - 2].strip()):
                first -= 1
            if not any("#" in text for text in lines[first - 2 : line]):
                without_reason.append(inside[-1])
    assert not without_reason
    assert len(inside) <= MOST_INSIDE, inside


def test_no_module_imports_itself_through_others():
    edges = {name: set().union(*map(imported, ast.walk(tree))) - {name} for name, (_, tree) in modules().items()}

    def reached(start):
        seen, left = set(), list(edges[start])
        while left:
            name = left.pop()
            if name not in seen:
                seen.add(name)
                left += edges[name]
        return seen

    assert [name for name in edges if name in reached(name)] == []


def test_the_package_knows_no_experiment_and_no_config_file():
    for name, (_, tree) in modules().items():
        if name.startswith("resnet_flax"):
            named = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
            named |= {alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
            assert not {m for m in named if m.partition(".")[0] in ("experiments", "configs", "tests")}, name


def test_private_names_are_read_in_their_module_alone():
    for name, (_, tree) in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("resnet_flax", "experiments")):
                assert not [a.name for a in node.names if a.name.startswith("_")], name


def test_neither_help_nor_a_refusal_waits_for_jax():
    named = ", ".join(f"experiments.{name}" for name in (*ORDER, "all", "report"))
    program = f"import sys, {named}, resnet_flax.command, benchmarks.options; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


def test_a_docstring_says_what_the_thing_is_or_does():
    """Its first word is no answer to a question that nobody has asked."""
    ellipsis = re.compile(r"(Of|The same|That of|What|It|Where|Whether it|Not)\b")
    found = []
    for folder in ("resnet_flax", "experiments", "benchmarks", "configs"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    text = ast.get_docstring(node) or ""
                    found += f"{path.relative_to(ROOT)}: {text}".splitlines()[:1] * bool(ellipsis.match(text))
    assert not found
