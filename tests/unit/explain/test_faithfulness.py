"""Deletion, insertion and rank correlation on a readout that is a sum over bases, where every answer is known."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.integrate import trapezoid
from torch import nn

from bioattn.data import alphabet
from bioattn.errors import DataError
from bioattn.explain import faithfulness as module
from bioattn.explain.faithfulness import FRACTIONS, deletion_insertion, faithfulness

N, LENGTH = 101, 47


class Additive(nn.Module):
    """Readouts that sum up weights of letters by position: nothing depends on anything else."""

    def __init__(self, length: int, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(2, alphabet.PAD + 1, length, generator=generator, dtype=torch.float64))
        with torch.no_grad():
            self.weight[:, alphabet.PAD] = 0

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        places = torch.arange(tokens.shape[1]).expand_as(tokens)
        return self.weight[:, tokens, places].sum(-1).T

    def values(self, codes: np.ndarray, readout: int = 0) -> np.ndarray:
        """What each base adds."""
        return self.weight.detach().numpy()[readout][codes, np.arange(codes.shape[1])]

    def effect(self, codes: np.ndarray) -> np.ndarray:
        """What mutagenesis must find."""
        effect = self.weight.detach().numpy()[0, :4] - self.values(codes)[:, None]
        return np.where((codes == alphabet.PAD)[:, None], np.nan, effect).astype(np.float32)


def some_codes(n: int = N, longest: int = LENGTH, seed: int = 0) -> np.ndarray:
    """Sequences of several lengths, with an unknown base."""
    codes = np.random.default_rng(seed).integers(0, 4, (n, longest)).astype(np.uint8)
    for i in range(1, n, 3):
        codes[i, longest - (i % 17) :] = alphabet.PAD
    codes[0, 3] = alphabet.UNKNOWN
    return codes


def other_letters(codes: np.ndarray, draws: int, seed: int = 1) -> np.ndarray:
    """Copies with random letters."""
    drawn = np.random.default_rng(seed).integers(0, 4, (draws, *codes.shape)).astype(np.uint8)
    return np.where(codes == alphabet.PAD, alphabet.PAD, drawn)


def own(model: Additive, codes: np.ndarray) -> np.ndarray:
    """What each base adds beyond the mean letter; zero for an unknown one, as contributions are."""
    mean = model.weight.detach().numpy()[0, :4].mean(0)
    return np.where(codes < 4, model.values(codes) - mean, np.where(codes == alphabet.PAD, np.nan, 0.0))


def wide(table: pd.DataFrame, direction: str) -> np.ndarray:
    """Readouts (N, F) of one direction."""
    return table[table["direction"] == direction].pivot(index="sequence", columns="fraction", values="readout").values


# --------------------------------------------------------------------------- curves


def test_curves_of_a_sum_are_sums():
    """Each point is the sequence's sum with the first bases of the order changed, counted one by one."""
    model, codes = Additive(LENGTH), some_codes()
    importance = np.random.default_rng(3).normal(size=codes.shape)
    copies = other_letters(codes, 3)
    fractions = (0.0, 0.1, 0.34, 0.5, 1.0)
    table = deletion_insertion(
        model, codes, importance, readout=1, fractions=fractions, replacements=copies, seed=5
    )  # fmt: skip
    assert list(table.columns) == ["sequence", "direction", "fraction", "readout"] and len(table) == 2 * N * 5
    here = model.values(codes, 1)
    there = np.mean([model.values(copy, 1) for copy in copies], axis=0)
    for i in range(N):
        real = np.flatnonzero(codes[i] != alphabet.PAD)
        order = real[np.argsort(-importance[i, real])]
        for j, fraction in enumerate(fractions):
            first = np.isin(np.arange(LENGTH), order[: round(fraction * len(real))])
            deleted, inserted = (np.where(rows, there[i], here[i])[real].sum() for rows in (first, ~first))
            assert wide(table, "deletion")[i, j] == pytest.approx(deleted)
            assert wide(table, "insertion")[i, j] == pytest.approx(inserted)


def test_the_best_order_of_a_sum_beats_all_orders():
    """With one copy the order by what a base adds beyond the copy's has the largest area of all 120 of five bases."""
    model, codes = Additive(5), some_codes(1, 5, seed=2)
    copy = other_letters(codes, 1, seed=4)
    beyond = model.values(codes) - model.values(copy[0])
    fractions = np.linspace(0, 1, 6)

    def areas(importance: np.ndarray) -> tuple[float, float]:
        table = deletion_insertion(model, codes, importance, fractions=list(fractions), replacements=copy)
        return tuple(float(trapezoid(wide(table, d)[0], fractions)) for d in ("deletion", "insertion"))

    everything = [areas(np.array([order], dtype=float)) for order in itertools.permutations(range(5))]
    lowest, highest = areas(beyond)
    assert lowest == pytest.approx(min(d for d, _ in everything))
    assert highest == pytest.approx(max(i for _, i in everything))
    assert areas(-beyond)[0] == pytest.approx(max(d for d, _ in everything))


def test_default_copies_keep_composition(monkeypatch: pytest.MonkeyPatch):
    """Replacement takes letters of shuffles with a sequence's own letters, padded as it is, others for each draw."""
    seen = []

    def note(model: nn.Module, codes: np.ndarray) -> np.ndarray:
        seen.append(codes)
        return np.zeros((len(codes), 1))

    monkeypatch.setattr(module, "predict", note)
    codes = some_codes()
    deletion_insertion(nn.Identity(), codes, np.zeros(codes.shape), fractions=[0.0, 1.0], draws=3, seed=1)
    original, copies = seen[0], seen[1].reshape(3, *codes.shape)
    assert (original == codes).all() and (copies[0] != copies[1]).any()
    for copy in copies:
        assert (np.sort(copy, axis=1) == np.sort(codes, axis=1)).all() and (copy != codes).any()
        assert ((copy == alphabet.PAD) == (codes == alphabet.PAD)).all()


def test_ties_are_broken_without_regard_to_place():
    """Bases of one importance (those of one token) come in any order, unmeasured ones last, padding never."""
    codes = some_codes(211, 13)
    importance = np.zeros(codes.shape)
    importance[:, 4] = np.nan
    ranks = module._ranks(importance, codes, 0, "ties")
    real = codes != alphabet.PAD
    assert (np.sort(ranks, axis=1) == np.arange(13)).all()
    length = real.sum(1)
    assert (ranks[~real] >= np.repeat(length, 13 - length)).all()
    assert (ranks[real[:, 4], 4] == length[real[:, 4]] - 1).all()
    whole = ranks[(length == 13)][:, [0, 6, 12]]
    assert np.ptp(whole.mean(0)) < 1.5 and np.abs(whole.mean() - 5.5) < 0.7


# ------------------------------------------------------------------------- summaries


@pytest.fixture(scope="module")
def result():
    """Known attributions of a sum over bases."""
    model, codes = Additive(LENGTH), some_codes()
    best = own(model, codes)
    effect = model.effect(codes)
    kinds = {
        "best": best, "reversed": -best, "ism": best, "received_sum": np.sqrt((effect**2).sum(1)),
        "nothing": np.where(codes == alphabet.PAD, np.nan, 1.0),
    }  # fmt: skip
    return faithfulness(model, codes, kinds, effect, left_out={"gradient": "words are looked up"}, seed=7)


def row_of(table: pd.DataFrame, kind: str, direction: str = "deletion") -> pd.Series:
    found = table[(table["kind"] == kind) & (table["direction"] == direction)]
    assert len(found) == 1
    return found.iloc[0]


@pytest.mark.parametrize("direction", ["deletion", "insertion"])
def test_the_best_order_beats_chance_and_the_reversed_one_loses(result, direction: str):
    """Areas are above 0 for the best order, below for the reversed one, about 0 for random orders, and mirrored."""
    best, worst, none, random = (
        row_of(result.summary, kind, direction) for kind in ("best", "reversed", "nothing", "random")
    )
    assert 0 < best["area_ci_low"] < best["area"] < best["area_ci_high"]
    assert worst["area_ci_high"] < 0
    assert worst["area"] == pytest.approx(-best["area"], rel=0.15)
    for row in (none, random):
        assert abs(row["area"]) < 0.1 * best["area"]
        assert row["area_ci_low"] < 0.03 * best["area"] and row["area_ci_high"] > -0.03 * best["area"]
    assert (result.summary.loc[result.summary["kind"] != "gradient", "n"] == N).all()


def test_a_random_order_changes_a_sum_evenly(result):
    """The curve of random orders is the straight line between its ends, which all curves share."""
    for direction in ("deletion", "insertion"):
        curves = result.curves[result.curves["direction"] == direction].pivot(
            index="fraction", columns="kind", values="mean"
        )
        assert tuple(curves.index) == FRACTIONS and (curves.nunique(axis=1)[[0.0, 1.0]] == 1).all()
        start, end = curves["random"].iloc[[0, -1]]
        line = start + (end - start) * curves.index.to_numpy()
        gap = np.abs(curves["best"] - line).max()
        np.testing.assert_allclose(curves["random"], line, atol=0.1 * gap)
    first = result.curves[result.curves["fraction"] == 0].groupby("direction")["mean"].first()
    last = result.curves[result.curves["fraction"] == 1].groupby("direction")["mean"].first()
    assert first["deletion"] == last["insertion"] and last["deletion"] == first["insertion"]


def test_areas_are_those_between_the_curves_shown(result):
    """The area of an attribution is that between its mean curve and the mean curve of random orders."""
    curves = result.curves.pivot(index="fraction", columns=["direction", "kind"], values="mean")
    for kind in ("best", "reversed", "received_sum"):
        for direction, sign in (("deletion", -1), ("insertion", 1)):
            between = trapezoid(curves[direction][kind] - curves[direction]["random"], FRACTIONS)
            assert row_of(result.summary, kind, direction)["area"] == pytest.approx(sign * between, abs=1e-9)


def test_intervals_are_about_as_wide_as_the_mean_is_uncertain(result):
    """Bootstrap intervals of a mean over sequences reach about two standard errors to either side."""
    model, codes = Additive(LENGTH), some_codes()
    row = result.curves.query("kind == 'best' and direction == 'deletion' and fraction == 0").iloc[0]
    values = model.values(codes).sum(1)
    error = values.std(ddof=1) / np.sqrt(N)
    assert row["mean"] == pytest.approx(values.mean())
    assert row["ci_high"] - row["ci_low"] == pytest.approx(3.92 * error, rel=0.15)


def test_rank_correlation_compares_what_is_claimed(result):
    """Signed attributions are held against contributions, unsigned ones against sizes; constants have none."""
    expected = {"best": 1, "reversed": -1, "received_sum": 1}
    for kind, value in expected.items():
        row = row_of(result.summary, kind)
        assert row["spearman_ism"] == pytest.approx(value, abs=1e-6)
        assert row["spearman_ci_low"] == pytest.approx(value, abs=1e-6)
    assert abs(row_of(result.summary, "random")["spearman_ism"]) < 0.15
    for kind in ("ism", "nothing"):
        assert np.isnan(row_of(result.summary, kind)["spearman_ism"])
    assert "101 of 101 sequences, whose values are all equal" in row_of(result.summary, "nothing")["note"]
    assert row_of(result.summary, "ism")["note"] == "not compared with itself"
    assert (
        "without a sign" in row_of(result.summary, "received_sum")["note"]
        and not row_of(result.summary, "best")["note"]
    )


def test_rank_correlation_is_a_mean_over_sequences_of_known_bases():
    """Correlation is taken inside each sequence, over bases that are known, and averaged where it is defined."""
    model, codes = Additive(LENGTH), some_codes(3)
    values = own(model, codes)
    values[0, 3] = 1e6  # an unknown base
    values[1] = -values[1]
    values[2] = 0
    row = row_of(faithfulness(model, codes, {"mixed": values}, model.effect(codes)).summary, "mixed")
    assert row["spearman_ism"] == pytest.approx(0, abs=1e-6) and "1 of 3 sequences" in row["note"]
    assert row["spearman_ci_low"] == pytest.approx(-1) and row["spearman_ci_high"] == pytest.approx(1)


def test_what_could_not_be_computed_has_a_row(result):
    """A kind that was left out is there in both directions, with its reason and no numbers."""
    rows = result.summary[result.summary["kind"] == "gradient"]
    assert rows["direction"].tolist() == ["deletion", "insertion"] and (rows["n"] == 0).all()
    assert (rows["note"] == "words are looked up").all()
    assert rows[["area", "area_ci_low", "spearman_ism", "spearman_ci_high"]].isna().all(axis=None)


def test_one_sequence_has_no_intervals():
    """Of one sequence there is nothing to draw from, which the note says."""
    model, codes = Additive(LENGTH), some_codes(1)
    found = faithfulness(model, codes, {"best": own(model, codes)}, model.effect(codes))
    row = row_of(found.summary, "best")
    assert row["area"] > 0 and np.isnan(row["area_ci_low"]) and row["note"] == "one sequence: no intervals"
    assert found.curves["ci_low"].isna().all()


def test_results_depend_on_the_seed_alone():
    """The same seed gives the same tables, another one other draws; other kinds beside it change no number."""
    model, codes = Additive(LENGTH), some_codes(5)
    values, effect, steps = own(model, codes), model.effect(codes), []
    first, again, more = (
        faithfulness(model, codes, kinds, effect, seed=1, progress=lambda *step: steps.append(step))
        for kinds in ({"best": values}, {"best": values}, {"other": -values, "best": values})
    )
    other = faithfulness(model, codes, {"best": values}, effect, seed=2)
    pd.testing.assert_frame_equal(first.curves, again.curves)
    pd.testing.assert_series_equal(row_of(first.summary, "best"), row_of(more.summary, "best"), check_names=False)
    assert row_of(first.summary, "best")["area"] != row_of(other.summary, "best")["area"]
    assert steps[:5] == [(i, 5) for i in range(1, 6)] and steps[-1] == (6, 6)


def test_mistakes_are_named():
    """Shapes, fractions and copies that do not fit end in an error that says what was found."""
    model, codes = Additive(LENGTH), some_codes(3)
    values = np.zeros(codes.shape)
    with pytest.raises(DataError, match=r"importance must have the shape of the sequences \(3, 47\), got \(3, 46\)"):
        deletion_insertion(model, codes, values[:, 1:])
    with pytest.raises(DataError, match="no sequence"):
        deletion_insertion(model, codes[:0], values[:0])
    for fractions in ([], [-0.1, 1], [0, 1.5], [0, 0.5, 0.2, 1]):
        with pytest.raises(DataError, match="fractions must lie between 0 and 1, in increasing order"):
            deletion_insertion(model, codes, values, fractions=fractions)
    with pytest.raises(DataError, match="draws must be at least 1"):
        deletion_insertion(model, codes, values, draws=0)
    with pytest.raises(DataError, match="replacements must have shape"):
        deletion_insertion(model, codes, values, replacements=codes)
    with pytest.raises(DataError, match="padded where the sequences are"):
        deletion_insertion(model, codes, values, replacements=np.zeros((1, *codes.shape), dtype=np.uint8))
    with pytest.raises(DataError, match="effects are of other sequences"):
        faithfulness(model, codes, {"zero": values}, model.effect(codes)[:2])
