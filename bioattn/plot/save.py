"""Figures as bytes that depend on what is drawn and on nothing else."""

import io

import matplotlib
from matplotlib.figure import Figure

from bioattn.plot.style import STYLE


def svg_bytes(figure: Figure) -> bytes:
    """SVG of a figure, byte for byte the same for the same drawing.

    The caller writes them, whole or not at all; ids are hashed with a fixed salt
    and no date is stored.
    """
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="svg", bbox_inches="tight", pad_inches=0.04, metadata={"Date": None})
    return buffer.getvalue()
