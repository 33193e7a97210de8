"""Mutagenesis of single bases: differences of single predictions, whatever else is in the batch.

`test_attribution` compares it with a slow loop over models of every kind.
"""

import numpy as np
import pytest
import torch
from toy_heads import EBOX, USF1, WORDS, padded, random_codes, reading_model, with_ebox, with_sites, word_model

from bioattn.data import alphabet
from bioattn.explain.ism import contribution, importance, ism, ism_table
from bioattn.models import SequenceModel


def readout(model: SequenceModel, text: str) -> float:
    """Readout of one sequence alone, so without padding."""
    with torch.inference_mode():
        return float(model(torch.from_numpy(alphabet.encode(text).astype(np.int64))[None])[0, 0])


def single(model: SequenceModel, codes: np.ndarray, letter: int, position: int) -> float:
    """Difference of two single predictions."""
    text = alphabet.decode(codes)
    return readout(model, text[:position] + "ACGT"[letter] + text[position + 1 :]) - readout(model, text)


def check(model: SequenceModel, codes: np.ndarray, *, every: int) -> np.ndarray:
    """Effects, of which every so many are compared with single predictions."""
    effect = ism(model, codes)
    assert effect.shape == (len(codes), 4, codes.shape[1]) and effect.dtype == np.float32
    real = codes != alphabet.PAD
    assert np.isnan(effect.transpose(0, 2, 1)[~real]).all() and np.isfinite(effect.transpose(0, 2, 1)[real]).all()
    some = np.argwhere(np.isfinite(effect))[::every]
    for row, letter, position in some:
        expected = single(model, codes[row], letter, position)
        assert effect[row, letter, position] == pytest.approx(expected, abs=2e-5), (row, letter, position)
    assert np.nanmax(np.abs(effect)) > 1e-3
    return effect


@pytest.mark.parametrize("pooling", ["cls", "sum"])
@pytest.mark.parametrize("strands", ["none", "average"])
def test_mutagenesis_equals_single_predictions(pooling: str, strands: str):
    """Every entry is the difference of two predictions of a sequence alone; padding is NaN."""
    model = reading_model(USF1, pooling=pooling, reverse_complement=strands)
    check(model, padded(with_sites(USF1, 3, 31, 0), 23), every=7)


@pytest.mark.parametrize("words", list(WORDS))
def test_mutagenesis_of_words_equals_single_predictions(words: str):
    """Also where a substitution changes all words from it on, and with them the number of tokens."""
    model = word_model(words)
    codes = padded(with_ebox(3, 19, 0), 16)
    check(model, codes, every=11)


def test_original_letters_have_no_effect():
    """The letter that is there is zero, while at an unknown base all four letters are substitutions."""
    model, codes = reading_model(USF1, pooling="sum"), with_sites(USF1, 2, 31, 3)
    effect = ism(model, codes)
    assert (np.take_along_axis(effect, codes[:, None].astype(int), axis=1) == 0).all()
    site = np.argmax(importance(effect)[0])
    codes[0, site] = alphabet.UNKNOWN
    unknown = ism(model, codes)[0, :, site]
    assert np.ptp(unknown) > 0
    for letter in range(4):
        assert unknown[letter] == pytest.approx(single(model, codes[0], letter, site), abs=2e-5)


def test_both_strands_are_averaged():
    """With averaged strands effects mirror on the other strand, and are the mean of what each strand has alone."""
    codes = with_sites(USF1, 3, 31, 0)
    other = np.stack([alphabet.reverse_complement_codes(row) for row in codes])
    averaged, alone = (
        reading_model(USF1, pooling="sum", reverse_complement=strands) for strands in ("average", "none")
    )
    effect = ism(averaged, codes)
    np.testing.assert_allclose(ism(averaged, other)[:, ::-1, ::-1], effect, atol=2e-5)
    mirrored = ism(alone, other)[:, ::-1, ::-1]
    np.testing.assert_allclose((ism(alone, codes) + mirrored) / 2, effect, atol=2e-5)
    assert np.abs(ism(alone, codes) - mirrored).max() > 1e-3


def test_a_site_matters_and_the_rest_does_not():
    """Breaking the word that the model reads changes the readout, a base far from it does not."""
    codes = np.full((1, 61), 3, dtype=np.uint8)
    start = 30
    codes[0, start - 2 : start + 8] = alphabet.encode(f"GT{EBOX}AC")  # the best site of the matrix but for one letter
    values = importance(ism(reading_model(USF1), codes))[0]
    inside = values[start : start + 6]
    assert inside.min() > 10 * max(values[: start - 12].max(), values[start + 18 :].max(), 1e-7)


def test_importance_and_contribution():
    """Importance is the root mean square over three substitutions, contributions are effects less their mean."""
    effect = np.array([[[0.0, 1.0], [3.0, 0.0], [0.0, 2.0], [4.0, 2.0]]], dtype=np.float32)
    np.testing.assert_allclose(importance(effect), [[np.sqrt(25 / 3), np.sqrt(3)]], rtol=1e-6)
    found = contribution(effect)
    np.testing.assert_allclose(found[0].T, [[-1.75, 1.25, -1.75, 2.25], [-0.25, -1.25, 0.75, 0.75]], rtol=1e-6)
    np.testing.assert_allclose(found.mean(1), 0, atol=1e-7)
    effect[0, :, 1] = np.nan
    assert np.isnan(importance(effect)[0]).tolist() == [False, True]


def test_table_has_a_row_for_each_base():
    """The table names sequence, position and letter of each base, and holds the effect of each letter there."""
    codes = alphabet.encode_batch(["ACGTCACGTGACCTTG", "ACGTN"])
    effect = np.random.default_rng(0).normal(size=(2, 4, 16)).astype(np.float32)
    table = ism_table(effect, codes, ["x", "y"])
    assert list(table.columns) == ["name", "position", "reference", *"ACGT"]
    assert table.groupby("name").size().to_dict() == {"x": 16, "y": 5}
    assert table["reference"].str.cat() == "ACGTCACGTGACCTTGACGTN"
    for row in table.itertuples():
        n = "xy".index(row.name)
        assert [row.A, row.C, row.G, row.T] == effect[n, :, row.position].tolist()


def test_no_sequence_no_effect():
    """Without sequences there are no effects, and no error."""
    assert ism(reading_model(USF1), random_codes(0, 17, 0)).shape == (0, 4, 17)
