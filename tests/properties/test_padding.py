"""Padding: whatever it holds and however much there is of it, real tokens, loss and gradients are the same."""

from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from toy_attention import KERNELS, draw, randomised, small_blocks, toy_encoder, toy_model

from bioattn.config import MaskConfig, StemConfig
from bioattn.data import alphabet
from bioattn.nn import backends, blocks, encoder
from bioattn.nn.encoder import POSITIONS, Encoder
from bioattn.nn.readouts import pooling
from bioattn.tokens import nucleotide

POOLINGS = ("mean", "sum", "attention", "cls")
D = 12

kernels = st.sampled_from(KERNELS)
lengths = st.lists(st.integers(1, 17), min_size=1, max_size=3)
#: What padded tokens may hold; hypothesis mixes NaN, infinities, zeros and huge numbers.
fillers = st.lists(st.floats(width=32), min_size=1, max_size=5)


@pytest.fixture(autouse=True, scope="module")
def several_blocks():
    """Let sequences of these tests span several blocks of the local backend."""
    with pytest.MonkeyPatch.context() as patch:
        small_blocks(patch)
        yield


class Step(NamedTuple):
    """What a training step sees: encoded real tokens, loss, and the gradients of all parameters."""

    real: Tensor
    loss: Tensor
    gradients: list[Tensor]


def padded(lengths: list[int], more: int, filler: list[float]) -> tuple[Tensor, Tensor]:
    """Tokens (B, L, D) and which are real; padded to the longest and `more` with numbers that repeat."""
    longest = max(lengths) + more
    keep = torch.arange(longest) < torch.tensor(lengths)[:, None]
    number = torch.arange(len(lengths) * longest * D).view(len(lengths), longest, D)
    x = torch.tensor(filler, dtype=torch.float64)[number % len(filler)]
    for i, n in enumerate(lengths):
        x[i, :n] = draw(n, D, seed=i)
    return x, keep


def step(model: Encoder, pool: nn.Module, x: Tensor, keep: Tensor | None) -> Step:
    """A step with a loss that weights every pooled number differently."""
    hidden = model(x, keep=keep)
    pooled = pool(hidden, keep=keep)
    loss = (pooled * draw(*pooled.shape, seed=5)).sum()
    parameters = [*model.parameters(), *pool.parameters()]
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    gradients = [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found, strict=True)]
    real = hidden.flatten(0, 1) if keep is None else hidden[keep]
    return Step(real.detach(), loss.detach(), gradients)


def tensors(result: Step) -> list[Tensor]:
    return [result.real, result.loss, *result.gradients]


@settings(max_examples=100, deadline=None)
@given(
    kernel=kernels,
    positions=st.sampled_from(POSITIONS),
    pool=st.sampled_from(POOLINGS),
    lengths=lengths,
    more=st.integers(0, 13),
    fillers=st.tuples(fillers, fillers),
    training=st.booleans(),
)
def test_what_padding_holds_changes_nothing(kernel, positions, pool, lengths, more, fillers, training: bool):
    """Real tokens, loss and gradients are equal to the last bit and finite, be padding zero, huge, infinite or NaN."""
    model = toy_encoder(*kernel, positions=positions).train(training)
    pool = randomised(pooling(pool, D))
    results = [step(model, pool, *padded(lengths, more, filler)) for filler in fillers]
    for one, other in zip(*map(tensors, results), strict=True):
        assert torch.equal(one, other) and one.isfinite().all()


@settings(max_examples=100, deadline=None)
@given(
    kernel=kernels,
    positions=st.sampled_from(POSITIONS),
    pool=st.sampled_from(POOLINGS),
    lengths=lengths,
    more=st.tuples(st.integers(0, 13), st.integers(0, 13)),
    filler=fillers,
    training=st.booleans(),
)
def test_how_much_padding_there_is_changes_nothing(kernel, positions, pool, lengths, more, filler, training: bool):
    """Real tokens, loss and gradients stay within 1e-10 for any amount of padding, none at all included."""
    model = toy_encoder(*kernel, positions=positions).train(training)
    pool = randomised(pooling(pool, D))
    results = [step(model, pool, *padded(lengths, n, filler)) for n in more]
    if len(set(lengths)) == 1:
        results.append(step(model, pool, padded(lengths, 0, filler)[0], None))
    for other in results[1:]:
        for ours, theirs in zip(tensors(results[0]), tensors(other), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


mask_settings = st.sampled_from(
    [
        {},
        {"causal": True},
        {"window": 2},
        {"window": 1, "dilated_step": 3, "global_tokens": 2},
        {"random_blocks": 1, "block": 3, "window": 1, "causal": True},
    ]
)


@settings(max_examples=60, deadline=None)
@given(
    backend=st.sampled_from(["reference", "sdpa", "local"]),
    mask=mask_settings,
    positions=st.sampled_from(POSITIONS),
    pool=st.sampled_from(POOLINGS),
    strands=st.sampled_from(["none", "average"]),
    stem=st.sampled_from([{"kind": "none", "pool": 1}, {"n_filters": 5, "width": 7, "pool": 3}]),
    texts=st.lists(st.text("ACGTN", min_size=1, max_size=29), min_size=1, max_size=3),
    more=st.integers(1, 19),
    checkpointing=st.booleans(),
)
def test_a_sequence_model_does_not_see_padding(
    backend, mask, positions, pool, strands, stem, texts, more, checkpointing
):
    """Readouts, loss and gradients of the whole model stay within 1e-10 however far a batch is padded."""
    mask = MaskConfig(**mask)
    model = toy_model(
        backend=backend if mask.sparse or backend != "local" else "sdpa",
        mask=mask, positions=positions, pooling=pool, reverse_complement=strands, stem=StemConfig(**stem),
        checkpointing=checkpointing, max_length=64,
    ).train()  # fmt: skip
    tokens = nucleotide.encode(texts)
    parameters = [p for p in model.parameters() if p.requires_grad]
    results = []
    for batch in (tokens, nn.functional.pad(tokens, (0, more), value=alphabet.PAD)):
        readout = model(batch)
        loss = nn.functional.mse_loss(readout, draw(*readout.shape, seed=3))
        found = torch.autograd.grad(loss, parameters, allow_unused=True)
        assert sum(g is not None and bool(g.abs().sum() > 0) for g in found) > len(found) / 3
        results.append([readout.detach(), loss.detach(), *(torch.zeros(()) if g is None else g for g in found)])
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("backend", "mask"), [("reference", "none"), ("sdpa", "none"), ("local", "window")])
def test_without_zeroed_rows_padding_gets_through(backend: str, mask: str, monkeypatch: pytest.MonkeyPatch):
    """Masked keys alone do not help against NaN: left in the stream it reaches real tokens, since 0 x NaN is NaN."""
    model = toy_encoder(backend, mask)
    x, keep = padded([13, 5], 3, [float("nan")])
    assert model(x, keep=keep).isfinite().all()
    for module in (blocks, encoder):
        monkeypatch.setattr(module, "zero_padding", lambda x, keep: x)
    assert model(x, keep=keep)[1, :5].isnan().any()


@pytest.mark.parametrize(("backend", "mask"), [("reference", "none"), ("sdpa", "none"), ("local", "window")])
def test_without_masked_keys_the_amount_of_padding_shows(backend: str, mask: str, monkeypatch: pytest.MonkeyPatch):
    """Zeroed rows alone do not help: a padded key is still read, with what the biases of a layer make of it."""
    model, pool = toy_encoder(backend, mask), pooling("mean", D)
    results = [step(model, pool, *padded([13, 5], n, [0.0])) for n in (1, 4)]
    torch.testing.assert_close(results[0].loss, results[1].loss, rtol=1e-10, atol=1e-10)
    # The padding mask is dropped on its way into every kernel, and nowhere else.
    for kind in (backends.Reference, backends.Fused, backends.Local):
        monkeypatch.setattr(kind, "__call__", _without_keep(kind.__call__))
    results = [step(model, pool, *padded([13, 5], n, [0.0])) for n in (1, 4)]
    changed = (results[0].real - results[1].real).abs().amax(-1) > 1e-4
    assert changed.all() if mask == "none" else changed.any()


def _without_keep(call):
    return lambda self, *x, keep=None, bias=None: call(self, *x, keep=None, bias=bias)


def test_pooling_leaves_padding_out():
    """Mean, sum and attention pooling of a padded sequence equal those of the sequence alone."""
    for kind in POOLINGS:
        pool = randomised(pooling(kind, D))
        x, keep = padded([7, 13], 4, [3.0])
        together = pool(x, keep=keep)
        for i, n in enumerate((7, 13)):
            torch.testing.assert_close(pool(x[i : i + 1, :n])[0], together[i], rtol=1e-12, atol=1e-12)
