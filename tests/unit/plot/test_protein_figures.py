"""Figures of the protein track draw what they are given."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from bioattn.errors import DataError
from bioattn.plot import protein
from bioattn.plot.save import svg_bytes
from bioattn.plot.style import FAINT, SERIES, figure_of

RIGHT, WRONG = SERIES[2], SERIES[1]


def dots(ax, color: str) -> list[tuple[float, float]]:
    """Places of the dots of one colour."""
    found = [c for c in ax.collections if len(c.get_offsets()) and to_hex(c.get_facecolor()[0]) == color.lower()]
    return sorted((float(x), float(y)) for c in found for x, y in c.get_offsets())


def test_contact_maps_show_the_best_pairs_of_each_method_on_its_side():
    """Above the diagonal one method's right and wrong pairs, below it the other's; neighbours are never drawn."""
    n = 12
    distance = np.full((n, n), 20.0)
    for i, j in ((0, 7), (2, 9), (1, 3)):
        distance[i, j] = distance[j, i] = 5.0
    np.fill_diagonal(distance, 0.0)
    one, other = np.zeros((n, n)), np.zeros((n, n))
    one[0, 7] = one[2, 9] = one[1, 3] = 9.0
    other[0, 8] = 9.0
    ax = protein.contact_halves(one, other, distance, names=("a", "b"))
    assert {(7.0, 0.0), (9.0, 2.0)} <= set(dots(ax, RIGHT)) and (0.0, 8.0) in dots(ax, WRONG)
    assert (3.0, 1.0) not in dots(ax, RIGHT) and (3.0, 1.0) in dots(ax, FAINT)
    # As many pairs as residues for each method.
    assert len(dots(ax, RIGHT)) + len(dots(ax, WRONG)) == 2 * n
    assert svg_bytes(figure_of(ax)) == svg_bytes(
        figure_of(protein.contact_halves(one, other, distance, names=("a", "b")))
    )


def test_bars_are_mean_scores_and_dots_single_seeds():
    """The bar of attention is that of the scores averaged over seeds, not the mean of the seeds' precisions."""
    rows = [
        ("mean-field couplings", "alignment", np.nan, 0.9), ("factored attention", "alignment", "1", 0.5),
        ("factored attention", "alignment", "2", 0.6), ("factored attention", "alignment", "mean", 0.8),
        ("factored attention", "permuted columns", "1", 0.1),
    ]  # fmt: skip
    table = pd.DataFrame(
        [[m, c, s, "long", top, p] for m, c, s, p in rows for top in ("L", "L/5")],
        columns=["method", "control", "seed", "range", "top", "precision"],
    )
    ax = protein.family_precision(table)
    assert sorted({round(bar.get_height(), 3) for bar in ax.patches}) == [0.1, 0.8, 0.9]
    assert sorted({float(y) for line in ax.lines for y in line.get_ydata()}) == [0.5, 0.6]


def test_knock_out_maps_mark_bridging_residues():
    """A row for each of the first contacts, by residue; circles at residues that touch both ends."""
    n = 11
    distance = np.full((n, n), 30.0)
    for i, j in ((0, 8), (0, 4), (4, 8)):
        distance[i, j] = distance[j, i] = 6.0
    effects = np.zeros((n, 3))
    effects[4, 1] = 2.0
    ax = protein.third_map(effects, np.array([[2, 9], [0, 8], [1, 7]]), distance, most=2)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["1–9", "3–10"]
    circles = [line for line in ax.lines if line.get_marker() == "o"]
    assert [line.get_xdata().tolist() for line in circles] == [[4], []]
    assert ax.images[0].get_array()[0, 4] == 2.0


def test_told_contacts_have_a_line_for_each_network():
    """Precision by the share in percent; other scores are left out."""
    rows = [
        (share, network, score, mean, mean - 0.1, mean + 0.1)
        for share, mean in ((0.0, 0.2), (0.3, 0.6)) for network in ("trunk", "window")
        for score in ("lddt", "precision_all_L5")
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["told_share", "network", "score", "mean", "ci_low", "ci_high"])
    ax = protein.told_precision(table, names={"trunk": "pair trunk"})
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["pair trunk", "window"]
    assert ax.lines[0].get_xdata() == pytest.approx([0, 30], abs=1) and ax.lines[0].get_ydata().tolist() == [0.2, 0.6]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "30"]


def test_distograms_show_pairs_from_near_to_far():
    """The line stands at the true distance; bars sum to one."""
    n, edges = 15, np.arange(4.0, 21.0)
    distance = np.abs(np.subtract.outer(np.arange(n), np.arange(n))) * 1.2
    probabilities = np.full((n, n, 18), 1 / 18)
    figure = protein.distogram_lines(probabilities, distance, edges)
    lines = [ax.lines[0].get_xdata()[0] for ax in figure.axes]
    assert lines == sorted(lines) and lines[0] == pytest.approx(7.2) and lines[-1] == pytest.approx(14 * 1.2)
    assert sum(bar.get_height() for bar in figure.axes[0].patches) == pytest.approx(1.0)


def test_heads_with_most_contacts_come_first():
    """The order is that of precision, and only so many are drawn as asked for."""
    draw = np.random.default_rng(0)
    figure = protein.head_atlas(draw.random((6, 9, 9)), [0.1, 0.5, np.nan, 0.9, 0.2, 0.0], np.ones((9, 9)), most=3)
    assert [ax.get_title(loc="left") for ax in figure.axes][:3] == ["head 3: 0.90", "head 1: 0.50", "head 4: 0.20"]


def test_tables_that_lack_columns_are_refused():
    """The columns are named."""
    with pytest.raises(DataError, match="needs the columns"):
        protein.block_violations(pd.DataFrame({"stage": ["a"]}))
    with pytest.raises(DataError, match="needs the columns"):
        protein.third_effects(pd.DataFrame({"bridging": [1.0]}))
    ax = protein.third_effects(pd.DataFrame({"bridging": [1.0, np.nan], "matched": [0.5, np.nan]}))
    assert len([line for line in ax.lines if line.get_marker() == "o"][0].get_xdata()) == 1


def test_networks_are_drawn_with_their_intervals():
    """One marker for each network and score; names as given."""
    table = pd.DataFrame(
        [["trunk", "x", 0.3, 0.2, 0.4], ["window", "x", 0.2, 0.1, 0.3]],
        columns=["network", "score", "mean", "ci_low", "ci_high"],
    )
    ax = protein.network_scores(table, scores={"x": "precision"}, names={"trunk": "pair trunk"})
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["pair trunk", "window"]
    assert [line.get_xdata().tolist() for line in ax.lines if line.get_marker() == "o"] == [[0.3], [0.2]]
