"""Whether heads matter and which of them do the same, on hand-made heads that read a place."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from bioattn.config import ModelConfig, StemConfig, TaskConfig
from bioattn.explain import head_worth as module
from bioattn.explain.head_ablation import Scored, ablate_heads, heads_of
from bioattn.explain.head_similarity import effective_heads, head_similarity
from bioattn.explain.head_worth import Worth
from bioattn.explain.random_models import p_random, random_model_losses
from bioattn.models import SequenceModel, build_model

#: Base that says the target, and one that says nothing.
TELLS, SILENT = 4, 7
LENGTH = 11
G = 2
#: How sure the model is of what it has read.
SURE = 40.0


def place_model(reads: list[list[int]], writes: list[list[float]]) -> SequenceModel:
    """Model whose heads (layer by layer) each read one base and write to the readout whether it is G, in given parts.

    All weights are by hand. Both places are marked in the stream; every query of a head asks for its mark.
    The logit is SURE * (what all heads have written - 1/2).
    """
    n_layers, n_heads = np.shape(reads)
    size, width = 2, 2 * n_heads
    config = ModelConfig(
        stem=StemConfig(kind="none", pool=1), positions="learned", pooling="cls", d_model=width, n_layers=n_layers,
        n_heads=n_heads, d_feedforward=3, dropout=0.0,
    )  # fmt: skip
    model = build_model(config, n_readouts=1, seed=0).eval()
    marks = {TELLS: 2, SILENT: 3}
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.encoder.norm = nn.Identity()
        model.stem.project.weight[0, G] = 1.0
        for place, channel in marks.items():
            model.encoder.positions.table[place + model.n_prefix, channel] = 1.0
        for block, places, parts in zip(model.encoder.layer, reads, writes, strict=True):
            block.norm_attn = nn.Identity()
            for head, (place, part) in enumerate(zip(places, parts, strict=True)):
                block.attn.project_in.bias[size * head] = 60.0
                block.attn.project_in.weight[width + size * head, marks[place]] = 1.0
                block.attn.project_in.weight[2 * width + size * head, 0] = 1.0
                block.attn.project_out.weight[1, size * head] = part
        model.readout.weight[0, 1], model.readout.bias[0] = SURE, -SURE / 2
    return model


def told(n: int = 60) -> Scored:
    """Random sequences, half of them with G at the base that tells the target, the others without."""
    draw = np.random.default_rng(0)
    codes = draw.integers(0, 4, (n, LENGTH)).astype(np.uint8)
    targets = np.arange(n) % 2
    codes[:, TELLS] = np.where(targets == 1, G, draw.choice([0, 1, 3], n))
    return Scored(codes, targets[:, None].astype(np.float32))


def made_up(null: list[float], without_doubles: dict[tuple[int, int], float]) -> Worth:
    """Worth of which everything but the null and the costs without a double is empty."""
    heads = [(0, 0), (0, 1)]
    return Worth(heads, pd.DataFrame(), np.eye(2), np.array(null), without_doubles, {})


# ------------------------------------------------------------- doubles


def test_a_double_is_redundant_though_either_alone_costs_nothing():
    """Of two heads that do the same none matters, and both are redundant: without one the other is all there is."""
    model, scored = place_model([[TELLS, TELLS, SILENT]], [[0.5, 0.5, 0.0]]), told()
    worth = Worth.of(model, scored, TaskConfig(), scored.codes, 0)
    rows = [worth.columns(layer, head, c) for c, (layer, head) in enumerate(heads_of(model))]
    # With half of what is read a logit is still SURE / 4 from even, on the right side of it.
    half = np.log1p(np.exp(-SURE / 4))
    assert [row["ablation_loss"] for row in rows] == pytest.approx([half, half, 0], abs=1e-6)
    assert worth.without_doubles == pytest.approx({(0, 0): np.log(2) - half, (0, 1): np.log(2) - half}, abs=1e-6)
    assert [worth.matters(row) for row in rows] == [False, False, False]
    assert [worth.redundant(head) for head in heads_of(model)] == [True, True, False]
    assert [row["similar_head"] for row in rows[:2]] == ["L0H1", "L0H0"]


def test_a_head_that_alone_carries_the_target_matters():
    """The only reader of the target matters and has no double, and two equal heads that read else are not redundant."""
    model, scored = place_model([[SILENT, SILENT, TELLS]], [[0.0, 0.0, 1.0]]), told()
    worth = Worth.of(model, scored, TaskConfig(), scored.codes, 0)
    rows = [worth.columns(layer, head, c) for c, (layer, head) in enumerate(heads_of(model))]
    assert [worth.matters(row) for row in rows] == [False, False, True]
    assert rows[2]["ablation_loss"] == pytest.approx(np.log(2), rel=1e-4) and rows[2]["p_random"] == 1 / 61
    assert worth.without_doubles == pytest.approx({(0, 0): 0, (0, 1): 0}, abs=1e-6)
    assert not any(map(worth.redundant, heads_of(model)))


def test_a_dead_double_of_a_head_that_matters_is_not_redundant():
    """A head that looks where the only reader of the target looks, but writes nothing, costs nothing without it too."""
    model, scored = place_model([[TELLS, TELLS, SILENT]], [[1.0, 0.0, 0.0]]), told()
    worth = Worth.of(model, scored, TaskConfig(), scored.codes, 0)
    rows = [worth.columns(layer, head, c) for c, (layer, head) in enumerate(heads_of(model))]
    assert [row["similar_head"] for row in rows[:2]] == ["L0H1", "L0H0"] and rows[1]["similarity"] > 0.99
    assert [row["ablation_loss"] for row in rows] == pytest.approx([np.log(2), 0, 0], rel=1e-4, abs=1e-6)
    assert worth.without_doubles == pytest.approx({(0, 0): np.log(2), (0, 1): 0}, rel=1e-4, abs=1e-6)
    assert [worth.matters(row) for row in rows] == [True, False, False]
    assert not worth.redundant((0, 1)) and not worth.redundant((0, 2))


def test_each_of_three_heads_that_do_the_same_is_redundant():
    """A head with two doubles is held against what is left without both of them."""
    model, scored = place_model([[TELLS, TELLS, TELLS, SILENT]], [[1 / 3, 1 / 3, 1 / 3, 0.0]]), told()
    worth = Worth.of(model, scored, TaskConfig(), scored.codes, 0)
    one_left = np.log1p(np.exp(-SURE / 6))
    costs = dict.fromkeys([(0, 0), (0, 1), (0, 2)], np.log(2) - one_left)
    assert worth.without_doubles == pytest.approx(costs, abs=1e-5)
    assert [worth.redundant(head) for head in heads_of(model)] == [True, True, True, False]


def test_each_set_of_doubles_is_taken_away_once(monkeypatch: pytest.MonkeyPatch):
    """A cost is that of all heads of a pattern less that of the others, and no set is asked for twice."""
    model, scored = place_model([[TELLS, TELLS], [TELLS, SILENT]], [[0.4, 0.4], [0.2, 0.0]]), told()
    sure = 5.0
    with torch.no_grad():
        model.readout.weight *= sure / SURE
        model.readout.bias *= sure / SURE
    a, b, c, _ = heads_of(model)
    # a and b are doubles of each other, a is that of c as well, and the last head has none by a hair.
    similarity = np.array([[1, 0.9, 0.8, 0.3], [0.9, 1, 0.7, 0.79], [0.8, 0.7, 1, 0.1], [0.3, 0.79, 0.1, 1]])
    asked = []

    def seen(*args, **settings):
        asked.append((settings.get("sets"), settings.get("kinds")))
        return ablate_heads(*args, **settings)

    monkeypatch.setattr(module, "head_similarity", lambda *_, **__: similarity)
    monkeypatch.setattr(module, "ablate_heads", seen)
    monkeypatch.setattr(module, "random_model_losses", lambda *_, **__: np.zeros(1))
    worth = Worth.of(model, scored, TaskConfig(), scored.codes, 0)
    assert asked == [(None, None), ([(a, b, c), (b, c), (a, b), (a,), (a, c)], ["mean"])]

    def loss(read: float) -> float:
        """With the part of the target that is still read; what is not has its mean, and is right by half."""
        return np.log1p(np.exp(-sure * read / 2))

    expected = {a: loss(0) - loss(0.4), b: loss(0.2) - loss(0.6), c: loss(0.4) - loss(0.6)}
    assert worth.without_doubles == pytest.approx(expected, rel=1e-4)


def test_heads_without_a_double_are_not_ablated_in_pairs(monkeypatch: pytest.MonkeyPatch):
    """Where no pattern overlaps by 80 % with another nothing is ablated beside the single heads."""
    model, scored = place_model([[TELLS, SILENT]], [[1.0, 0.0]]), told(20)
    asked = []

    def seen(*args, **settings):
        asked.append(settings.get("sets"))
        return ablate_heads(*args, **settings)

    monkeypatch.setattr(module, "ablate_heads", seen)
    monkeypatch.setattr(module, "random_model_losses", lambda *_, **__: np.zeros(1))
    worth = Worth.of(model, scored, TaskConfig(), scored.codes, 0)
    assert worth.without_doubles == {} and asked == [None]
    assert not any(map(worth.redundant, heads_of(model)))


@pytest.mark.parametrize(("cost", "redundant"), [(1.9, True), (1.75, False), (0.0, False), (np.nan, False)])
def test_redundant_heads_beat_the_null_without_their_double(cost: float, redundant: bool):
    """Once its double is gone a head must be worth more than the best of 19 random heads, which makes p 1 / 20."""
    worth = made_up([*(0.1 * i for i in range(19)), np.nan], {(0, 1): cost})
    assert worth.redundant((0, 1)) == redundant and not worth.redundant((0, 0))


def test_nothing_is_redundant_without_a_null():
    """Where no random model has a known loss, no head is said to be worth more."""
    assert not made_up([], {(0, 1): 5.0}).redundant((0, 1))
    assert not made_up([np.nan], {(0, 1): 5.0}).redundant((0, 1))


# ------------------------------------------------------------- single heads


def test_columns_are_those_of_mean_ablation():
    """A head's row holds loss, drop and effect of its mean ablation with intervals, its p, and its nearest head."""
    names = [f"{name}{end}" for name in ("loss", "drop", "effect") for end in ("", "_ci_low", "_ci_high")]
    ablation = pd.DataFrame(
        [{"layer": a, "head": b, "kind": k} for k in ("zero", "mean", "resample") for a in (0, 1) for b in (0, 1)]
    )
    ablation[names] = np.arange(12 * 9).reshape(12, 9)
    similarity = np.array([[1, 0.2, 0.4, 0.3], [0.2, 1, 0.1, 0], [0.4, 0.1, 1, 0.9], [0.3, 0, 0.9, 1]])
    heads = [(0, 0), (0, 1), (1, 0), (1, 1)]
    worth = Worth(heads, ablation, similarity, np.array([9.0, 54.0, 55.0]), {}, {})
    row = worth.columns(1, 0, 2)
    first = 9 * 6  # row 6 of the table: kind "mean", layer 1, head 0
    expected = {f"ablation_{name}": first + i for i, name in enumerate(names)}
    assert row == expected | {"p_random": 3 / 4, "similar_head": "L1H1", "similarity": 0.9}
    assert [worth.columns(*head, c)["similar_head"] for c, head in enumerate(heads)] == ["L1H0", "L0H0", "L1H1", "L1H0"]


@pytest.mark.parametrize(("p", "matters"), [(0.01, True), (0.05, True), (0.051, False), (1.0, False), (np.nan, None)])
def test_a_head_matters_at_five_percent(p: float, matters: bool | None):
    """Heads of random models may be worth as much with a probability of 5 %, and an unknown one says nothing."""
    assert made_up([], {}).matters({"p_random": p}) is matters


def test_without_targets_nothing_is_said_of_worth():
    """Without targets or a task `matters` is None and no cost is given; with targets that are all missing as well."""
    model, scored = place_model([[TELLS, TELLS, SILENT]], [[0.5, 0.5, 0.0]]), told(20)
    similarity = head_similarity(model, scored.codes)
    for given, task in ((None, None), (None, TaskConfig()), (scored, None)):
        worth = Worth.of(model, given, task, scored.codes, 0)
        row = worth.columns(0, 0, 0)
        assert worth.matters(row) is None and not worth.redundant((0, 0))
        assert set(row) == {"p_random", "similar_head", "similarity"} and len(worth.ablation) == len(worth.null) == 0
        assert worth.summary == {"n_heads": 3, "effective_heads": effective_heads(similarity)}
    missing = Scored(scored.codes, np.full_like(scored.targets, np.nan))
    worth = Worth.of(model, missing, TaskConfig(), scored.codes, 0)
    row = worth.columns(0, 0, 0)
    assert worth.matters(row) is None and not worth.redundant((0, 0)) and row["ablation_effect"] > 1
    assert np.isnan(row["ablation_loss"]) and worth.summary["random_loss_q95"] is None
    assert worth.summary["n_random_heads"] == 0


@pytest.mark.parametrize("with_targets", [True, False])
def test_similar_head_is_the_nearest_other_head(with_targets: bool):
    """The nearest other head is named by layer and head, in whichever layer it stands."""
    model = place_model([[SILENT, TELLS], [TELLS, SILENT]], [[0.0, 1.0], [0.0, 0.0]])
    scored = told(20)
    worth = Worth.of(model, scored if with_targets else None, TaskConfig(), scored.codes, 0)
    rows = [worth.columns(layer, head, c) for c, (layer, head) in enumerate(heads_of(model))]
    assert [row["similar_head"] for row in rows] == ["L1H1", "L1H0", "L0H1", "L0H0"]
    assert [row["similarity"] for row in rows] == pytest.approx([1.0] * 4)


def test_a_lone_head_is_similar_to_none():
    """A model of one head has no other that could be like it."""
    config = ModelConfig(stem=StemConfig(kind="none", pool=1), d_model=4, n_layers=1, n_heads=1, d_feedforward=3)
    model, scored = build_model(config, n_readouts=1, seed=0).eval(), told(20)
    worth = Worth.of(model, scored, TaskConfig(), scored.codes, 0)
    row = worth.columns(0, 0, 0)
    assert "similar_head" not in row and "similarity" not in row and np.isfinite(row["p_random"])
    assert worth.without_doubles == {} and worth.summary["effective_heads"] == pytest.approx(1)


def test_worth_holds_ablation_null_and_their_summary():
    """Ablation is of the task's readout, the null of random models, and patterns of the sequences given beside."""
    task, scored = TaskConfig(kind="regression", targets=["a", "b"], readout=1), told(30)
    config = ModelConfig(
        stem=StemConfig(kind="none", pool=1), pooling="cls", d_model=4, n_layers=1, n_heads=2, d_feedforward=3
    )
    model = build_model(config, n_readouts=2, seed=0).eval()
    targets = np.random.default_rng(1).normal(size=(30, 2)).astype(np.float32)
    codes = np.random.default_rng(2).integers(0, 4, (17, 13)).astype(np.uint8)
    worth = Worth.of(model, Scored(scored.codes, targets), task, codes, 3)
    pd.testing.assert_frame_equal(worth.ablation, ablate_heads(model, scored.codes, targets, task, readout=1, seed=3))
    null = random_model_losses(model, Scored(scored.codes, targets), task, seed=3)
    assert np.array_equal(worth.null, null) and np.array_equal(worth.similarity, head_similarity(model, codes, seed=3))
    assert worth.summary == {
        "n_heads": 2, "effective_heads": effective_heads(worth.similarity), "metric": "pearson", "n_scored": 30,
        "n_random_heads": 40, "random_loss_q95": np.quantile(null, 0.95),
    }  # fmt: skip
    mean = worth.ablation[worth.ablation["kind"] == "mean"]
    assert worth.columns(0, 1, 1)["p_random"] == p_random(mean["loss"].iloc[1], null)
