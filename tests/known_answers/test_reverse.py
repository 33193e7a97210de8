"""The gradient of attention that also finds what keys receive equals autograd's."""

import math

import pytest
import torch
from torch import Tensor
from toy_attention import draw, real_tokens

from bioattn.nn import attention, reverse
from bioattn.nn.reverse import Reverse, attention_gradients

B, H, L, C = 3, 2, 13, 5
KEEP = real_tokens(13, 7, 2)


def inputs(keep: Tensor | None) -> tuple[list[Tensor], Tensor, Tensor, Tensor]:
    """Queries, keys and values, the output, its gradient (zero at padding) and the denominators' logarithms."""
    qkv = list(draw(3, B, H, L, C).requires_grad_().unbind())
    dense = None if keep is None else keep[:, None, None]
    output = attention.scaled_dot_product(*qkv, keep=dense)[0]
    slope = draw(B, H, L, C, seed=1)
    if keep is not None:
        slope = slope * keep[:, None, :, None]
    lse = attention.scores(*qkv[:2], keep=dense).logsumexp(-1).detach()
    return qkv, output, slope, lse


@pytest.mark.parametrize("block", [1, L * 3, L * 4, L * L, L * L * 4, 2**19])
@pytest.mark.parametrize("keep", [None, KEEP], ids=["whole", "padded"])
def test_gradients_are_autograds(keep: Tensor | None, block: int, monkeypatch: pytest.MonkeyPatch):
    """In blocks of one query to all heads, gradients are the readable formula's, and sums those of its pattern."""
    monkeypatch.setattr(reverse, "_BLOCK_SCORES", block)
    qkv, output, slope, lse = inputs(keep)
    expected = torch.autograd.grad(output, qkv, slope)
    found = attention_gradients(*(x.detach() for x in (*qkv, output, slope)), lse, keep)
    for one, other in zip(found[:3], expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    real = torch.ones(B, L, dtype=torch.bool) if keep is None else keep
    pattern = attention.pattern(attention.scores(*qkv[:2], keep=real[:, None, None])) * real[:, None, :, None]
    torch.testing.assert_close(found.received, pattern.sum(2).detach(), rtol=1e-12, atol=1e-12)


def test_scores_far_above_the_denominator_of_a_padded_key_do_no_harm():
    """A padded key that would be read a million times as much as all others adds nothing and makes nothing infinite."""
    qkv, output, slope, lse = inputs(KEEP)
    query, key, value = (x.detach().clone() for x in qkv)
    plain = attention_gradients(query, key, value, output.detach(), slope, lse, KEEP)
    key[1, :, 7:] = 1e6 * query[1, :, :1]
    huge = attention_gradients(query, key, value, output.detach(), slope, lse, KEEP)
    for one, other in zip(plain, huge, strict=True):
        assert one.isfinite().all() and torch.equal(one, other)


def test_in_a_graph_it_changes_the_way_of_the_gradient_only():
    """Put behind a fused kernel the output stays the same, its gradients too, and one set of them is left behind."""
    qkv, _, slope, lse = inputs(None)
    found: list = []
    fused = attention.fused(*qkv)
    output = Reverse.apply(fused.detach(), *qkv, lse, None, found)
    assert torch.equal(output, fused) and not found
    for one, other in zip(torch.autograd.grad(output, qkv, slope), torch.autograd.grad(fused, qkv, slope), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert len(found) == 1 and not math.isnan(float(found[0].received.sum()))
    torch.testing.assert_close(found[0].received.sum(2), torch.full((B, H), float(L), dtype=torch.float64))
