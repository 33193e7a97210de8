"""The only place that turns a configuration into modules, and saves and loads them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bioattn.config import MaskConfig, ModelConfig
from bioattn.data import alphabet
from bioattn.data.motif import Motif, log_odds, score_threshold
from bioattn.io.weights import load_weights, save_weights
from bioattn.nn.checks import values_known
from bioattn.nn.encoder import Encoder
from bioattn.nn.masks import BlockSparse, Causal, Dilated, Global, Mask, Window
from bioattn.nn.readouts import FirstToken, pooling
from bioattn.nn.recurrent import RecurrentEncoder
from bioattn.nn.stem import BaseStem, ConvStem

#: A stem filter starts to count at sites this unlikely in random sequence.
PWM_STEM_P_VALUE = 1e-3


class SequenceModel(nn.Module):
    """Transformer (or recurrent network) from nucleotide tokens to readouts on the pre-link scale.

    Nothing is coupled across the batch, so the readout of a sequence does not
    depend on its batch mates. Build it with `build_model`.

    With pooling by `FirstToken` a learned token stands before those of the
    sequence: token t of the sequence has index t + `n_prefix` in every tap.
    """

    readout_mean: Tensor
    readout_sd: Tensor

    def __init__(
        self,
        stem: BaseStem | ConvStem,
        encoder: Encoder | RecurrentEncoder,
        pool: nn.Module,
        n_readouts: int,
        *,
        average_strands: bool,
    ) -> None:
        super().__init__()
        d_model = encoder.norm.normalized_shape[0]
        self.stem = stem
        self.encoder = encoder
        self.pooling = pool
        self.prefix = nn.Parameter(torch.randn(d_model) * 0.02) if isinstance(pool, FirstToken) else None
        self.readout = nn.Linear(d_model, n_readouts)
        self.average_strands = average_strands
        self.register_buffer("readout_mean", torch.zeros(n_readouts))
        self.register_buffer("readout_sd", torch.ones(n_readouts))

    @property
    def n_layers(self) -> int:
        """Number of encoder blocks."""
        return len(self.encoder.layer)

    @property
    def n_heads(self) -> int:
        """Attention heads per block; none in a recurrent network."""
        if isinstance(self.encoder, RecurrentEncoder):
            return 0
        return int(self.encoder.layer[0].attn.n_heads)  # type: ignore[union-attr, arg-type]

    @property
    def n_prefix(self) -> int:
        """Tokens before the first token of the sequence: 1 with a CLS token, else 0."""
        return 0 if self.prefix is None else 1

    @property
    def token_bp(self) -> int:
        """Bases per token: token t covers bases [t * token_bp, (t + 1) * token_bp)."""
        return self.stem.pool

    @property
    def receptive_field_bp(self) -> int:
        """Bases that one base's stem features depend on."""
        return self.stem.receptive_field_bp

    def set_readout_scale(self, mean: Tensor, sd: Tensor) -> None:
        """Report readouts as raw * sd + mean, shapes (T,): the units of the targets."""
        self.readout_mean.copy_(mean)
        self.readout_sd.copy_(sd)

    def forward(self, tokens: Tensor) -> Tensor:
        """Readouts (B, T) on the pre-link scale of tokens (B, L), int64, padded on the right with `alphabet.PAD`."""
        return torch.stack([self.one_strand(strand) for strand in self.strands(tokens)]).mean(0)

    def strands(self, tokens: Tensor) -> list[Tensor]:
        """Tokens of each strand whose readouts are averaged: one tensor, or two."""
        return [tokens, reverse_complement(tokens)] if self.average_strands else [tokens]

    def one_strand(self, tokens: Tensor) -> Tensor:
        """Readouts (B, T) of the given strand alone."""
        return self.tail(*self.embed(tokens))

    def embed(self, tokens: Tensor) -> tuple[Tensor, Tensor | None]:
        """Stem tokens (B, t, D) and which of them are real (B, t), or None if all are."""
        return self.embed_one_hot(one_hot(tokens).to(self.readout.weight.dtype), tokens != alphabet.PAD)

    def embed_one_hot(self, x_BAL: Tensor, real_BL: Tensor) -> tuple[Tensor, Tensor | None]:
        """As `embed`, from one-hot bases (B, A, L), for gradients with respect to bases."""
        hidden_BLD = self.stem(x_BAL, real_BL)
        if values_known(real_BL) and bool(real_BL.all()):  # without a mask the fused kernels take their fastest path
            return hidden_BLD, None
        return hidden_BLD, self._real_stem_tokens(real_BL)

    def real_tokens(self, tokens: Tensor) -> Tensor:
        """Which stem tokens cover at least one real base, bool (B, t)."""
        return self._real_stem_tokens(tokens != alphabet.PAD)

    def _real_stem_tokens(self, real_BL: Tensor) -> Tensor:
        return F.max_pool1d(real_BL[:, None].float(), self.stem.pool, ceil_mode=True)[:, 0] > 0

    def tail(self, hidden_BLD: Tensor, keep: Tensor | None = None) -> Tensor:
        """Readouts (B, T) of stem tokens (B, t, D)."""
        if self.prefix is not None:
            hidden_BLD = torch.cat([self.prefix.expand(len(hidden_BLD), 1, -1), hidden_BLD], dim=1)
            keep = None if keep is None else F.pad(keep, (1, 0), value=True)
        pooled_BD = self.pooling(self.encoder(hidden_BLD, keep=keep), keep=keep)
        return self.readout(pooled_BD) * self.readout_sd + self.readout_mean


def one_hot(tokens: Tensor) -> Tensor:
    """One-hot (B, A, L) float32 of tokens (B, L); unknown bases and padding are zero columns."""
    table = torch.zeros(alphabet.PAD + 1, alphabet.N_LETTERS, device=tokens.device)
    table[: alphabet.N_LETTERS] = torch.eye(alphabet.N_LETTERS, device=tokens.device)
    return table[tokens].transpose(1, 2)


def reverse_complement(tokens: Tensor) -> Tensor:
    """The other strand of tokens (B, L); padding stays on the right."""
    length = (tokens != alphabet.PAD).sum(1, keepdim=True)
    index = length - 1 - torch.arange(tokens.shape[1], device=tokens.device)
    flipped = tokens.gather(1, index.clamp(min=0))
    complement = torch.tensor([3, 2, 1, 0, alphabet.UNKNOWN, alphabet.PAD], device=tokens.device)
    return torch.where(index >= 0, complement[flipped], alphabet.PAD)


def build_model(config: ModelConfig, *, n_readouts: int, motifs: Sequence[Motif] = (), seed: int = 0) -> SequenceModel:
    """Model of a configuration, with weights drawn from `seed`.

    Parameters
    ----------
    n_readouts : int
        Outputs of the model.
    motifs : sequence of Motif
        For stem kind "pwm": each starts one filter.
    """
    stem_config = config.stem
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        stem: BaseStem | ConvStem
        if stem_config.kind == "none":
            stem = BaseStem(alphabet.N_LETTERS, config.d_model)
        else:
            pwms = [log_odds(m.ppm) for m in motifs] if stem_config.kind == "pwm" else []
            stem = ConvStem(
                alphabet.N_LETTERS,
                config.d_model,
                n_filters=stem_config.n_filters,
                width=stem_config.width,
                pool=stem_config.pool,
                activation=stem_config.activation,
                pwms=pwms,
                thresholds=[score_threshold(p, PWM_STEM_P_VALUE) for p in pwms],
                trainable_pwms=stem_config.trainable_motifs,
            )
        encoder = _build_encoder(config)
        return SequenceModel(
            stem,
            encoder,
            pooling(config.pooling, config.d_model),
            n_readouts,
            average_strands=config.reverse_complement == "average",
        )


def _build_encoder(config: ModelConfig) -> Encoder | RecurrentEncoder:
    if config.encoder != "attention":
        return RecurrentEncoder(config.d_model, config.n_layers, kind=config.encoder, dropout=config.dropout)
    n_prefix = 1 if config.pooling == "cls" else 0
    return Encoder(
        config.d_model,
        config.n_layers,
        config.n_heads,
        config.d_feedforward,
        positions=config.positions,
        feedforward=config.feedforward,
        dropout=config.dropout,
        backend=config.backend,
        max_length=config.max_length + n_prefix,
        mask=build_mask(config.mask, n_prefix=n_prefix, max_length=config.max_length + n_prefix),
        checkpointing=config.checkpointing,
    )


def build_mask(config: MaskConfig, *, n_prefix: int = 0, max_length: int = 4096) -> Mask | None:
    """Mask of a configuration, or None if every token may read every other.

    Tokens before the sequence (`n_prefix`) read all and are read by all.
    """
    mask: Mask | None = None
    parts: list[Mask] = []
    if config.window is not None:
        parts.append(Window(config.window))
    if config.dilated_step is not None:
        parts.append(Dilated(config.dilated_step, config.dilated_reach))
    if config.random_blocks:
        # Fixed, so that replicates of a run differ in their weights and data only.
        parts.append(BlockSparse.random(max_length, block=config.block, per_block=config.random_blocks, seed=0))
    n_global = config.global_tokens + n_prefix
    if parts and n_global:
        parts.append(Global(n_global))
    for part in parts:
        mask = part if mask is None else mask | part
    if config.causal:
        mask = Causal() if mask is None else mask & Causal()
    return mask


def save_model(
    folder: str | Path, model: SequenceModel, *, config: ModelConfig, motifs: Sequence[Motif], record: Mapping[str, Any]
) -> None:
    """Write a model as weights.safetensors and model.json, with all that `load_model` needs."""
    architecture = {
        "model": config.model_dump(mode="json"),
        "n_readouts": int(model.readout.out_features),
        "motif_widths": [m.width for m in motifs] if config.stem.kind == "pwm" else [],
    }
    save_weights(folder, model.state_dict(), {"architecture": architecture, **record})


def load_model(folder: str | Path) -> tuple[SequenceModel, dict[str, Any]]:
    """Model in evaluation mode, and its record, from a folder that `save_model` wrote."""
    tensors, record = load_weights(folder)
    architecture = record["architecture"]
    config = ModelConfig.model_validate(architecture["model"])
    blanks = [Motif("", "", np.full((alphabet.N_LETTERS, w), 0.25)) for w in architecture["motif_widths"]]
    model = build_model(config, n_readouts=architecture["n_readouts"], motifs=blanks)
    model.load_state_dict(tensors)
    return model.eval(), record
