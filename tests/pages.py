"""Reads the pages of documentation (README, CONTRIBUTING, CHANGELOG, docs and results) and their blocks of code."""

import json
import re

from tests.commands import ROOT

README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))
WRITTEN = [README, ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *DOCS]
PAGES = [*WRITTEN, *sorted((ROOT / "results").rglob("README.md"))]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def prose(page):
    """Returns the text of a page, or of a notebook's cells, without code."""
    text = page.read_text()
    if page.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)


def python_blocks(page):
    """Returns the blocks of Python in a page, in order."""
    return re.findall(r"^```python\n(.*?)^```", page.read_text(), re.S | re.M)


def block(part):
    """Returns the only block of Python in README and docs that contains a text."""
    (found,) = [text for page in (README, *DOCS) for text in python_blocks(page) if part in text]
    return found
