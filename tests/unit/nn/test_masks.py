"""Masks: what they allow, which keys they say they can reach, and what that costs."""

from collections.abc import Callable
from functools import reduce
from operator import and_, or_

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_attention import LAYOUT, MASKS, SPARSE

from bioattn.errors import ConfigError, DataError
from bioattn.nn.backends import Layout, make_backend, make_layout
from bioattn.nn.masks import BlockSparse, Causal, Dilated, Global, Mask, Padding, Window

LENGTH = 37
#: The definition of each plain mask, for one query and one key.
DEFINITION: dict[str, Callable[[int, int], bool]] = {
    "causal": lambda q, k: k <= q,
    "window": lambda q, k: -3 <= q - k <= 3,
    "dilated": lambda q, k: q - k in (-6, -3, 0, 3, 6),
    "global": lambda q, k: q in (0, 1) or k in (0, 1),
    "blocks": lambda q, k: bool(LAYOUT[q // 7][k // 7]),
    "window|dilated|global": lambda q, k: abs(q - k) in (0, 1, 2, 5, 10, 15) or q == 0 or k == 0,
    "window&causal": lambda q, k: 0 <= q - k <= 4,
}

plain_masks = st.one_of(
    st.just(Causal()),
    st.builds(Window, st.integers(1, 11)),
    st.builds(Dilated, st.integers(1, 7), st.integers(1, 5)),
    st.builds(Global, st.integers(1, 5)),
    st.builds(
        lambda block, per_block, seed: BlockSparse.random(53, block=block, per_block=per_block, seed=seed),
        st.integers(1, 13), st.integers(0, 3), st.integers(0, 10),
    ),
)  # fmt: skip
masks = st.recursive(
    plain_masks,
    lambda inner: st.builds(lambda a, b, join: join(a, b), inner, inner, st.sampled_from([or_, and_])),
    max_leaves=4,
)


def by_entries(mask: Mask, length: int) -> torch.Tensor:
    """What a mask allows, asked for one query and one key at a time."""
    number = torch.arange(length)
    return torch.tensor([[bool(mask.allows(number[q], number[k])) for k in range(length)] for q in range(length)])


@pytest.mark.parametrize("name", SPARSE)
def test_dense_equals_a_loop_over_pairs(name: str):
    """The matrix holds what the mask says of each query and key, and that is the mask's definition."""
    dense = MASKS[name].dense(LENGTH)
    assert dense.dtype == torch.bool and dense.any() and not dense.all()
    assert torch.equal(dense, by_entries(MASKS[name], LENGTH))
    if name in DEFINITION:
        expected = [[DEFINITION[name](q, k) for k in range(LENGTH)] for q in range(LENGTH)]
        assert torch.equal(dense, torch.tensor(expected))


def test_dense_takes_more_keys_than_queries():
    """The matrix may have fewer queries than keys: it is the upper part of the square one."""
    for name in SPARSE:
        assert torch.equal(MASKS[name].dense(11, 23), MASKS[name].dense(23)[:11])


def test_masks_combine_with_or_and_and():
    """`|` allows what either allows, `&` what both allow, in any number."""
    parts = [Window(2), Global(1), Dilated(5, 3)]
    dense = [m.dense(LENGTH) for m in parts]
    assert torch.equal(reduce(or_, parts).dense(LENGTH), dense[0] | dense[1] | dense[2])
    assert torch.equal(reduce(and_, parts).dense(LENGTH), dense[0] & dense[1] & dense[2])


def test_random_blocks_hold_the_diagonal_and_a_fixed_draw():
    """Each block reads itself and the given number of others at most; the seed alone decides which."""
    layout = BlockSparse.random(300, block=10, per_block=3, seed=4).layout
    assert layout.shape == (30, 30) and layout.diagonal().all()
    assert set(layout.sum(1).tolist()) <= {3, 4}
    assert np.array_equal(layout, BlockSparse.random(300, block=10, per_block=3, seed=4).layout)
    assert not np.array_equal(layout, BlockSparse.random(300, block=10, per_block=3, seed=5).layout)


@pytest.mark.parametrize("name", SPARSE)
def test_a_mask_does_not_depend_on_the_padded_length(name: str):
    """What the first tokens may read among themselves is the same in a longer batch."""
    for length in (1, 5, 23):
        assert torch.equal(MASKS[name].dense(length), MASKS[name].dense(LENGTH)[:length, :length])


@settings(max_examples=150, deadline=None)
@given(mask=masks, length=st.integers(1, 53), data=st.data())
def test_reach_holds_every_key_that_is_read(mask: Mask, length: int, data: st.DataObject):
    """Any run of queries finds all its keys in `reach`, ascending, each once, none outside the sequence."""
    first = data.draw(st.integers(0, length - 1), label="first")
    last = data.draw(st.integers(first + 1, length), label="last")
    keys = mask.reach(first, last, length)
    assert (np.diff(keys) > 0).all() and ((keys >= 0) & (keys < length)).all()
    assert set(mask.dense(length)[first:last].any(0).nonzero().flatten().tolist()) <= set(keys.tolist())


def pairs(layout: Layout, length: int) -> torch.Tensor:
    """How often a layout has each query read each key."""
    count = torch.zeros(length, length, dtype=torch.int64)
    for part in layout.parts:
        query, key = torch.broadcast_tensors(part.query[:, :, None], part.key[:, None])
        count.index_put_((query, key), part.allowed.long(), accumulate=True)
    return count


@settings(max_examples=100, deadline=None)
@given(mask=st.none() | masks, length=st.integers(1, 53), block=st.integers(1, 17))
def test_a_layout_has_every_allowed_pair_once(mask: Mask | None, length: int, block: int):
    """Blocks of queries with their keys hold exactly the pairs that the mask allows, and sort into the sequence."""
    layout = make_layout(mask, length, block=block)
    expected = torch.ones(length, length, dtype=torch.int64) if mask is None else mask.dense(length).long()
    assert torch.equal(pairs(layout, length), expected)
    query = torch.cat([part.query for part in layout.parts])
    query = query if layout.order is None else query[layout.order]
    assert torch.equal(query.flatten()[:length], torch.arange(length))


def slots(mask: Mask | None, length: int) -> int:
    """Scores that the local backend computes for each example and head."""
    return sum(part.allowed.numel() for part in make_layout(mask, length).parts)


def test_cost_of_sparse_masks_is_linear():
    """Each further token adds equally many scores under a window with global tokens; under a causal mask, more."""
    sparse = Window(64) | Dilated(32, 8) | Global(3)
    lengths = range(2048, 6145, 1024)
    steps = np.diff([slots(sparse, n) for n in lengths])
    assert (steps == steps[0]).all() and steps[0] <= 1024 * (128 + 2 * 256 + 64 + 128)
    steps = np.diff([slots(Causal(), n) for n in lengths])
    assert (np.diff(steps) > 0).all()


def test_a_layout_wastes_little_on_a_window():
    """A window of radius r costs at most BLOCK + 2 r keys per query, rounded up to half a block."""
    assert slots(Window(100), 4096) <= 4096 * (128 + 200 + 64)


def test_a_layout_without_a_mask_holds_each_key_once():
    """Where every token reads all, blocks are not filled up with more keys than there are."""
    assert slots(None, 300) == 3 * 128 * 300 and slots(None, 100) == 100 * 100


def test_padding_is_a_mask_of_its_own():
    """Keys of each example: True for real ones, with axes for batch and head; it combines like the others."""
    real = torch.arange(7) < torch.tensor([7, 3])[:, None]
    dense = Padding(real).dense(7)
    assert torch.equal(dense, real[:, None, None].expand(2, 1, 7, 7))
    assert torch.equal((Padding(real) & Window(1)).dense(7), dense & Window(1).dense(7))
    assert torch.equal((Window(1) | Padding(real)).dense(7), dense | Window(1).dense(7))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Window(0), "a window needs a whole number of at least 1 as radius, got 0"),
        (lambda: Window(-3), "got -3"),
        (lambda: Window(2.5), "got 2.5"),
        (lambda: Window(True), "got True"),
        (lambda: Dilated(0, 2), "at least 1 as step, got 0"),
        (lambda: Dilated(3, 0), "as steps, got 0"),
        (lambda: Global(0), "as tokens, got 0"),
        (lambda: BlockSparse(torch.eye(3), 2), r"square boolean matrix, got float32 \(3, 3\)"),
        (lambda: BlockSparse(torch.ones(2, 3, dtype=torch.bool), 2), r"got bool \(2, 3\)"),
        (lambda: BlockSparse(torch.ones(5, dtype=torch.bool), 2), r"got bool \(5,\)"),
        (lambda: BlockSparse(torch.eye(3, dtype=torch.bool), 0), "block .*got 0"),
        (lambda: BlockSparse.random(10, block=0, per_block=1, seed=0), "block .*got 0"),
    ],
)  # fmt: skip
def test_impossible_masks_are_refused(make: Callable[[], Mask], message: str):
    """The message names the value that was given."""
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize("name", ["reference", "sdpa", "local", "flex"])
def test_a_backend_refuses_the_padding_of_one_batch(name: str):
    """A backend serves every batch; padding is given to each call, also where it hides in a combination."""
    real = torch.ones(2, 7, dtype=torch.bool)
    for mask in (Padding(real), Window(2) & Padding(real), Padding(real) | Causal()):
        with pytest.raises(ConfigError, match="pass that as `keep`"):
            make_backend(name, mask)


def test_block_layouts_say_for_how_many_tokens_they_are():
    """A longer sequence is refused, also where the layout is part of a combination, and by the layout of blocks."""
    blocks = BlockSparse(LAYOUT, 7)
    for mask in (blocks, blocks | Window(1), Causal() & blocks):
        assert mask.dense(49).shape == (49, 49)
        with pytest.raises(DataError, match="up to 49 tokens, got 50: raise model.max_length, or use a window"):
            mask.dense(50)
        with pytest.raises(DataError, match="up to 49 tokens, got 50"):
            make_layout(mask, 50)
