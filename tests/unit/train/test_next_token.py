"""Bits per base: a code for sequences, whatever the tokens; entropies that are known; what cannot be coded."""

import itertools
import math

import numpy as np
import pytest
import torch
from toy_attention import randomised
from toy_tokens import BPE, TOKENIZERS, codes_of, related

from bioattn.config import ModelConfig, StemConfig, TrainConfig
from bioattn.errors import BioattnError, DataError
from bioattn.tokens import BpeTokenizer, KmerTokenizer, NucleotideTokenizer
from bioattn.tokens.base import PAD_ID
from bioattn.tokens.bpe import train_bpe
from bioattn.train import next_token
from bioattn.train.next_token import NextToken, Words, bits_per_base, possible_words, spelling_of
from bioattn.train.store import codes_of_texts

MODEL = ModelConfig(
    d_model=16, n_layers=1, n_heads=2, d_feedforward=16, dropout=0.0, stem=StemConfig(kind="none", pool=1)
)
TRAIN = TrainConfig(batch_size=64, learning_rate=0.01, device="cpu")
#: Words among which "A" can only be the last: with any base behind it, the two become one word.
LAST_A = BpeTokenizer(
    ["A", "C", "G", "T", *("A" + base for base in "ACGT")],
    [("A", base) for base in "ACGT"],
    bases_per_token=1.5,
    fewest_bases_per_token=1.0,
)
KMERS = [KmerTokenizer(2, 2), KmerTokenizer(3, 2), KmerTokenizer(3, 1), KmerTokenizer(4, 1), NucleotideTokenizer()]


def toy(tokenizer, seed: int = 0, **more) -> NextToken:
    """Untrained model in float64 in which no parameter is neutral."""
    spelling = spelling_of(tokenizer, 30) if isinstance(tokenizer, BpeTokenizer) else None
    return randomised(NextToken(tokenizer.n_tokens, MODEL.model_copy(update=more), spelling), seed).eval()


def every_sequence(length: int) -> list[str]:
    return ["".join(letters) for letters in itertools.product("ACGT", repeat=length)]


@pytest.mark.parametrize("length", [1, 2, 6])
@pytest.mark.parametrize("tokenizer", [*KMERS, BPE, LAST_A], ids=lambda t: f"{t.describe()['kind']}{t.n_tokens}")
def test_probabilities_of_all_sequences_sum_to_one(tokenizer, length: int):
    """Over all sequences of a length: no tokenizer spends probability on what cannot be, and none has too much."""
    words = possible_words(tokenizer, codes_of(every_sequence(length)))
    real = words.ids != PAD_ID
    nats = torch.zeros(words.ids.shape, dtype=torch.float64)
    with torch.no_grad():
        nats[real] = toy(tokenizer)(words)
    assert float((-nats.sum(1)).exp().sum()) == pytest.approx(1, abs=1e-9)


def test_neighbours_of_learned_words():
    """Tokens are those of a sequence exactly if all neighbours can stand side by side, and its end is reached."""
    draw = np.random.default_rng(0)
    follows, completes = spelling_of(BPE, 30)
    for text in related(50, seed=7):
        ids = BPE.encode(codes_of([text])).ids[0]
        assert follows[ids[:-1], ids[1:]].all()
    seen = {True: 0, False: 0}
    for _ in range(500):
        ids = torch.from_numpy(draw.integers(3, BPE.n_tokens, draw.integers(2, 5)))
        text = "".join(map(BPE.word, ids.tolist()))
        again = BPE.encode(codes_of([text])).ids[0]
        ours = bool(follows[ids[:-1], ids[1:]].all())
        assert ours == (again.tolist() == ids.tolist())
        seen[ours] += 1
    assert min(seen.values()) > 50
    for left in range(1, 6):
        first = BPE.encode(codes_of(every_sequence(left))).ids[:, 0].unique()
        assert torch.equal(completes[left].nonzero()[:, 0], first)


@pytest.mark.parametrize("positions", ["none", "rope", "relative"])
@pytest.mark.parametrize("name", list(TOKENIZERS))
def test_a_token_is_predicted_from_those_before_it_alone(name: str, positions: str):
    """Changing the end of a sequence leaves the likelihoods of all tokens before the change as they were."""
    tokenizer = TOKENIZERS[name]
    network = toy(tokenizer, positions=positions)
    words = possible_words(tokenizer, codes_of(["ACGTTGACATTACAGGC"]))
    cut = words.ids.shape[1] // 2
    changed = words.ids.clone()
    changed[:, cut:] = words.lowest[:, cut:]
    with torch.no_grad():
        before, after = network(words), network(words._replace(ids=changed))
    torch.testing.assert_close(before[:cut], after[:cut], rtol=1e-12, atol=1e-12)
    assert not torch.allclose(before[cut:], after[cut:], atol=1e-6)
    assert len(before) == words.ids.shape[1]


@pytest.mark.parametrize("name", list(TOKENIZERS))
def test_padding_and_parts_change_no_likelihood(name: str, monkeypatch: pytest.MonkeyPatch):
    """Sequences have in a batch, and in parts of it, the likelihoods that they have alone."""
    tokenizer = TOKENIZERS[name]
    network = toy(tokenizer)
    texts = ["ACGTTGACATTACAGGC", "AC", "TATAATGC"]
    batch = possible_words(tokenizer, codes_of(texts))
    monkeypatch.setattr(next_token, "_MOST_LOGITS", 1)
    parts = list(next_token._parts(batch))
    with torch.no_grad():
        alone = torch.cat([network(possible_words(tokenizer, codes_of([t]))) for t in texts])
        torch.testing.assert_close(network(batch), alone, rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(torch.cat([network(p) for p in parts]), alone, rtol=1e-10, atol=1e-10)
    assert [len(p.ids) for p in parts] == [1, 1, 1]


@pytest.mark.parametrize("name", [name for name in TOKENIZERS if name != "bpe"])
def test_either_way_to_compare_with_possible_words_is_the_same(name: str):
    """Few words gathered and a masked range give the same, and that of a softmax over a list of the possible words."""
    tokenizer = TOKENIZERS[name]
    network = toy(tokenizer)
    words = possible_words(tokenizer, codes_of(["ACGTTGACATTACAGGC"]))
    hidden = torch.randn(words.ids.shape[1], 16, dtype=torch.float64)
    with torch.no_grad():
        logits = hidden @ network.embedding.table.weight.T + network.bias
        for i in range(words.ids.shape[1]):
            token, low, many = (int(x[0, i]) for x in words[:3])
            assert low <= token < low + many <= tokenizer.n_tokens
            expected = -logits[i, low : low + many].log_softmax(0)[token - low]
            found = network._nats(hidden[i : i + 1], *(x[0, i : i + 1] for x in words[:2]), many)
            torch.testing.assert_close(found[0], expected, rtol=1e-10, atol=1e-10)
        rows = (words.n_possible[0] == words.n_possible[0, -2]).nonzero()[:, 0]
        together = network._nats(hidden[rows], words.ids[0, rows], words.lowest[0, rows], int(words.n_possible[0, -2]))
        one_by_one = [
            network._nats(
                hidden[i : i + 1], words.ids[0, i : i + 1], words.lowest[0, i : i + 1], int(words.n_possible[0, i])
            )
            for i in rows.tolist()
        ]
        torch.testing.assert_close(together, torch.cat(one_by_one), rtol=1e-10, atol=1e-10)


def test_possible_words_go_on_where_the_last_one_ends():
    """Of overlapping words, the possible ones are those that begin with the bases already seen, at every length."""
    tokenizer = KmerTokenizer(4, 3)
    words = possible_words(tokenizer, codes_of(["ACGTACGTACG", "ACGTACG"]))
    possible = [
        [{tokenizer.word(i) for i in range(low, low + n)} for low, n in zip(*row, strict=True)]
        for row in zip(words.lowest.tolist(), words.n_possible.tolist(), strict=True)
    ]
    every = {n: set(every_sequence(n)) for n in range(1, 5)}
    assert possible[0] == [
        every[4],
        *({first + more for more in every[3]} for first in "TG"),
        {"C" + more for more in "ACGT"},
    ]
    assert possible[1][:2] == [every[4], {"T" + more for more in every[3]}]
    assert (words.ids[1, 2:] == PAD_ID).all()


def markov_texts(n: int, length: int, seed: int) -> tuple[list[str], float]:
    """Sequences of a chain in which each base is followed by the next of the alphabet with 0.7; bits per base."""
    draw = np.random.default_rng(seed)
    steps = np.where(draw.random((n, length)) < 0.7, 1, draw.choice([0, 2, 3], (n, length)))
    steps[:, 0] = draw.integers(0, 4, n)
    letters = np.array(list("ACGT"))[steps.cumsum(1) % 4]
    rate = -0.7 * math.log2(0.7) - 0.3 * math.log2(0.1)
    return ["".join(row) for row in letters], (2 + (length - 1) * rate) / length


@pytest.mark.parametrize("tokenizer", KMERS[::2], ids=lambda t: f"{t.k}-{t.stride}")
def test_bits_of_a_chain_are_its_entropy(tokenizer: KmerTokenizer):
    """A trained model needs the entropy of a Markov chain, within 0.05 bits, whatever the tokens; untrained more."""
    (train, _), (test, entropy) = markov_texts(1500, 30, 1), markov_texts(400, 30, 2)
    bits = bits_per_base(codes_of_texts(train), codes_of_texts(test), tokenizer, MODEL, TRAIN, epochs=4, seed=1)
    assert bits.per_base == pytest.approx(entropy, abs=0.05) and bits.n_sequences == 400
    assert bits.per_base > entropy - 0.01
    none = bits_per_base(codes_of_texts(train[:64]), codes_of_texts(test), tokenizer, MODEL, TRAIN, epochs=0, seed=1)
    assert none.per_base > 1.7


def test_bits_of_a_chain_in_learned_words_are_its_entropy():
    """Learned words, of which fewer are possible than there are, come to the same entropy."""
    (train, _), (test, entropy) = markov_texts(1500, 30, 1), markov_texts(400, 30, 2)
    tokenizer = train_bpe(train, vocabulary=20)
    bits = bits_per_base(codes_of_texts(train), codes_of_texts(test), tokenizer, MODEL, TRAIN, epochs=6, seed=1)
    assert entropy - 0.01 < bits.per_base < entropy + 0.05


def test_random_sequences_take_two_bits():
    """Where nothing can be learned, no tokenizer gets below two bits per base."""
    draw = np.random.default_rng(0)
    train, test = (["".join(r) for r in draw.choice(list("ACGT"), (n, 20))] for n in (500, 300))
    for tokenizer in (NucleotideTokenizer(), KmerTokenizer(3, 3), train_bpe(train, vocabulary=30)):
        bits = bits_per_base(codes_of_texts(train), codes_of_texts(test), tokenizer, MODEL, TRAIN, epochs=2, seed=1)
        assert 1.99 < bits.per_base < 2.1


def test_the_same_seed_gives_the_same_bits():
    """Bit for bit, and the caller's random stream is left alone; another seed gives others."""
    codes = codes_of_texts(related(80))
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    found = [bits_per_base(codes, codes, BPE, MODEL, TRAIN, epochs=1, seed=s).per_base for s in (1, 1, 2)]
    assert found[0] == found[1] != found[2]
    assert torch.equal(torch.rand(2), expected)


def test_sequences_with_unknown_bases_are_left_out(monkeypatch: pytest.MonkeyPatch):
    """Bits are those of the other sequences; where there is none, and where training diverges, it is said."""
    known, mixed = codes_of_texts(["ACGTACGT", "GGCATT"]), codes_of_texts(["ACGTACGT", "ACNT", "GGCATT"])
    train = codes_of_texts(related(70))
    expected, found = (bits_per_base(train, c, BPE, MODEL, TRAIN, epochs=1, seed=1) for c in (known, mixed))
    assert found == expected and found.n_sequences == 2
    with monkeypatch.context() as patch:
        patch.setattr(next_token, "MOST_WORDS", 36)
        none = bits_per_base(train, known, BPE, MODEL, TRAIN, epochs=1, seed=1)
    assert math.isnan(none.per_base) and none.n_sequences == 0
    for codes in (codes_of_texts(["ACNT"]), codes_of_texts([])):
        with pytest.raises(DataError, match="held-out sequences is without unknown bases"):
            bits_per_base(train, codes, BPE, MODEL, TRAIN, epochs=1, seed=1)
    monkeypatch.setattr(NextToken, "forward", lambda self, words: self.bias * float("nan"))
    with pytest.raises(BioattnError, match="next-token model diverged at epoch 0, step 0: lower train.learning_rate"):
        bits_per_base(train, known, BPE, MODEL, TRAIN, epochs=1, seed=1)
    assert isinstance(possible_words(BPE, codes_of(["ACGT"])), Words)
