"""Taps: what is read is what passed through, what is replaced is what goes on, and the model is left as it was."""

import math
import warnings

import numpy as np
import pytest
import torch
from torch import nn
from toy_attention import BACKENDS, draw, hooks, real_tokens, small_blocks, toy_encoder, toy_model

from bioattn.config import MaskConfig
from bioattn.errors import BioattnWarning, DataError
from bioattn.nn import attention, taps
from bioattn.tokens import nucleotide

#: Every tap of one block, and what follows the batch axis at 12 tokens (11 of 3 bp and CLS), 3 heads and 4 channels.
BLOCK_TAPS = {
    **{f"attn.{name}": (3, 12, 4) for name in ("query", "key", "value", "head_output")},
    **{f"attn.{name}": (3, 12, 12) for name in ("scores", "pattern")},
    **{name: (12, 12) for name in ("attn.output", "feedforward_output", "resid")},
}
NAMES = ["embed", *(f"layer.{i}.{name}" for i in range(2) for name in BLOCK_TAPS)]
TOKENS = nucleotide.encode(["ACGTTGCAAGCTTACGGATCCATTGCAGGATAC", "GATTACAGATTAC"])
EQUAL = {"rtol": 1e-10, "atol": 1e-11}

pytestmark = pytest.mark.filterwarnings("ignore::bioattn.errors.BioattnWarning")


def make_model(backend: str = "sdpa", **more):
    """Two blocks, a window beside a CLS token, 33 and 13 bp in tokens of 3 bp."""
    return toy_model(backend=backend, mask=MaskConfig(window=2), pooling="cls", **more)


def test_names_are_those_of_the_parts():
    """A model has the documented taps in every block, and no others."""
    model = make_model()
    assert set(taps.find_taps(model)) == set(NAMES)
    assert set(taps.find_taps(model.encoder)) == set(NAMES)
    assert all(isinstance(tap, taps.Tap) for tap in taps.find_taps(model).values())


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_tap_can_be_read_and_replaced_with_what_it_holds(backend: str, monkeypatch: pytest.MonkeyPatch):
    """Recording changes no readout, nor does replacing an activation with itself; with zeros each tap changes it."""
    small_blocks(monkeypatch)
    model = make_model(backend)
    before = {name: x.clone() for name, x in model.state_dict().items()}
    plain = model(TOKENS)
    for name in NAMES:
        with taps.record(model, [name]) as store:
            torch.testing.assert_close(model(TOKENS), plain, **EQUAL)
        assert list(store) == [name]
        shape = BLOCK_TAPS.get(name.partition(".")[2].partition(".")[2], (12, 12))
        assert store[name].shape == (2, *shape)
        with taps.edit(model, {name: taps.replace(store[name])}):
            torch.testing.assert_close(model(TOKENS), plain, **EQUAL)
        with taps.edit(model, {name: taps.zero()}):
            assert not torch.isclose(model(TOKENS), plain, atol=1e-4).any()
    assert torch.equal(model(TOKENS), plain)
    assert hooks(model) == 0
    after = model.state_dict()
    assert list(before) == list(after) and all(torch.equal(x, after[name]) for name, x in before.items())


def test_all_taps_at_once_hold_one_forward_pass():
    """What the taps of a layer hold fits together: scores to pattern to values to output to stream."""
    model = make_model(n_layers=1)
    with taps.record(model, taps.find_taps(model)) as store:
        model(TOKENS)
    part = {name.rpartition(".")[2]: x for name, x in store.items()}
    keep = real_tokens(12, 6)
    torch.testing.assert_close(part["pattern"], attention.pattern(part["scores"]))
    torch.testing.assert_close(part["head_output"], part["pattern"] @ part["value"], **EQUAL)
    attn = model.encoder.layer[0].attn
    torch.testing.assert_close(
        part["output"], attn.project_out(part["head_output"].transpose(1, 2).flatten(2)), **EQUAL
    )
    stream = (part["embed"] + part["output"] + part["feedforward_output"]) * keep[..., None]
    torch.testing.assert_close(part["resid"], stream, **EQUAL)
    raw = part["query"] @ part["key"].transpose(-2, -1) / 2
    position = torch.arange(12)
    raw = raw + attn.relative(position[:, None], position)
    allowed = (model.encoder.layer[0].attn.backend.mask.dense(12) & keep[:, None, None, :]).expand_as(raw)
    torch.testing.assert_close(part["scores"], raw.masked_fill(~allowed, -math.inf), **EQUAL)


def test_patching_the_stream_after_a_block_reproduces_the_other_run():
    """All of `layer.0.resid` from another sequence gives that sequence's readout; one token of it, neither."""
    model = make_model()
    clean, other = TOKENS[:1], TOKENS[:1].flip(1)
    with taps.record(model, ["layer.0.resid"]) as store:
        target = model(other)
    assert not torch.isclose(model(clean), target, atol=1e-3).any()
    with taps.edit(model, {"layer.0.resid": taps.patch(store["layer.0.resid"])}):
        torch.testing.assert_close(model(clean), target, **EQUAL)
    with taps.edit(model, {"layer.0.resid": taps.patch(store["layer.0.resid"], np.s_[:, 5])}):
        partly = model(clean)
    assert not torch.isclose(partly, target, atol=1e-6).any()
    assert not torch.isclose(partly, model(clean), atol=1e-6).any()


def test_a_cut_edge_carries_nothing():
    """The pattern is zero at a cut edge, elsewhere as before but renormalised; a query without edges reads zero."""
    model = make_model("local")
    edges = torch.zeros(3, 12, 12, dtype=torch.bool)
    edges[1, 4, 5] = edges[2, 3:5, 0] = True
    edges[0, 7] = True
    name = "layer.0.attn.pattern"
    with taps.record(model, [name]) as before:
        model(TOKENS)
    with taps.edit(model, {"layer.0.attn.scores": taps.cut(edges)}), taps.record(model, [name]) as after:
        model(TOKENS)
    pattern, left = after[name], before[name].masked_fill(edges, 0.0)
    assert (before[name][:, edges].amax(0) > 0).sum() > 5 and (pattern[:, edges] == 0).all()
    total = left.sum(-1, keepdim=True)
    torch.testing.assert_close(pattern, left / total.where(total > 0, 1.0), **EQUAL)
    whole = torch.ones(2, 3, 12, dtype=torch.float64)
    whole[:, 0, 7] = 0
    torch.testing.assert_close(pattern.sum(-1), whole)


def test_replace_zero_and_add_act_where_they_are_told():
    """Entries at the index change, all others stay, and the recorded activation itself is not written to."""
    x = draw(2, 3, 5, 7)
    original = x.clone()
    at = np.s_[:, 1]
    for change, expected in [
        (taps.replace(3.0, at), torch.full_like(x[at], 3.0)),
        (taps.replace(x[:, 2], at), x[:, 2]),
        (taps.zero(at), torch.zeros_like(x[at])),
        (taps.add(2.5, at), x[at] + 2.5),
        (taps.patch(-x, at), -x[at]),
        (taps.mean_replace(torch.full((1, 3, 1, 7), 0.5), at), torch.full_like(x[at], 0.5)),
    ]:
        changed = change(x)
        torch.testing.assert_close(changed[:, 1], expected)
        assert torch.equal(changed[:, [0, 2]], original[:, [0, 2]]) and torch.equal(x, original)
    assert torch.equal(taps.replace(original)(torch.zeros_like(x)), original)
    assert torch.equal(taps.zero()(x), torch.zeros_like(x))
    assert torch.equal(taps.add(1.0)(x), x + 1)
    chosen = x > 0
    assert torch.equal(taps.zero(chosen)(x), x.clamp(max=0))


@pytest.mark.parametrize("shape", [(2, 5, 7), (2, 3, 5, 7)])
def test_mean_over_leaves_padding_out(shape: tuple[int, ...]):
    """The mean is over examples and real tokens; replacing with it gives every example the same."""
    x, keep = draw(*shape), real_tokens(5, 3)
    tokens = x if x.ndim == 3 else x.transpose(1, 2)
    expected = tokens[keep].mean(0)
    mean = taps.mean_over(x, keep)
    assert mean.shape == tuple(1 if axis in (0, len(shape) - 2) else n for axis, n in enumerate(shape))
    torch.testing.assert_close(mean.squeeze(), expected, **EQUAL)
    torch.testing.assert_close(taps.mean_over(x).squeeze(), tokens.flatten(0, 1).mean(0), **EQUAL)
    assert not torch.isclose(taps.mean_over(x), mean).any()
    assert torch.equal(taps.mean_replace(mean)(x), mean.expand_as(x))


def test_mean_ablation_removes_what_differs_between_sequences():
    """With the stream of all tokens at its mean, every sequence has one readout; padding has no say in the mean."""
    model = toy_model(pooling="mean", n_layers=1, positions="none")
    other = nucleotide.encode(["TTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTTT", "GATTACAGATTAC"])
    with taps.record(model, ["layer.0.resid"]) as store:
        plain = model(TOKENS)
    mean = taps.mean_over(store["layer.0.resid"], model.real_tokens(TOKENS))
    with taps.edit(model, {"layer.0.resid": taps.mean_replace(mean)}):
        readouts = torch.cat([model(TOKENS), model(other)])
    torch.testing.assert_close(readouts, readouts[:1].expand(4, 2), **EQUAL)
    assert not torch.isclose(readouts[:2], plain, atol=1e-4).any()


def test_edits_compose():
    """Two edits act together; at one tap they act in the order in which they were opened, and may undo each other."""
    model = make_model()
    plain = model(TOKENS)
    one, two = "layer.0.attn.head_output", "layer.1.feedforward_output"
    first, second = {one: taps.zero(np.s_[:, 2])}, {two: taps.add(1.0, np.s_[..., :5])}
    with taps.edit(model, first | second):
        together = model(TOKENS)
    with taps.edit(model, first), taps.edit(model, second):
        assert torch.equal(model(TOKENS), together)
    for alone in (first, second):
        with taps.edit(model, alone):
            assert not torch.isclose(model(TOKENS), together, atol=1e-5).any()
    with taps.edit(model, {two: taps.add(3.0)}), taps.edit(model, {two: lambda x: x - 3.0}):
        torch.testing.assert_close(model(TOKENS), plain, **EQUAL)
    with (
        taps.edit(model, {two: taps.add(1.0)}),
        taps.edit(model, {two: lambda x: 2 * x}),
        taps.record(model, [two]) as edited,
    ):
        model(TOKENS)
    with taps.record(model, [two]) as store:
        model(TOKENS)
    torch.testing.assert_close(edited[two], 2 * (store[two] + 1.0), **EQUAL)


def test_gradients_flow_through_taps():
    """Recorded activations stay in the graph, and an edit passes gradients to what it does not replace."""
    model = make_model()
    name = "layer.0.attn.head_output"
    with taps.edit(model, {name: taps.zero(np.s_[:, 1])}), taps.record(model, ["layer.0.attn.value"]) as store:
        readout = model(TOKENS)
    gradient = torch.autograd.grad(readout.sum(), store["layer.0.attn.value"])[0]
    assert (gradient[:, 1] == 0).all() and (gradient[:, [0, 2]].abs().sum((1, 2, 3)) > 0).all()


def test_an_exception_leaves_no_hook_behind():
    """Whatever goes wrong inside, in the body, in an edit or in a later name, the model is as before."""
    model = make_model()
    plain = model(TOKENS)

    def broken(x: torch.Tensor) -> torch.Tensor:
        raise ZeroDivisionError

    with pytest.raises(RuntimeError), taps.record(model, NAMES), taps.edit(model, {NAMES[3]: taps.zero()}):
        raise RuntimeError
    with pytest.raises(ZeroDivisionError), taps.edit(model, {"layer.1.resid": broken}):
        model(TOKENS)
    with pytest.raises(DataError), taps.record(model, ["layer.0.resid", "layer.9.resid"]):
        pass
    with pytest.raises(DataError), taps.edit(model, {"layer.0.resid": taps.zero(), "layer.9.resid": taps.zero()}):
        pass
    assert hooks(model) == 0
    assert torch.equal(model(TOKENS), plain)


def test_wrong_names_are_answered_with_near_ones():
    """A name that is no tap, however far from one, is refused with names that are; so is a model without taps."""
    model = make_model()
    for open_tap in (lambda name: taps.record(model, [name]), lambda name: taps.edit(model, {name: taps.zero()})):
        near = r"'layer\.1\.attn\.patern' is not a tap of this model; near names: layer\.1\.attn\.pattern"
        with pytest.raises(DataError, match=near), open_tap("layer.1.attn.patern"):
            pass
        with pytest.raises(DataError, match="'0' is not a tap of this model; near names: embed, layer"), open_tap("0"):
            pass
    with pytest.raises(DataError, match="'embed' cannot be tapped: this model has no taps"):
        with taps.record(nn.Linear(2, 3), ["embed"]):
            pass


def test_an_edit_must_keep_the_shape():
    """The message names the tap and both shapes."""
    model = make_model()
    message = r"the edit of 'layer\.0\.resid' must keep the shape \(2, 12, 12\), got \(2, 12, 11\)"
    with taps.edit(model, {"layer.0.resid": lambda x: x[..., 1:]}), pytest.raises(DataError, match=message):
        model(TOKENS)


@pytest.mark.parametrize("tap", ["scores", "pattern"])
def test_tapped_scores_of_a_linear_backend_warn_and_stay_in_their_layer(tap: str, monkeypatch: pytest.MonkeyPatch):
    """The warning names the layer and the size; only that layer writes scores out; the numbers are the same."""
    small_blocks(monkeypatch)
    encoder = toy_encoder("local", "window", n_layers=3)
    x, keep = draw(2, 13, 12), real_tokens(13, 7)
    plain = encoder(x, keep=keep)
    sizes = []
    scores = attention.scores
    monkeypatch.setattr(attention, "scores", lambda *x, **more: (sizes.append(x[0].shape[2]), scores(*x, **more))[1])
    message = r"layer\.1\.attn: backend 'local' does not hold scores, .* \(2 x 3 x 13 x 13, 0 MiB\); attention_rows"
    with taps.record(encoder, [f"layer.1.attn.{tap}"]), pytest.warns(BioattnWarning, match=message) as caught:
        torch.testing.assert_close(encoder(x, keep=keep), plain, **EQUAL)
    assert len(caught) == 1 and sizes == [13]


@pytest.mark.parametrize("backend", ["reference", "sdpa"])
def test_tapped_scores_of_other_backends_are_silent(backend: str):
    """Where scores are held in full anyway, or cost no more than the mask, nothing is said."""
    encoder = toy_encoder(backend, "window")
    with taps.record(encoder, ["layer.0.attn.scores"]), warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder(draw(2, 13, 12))


def test_other_taps_do_not_write_scores_out(monkeypatch: pytest.MonkeyPatch):
    """Queries, keys, values and outputs are read without leaving the fast path."""
    encoder = toy_encoder("local", "window")
    monkeypatch.setattr(attention, "scores", None)
    names = [n for n in taps.find_taps(encoder) if not n.endswith(("scores", "pattern"))]
    with taps.record(encoder, names) as store, warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder(draw(2, 13, 12))
    assert set(store) == set(names) and len(names) == 15
