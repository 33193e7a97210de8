"""A small causal model of sequences, whose bits per base can be compared between tokenizers."""

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bioattn.config import MaskConfig, ModelConfig, TrainConfig
from bioattn.data import alphabet
from bioattn.errors import BioattnError, DataError
from bioattn.models import build_encoder
from bioattn.nn.embedding import TokenEmbedding
from bioattn.rng import stream, stream_seed
from bioattn.tokens import BpeTokenizer, KmerTokenizer, Tokenizer
from bioattn.tokens.base import N_SPECIAL, PAD_ID
from bioattn.tokens.kmer import first_id
from bioattn.train.devices import resolve_device
from bioattn.train.module import decay_groups, warmup_cosine
from bioattn.train.store import Codes

#: Sequences without gradients at a time, and most logits of either kind of pass: 128 MiB.
_EVALUATION_BATCH, _MOST_LOGITS = 256, 2**25
#: Largest learned vocabulary of which all pairs of words are tried: some minutes.
MOST_WORDS = 5000
#: Settings of the run's model that do not count here: its tokens are read as they are, by the plain fused kernel.
_PLAIN = {"pooling": "mean", "backend": "sdpa", "checkpointing": False}


class Words(NamedTuple):
    """Tokens of a batch, and what decides of each which words were possible before it was seen; each (B, t), int64.

    Attributes
    ----------
    ids
        Padding is `PAD_ID`.
    lowest, n_possible
        Possible were the ids from `lowest` on, so many of them.
    before, left
        The token before, `PAD_ID` for the first; bases from its start to the end of the sequence. Of learned words
        they leave fewer possible, see `Spelling`.
    """

    ids: Tensor
    lowest: Tensor
    n_possible: Tensor
    before: Tensor
    left: Tensor


class Spelling(NamedTuple):
    """Which learned words can go on where.

    Attributes
    ----------
    follows : Tensor, bool, shape (V, V)
        Row: the token before, column: the token. Anything may be first.
    completes : Tensor, bool, shape (bases + 1, V)
        Row: bases left, column: a token with which the rest can be spelled to its end.
    """

    follows: Tensor
    completes: Tensor


class NextToken(nn.Module):
    """Predicts each token from those before it, the first from nothing.

    An encoder of the run's width, depth and positions under a causal mask. The vector
    of a word also is what a prediction is compared with.
    """

    def __init__(self, n_tokens: int, config: ModelConfig, spelling: Spelling | None = None) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(config.d_model) * config.d_model**-0.5)
        self.embedding = TokenEmbedding(n_tokens, config.d_model)
        self.encoder = build_encoder(
            config.model_copy(update={"encoder": "attention", "mask": MaskConfig(causal=True), **_PLAIN})
        )
        self.bias = nn.Parameter(torch.zeros(n_tokens))
        self.spelling = spelling

    def forward(self, words: Words) -> Tensor:
        """Negative log likelihood (n,), in nats, of all real tokens of a batch, each among the possible words."""
        real_BL = words.ids != PAD_ID
        first_B1D = self.first.expand(len(real_BL), 1, -1)
        # Token i is predicted at place i, which holds token i - 1: it is real where token i is.
        before_BLD = torch.cat([first_B1D, self.embedding(words.ids[:, :-1])], dim=1)
        hidden_nD = self.encoder(before_BLD, keep=real_BL)[real_BL]
        seen = Words(*(x[real_BL] for x in words))
        if self.spelling is not None:
            follows, completes = self.spelling
            logits_nV = hidden_nD @ self.embedding.table.weight.T + self.bias
            logits_nV = logits_nV.masked_fill(~(follows[seen.before] & completes[seen.left]), -math.inf)
            return F.cross_entropy(logits_nV, seen.ids, reduction="none")
        nats_n = torch.zeros_like(hidden_nD[:, 0])
        for n_possible in seen.n_possible.unique().tolist():
            rows = (seen.n_possible == n_possible).nonzero()[:, 0]
            nats = self._nats(hidden_nD[rows], seen.ids[rows], seen.lowest[rows], n_possible)
            nats_n = nats_n.index_copy(0, rows, nats)
        return nats_n

    def _nats(self, hidden_mD: Tensor, ids_m: Tensor, lowest_m: Tensor, n_possible: int) -> Tensor:
        """Of tokens with equally many possible words: these alone are compared, or a range that holds all of them."""
        table_VD = self.embedding.table.weight
        if n_possible * table_VD.shape[1] < len(table_VD):
            possible_mn = lowest_m[:, None] + torch.arange(n_possible, device=ids_m.device)
            logits_mn = (table_VD[possible_mn] @ hidden_mD[..., None])[..., 0] + self.bias[possible_mn]
            return F.cross_entropy(logits_mn, ids_m - lowest_m, reduction="none")
        low, high = int(lowest_m.min()), int(lowest_m.max()) + n_possible
        logits_mV = hidden_mD @ table_VD[low:high].T + self.bias[low:high]
        place_mV = torch.arange(low, high, device=ids_m.device) - lowest_m[:, None]
        logits_mV = logits_mV.masked_fill((place_mV < 0) | (place_mV >= n_possible), -math.inf)
        return F.cross_entropy(logits_mV, ids_m - low, reduction="none")


def possible_words(tokenizer: Tokenizer, codes: Tensor) -> Words:
    """Tokens of base codes (B, L) without unknown bases, and what each could have been.

    The length of a sequence is taken as known. So are the bases of a k-mer that the
    one before it covers too: what is left are the words that go on from there, and
    with a stride of one there are four of them, as for nucleotides.
    """
    found = tokenizer.encode(codes)
    ids, start, end = found.ids, found.start, found.end
    real = ids != PAD_ID
    before = F.pad(ids[:, :-1], (1, 0), value=PAD_ID)
    left = torch.where(real, end.amax(1, keepdim=True) - start, 0)
    if isinstance(tokenizer, KmerTokenizer):
        new = torch.where(real, end - F.pad(end[:, :-1], (1, 0)), 0)
        many = alphabet.N_LETTERS**new
        return Words(ids, ids - (ids - first_id(end - start)) % many, many, before, left)
    many = torch.full_like(ids, tokenizer.n_tokens - N_SPECIAL)
    return Words(ids, torch.full_like(ids, N_SPECIAL), many, before, left)


@lru_cache(maxsize=4)
def spelling_of(tokenizer: BpeTokenizer, longest: int) -> Spelling:
    """Which words can go on where in sequences of at most so many bases.

    A word must be able to stand behind the one before it, and leave a rest that can
    be spelled to its end. With that each sequence has one spelling, and no
    probability is spent on others.
    """
    n_tokens = tokenizer.n_tokens
    follows = torch.zeros(n_tokens, n_tokens, dtype=torch.bool)
    follows[PAD_ID] = True
    follows[N_SPECIAL:, N_SPECIAL:] = tokenizer.followers
    width = torch.tensor([0] * N_SPECIAL + [len(word) for word in tokenizer.words])
    completes = torch.zeros(longest + 1, n_tokens, dtype=torch.bool)
    # The rest of r bases can be spelled behind a word if some word can stand there that completes it.
    behind = torch.zeros(longest + 1, n_tokens, dtype=torch.bool)
    by_width = [(w, (width == w).nonzero()[:, 0]) for w in width.unique().tolist() if w]
    weight = follows.float()
    for left in range(1, longest + 1):
        for w, words in by_width:
            if w <= left:
                completes[left, words] = w == left or behind[left - w, words]
        behind[left] = weight @ completes[left].float() > 0
    return Spelling(follows, completes)


class Bits(NamedTuple):
    """Bits per base of held-out sequences, and how many of these have no unknown base."""

    per_base: float
    n_sequences: int


def bits_per_base(
    train: Codes,
    held_out: Codes,
    tokenizer: Tokenizer,
    model: ModelConfig,
    config: TrainConfig,
    *,
    epochs: int,
    seed: int,
) -> Bits:
    """Bits per base that a next-token model of training sequences needs for held-out ones.

    The tokens of a sequence follow from its bases, and its bases from its tokens. So
    the negative log likelihood of all tokens, each among those that were possible, is
    that of the sequence, and all sequences of a length have a probability of one
    together, whatever tokens are. Sequences with unknown bases are left out: words
    with one cannot be read back. So are vocabularies of more than `MOST_WORDS` learned
    words (NaN), of which it would take too long to find out which can be neighbours.

    Parameters
    ----------
    train, held_out : Codes
    model : ModelConfig
        Its width, depth, heads and positions.
    config : TrainConfig
        Its batch size, learning rate and schedule, weight decay, gradient clip, device.
    epochs : int
        Passes over the training sequences; the last weights count.

    Raises
    ------
    DataError
        If no sequence is without unknown bases.
    BioattnError
        If the loss stops being finite.
    """
    train, held_out = _known(train, "training"), _known(held_out, "held-out")
    device = resolve_device(config.device, "32-true").accelerator
    spelling = None
    if isinstance(tokenizer, BpeTokenizer):
        if len(tokenizer.words) > MOST_WORDS:
            return Bits(math.nan, 0)
        spelling = spelling_of(tokenizer, max(train.width, held_out.width))
        spelling = Spelling(*(x.to(device) for x in spelling))
    with torch.random.fork_rng():
        torch.manual_seed(stream_seed(seed, "next token"))
        network = NextToken(tokenizer.n_tokens, model, spelling).to(device)
        _train(network, train, tokenizer, config, epochs=epochs, seed=seed)
    network.eval()
    nats = 0.0
    with torch.no_grad():
        for start in range(0, len(held_out), _EVALUATION_BATCH):
            batch = _batch(held_out, tokenizer, slice(start, start + _EVALUATION_BATCH), device)
            nats += sum(float(network(part).double().sum()) for part in _parts(batch))
    return Bits(nats / math.log(2) / int(held_out.lengths.sum()), len(held_out))


def _train(
    network: NextToken, codes: Codes, tokenizer: Tokenizer, config: TrainConfig, *, epochs: int, seed: int
) -> None:
    device = str(network.bias.device)
    optimizer = torch.optim.AdamW(decay_groups(network, config.weight_decay), lr=config.learning_rate)
    n_steps = epochs * -(-len(codes) // config.batch_size)
    n_warmup = round(config.warmup_fraction * n_steps)
    step = 0
    for epoch in range(epochs):
        order = stream(seed, "next token", "order", epoch).permutation(len(codes))
        for start in range(0, len(order), config.batch_size):
            batch = _batch(codes, tokenizer, order[start : start + config.batch_size], device)
            for group in optimizer.param_groups:
                group["lr"] = config.learning_rate * warmup_cosine(step, n_steps=n_steps, n_warmup=n_warmup)
            optimizer.zero_grad()
            n_tokens = (batch.ids != PAD_ID).sum()
            for part in _parts(batch):
                loss = network(part).sum() / n_tokens
                if not bool(loss.isfinite()):
                    raise BioattnError(
                        f"the next-token model diverged at epoch {epoch}, step {step}: lower train.learning_rate"
                    )
                loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), config.gradient_clip)
            optimizer.step()
            step += 1


def _batch(codes: Codes, tokenizer: Tokenizer, index: NDArray[np.int64] | slice, device: str) -> Words:
    words = possible_words(tokenizer, torch.from_numpy(codes.rows(index)))
    return Words(*(x.to(device) for x in words))


def _parts(batch: Words) -> Iterator[Words]:
    """The batch in parts whose logits are not too many."""
    size = max(_MOST_LOGITS // (batch.ids.shape[1] * int(batch.n_possible.max())), 1)
    yield from map(Words._make, zip(*(x.split(size) for x in batch), strict=True))


def _known(codes: Codes, what: str) -> Codes:
    """The sequences without unknown bases."""
    unknown = [(rows == alphabet.UNKNOWN).any(1) for rows in codes.chunks()]
    index = np.flatnonzero(~np.concatenate(unknown)) if unknown else np.zeros(0, dtype=np.int64)
    if not len(index):
        raise DataError(
            f"none of {len(codes)} {what} sequences is without unknown bases, so there are no bits per base: "
            "set bakeoff.language_epochs to 0"
        )
    return codes.take(index)
