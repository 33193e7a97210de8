"""Attention on demand: equal to the tapped pattern, without ever holding one, on a model that is left as it was."""

import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from toy_attention import BACKENDS, KERNELS, draw, hooks, real_tokens, small_blocks, toy_encoder, toy_model

from bioattn.config import MaskConfig
from bioattn.errors import DataError
from bioattn.nn import attention, backends, observe, sums, taps
from bioattn.nn.masks import Window
from bioattn.nn.observe import (
    attention_blocks,
    attention_columns,
    attention_layers,
    attention_rows,
    attention_sums,
)
from bioattn.tokens import nucleotide

N, LENGTH = 5, 13
X = draw(N, LENGTH, 12)
KEEP = real_tokens(13, 7, 1, 11, 2)
QUERIES, KEYS = torch.tensor([0, 4, 12]), torch.tensor([11, 4, 1, 0, 6, 6, 2])
#: A result is in float32; both ways computed in float64, so they differ by one rounding.
ROUNDING = {"rtol": 2e-7, "atol": 1e-12}

pytestmark = pytest.mark.filterwarnings("ignore::bioattn.errors.BioattnWarning")


def tapped_pattern(model: nn.Module, x: Tensor, **keep: Tensor) -> Tensor:
    """Whole pattern (N, layers, H, Q, K) by taps, of the strand that is given."""
    names = [n for n in taps.find_taps(model) if n.endswith("pattern")]
    with torch.no_grad(), taps.record(model, names) as store:
        getattr(model, "one_strand", model)(x, **keep)
    return torch.stack([store[n] for n in names], dim=1)


def sums_of(pattern: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor]:
    """Attention received and entropy in bits (N, layers, H, L), by their definitions on whole patterns."""
    real = torch.ones(len(pattern), pattern.shape[-1], dtype=torch.bool) if keep is None else keep
    real = real[:, None, None]
    received = (pattern * real[..., None]).sum(-2)
    entropy = -(pattern * pattern.clamp(min=1e-300).log2()).sum(-1)
    return tuple(x.where(real, math.nan).float() for x in (received, entropy))


@pytest.mark.parametrize("keep", [None, KEEP], ids=["whole", "padded"])
@pytest.mark.parametrize("positions", ["rope", "relative", "alibi"])
@pytest.mark.parametrize(("backend", "mask"), KERNELS)
def test_what_is_observed_equals_the_tapped_pattern(
    backend: str, mask: str, positions: str, keep: Tensor | None, monkeypatch: pytest.MonkeyPatch
):
    """Rows, columns, blocks and sums are the pattern's for every backend, mask and bias, over several batches."""
    small_blocks(monkeypatch)
    model = toy_encoder(backend, mask, positions=positions)
    more = {} if keep is None else {"keep": keep}
    pattern = tapped_pattern(model, X, **more)
    assert pattern.shape == (N, 2, 3, LENGTH, LENGTH)
    rows = attention_rows(model, X, None, None, QUERIES, batch_size=2, **more)
    torch.testing.assert_close(rows, pattern[..., QUERIES, :].float(), **ROUNDING)
    block = attention_blocks(model, X, None, None, QUERIES, KEYS, batch_size=2, **more)
    torch.testing.assert_close(block, pattern[..., QUERIES, :][..., KEYS].float(), **ROUNDING)
    columns = attention_columns(model, X, None, None, KEYS, batch_size=2, **more)
    torch.testing.assert_close(columns, pattern[..., KEYS].transpose(-1, -2).float(), **ROUNDING)
    sums = attention_sums(model, X, batch_size=2, **more)
    for found, expected in zip(sums, sums_of(pattern, keep), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("backend", BACKENDS)
def test_sequence_models_are_observed_on_the_strand_that_is_given(backend: str):
    """With CLS token, padding and averaged strands, entries are those of the given strand, at index token + 1."""
    model = toy_model(
        backend=backend, mask=MaskConfig(window=2), pooling="cls", reverse_complement="average", positions="rope"
    )
    tokens = nucleotide.encode(["ACGTTGCAAGCTTACGGATCCATTGCAGGATAC", "GATTACAGATTAC", "ACCA"])
    pattern = tapped_pattern(model, tokens)
    assert pattern.shape == (3, 2, 3, 12, 12)
    everything = torch.arange(12)
    rows = attention_rows(model, tokens, None, None, everything, batch_size=2)
    torch.testing.assert_close(rows, pattern.float(), **ROUNDING)
    columns = attention_columns(model, tokens, None, None, everything, batch_size=2)
    torch.testing.assert_close(columns, pattern.transpose(-1, -2).float(), **ROUNDING)
    keep = nn.functional.pad(model.real_tokens(tokens), (1, 0), value=True)
    for found, expected in zip(attention_sums(model, tokens), sums_of(pattern, keep), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6, equal_nan=True)
    assert (rows[1, :, :, :, 6:] == 0).all() and (rows[1, :, :, :6, 0] > 0).all()


@pytest.mark.parametrize("positions", ["rope", "relative"])
@pytest.mark.parametrize("mask", ["none", "window"])
def test_queries_and_keys_of_each_example(mask: str, positions: str):
    """Positions may differ between examples; -1 stands for none and gives zeros, the rest stays in its place."""
    model = toy_encoder("sdpa", mask, positions=positions)
    pattern = tapped_pattern(model, X, keep=KEEP)
    queries = torch.tensor([[3, 0], [6, -1], [0, 0], [-1, -1], [-1, 1]])
    keys = torch.tensor([[3, -1, 6], [4, 5, 6], [0, -1, -1], [0, 1, 2], [-1, 0, 1]])
    rows = attention_rows(model, X, None, None, queries, keep=KEEP, batch_size=3)
    block = attention_blocks(model, X, None, None, queries, keys, keep=KEEP, batch_size=3)
    columns = attention_columns(model, X, None, None, keys, keep=KEEP, batch_size=3)
    for n in range(N):
        for j, k in enumerate(keys[n].tolist()):
            column = pattern[n, ..., k] if k >= 0 else torch.zeros(2, 3, LENGTH, dtype=torch.float64)
            torch.testing.assert_close(columns[n, :, :, j], column.float(), **ROUNDING)
        for i, q in enumerate(queries[n].tolist()):
            row = pattern[n, :, :, q] if q >= 0 else torch.zeros(2, 3, LENGTH, dtype=torch.float64)
            torch.testing.assert_close(rows[n, :, :, i], row.float(), **ROUNDING)
            for j, k in enumerate(keys[n].tolist()):
                entry = row[..., k] if k >= 0 else torch.zeros(2, 3, dtype=torch.float64)
                torch.testing.assert_close(block[n, :, :, i, j], entry.float(), **ROUNDING)


@pytest.mark.parametrize(("backend", "mask"), [("local", "window"), ("sdpa", "none")])
def test_one_layer_or_head_is_that_part_of_all(backend: str, mask: str):
    """A number for layer or head selects it and drops its axis."""
    model = toy_encoder(backend, mask, positions="rope")
    everything = attention_rows(model, X, None, None, QUERIES, keep=KEEP)
    some = attention_blocks(model, X, None, None, QUERIES, KEYS, keep=KEEP)
    columns = attention_columns(model, X, None, None, KEYS, keep=KEEP)
    for layer in (None, 0, 1):
        for head in (None, 0, 2):
            part = (slice(None), slice(None) if layer is None else layer, slice(None) if head is None else head)
            rows = attention_rows(model, X, layer, head, QUERIES, keep=KEEP)
            torch.testing.assert_close(rows, everything[part], **ROUNDING)
            block = attention_blocks(model, X, layer, head, QUERIES, KEYS, keep=KEEP)
            torch.testing.assert_close(block, some[part], **ROUNDING)
            column = attention_columns(model, X, layer, head, KEYS, keep=KEEP)
            torch.testing.assert_close(column, columns[part], **ROUNDING)


def test_no_queries_give_no_rows():
    """An empty list of queries or keys gives an empty axis."""
    model, none = toy_encoder(), torch.zeros(0, dtype=torch.int64)
    assert attention_rows(model, X, 0, None, none).shape == (N, 3, 0, LENGTH)
    assert attention_blocks(model, X, None, 1, QUERIES, none).shape == (N, 2, 3, 0)
    for positions in ("rope", "relative"):
        assert attention_columns(toy_encoder(positions=positions), X, None, 1, none).shape == (N, 2, 0, LENGTH)


def test_edits_upstream_are_seen():
    """Entries are those of the model as it runs: with a layer's values at zero, the next layer attends otherwise."""
    model = toy_encoder()
    plain = attention_rows(model, X, None, None, QUERIES)
    with taps.edit(model, {"layer.0.attn.head_output": taps.zero()}):
        edited = attention_rows(model, X, None, None, QUERIES)
        torch.testing.assert_close(edited, tapped_pattern(model, X)[..., QUERIES, :].float(), **ROUNDING)
    assert torch.equal(plain[:, 0], edited[:, 0]) and not torch.isclose(plain[:, 1], edited[:, 1], atol=1e-4).all()


def test_flex_is_observed_without_being_run():
    """The first layer's pattern needs no kernel: a model with FlexAttention is read where it cannot be compiled."""
    model, twin = toy_encoder("flex", "window"), toy_encoder("sdpa", "window")
    rows = attention_rows(model, X, 0, None, QUERIES, keep=KEEP)
    assert torch.equal(rows, attention_rows(twin, X, 0, None, QUERIES, keep=KEEP))


def test_uniform_attention_receives_one_and_has_log2_entropy():
    """With queries at zero every real key receives 1 from all queries, and a row of n keys holds log2 n bits."""
    model = toy_encoder(positions="none", n_layers=1)
    with taps.edit(model, {"layer.0.attn.query": taps.zero()}):
        sums = attention_sums(model, X, keep=KEEP)
    for i, n in enumerate(KEEP.sum(1).tolist()):
        torch.testing.assert_close(sums.received[i, :, :, :n], torch.ones(1, 3, n))
        torch.testing.assert_close(sums.entropy[i, :, :, :n], torch.full((1, 3, n), math.log2(n)))
        assert sums.received[i, :, :, n:].isnan().all() and sums.entropy[i, :, :, n:].isnan().all()


def observed(query: Tensor, key: Tensor, keep: Tensor | None = None, module: object = None) -> sums.Observed:
    """A layer without bias and mask, or another one, on queries and keys (B, H, L, C)."""
    plain = SimpleNamespace(relative=None, backend=SimpleNamespace(mask=None))
    return sums.Observed(module or plain, query, key, keep, slice(None))


def by_definition(seen: sums.Observed) -> tuple[Tensor, Tensor]:
    """Sums of a layer without bias and mask, in float64."""
    keep = None if seen.keep is None else seen.keep[:, None, None]
    pattern = attention.pattern(attention.scores(seen.query.double(), seen.key.double(), keep=keep))
    return tuple(x[:, 0] for x in sums_of(pattern[:, None], seen.keep))


@pytest.mark.parametrize("keep", [None, real_tokens(61, 7, 1, 53, 32, longest=61)], ids=["whole", "padded"])
@pytest.mark.parametrize("largest", [0.1, 1, 30, 63, 200, 1000])
def test_fused_sums_are_exact_whatever_the_size_of_scores(largest: float, keep: Tensor | None):
    """In float32, with scores up to 1000, fused and chunked sums are the definition's in float64, to about 1e-5."""
    query, key = draw(2, 5, 3, 61, 7).float()
    size = (largest / attention.scores(query, key).abs().max()).sqrt()
    seen = observed(query * size, key * size, keep)
    assert sums.is_plain(seen)
    received, entropy = by_definition(seen)
    fast = sums.layer_sums(seen)
    torch.testing.assert_close(fast[0], received, rtol=1e-5, atol=1e-6, equal_nan=True)
    torch.testing.assert_close(fast[1], entropy, rtol=1e-5, atol=3e-5, equal_nan=True)
    torch.testing.assert_close(sums.layer_received(seen), received, rtol=2e-5, atol=1e-6, equal_nan=True)
    # Written-out scores are rounded too: by 1e-3 times 2^-24 times the largest of them at the most.
    for slow, exact in zip(sums._chunked(seen), (received, entropy), strict=True):
        known = exact.isfinite()
        torch.testing.assert_close(slow[known], exact[known], rtol=3e-7 * max(largest, 30), atol=3e-7 * largest + 1e-6)


def test_half_precision_is_raised():
    """Queries and keys in bfloat16 are looked at in float32: sums are those of the same numbers there."""
    query, key = draw(2, 3, 2, 11, 5).bfloat16()
    for fast, exact in zip(sums.layer_sums(observed(query, key)), by_definition(observed(query, key)), strict=True):
        torch.testing.assert_close(fast, exact, rtol=1e-6, atol=3e-6)


def test_without_the_kernel_the_numbers_stay(monkeypatch: pytest.MonkeyPatch):
    """Where PyTorch lacks the fused kernel, sums and columns are computed in chunks, with equal results."""
    model = toy_encoder(positions="rope")

    def look() -> list[Tensor]:
        return [*attention_sums(model, X, keep=KEEP), attention_columns(model, X, None, None, KEYS, keep=KEEP)]

    fused = look()
    monkeypatch.setattr(sums, "_HAS_KERNEL", False)
    monkeypatch.setattr(sums, "_softmax_over", None)
    for one, other in zip(look(), fused, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6, equal_nan=True)


def test_only_plain_layers_are_fused():
    """A bias, a mask or another device than the CPU keeps a layer from the fused path."""
    query, key = draw(2, 2, 3, 7, 4)
    assert sums.is_plain(observed(query, key, module=toy_encoder(positions="rope").layer[0].attn))
    for positions, mask in [("relative", "none"), ("alibi", "none"), ("rope", "window"), ("rope", "causal")]:
        module = toy_encoder("sdpa", mask, positions=positions).layer[0].attn
        assert not sums.is_plain(observed(query, key, module=module))
    assert not sums.is_plain(observed(query.to("meta"), key.to("meta")))


@pytest.mark.parametrize("largest", [1, 1000])
@pytest.mark.parametrize("keep", [None, real_tokens(13, 7, 0)], ids=["whole", "padded"])
def test_what_queries_return_to_keys(keep: Tensor | None, largest: float):
    """The pattern's transpose times any vectors of the queries, padded ones left out; nothing where there is no key."""
    query, key, x = draw(3, 3, 2, 13, 5).float()
    size = (largest / attention.scores(query, key).abs().max()).sqrt()
    seen = observed(query * size, key * size, keep)
    real = torch.ones(3, 13, dtype=torch.bool) if keep is None else keep
    scores = attention.scores(seen.query.double(), seen.key.double(), keep=real[:, None, None])
    pattern = attention.pattern(scores) * real[:, None, :, None]
    expected = (pattern.transpose(-1, -2) @ x.double()).float()
    received, returned = sums.layer_returns(seen, x)
    torch.testing.assert_close(returned, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(received, pattern.sum(2).float().where(real[:, None], math.nan), equal_nan=True)


@pytest.mark.parametrize("padded", [False, True])
def test_kept_denominators_are_the_layers_own(padded: bool):
    """What a fused kernel keeps for its gradient is the logarithm of the denominators; other kernels keep none."""
    query, key, value = draw(3, 2, 3, 11, 4)
    keep = real_tokens(11, 5)[:, None, None] if padded else None
    assert sums.kept_lse(attention.fused(query, key, value, keep=keep)) is None  # nothing wants a gradient
    value.requires_grad_()
    lse = sums.kept_lse(attention.fused(query, key, value, keep=keep))
    expected = attention.scores(query, key, keep=keep).logsumexp(-1)
    torch.testing.assert_close(lse, expected, check_dtype=False, rtol=1e-6, atol=1e-6)
    assert sums.kept_lse(attention.scaled_dot_product(query, key, value, keep=keep)[0]) is None


class Largest(TorchDispatchMode):
    """Numbers in the largest tensor that any operation returns while open."""

    numbers = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for x in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(x, Tensor):
                self.numbers = max(self.numbers, x.numel())
        return result


@pytest.mark.parametrize("positions", ["rope", "relative"])
def test_entries_never_hold_a_pattern(positions: str):
    """Among all tensors of all operations none is larger than Q x L scores per head or the tokens of a layer."""
    n_batch, length = 2, 307
    model, x = toy_encoder("local", "window", positions=positions), draw(n_batch, length, 12)
    model(x)  # the layout of this length is made once
    tokens = n_batch * length * 3 * 12
    most = max(tokens, n_batch * 3 * len(QUERIES) * length)
    for look in (
        lambda: attention_rows(model, x, 0, None, QUERIES),
        lambda: attention_blocks(model, x, 0, None, QUERIES, KEYS),
    ):
        with Largest() as largest:
            look()
        assert 0 < largest.numbers <= most
    with Largest() as largest:
        tapped_pattern(model, x)
    assert largest.numbers >= n_batch * 3 * length * length > 10 * most


def test_fused_sums_never_hold_a_pattern():
    """With plain scores, sums and columns need no tensor above the tokens of a layer or K x L scores per head."""
    n_batch, length = 2, 307
    model, x = toy_encoder(positions="rope"), draw(n_batch, length, 12)
    # Projections of a layer, or the columns of both layers.
    most = n_batch * length * max(3 * 12, 2 * 3 * len(KEYS))
    for look in (attention_sums, lambda model, x: attention_columns(model, x, None, None, KEYS)):
        with Largest() as largest:
            look(model, x)
        assert 0 < largest.numbers <= most < n_batch * 3 * length * length / 10


@pytest.fixture
def score_sizes(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of all scores that are written out."""
    shapes: list[tuple[int, ...]] = []
    scores = attention.scores

    def noted(*x: Tensor, **more: Tensor) -> Tensor:
        result = scores(*x, **more)
        shapes.append(tuple(result.shape))
        return result

    monkeypatch.setattr(attention, "scores", noted)
    return shapes


def test_blocks_hold_one_row_of_scores_per_query(score_sizes: list):
    """The scores for a block are (B, H, Q, L), with one head only if one is asked for."""
    model = toy_encoder("sdpa", "none")
    attention_blocks(model, X, 1, None, QUERIES, KEYS)
    attention_blocks(model, X, 0, 2, QUERIES, KEYS)
    assert score_sizes == [(N, 3, len(QUERIES), LENGTH), (N, 1, len(QUERIES), LENGTH)]


@pytest.mark.parametrize(("backend", "mask"), [k for k in KERNELS if k[0] != "reference"])
def test_scores_are_bounded(backend: str, mask: str, score_sizes: list, monkeypatch: pytest.MonkeyPatch):
    """However many queries are looked at, scores stay below the bound, and the results stay the same."""
    small_blocks(monkeypatch)
    model, x, keep = toy_encoder(backend, mask), draw(2, 37, 12), real_tokens(37, 20)
    queries = torch.arange(37)

    def look() -> list[Tensor]:
        return [attention_rows(model, x, None, None, queries, keep=keep), *attention_sums(model, x, keep=keep)]

    unbounded = look()
    assert max(map(math.prod, score_sizes)) > 1400
    score_sizes.clear()
    for module in (backends, observe, sums):
        monkeypatch.setattr(module, "MOST_SCORES", 1400)
    for found, expected in zip(look(), unbounded, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6, equal_nan=True)
    assert max(map(math.prod, score_sizes)) <= 1400


def test_sums_under_a_sparse_mask_cost_linear_time(score_sizes: list):
    """With the local backend, each further token adds equally many scores; without a sparse mask, more and more."""
    added = {}
    for backend, mask in (("local", "window"), ("sdpa", "window")):
        total = []
        for length in (256, 512, 768):
            score_sizes.clear()
            attention_sums(toy_encoder(backend, mask, n_layers=1, positions="none"), draw(1, length, 12))
            total.append(sum(map(math.prod, score_sizes)))
        added[backend] = total[1] - total[0], total[2] - total[1]
    assert added["local"][0] == added["local"][1] and added["sdpa"][1] > 1.5 * added["sdpa"][0]


def test_later_layers_are_not_run():
    """The model stops at the last layer that is asked for, right after its queries and keys."""
    model = toy_encoder("sdpa", n_layers=3)
    run: list[int] = []
    for i, block in enumerate(model.layer):
        block.attn.value.register_forward_hook(lambda *_, i=i: run.append(i))
    for layer, expected in [(0, []), (1, [0]), (2, [0, 1]), (None, [0, 1])]:
        run.clear()
        attention_rows(model, X, layer, None, QUERIES)
        assert run == expected
        run.clear()
        attention_columns(model, X, layer, None, KEYS)
        assert run == expected


def broken(model: nn.Module) -> None:
    attention_rows(model, X, 1, None, torch.tensor([LENGTH]))


def wrong_input(model: nn.Module) -> None:
    attention_rows(model, X[..., 1:], 1, None, QUERIES)


def interrupted(model: nn.Module) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "stack", lambda *_, **__: wrong_input(model))
        attention_rows(model, X, 1, None, QUERIES)


def fine(model: nn.Module) -> None:
    attention_rows(model, X, 1, None, QUERIES)
    attention_blocks(model, X, None, 1, QUERIES, KEYS)
    attention_columns(model, X, None, 1, KEYS)
    attention_sums(model, X)


@pytest.mark.parametrize("look", [fine, broken, wrong_input, interrupted])
@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_as_it_was(look: Callable[[nn.Module], None], training: bool):
    """Hooks, weights, mode and gradients are as before, also after an error whose traceback is still held."""
    model = toy_encoder("sdpa").train(training)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    failure = None
    try:
        look(model)
    except DataError as error:
        failure = error
    assert (failure is None) == (look is fine)
    assert hooks(model) == 0 and model.training == training
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())
    model(X).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_a_layout_made_while_observing_serves_training():
    """Sums on the local backend make its layout in inference mode; a training step at that length follows."""
    model = toy_encoder("local", "window")
    attention_sums(model, X)
    model(X).sum().backward()
    assert model.layer[0].attn.project_in.weight.grad.abs().sum() > 0


class TwoEncoders(nn.Module):
    """Runs the first of two encoders only."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.idle = toy_encoder(n_layers=1), toy_encoder(n_layers=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


def test_any_model_with_attention_layers_will_do():
    """Layers are found in a model of the caller's own; one that never runs is named, and leaves no hooks."""
    model = TwoEncoders()
    assert len(attention_layers(model)) == 2 and attention_layers(nn.Linear(2, 3)) == []
    rows = attention_rows(model, X, 0, None, QUERIES)
    torch.testing.assert_close(rows, attention_rows(model.used, X, 0, None, QUERIES))
    with pytest.raises(DataError, match="layer 1 was not run"):
        attention_rows(model, X, None, None, QUERIES)
    assert hooks(model) == 0


@pytest.mark.parametrize(
    ("layer", "head", "queries", "message"),
    [
        (2, None, [0], "layer 2 does not exist: this model has 2, numbered 0 to 1"),
        (-1, None, [0], "layer -1 does not exist"),
        (0, 3, [0], "head 3 does not exist: this model has 3, numbered 0 to 2"),
        (None, -1, [0], "head -1 does not exist"),
        (0, 0, [13], r"queries must lie in 0 to 12 \(or be -1 for none\), got 13 to 13"),
        (0, 0, [-2, 4], "queries must lie in 0 to 12 .*, got -2 to 4"),
        (0, 0, [0.0], r"queries must be int64 positions of shape \(n,\) or \(5, n\), got torch.float32 \(1,\)"),
        (0, 0, [True, False], "int64 positions .*, got torch.bool"),
        (0, 0, [[0], [1]], r"\(5, n\), got torch.int64 \(2, 1\)"),
        (0, 0, [[[0]]], r"got torch.int64 \(1, 1, 1\)"),
        (0, 0, 0, r"got torch.int64 \(\)"),
    ],
)
def test_wrong_requests_are_refused(layer, head, queries, message: str):
    """Layers, heads and positions that do not exist, and positions of the wrong type or shape, for rows and blocks."""
    model, positions = toy_encoder(), torch.tensor(queries)
    with pytest.raises(DataError, match=message):
        attention_rows(model, X, layer, head, positions)
    with pytest.raises(DataError, match=message):
        attention_blocks(model, X, layer, head, positions, KEYS)
    if "queries" in message:
        with pytest.raises(DataError, match=message.replace("queries", "keys")):
            attention_blocks(model, X, layer, head, QUERIES, positions)
        for kind in ("rope", "relative"):
            with pytest.raises(DataError, match=message.replace("queries", "keys")):
                attention_columns(toy_encoder(positions=kind), X, layer, head, positions)


def test_models_without_attention_or_examples_are_refused():
    """The message says what is missing."""
    for look in (
        lambda m, x: attention_rows(m, x, None, None, QUERIES),
        lambda m, x: attention_rows(m, x, 0, 0, QUERIES),
        lambda m, x: attention_blocks(m, x, None, None, QUERIES, KEYS),
        lambda m, x: attention_columns(m, x, None, None, KEYS),
        attention_sums,
    ):
        with pytest.raises(DataError, match="this model has no attention layers"):
            look(nn.Linear(12, 12), X)
        with pytest.raises(DataError, match="there is no example to look at"):
            look(toy_encoder(), X[:0])


def test_a_window_bounds_what_a_key_receives():
    """A key beyond the window of all queries gets nothing: received attention comes from within the radius only."""
    model = toy_encoder("local", "window", n_layers=1)
    assert isinstance(model.layer[0].attn.backend.mask, Window)
    rows = attention_rows(model, X, 0, None, torch.tensor([9]))
    assert (rows[..., :6] == 0).all() and (rows[..., 6:] > 0).all()
