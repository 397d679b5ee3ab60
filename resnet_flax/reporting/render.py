"""Renders a document as a self-contained HTML page and as a Markdown page."""

import base64
import functools
import os
import re
from html import escape
from pathlib import Path
from typing import assert_never
from urllib.parse import quote

import jinja2

from resnet_flax.escaping import escape_hidden
from resnet_flax.reporting import document as page
from resnet_flax.reporting.document import Block, Cell, Document, Grid, lines

_TEMPLATES = Path(__file__).parent / "templates"
_LONG = 40  # characters; cells with longer lines may wrap


def html(document: Document) -> str:
    """Returns the HTML page, with embedded figures. All texts are escaped."""
    return _template().render(document=document) + "\n"


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=lambda value: escape_hidden(value) if type(value) is str else value,
    )
    environment.filters |= {
        "embedded": _embedded,
        "is_long": lambda cell: any(len(line) > _LONG for line in lines(cell)),
        "kind": lambda block: type(block).__name__.lower(),
        "lines": lines,
        "zip": zip,
    }
    return environment.get_template("report.html")


def _embedded(file: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()


def markdown(document: Document, folder: Path) -> str:
    """Returns the page in GitHub's Markdown.

    Args:
      document: The content.
      folder: The folder that the page will be written to. Links to figures are relative to it.
    """
    parts = [f"# {_inline(document.title)}"]
    parts += [_block(block, folder) for block in document.summary]
    contents = [f"{i}. [{_inline(s.title)}](#{s.anchor})" for i, s in enumerate(document.sections, start=1)]
    parts += ["**Contents**", "\n".join(contents)]
    for section in document.sections:
        parts.append(f'<a id="{section.anchor}"></a>')
        parts.append(f"## {_inline(section.title)}")
        parts += [_block(block, folder) for block in section.blocks]
    return "\n\n".join(parts) + "\n"


def _block(block: Block, folder: Path) -> str:
    match block:
        case page.Text():
            return _inline(block.text)
        case page.Problem():
            return f"> **Missing:** {_inline(block.text)}"
        case page.Bullets():
            terms = block.terms or [""] * len(block.items)
            named = [f"**{_inline(term)}** " if term else "" for term in terms]
            return "\n".join(f"- {term}{_inline(item)}" for term, item in zip(named, block.items, strict=True))
        case page.Code():
            longest = max((len(run) for run in re.findall("`+", block.text)), default=0)
            fence = "`" * max(3, longest + 1)
            return f"{fence}text\n{escape_hidden(block.text)}\n{fence}"
        case page.Picture():
            link = quote(Path(os.path.relpath(block.file, folder.resolve())).as_posix())
            return f"![{_inline(block.caption)}]({link})\n\n**{block.label}.** {_inline(block.caption)}"
        case page.Fold():
            inner = "\n\n".join(_block(b, folder) for b in block.blocks)
            # Markdown shows the content of an HTML element as it is, without its own escapes.
            summary = escape(escape_hidden(" ".join(block.summary.split())))
            return f"<details><summary>{summary}</summary>\n\n{inner}\n\n</details>"
        case page.Grid():
            parts = [f"**{block.label}.** {_inline(block.caption)}", _table(block)]
            return "\n\n".join(parts + [_block(fold, folder) for fold in block.details])
    assert_never(block)


def _table(grid: Grid) -> str:
    rule = ["---:" if numeric else "---" for numeric in grid.numeric]
    rows = [[_cell(title) for title in grid.header], rule, *([_cell(c) for c in row] for row in grid.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(cell: Cell) -> str:
    return "<br>".join(_inline(line) for line in lines(cell))


def _inline(text: str) -> str:
    """Returns the text on one line, escaped so that Markdown shows it verbatim."""
    text = escape_hidden(" ".join(text.split()))
    text = re.sub(r"&(?=#?\w+;)", "&amp;", text)
    text = re.sub(r"([\\`*_\[\]<>|~])", r"\\\1", text)
    text = re.sub(r"^(#+|[-+=]+)(?=\s|$)", r"\\\1", text)
    return re.sub(r"^(\d+)([.)])(?=\s|$)", r"\1\\\2", text)
