"""The recurrent encoder: padding takes no part, and every sequence is read as if it were alone."""

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from bioattn.errors import ConfigError, DataError
from bioattn.nn import taps
from bioattn.nn.encoder import Encoder
from bioattn.nn.recurrent import RecurrentEncoder, hidden_for

KINDS = ["gru", "lstm"]
LENGTHS = (11, 3, 7, 1, 5)
D_MODEL = 6


def make_encoder(kind: str, *, n_layers: int = 2, **more) -> RecurrentEncoder:
    """Encoder in float64 and evaluation mode."""
    torch.manual_seed(2)
    return RecurrentEncoder(D_MODEL, n_layers, kind=kind, **more).double().eval()


def batch(*, length: int = 11, padding: float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens (B, L, D) whose padding holds one value, and which of them are real."""
    keep = torch.arange(length) < torch.tensor(LENGTHS)[:, None]
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(len(LENGTHS), max(LENGTHS), D_MODEL, generator=generator, dtype=torch.float64)
    x = torch.cat([x, torch.zeros(len(LENGTHS), length - max(LENGTHS), D_MODEL, dtype=torch.float64)], dim=1)
    return x.masked_fill(~keep[..., None], padding), keep


def one_direction(cell: nn.GRU | nn.LSTM, tokens: torch.Tensor) -> torch.Tensor:
    """Hidden states (L, C) of one sequence (L, D), step by step from the equations in PyTorch's documentation."""
    w_x, w_h, b_x, b_h = (getattr(cell, f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
    hidden = memory = tokens.new_zeros(cell.hidden_size)
    states = []
    for token in tokens:
        from_token, from_hidden = w_x @ token + b_x, w_h @ hidden + b_h
        if isinstance(cell, nn.GRU):
            (r, z, n), (r_h, z_h, n_h) = from_token.chunk(3), from_hidden.chunk(3)
            update = torch.sigmoid(z + z_h)
            candidate = torch.tanh(n + torch.sigmoid(r + r_h) * n_h)
            hidden = (1 - update) * candidate + update * hidden
        else:
            i, f, g, o = (from_token + from_hidden).chunk(4)
            memory = torch.sigmoid(f) * memory + torch.sigmoid(i) * torch.tanh(g)
            hidden = torch.sigmoid(o) * torch.tanh(memory)
        states.append(hidden)
    return torch.stack(states)


def slow_encode(encoder: RecurrentEncoder, tokens: torch.Tensor) -> torch.Tensor:
    """Encoded tokens (L, D) of one sequence without padding."""
    for layer in encoder.layer:
        normed = layer.norm(tokens)
        states = [one_direction(layer.rightward, normed), one_direction(layer.leftward, normed.flip(0)).flip(0)]
        tokens = tokens + layer.project(torch.cat(states, dim=1))
    return encoder.norm(tokens)


@pytest.mark.parametrize("kind", KINDS)
def test_equals_a_loop_over_single_sequences(kind):
    """Each sequence of a padded batch is encoded as a step-by-step loop encodes it alone, and padding is zero."""
    encoder = make_encoder(kind)
    x, keep = batch()
    found = encoder(x, keep=keep)
    for row, length in enumerate(LENGTHS):
        torch.testing.assert_close(found[row, :length], slow_encode(encoder, x[row, :length]), rtol=1e-12, atol=1e-12)
        assert (found[row, length:] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_equals_packed_sequences(kind):
    """The states of a layer are those of PyTorch's bidirectional network on packed sequences."""
    layer = make_encoder(kind, n_layers=1).layer[0]
    both = {"gru": nn.GRU, "lstm": nn.LSTM}[kind](D_MODEL, layer.rightward.hidden_size, bidirectional=True).double()
    for name, parameter in layer.rightward.named_parameters():
        both.get_parameter(name).data.copy_(parameter)
        both.get_parameter(f"{name}_reverse").data.copy_(layer.leftward.get_parameter(name))
    x, keep = batch()
    packed = nn.utils.rnn.pack_padded_sequence(
        layer.norm(x), torch.tensor(LENGTHS), batch_first=True, enforce_sorted=False
    )
    states, _ = nn.utils.rnn.pad_packed_sequence(both(packed)[0], batch_first=True)
    encoder = make_encoder(kind, n_layers=1)
    expected = encoder.norm(x + layer.project(states)).masked_fill(~keep[..., None], 0.0)
    torch.testing.assert_close(encoder(x, keep=keep), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("padding", [0.0, 1e6, float("inf"), float("nan")])
@pytest.mark.parametrize("length", [11, 12, 29])
def test_padding_changes_nothing(kind, padding, length):
    """Outputs and gradients of real tokens are the same whatever padding holds and however long it is."""
    encoder = make_encoder(kind)
    results = []
    for content, total in ((0.0, 11), (padding, length)):
        encoder.zero_grad()
        x, keep = batch(length=total, padding=content)
        x.requires_grad_()
        found = encoder(x, keep=keep)
        (found * torch.linspace(-1, 1, D_MODEL, dtype=torch.float64)).sum().backward()
        assert (x.grad[~keep] == 0).all() and (found[~keep] == 0).all()
        results.append([found[keep], x.grad[keep], *[p.grad.clone() for p in encoder.parameters()]])
    for clean, padded in zip(*results, strict=True):
        torch.testing.assert_close(padded, clean, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_mask_of_real_tokens_only_is_no_mask(kind):
    """A mask that keeps everything gives the numbers of no mask."""
    x, _ = batch()
    encoder = make_encoder(kind)
    torch.testing.assert_close(encoder(x, keep=torch.ones(x.shape[:2], dtype=torch.bool)), encoder(x))


@pytest.mark.parametrize("kind", KINDS)
def test_every_token_reads_both_directions(kind):
    """The first token depends on the last one and the last on the first, in a single layer."""
    encoder = make_encoder(kind, n_layers=1)
    x, keep = batch()
    for row, length in enumerate(LENGTHS[:3]):
        for at, other in ((0, length - 1), (length - 1, 0)):
            leaf = x.clone().requires_grad_()
            encoder(leaf, keep=keep)[row, at, 0].backward()
            assert leaf.grad[row, other].abs().max() > 1e-9
            assert (leaf.grad[[r for r in range(len(x)) if r != row]] == 0).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_layers", [1, 3])
def test_gradients_are_finite_in_training(kind, n_layers):
    """With dropout in training mode, every parameter gets a finite gradient, and not only zeros."""
    encoder = make_encoder(kind, n_layers=n_layers, dropout=0.3).float().train()
    x, keep = batch(padding=float("nan"))
    encoder(x.float(), keep=keep).square().mul(torch.linspace(0, 1, D_MODEL)).sum().backward()
    for parameter in encoder.parameters():
        assert parameter.grad.isfinite().all() and (parameter.grad != 0).any()


@pytest.mark.parametrize("kind", KINDS)
def test_dropout_acts_in_training_only(kind):
    """Evaluation is deterministic; training with dropout is not."""
    encoder = make_encoder(kind, dropout=0.5)
    x, keep = batch()
    assert torch.equal(encoder(x, keep=keep), encoder(x, keep=keep))
    encoder.train()
    assert not torch.equal(encoder(x, keep=keep), encoder(x, keep=keep))


@pytest.mark.parametrize("kind", KINDS)
def test_taps_read_and_replace_the_stream(kind):
    """Each layer's stream can be read, is what the next layer and the end get, and can be replaced."""
    encoder = make_encoder(kind)
    x, keep = batch()
    names = ["embed", "layer.0.resid", "layer.1.resid"]
    assert sorted(taps.find_taps(encoder)) == names
    with taps.record(encoder, names) as seen:
        found = encoder(x, keep=keep)
    assert torch.equal(seen["embed"], x)
    assert (seen["layer.0.resid"][~keep] == 0).all()
    torch.testing.assert_close(found[keep], encoder.norm(seen["layer.1.resid"])[keep])
    with taps.edit(encoder, {"layer.1.resid": lambda stream: seen["layer.0.resid"]}):
        torch.testing.assert_close(encoder(x, keep=keep)[keep], encoder.norm(seen["layer.0.resid"])[keep])
    assert torch.equal(encoder(x, keep=keep), found)


@pytest.mark.parametrize("kind", KINDS)
def test_runs_where_values_are_not_known(kind):
    """A dry run on shapes, forward and backward, gives the shapes of a real one."""
    encoder = make_encoder(kind)
    with FakeTensorMode(allow_non_fake_inputs=True):
        x = torch.empty(3, 5, D_MODEL, dtype=torch.float64, requires_grad=True)
        keep = torch.ones(3, 5, dtype=torch.bool)
        for mask in (keep, None):
            found = encoder(x, keep=mask)
            found.sum().backward()
            assert found.shape == x.shape == x.grad.shape
            assert found.dtype == torch.float64


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_in_evaluation_mode_on_cuda(kind):
    """Gradients exist in evaluation mode, as attributions need them, and equal those on the CPU."""
    encoder = make_encoder(kind)
    x, keep = batch()
    gradients = []
    for device in ("cpu", "cuda"):
        leaf = x.detach().to(device).requires_grad_()
        encoder.to(device)(leaf, keep=keep.to(device))[..., 0].sum().backward()
        gradients.append(leaf.grad.cpu())
    torch.testing.assert_close(*gradients)


# ---------------------------------------------------------------------------- size


def count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d_model", [16, 64, 96])
def test_default_size_is_that_of_attention(kind, d_model):
    """By default an encoder has, within 4 %, the parameters of attention blocks with feed-forward width 4 d_model."""
    attention = Encoder(d_model, 2, 2, 4 * d_model, positions="none")
    assert count(RecurrentEncoder(d_model, 2, kind=kind)) == pytest.approx(count(attention), rel=0.04)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_layers", [1, 2, 5])
@pytest.mark.parametrize("n", [4_000, 30_000, 500_000])
def test_hidden_units_for_a_number_of_parameters(kind, n_layers, n):
    """One hidden unit less makes the encoder smaller than asked for, and one more makes it larger."""
    best = hidden_for(n, 24, n_layers, kind=kind)
    less, more = (count(RecurrentEncoder(24, n_layers, kind=kind, d_hidden=h)) for h in (best - 1, best + 1))
    assert less < n < more


def test_at_least_one_hidden_unit():
    """A size that is too small to reach gives the smallest encoder."""
    assert hidden_for(1, 24, 2) == hidden_for(-500, 24, 2) == 1


def test_lstm_starts_out_remembering():
    """The forget gate's biases add up to one at the start, and no other gate's do."""
    cell = make_encoder("lstm").layer[0].leftward
    bias = (cell.bias_ih_l0 + cell.bias_hh_l0).detach().unflatten(0, (4, -1))
    assert (bias[1] == 1).all()
    assert not (bias[[0, 2, 3]] == 1).any()


# ----------------------------------------------------------------------- bad input


def test_unknown_kind_is_refused():
    """An unknown kind is named, with those allowed."""
    for make in (lambda: RecurrentEncoder(6, 1, kind="rnn"), lambda: hidden_for(100, 6, 1, kind="rnn")):
        with pytest.raises(ConfigError, match="'rnn' is not a kind of recurrent layer; allowed: gru, lstm"):
            make()


def test_no_hidden_units_are_refused():
    """Zero hidden units are no network."""
    with pytest.raises(ConfigError, match="d_hidden must be positive, got 0"):
        RecurrentEncoder(6, 1, d_hidden=0)


@pytest.mark.parametrize("where", [0, 1, 9])
def test_padding_that_is_not_on_the_right_is_refused(where):
    """Padding before a real token is refused, with the example that has it."""
    x, keep = batch()
    keep[0, where] = False
    with pytest.raises(DataError, match="padding must be on the right, but example 0"):
        make_encoder("gru")(x, keep=keep)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, keep: (x[..., :5], keep), r"shape \(batch, length, 6\)"),
        (lambda x, keep: (x, keep[:, :5]), "keep must have shape"),
        (lambda x, keep: (x, keep.float()), "keep must be boolean"),
        (lambda x, keep: (x, keep & (torch.arange(5)[:, None] != 3)), "padding only"),
        (lambda x, keep: (x.index_fill(1, torch.tensor([2]), float("nan")), keep), "NaN or infinity"),
    ],
)
def test_bad_tokens_are_refused(change, message):
    """Wrong shapes, a mask that is no mask, an example of padding only and values that are no numbers are refused."""
    x, keep = change(*batch())
    with pytest.raises(DataError, match=message):
        make_encoder("gru")(x, keep=keep)
