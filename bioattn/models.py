"""The only place that turns a configuration into modules, and saves and loads them."""

import json
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
from bioattn.errors import ConfigError, DataError
from bioattn.io.files import write_text
from bioattn.io.weights import MODEL, WEIGHTS, load_weights, save_weights
from bioattn.nn.checks import values_known
from bioattn.nn.embedding import TokenEmbedding
from bioattn.nn.encoder import Encoder
from bioattn.nn.masks import BlockSparse, Causal, Dilated, Global, Mask, Window
from bioattn.nn.pair.encoder import PairEncoder
from bioattn.nn.readouts import FirstToken, pooling
from bioattn.nn.recurrent import RecurrentEncoder
from bioattn.nn.stem import BaseStem, ConvStem
from bioattn.tokens import BpeTokenizer, Tokenizer, tokenizer_for, tokenizer_from
from bioattn.tokens.base import MASK_ID, PAD_ID, touched

#: Learned tokenizer of a model, beside its weights.
TOKENIZER = "tokenizer.json"
#: A stem filter starts to count at sites this unlikely in random sequence.
PWM_STEM_P_VALUE = 1e-3


class SequenceModel(nn.Module):
    """Transformer (or recurrent network) from base codes to readouts on the pre-link scale.

    The input always is base codes (B, L), padded on the right with `alphabet.PAD`. A
    stem computes tokens from bases; with a tokenizer the model finds words in the
    bases itself and looks them up, so that whoever changes a base changes what the
    model sees, whichever way it reads.

    Nothing is coupled across the batch, so the readout of a sequence does not
    depend on its batch mates. Build it with `build_model`.

    With pooling by `FirstToken` a learned token stands before those of the
    sequence: token t of the sequence has index t + `n_prefix` in every tap.
    """

    readout_mean: Tensor
    readout_sd: Tensor

    def __init__(
        self,
        stem: BaseStem | ConvStem | TokenEmbedding,
        encoder: Encoder | RecurrentEncoder,
        pool: nn.Module,
        n_readouts: int,
        *,
        average_strands: bool,
        tokenizer: Tokenizer | None = None,
    ) -> None:
        super().__init__()
        d_model = encoder.norm.normalized_shape[0]
        self.stem = stem
        #: Finds the tokens that are looked up; None where a stem computes them.
        self.tokenizer = tokenizer
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
    def has_pairs(self) -> bool:
        """Whether a pair track runs beside the tokens."""
        return isinstance(self.encoder, PairEncoder)

    @property
    def n_prefix(self) -> int:
        """Tokens before the first token of the sequence: 1 with a CLS token, else 0."""
        return 0 if self.prefix is None else 1

    @property
    def token_bp(self) -> int:
        """Bases per token: token t covers bases [t * token_bp, (t + 1) * token_bp).

        Raises
        ------
        DataError
            If tokens overlap or differ in length. `token_spans` has the answer for any model.
        """
        if isinstance(self.stem, BaseStem | ConvStem):
            return self.stem.pool
        token_bp = self._words.token_bp
        if token_bp is None:
            raise DataError(
                f"{self._kind} do not tile sequences in steps of equal length, so motif pairs cannot be tested by "
                "their tokens: use model.tokenizer.kind 'nucleotide', or 'kmer' with stride = k"
            )
        return token_bp

    @property
    def receptive_field_bp(self) -> int:
        """Bases that one base's features depend on before attention: 1 where tokens see the bases they cover alone.

        Raises
        ------
        DataError
            If a changed base may move the borders of tokens anywhere else.
        """
        if isinstance(self.stem, BaseStem | ConvStem):
            return self.stem.receptive_field_bp
        if not self._words.on_grid:
            raise DataError(
                f"{self._kind} have no receptive field: a changed base may move where other tokens begin and end; "
                "use model.tokenizer.kind 'nucleotide' or 'kmer'"
            )
        return 1

    @property
    def _words(self) -> Tokenizer:
        assert self.tokenizer is not None
        return self.tokenizer

    @property
    def _kind(self) -> str:
        words = self._words.describe()
        return f"{words['k']}-mers of stride {words['stride']}" if words["kind"] == "kmer" else "words of kind 'bpe'"

    def set_readout_scale(self, mean: Tensor, sd: Tensor) -> None:
        """Report readouts as raw * sd + mean, shapes (T,): the units of the targets."""
        self.readout_mean.copy_(mean)
        self.readout_sd.copy_(sd)

    def forward(self, tokens: Tensor) -> Tensor:
        """Readouts (B, T) on the pre-link scale of base codes (B, L), int64, padded on the right with `PAD`."""
        return torch.stack([self.one_strand(strand) for strand in self.strands(tokens)]).mean(0)

    def strands(self, tokens: Tensor) -> list[Tensor]:
        """Base codes of each strand whose readouts are averaged: one tensor, or two."""
        return [tokens, reverse_complement(tokens)] if self.average_strands else [tokens]

    def one_strand(self, tokens: Tensor) -> Tensor:
        """Readouts (B, T) of the given strand alone."""
        return self.tail(*self.embed(tokens))

    def embed(self, tokens: Tensor, masked: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Tokens (B, t, D) of base codes (B, L), and which of them are real (B, t), or None if all are.

        Parameters
        ----------
        masked : bool Tensor, shape (B, L), optional
            Bases to hide. A stem sees unknown bases there; of words all that touch a
            hidden base become `MASK_ID`, and their borders stay as they were.
        """
        if self.tokenizer is None:
            if masked is not None:
                tokens = tokens.masked_fill(masked & (tokens != alphabet.PAD), alphabet.UNKNOWN)
            return self.embed_one_hot(one_hot(tokens).to(self.readout.weight.dtype), tokens != alphabet.PAD)
        found = self.tokenizer.encode(tokens)
        ids, real = found.ids, found.ids != PAD_ID
        if masked is not None:
            ids = ids.masked_fill(touched(masked, found.start, found.end), MASK_ID)
        return self.stem(ids), None if values_known(real) and bool(real.all()) else real

    def embed_one_hot(self, x_BAL: Tensor, real_BL: Tensor) -> tuple[Tensor, Tensor | None]:
        """As `embed`, from one-hot bases (B, A, L), for gradients with respect to bases.

        Raises
        ------
        DataError
            If tokens are looked up: there is no gradient through the look-up of a word.
        """
        if self.tokenizer is not None:
            raise DataError(
                f"{self._kind} are looked up, so readouts have no gradient with respect to bases: "
                "use mutagenesis, or train with model.tokenizer.kind 'nucleotide'"
            )
        hidden_BLD = self.stem(x_BAL, real_BL)
        if values_known(real_BL) and bool(real_BL.all()):  # without a mask the fused kernels take their fastest path
            return hidden_BLD, None
        return hidden_BLD, self._real_stem_tokens(real_BL)

    def real_tokens(self, tokens: Tensor) -> Tensor:
        """Which tokens cover at least one real base, bool (B, t)."""
        if self.tokenizer is not None:
            return self.tokenizer.encode(tokens).ids != PAD_ID
        return self._real_stem_tokens(tokens != alphabet.PAD)

    def token_spans(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Start and end (B, t), int64, of the bases that each token covers, 0-based half-open; 0 and 0 for padding."""
        if self.tokenizer is not None:
            found = self.tokenizer.encode(tokens)
            return found.start, found.end
        length_B1 = (tokens != alphabet.PAD).sum(1, keepdim=True)
        n_tokens = -(-tokens.shape[1] // self.token_bp)
        start = torch.arange(n_tokens, device=tokens.device).expand(len(tokens), -1) * self.token_bp
        end = torch.minimum(start + self.token_bp, length_B1)
        return start.masked_fill(start >= length_B1, 0), end.masked_fill(start >= length_B1, 0)

    def _real_stem_tokens(self, real_BL: Tensor) -> Tensor:
        return F.max_pool1d(real_BL[:, None].float(), self.token_bp, ceil_mode=True)[:, 0] > 0

    def encode(self, hidden_BLD: Tensor, keep: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Encoded tokens (B, n_prefix + t, D) of embedded ones (B, t, D), and which are real, or None if all are."""
        if self.prefix is not None:
            hidden_BLD = torch.cat([self.prefix.expand(len(hidden_BLD), 1, -1), hidden_BLD], dim=1)
            keep = None if keep is None else F.pad(keep, (1, 0), value=True)
        return self.encoder(hidden_BLD, keep=keep), keep

    def tail(self, hidden_BLD: Tensor, keep: Tensor | None = None) -> Tensor:
        """Readouts (B, T) of embedded tokens (B, t, D)."""
        encoded_BLD, keep = self.encode(hidden_BLD, keep)
        return self.readout(self.pooling(encoded_BLD, keep=keep)) * self.readout_sd + self.readout_mean


def one_hot(tokens: Tensor) -> Tensor:
    """One-hot (B, A, L) float32 of base codes (B, L); unknown bases and padding are zero columns."""
    table = torch.zeros(alphabet.PAD + 1, alphabet.N_LETTERS, device=tokens.device)
    table[: alphabet.N_LETTERS] = torch.eye(alphabet.N_LETTERS, device=tokens.device)
    return table[tokens].transpose(1, 2)


def reverse_complement(tokens: Tensor) -> Tensor:
    """The other strand of base codes (B, L); padding stays on the right."""
    length = (tokens != alphabet.PAD).sum(1, keepdim=True)
    index = length - 1 - torch.arange(tokens.shape[1], device=tokens.device)
    flipped = tokens.gather(1, index.clamp(min=0))
    complement = torch.tensor([3, 2, 1, 0, alphabet.UNKNOWN, alphabet.PAD], device=tokens.device)
    return torch.where(index >= 0, complement[flipped], alphabet.PAD)


def build_model(
    config: ModelConfig,
    *,
    n_readouts: int,
    motifs: Sequence[Motif] = (),
    seed: int = 0,
    tokenizer: BpeTokenizer | None = None,
) -> SequenceModel:
    """Model of a configuration, with weights drawn from `seed`.

    Parameters
    ----------
    n_readouts : int
        Outputs of the model.
    motifs : sequence of Motif
        For stem kind "pwm": each starts one filter.
    tokenizer : BpeTokenizer, optional
        For tokenizer kind "bpe": what `train_bpe` learned from the training sequences.

    Raises
    ------
    ConfigError
        If there is no tokenizer where one must be learned, or one where none is.
    """
    words = _tokenizer(config, tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        stem = _stem(config, motifs) if words is None else TokenEmbedding(words.n_tokens, config.d_model)
        encoder = build_encoder(config)
        return SequenceModel(
            stem,
            encoder,
            pooling(config.pooling, config.d_model),
            n_readouts,
            average_strands=config.reverse_complement == "average",
            tokenizer=words,
        )


def _tokenizer(config: ModelConfig, learned: BpeTokenizer | None) -> Tokenizer | None:
    """What finds the tokens that are looked up; None where a stem computes them."""
    kind = config.tokenizer.kind
    if (learned is not None) != (kind == "bpe"):
        raise ConfigError(
            "a model with model.tokenizer.kind 'bpe' needs a tokenizer that was learned from the training sequences: "
            "see bioattn.tokens.bpe.train_bpe"
            if learned is None
            else f"a learned tokenizer is for model.tokenizer.kind 'bpe' only, got kind '{kind}'"
        )
    if kind == "nucleotide":
        return None
    return learned or tokenizer_for(kind, config.tokenizer.k, config.tokenizer.stride)


def _stem(config: ModelConfig, motifs: Sequence[Motif]) -> BaseStem | ConvStem:
    settings = config.stem
    if settings.kind == "none":
        return BaseStem(alphabet.N_LETTERS, config.d_model)
    pwms = [log_odds(m.ppm) for m in motifs] if settings.kind == "pwm" else []
    return ConvStem(
        alphabet.N_LETTERS,
        config.d_model,
        n_filters=settings.n_filters,
        width=settings.width,
        pool=settings.pool,
        activation=settings.activation,
        pwms=pwms,
        thresholds=[score_threshold(p, PWM_STEM_P_VALUE) for p in pwms],
        trainable_pwms=settings.trainable_motifs,
        strands=settings.motif_strands,
    )


def build_encoder(config: ModelConfig) -> Encoder | RecurrentEncoder:
    """Encoder of a configuration, with weights drawn from the current random state."""
    if config.encoder != "attention":
        return RecurrentEncoder(config.d_model, config.n_layers, kind=config.encoder, dropout=config.dropout)
    n_prefix = 1 if config.pooling == "cls" else 0
    options: dict[str, Any] = {
        "positions": config.positions,
        "feedforward": config.feedforward,
        "dropout": config.dropout,
        "backend": config.backend,
        "max_length": config.max_length + n_prefix,
        "mask": build_mask(config.mask, n_prefix=n_prefix, max_length=config.max_length + n_prefix),
        "checkpointing": config.checkpointing,
    }
    sizes = (config.d_model, config.n_layers, config.n_heads, config.d_feedforward)
    if config.trunk == "pair":
        return PairEncoder(*sizes, **(options | config.pair.model_dump()))
    return Encoder(*sizes, **options)


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
    """Write a model as weights.safetensors and model.json, with all that `load_model` needs.

    A tokenizer that was learned goes into tokenizer.json beside them.
    """
    architecture = {
        "letters": alphabet.LETTERS,
        "model": config.model_dump(mode="json"),
        "n_readouts": int(model.readout.out_features),
        "motif_widths": [m.width for m in motifs] if config.stem.kind == "pwm" else [],
    }
    if config.tokenizer.kind == "bpe" and model.tokenizer is not None:
        write_text(Path(folder) / TOKENIZER, json.dumps(model.tokenizer.describe(), indent=1) + "\n")
    save_weights(folder, model.state_dict(), {"architecture": architecture, **record})


def load_model(folder: str | Path) -> tuple[SequenceModel, dict[str, Any]]:
    """Model in evaluation mode, and its record, from a folder that `save_model` wrote.

    Raises
    ------
    DataError
        If a file is missing, cut short, or not that of such a model.
    """
    tensors, record = load_weights(folder)
    try:
        architecture = record["architecture"]
        config = ModelConfig.model_validate(architecture["model"])
        widths, n_readouts = list(architecture["motif_widths"]), int(architecture["n_readouts"])
        letters = architecture.get("letters", alphabet.LETTERS)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(
            f"{Path(folder) / MODEL} describes no model that can be built ({type(error).__name__}: {error}): "
            "a folder of the verb train is needed, of this or an earlier version"
        ) from None
    if letters != alphabet.LETTERS:
        raise DataError(f"{Path(folder) / MODEL}: the model reads the letters '{letters}', not '{alphabet.LETTERS}'")
    blanks = [Motif("", "", np.full((alphabet.N_LETTERS, w), 0.25)) for w in widths]
    learned = _load_tokenizer(Path(folder) / TOKENIZER) if config.tokenizer.kind == "bpe" else None
    model = build_model(config, n_readouts=n_readouts, motifs=blanks, tokenizer=learned)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        # The first line is the class of the model, the second the first weight that does not fit.
        reason = " ".join(str(error).splitlines()[1:2]).strip()
        raise DataError(
            f"{Path(folder) / WEIGHTS} does not belong to {MODEL} and {TOKENIZER} beside it: {reason}"
        ) from None
    return model.eval(), record


def _load_tokenizer(path: Path) -> BpeTokenizer:
    try:
        found = tokenizer_from(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file: a model with a learned tokenizer has one; train it again") from None
    except (DataError, ValueError) as error:
        raise DataError(f"{path}: {error}: train the model again") from None
    if not isinstance(found, BpeTokenizer):
        raise DataError(f"{path}: describes a tokenizer of another kind than 'bpe': train the model again")
    return found
