"""Attributions against derivatives, slow loops, an independent library, and what must not change them."""

from functools import partial

import numpy as np
import pytest
import torch
import toy_tokens
from torch import nn
from toy_heads import some_codes

from bioattn.config import ModelConfig, StemConfig, TokenizerConfig
from bioattn.data import alphabet
from bioattn.data.motif import Motif
from bioattn.errors import DataError
from bioattn.explain import attribution, ism
from bioattn.explain.attribution import (
    KINDS,
    _baselines,
    attribution_table,
    attributions,
    head_importance,
    input_x_gradient,
    integrated_gradients,
)
from bioattn.explain.tracks import head_tracks
from bioattn.models import SequenceModel, build_model

SIZES = {"d_model": 12, "n_layers": 2, "n_heads": 3, "d_feedforward": 17, "dropout": 0.0}
#: Models of bases that differ in everything that gradients pass through.
MODELS = {
    "stem, both strands": {
        "stem": StemConfig(kind="conv", n_filters=5, width=5, pool=3), "reverse_complement": "average",
        "positions": "rope", "pooling": "mean",
    },
    "bases, cls": {"stem": StemConfig(kind="none", pool=1), "positions": "learned", "pooling": "cls"},
    "matrices": {
        "stem": StemConfig(kind="pwm", n_filters=2, width=7, pool=4, activation="exp"), "positions": "relative",
        "pooling": "attention", "reverse_complement": "average",
    },
}  # fmt: skip
WORDS = {
    "3-mers": {
        "stem": StemConfig(kind="none", pool=1), "tokenizer": TokenizerConfig(kind="kmer", k=3, stride=1),
        "positions": "relative", "pooling": "cls", "reverse_complement": "average",
    },
    "bpe": {
        "stem": StemConfig(kind="none", pool=1), "tokenizer": TokenizerConfig(kind="bpe", vocabulary=40),
        "positions": "sinusoidal", "pooling": "sum", "reverse_complement": "average",
    },
}  # fmt: skip
RECURRENT = {"encoder": "gru", "positions": "none", "stem": StemConfig(kind="none", pool=1), "pooling": "mean"}


def model_of(name: str, **more) -> SequenceModel:
    """Float64 model of two readouts with random weights."""
    settings = (MODELS | WORDS | {"recurrent": RECURRENT})[name]
    draw = np.random.default_rng(5)
    motifs = [Motif(f"m{w}", "", draw.dirichlet(np.full(4, 0.3), w).T) for w in (6, 9)] if name == "matrices" else []
    words = toy_tokens.BPE if name == "bpe" else None
    model = build_model(ModelConfig(**(SIZES | settings | more)), n_readouts=2, motifs=motifs, seed=1, tokenizer=words)
    generator = torch.Generator().manual_seed(3)
    model = model.double().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return model


class OnLetters(nn.Module):
    """A model as a function of one-hot bases; strands are averaged where the model does so."""

    def __init__(self, model: SequenceModel, codes: np.ndarray) -> None:
        super().__init__()
        self.model = model
        self.real = torch.from_numpy(codes != alphabet.PAD)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        real = self.real.repeat(len(x) // len(self.real), 1)
        strands = [x]
        if self.model.average_strands:
            other = torch.zeros_like(x)
            for i, length in enumerate(real.sum(1).tolist()):
                other[i, :, :length] = x[i, :, :length].flip(0, 1)
            strands.append(other)
        return torch.stack([self.model.tail(*self.model.embed_one_hot(s, real)) for s in strands]).mean(0)


def letters_of(codes: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(alphabet.one_hot(codes)).double()


def own(hypothetical: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Contribution of the base that is there, zero at padding."""
    return np.nansum(hypothetical * alphabet.one_hot(codes), axis=1)


# ----------------------------------------------------------------------- mutagenesis


@pytest.mark.parametrize("name", [*MODELS, *WORDS, "recurrent"])
def test_mutagenesis_equals_a_slow_loop(name: str, monkeypatch: pytest.MonkeyPatch):
    """Every entry is the difference of two whole predictions, however batches fall; padding is NaN."""
    monkeypatch.setattr(ism, "_SEQUENCES", 2)
    monkeypatch.setattr(ism, "_CPU_TOKENS", 211)
    model, codes, done = model_of(name), some_codes(3, 23), []
    effect = ism.ism(model, codes, readout=1, progress=lambda *counts: done.append(counts))
    assert effect.dtype == np.float32 and np.isnan(effect).sum() == 4 * (codes == alphabet.PAD).sum()
    with torch.inference_mode():
        for row, sequence in enumerate(codes):
            length = int((sequence != alphabet.PAD).sum())
            changed = np.repeat(sequence[None], 4 * length, 0)
            changed[np.arange(4 * length), np.arange(4 * length) // 4] = np.arange(4 * length) % 4
            values = model(torch.from_numpy(np.concatenate([sequence[None], changed]).astype(np.int64)))[:, 1]
            expected = (values[1:] - values[0]).view(length, 4).T
            np.testing.assert_allclose(effect[row, :, :length], expected, atol=1e-7)
    total = 3 * sum(int((s < 4).sum()) for s in codes) + 4
    assert done[-1] == (total, total) and [d for d, _ in done] == sorted(d for d, _ in done)


def test_a_narrow_window_reaches_far_enough():
    """Substitutions at both ends of a sequence and at every place inside a token are those of the whole model."""
    model = model_of("matrices", pooling="mean")
    codes = np.random.default_rng(2).integers(0, 4, (1, 43)).astype(np.uint8)
    effect = ism.ism(model, codes)[0]
    with torch.inference_mode():
        original = model(torch.from_numpy(codes.astype(np.int64)))[0, 0]
        for position in (0, 1, 2, 3, 20, 21, 22, 23, 40, 41, 42):
            changed = codes.astype(np.int64).copy()
            changed[0, position] = (changed[0, position] + 1) % 4
            value = model(torch.from_numpy(changed))[0, 0] - original
            assert effect[changed[0, position], position] == pytest.approx(float(value), abs=1e-7)


# ------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("name", MODELS)
def test_slopes_are_derivatives_along_the_simplex(name: str):
    """The difference of two letters' slopes is what a small step from one to the other does; slopes sum to zero."""
    model, codes = model_of(name), some_codes()
    slopes = input_x_gradient(model, codes, readout=1)
    assert slopes.dtype == np.float32 and (np.isnan(slopes) == (codes == alphabet.PAD)[:, None]).all()
    np.testing.assert_allclose(np.nansum(slopes, axis=1), 0, atol=1e-5)
    function, x, step = OnLetters(model, codes), letters_of(codes), 1e-6
    draw = np.random.default_rng(1)
    with torch.inference_mode():
        for _ in range(7):
            row = int(draw.integers(len(codes)))
            position = int(draw.integers((codes[row] != alphabet.PAD).sum()))
            a, b = draw.choice(4, 2, replace=False)
            up, down = x.clone(), x.clone()
            for moved, sign in ((up, 1), (down, -1)):
                moved[row, a, position] += sign * step
                moved[row, b, position] -= sign * step
            slope = float((function(up) - function(down))[row, 1]) / (2 * step)
            assert slopes[row, a, position] - slopes[row, b, position] == pytest.approx(slope, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_gradients_are_those_of_captum(name: str):
    """Slopes and contributions are captum's saliency and input x gradient, less the mean over letters."""
    captum = pytest.importorskip("captum.attr")
    model, codes = model_of(name), some_codes()
    function, x = OnLetters(model, codes), letters_of(codes)
    slopes = captum.Saliency(function).attribute(x.clone().requires_grad_(), target=1, abs=False).detach().numpy()
    mean = slopes.mean(1, keepdims=True)
    found = np.nan_to_num(input_x_gradient(model, codes, readout=1))
    np.testing.assert_allclose(found, np.where((codes == alphabet.PAD)[:, None], 0, slopes - mean), atol=1e-5)
    product = captum.InputXGradient(function).attribute(x.clone().requires_grad_(), target=1).detach().numpy()
    expected = (product - mean * alphabet.one_hot(codes)).sum(1)
    np.testing.assert_allclose(own(found, codes), expected, atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_integrated_gradients_are_those_of_captum(name: str):
    """From the same baseline with the same steps each base contributes what captum gives to its letters in all."""
    captum = pytest.importorskip("captum.attr")
    model, codes = model_of(name), some_codes()
    x, function = letters_of(codes), OnLetters(model, codes)
    start = letters_of(np.where(codes < 4, (codes + 1) % 4, codes))  # unknown bases stay unknown
    expected = captum.IntegratedGradients(function).attribute(
        x.clone(), baselines=start, target=1, n_steps=7, method="gausslegendre"
    )
    found = integrated_gradients(model, codes, readout=1, steps=7, baseline=start.numpy())
    np.testing.assert_allclose(own(found, codes), expected.sum(1).numpy(), atol=1e-5)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("baseline", ["shuffled", "uniform", "zero"])
def test_integrated_gradients_are_complete(name: str, baseline: str):
    """Contributions of a sequence sum up to what it has beyond its baseline; the error falls with the steps.

    Slowly where the model has edges (max pooling, ReLU), to nothing where it is smooth.
    """
    model, codes = model_of(name), some_codes()
    function, x = OnLetters(model, codes), letters_of(codes)
    known = x.sum(1, keepdim=True)
    with torch.inference_mode():
        starts = [torch.from_numpy(b).double() * known for b in _baselines(codes, baseline, 2, 11)]
        assert len(starts) == (2 if baseline == "shuffled" else 1) and (starts[0] != starts[-1]).any() == (
            baseline == "shuffled"
        )
        base = torch.stack([function(start) for start in starts]).mean(0)
        expected = (function(x) - base)[:, 1].numpy()
    errors = []
    for steps in (1, 8, 64):
        found = integrated_gradients(model, codes, readout=1, steps=steps, baseline=baseline, draws=2, seed=11)
        assert found.dtype == np.float32 and (np.isnan(found) == (codes == alphabet.PAD)[:, None]).all()
        errors.append(np.abs(own(found, codes).sum(1) - expected).max())
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.05 * errors[0]
    assert name != "bases, cls" or errors[2] < 1e-6


def test_what_all_letters_share_says_nothing():
    """A model whose slopes are higher for all letters alike, but with the same readouts, gets the same attributions."""
    model, codes = model_of("bases, cls"), some_codes()
    codes[codes == alphabet.UNKNOWN] = 2
    before = [input_x_gradient(model, codes)]
    before += [integrated_gradients(model, codes, baseline=kind, steps=3) for kind in ("shuffled", "uniform")]
    raw = integrated_gradients(model, codes, baseline="zero", steps=3)
    with torch.no_grad():
        shift = torch.randn(12, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        model.stem.project.weight += shift[:, None]
        model.stem.project.bias -= shift
    after = [input_x_gradient(model, codes)]
    after += [integrated_gradients(model, codes, baseline=kind, steps=3) for kind in ("shuffled", "uniform")]
    for one, other in zip(before, after, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    assert np.nanmax(np.abs(raw - integrated_gradients(model, codes, baseline="zero", steps=3))) > 0.01


def test_hypothetical_contributions_are_against_the_baseline():
    """A letter that is the baseline's contributes nothing; from even letters the four contributions sum to zero."""
    model, codes = model_of("stem, both strands"), some_codes()
    start = np.where(codes < 4, 3 - codes, codes)
    found = integrated_gradients(model, codes, steps=3, baseline=alphabet.one_hot(start))
    assert np.abs(own(found, start)).max() < 1e-6
    even = integrated_gradients(model, codes, steps=3, baseline="uniform")
    np.testing.assert_allclose(np.nansum(even, axis=1), 0, atol=1e-5)


@pytest.mark.parametrize("name", ["stem, both strands", "matrices", "3-mers", "bpe"])
def test_the_other_strand_gets_the_same_attribution(name: str):
    """A model that averages strands gives a base and its partner on the other strand the same."""
    model, codes = model_of(name), some_codes()
    other = np.full_like(codes, alphabet.PAD)
    for row, sequence in enumerate(codes):
        length = int((sequence != alphabet.PAD).sum())
        other[row, :length] = alphabet.reverse_complement_codes(sequence[:length])
    pairs = list(zip(head_importance(model, codes), head_importance(model, other), strict=True))
    if name in MODELS:
        pairs.append((input_x_gradient(model, codes)[:, 1], input_x_gradient(model, other)[:, 2]))
        even = (integrated_gradients(model, c, baseline="uniform", steps=3) for c in (codes, other))
        pairs.append(tuple(values[:, letter] for values, letter in zip(even, (1, 2), strict=True)))
    for given, turned in pairs:
        for row, sequence in enumerate(codes):
            length = int((sequence != alphabet.PAD).sum())
            np.testing.assert_allclose(given[row, :length], turned[row, :length][::-1], rtol=1e-4, atol=1e-5)
            assert np.isnan(given[row, length:]).all() and np.abs(given[row, :length]).max() > 1e-3


def test_padding_and_batches_change_nothing(monkeypatch: pytest.MonkeyPatch):
    """A sequence's attribution does not depend on its batch mates nor on how far it is padded."""
    model, codes = model_of("stem, both strands"), some_codes()
    together = [input_x_gradient(model, codes), integrated_gradients(model, codes, steps=3, baseline="uniform")]
    monkeypatch.setattr(attribution, "BATCH", 2)
    apart = [input_x_gradient(model, codes), integrated_gradients(model, codes, steps=3, baseline="uniform")]
    for one, other in zip(together, apart, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    alone = codes[3:4, : int((codes[3] != alphabet.PAD).sum())]
    np.testing.assert_allclose(input_x_gradient(model, alone)[0], together[0][3, :, : alone.shape[1]], atol=1e-6)


# ------------------------------------------------------------------------- all kinds


@pytest.mark.parametrize("name", [*MODELS, *WORDS])
def test_heads_give_bases_what_tokens_got(name: str):
    """Projection onto bases conserves what all heads give to a sequence's tokens, on one strand."""
    model, codes = model_of(name, reverse_complement="none"), some_codes()
    tracks = head_tracks(model, codes)
    for found, track in zip(head_importance(model, codes), (tracks.received, tracks.gradient), strict=True):
        assert found.dtype == np.float32 and (np.isnan(found) == (codes == alphabet.PAD)).all()
        np.testing.assert_allclose(np.nansum(found, axis=1), np.nansum(track, axis=(1, 2)), rtol=1e-4, atol=1e-5)


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch):
    """Integrated gradients of two steps from one baseline, as their precision is tested elsewhere."""
    monkeypatch.setattr(attribution, "integrated_gradients", partial(integrated_gradients, steps=2, draws=1))


def test_all_kinds_come_with_signs_of_the_base_that_is_there(few_steps):
    """Columns are the contributions of the bases that stand in the sequence, by kind; the table has one row a base."""
    model, codes = model_of("stem, both strands"), some_codes()
    effect = ism.ism(model, codes, readout=1)
    found = attributions(model, codes, effect, readout=1, seed=4)
    assert tuple(found.values) == KINDS and not found.left_out
    expected = {
        "received_sum": head_importance(model, codes, readout=1)[0],
        "gradient_sum": head_importance(model, codes, readout=1)[1],
        "input_x_gradient": own(input_x_gradient(model, codes, readout=1), codes),
        "integrated_gradients": own(integrated_gradients(model, codes, readout=1, seed=4, steps=2, draws=1), codes),
        "ism": own(effect - effect.mean(1, keepdims=True), codes),
    }
    real = codes != alphabet.PAD
    for kind, values in found.values.items():
        assert np.isnan(values[~real]).all()
        np.testing.assert_array_equal(values[real], expected[kind][real].astype(np.float32))
    table = attribution_table(found, codes, list("vwxyz"))
    assert list(table.columns) == ["name", "position", "reference", *KINDS] and len(table) == real.sum()
    assert table[table["name"] == "w"]["reference"].str.cat() == alphabet.decode(codes[1])
    assert table["reference"].iloc[7] == "N" and table["ism"].iloc[7] == 0
    last = table[table["name"] == "z"].iloc[-1]
    assert last["gradient_sum"] == found.values["gradient_sum"][4, last["position"]]


@pytest.mark.parametrize(
    "name, missing",
    [
        ("3-mers", {"input_x_gradient", "integrated_gradients"}),
        ("bpe", {"input_x_gradient", "integrated_gradients"}),
        ("recurrent", {"received_sum", "gradient_sum"}),
    ],
)
def test_kinds_that_a_model_does_not_have_are_named(name: str, missing: set[str], few_steps):
    """Looked-up words have no gradient with respect to bases and recurrent networks no heads; the rest is there."""
    model, codes = model_of(name), some_codes(3, 23)
    found = attributions(model, codes, ism.ism(model, codes))
    assert set(found.left_out) == missing and set(found.values) == set(KINDS) - missing
    assert all("looked up" in reason or "no attention" in reason for reason in found.left_out.values())
    if name in WORDS:
        with pytest.raises(DataError, match="use mutagenesis"):
            input_x_gradient(model, codes)
        with pytest.raises(DataError, match="use mutagenesis"):
            integrated_gradients(model, codes)


def test_mistakes_are_named():
    """Wrong readouts, baselines and counts end in an error that says what is allowed."""
    model, codes = model_of("bases, cls"), some_codes()
    for call in (input_x_gradient, integrated_gradients):
        with pytest.raises(DataError, match="readout 2 does not exist: this model has 2"):
            call(model, codes, readout=2)
        with pytest.raises(DataError, match="no sequence"):
            call(model, codes[:0])
    with pytest.raises(DataError, match="must be one of shuffled, uniform, zero"):
        integrated_gradients(model, codes, baseline="mean")
    with pytest.raises(DataError, match=r"shape of the one-hot sequences \(5, 4, 29\), got \(4, 29\)"):
        integrated_gradients(model, codes, baseline=np.zeros((4, 29)))
    with pytest.raises(DataError, match="got 0 and 4"):
        integrated_gradients(model, codes, steps=0)
    with pytest.raises(DataError, match="no attention"):
        head_importance(model_of("recurrent"), codes)
