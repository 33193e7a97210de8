"""Responses to motifs put into backgrounds, and the share of them that heads of known weights carry."""

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from bioattn import rng
from bioattn.config import ModelConfig, StemConfig
from bioattn.data import alphabet
from bioattn.errors import DataError
from bioattn.explain import motif_response as module
from bioattn.explain.motif_response import MotifResponses
from bioattn.explain.predict import predict
from bioattn.models import SequenceModel, build_model
from bioattn.nn import taps

BASES = StemConfig(kind="none", pool=1)
WORD = alphabet.encode("GATTACA")
#: The same word as a matrix that leaves no choice.
CERTAIN = np.eye(4)[:, WORD]
HEADS = [(1, 1), (0, 2)]


def random_codes(n: int, length: int, seed: int = 0) -> np.ndarray:
    """Random sequences, every third one shorter."""
    codes = np.random.default_rng(seed).integers(0, 4, (n, length)).astype(np.uint8)
    codes[::3, length - 8 :] = alphabet.PAD
    return codes


def length_of(codes: np.ndarray) -> np.ndarray:
    return (codes != alphabet.PAD).sum(1)


def random_model(**more) -> SequenceModel:
    """Model of two readouts with random weights of a size at which every head matters."""
    settings = {
        "stem": BASES, "positions": "learned", "pooling": "cls", "d_model": 12, "n_layers": 2, "n_heads": 3,
        "d_feedforward": 17, "dropout": 0.0,
    }  # fmt: skip
    model = build_model(ModelConfig(**(settings | more)), n_readouts=2, seed=1)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def linear_model(shares: list[float], *, direct: float = 0.0) -> SequenceModel:
    """Model that reads the share of G by heads in the given parts, and directly by base: all weights by hand.

    One layer, uniform attention, no normalisation: its readout is the mean over tokens of (sum(shares) + direct) * G.
    """
    n = len(shares)
    config = ModelConfig(
        stem=BASES, d_model=2 * n, n_layers=1, n_heads=n, d_feedforward=3, positions="none", pooling="mean", dropout=0.0
    )
    model = build_model(config, n_readouts=1, seed=0).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        block = model.encoder.layer[0]
        block.norm_attn, model.encoder.norm = nn.Identity(), nn.Identity()
        model.stem.project.weight[0, 2] = 1.0  # G
        for head, share in enumerate(shares):
            block.attn.project_in.weight[4 * n + 2 * head, 0] = share  # its value
            block.attn.project_out.weight[1, 2 * head] = 1.0
        model.readout.weight[0, 0], model.readout.weight[0, 1] = direct, 1.0
    return model


# ------------------------------------------------------------- shares


def test_response_is_shared_by_the_heads_that_carry_it():
    """What each head carries of a linear response is lost without it: known shares, and none of the direct path."""
    model, backgrounds = linear_model([0.5, 0.125], direct=0.375), random_codes(31, 40)
    table = MotifResponses(model, backgrounds).of("GGGGTGG", [(0, 0), (0, 1)])
    length = length_of(backgrounds)
    replaced_g = [(backgrounds[i, s : s + 7] == 2).sum() for i, s in enumerate((length - 7) // 2)]
    assert table["response"].tolist() == pytest.approx([np.mean((6 - np.array(replaced_g)) / length)] * 2, rel=1e-5)
    assert table["lost"].tolist() == pytest.approx([0.5, 0.125], rel=1e-4)
    assert table["response_without"].tolist() == pytest.approx((table["response"] * [0.5, 0.875]).tolist(), rel=1e-4)
    # In a linear model the share is the same in every draw.
    np.testing.assert_allclose(table["lost_ci_high"] - table["lost_ci_low"], 0, atol=1e-4)
    assert (table["response_ci_low"] < table["response"]).all() and (table["n"] == 31).all()
    assert (table["note"] == "").all() and table[["layer", "head"]].to_numpy().tolist() == [[0, 0], [0, 1]]


def test_a_model_whose_heads_write_nothing_loses_nothing():
    """Where the response goes past the heads no share is lost, and where there is none the note says so."""
    backgrounds = random_codes(31, 40)
    past = MotifResponses(linear_model([0.0, 0.0], direct=1.0), backgrounds).of("GGGGG", [(0, 1)]).iloc[0]
    assert past["lost"] == 0 and past["response"] > 0.05 and past["note"] == ""
    carried = MotifResponses(linear_model([1.0, 1.0]), backgrounds).of(alphabet.encode("GG"), [(0, 0)], start=3)
    assert carried["note"][0] == "" and carried["lost"][0] == pytest.approx(0.5, rel=1e-4)
    silent = MotifResponses(linear_model([0.0, 0.0]), backgrounds).of("GGGGG", [(0, 1)]).iloc[0]
    assert silent["response"] == 0 and np.isnan(silent["lost"]) and "no clear response" in silent["note"]


@pytest.mark.parametrize("reverse_complement", ["none", "average"])
def test_response_and_its_intervals_are_those_of_whole_runs(reverse_complement: str):
    """Changes with and without a head's mean output, and quantiles of resampled backgrounds, come out by hand."""
    model, backgrounds = random_model(reverse_complement=reverse_complement), random_codes(17, 29)
    layer, head = HEADS[0]
    name = f"layer.{layer}.attn.head_output"
    start = (length_of(backgrounds) - 7) // 2
    placed = backgrounds.copy()
    for row, first in zip(placed, start, strict=True):
        row[first : first + 7] = alphabet.encode("C")
    first, outputs = [], []
    with torch.inference_mode(), taps.record(model, [name]) as store:
        for row in backgrounds:
            for strand in model.strands(torch.from_numpy(row[None].astype(np.int64))):
                model.one_strand(strand)
                first.append(store[name][0, head, :1])
                outputs.append(store[name][0, head, 1:][model.real_tokens(strand)[0]])
    # The token before the sequence has a mean of its own.
    mean = torch.cat([torch.stack(first).mean(0), torch.cat(outputs).mean(0).expand(29, -1)])
    intact = np.subtract(*(predict(model, codes)[:, 1].astype(np.float64) for codes in (placed, backgrounds)))
    with taps.edit(model, {name: taps.replace(mean, np.s_[:, head])}):
        without = np.subtract(*(predict(model, codes)[:, 1].astype(np.float64) for codes in (placed, backgrounds)))
    row = MotifResponses(model, backgrounds, readout=1, seed=5).of("C" * 7, HEADS).iloc[0]
    weights = rng.stream(5, "heads", "response", "bootstrap").multinomial(17, np.full(17, 1 / 17), 500)
    draws = np.array([[np.repeat(each, w).mean() for each in (intact, without)] for w in weights])
    for column, value, each in (
        ("response", intact.mean(), draws[:, 0]),
        ("response_without", without.mean(), draws[:, 1]),
        ("lost", 1 - without.mean() / intact.mean(), 1 - draws[:, 1] / draws[:, 0]),
    ):
        assert row[column] == pytest.approx(value, rel=1e-3)
        expected = np.quantile(each, [0.025, 0.975])
        np.testing.assert_allclose(row[[f"{column}_ci_low", f"{column}_ci_high"]].astype(float), expected, rtol=1e-2)
    assert abs(intact.mean()) > 1e-2 and abs(without.mean() - intact.mean()) > 5e-3
    # Clear either way: without averaging of strands the response is negative.
    assert row["note"] == "" and (row["response"] < 0) == (reverse_complement == "none")


# ------------------------------------------------------------- where motifs are put


def test_a_certain_matrix_is_its_consensus():
    """A matrix that leaves no choice gives what its word gives, as text or as codes, at a base or in the middle."""
    responses = MotifResponses(random_model(), random_codes(31, 40), readout=1)
    for start in (None, 30):
        by_matrix = responses.of(CERTAIN, HEADS, start=start)
        for word in ("GATTACA", WORD):
            pd.testing.assert_frame_equal(responses.of(word, HEADS, start=start), by_matrix)
    assert not np.allclose(by_matrix["response"], responses.of(CERTAIN, HEADS)["response"], rtol=0.01)


def test_sites_are_put_where_they_are_asked_for():
    """A word stands at its base, or in the middle of each background whatever its length, and nothing else changes."""
    backgrounds = random_codes(31, 40)
    middle = (length_of(backgrounds) - 7) // 2
    for start, expected in ((5, np.full(31, 5)), (None, middle)):
        placed = module._placed(backgrounds, WORD, start, np.random.default_rng(0))
        for row, before, first in zip(placed, backgrounds, expected, strict=True):
            assert np.array_equal(row[first : first + 7], WORD)
            assert np.array_equal(np.delete(row, np.s_[first : first + 7]), np.delete(before, np.s_[first : first + 7]))
    assert set(middle) == {12, 16} and np.array_equal(backgrounds, random_codes(31, 40))


def test_sites_of_a_matrix_are_drawn_for_each_background():
    """Letters are as frequent as the matrix says, differ among backgrounds, and are the same for a seed."""
    backgrounds = random_codes(31, 40)
    ppm = np.tile([[0.5], [0.0], [0.25], [0.25]], 21)
    placed = module._placed(backgrounds, ppm, 5, np.random.default_rng(0))
    letters = np.bincount(placed[:, 5:26].ravel(), minlength=4) / 651
    np.testing.assert_allclose(letters, [0.5, 0, 0.25, 0.25], atol=4 * np.sqrt(0.25 / 651))
    assert len(np.unique(placed[:, 5:26], axis=0)) == 31
    outside = np.r_[0:5, 26:40]
    assert np.array_equal(placed[:, outside], backgrounds[:, outside])
    model = random_model()
    first, again, other = (MotifResponses(model, backgrounds, seed=s).of(ppm, HEADS, start=5) for s in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again)
    assert first["response"][0] != other["response"][0]


def test_backgrounds_that_are_too_short_are_left_out():
    """Only backgrounds that hold the whole motif count, and where none does the table is empty of numbers."""
    model, backgrounds = random_model(), random_codes(31, 40)
    ends = MotifResponses(model, backgrounds).of("GATTACA", HEADS, start=30)
    long = MotifResponses(model, backgrounds[length_of(backgrounds) == 40]).of("GATTACA", HEADS, start=30)
    assert ends["n"].tolist() == [20, 20]
    pd.testing.assert_frame_equal(ends, long)
    assert MotifResponses(model, backgrounds).of("A" * 40, HEADS, start=0)["n"].tolist() == [20, 20]
    nothing = MotifResponses(model, backgrounds[::3]).of("A" * 40, HEADS)
    assert nothing["n"].tolist() == [0, 0] and nothing["note"].tolist() == ["no background holds a motif of 40 bp"] * 2
    assert nothing.columns.tolist() == ends.columns.tolist() and nothing[["layer", "head"]].equals(
        ends[["layer", "head"]]
    )
    assert nothing.drop(columns=["layer", "head", "n", "note"]).isna().all(axis=None)


def test_motifs_asked_for_one_after_the_other_are_independent():
    """What was computed for a motif changes no number of the next, which other backgrounds may be long enough for."""
    model, backgrounds = random_model(), random_codes(31, 40)
    shared = MotifResponses(model, backgrounds)
    asked = [("GATTACA", HEADS), ("A" * 35, HEADS[::-1]), ("CCGG", HEADS[:1]), ("GATTACA", HEADS)]
    n = []
    for word, heads in asked:
        table = shared.of(word, heads)
        pd.testing.assert_frame_equal(table, MotifResponses(model, backgrounds).of(word, heads))
        n.append(table["n"][0])
    assert n == [31, 20, 31, 31]


def test_what_is_no_motif_is_refused():
    """Empty words, letters of padding, matrices that are none, places outside and unknown heads are named."""
    responses = MotifResponses(random_model(), random_codes(31, 40))
    for word, start, message in (
        ("", None, "word of codes"),
        (CERTAIN.T, None, r"got shape \(7, 4\)"),
        (np.array([0, alphabet.PAD], dtype=np.uint8), None, "codes 0 to 4, got 5"),
        ("ACG", 39, "does not fit at 39"),
        ("ACG", -1, "does not fit at -1"),
        (CERTAIN * 2, None, "sum to 1"),
    ):
        with pytest.raises(DataError, match=message):
            responses.of(word, HEADS, start=start)
    with pytest.raises(DataError, match="head L2H0 does not exist"):
        responses.of("ACG", [(0, 0), (2, 0)])
