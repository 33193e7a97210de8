"""Experiments with known answers: they pass as they are, and fail when a part that they rest on is broken."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from toy_verbs import call

from bioattn.config import PrinciplesConfig
from bioattn.errors import ConfigError, DataError
from bioattn.io.tables import read_tsv
from bioattn.nn import attention, encoder
from bioattn.nn.graph import GraphAttention
from bioattn.nn.patches import PatchEmbedding
from bioattn.nn.positions import RotaryPositions
from bioattn.plot.principles import experiment
from bioattn.principles import EXPERIMENTS, run_experiment
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
    """Two experiments and their page; a failed verdict ends with an error that names the experiment."""
    for name in ("padding", "graph_attention"):
        call("principle", name, "--size", "fast", "--seeds", 1, "--out", tmp_path / name)
    folders = [word for name in ("padding", "graph_attention") for word in ("--experiment", tmp_path / name)]
    call("principles", *folders, "--out", tmp_path)
    assert "10 of 10 claims hold" in capsys.readouterr().out
    assert len(read_tsv(tmp_path / "verdicts.tsv")) == 10 and (tmp_path / "padding" / "figure.svg").exists()
    page = (tmp_path / "report.html").read_text()
    assert "Attention along edges is a random walk" in page and page.count("data:image/svg+xml") == 2
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr("bioattn.principles.padding._off", lambda found, expected: float("nan"))
        call("principle", "padding", "--size", "fast")
    assert "verdicts failed in padding" in capsys.readouterr().err


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
    with pytest.raises(DataError, match="lines or points, got 'matrix'"):
        experiment(table, kind="matrix", **options)
