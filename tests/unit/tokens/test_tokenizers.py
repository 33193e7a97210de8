"""Tokenizers: ids against slow loops, spans, description, and what they refuse."""

import copy
import itertools
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from toy_tokens import BPE, TOKENIZERS, codes_of, related

from bioattn.data import alphabet
from bioattn.errors import ConfigError, DataError
from bioattn.tokens import BpeTokenizer, KmerTokenizer, NucleotideTokenizer, tokenizer_for, tokenizer_from
from bioattn.tokens import bpe as bpe_module
from bioattn.tokens.base import MASK_ID, N_SPECIAL, PAD_ID, UNKNOWN_ID, touched
from bioattn.tokens.bpe import train_bpe

ROOT = Path(__file__).parents[3]


def slow_kmers(text: str, k: int, stride: int) -> list[tuple[str, int, int]]:
    """Words and spans by the definition: one at each stride, until one reaches the end."""
    found = []
    for start in itertools.count(0, stride):
        found.append((text[start : start + k], start, min(start + k, len(text))))
        if start + k >= len(text):
            return found


def slow_id(word: str, k: int) -> int:
    """Place of a word in the list of all words of 1 to k bases, in alphabetical order within a length."""
    if "N" in word:
        return UNKNOWN_ID
    words = ("".join(w) for n in range(1, k + 1) for w in itertools.product("ACGT", repeat=n))
    return N_SPECIAL + list(words).index(word)


@pytest.mark.parametrize(("k", "stride"), [(1, 1), (2, 1), (3, 3), (3, 2), (4, 1), (5, 3), (5, 5)])
def test_kmers_equal_a_slow_loop(k: int, stride: int):
    """Ids and spans are those of a loop over the text, N and every length from one base on included."""
    tokenizer = KmerTokenizer(k, stride)
    generator = np.random.default_rng(k)
    texts = ["".join(generator.choice(list("ACGTN"), n, p=[0.24] * 4 + [0.04])) for n in range(1, 23)]
    tokens = tokenizer.encode(codes_of(texts))
    for row, text in enumerate(texts):
        expected = slow_kmers(text, k, stride)
        real = tokens.ids[row] != PAD_ID
        assert int(real.sum()) == len(expected) == tokenizer.most_tokens(len(text))
        assert tokens.ids[row][real].tolist() == [slow_id(word, k) for word, _, _ in expected]
        assert tokens.start[row][real].tolist() == [start for _, start, _ in expected]
        assert tokens.end[row][real].tolist() == [end for _, _, end in expected]


@pytest.mark.parametrize("name", list(TOKENIZERS))
def test_every_id_is_one_word(name: str):
    """The ids of a vocabulary name different words, and special ids none but N."""
    tokenizer = TOKENIZERS[name]
    words = [tokenizer.word(i) for i in range(tokenizer.n_tokens)]
    assert words[:N_SPECIAL] == ["", "N", ""]
    assert len(set(words[N_SPECIAL:])) == tokenizer.n_tokens - N_SPECIAL
    assert all(word and set(word) <= set("ACGT") for word in words[N_SPECIAL:])


def test_sizes_of_vocabularies():
    """A vocabulary of k-mers has 4 + 16 + ... + 4^k words, one of nucleotides 4, a learned one no more than asked."""
    assert NucleotideTokenizer().n_tokens == N_SPECIAL + 4
    assert KmerTokenizer(6, 6).n_tokens == KmerTokenizer(6, 1).n_tokens == N_SPECIAL + sum(4**i for i in range(1, 7))
    assert BPE.n_tokens == 40
    assert train_bpe(["ACGT"], vocabulary=100).n_tokens == bpe_module.LEAST_VOCABULARY  # nothing occurs twice


def test_bpe_equals_the_library_called_for_one_sequence_at_a_time():
    """Ids and spans of a batch are those of `tokenizers` for each text alone, with its own offsets."""
    texts = [*related(30, seed=3), "ACGNNTA", "N", "NNNNACGT", "A"]
    tokens = BPE.encode(codes_of(texts))
    for row, text in enumerate(texts):
        alone = BPE._library.encode(text, add_special_tokens=False)
        real = tokens.ids[row] != PAD_ID
        assert tokens.ids[row][real].tolist() == alone.ids
        spans = zip(tokens.start[row][real].tolist(), tokens.end[row][real].tolist(), strict=True)
        assert list(spans) == alone.offsets


def test_bpe_merges_by_the_definition():
    """Applying the merges one after the other, each to all its neighbours from left to right, gives the same words."""
    for text in related(20, seed=4):
        words = list(text)
        for first, second in BPE.merges:
            merged: list[str] = []
            for word in words:
                if merged and (merged[-1], word) == (first, second):
                    merged[-1] = first + second
                else:
                    merged.append(word)
            words = merged
        ids = BPE.encode(codes_of([text])).ids[0]
        assert [BPE.word(int(i)) for i in ids] == words


def test_the_first_merge_is_the_most_frequent_pair():
    """Words are learned by frequency: the first two merges of a text of known pair counts are those."""
    learned = train_bpe(["TACGTACG" * 5, "CGCGACGT" * 5], vocabulary=9)
    assert learned.merges == (("C", "G"), ("A", "CG"))
    assert learned.words == ("A", "C", "G", "T", "CG", "ACG")


def test_learning_from_both_strands_sees_the_other_one():
    """With both strands the words of sequences and of their reverse complements are the same."""
    texts = related(60, seed=5)
    other = [alphabet.reverse_complement(text) for text in texts]
    one, both = (
        [train_bpe(x, vocabulary=60, both_strands=strands).merges for x in (texts, other)] for strands in (False, True)
    )
    assert one[0] != one[1] and both[0] == both[1]


_LEARN = """
from toy_tokens import related
from bioattn.tokens.bpe import train_bpe
texts = related(400, seed=1)
print(repr(train_bpe(texts[170:] + texts[:170], vocabulary=200).describe()))
"""


def test_learning_is_the_same_for_any_order_and_number_of_threads():
    """The same sequences give the same tokenizer, whatever their order, the threads and the process's hash seed."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "TOKENIZERS_PARALLELISM": "true",
        "RAYON_NUM_THREADS": "5",
        "PYTHONHASHSEED": "3",
    }
    command = [sys.executable, "-c", _LEARN]
    elsewhere = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
    texts = related(400, seed=1)
    here = [train_bpe(x, vocabulary=200).describe() for x in (texts, texts[::-1], sorted(texts))]
    assert [repr(x) for x in here] == [elsewhere.strip()] * 3 and len(here[0]["merges"]) > 150


def test_learning_from_part_of_many_sequences(monkeypatch: pytest.MonkeyPatch):
    """More bases than the limit are thinned out evenly, whatever the order; the words hardly change."""
    texts = related(400, seed=2)
    whole = train_bpe(texts, vocabulary=30)
    monkeypatch.setattr(bpe_module, "MOST_BASES", sum(map(len, texts)) // 4)
    part, again = train_bpe(texts, vocabulary=30), train_bpe(texts[::-1], vocabulary=30)
    assert part == again and part != whole
    assert len(set(part.words) & set(whole.words)) > 0.8 * len(whole.words)


def test_tokens_per_base_are_measured_on_the_training_sequences():
    """The mean is bases by tokens over all sequences; no sequence of full length has fewer bases per token."""
    texts = related(60, seed=6)
    learned = train_bpe(texts, vocabulary=60)
    counts = [int((learned.encode(codes_of([t])).ids != PAD_ID).sum()) for t in texts]
    assert learned.bases_per_token == pytest.approx(sum(map(len, texts)) / sum(counts))
    longest = max(map(len, texts))
    longer = [len(t) / c for t, c in zip(texts, counts, strict=True) if len(t) >= longest / 2]
    assert learned.fewest_bases_per_token == pytest.approx(min(longer))
    assert all(c <= learned.most_tokens(len(t)) for t, c in zip(texts, counts, strict=True) if len(t) >= longest / 2)


@pytest.mark.parametrize("name", list(TOKENIZERS))
def test_description_gives_the_same_tokenizer(name: str):
    """Through JSON text, pickle and copies: same description, same ids."""
    tokenizer = TOKENIZERS[name]
    codes = codes_of([*related(7, seed=8), "ACNNGT"])
    others = [
        tokenizer_from(json.loads(json.dumps(tokenizer.describe()))),
        pickle.loads(pickle.dumps(tokenizer)),
        copy.deepcopy(tokenizer),
    ]
    for other in others:
        assert other.describe() == tokenizer.describe()
        assert torch.equal(other.encode(codes).ids, tokenizer.encode(codes).ids)
    assert tokenizer_from(BPE.describe()) == BPE and hash(tokenizer_from(BPE.describe())) == hash(BPE)


@pytest.mark.parametrize("name", list(TOKENIZERS))
def test_tokens_of_shapes(name: str):
    """Of shapes without numbers, tokens on a grid have their shape, and learned words are as many as bases."""
    tokenizer = TOKENIZERS[name]
    with FakeTensorMode():
        tokens = tokenizer.encode(torch.zeros(3, 29, dtype=torch.long))
    assert (
        tokens.ids.shape
        == tokens.start.shape
        == tokens.end.shape
        == (3, tokenizer.most_tokens(29) if tokenizer.on_grid else 29)
    )


def test_kmers_compile_to_one_graph():
    """Inside a compiled model k-mers break no graph."""
    explained = torch._dynamo.explain(KmerTokenizer(3, 2).encode)(codes_of(["ACGTACG", "AC"]))
    assert explained.graph_break_count == 0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
@pytest.mark.parametrize("name", list(TOKENIZERS))
def test_any_integers_are_codes(name: str, dtype: torch.dtype):
    """Tokens are int64 whatever integers the codes are."""
    codes = codes_of(["ACGTNAC", "GT"])
    tokens = TOKENIZERS[name].encode(codes.to(dtype))
    assert tokens.ids.dtype == tokens.start.dtype == tokens.end.dtype == torch.int64
    assert torch.equal(tokens.ids, TOKENIZERS[name].encode(codes).ids)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", list(TOKENIZERS))
def test_tokens_are_on_the_device_of_the_codes(name: str):
    """Tokens of codes on a GPU lie there, and are those of the CPU."""
    codes = codes_of([*related(7, seed=8), "ACNNGT"])
    for ours, theirs in zip(TOKENIZERS[name].encode(codes.cuda()), TOKENIZERS[name].encode(codes), strict=True):
        assert theirs is None or (ours.is_cuda and torch.equal(ours.cpu(), theirs))


def test_touched_tokens():
    """A token is touched if a marked base lies in its span, and padding never is."""
    codes = codes_of(["ACGTACGTA", "ACGT"])
    marks = torch.zeros(2, 9, dtype=torch.bool)
    marks[0, 3] = marks[0, 8] = marks[1, 7] = True
    for tokenizer in TOKENIZERS.values():
        _, start, end, *_ = tokenizer.encode(codes)
        expected = [
            [bool(marks[i, s:e].any()) for s, e in zip(start[i].tolist(), end[i].tolist(), strict=True)] for i in (0, 1)
        ]
        assert touched(marks, start, end).tolist() == expected
        assert not any(expected[1])


def test_what_is_refused():
    """Wrong settings and descriptions are answered with what is allowed."""
    with pytest.raises(ConfigError, match="1 to 8 bases, got k = 9"):
        KmerTokenizer(9, 1)
    with pytest.raises(ConfigError, match="stride of 3-mers must be 1 to 3, or bases are lost, got 4"):
        KmerTokenizer(3, 4)
    with pytest.raises(ConfigError, match="'word' is not a kind of tokenizer; allowed: nucleotide, kmer, bpe"):
        tokenizer_for("word")
    with pytest.raises(ConfigError, match="use train_bpe"):
        tokenizer_for("bpe")
    with pytest.raises(ConfigError, match="vocabulary must be at least 7: 3 special tokens and 4 bases, got 5"):
        train_bpe(["ACGT"], vocabulary=5)
    for texts in ([], ["NNN", "."]):
        with pytest.raises(DataError, match="no sequence with a known base"):
            train_bpe(texts, vocabulary=20)
    good = BPE.describe()
    for bad in (
        {},
        {"kind": "syllable"},
        {"kind": "kmer", "k": "3", "stride": 1},
        {key: value for key, value in good.items() if key != "merges"},
        good | {"words": good["words"][1:]},
        good | {"words": [*good["words"], "A"]},
        good | {"merges": [["A", "CCCCCCC"]]},
        good | {"merges": [["A"]]},
        good | {"merges": None},
        good | {"bases_per_token": "many"},
    ):
        with pytest.raises(DataError, match="tokenizer"):
            tokenizer_from(bad)
    assert isinstance(tokenizer_for("kmer", 3, 2), KmerTokenizer) and isinstance(BPE, BpeTokenizer)
    assert MASK_ID not in BPE.encode(codes_of(related(9))).ids
