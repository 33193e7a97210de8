"""Figures: they draw what the tables say, refuse what they cannot draw, and come out the same every time."""

import subprocess
import sys
from collections.abc import Callable

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from bioattn.errors import DataError
from bioattn.plot import balance, curves, interactions, ism, logo, metrics, network, positions, scatter, split, training
from bioattn.plot import contact_sheet as sheets
from bioattn.plot.save import svg_bytes
from bioattn.plot.style import STYLE, VERDICTS, figure_of

PPM = np.array([[0.7, 0.1, 0.25], [0.1, 0.7, 0.25], [0.1, 0.1, 0.25], [0.1, 0.1, 0.25]])
HEADS = pd.DataFrame(
    {
        "layer": [0, 0, 1],
        "head": [0, 1, 0],
        "kind": ["motif", "diffuse", "positional"],
        "consensus": ["ACN", "", ""],
        "matches": ["NFYA MA0060.4 (q=1e-5); B", "", ""],
        "enrichment_log2": [1.0, np.nan, np.nan],
    }
)
PAIRS = pd.DataFrame(
    {
        "motif_a": ["A", "A", "B", "C"],
        "motif_b": ["B", "C", "C", "D"],
        "verdict": ["causal in model", "attention-only (correlational)", "not supported", "not tested"],
        "epistasis_effect": [2.0, 0.02, -0.01, np.nan],
        "attention_effect_bits": [3.0, 2.0, 0.1, 0.0],
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
COUNTS = pd.DataFrame({"fold": [0, 0, 0], "subset": ["train", "validation", "test"], "n": [70, 10, 20]})
SITES = (logo.Site("-10 box", 1, 3),)

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
    "contact_sheet": lambda: sheets.contact_sheet(HEADS, {(0, 0): PPM}),
    "received_profiles": lambda: positions.received_profiles(PROFILE, sites=SITES),
    "importance_profile": lambda: ism.importance_profile(np.arange(5.0), sites=SITES),
    "substitution_map": lambda: ism.substitution_map(PPM - 0.5, sites=SITES, unit="logit"),
    "interaction_network": lambda: network.interaction_network(PAIRS),
    "attention_epistasis": lambda: interactions.attention_epistasis(PAIRS, floor=1.0, minimum=0.1),
    "four_cells": lambda: interactions.four_cells(np.array([0.0, 1.0, 1.0, 3.0])),
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
    modules = "contact_sheet curves interactions ism logo metrics network positions save scatter split style training"
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


def test_dollar_signs_in_names_are_letters():
    """A motif called 'a$b_c$' is drawn as written instead of being read as mathematics."""
    assert STYLE["text.parse_math"] is False
    svg = svg_bytes(as_figure(logo.information_logo(PPM, title="a$b_c$")))
    assert b"a$b_c$" in svg


def test_markup_in_names_is_escaped():
    """A motif name that looks like markup stays text inside the SVG."""
    svg = svg_bytes(as_figure(network.interaction_network(PAIRS.replace({"motif_a": {"A": "<script>"}}))))
    assert b"<script>" not in svg and b"&lt;script&gt;" in svg
