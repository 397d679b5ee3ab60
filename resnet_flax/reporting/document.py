"""The content of a report as data, from which both the HTML and the Markdown page are rendered."""

import dataclasses
import functools
import re
from collections import Counter
from collections.abc import Collection, Sequence
from pathlib import Path

# A cell of a table: one line, or several.
Cell = str | Sequence[str]


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str


@dataclasses.dataclass(frozen=True)
class Problem:
    """A note that something is missing, in the place where it would be."""

    text: str


@dataclasses.dataclass(frozen=True)
class Bullets:
    """A list of sentences.

    Attributes:
      items: The sentences.
      terms: A term before each sentence, or nothing.
      fine: If true, the list is in fine print.
    """

    items: Sequence[str]
    terms: Sequence[str] = ()
    fine: bool = False


@dataclasses.dataclass(frozen=True)
class Code:
    """Commands or a config, shown verbatim."""

    text: str


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
      file: The PNG file.
      label: A label such as ``Figure 3``.
      caption: The caption, which is also the alternative text.
    """

    file: Path
    label: str
    caption: str


@dataclasses.dataclass(frozen=True)
class Grid:
    """A table.

    Attributes:
      label: A label such as ``Table 3``.
      header: The titles of the columns.
      rows: The rows, each as long as the header.
      details: The part that unfolds below each row: one for each row, or none at all.
    """

    label: str
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    details: Sequence["Fold"] = ()

    @functools.cached_property  # The templates read it for every cell.
    def numeric(self) -> list[bool]:
        """Says for each column whether it holds only numbers and dashes, and is aligned as numbers."""
        columns = [[line for cell in column for line in lines(cell)] for column in zip(*self.rows, strict=True)]
        found = [any(map(_is_number, c)) and all(_is_number(t) or t in ("", "-", "—") for t in c) for c in columns]
        return found or [False] * len(self.header)


@dataclasses.dataclass(frozen=True)
class Fold:
    """A part of the page that is hidden until the reader opens it."""

    summary: str
    blocks: Sequence["Block"]


Block = Text | Problem | Bullets | Code | Picture | Grid | Fold


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading with its anchor and the blocks below it."""

    title: str
    anchor: str
    blocks: Sequence[Block]


@dataclasses.dataclass(frozen=True)
class Document:
    """A whole page."""

    title: str
    summary: Sequence[Block]
    sections: Sequence[Section]


class Numbers:
    """Numbers the figures and the tables of a page."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def next(self, kind: str) -> str:
        """Returns the next label of a kind: ``Figure 3`` after two figures."""
        self._counts[kind] += 1
        return f"{kind} {self._counts[kind]}"


def counted(number: int, what: str) -> str:
    """Returns a count with its noun: ``1 run``, ``2 runs``."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def lines(cell: Cell) -> list[str]:
    """Returns the lines of a cell, or a dash if it has none."""
    return [cell] if isinstance(cell, str) else list(cell) or ["—"]


def aligned(rows: Sequence[Sequence[str]], left: Collection[int]) -> str:
    """Returns rows as columns of text: those of the numbers in ``left`` flush left, the others flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True)))
        .rstrip()
        for row in rows
    )  # fmt: skip


def _is_number(text: str) -> bool:
    """Tells whether a text is a number, optionally with its deviation (``±``), total (``of``) or number of runs."""
    number = r"([-+−]?\d[\d.,:]*(e[-+]?\d+)?%?|nan|inf)"
    return re.fullmatch(rf"{number}( (±|of) {number})?( \(\d+ of \d+\))?", text) is not None
