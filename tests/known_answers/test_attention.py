"""Attention against answers that can be derived: a slow loop, invariances, zero rows, translation."""

import math

import pytest
import torch
from toy_attention import draw, real_tokens, toy_encoder

from bioattn.errors import ConfigError
from bioattn.nn import attention, taps
from bioattn.nn.attention import fused, scaled_dot_product, scores
from bioattn.nn.multihead import MultiHeadAttention
from bioattn.nn.positions import AlibiBias, LearnedPositions, RelativeBias, RotaryPositions, ScoreBias

# Every axis a different prime.
B, H, Q, K, C = 2, 3, 5, 7, 11


def make(seed: int = 0) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    keep = torch.rand(B, 1, Q, K, generator=generator) < 0.6
    keep[0, 0, 2] = False  # one query that may read nothing
    return {
        "query": draw(B, H, Q, C),
        "key": draw(B, H, K, C),
        "value": draw(B, H, K, C),
        "bias": draw(1, H, Q, K),
        "keep": keep,
    }


def test_reference_equals_a_loop():
    """Values and pattern equal the textbook formula evaluated entry by entry."""
    x = make()
    values, pattern = scaled_dot_product(**x)
    for b in range(B):
        for h in range(H):
            for q in range(Q):
                allowed = [k for k in range(K) if x["keep"][b, 0, q, k]]
                dots = [
                    sum(float(x["query"][b, h, q, c] * x["key"][b, h, k, c]) for c in range(C)) / math.sqrt(C)
                    + float(x["bias"][0, h, q, k])
                    for k in allowed
                ]
                total = sum(map(math.exp, dots))
                expected = torch.zeros(K, dtype=torch.float64)
                for k, dot in zip(allowed, dots, strict=True):
                    expected[k] = math.exp(dot) / total
                torch.testing.assert_close(pattern[b, h, q], expected, rtol=1e-12, atol=1e-14)
                torch.testing.assert_close(values[b, h, q], expected @ x["value"][b, h], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("with_keep", [True, False])
def test_fused_equals_reference_forward_and_gradient(with_bias: bool, with_keep: bool):
    """The fused backend gives the reference's values and gradients, with and without bias and mask."""
    results = []
    for function in (lambda **x: scaled_dot_product(**x)[0], fused):
        x = make()
        x = {k: v for k, v in x.items() if (k != "bias" or with_bias) and (k != "keep" or with_keep)}
        leaves = [v.requires_grad_() for k, v in x.items() if k != "keep"]
        values = function(**x)
        gradients = torch.autograd.grad(values.square().sum(), leaves)
        results.append((values, *gradients))
    for ours, reference in zip(*results, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-9, atol=1e-10)


def test_query_without_keys_reads_zero_with_finite_gradient():
    """A fully masked row is zero in both backends, and gradients stay finite."""
    for function in (lambda **x: scaled_dot_product(**x)[0], fused):
        x = make()
        x["query"].requires_grad_()
        values = function(**x)
        assert (values[0, :, 2] == 0).all()
        values.sum().backward()
        assert torch.isfinite(x["query"].grad).all()


def test_permuting_keys_and_values_together_changes_nothing():
    """Attention is a weighted mean over a set of key-value pairs."""
    x = make()
    order = torch.randperm(K, generator=torch.Generator().manual_seed(1))
    shuffled = x | {name: x[name][:, :, order] for name in ("key", "value")}
    shuffled |= {name: x[name][..., order] for name in ("bias", "keep")}
    torch.testing.assert_close(scaled_dot_product(**x)[0], scaled_dot_product(**shuffled)[0], rtol=1e-12, atol=1e-13)


def test_softmax_is_float32_for_half_precision_inputs():
    """Scores of bfloat16 inputs are computed in float32."""
    x = make()
    assert scores(x["query"].bfloat16(), x["key"].bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("d_head", [3, 17, 101])
def test_scaled_scores_have_unit_variance(d_head: int):
    """For unit-variance queries and keys Var(q.k) is d_head and that of the scores 1, within four standard errors."""
    n = 20_000
    query, key = draw(n, 1, 1, d_head, seed=1), draw(n, 1, 1, d_head, seed=2)
    # A product of two standard normals has kurtosis 9, so the sum of d_head of them 3 + 6 / d_head.
    error = math.sqrt((2 + 6 / d_head) / n)
    dots = (query * key).sum(-1)
    assert abs(float(dots.var()) / d_head - 1) < 4 * error
    assert abs(float(scores(query, key).var()) - 1) < 4 * error


def test_a_mask_of_the_wrong_polarity_changes_the_values(monkeypatch: pytest.MonkeyPatch):
    """`keep` is True where attention is allowed: read the other way round, values are those of no correct formula."""
    x = make()
    x["keep"][0, 0, 2, 0] = True  # no row without keys: only polarity is at stake
    right = fused(**x)
    torch.testing.assert_close(scaled_dot_product(**x)[0], right, rtol=1e-9, atol=1e-10)
    monkeypatch.setattr(attention, "scores", lambda q, k, *, bias, keep: scores(q, k, bias=bias, keep=~keep))
    wrong = scaled_dot_product(**x)[0]
    assert not torch.isclose(wrong, right, rtol=1e-3, atol=1e-3).all(-1).any()


def test_keep_is_read_the_same_way_from_mask_to_padding():
    """A query's row is zero exactly where the mask or the padding says False, in the pattern of a whole encoder."""
    encoder = toy_encoder("sdpa", "window")
    keep = real_tokens(13, 7)
    with taps.record(encoder, ["layer.1.attn.pattern"]) as store:
        encoder(draw(2, 13, 12), keep=keep)
    position = torch.arange(13)
    may_read = ((position[:, None] - position).abs() <= 3) & keep[:, None, :]
    assert torch.equal(store["layer.1.attn.pattern"] > 0, may_read[:, None].expand(2, 3, 13, 13))


def test_rotary_scores_depend_on_the_difference_of_positions_only():
    """Shifting a query and a key by the same number of positions leaves their score as it was."""
    rotary = RotaryPositions(14).double()
    q, k = (draw(1, 1, 1, 14, seed=seed).expand(1, 1, 31, 14) for seed in (0, 1))
    table = (rotary(q) @ rotary(k).transpose(-2, -1))[0, 0]
    for shift in (1, 5, 17):
        torch.testing.assert_close(table[shift:, shift:], table[:-shift, :-shift], rtol=1e-12, atol=1e-12)
    assert (table.diagonal() - (q * k)[0, 0].sum(-1)).abs().max() < 1e-12
    assert not torch.isclose(table[0, 1:], table[1:, 0], atol=1e-3).any()  # and on its sign


def bias_table(bias: ScoreBias, length: int = 23) -> torch.Tensor:
    """Bias (H, Q, K) over all pairs of positions."""
    position = torch.arange(length)
    return bias(position[:, None], position[None])


def test_relative_bias_depends_on_the_signed_distance_only():
    """Equal key - query share a bias; a distance and its negative do not; far distances share buckets."""
    bias = RelativeBias(n_heads=2)
    torch.nn.init.normal_(bias.table)
    table = bias_table(bias)
    assert table.shape == (2, 23, 23)
    assert torch.equal(table[:, 3:, 3:], table[:, :-3, :-3])
    assert (table[:, 0, 1:] != table[:, 1:, 0]).all()
    assert not torch.equal(table[0], table[1])
    bucket = bias.bucket(torch.arange(-400, 401))
    assert torch.equal(bucket.unique(), torch.arange(64)[torch.arange(64) != 32])  # 32 would be distance +0
    assert (bucket[:145] == 31).all() and (bucket[-145:] == 63).all()  # 256 and beyond


def test_alibi_falls_linearly_with_the_distance():
    """The bias is minus slope times distance, the same on both sides, with slopes 2^(-8 h / H)."""
    table = bias_table(AlibiBias(n_heads=4).double())
    distance = (torch.arange(23)[:, None] - torch.arange(23)).abs()
    for head, slope in enumerate([2**-2, 2**-4, 2**-6, 2**-8]):
        torch.testing.assert_close(table[head], -slope * distance.double(), rtol=1e-7, atol=0)


@pytest.mark.parametrize("positions", ["none", "rope", "relative", "alibi"])
def test_encoder_with_relative_positions_is_translation_equivariant(positions: str):
    """Moving tokens within real padding on both sides moves the output with them, for every position by distance."""
    encoder = toy_encoder("sdpa", "window", positions=positions)
    x = draw(1, 11, 12)
    outputs = []
    for start in (0, 7):
        keep = torch.zeros(1, 23, dtype=torch.bool)
        keep[:, start : start + 11] = True
        padded = torch.zeros(1, 23, 12, dtype=torch.float64)
        padded[:, start : start + 11] = x
        outputs.append(encoder(padded, keep=keep)[keep])
    torch.testing.assert_close(*outputs, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("positions", ["sinusoidal", "learned"])
def test_encoder_with_added_positions_is_not_translation_equivariant(positions: str):
    """Positions that are added to tokens tell where a sequence stands: further on it has other outputs."""
    encoder = toy_encoder("sdpa", positions=positions)
    x = draw(1, 5, 12).repeat(1, 2, 1)
    first, second = (encoder(x, keep=keep)[keep] for keep in (torch.arange(10)[None] < 5, torch.arange(10)[None] >= 5))
    assert not torch.isclose(first, second, rtol=1e-3, atol=1e-3).all(-1).any()


@pytest.mark.parametrize("backend", ["reference", "sdpa"])
def test_tapping_the_pattern_leaves_the_numbers_equal(backend: str):
    """A layer whose pattern is read gives the same output, and the pattern's rows sum to one over real keys."""
    torch.manual_seed(0)
    layer = MultiHeadAttention(12, 3, backend=backend, relative=RelativeBias(3)).double()
    x = torch.randn(2, 7, 12, dtype=torch.float64)
    keep = torch.ones(2, 7, dtype=torch.bool)
    keep[1, 5:] = False
    plain = layer(x, keep=keep)
    with taps.record(layer, ["pattern"]) as store:
        tapped = layer(x, keep=keep)
    torch.testing.assert_close(plain, tapped, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(store["pattern"].sum(-1), torch.ones(2, 3, 7, dtype=torch.float64))
    assert (store["pattern"][1, :, :, 5:] == 0).all()
    assert not layer.pattern.active


def test_wrong_sizes_are_refused_by_name():
    """Messages name both numbers, or the allowed names."""
    with pytest.raises(ConfigError, match="multiple of n_heads, got 10 and 4"):
        MultiHeadAttention(10, 4)
    with pytest.raises(ConfigError, match="'flash' is not an attention backend; allowed: reference, sdpa, local, flex"):
        MultiHeadAttention(8, 4, backend="flash")
    with pytest.raises(ConfigError, match="even head width, got 5"):
        RotaryPositions(5)
    with pytest.raises(ConfigError, match="reach 4 tokens, got 6"):
        LearnedPositions(8, 4)(torch.zeros(1, 6, 8))
