"""Stack of bidirectional recurrent layers: the baseline that reads tokens one after the other."""

import math
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn

from bioattn.errors import ConfigError, DataError
from bioattn.nn.blocks import zero_padding
from bioattn.nn.checks import check_tokens, values_known
from bioattn.nn.taps import Tap

CELLS: dict[str, type[nn.GRU] | type[nn.LSTM]] = {"gru": nn.GRU, "lstm": nn.LSTM}
#: Matrices of one kind that a cell holds, counting its candidate state.
_GATES = {"gru": 3, "lstm": 4}


class RecurrentLayer(nn.Module):
    """One recurrent network in either direction on normalised input, projected and added to the stream.

    Each direction is a network of its own. The one from right to left gets every
    sequence turned within its own length, so padding lies behind the real tokens of
    both and reaches none of them. Unlike packed sequences, this needs no look at the
    lengths, so it also runs where values are not known.

    Tap: `resid` (B, L, D), the stream after the layer.
    """

    def __init__(self, d_model: int, d_hidden: int, *, kind: str, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(d_model)
        self.rightward = _cell(kind, d_model, d_hidden)
        self.leftward = _cell(kind, d_model, d_hidden)
        self.project = nn.Linear(2 * d_hidden, d_model)
        self.dropout = nn.Dropout(dropout)
        self.resid = Tap()

    def forward(self, x_BLD: Tensor, *, keep: Tensor | None = None, turn: Tensor | None = None) -> Tensor:
        """Stream after the layer (B, L, D); `turn` (B, L) from `turn_within_length` where there is padding."""
        normed_BLD = self.norm(x_BLD)
        with _kernels_with_gradients(x_BLD, self.training):
            right_BLC = self.rightward(normed_BLD)[0]
            left_BLC = _turned(self.leftward(_turned(normed_BLD, turn))[0], turn)
        x_BLD = x_BLD + self.dropout(self.project(torch.cat([right_BLC, left_BLC], dim=-1)))
        return self.resid(zero_padding(x_BLD, keep))


class RecurrentEncoder(nn.Module):
    """`n_layers` recurrent layers, then a final normalisation of each token; called like `Encoder`.

    Parameters
    ----------
    d_model, n_layers : int
    kind : {"gru", "lstm"}
    d_hidden : int, optional
        Hidden units per direction. By default a layer is about as large as an attention
        block with a GELU feed-forward layer of width 4 d_model, which has
        12 d_model^2 + 13 d_model parameters: 0.90 d_model (gru) or 0.75 d_model (lstm).
        For another size see `hidden_for`.
    dropout : float
        On the residual branches.

    Tap: `embed` (B, L, D), the stream before the first layer.

    Raises
    ------
    ConfigError
        If the kind is unknown or `d_hidden` is not positive.
    """

    def __init__(
        self, d_model: int, n_layers: int, *, kind: str = "gru", d_hidden: int | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__()
        if d_hidden is None:
            d_hidden = hidden_for(12 * d_model**2 + 15 * d_model, d_model, 1, kind=kind)
        if d_hidden < 1:
            raise ConfigError(f"d_hidden must be positive, got {d_hidden}")
        self.d_model = d_model
        self.embed = Tap()
        self.layer = nn.ModuleList(
            RecurrentLayer(d_model, d_hidden, kind=kind, dropout=dropout) for _ in range(n_layers)
        )
        self.norm = nn.LayerNorm(d_model)

    def forward(self, x_BLD: Tensor, *, keep: Tensor | None = None) -> Tensor:
        """Contextual tokens (B, L, D), zero at padding; `keep` (B, L) is True for real tokens.

        Raises
        ------
        DataError
            If tokens and `keep` do not fit, or padding is not on the right.
        """
        check_tokens(x_BLD, keep, self.d_model)
        turn_BL = None if keep is None else turn_within_length(keep)
        x_BLD = self.embed(zero_padding(x_BLD, keep))
        for layer in self.layer:
            x_BLD = layer(x_BLD, keep=keep, turn=turn_BL)
        return zero_padding(self.norm(x_BLD), keep)


def hidden_for(n_parameters: int, d_model: int, n_layers: int, *, kind: str = "gru") -> int:
    """Hidden units per direction with which a `RecurrentEncoder` has about `n_parameters` parameters.

    With h hidden units and g = 3 (gru) or 4 (lstm), a layer has
    2 g h^2 + (2 g d + 4 g + 2 d) h + 3 d parameters in d = d_model, and the final
    normalisation 2 d. At least 1, however small `n_parameters` is.

    Raises
    ------
    ConfigError
        If the kind is unknown.
    """
    gates = _GATES[_known(kind)]
    a, b = 2 * gates, 2 * gates * d_model + 4 * gates + 2 * d_model
    for_hidden = (n_parameters - 2 * d_model) / n_layers - 3 * d_model
    return max(1, round((-b + math.sqrt(b * b + 4 * a * max(for_hidden, 0.0))) / (2 * a)))


def turn_within_length(keep: Tensor) -> Tensor:
    """Index (B, L) that turns the real tokens of each sequence round and leaves padding where it is.

    Raises
    ------
    DataError
        If a padded token comes before a real one.
    """
    if values_known(keep):
        broken_B = (keep[:, 1:] & ~keep[:, :-1]).any(1)
        if bool(broken_B.any()):
            raise DataError(
                f"padding must be on the right, but example {int(broken_B.nonzero()[0])} of the batch has a real token "
                "after padding: move its padding to the end"
            )
    length_B1 = keep.sum(1, keepdim=True)
    position_L = torch.arange(keep.shape[1], device=keep.device)
    return torch.where(keep, length_B1 - 1 - position_L, position_L)


def _turned(x_BLC: Tensor, turn_BL: Tensor | None) -> Tensor:
    return x_BLC.flip(1) if turn_BL is None else x_BLC.gather(1, turn_BL[..., None].expand_as(x_BLC))


def _cell(kind: str, d_model: int, d_hidden: int) -> nn.GRU | nn.LSTM:
    cell = CELLS[_known(kind)](d_model, d_hidden, batch_first=True)
    if kind == "lstm":
        # Start out remembering (Jozefowicz et al. 2015); gates are in the order input, forget, cell, output.
        with torch.no_grad():
            for name, value in {"bias_ih_l0": 1.0, "bias_hh_l0": 0.0}.items():
                cell.get_parameter(name)[d_hidden : 2 * d_hidden] = value
    return cell


def _known(kind: str) -> str:
    if kind not in CELLS:
        raise ConfigError(f"'{kind}' is not a kind of recurrent layer; allowed: {', '.join(CELLS)}")
    return kind


def _kernels_with_gradients(x: Tensor, training: bool) -> AbstractContextManager[None]:
    """Without cuDNN where it would refuse: its recurrent kernels have no gradients in evaluation mode."""
    if x.is_cuda and not training and torch.is_grad_enabled():
        return torch.backends.cudnn.flags(enabled=False)
    return nullcontext()
