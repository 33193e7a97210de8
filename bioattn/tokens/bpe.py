"""Byte pair encoding: words learned from training sequences, by the library `tokenizers`."""

import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bioattn.data import alphabet
from bioattn.errors import ConfigError, DataError
from bioattn.tokens.base import N_SPECIAL, PAD_ID, UNKNOWN_ID, Tokens

#: Names of the special tokens in the library, in the order of their ids. An unknown base is a word that nothing is
#: merged with.
_SPECIAL = ("<pad>", "N", "<mask>")
#: Smallest vocabulary: special tokens and bases.
LEAST_VOCABULARY = N_SPECIAL + alphabet.N_LETTERS
#: Words are learned from at most so many bases, which takes a minute or two and up to 80 bytes for each.
MOST_BASES = 20_000_000
#: What is learned from: known bases side by side. Whole chromosomes are cut, or one piece would be one unit of work.
_PIECE = re.compile("[ACGT]{1,10000}")
#: Words are merged only if they stand side by side this often: a pair that occurs once tells nothing of others.
_LEAST_COUNT = 2
#: Sequences on which the tokens per base are measured.
_SAMPLE = 10_000
#: How many more tokens than the densest of these to reckon with: sequences that were not looked at may be denser.
_SAFETY = 1.05


class BpeTokenizer:
    """Words of a learned vocabulary, of any length; make it with `train_bpe`.

    A sequence becomes single bases, and pairs of neighbours are merged in the
    order in which the merges were learned (Sennrich et al. 2016). An unknown base
    is a token of its own, `UNKNOWN_ID`, and no word reaches across it. Tokens follow
    one another without gap or overlap, but where they begin depends on the sequence.

    Parameters
    ----------
    words : sequence of str
        Words in the order of their ids, from `N_SPECIAL` on.
    merges : sequence of (str, str)
        Neighbours that become one word, first come first merged.
    bases_per_token, fewest_bases_per_token : float
        Mean over all tokens of the training sequences, and that of the sequence
        with most tokens for its length, for plans.

    Source: Sennrich, Haddow, Birch 2016, doi:10.18653/v1/P16-1162.
    """

    def __init__(
        self,
        words: Sequence[str],
        merges: Sequence[tuple[str, str]],
        *,
        bases_per_token: float,
        fewest_bases_per_token: float,
    ) -> None:
        self.words = tuple(words)
        self.merges = tuple((first, second) for first, second in merges)
        self.bases_per_token = bases_per_token
        self.fewest_bases_per_token = fewest_bases_per_token
        known = set(self.words)
        if not set(alphabet.LETTERS) <= known or len(known) < len(self.words):
            raise DataError("the words of a tokenizer of kind 'bpe' must differ and hold all single bases")
        if any(pair not in known for merge in self.merges for pair in (*merge, "".join(merge))):
            raise DataError("a tokenizer of kind 'bpe' merges what its words do not have")
        self._width = torch.tensor([0, 1, 0, *map(len, self.words)])

    @property
    def n_tokens(self) -> int:
        """Special tokens and words."""
        return N_SPECIAL + len(self.words)

    @property
    def token_bp(self) -> int | None:
        """None: tokens differ in length."""
        return None

    @property
    def on_grid(self) -> bool:
        """Never: where tokens begin depends on the sequence."""
        return False

    def most_tokens(self, length: int) -> int:
        """Tokens of the densest training sequences at that length, and 5 % more; of unknown bases there may be more."""
        return min(math.ceil(_SAFETY * length / self.fewest_bases_per_token), length)

    @torch.compiler.disable  # text has no graph
    def encode(self, codes: Tensor) -> Tokens:
        """Tokens of base codes (N, L), any integer type, padded on the right with `alphabet.PAD`.

        Words are found in text on the CPU, wherever `codes` lie. In shapes without
        numbers (a dry run) every base is a token of its own.
        """
        if type(codes) is not Tensor or codes.is_meta:
            return self._of_shapes(codes)
        found = [e.ids for e in self._library.encode_batch_fast(_texts(codes), add_special_tokens=False)]
        count_N = np.fromiter(map(len, found), dtype=np.int64, count=len(found))
        ids_Nt = np.full((len(found), int(count_N.max(initial=0))), PAD_ID, dtype=np.int64)
        ids_Nt[np.arange(ids_Nt.shape[1]) < count_N[:, None]] = np.fromiter(
            chain.from_iterable(found), dtype=np.int64, count=int(count_N.sum())
        )
        ids = torch.from_numpy(ids_Nt)
        width = self._width[ids]
        end = width.cumsum(1)
        real = ids != PAD_ID
        spans = (torch.where(real, x, 0) for x in (end - width, end))
        return Tokens(ids.to(codes.device), *(x.to(codes.device) for x in spans))

    def decode(self, tokens: Tokens) -> list[str]:
        """The sequences whose tokens these are."""
        return ["".join(map(self.word, row)) for row in tokens.ids.tolist()]

    def word(self, token: int) -> str:
        """Bases of an id of the vocabulary."""
        if token < N_SPECIAL:
            return "N" if token == UNKNOWN_ID else ""
        return self.words[token - N_SPECIAL]

    @cached_property
    def followers(self) -> Tensor:
        """Which word may stand behind which in the tokens of a sequence, bool (words, words), without special tokens.

        Two words cannot be neighbours if together they would be cut elsewhere. Tokens
        are those of a sequence exactly if all their neighbours can be. Every pair is
        tried, which takes seconds for 1000 words and minutes for 5000.
        """
        allowed = np.zeros((len(self.words), len(self.words)), dtype=bool)
        for i, first in enumerate(self.words):
            together = self._library.encode_batch_fast(
                [first + second for second in self.words], add_special_tokens=False
            )
            allowed[i] = [e.ids == [N_SPECIAL + i, N_SPECIAL + j] for j, e in enumerate(together)]
        return torch.from_numpy(allowed)

    def describe(self) -> dict[str, Any]:
        """Words, merges and tokens per base."""
        return {
            "kind": "bpe",
            "words": list(self.words),
            "merges": [list(merge) for merge in self.merges],
            "bases_per_token": self.bases_per_token,
            "fewest_bases_per_token": self.fewest_bases_per_token,
        }

    @classmethod
    def from_description(cls, document: Mapping[str, Any]) -> "BpeTokenizer":
        """The tokenizer that `describe` described."""
        return cls(
            document["words"],
            document["merges"],
            bases_per_token=float(document["bases_per_token"]),
            fewest_bases_per_token=float(document["fewest_bases_per_token"]),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, BpeTokenizer) and self.describe() == other.describe()

    def __hash__(self) -> int:
        return hash((self.words, self.merges, self.bases_per_token, self.fewest_bases_per_token))

    @cached_property
    def _library(self) -> Any:
        """The library's tokenizer with these words and merges."""
        tokenizers = _tokenizers()
        ids = {word: i for i, word in enumerate((*_SPECIAL, *self.words))}
        return tokenizers.Tokenizer(tokenizers.models.BPE(vocab=ids, merges=list(self.merges)))

    def _of_shapes(self, codes: Tensor) -> Tokens:
        n, length = codes.shape
        start = torch.arange(length, device=codes.device).expand(n, -1)
        return Tokens(torch.full_like(start, N_SPECIAL), start, start + 1)


def train_bpe(sequences: Iterable[str], *, vocabulary: int, both_strands: bool = False) -> BpeTokenizer:
    """Words that pairs of neighbours in the sequences are merged to, the most frequent pair first.

    The result does not depend on the order of the sequences, nor on the number of
    threads. Of more than `MOST_BASES` bases, sequences at equal distances of the
    sorted list are taken.

    Parameters
    ----------
    sequences : iterable of str
        Training sequences only: words learned from held-out sequences would leak
        them. Unknown bases separate what is left and right of them.
    vocabulary : int
        Largest number of different tokens, special ones included. There are fewer
        if no two words stand side by side twice.
    both_strands : bool
        Learn from the reverse complements too.

    Raises
    ------
    ConfigError
        If the vocabulary has no room for the bases.
    DataError
        If there is no base to learn from.
    """
    if vocabulary < LEAST_VOCABULARY:
        raise ConfigError(
            f"model.tokenizer.vocabulary must be at least {LEAST_VOCABULARY}: "
            f"{N_SPECIAL} special tokens and {alphabet.N_LETTERS} bases, got {vocabulary}"
        )
    pieces = [piece for text in sequences for piece in _PIECE.findall(text.upper())]
    if not pieces:
        raise DataError("there is no sequence with a known base to learn a tokenizer of kind 'bpe' from")
    if both_strands:
        pieces += [alphabet.reverse_complement(piece) for piece in pieces]
    pieces = _evenly(sorted(pieces), -(-sum(map(len, pieces)) // MOST_BASES))
    words, merges = _learn(pieces, vocabulary)
    rough = BpeTokenizer(words, merges, bases_per_token=1.0, fewest_bases_per_token=1.0)
    mean, fewest = _bases_per_token(rough, _evenly(pieces, -(-len(pieces) // _SAMPLE)))
    return BpeTokenizer(words, merges, bases_per_token=mean, fewest_bases_per_token=fewest)


def _learn(pieces: list[str], vocabulary: int) -> tuple[list[str], list[tuple[str, str]]]:
    """Words in the order of their ids, and merges in their order.

    The library counts pairs in whole numbers and breaks ties by id, so neither
    threads nor the order of the pieces can show.
    """
    tokenizers = _tokenizers()
    learner = tokenizers.Tokenizer(tokenizers.models.BPE())
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=_LEAST_COUNT,
        special_tokens=list(_SPECIAL),
        initial_alphabet=list(alphabet.LETTERS),
        show_progress=False,
    )
    learner.train_from_iterator(pieces, trainer)
    model = json.loads(learner.to_str())["model"]
    words = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return words[N_SPECIAL:], [(first, second) for first, second in model["merges"]]


def _bases_per_token(tokenizer: BpeTokenizer, pieces: list[str]) -> tuple[float, float]:
    """Mean over all tokens, and the least of the longer pieces."""
    tokens = [len(e.ids) for e in tokenizer._library.encode_batch_fast(pieces, add_special_tokens=False)]
    length, count = np.array([len(piece) for piece in pieces]), np.array(tokens)
    longer = length >= length.max() / 2
    return float(length.sum() / count.sum()), float((length[longer] / count[longer]).min())


def _evenly(items: list[str], step: int) -> list[str]:
    return items[:: max(step, 1)]


def _texts(codes: Tensor) -> list[str]:
    """Letters of base codes (N, L), padding dropped."""
    letters = np.frombuffer(b"ACGTN\0", dtype=np.uint8)[codes.cpu().numpy()]
    return [row.tobytes().rstrip(b"\0").decode("ascii") for row in letters]


def _tokenizers() -> Any:
    """The library, imported when it is needed."""
    # One thread, as everything else in a job unless told otherwise: it would take all cores of the machine, and warn at
    # each fork of a data loader. 4 to 5 million bases per second are no bottleneck. A user's own setting stays.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    import tokenizers

    return tokenizers
