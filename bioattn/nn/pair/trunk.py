"""The trunk: blocks that update single residues (B, L, D) and pairs (B, I, J, P) by each other."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from bioattn.errors import ConfigError, DataError
from bioattn.nn import attention
from bioattn.nn.blocks import GELUFeedForward, zero_padding
from bioattn.nn.checks import check_heads
from bioattn.nn.pair.updates import PairUpdates, opened, zeroed
from bioattn.nn.taps import Tap, tapped

#: Parts of a block that can be left out, to see what each is good for.
PARTS = ("outgoing", "incoming", "starting", "ending", "transition", "single")


class PairBiasedAttention(nn.Module):
    """Attention between single residues, whose scores the pair representation adds to.

    Taps: `scores`, `pattern` (B, H, Q, K); `head_output` (B, H, Q, C); `output` (B, L, D).

    Source: Jumper et al. 2021, supplement, algorithm 7.
    """

    def __init__(self, d_model: int, d_pair: int, n_heads: int) -> None:
        super().__init__()
        check_heads(d_model, n_heads)
        self.n_heads = n_heads
        self.norm, self.norm_pair = nn.LayerNorm(d_model), nn.LayerNorm(d_pair)
        self.project_in = nn.Linear(d_model, 3 * d_model, bias=False)
        self.bias = nn.Linear(d_pair, n_heads, bias=False)
        self.gate = opened(nn.Linear(d_model, d_model))
        self.project_out = zeroed(nn.Linear(d_model, d_model))
        self.scores, self.pattern, self.head_output, self.output = Tap(), Tap(), Tap(), Tap()

    def forward(self, single: Tensor, pair: Tensor, *, keep: Tensor | None = None) -> Tensor:
        """What is added to the single representation; `keep` (B, L) is True for real residues."""
        x = self.norm(single)
        query, key, value = (
            t.unflatten(-1, (self.n_heads, -1)).transpose(1, 2) for t in self.project_in(x).chunk(3, dim=-1)
        )
        bias = self.bias(self.norm_pair(pair)).permute(0, 3, 1, 2)
        readable = None if keep is None else keep[:, None, None]
        if self.scores.active or self.pattern.active:
            scores = self.scores(attention.scores(query, key, bias=bias, keep=readable))
            pattern = self.pattern(attention.pattern(scores))
            values = (pattern @ value.to(pattern.dtype)).to(value.dtype)
        else:
            values = attention.fused(query, key, value, bias=bias, keep=readable)
        values = self.head_output(values).transpose(1, 2).flatten(2)
        return self.output(self.project_out(torch.sigmoid(self.gate(x)) * values))


class PairBlock(PairUpdates):
    """One round of updates: singles by attention that pairs bias, pairs by triangles.

    Parameters
    ----------
    without : sequence of str
        Parts that are left out, of `PARTS`.

    Taps: `resid` (B, L, D) and `pair` (B, I, J, P), both after the block.
    """

    def __init__(
        self,
        d_model: int,
        d_pair: int,
        *,
        n_heads: int,
        n_pair_heads: int,
        d_pair_head: int,
        d_hidden: int,
        dropout: float,
        backend: str,
        without: Sequence[str] = (),
    ) -> None:
        super().__init__()
        unknown = set(without) - set(PARTS)
        if unknown:
            raise ConfigError(
                f"no such part of a pair block: {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}"
            )
        used = [part for part in PARTS if part not in without]
        self.attn = PairBiasedAttention(d_model, d_pair, n_heads) if "single" in used else None
        self.norm_feedforward = nn.LayerNorm(d_model)
        self.feedforward = GELUFeedForward(d_model, 4 * d_model)
        self.add_updates(
            d_pair, n_pair_heads=n_pair_heads, d_pair_head=d_pair_head, d_hidden=d_hidden, dropout=dropout,
            backend=backend, without=without,
        )  # fmt: skip
        self.dropout = nn.Dropout(dropout)
        self.resid, self.pair = Tap(), Tap()

    def forward(self, single: Tensor, pair: Tensor, *, keep: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Singles and pairs after the block, zero where a residue is padding."""
        if self.attn is not None:
            single = single + self.dropout(self.attn(single, pair, keep=keep))
        single = single + self.dropout(self.feedforward(self.norm_feedforward(single)))
        pair = self.updated(pair, keep=keep)
        return self.resid(zero_padding(single, keep)), self.pair(pair)


class PairTrunk(nn.Module):
    """Blocks of updates, run over again on their own output if so asked (recycling).

    Parameters
    ----------
    d_model, d_pair, n_blocks : int
    n_heads, n_pair_heads, d_pair_head, d_hidden : int
        Heads of the single attention; heads and their channels in triangle attention; channels of the products of
        triangle multiplication.
    dropout : float
        Of whole rows or columns of channels in triangle updates.
    backend : str
        Of triangle attention.
    checkpointing : bool
        Keep only the inputs of each block for the gradient, and compute the rest again.
    without : sequence of str
        Parts of all blocks that are left out.
    """

    def __init__(
        self,
        d_model: int,
        d_pair: int,
        n_blocks: int,
        *,
        n_heads: int = 4,
        n_pair_heads: int = 4,
        d_pair_head: int = 8,
        d_hidden: int = 32,
        dropout: float = 0.0,
        backend: str = "sdpa_exact",
        checkpointing: bool = False,
        without: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.block = nn.ModuleList(
            PairBlock(
                d_model, d_pair, n_heads=n_heads, n_pair_heads=n_pair_heads, d_pair_head=d_pair_head,
                d_hidden=d_hidden, dropout=dropout, backend=backend, without=without,
            )
            for _ in range(n_blocks)
        )  # fmt: skip
        # What a round makes of its output before the next takes it in; zero gates leave the first round as it is.
        self.norm_single, self.norm_pair = nn.LayerNorm(d_model), nn.LayerNorm(d_pair)
        self.gate_single, self.gate_pair = nn.Parameter(torch.zeros(d_model)), nn.Parameter(torch.zeros(d_pair))

    def forward(
        self,
        single: Tensor,
        pair: Tensor,
        *,
        keep: Tensor | None = None,
        recycles: int = 0,
    ) -> tuple[Tensor, Tensor]:
        """Updated singles (B, L, D) and pairs (B, I, J, P).

        Parameters
        ----------
        keep : bool Tensor (B, L), optional
            True for real residues.
        recycles : int
            Further rounds; the gradient is that of the last one.

        Raises
        ------
        DataError
            If the shapes do not fit.
        """
        _check(single, pair, keep)
        start_single, start_pair = single, pair
        for round_ in range(recycles + 1):
            last = round_ == recycles
            with torch.set_grad_enabled(torch.is_grad_enabled() and last):
                if round_:
                    single = start_single + self.gate_single * self.norm_single(single.detach())
                    pair = start_pair + self.gate_pair * self.norm_pair(pair.detach())
                single, pair = self._round(single, pair, keep)
        return single, pair

    def apart(self, pair: Tensor, rows: Tensor, columns: Tensor, third: Tensor, *, recycles: int = 0) -> Tensor:
        """Chosen pairs (V, N, P) of one example, as they come out of the trunk through some third residues only.

        All other pairs are as they are in the whole run, and so is what the chosen ones read: this is the direct path
        from a third residue to a pair, in every block.

        Parameters
        ----------
        pair : Tensor (I, J, P)
            As `forward` takes them, of one example without padding. Singles do not act on pairs in a trunk.
        rows, columns : int Tensor (N,)
        third : bool Tensor (V, K)
            True for residues that may be the third one; a row for each version of the pairs.
        """
        start = pair
        own = start_own = pair[rows, columns].expand(len(third), -1, -1)
        for round_ in range(recycles + 1):
            if round_:
                own = start_own + self.gate_pair * self.norm_pair(own)
                pair = start + self.gate_pair * self.norm_pair(pair)
            for block in self.block:
                assert isinstance(block, PairBlock)
                own, pair = block.updated_apart(own, pair, rows, columns, third)
        return own

    def _round(self, single: Tensor, pair: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor]:
        for block in self.block:
            if self.checkpointing and torch.is_grad_enabled() and not tapped(block):
                single, pair = checkpoint(block, single, pair, keep=keep, use_reentrant=False)
            else:
                single, pair = block(single, pair, keep=keep)
        return single, pair


def _check(single: Tensor, pair: Tensor, keep: Tensor | None) -> None:
    length = single.shape[1]
    if pair.ndim != 4 or pair.shape[:3] != (len(single), length, length):
        raise DataError(
            f"pairs of {length} residues must have shape (batch, {length}, {length}, channels), got {tuple(pair.shape)}"
        )
    if keep is not None and (keep.shape != single.shape[:2] or keep.dtype != torch.bool):
        raise DataError(
            f"keep must be boolean of shape (batch, length) = {tuple(single.shape[:2])}, got {keep.dtype} "
            f"{tuple(keep.shape)}"
        )
