"""What a report is made of: sections of plain blocks that the template only lays out.

Every text field is user data to the template, which escapes it.
"""

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from bioattn.plot.save import svg_bytes
from bioattn.plot.style import VERDICTS, figure_of


@dataclass(frozen=True)
class Text:
    """A paragraph; tone is 'plain', 'lead' (large) or 'small'."""

    kind: ClassVar[str] = "text"
    text: str
    tone: str = "plain"


@dataclass(frozen=True)
class Notice:
    """Something that is not there, why that matters here, and the command that makes it."""

    kind: ClassVar[str] = "notice"
    text: str
    command: str = ""


@dataclass(frozen=True)
class Tile:
    """One big number with its label; verdict, if any, gives the colour."""

    value: str
    label: str
    detail: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class Tiles:
    """A row of tiles."""

    kind: ClassVar[str] = "tiles"
    tiles: Sequence[Tile]


@dataclass(frozen=True)
class Picture:
    """An image as a data URI, with the text that replaces it and a caption."""

    source: str
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Pictures:
    """Pictures side by side where there is room."""

    kind: ClassVar[str] = "pictures"
    pictures: Sequence[Picture]


@dataclass(frozen=True)
class Column:
    """Head of a table column. Columns that are not compact hide behind 'all columns'."""

    key: str
    title: str
    tip: str = ""
    numeric: bool = False
    compact: bool = True


@dataclass(frozen=True)
class Cell:
    """A table cell: text, a second line in grey, the sort key; for a verdict its style and full name."""

    text: str
    below: str = ""
    sort: str = ""
    verdict: str = ""
    full: str = ""


@dataclass(frozen=True)
class Table:
    """A table; sortable tables get buttons in their heads, tools add filters and a download."""

    kind: ClassVar[str] = "table"
    id: str
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]
    sortable: bool = False
    tools: bool = False
    verdicts: Sequence[str] = ()
    note: str = ""
    download: str = ""
    download_name: str = ""


@dataclass(frozen=True)
class Fact:
    """A label and its value."""

    label: str
    value: str


@dataclass(frozen=True)
class Card:
    """A small panel: title, chip, picture, sentence and facts; verdict is the style of its mark."""

    title: str
    text: str = ""
    chip: str = ""
    verdict: str = ""
    picture: Picture | None = None
    facts: Sequence[Fact] = ()


@dataclass(frozen=True)
class Cards:
    """Cards in a grid below a label; narrow cards stand four in a row."""

    kind: ClassVar[str] = "cards"
    label: str
    cards: Sequence[Card]
    narrow: bool = False


@dataclass(frozen=True)
class Facts:
    """Labelled values."""

    kind: ClassVar[str] = "facts"
    facts: Sequence[Fact]


@dataclass(frozen=True)
class Box:
    """An explanation set apart: paragraphs, then terms with their meaning."""

    kind: ClassVar[str] = "box"
    title: str
    paragraphs: Sequence[str]
    terms: Sequence[tuple[str, str]] = ()


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    kind: ClassVar[str] = "heading"
    text: str


@dataclass(frozen=True)
class Points:
    """A bulleted list."""

    kind: ClassVar[str] = "points"
    points: Sequence[str]


@dataclass(frozen=True)
class Code:
    """Preformatted text; long text folds away behind its title."""

    kind: ClassVar[str] = "code"
    title: str
    text: str
    folded: bool = False


Block = Text | Notice | Tiles | Pictures | Table | Cards | Facts | Box | Heading | Points | Code


@dataclass(frozen=True)
class Section:
    """A part of the report with its own entry in the table of contents."""

    id: str
    title: str
    blocks: Sequence[Block]


def picture(drawing: Axes | Figure, *, alt: str, caption: str = "") -> Picture:
    """A figure as a picture."""
    figure = drawing if isinstance(drawing, Figure) else figure_of(drawing)
    return Picture(data_uri(svg_bytes(figure), "image/svg+xml"), alt, caption)


def data_uri(content: bytes, media_type: str) -> str:
    """Content inside the page itself. An image cannot run scripts, whatever its SVG holds."""
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def tsv_uri(table: pd.DataFrame) -> str:
    """A table as a downloadable TSV inside the page."""
    text = table.to_csv(sep="\t", index=False, float_format="%.6g", na_rep="NA")
    return data_uri(text.encode(), "text/tab-separated-values;charset=utf-8")


def verdict_slug(verdict: object) -> str:
    """Class name of a verdict in the style sheet."""
    known = list(VERDICTS)
    return f"verdict-{known.index(str(verdict))}" if verdict in known else "verdict-none"
