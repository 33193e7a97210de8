"""Figures: they draw what the tables say, refuse what they cannot draw, and come out the same every time."""

import subprocess
import sys
from collections.abc import Callable

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex, to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from bioattn.errors import DataError
from bioattn.plot import (
    balance,
    bench,
    curves,
    interactions,
    ism,
    logo,
    metrics,
    multiplicity,
    network,
    positions,
    scatter,
    split,
    training,
)
from bioattn.plot import contact_sheet as sheets
from bioattn.plot import heads as head_plots
from bioattn.plot import spacing as spacing_plots
from bioattn.plot.save import svg_bytes
from bioattn.plot.style import KINDS, STYLE, VERDICTS, figure_of

PPM = np.array([[0.7, 0.1, 0.25], [0.1, 0.7, 0.25], [0.1, 0.1, 0.25], [0.1, 0.1, 0.25]])
HEADS = pd.DataFrame(
    {
        "layer": [0, 0, 0, 1, 1],
        "head": [0, 0, 1, 0, 1],
        "verdict": ["motif", "motif", "diffuse", "positional", "redundant"],
        "consensus": ["ACN", "TTT", "", "", ""],
        "matches": ["NFYA MA0060.4 (q=1e-05) +2 of CCAAT; SP1 MA0079.5 (q=0.01); Z M1 (r=0.8)", *[""] * 4],
        "enrichment_log2": [1.0, 0.5, np.nan, np.nan, np.nan],
        "ablation_drop": [0.1234, 0.1234, 0.05, 0.04, -0.0002],
        "ablation_drop_ci_low": [0.08, 0.08, 0.04, 0.03, -0.01],
        "ablation_drop_ci_high": [0.15, 0.15, 0.06, 0.05, 0.01],
        "positional_share": [0.1, 0.1, 0.2, 0.83, 0.1],
        "similar_head": ["0.1", "0.1", "1.0", "0.1", "0.10"],
        "similarity": [0.2, 0.2, 0.3, 0.3, 0.93],
        "note": ["", "", "too few seqlets (n = 12)", "", ""],
    }
)
ABLATION = pd.DataFrame(
    [
        {
            "layer": layer, "head": head, "kind": kind, "metric": "auroc", "drop": drop * times,
            "drop_ci_low": drop * times - 0.01, "drop_ci_high": drop * times + 0.02,
        }
        for kind, times in (("zero", 2.0), ("mean", 1.0), ("resample", 0.5))
        for (layer, head), drop in {(0, 0): 0.1, (0, 1): 0.02, (1, 0): 0.03, (-1, -1): 0.9}.items()
    ]
)  # fmt: skip
SIMILARITY = pd.DataFrame(
    [(0, 0, 0, 1, 0.1), (0, 0, 1, 0, 0.9), (0, 0, 1, 1, 0.2), (0, 1, 1, 0, 0.15), (0, 1, 1, 1, 0.8), (1, 0, 1, 1, 0.1)],
    columns=["layer_a", "head_a", "layer_b", "head_b", "similarity"],
)
DISTANCES = pd.DataFrame({"distance_bp": [5, -5, 0], "share": [0.1, 0.7, 0.2], "expected": [0.3, 0.3, 0.4]})
PAIRS = pd.DataFrame(
    {
        "tf_a": ["A", "A", "B", "C"],
        "tf_b": ["B", "C", "C", "D"],
        "verdict": ["causal in model", "attention-only (correlational)", "not supported", "not tested"],
        "epistasis_effect": [2.0, 0.02, -0.01, np.nan],
        "attention_effect": [3.0, 2.0, 0.1, 0.0],
    }
)
HISTORY = pd.DataFrame(
    {
        "fold": [0] * 6,
        "seed": [1] * 3 + [2] * 3,
        "epoch": [1, 2, 3] * 2,
        "train_loss": [3.0, 2.0, 1.0] * 2,
        "validation_loss": [3.0, 2.0, 2.5] * 2,
    }
)
SCORES = pd.DataFrame(
    {"model": ["transformer", "kmer"], "value": [0.9, 0.8], "ci_low": [0.88, np.nan], "ci_high": [0.92, np.nan]}
)
CURVE = pd.DataFrame({"model": ["transformer"] * 3, "x": [0, 0.5, 1], "y": [0, 0.9, 1]})
PROFILE = pd.DataFrame({"layer": 0, "head": 0, "position": [0, 4, 8], "received": [1.0, 2.0, 1.0], "background": 1.0})
SPACING = pd.DataFrame(
    {
        "distance_bp": [-40, -30, 30, 40] * 2,
        "same_strand": [True] * 4 + [False] * 4,
        "epistasis": [1.0, 1.2, 0.9, 0.8, 0.1, 0.2, 0.0, 0.1],
    }
)
SPACING = SPACING.assign(ci_low=SPACING["epistasis"] - 0.1, ci_high=SPACING["epistasis"] + 0.1)
COUNTS = pd.DataFrame({"fold": [0, 0, 0], "subset": ["train", "validation", "test"], "n": [70, 10, 20]})
SITES = (logo.Site("-10 box", 1, 3),)

DOSES = pd.DataFrame(
    {
        "suite": "A", "regime": ["randomised", "observational", "mixed0.25", "twins"], "training": "plain",
        "auprc_attention": [1.0, 0.4, 0.5, 0.6], "r_attention_truth": [0.9, 0.5, 0.6, 0.6],
        "auprc_epistasis": [1.0, 0.3, 0.4, 0.5], "r_attention_epistasis": 0.9, "hidden_epistasis": [0.0, 0.8, 0.6, 0.4],
    }
)  # fmt: skip

FIGURES: dict[str, Callable[[], Axes | Figure]] = {
    "information_logo": lambda: logo.information_logo(PPM),
    "signed_logo": lambda: logo.signed_logo(PPM - 0.3, sites=SITES),
    "love_plot": lambda: balance.love_plot(pd.DataFrame({"feature": ["GC"], "stage": ["after"], "smd": [0.3]})),
    "training_curves": lambda: training.training_curves(HISTORY),
    "metric_intervals": lambda: metrics.metric_intervals(SCORES, reference=("ceiling", 0.95)),
    "roc": lambda: curves.classifier_curve(CURVE, kind="roc"),
    "pr": lambda: curves.classifier_curve(CURVE, kind="pr", chance=0.4),
    "calibration": lambda: curves.classifier_curve(CURVE.assign(replicate="0/1"), kind="calibration"),
    "predicted_measured": lambda: scatter.predicted_measured(np.arange(7.0), np.arange(7.0)),
    "predicted_measured_many": lambda: scatter.predicted_measured(np.arange(2000.0), np.arange(2000.0)),
    "contact_sheet": lambda: sheets.contact_sheet(HEADS, {(0, 0): PPM}, metric="auroc"),
    "ablation_bars": lambda: head_plots.ablation_bars(ABLATION, random_q95=0.04),
    "similarity_map": lambda: head_plots.similarity_map(SIMILARITY),
    "distance_profile": lambda: head_plots.distance_profile(DISTANCES),
    "head_card": lambda: head_plots.head_card(PPM, PPM - 0.3, PPM, DISTANCES),
    "head_card_with_nothing": lambda: head_plots.head_card(None),
    "received_profiles": lambda: positions.received_profiles(PROFILE, sites=SITES),
    "importance_profile": lambda: ism.importance_profile(np.arange(5.0), sites=SITES),
    "substitution_map": lambda: ism.substitution_map(PPM - 0.5, sites=SITES, unit="logit"),
    "interaction_network": lambda: network.interaction_network(PAIRS),
    "attention_epistasis": lambda: interactions.attention_epistasis(PAIRS, floor=1.0, minimum=0.1),
    "dose_response": lambda: bench.dose_response(DOSES),
    "pair_figure": lambda: interactions.pair_figure(np.array([0.0, 1.0, 1.0, 3.0]), [PPM, PPM], ["A", "B"]),
    "four_cells": lambda: interactions.four_cells(np.array([0.0, 1.0, 1.0, 3.0])),
    "spacing_curve": lambda: spacing_plots.spacing_curve(SPACING, minimum=0.1, names=("A", "B")),
    "calls_against_hits": lambda: multiplicity.calls_against_hits(
        pd.DataFrame({"n_hits": [10, 40], "called": [0, 3]}), {"called": "calls"}
    ),
    "split_bars": lambda: split.split_bars(COUNTS),
    "leakage_bars": lambda: split.leakage_bars(pd.DataFrame({"kind": ["same"], "fraction": [0.02]})),
}


def as_figure(drawing: Axes | Figure) -> Figure:
    return drawing if isinstance(drawing, Figure) else figure_of(drawing)


@pytest.mark.parametrize("name", FIGURES)
def test_svg_is_the_same_every_time(name: str):
    """Drawing twice gives the same bytes, without a date."""
    first, second = (svg_bytes(as_figure(FIGURES[name]())) for _ in range(2))
    assert first == second
    assert b"<dc:date>" not in first and first.startswith(b"<?xml")


@pytest.mark.parametrize("name", FIGURES)
def test_look_does_not_depend_on_the_callers_settings(name: str):
    """A user's Matplotlib settings neither leak into a figure nor are changed by it."""
    plain = svg_bytes(as_figure(FIGURES[name]()))
    with matplotlib.rc_context({"font.size": 31, "axes.edgecolor": "red", "text.color": "red", "lines.linewidth": 9}):
        before = dict(matplotlib.rcParams)
        assert svg_bytes(as_figure(FIGURES[name]())) == plain
        assert dict(matplotlib.rcParams) == before


def test_plot_needs_no_torch():
    """Every plot module imports where torch cannot be imported."""
    modules = (
        "contact_sheet curves heads interactions ism logo metrics network positions save scatter split style training"
    )
    code = "import sys; sys.modules['torch'] = None\n"
    code += "\n".join(f"import bioattn.plot.{name}" for name in modules.split())
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_information_is_two_bits_for_a_certain_letter_and_none_for_an_even_column():
    """Column heights of a PPM: 2 bits when certain, 0 when uniform."""
    ppm = np.array([[1.0, 0.25], [0.0, 0.25], [0.0, 0.25], [0.0, 0.25]])
    np.testing.assert_allclose(logo.information(ppm).sum(axis=0), [2.0, 0.0], atol=1e-12)


def test_information_is_measured_against_the_background():
    """A column equal to the background carries no information, whatever the background."""
    background = np.array([0.4, 0.1, 0.1, 0.4])
    np.testing.assert_allclose(logo.information(background[:, None], background=background), 0.0, atol=1e-12)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: logo.information_logo(PPM.T),
        lambda: curves.classifier_curve(CURVE, kind="lift"),
        lambda: scatter.predicted_measured(np.arange(3.0), np.arange(4.0)),
        lambda: scatter.predicted_measured(np.array([np.nan]), np.array([1.0])),
        lambda: interactions.four_cells(np.zeros(3)),
        lambda: ism.importance_profile(np.zeros((2, 2))),
        lambda: network.interaction_network(PAIRS.drop(columns="verdict")),
        lambda: sheets.contact_sheet(HEADS.head(0), {}),
        lambda: sheets.contact_sheet(HEADS.drop(columns="verdict"), {}),
        lambda: head_plots.ablation_bars(ABLATION, measure="score"),
        lambda: head_plots.ablation_bars(ABLATION.assign(drop=np.nan)),
        lambda: head_plots.ablation_bars(ABLATION, measure="loss"),
        lambda: head_plots.similarity_map(SIMILARITY.head(0)),
        lambda: head_plots.distance_profile(DISTANCES.assign(share=np.nan)),
        lambda: head_plots.head_card(PPM.T),
    ],
)
def test_unusable_input_is_named(wrong: Callable[[], object]):
    """Wrong shapes, kinds and columns raise DataError, not a Matplotlib traceback."""
    with pytest.raises(DataError):
        wrong()


def test_verdict_colours_and_names_differ():
    """No two verdicts look or read the same."""
    assert len({style.color for style in VERDICTS.values()}) == len(VERDICTS)
    assert len({style.short for style in VERDICTS.values()}) == len(VERDICTS)


def test_network_draws_tested_pairs_in_the_colour_of_their_verdict():
    """An edge has its verdict's colour; a pair that was not tested has no edge."""
    graph = network.interaction_graph(PAIRS)
    assert set(graph.edges) == {("A", "B"), ("A", "C"), ("B", "C")}
    colors = {to_hex(line.get_color()) for line in network.interaction_network(PAIRS).lines}
    assert VERDICTS["causal in model"].color.lower() in colors


def test_network_keeps_the_telling_pairs_when_nodes_run_out():
    """With room for two motifs the causal pair stays."""
    assert set(network.interaction_graph(PAIRS, most_nodes=2)) == {"A", "B"}


def test_scatter_labels_telling_pairs_only():
    """Names are written at pairs with a telling verdict, not at the many others."""
    texts = {text.get_text() for text in interactions.attention_epistasis(PAIRS).texts}
    assert texts == {"A - B", "A - C"}


def test_best_epoch_is_marked():
    """The dot of a training curve stands at the lowest validation loss."""
    dots = [line for line in training.training_curves(HISTORY).lines if line.get_marker() == "o"]
    assert [(float(d.get_xdata()[0]), float(d.get_ydata()[0])) for d in dots] == [(2.0, 2.0), (2.0, 2.0)]


def test_a_model_without_interval_gets_a_dot_only():
    """Missing interval ends draw no whisker."""
    lines = metrics.metric_intervals(SCORES).lines
    assert sum(len(line.get_xdata()) == 2 for line in lines) == 1


def test_additive_line_of_four_cells():
    """The dashed line stands at a + b - neither."""
    ax = interactions.four_cells(np.array([1.0, 2.0, 4.0, 9.0]))
    dashed = [line for line in ax.lines if line.get_linestyle() == "--"]
    assert dashed[0].get_ydata()[0] == 5.0


def test_doses_are_drawn_from_none_to_all():
    """Shares in order, of regimes that have one; two shares are no curve."""
    ax = bench.dose_response(DOSES)
    hidden = next(line for line in ax.lines if line.get_label() == "epistasis of pairs with a hidden cause")
    assert hidden.get_xdata().tolist() == [0, 0.25, 1] and hidden.get_ydata().tolist() == [0.8, 0.6, 0.0]
    assert bench.has_doses(DOSES) and not bench.has_doses(DOSES[DOSES["regime"] != "mixed0.25"])


def test_spacing_has_a_line_for_each_strand_on_each_side():
    """Lines hold the table's values and do not cross distance zero."""
    ax = spacing_plots.spacing_curve(SPACING)
    lines = {
        tuple(line.get_xdata()): line.get_ydata().tolist()
        for line in ax.lines[1:]
        if line.get_color() == ax.lines[1].get_color()
    }
    assert lines == {(-40, -30): [1.0, 1.2], (30, 40): [0.9, 0.8]}
    assert len(ax.lines) == 5
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["same strand", "opposite strands"]


def test_dollar_signs_in_names_are_letters():
    """A motif called 'a$b_c$' is drawn as written instead of being read as mathematics."""
    assert STYLE["text.parse_math"] is False
    svg = svg_bytes(as_figure(logo.information_logo(PPM, title="a$b_c$")))
    assert b"a$b_c$" in svg


def test_markup_in_names_is_escaped():
    """A motif name that looks like markup stays text inside the SVG."""
    svg = svg_bytes(as_figure(network.interaction_network(PAIRS.replace({"tf_a": {"A": "<script>"}}))))
    assert b"<script>" not in svg and b"&lt;script&gt;" in svg


# -------------------------------------------------------------------------- heads


def texts_of(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(match=Text) if text.get_text()]


@pytest.mark.parametrize("name", [name for name in FIGURES if "head" in name or "sheet" in name or "ablation" in name])
def test_figures_of_heads_are_not_blank(name: str):
    """Every panel of a figure about heads holds ink inside its frame."""
    figure = as_figure(FIGURES[name]())
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = np.asarray(canvas.buffer_rgba())[::-1, :, :3]
    for ax in figure.axes:
        if ax.axison:
            box = ax.get_window_extent().shrunk(0.9, 0.9).extents.round().astype(int)
            inside = pixels[box[1] : box[3], box[0] : box[2]]
            assert (inside < 200).any(axis=2).sum() > 20


def test_no_two_head_verdicts_look_alike():
    """Every verdict on a head has a colour of its own, which no other is near."""
    colors = np.array([to_rgb(color) for color in KINDS.values()])
    apart = np.abs(colors[:, None] - colors[None]).max(axis=2)
    assert apart[~np.eye(len(colors), dtype=bool)].min() > 0.15


def test_first_motif_of_a_head_stands_on_the_sheet():
    """Of two rows of a head the first is shown; a place without a head stays empty."""
    figure = sheets.contact_sheet(HEADS.iloc[:4], {(0, 0): PPM})
    assert "ACN" in " ".join(texts_of(figure)) and "TTT" not in " ".join(texts_of(figure))
    assert [ax.axison for ax in figure.axes] == [True, True, True, False]


def test_caption_says_match_ambiguity_and_cost():
    """Under the logo: consensus, enrichment, the best match with how many other families match, cost with interval."""
    lines = sheets.caption(HEADS.iloc[0].to_dict(), metric="auroc").split("\n")
    assert lines == ["ACN  enriched 2.0x", "NFYA (+2 families)", "costs 0.123 AUROC [0.08, 0.15]"]


@pytest.mark.parametrize(
    ("matches", "expected"),
    [
        ("", ""),
        (float("nan"), ""),
        (None, ""),
        ("NFYA MA0060.4 (q=1e-05)", "NFYA"),
        ("NFYA MA0060.4 (q=1e-05); SP1 MA0079.5 (q=0.01)", "NFYA (+1 family)"),
        ("FOS::JUN MA0099.4 (q=1e-05) +7 of Fos-related", "FOS::JUN"),
        ("TFAP2A(var.2) M9 (r=0.8)", "TFAP2A(var.2)"),
        ("a name that is much longer than a panel is wide M1 (r=0.91)", "a name that is much longe…"),
        ("my motif M1 (r=0.91); other M2 (r=0.8)", "my motif (+1 family)"),
        ("anything", "anything"),
    ],
)
def test_best_match_counts_families(matches: object, expected: str):
    """The best name stands alone, with the number of other families that match."""
    assert sheets.best_match(matches) == expected


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (2, "needed, but no motif in what it reads"),
        (3, "reads a place: 83 % of what varies in it is position"),
        (4, "shares 93 % of its attention with head 0.10"),
    ],
)
def test_a_head_without_motif_says_what_it_is(row: int, expected: str):
    """Instead of an empty box stands what the head is, with its number, and the note why there is no motif."""
    head = HEADS.iloc[row].to_dict()
    assert sheets.plain_words(head) == expected
    figure = sheets.contact_sheet(HEADS.iloc[[row]], {})
    shown = " ".join(" ".join(texts_of(figure)).split())
    assert expected in shown and str(head["note"]) in shown and str(head["verdict"]) in shown


def test_bars_stand_at_the_values_of_the_table():
    """One bar per head and kind, as high as the table says, with its interval; sets of heads are left out."""
    ax = head_plots.ablation_bars(ABLATION, random_q95=0.04)
    assert [bar.get_height() for bar in ax.patches] == pytest.approx(
        [0.1, 0.02, 0.03, 0.2, 0.04, 0.06, 0.05, 0.01, 0.015]
    )
    whiskers = [segment[:, 1].tolist() for lines in ax.collections for segment in lines.get_segments()]
    assert whiskers[0] == pytest.approx([0.09, 0.12]) and len(whiskers) == 9
    line = next(line for line in ax.lines if line.get_linestyle() == "--")
    assert list(line.get_ydata()) == [0.04, 0.04]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0.0", "0.1", "1.0"]
    assert ax.get_ylabel() == "decrease of AUROC"


def test_an_undefined_head_loses_its_bars_only():
    """A missing value draws no bar and no whisker, and the others stay."""
    table = ABLATION.assign(drop=ABLATION["drop"].where(ABLATION["head"] != 1))
    ax = head_plots.ablation_bars(table)
    assert len(ax.patches) == 6
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0.0", "1.0"]


def test_map_shows_every_pair_both_ways_round():
    """The cell of two heads is their similarity, above and below the diagonal, wherever clustering puts them."""
    ax = head_plots.similarity_map(SIMILARITY)
    labels = [label.get_text() for label in ax.get_yticklabels()]
    shown = np.asarray(ax.images[0].get_array())
    assert sorted(labels) == ["0.0", "0.1", "1.0", "1.1"]
    for row in SIMILARITY.itertuples():
        a, b = labels.index(f"{row.layer_a}.{row.head_a}"), labels.index(f"{row.layer_b}.{row.head_b}")
        assert shown[a, b] == shown[b, a] == row.similarity
    np.testing.assert_array_equal(np.diag(shown), 1.0)


def test_heads_that_are_alike_stand_together():
    """The two planted pairs of similar heads are neighbours on the map, although the table parts them."""
    labels = [label.get_text() for label in head_plots.similarity_map(SIMILARITY).get_yticklabels()]
    assert {frozenset(labels[:2]), frozenset(labels[2:])} == {frozenset({"0.0", "1.0"}), frozenset({"0.1", "1.1"})}


def test_distances_are_drawn_in_percent_against_what_is_expected():
    """Both lines run from the left to the right, whatever the order of the rows."""
    read, expected = (
        line for line in head_plots.distance_profile(DISTANCES).lines if not line.get_label().startswith("_")
    )
    np.testing.assert_allclose(read.get_xydata(), [(-5, 70), (0, 20), (5, 10)])
    np.testing.assert_allclose(expected.get_xydata(), [(-5, 30), (0, 40), (5, 30)])


def test_a_card_says_what_it_lacks():
    """A panel without data says so and keeps its title."""
    shown = texts_of(head_plots.head_card(PPM))
    assert shown.count("not known") == 2 and "none known" in shown and "no matrix" not in shown
    assert {"what is read", "its contribution", "around its readers", "how far away"} <= set(shown)


def test_a_head_is_not_called_needed_before_that_is_measured():
    """Without ablation a head that reads no motif is not said to be needed."""
    unmeasured = HEADS.drop(columns="ablation_drop").iloc[2].to_dict()
    assert sheets.plain_words(unmeasured) == "no motif in what it reads"
