"""Tracks of heads: equal to what a tapped pattern and autograd give, and what shuffled sequences explain of them."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from toy_attention import hooks, toy_model
from toy_heads import expected_received
from toy_tokens import BPE, related

from bioattn.config import MaskConfig, ModelConfig, StemConfig, TokenizerConfig
from bioattn.data import alphabet
from bioattn.data.motif import Motif
from bioattn.errors import DataError
from bioattn.explain import tracks
from bioattn.explain.tracks import (
    Places,
    expectation,
    head_tracks,
    shuffled,
    token_places,
)
from bioattn.models import SequenceModel, build_model
from bioattn.nn import reverse, sums, taps
from bioattn.nn.observe import attention_sums
from bioattn.tokens import KmerTokenizer

NO_STEM = StemConfig(kind="none", pool=1)
#: Settings of models: every kind of token, prefix, bias, mask, kernel and strand.
MODELS = {
    "stem, cls, two strands": {"pooling": "cls", "reverse_complement": "average", "positions": "rope"},
    "relative": {"positions": "relative", "pooling": "cls"},
    "window": {"backend": "local", "mask": MaskConfig(window=2), "positions": "rope", "pooling": "mean"},
    "masked, fused": {"mask": MaskConfig(window=2), "positions": "rope", "pooling": "mean"},
    "alibi": {"positions": "alibi", "pooling": "mean"},
    "reference": {"backend": "reference", "positions": "sinusoidal", "pooling": "attention"},
    "checkpointing": {"checkpointing": True, "positions": "none", "stem": NO_STEM},
    "3-mers": {"tokenizer": TokenizerConfig(kind="kmer", k=3, stride=3), "stem": NO_STEM, "positions": "rope"},
    "4-mers": {"tokenizer": TokenizerConfig(kind="kmer", k=4, stride=1), "stem": NO_STEM, "pooling": "cls"},
    "bpe": {"tokenizer": TokenizerConfig(kind="bpe"), "stem": NO_STEM, "pooling": "cls", "positions": "rope"},
}
#: Sequences of different lengths, so that most are padded.
CODES = alphabet.encode_batch(["ACGTTGCAAGCTTACGGATCCATTGCAGGATAC", "GATTACAGATTAC", "ACCA", "CACGTGTATAATGGCNTTGACA"])


def model_of(kind: str, **more) -> SequenceModel:
    settings = MODELS[kind] | more
    if kind != "bpe":
        return toy_model(**settings)
    model = build_model(
        ModelConfig(**({"d_model": 12, "n_layers": 2, "n_heads": 3, "d_feedforward": 17, "dropout": 0.0} | settings)),
        n_readouts=2,
        tokenizer=BPE,
    )
    return model.double().eval()


def by_definition(model: SequenceModel, codes: np.ndarray, readout: int) -> list[Tensor]:
    """The three tracks from whole patterns and their gradients, tokens before the sequence left out."""
    names = [f"layer.{i}.attn.pattern" for i in range(model.n_layers)]
    batch = torch.from_numpy(codes.astype(np.int64))
    with taps.record(model, names) as store:
        value = model.one_strand(batch)[:, readout].sum()
    patterns = [store[name] for name in names]
    weighted = [p * g for p, g in zip(patterns, torch.autograd.grad(value, patterns), strict=True)]
    real = torch.nn.functional.pad(model.real_tokens(batch), (model.n_prefix, 0), value=True)
    found = [
        [(p * real[:, None, :, None]).sum(2) for p in patterns],
        [x.sum(2) for x in weighted],
        [x.sum(3) for x in weighted],
    ]
    return [torch.cat(x, 1).masked_fill(~real[:, None], np.nan)[..., model.n_prefix :].detach() for x in found]


@pytest.mark.filterwarnings("ignore::bioattn.errors.BioattnWarning")
@pytest.mark.parametrize("kind", MODELS)
def test_tracks_are_those_of_the_pattern_and_its_gradient(kind: str, monkeypatch: pytest.MonkeyPatch):
    """Values and outputs times their gradients are sums of pattern times gradient, over several batches."""
    monkeypatch.setattr(tracks, "_BATCH_TOKENS", 70)  # two sequences at a time
    model = model_of(kind)
    for readout in (0, 1):
        expected = by_definition(model, CODES, readout)
        for found, exact in zip(head_tracks(model, CODES, readout=readout), expected, strict=True):
            assert found.dtype == np.float32 and found.shape == exact.shape and found.shape[:2] == (4, 6)
            np.testing.assert_allclose(found, exact.numpy(), rtol=2e-6, atol=1e-7)
    assert (
        np.isnan(found[2]).any() and not np.isnan(found[2, :, 0]).any() and expected[1].nan_to_num().abs().max() > 1e-3
    )


def test_received_is_that_of_attention_sums_with_or_without_gradients():
    """One pass gives what the function for it alone gives; without gradients the other tracks are left out."""
    model = model_of("stem, cls, two strands")
    summed = attention_sums(model, torch.from_numpy(CODES.astype(np.int64))).received[..., 1:].flatten(1, 2)
    without = head_tracks(model, CODES, gradients=False)
    assert without.gradient is None and without.output is None
    for received in (without.received, head_tracks(model, CODES).received):
        np.testing.assert_allclose(received, summed, rtol=1e-6)


def test_reading_and_being_read_add_up_to_the_same():
    """Per head and sequence both weighted tracks sum up to the sum of pattern times gradient, all tokens counted."""
    for kind in ("3-mers", "relative", "window"):
        model = model_of(kind, pooling="mean")
        found = head_tracks(model, CODES)
        np.testing.assert_allclose(np.nansum(found.gradient, 2), np.nansum(found.output, 2), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("kind", MODELS)
def test_padding_and_batch_mates_change_nothing(kind: str):
    """The tracks of a sequence alone, without padding, are its tracks among longer ones."""
    model = model_of(kind)
    together = head_tracks(model, CODES)
    for i, row in enumerate(CODES):
        alone = head_tracks(model, row[None, : (row != alphabet.PAD).sum()])
        for one, many in zip(alone, together, strict=True):
            n = one.shape[2]
            np.testing.assert_allclose(many[i, :, :n], one[0], rtol=1e-5, atol=1e-7)
            assert np.isnan(many[i, :, n:]).all()


@pytest.mark.parametrize("kind", ["stem, cls, two strands", "relative"])
def test_a_head_that_the_readout_does_not_depend_on_has_zeros(kind: str):
    """With its output projected to nothing a head's weighted tracks are zero and no other's are; it still reads."""
    model = model_of(kind, pooling="mean")
    with torch.no_grad():
        model.encoder.layer[1].attn.project_out.weight[:, 4:8] = 0  # head 1
    found = head_tracks(model, CODES)
    for track in (found.gradient, found.output):
        largest = np.nanmax(np.abs(track), axis=(0, 2))
        assert largest[4] == 0 and (np.delete(largest, 4) > 1e-6).all()
    assert np.nanstd(found.received[:, 4]) > 0.01


def test_a_readout_that_depends_on_no_token_has_zeros():
    """A readout of weight zero has weighted tracks of zero, and the same attention."""
    model = model_of("reference")
    with torch.no_grad():
        model.readout.weight[1] = 0
    found = head_tracks(model, CODES, readout=1)
    assert np.nanmax(np.abs(found.gradient)) == np.nanmax(np.abs(found.output)) == 0
    np.testing.assert_array_equal(found.received, head_tracks(model, CODES).received)


@pytest.mark.parametrize("size", [1.0, 12.0])
def test_float32_is_exact_for_scores_of_any_size(size: float, monkeypatch: pytest.MonkeyPatch):
    """In float32 tracks are close to those in float64, also where queries and keys are very large."""
    model = model_of("3-mers")
    with torch.no_grad():
        for block in model.encoder.layer:
            block.attn.project_in.weight[:24] *= size
            block.attn.project_in.bias[:24] *= size
    if size > 1:  # what the gradient finds on its way would not be exact
        monkeypatch.setattr(tracks, "Reverse", None)
    exact, found = by_definition(model, CODES, 0), head_tracks(model.float(), CODES)
    for one, other in zip(found, exact, strict=True):
        largest = other.nan_to_num().abs().amax().item()
        np.testing.assert_allclose(one, other, rtol=0, atol=(1e-5 if size == 1 else 2e-3) * largest)


@pytest.mark.parametrize("trainable", [True, False])
def test_the_model_is_left_as_it_was(trainable: bool):
    """Weights, their gradients and wish for one, hooks and mode are as before; frozen models have tracks too."""
    model = model_of("stem, cls, two strands").requires_grad_(trainable).train()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    expected = by_definition(model.requires_grad_(True), CODES, 0)
    model.requires_grad_(trainable)
    with torch.inference_mode(False):
        found = head_tracks(model, CODES)
    np.testing.assert_allclose(found.gradient, expected[1], rtol=1e-5, atol=1e-7)
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    assert all(p.grad is None and p.requires_grad == trainable for p in model.parameters())
    assert hooks(model) == 0 and model.training


def test_weights_get_no_gradient_and_layers_run_once(monkeypatch: pytest.MonkeyPatch):
    """A batch takes one forward pass; only the first layer's keys need one more fused call, the rest is reused."""
    model, run, calls = model_of("stem, cls, two strands"), [], []
    model.encoder.layer[1].register_forward_hook(lambda *_: run.append(1))
    weight = model.encoder.layer[1].feedforward.widen.weight
    weight.register_hook(lambda grad: run.append("weight"))
    fused = sums._softmax_over
    monkeypatch.setattr(sums, "_softmax_over", lambda *x, **more: calls.append(1) or fused(*x, **more))
    head_tracks(model, CODES)
    assert run == [1] and len(calls) == 1
    calls.clear()
    head_tracks(model, CODES, gradients=False)
    assert len(calls) == 2 * model.n_layers


class Largest(TorchDispatchMode):
    """Numbers in the largest tensor that any operation returns while open."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for x in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(x, Tensor):
                self.numbers = max(self.numbers, x.numel())
        return result


def test_no_pattern_is_ever_held(monkeypatch: pytest.MonkeyPatch):
    """Neither pass has a tensor above a layer's projections and a block of scores, whatever the number of sequences."""
    monkeypatch.setattr(tracks, "_BATCH_TOKENS", 2 * 307)
    monkeypatch.setattr(reverse, "_BLOCK_SCORES", 307 * 20)
    model = model_of("checkpointing")
    codes = np.random.default_rng(0).integers(0, 4, (7, 307)).astype(np.uint8)
    with Largest() as largest:
        head_tracks(model, codes)
    joined = 7 * 6 * 307  # a track of all sequences and heads
    assert 0 < largest.numbers <= max(2 * 307 * 3 * 12, 2 * 307 * 20, joined) < 2 * 3 * 307**2 / 10


def test_wrong_requests_are_refused():
    """A model without attention, a readout that does not exist, and no sequences are named."""
    with pytest.raises(DataError, match="this model has no attention layers"):
        head_tracks(build_model(ModelConfig(encoder="lstm"), n_readouts=1), CODES)
    for readout in (2, -1):
        with pytest.raises(DataError, match=f"readout {readout} does not exist: this model has 2, numbered 0 to 1"):
            head_tracks(model_of("reference"), CODES, readout=readout)
    with pytest.raises(DataError, match="there is no sequence to look at"):
        head_tracks(model_of("reference"), CODES[:0])


# ------------------------------------------------------------------- expectation


def sequences(n: int, length: int, seed: int, *, gc: float = 0.5) -> np.ndarray:
    """Random codes (n, length) of a GC share, a third of them a fifth shorter."""
    draw = np.random.default_rng(seed)
    p = [(1 - gc) / 2, gc / 2, gc / 2, (1 - gc) / 2]
    codes = draw.choice(4, (n, length), p=p).astype(np.uint8)
    codes[::3, length - length // 5 :] = alphabet.PAD
    return codes


def neighbourhood(codes: np.ndarray, places: Places) -> np.ndarray:
    """GC share and CpG share of 30 bp around tokens, and GC share of sequences, (N, t, 3), one token at a time."""
    found = np.zeros((*places.start.shape, 3))
    for n, row in enumerate(codes):
        text = alphabet.decode(row[row != alphabet.PAD])
        for t in np.flatnonzero(places.real[n]):
            middle = min(int(places.centre[n, t]), len(text))
            low, high = max(middle - 15, 0), min(middle + 15, len(text))
            cpg = sum(text[i : i + 2] == "CG" for i in range(low, high))
            around = text[low:high]
            found[n, t] = [
                sum(around.count(x) for x in "CG") / max(high - low, 1),
                cpg / max(high - low, 1),
                sum(text.count(x) for x in "CG") / len(text),
            ]
    return found


#: Models whose tokens are those of the expectation; only where tokens lie is asked of them.
TOKENS = {
    "pool": toy_model(),
    "words": toy_model(tokenizer=TokenizerConfig(kind="kmer", k=4, stride=1), stem=NO_STEM),
    "bpe": model_of("bpe"),
}


def made_up(codes: np.ndarray, places: Places, *, by_place: bool = True) -> np.ndarray:
    """A track of two heads that place and composition explain, NaN at padding."""
    x = neighbourhood(codes, places)
    heads = []
    for slopes in ([3.0, -8.0, 1.0], [-2.0, 5.0, -4.0]):
        # Of learned words, what a token gets by its place is the sum over its bases.
        place = 1 + np.sin(places.start / 7) if places.on_grid else places.end - places.start
        heads.append(place * by_place + x @ np.array(slopes))
    return np.where(places.real[:, None], np.stack(heads, axis=1), np.nan).astype(np.float32)


@pytest.mark.parametrize("kind", TOKENS)
def test_what_place_and_composition_explain_is_no_excess(kind: str):
    """A track made of them has no excess in other shuffles, nor in sequences of other GC, and no residual."""
    model, length = TOKENS[kind], 83
    codes = shuffled(sequences(61, length, 0), 5)
    expected = expectation(made_up(codes, token_places(model, codes)), codes, token_places(model, codes))
    assert (expected.sd < 1e-3).all()
    for gc in (0.5, 0.25, 0.75):
        other = sequences(11, length, 1, gc=gc)
        places = token_places(model, other)
        track = made_up(other, places)
        excess = expected.excess(track, other, places)
        assert np.array_equal(np.isnan(excess), np.isnan(track)) and excess.dtype == np.float32
        np.testing.assert_allclose(np.nan_to_num(excess), 0, atol=2e-3)
        assert np.nanstd(track[:, 0]) > 0.5 if kind == "pool" else np.nanstd(track[:, 0]) > 0.1


def test_without_the_composition_term_gc_would_be_an_excess():
    """The same track against its mean by place alone has a large excess in sequences of other GC."""
    model = TOKENS["pool"]
    codes = shuffled(sequences(61, 83, 0), 5)
    expected = expectation(made_up(codes, token_places(model, codes)), codes, token_places(model, codes))
    other = sequences(11, 83, 1, gc=0.75)
    places = token_places(model, other)
    bare = expected._replace(slope=np.zeros_like(expected.slope))
    assert np.nanmean(bare.excess(made_up(other, places), other, places)[:, 0]) > 0.2


@pytest.mark.parametrize("kind", TOKENS)
def test_excess_over_sd_is_a_z_score(kind: str):
    """With noise added, `sd` is that of the noise per head, and z has variance one in other shuffles."""
    model, draw, noise = TOKENS[kind], np.random.default_rng(3), np.array([0.3, 2.0])
    found = []
    for seed in (0, 1):
        codes = shuffled(sequences(97, 61, seed), 5)
        places = token_places(model, codes)
        track = made_up(codes, places)
        found.append((track + noise[:, None] * draw.normal(size=track.shape).astype(np.float32), codes, places))
    expected = expectation(*found[0])
    np.testing.assert_allclose(expected.sd, noise, rtol=0.05)
    z = expected.excess(*found[1]) / expected.sd[:, None]
    np.testing.assert_allclose(np.nanstd(z, axis=(0, 2)), 1, rtol=0.05)


def test_sequences_longer_than_the_shuffles_have_no_expectation_there():
    """Beyond the longest shuffled sequence the excess is NaN, and before it is what it was."""
    for kind, model in TOKENS.items():
        codes = shuffled(sequences(23, 41, 0), 5)
        expected = expectation(made_up(codes, token_places(model, codes)), codes, token_places(model, codes))
        longer = sequences(7, 67, 1)
        places = token_places(model, longer)
        excess = expected.excess(made_up(longer, places), longer, places)
        inside = places.real & (places.end <= 39)
        assert np.isfinite(excess.transpose(0, 2, 1)[inside]).all(), kind
        assert np.isnan(excess.transpose(0, 2, 1)[places.start >= 42]).all(), kind


def test_a_head_that_reads_places_only_has_no_excess():
    """A real model whose tokens all look alike attends by place alone: no excess, in sequences of any composition."""
    model = toy_model(positions="sinusoidal").float()
    with torch.no_grad():
        model.stem.project.weight.zero_()
    codes = sequences(31, 83, 0)[1::3]
    expected = expected_received(model, codes, seed=0)
    other = sequences(13, 83, 1, gc=0.8)[1::3]
    received = head_tracks(model, other, gradients=False).received
    excess = expected.excess(received, other, token_places(model, other))
    assert np.abs(excess).max() < 1e-4 and received.std() > 0.05


MOTIF = Motif("TGACGTCA", "CRE", np.where(alphabet.one_hot(alphabet.encode("TGACGTCA")[None])[0] > 0, 0.94, 0.02))


def reading_model() -> SequenceModel:
    """Model whose only head attends to tokens of 5 bp that hold the motif: its weights are set by hand."""
    config = ModelConfig(
        stem=StemConfig(kind="pwm", n_filters=1, width=1, pool=5),
        d_model=4, n_layers=1, n_heads=1, d_feedforward=4, positions="none", dropout=0.0,
    )  # fmt: skip
    model = build_model(config, n_readouts=1, motifs=[MOTIF], seed=0).eval()
    with torch.no_grad():
        attn = model.encoder.layer[0].attn
        for parameter in (model.stem.project.weight, attn.project_in.weight, attn.project_in.bias):
            parameter.zero_()
        # After normalisation a token with the motif is (+, -, 0, 0) and one without (-, +, 0, 0).
        model.stem.project.weight[:, 0] = torch.tensor([4.0, -4.0, 0.0, 0.0])
        model.stem.project.bias.copy_(torch.tensor([-1.0, 1.0, 0.0, 0.0]))
        attn.project_in.bias[0] = 4.0  # every query asks
        attn.project_in.weight[4, 0] = 1.0  # a key answers with the motif
    return model


def test_a_planted_motif_stands_out():
    """The head's motif has the highest z-score of its sequence, far above what shuffles of these sequences have."""
    model, draw = reading_model(), np.random.default_rng(0)
    codes = draw.integers(0, 4, (67, 85)).astype(np.uint8)
    start = draw.integers(0, 85 - 8, len(codes))
    for row, at in zip(codes, start, strict=True):
        row[at : at + 8] = alphabet.encode("TGACGTCA")
    expected = expected_received(model, codes, seed=0)
    places = token_places(model, codes)
    received = head_tracks(model, codes, gradients=False).received
    z = (expected.excess(received, codes, places) / expected.sd[:, None])[:, 0]
    top = z.argmax(1)
    every = np.arange(len(codes))
    near = (places.start[every, top] < start + 8) & (places.end[every, top] > start)
    assert near.mean() > 0.9 and np.median(z.max(1)) > 5
    null = shuffled(codes, 1, "others")
    lower = expected.excess(head_tracks(model, null, gradients=False).received, null, token_places(model, null))
    assert np.median((lower / expected.sd[:, None]).max((1, 2))) < np.median(z.max(1)) / 2


def test_shuffles_keep_lengths_and_pairs():
    """A shuffled sequence has its own length, ends and neighbouring pairs, and the input is left alone."""
    codes = alphabet.encode_batch([*related(13), "ACGTN" * 9])
    before = codes.copy()
    other = shuffled(codes, 0, "any")
    assert np.array_equal(codes, before) and np.array_equal(other == alphabet.PAD, codes == alphabet.PAD)
    for a, b in zip(codes, other, strict=True):
        pairs = [np.bincount(x[:-1].astype(int) * 6 + x[1:], minlength=36) for x in (a, b)]
        assert np.array_equal(*pairs) and a[0] == b[0]
    assert (codes != other).any(1).mean() > 0.8


def test_overlapping_words_lie_in_steps_of_one():
    """Tokens of 4-mers begin at every base; the centre of a token is the middle of its span."""
    model = TOKENS["words"]
    assert isinstance(model.tokenizer, KmerTokenizer)
    places = token_places(model, CODES[:1])
    n = int(places.real.sum())
    assert np.array_equal(places.start[0, :n], np.arange(n))
    assert np.array_equal(places.centre[0, : n - 3], places.start[0, : n - 3] + 2)
