"""Sequence logos: information content of a PPM, signed contributions of a CWM."""

from collections.abc import Sequence
from typing import NamedTuple

import logomaker
import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from bioattn.errors import DataError
from bioattn.plot.style import FAINT, INK, LETTERS, MUTED, new_axes, styled, whole_number_ticks


class Site(NamedTuple):
    """A named interval, 0-based half-open."""

    name: str
    start: int
    end: int


def information(ppm: np.ndarray, *, background: np.ndarray | None = None) -> np.ndarray:
    """Letter heights in bits, (A, W): probability times the column's relative entropy.

    Parameters
    ----------
    ppm : ndarray, shape (A=4, W)
        Probabilities; columns sum to 1.
    background : ndarray, shape (A,), optional
        Letter probabilities; uniform if not given.
    """
    ppm = _matrix(ppm)
    background = np.full(4, 0.25) if background is None else np.asarray(background, dtype=float)
    # The small floor makes 0 log 0 = 0 without a warning.
    ratio = np.log2(np.maximum(ppm, 1e-12) / background[:, None])
    return ppm * (ppm * ratio).sum(axis=0, keepdims=True)


@styled
def information_logo(
    ppm: np.ndarray, *, background: np.ndarray | None = None, title: str = "", ax: Axes | None = None
) -> Axes:
    """Logo of a PPM in bits.

    Parameters
    ----------
    ppm : ndarray, shape (A=4, W)
        Probabilities; columns sum to 1.
    background : ndarray, shape (A,), optional
        Letter probabilities; uniform if not given.

    Raises
    ------
    DataError
        If the matrix is not (4, W).
    """
    heights = information(ppm, background=background)
    ax = new_axes(0.32 * heights.shape[1] + 0.8, 1.3) if ax is None else ax
    _draw(heights, ax)
    ax.set_ylim(0, max(2.0, float(heights.sum(axis=0).max())))
    ax.set_yticks([0, 1, 2])
    ax.set_ylabel("bits")
    ax.set_title(title)
    return ax


@styled
def signed_logo(
    cwm: np.ndarray,
    *,
    start: int = 0,
    sites: Sequence[Site] = (),
    ylabel: str = "contribution",
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Logo of signed contributions, negative letters below the line, with named sites.

    Parameters
    ----------
    cwm : ndarray, shape (A=4, W)
        Contributions in any unit.
    start : int
        Position of the first column.
    sites : sequence of Site
        Intervals drawn as labelled bars above the letters.
    """
    cwm = _matrix(cwm)
    ax = new_axes(min(12.0, 0.12 * cwm.shape[1] + 1.2), 1.9) if ax is None else ax
    _draw(cwm, ax, start=start)
    ax.axhline(0, color=MUTED, linewidth=0.6)
    ax.set_xlabel("position (bp)")
    ax.set_ylabel(ylabel)
    ax.set_title(title)
    mark_sites(ax, sites)
    return ax


def mark_sites(ax: Axes, sites: Sequence[Site]) -> None:
    """Shade named intervals and write their names above the axes."""
    for site in sites:
        ax.axvspan(site.start - 0.5, site.end - 0.5, color=FAINT, alpha=0.45, linewidth=0, zorder=-2)
        ax.annotate(
            site.name,
            ((site.start + site.end - 1) / 2, 1.0),
            xycoords=("data", "axes fraction"),
            xytext=(0, 2),
            textcoords="offset points",
            ha="center",
            va="bottom",
            fontsize=8,
            color=INK,
        )


def _draw(heights: np.ndarray, ax: Axes, *, start: int = 0) -> None:
    table = pd.DataFrame(heights.T, columns=list("ACGT"), index=np.arange(start, start + heights.shape[1]))
    logomaker.Logo(table, ax=ax, color_scheme=LETTERS, font_name="DejaVu Sans", flip_below=True, show_spines=False)
    ax.spines["left"].set_visible(True)
    ax.spines["bottom"].set_visible(True)
    ax.tick_params(length=2)
    whole_number_ticks(ax)


def _matrix(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.ndim != 2 or values.shape[0] != 4 or values.shape[1] == 0:
        raise DataError(f"a motif matrix must have shape (4, W) in the order A, C, G, T, got {values.shape}")
    return values
