"""Attention kernels against the readable formula: the same numbers under every mask, padding and bias."""

import os
import shutil

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from toy_attention import BACKENDS, KERNELS, LAYOUT, MASKS, draw, real_tokens, score_bias, small_blocks

from bioattn.errors import ConfigError, DataError
from bioattn.nn import backends
from bioattn.nn.attention import scaled_dot_product
from bioattn.nn.backends import make_backend
from bioattn.nn.masks import Mask
from bioattn.nn.positions import ScoreBias

B, H, C = 2, 3, 11
#: One token, fewer than a window reaches, and odd lengths over one, several and many blocks of five queries.
LENGTHS = (1, 2, 7, 13, 37)


def inputs(length: int, seed: int = 0) -> tuple[Tensor, ...]:
    """Query, key and value (B, H, L, C)."""
    return tuple(draw(B, H, length, C, seed=seed + i).requires_grad_() for i in range(3))


def padding(length: int) -> Tensor:
    """The first example is whole, the second is padded after its first half, but never to nothing."""
    return real_tokens(length, (length + 1) // 2)


def readable(q: Tensor, k: Tensor, v: Tensor, mask: Mask | None, keep: Tensor | None, bias: ScoreBias | None) -> Tensor:
    """Values of the reference formula, from a bias and a mask over all pairs of positions."""
    position = torch.arange(q.shape[2])
    may_read = torch.ones(len(q), 1, len(position), len(position), dtype=torch.bool)
    if mask is not None:
        may_read = may_read & mask.allows(position[:, None], position)
    if keep is not None:
        may_read = may_read & keep[:, None, None]
    terms = None if bias is None else bias(position[:, None], position)
    return scaled_dot_product(q, k, v, bias=terms, keep=may_read)[0]


def with_gradients(values: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    """Values, and the gradients of a sum that weights every one of them differently."""
    weight = draw(*values.shape, seed=9)
    return [values.detach(), *torch.autograd.grad((values * weight).sum(), leaves)]


def agree(backend: str, mask: str, bias_kind: str, length: int, padded: bool) -> None:
    """Values and gradients of a backend are those of the reference formula, to 1e-10."""
    bias = score_bias(bias_kind, H)
    keep = padding(length) if padded else None
    leaves = [*inputs(length), *([] if bias is None else bias.parameters())]
    ours = make_backend(backend, MASKS[mask])(*leaves[:3], keep=keep, bias=bias)
    theirs = readable(*leaves[:3], MASKS[mask], keep, bias)
    for found, expected in zip(with_gradients(ours, leaves), with_gradients(theirs, leaves), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("bias", ["none", "relative", "alibi"])
@pytest.mark.parametrize(("backend", "mask"), KERNELS)
def test_backends_equal_the_reference(backend: str, mask: str, bias: str, monkeypatch: pytest.MonkeyPatch):
    """Values and gradients (queries, keys, values, bias table) equal the formula's for all masks and lengths."""
    small_blocks(monkeypatch)
    for length in LENGTHS:
        for padded in (False, True):
            agree(backend, mask, bias, length, padded)


@pytest.mark.parametrize("mask", ["window", "window|dilated|global", "random"])
@pytest.mark.parametrize("most_scores", [1, 1000])
def test_local_equals_the_reference_in_pieces(mask: str, most_scores: int, monkeypatch: pytest.MonkeyPatch):
    """Where scores are computed piece by piece, and again for the gradient, values and gradients stay the formula's."""
    small_blocks(monkeypatch, 2)
    monkeypatch.setattr(backends, "MOST_SCORES", most_scores)
    blocks, scores = [], []
    attend = backends._attend_part

    def counted(query: Tensor, key: Tensor, value: Tensor, part: backends.Part, *more) -> Tensor:
        blocks.append(len(part.query))
        scores.append(B * H * part.allowed.numel() / len(part.query))
        return attend(query, key, value, part, *more)

    monkeypatch.setattr(backends, "_attend_part", counted)
    agree("local", mask, "relative", 37, True)
    assert sum(blocks) == 2 * 19  # every block of two queries, forward and again
    assert all(n == 1 or n * each <= most_scores for n, each in zip(blocks, scores, strict=True))
    assert max(blocks) == 1 if most_scores == 1 else 1 < max(blocks) < 19


def test_local_backend_at_its_own_block_size():
    """With blocks as they are in use (128 queries), values and gradients equal the formula's at 293 tokens."""
    for bias in ("none", "relative"):
        agree("local", "window|dilated|global", bias, 293, True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_float32_differs_by_rounding_only(backend: str, monkeypatch: pytest.MonkeyPatch):
    """Float32 values are within 2e-6 of those in float64 (rounding is 6e-8, values are sums over up to 37 keys)."""
    small_blocks(monkeypatch)
    mask, bias = MASKS["window|dilated|global"], score_bias("relative", H)
    x = inputs(37)
    exact = make_backend(backend, mask)(*x, keep=padding(37), bias=bias)
    ours = make_backend(backend, mask)(*(t.float() for t in x), keep=padding(37), bias=bias.float())
    assert ours.dtype == torch.float32
    torch.testing.assert_close(ours.double(), exact, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("bias", ["none", "relative"])
def test_a_layout_from_inference_serves_training(bias: str, monkeypatch: pytest.MonkeyPatch):
    """A backend that first met a length in inference mode still gives gradients at that length."""
    small_blocks(monkeypatch)
    backend, terms, x = make_backend("local", MASKS["window"]), score_bias(bias, H), inputs(13)
    with torch.inference_mode():
        first = backend(*x, keep=padding(13), bias=terms)
    values = backend(*x, keep=padding(13), bias=terms)
    torch.testing.assert_close(values.detach(), first.clone(), rtol=1e-10, atol=1e-12)
    assert all(g.abs().sum() > 0 for g in torch.autograd.grad(values.square().sum(), x))


def test_a_dry_run_leaves_no_layout_behind():
    """A backend that first met a length on fake tensors, which hold no numbers, gives the right ones there later."""
    backend, x = make_backend("local", MASKS["window"]), inputs(13)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        shape = backend(*map(mode.from_tensor, x), keep=mode.from_tensor(padding(13))).shape
    values = backend(*x, keep=padding(13))
    assert values.shape == shape
    torch.testing.assert_close(values, readable(*x, MASKS["window"], padding(13), None))


def test_local_backend_keeps_few_layouts(monkeypatch: pytest.MonkeyPatch):
    """A layout is made once per length, and only so many lengths are remembered."""
    made = []
    make = backends.make_layout
    monkeypatch.setattr(backends, "make_layout", lambda *x, **more: (made.append(x[1]), make(*x, **more))[1])
    backend = make_backend("local", MASKS["window"])
    for length in [3, 3, *range(1, backends._LAYOUTS + 5), backends._LAYOUTS]:
        assert backend(*inputs(length)).shape == (B, H, length, C)
    assert made.count(backends._LAYOUTS) == 1 and made.count(3) == 1
    assert len(backend._layouts) == backends._LAYOUTS


def test_queries_that_may_read_nothing_get_zeros():
    """Rows of the block layout without any block are zero in every backend, and gradients are finite."""
    alone = int((~LAYOUT.any(1)).nonzero())
    for name in BACKENDS:
        x = inputs(37)
        values = make_backend(name, MASKS["blocks"])(*x, keep=padding(37))
        assert (values[:, :, alone * 7 : (alone + 1) * 7] == 0).all() and (values[0, :, :7] != 0).all()
        assert all(g.isfinite().all() for g in torch.autograd.grad(values.square().sum(), x))


def test_one_batch_mate_does_not_change_another():
    """Each example alone gets what it gets in a batch, with its own padding."""
    for name in BACKENDS:
        backend, x, keep = make_backend(name, MASKS["window"]), inputs(13), padding(13)
        together = backend(*x, keep=keep, bias=score_bias("alibi", H))
        for i in range(B):
            alone = backend(*(t[i : i + 1] for t in x), keep=keep[i : i + 1], bias=score_bias("alibi", H))
            torch.testing.assert_close(alone[0], together[i], rtol=1e-12, atol=1e-13)


NEEDS_COMPILER = pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="FlexAttention on a CPU needs a C++ compiler"
)


@NEEDS_COMPILER
@pytest.mark.parametrize(
    ("mask", "bias", "padded"),
    [
        ("window|dilated|global", "relative", True),
        pytest.param("none", "none", True, marks=pytest.mark.slow),
        pytest.param("(window|random)&causal", "none", False, marks=pytest.mark.slow),
        pytest.param("blocks", "alibi", True, marks=pytest.mark.slow),
    ],
)
def test_flex_equals_the_reference(mask: str, bias: str, padded: bool):
    """FlexAttention's float32 values are within 5e-6 of the formula's in float64."""
    terms = score_bias(bias, H)
    keep = padding(37) if padded else None
    x = inputs(37)
    with torch.no_grad():
        expected = readable(*x, MASKS[mask], keep, terms)
        single = None if terms is None else terms.float()
        values = make_backend("flex", MASKS[mask])(*(t.float() for t in x), keep=keep, bias=single)
    torch.testing.assert_close(values.double(), expected, rtol=5e-6, atol=5e-6)


def test_flex_refuses_to_train_on_a_cpu():
    """The error comes before anything is compiled, and names the backends that do train."""
    with pytest.raises(DataError, match="'flex' has no gradient on a CPU: train with model.backend 'local' or 'sdpa'"):
        make_backend("flex", MASKS["window"])(*inputs(7))


def test_wrong_backends_are_refused():
    """The name that was given and the allowed ones are in the message; local without a mask is sent to sdpa."""
    with pytest.raises(ConfigError, match="'flash' is not an attention backend; allowed: reference, sdpa, local, flex"):
        make_backend("flash")
    with pytest.raises(ConfigError, match="'local' needs a sparse mask such as a window; without one use 'sdpa'"):
        make_backend("local")


@pytest.mark.parametrize("backend", ["reference", "sdpa", "local", "flex"])
def test_block_layouts_refuse_longer_sequences(backend: str):
    """Every backend says for how many tokens a block layout was made."""
    x = (t.detach() for t in inputs(50))
    with pytest.raises(DataError, match="the block layout is for up to 49 tokens, got 50: raise model.max_length"):
        make_backend(backend, MASKS["blocks"])(*x)
