"""What flows through one head alone, against slow loops and a model that is linear by construction."""

import warnings

import numpy as np
import pytest
import torch
import toy_tokens
from torch import nn
from toy_heads import some_codes

from bioattn.config import ModelConfig, PairTrackConfig, StemConfig, TokenizerConfig
from bioattn.data import alphabet
from bioattn.errors import BioattnWarning, DataError
from bioattn.explain.ism import ism
from bioattn.explain.path_patching import head_restricted_mutagenesis, output_tap, record_pass, rerun, rows_at_once
from bioattn.models import SequenceModel, build_model
from bioattn.nn import taps

SIZES = {"d_model": 12, "n_layers": 2, "n_heads": 3, "d_feedforward": 17, "dropout": 0.0}
#: Models that differ in everything that the way of a substitution depends on.
MODELS = {
    "stem, both strands": {
        "stem": StemConfig(kind="conv", n_filters=5, width=5, pool=3), "reverse_complement": "average",
        "positions": "rope", "pooling": "mean",
    },
    "pairs": {
        "stem": StemConfig(kind="conv", n_filters=5, width=5, pool=3), "trunk": "pair", "positions": "rope",
        "pair": PairTrackConfig(bin_tokens=2, d_pair=5, d_hidden=3, d_pair_head=3),
    },
    "bases, cls": {"stem": StemConfig(kind="none", pool=1), "positions": "learned", "pooling": "cls"},
    "3-mers": {
        "stem": StemConfig(kind="none", pool=1), "tokenizer": TokenizerConfig(kind="kmer", k=3, stride=1),
        "positions": "relative", "pooling": "attention", "reverse_complement": "average",
    },
    "bpe": {
        "stem": StemConfig(kind="none", pool=1), "tokenizer": TokenizerConfig(kind="bpe", vocabulary=40),
        "positions": "sinusoidal", "pooling": "sum",
    },
}  # fmt: skip


def model_of(name: str, **more) -> SequenceModel:
    """Float64 model of two readouts with random weights, d_head of 4 so that rotary positions fit."""
    config = ModelConfig(**(SIZES | MODELS[name] | more))
    words = toy_tokens.BPE if name == "bpe" else None
    model = build_model(config, n_readouts=2, seed=1, tokenizer=words).double().eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model


def tokens_of(codes: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(codes.astype(np.int64))


def slow_effect(model, row: np.ndarray, layer: int, head: int, position: int, letter: int, readout: int) -> float:
    """Effect of one substitution through one head: two whole runs of one sequence, on each strand."""
    mutated = row.copy()
    mutated[position] = letter
    name, total = output_tap(layer), []
    with torch.inference_mode():
        pairs = zip(model.strands(tokens_of(row[None])), model.strands(tokens_of(mutated[None])), strict=True)
        for original, other in pairs:
            with taps.record(model, [name]) as store:
                model.one_strand(other)
            with taps.edit(model, {name: taps.patch(store[name], np.s_[:, head])}):
                patched = model.one_strand(original)
            total.append(float((patched - model.one_strand(original))[0, readout]))
    return float(np.mean(total))


@pytest.mark.parametrize("name", list(MODELS))
def test_a_run_from_a_layer_on_is_the_whole_run(name: str):
    """Edits of one layer or of both give the readouts of the edited whole model, and no edit those of the model."""
    model, tokens = model_of(name), tokens_of(some_codes())
    with torch.inference_mode():
        seen = record_pass(model, tokens)
        torch.testing.assert_close(seen.readouts, model.one_strand(tokens))
        assert rerun(model, seen, {}) is seen.readouts
        for layers in ([0], [1], [0, 1]):
            changes = {layer: taps.zero(np.s_[:, 1 + layer]) for layer in layers}
            with taps.edit(model, {output_tap(layer): change for layer, change in changes.items()}):
                expected = model.one_strand(tokens)
            assert (expected - seen.readouts).abs().min() > 1e-6
            torch.testing.assert_close(rerun(model, seen, changes), expected)
        index = torch.tensor([3, 0, 3])
        kept = rerun(model, seen.rows(index), {1: taps.zero(np.s_[:, 0])})
        torch.testing.assert_close(kept, rerun(model, seen, {1: taps.zero(np.s_[:, 0])})[index])


@pytest.mark.parametrize("name", list(MODELS))
def test_effects_are_those_of_a_slow_loop(name: str, monkeypatch: pytest.MonkeyPatch):
    """Every finite entry is the effect of two whole runs of one sequence, however the mutants are batched."""
    model, codes = model_of(name), some_codes()
    heads = [(1, 2), (0, 1)]
    positions = np.array([[0, 7, 3], [5, -1, 24], [1, 2, 27], [16, 9, 4], [12, -1, -1]])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", BioattnWarning)
        effect = head_restricted_mutagenesis(model, codes, heads, positions, readout=1)
        assert effect.shape == (5, 2, 3, 4) and effect.dtype == np.float32
        monkeypatch.setattr("bioattn.explain.path_patching._BASES", 7 * codes.shape[1])
        assert rows_at_once(codes.shape[1]) == 7
        in_parts = head_restricted_mutagenesis(model, codes, heads, positions, readout=1)
    np.testing.assert_allclose(in_parts, effect, atol=1e-6)
    compared = 0
    for i, h, k, a in np.argwhere(np.isfinite(effect)):
        expected = slow_effect(model, codes[i], *heads[h], positions[i, k], a, 1)
        assert effect[i, h, k, a] == pytest.approx(expected, abs=1e-6)
        compared += abs(expected) > 1e-4
    assert compared > (10 if name == "bpe" else 50)


def test_places_without_a_substitution():
    """Original letters are zero, an unknown base has four effects, and -1 or padding give NaN."""
    model, codes = model_of("bases, cls"), some_codes()
    positions = np.array([[7, 3], [-1, 26], [0, 1], [0, 1], [0, 1]])
    effect = head_restricted_mutagenesis(model, codes, [(0, 0)], positions)[:, 0]
    assert (effect[0, 0] != 0).all() and np.isfinite(effect[0]).all()
    assert effect[0, 1, codes[0, 3]] == 0 and (np.delete(effect[0, 1], codes[0, 3]) != 0).all()
    assert np.isnan(effect[1]).all() and codes[1, 26] == alphabet.PAD
    nothing = head_restricted_mutagenesis(model, codes, [(0, 0)], np.full((5, 2), -1))
    assert nothing.shape == (5, 1, 2, 4) and np.isnan(nothing).all()


def linear_model() -> SequenceModel:
    """One layer, sum pooling, no feed-forward effect, no final normalisation: the readout adds up what heads write."""
    model = model_of("bases, cls", n_layers=1, pooling="sum", positions="rope")
    with torch.no_grad():
        block = model.encoder.layer[0]
        block.feedforward.narrow.weight.zero_()
        block.feedforward.narrow.bias.zero_()
        model.encoder.norm = nn.Identity()
    return model


def test_effects_of_heads_and_the_direct_path_add_up():
    """In a linear model the effects through all heads and past them are the total effect of the substitution."""
    model, codes = linear_model(), some_codes(4, 23)
    positions = np.tile(np.arange(23), (4, 1))
    heads = [(0, h) for h in range(3)]
    through = head_restricted_mutagenesis(model, codes, heads, positions).sum(1)  # (N, L, A)
    with torch.inference_mode():
        # Past the heads: a base's own vector goes straight to the readout.
        letters = torch.cat([model.stem.project.weight.T, torch.zeros(1, 12)]) @ model.readout.weight[0]
        direct = (letters[None, :4] - letters[tokens_of(codes.clip(max=4))][..., None]).numpy()
    total = ism(model, codes).transpose(0, 2, 1)
    real = codes != alphabet.PAD
    assert np.abs(through[real]).max() > 0.05 < np.abs(direct[real]).max()
    np.testing.assert_allclose((through + direct)[real], total[real], atol=1e-5)
    assert np.isnan(through[~real]).all()


def test_a_head_that_writes_nothing_has_no_effect():
    """With a zero output projection a head's effects are zero, those of the others are not."""
    model, codes = model_of("stem, both strands"), some_codes()
    with torch.no_grad():
        model.encoder.layer[0].attn.project_out.weight[:, 4:8] = 0
    positions = np.tile(np.arange(5), (5, 1))
    effect = head_restricted_mutagenesis(model, codes, [(0, 0), (0, 1), (0, 2)], positions)
    assert np.abs(effect[:, 1]).max() < 1e-12
    assert np.abs(effect[:, 0]).max() > 1e-3 < np.abs(effect[:, 2]).max()


def test_substitutions_that_move_words_are_left_out_and_counted():
    """For learned words a substitution has an effect if and only if all words keep their spans; the warning counts."""
    model, codes = model_of("bpe"), alphabet.encode_batch(toy_tokens.related(3, seed=5))
    positions = np.tile(np.arange(6), (3, 1))
    with pytest.warns(BioattnWarning) as caught:
        effect = head_restricted_mutagenesis(model, codes, [(0, 0)], positions)[:, 0]
    moved = 0
    for i, k, a in np.ndindex(3, 6, 4):
        mutated = codes[i : i + 1].copy()
        mutated[0, k] = a
        spans = [torch.stack(model.token_spans(tokens_of(c))) for c in (codes[i : i + 1], mutated)]
        same = spans[0].shape == spans[1].shape and bool((spans[0] == spans[1]).all())
        assert np.isfinite(effect[i, k, a]) == same
        moved += not same
    assert 0 < moved < 3 * 6 * 3
    assert str(caught[0].message).startswith(f"{moved} of {3 * 6 * 3} substitutions")


def test_what_does_not_exist_is_refused():
    """Heads, positions and shapes that do not fit are named in the error."""
    model, codes = model_of("bases, cls"), some_codes()
    places = np.zeros((5, 1), dtype=int)
    with pytest.raises(DataError, match="head L0H3 does not exist"):
        head_restricted_mutagenesis(model, codes, [(0, 3)], places)
    with pytest.raises(DataError, match="0 to 28 .*got -1 to 29"):
        head_restricted_mutagenesis(model, codes, [(0, 0)], np.array([[29], [-1], [0], [0], [0]]))
    with pytest.raises(DataError, match=r"shape \(5, n\)"):
        head_restricted_mutagenesis(model, codes, [(0, 0)], places[:2])
    recurrent = build_model(ModelConfig(encoder="gru", d_model=8, n_layers=1), n_readouts=1)
    with pytest.raises(DataError, match="recurrent"):
        head_restricted_mutagenesis(recurrent, codes, [], places)


def test_the_model_is_left_as_it_was():
    """Nothing hooks into the model after a call, and its readouts are the same."""
    model, codes = model_of("stem, both strands"), some_codes()
    with torch.inference_mode():
        before = model(tokens_of(codes))
        head_restricted_mutagenesis(model, codes, [(1, 1)], np.zeros((5, 1), dtype=int))
        assert not taps.tapped(model) and torch.equal(model(tokens_of(codes)), before)
