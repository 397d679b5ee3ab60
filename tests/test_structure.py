"""Rules of the package, read from syntax trees: imports at the top, without cycles, in one direction; docstrings."""

import ast
import functools
import re
import subprocess
import sys
from pathlib import Path

from resnet_flax.sweeps.shipped import ORDER

ROOT = Path(__file__).parents[1]
# Limit on imports inside functions: launchers, optional packages, worker processes, slow imports that --help or a
# report does not need.
MOST_INSIDE = 25


@functools.cache
def modules():
    """Returns the path and the syntax tree of each module of the package and the experiments, by dotted name."""
    found = {}
    for folder in ("resnet_flax", "experiments"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            found[name] = path, ast.parse(path.read_text())
    return found


def imported(node):
    """Returns the modules of this project that a node imports."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        names = [f"{node.module}.{a.name}" if f"{node.module}.{a.name}" in modules() else node.module
                 for a in node.names]  # fmt: skip
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        names = [node.value]  # a module that is imported by its name, after flags are parsed
    else:
        names = []
    return {name for name in names if name in modules()}


def test_imports_are_at_the_top():
    """A few are inside functions, each with its reason in a comment on its line or above its block of imports."""
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


def test_the_package_imports_no_experiment_config_file_or_test():
    for name, (_, tree) in modules().items():
        if name.startswith("resnet_flax"):
            named = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module}
            named |= {alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names}
            assert not {m for m in named if m.partition(".")[0] in ("experiments", "configs", "tests")}, name


def test_private_names_are_imported_by_no_other_module():
    for name, (_, tree) in modules().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("resnet_flax", "experiments")):
                assert not [a.name for a in node.names if a.name.startswith("_")], name


def test_commands_parse_their_flags_without_importing_jax():
    named = ", ".join(f"experiments.{name}" for name in (*ORDER, "all", "report"))
    program = f"import sys, {named}, resnet_flax.command, benchmarks.options; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=ROOT).returncode == 0


def test_a_docstring_says_what_the_thing_is_or_does():
    """Its first word does not begin an answer to an unasked question, such as "Of" or "Where"."""
    ellipsis = re.compile(r"(Of|The same|That of|What|It|Where|Whether it|Not)\b")
    found = []
    for folder in ("resnet_flax", "experiments", "benchmarks", "configs", "results", "tests"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                    text = ast.get_docstring(node) or ""
                    found += f"{path.relative_to(ROOT)}: {text}".splitlines()[:1] * bool(ellipsis.match(text))
    assert not found
