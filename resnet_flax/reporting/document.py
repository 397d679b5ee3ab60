"""A page as data: what the HTML and the Markdown both say."""

import dataclasses
import functools
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

# A cell of a table: a line, or several.
Cell = str | Sequence[str]


@dataclasses.dataclass(frozen=True)
class Text:
    """A paragraph."""

    text: str
    kind: str = dataclasses.field(default="text", init=False)


@dataclasses.dataclass(frozen=True)
class Problem:
    """Something that is missing, said where it belongs."""

    text: str
    kind: str = dataclasses.field(default="problem", init=False)


@dataclasses.dataclass(frozen=True)
class Bullets:
    """A list of sentences; a term before each where there is one; fine print where it is only for reference."""

    items: Sequence[str]
    terms: Sequence[str] = ()
    fine: bool = False
    kind: str = dataclasses.field(default="bullets", init=False)


@dataclasses.dataclass(frozen=True)
class Code:
    """Commands or a config, as they are."""

    text: str
    kind: str = dataclasses.field(default="code", init=False)


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure.

    Attributes:
      file: PNG.
      label: such as ``Figure 3``.
      caption: what it shows; also the text for who cannot see it.
    """

    file: Path
    label: str
    caption: str
    kind: str = dataclasses.field(default="picture", init=False)


@dataclasses.dataclass(frozen=True)
class Grid:
    """A table.

    Attributes:
      label: such as ``Table 3``.
      caption: what it holds.
      header: of its columns.
      rows: as long as the header.
      details: what unfolds below a row: a summary and its blocks; one for each row, or none at all.
    """

    label: str
    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    details: Sequence["Fold"] = ()
    kind: str = dataclasses.field(default="grid", init=False)

    @functools.cached_property  # a page asks for each of its cells
    def numeric(self) -> list[bool]:
        """Whether a column holds numbers, and nothing but numbers and dashes, and is aligned as such."""
        columns = [[line for cell in column for line in lines(cell)] for column in zip(*self.rows, strict=True)]
        found = [any(map(_is_number, c)) and all(_is_number(t) or t in ("", "-", "—") for t in c) for c in columns]
        return found or [False] * len(self.header)


@dataclasses.dataclass(frozen=True)
class Fold:
    """A part of the page that is hidden until it is opened."""

    summary: str
    blocks: Sequence["Block"]
    kind: str = dataclasses.field(default="fold", init=False)


Block = Text | Problem | Bullets | Code | Picture | Grid | Fold


@dataclasses.dataclass(frozen=True)
class Section:
    """A heading, its anchor, and what stands below it."""

    title: str
    anchor: str
    blocks: Sequence[Block]


@dataclasses.dataclass(frozen=True)
class Document:
    """A page."""

    title: str
    summary: Sequence[Block]
    sections: Sequence[Section]


class Numbers:
    """Counts the figures and the tables of a page."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def next(self, kind: str) -> str:
        """``Figure 3`` after two figures."""
        self._counts[kind] += 1
        return f"{kind} {self._counts[kind]}"


def counted(number: int, what: str) -> str:
    """``1 run``, ``2 runs``."""
    return f"{number} {what}{'' if number == 1 else 's'}"


def lines(cell: Cell) -> list[str]:
    """A cell's lines; a dash where it has none."""
    return [cell] if isinstance(cell, str) else list(cell) or ["—"]


def _is_number(text: str) -> bool:
    """Whether a text is a number, with its spread or its total where it has one."""
    number = r"([-+−]?\d[\d.,:]*(e[-+]?\d+)?%?|nan|inf)"
    return re.fullmatch(rf"{number}( (±|of) {number})?", text) is not None
