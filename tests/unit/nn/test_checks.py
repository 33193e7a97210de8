"""Bad input to attention: the message says what was found, where, and what is allowed."""

import math

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from toy_attention import draw, real_tokens, toy_encoder

from bioattn.errors import ConfigError, DataError
from bioattn.nn.attention import fused, scaled_dot_product
from bioattn.nn.backends import make_backend
from bioattn.nn.checks import check_tokens, values_known
from bioattn.nn.encoder import Encoder
from bioattn.nn.masks import Window
from bioattn.nn.multihead import MultiHeadAttention

B, H, Q, K, C, D = 2, 3, 5, 7, 11, 12


def parts(**changed: torch.Tensor) -> dict[str, torch.Tensor]:
    """Arguments of one attention, some of them changed."""
    whole = {"query": draw(B, H, Q, C), "key": draw(B, H, K, C), "value": draw(B, H, K, 13)}
    return whole | changed


@pytest.mark.parametrize("function", [scaled_dot_product, fused])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"query": draw(H, Q, C)}, r"query must have the axes \(batch, head, position, channel\), got .*\(3, 5, 11\)"),
        ({"key": draw(B, 1, H, K, C)}, r"key must have the axes .* got shape \(2, 1, 3, 7, 11\)"),
        ({"value": draw(K, C)}, r"value must have the axes .* got shape \(7, 11\)"),
        ({"key": draw(B, H, K, 13)}, r"query and key must agree in batch, heads and channels, .*5, 11\) and .*7, 13\)"),
        ({"key": draw(B, 2, K, C)}, r"query and key must agree .*\(2, 3, 5, 11\) and \(2, 2, 7, 11\)"),
        ({"query": draw(5, H, Q, C)}, r"query and key must agree .*\(5, 3, 5, 11\) and \(2, 3, 7, 11\)"),
        ({"value": draw(B, H, Q, C)}, r"key and value must agree in batch, heads and positions, .*7, 11\) .*5, 11\)"),
        ({"bias": draw(H, K, Q)}, r"bias must broadcast to .* = \(2, 3, 5, 7\), got shape \(3, 7, 5\)"),
        ({"bias": draw(1, 1, H, Q, K)}, r"bias must broadcast to .* got shape \(1, 1, 3, 5, 7\)"),
        ({"keep": draw(B, K) > 0}, r"keep must broadcast to .* = \(2, 3, 5, 7\), got shape \(2, 7\)"),
        ({"keep": draw(B, 1, 1, K)}, "keep must be boolean, True = may attend, got torch.float64"),
        ({"keep": torch.ones(Q, K, dtype=torch.uint8)}, "keep must be boolean, .* got torch.uint8"),
    ],
)  # fmt: skip
def test_tensors_of_one_attention_must_fit(function, changed: dict, message: str):
    """Each axis that does not fit, and a mask that is not boolean, is named in both functions."""
    function(**parts())
    with pytest.raises(DataError, match=message):
        function(**parts(**changed))


@pytest.mark.parametrize("shape", [(B, H, Q, K), (Q, K), (K,), (1, H, 1, 1), (B, 1, 1, K), ()])
def test_bias_and_keep_may_broadcast(shape: tuple[int, ...]):
    """Any shape that broadcasts to (B, H, Q, K) is accepted and means the same as the whole."""
    bias, keep = draw(*shape, seed=1), draw(*shape, seed=2) > -1.0
    whole = {"bias": bias.expand(B, H, Q, K), "keep": keep.expand(B, H, Q, K)}
    for function in (fused, lambda **x: scaled_dot_product(**x)[0]):
        torch.testing.assert_close(function(**parts(bias=bias, keep=keep)), function(**parts(**whole)))


@pytest.mark.parametrize("backend", ["local", "flex"])
def test_backends_check_what_they_are_given(backend: str):
    """Also the kernels that do not write scores out refuse queries and keys that do not fit."""
    with pytest.raises(DataError, match="query must have the axes"):
        make_backend(backend, Window(2))(draw(H, Q, C), draw(B, H, Q, C), draw(B, H, Q, C))
    with pytest.raises(DataError, match="key and value must agree"):
        make_backend(backend, Window(2))(draw(B, H, Q, C), draw(B, H, Q, C), draw(B, H, K, C))


@pytest.mark.parametrize(
    ("x", "keep", "message"),
    [
        (draw(B, Q, 13), None, r"tokens must have shape \(batch, length, 12\), got \(2, 5, 13\)"),
        (draw(Q, D), None, r"tokens must have shape \(batch, length, 12\), got \(5, 12\)"),
        (draw(B, 0, D), None, r"no token to encode: tokens have shape \(2, 0, 12\)"),
        (draw(B, Q, D), real_tokens(7, 3), r"keep must have shape \(batch, length\) = \(2, 5\), got \(2, 7\)"),
        (draw(B, Q, D), real_tokens(5), r"keep must have shape .* = \(2, 5\), got \(1, 5\)"),
        (draw(B, Q, D), real_tokens(5, 3)[..., None], r"keep must have shape .*, got \(2, 5, 1\)"),
        (draw(B, Q, D), real_tokens(5, 3).long(), "keep must be boolean, True = real token, got torch.int64"),
        (draw(B, Q, D), real_tokens(5, 3).double(), "keep must be boolean, True = real token, got torch.float64"),
        (draw(3, Q, D), real_tokens(5, 0, 0), r"examples 1, 2 of the batch hold padding only: leave them out"),
        (draw(9, Q, D), real_tokens(*[0] * 9, longest=5), "examples 0, 1, 2, 3, 4 and 4 more of the batch"),
    ],
)
def test_tokens_and_their_padding_must_fit(x: torch.Tensor, keep: torch.Tensor | None, message: str):
    """An encoder refuses wrong shapes and types by name, and names the examples without a real token."""
    with pytest.raises(DataError, match=message):
        toy_encoder()(x, keep=keep)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("padded", [True, False])
def test_a_real_token_that_is_not_finite_is_named(value: float, padded: bool):
    """Example and position are in the message; in padding the same value is no error."""
    x, keep = draw(3, 7, D), real_tokens(7, 5, 3) if padded else None
    x[1, 2, 4] = x[0, 6, 11] = value
    message = (
        r"tokens hold NaN or infinity at \(example, position\) \(0, 6\), \(1, 2\): check the input, or the training"
    )
    with pytest.raises(DataError, match=message):
        toy_encoder()(x, keep=keep)
    x[1, 2, 4] = x[0, 6, 11] = 0.0
    if padded:
        x[2, 3:] = x[1, 6] = value
    assert toy_encoder()(x, keep=keep).isfinite().all()


def test_opposite_infinities_and_huge_numbers_are_told_apart():
    """Infinities that would cancel in a sum are found; finite numbers whose sum overflows are let through."""
    x = draw(B, Q, D)
    x[0, 1, 0], x[1, 3, 0] = math.inf, -math.inf
    with pytest.raises(DataError, match=r"\(0, 1\), \(1, 3\)"):
        check_tokens(x, None, D)
    check_tokens(torch.full((B, Q, D), 3e38), None, D)


def test_values_are_not_looked_at_in_a_dry_run():
    """On fake and meta tensors shapes are checked and values are not, so a dry run can size a model."""
    x, keep = draw(B, Q, D), real_tokens(5, 3)
    assert values_known(x) and values_known(torch.nn.Parameter(x))
    assert not values_known(x.to("meta"))
    encoder = toy_encoder()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake, fake_keep = mode.from_tensor(x), mode.from_tensor(keep)
        assert not values_known(fake)
        assert encoder(fake, keep=fake_keep).shape == (B, Q, D)
        with pytest.raises(DataError, match=r"tokens must have shape \(batch, length, 12\)"):
            encoder(fake[..., 1:], keep=fake_keep)


@pytest.mark.parametrize(
    ("d_model", "n_heads", "more", "message"),
    [
        (10, 4, {}, "d_model must be a multiple of n_heads, got 10 and 4"),
        (7, 2, {}, "d_model must be a multiple of n_heads, got 7 and 2"),
        (12, 0, {}, "d_model must be a multiple of n_heads, got 12 and 0"),
        (4, 8, {"positions": "alibi"}, "d_model must be a multiple of n_heads, got 4 and 8"),
        (15, 3, {"positions": "rope"}, "rotary positions need an even head width, got 5"),
        (12, 3, {"positions": "rotary"}, "'rotary' is not a kind of positions; allowed: none, sinusoidal, learned, "),
        (12, 3, {"feedforward": "relu"}, "'relu' is not a feed-forward layer; allowed: gelu, swiglu"),
        (12, 3, {"backend": "flash"}, "'flash' is not an attention backend; allowed: reference, sdpa, local, flex"),
        (12, 3, {"backend": "local"}, "'local' needs a sparse mask such as a window; without one use 'sdpa'"),
    ],
)  # fmt: skip
def test_impossible_encoders_are_refused(d_model: int, n_heads: int, more: dict, message: str):
    """The message gives the numbers, or the name and the allowed ones."""
    with pytest.raises(ConfigError, match=message):
        Encoder(d_model, 1, n_heads, 17, **more)
    if not more:
        with pytest.raises(ConfigError, match=message):
            MultiHeadAttention(d_model, n_heads)


def test_learned_positions_say_how_far_they_reach():
    """A sequence longer than the table is refused with a way out."""
    encoder = toy_encoder(positions="learned", max_length=11)
    assert encoder(draw(1, 11, D)).shape == (1, 11, D)
    with pytest.raises(ConfigError, match="reach 11 tokens, got 13: raise model.max_length or use 'rope'"):
        encoder(draw(1, 13, D))
