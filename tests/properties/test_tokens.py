"""Tokens of any sequence: nothing is lost, spans cover the bases, padding and batch mates change nothing."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from toy_tokens import BPE, TOKENIZERS, codes_of

from bioattn.data import alphabet
from bioattn.errors import DataError
from bioattn.tokens import KmerTokenizer, NucleotideTokenizer, Tokenizer
from bioattn.tokens.base import PAD_ID, Tokens, to_bases


def _kmers() -> st.SearchStrategy[Tokenizer]:
    return st.integers(1, 8).flatmap(lambda k: st.builds(KmerTokenizer, st.just(k), st.integers(1, k)))


FLOATS = [torch.float32, torch.float64]
tokenizers = st.one_of(st.just(NucleotideTokenizer()), _kmers(), st.just(BPE))
#: Any letters, runs of N, and repeats, whose words are long.
texts = st.lists(
    st.one_of(
        st.text("ACGTN", min_size=1, max_size=40),
        st.text("ACGT", min_size=1, max_size=40),
        st.builds(lambda word, n: word * n, st.text("ACGTN", min_size=1, max_size=6), st.integers(1, 9)),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=300, deadline=None)
@given(tokenizer=tokenizers, texts=texts)
def test_decoding_is_the_inverse_of_encoding(tokenizer: Tokenizer, texts: list[str]):
    """The tokens of any A, C, G, T and N give back the very sequences, of any length from one base on."""
    assert tokenizer.decode(tokenizer.encode(codes_of(texts))) == texts


@settings(max_examples=300, deadline=None)
@given(tokenizer=tokenizers, texts=texts)
def test_spans_cover_every_base_and_no_other(tokenizer: Tokenizer, texts: list[str]):
    """Spans run in order from the first base to the last; they tile or overlap by k - stride; padding has none."""
    tokens = tokenizer.encode(codes_of(texts))
    for row, text in enumerate(texts):
        real = tokens.ids[row] != PAD_ID
        start, end = tokens.start[row][real], tokens.end[row][real]
        assert start[0] == 0 and end[-1] == len(text) and (end > start).all()
        overlap = tokenizer.k - tokenizer.stride if isinstance(tokenizer, KmerTokenizer) else 0
        assert (end[:-1] - start[1:] == overlap).all()
        assert not tokens.start[row][~real].any() and not tokens.end[row][~real].any()
        assert not (real[1:] & ~real[:-1]).any()  # padding lies on the right
        if tokenizer.token_bp is not None:
            assert (start == torch.arange(len(start)) * tokenizer.token_bp).all()


@settings(max_examples=200, deadline=None)
@given(tokenizer=tokenizers, texts=texts, more=st.integers(0, 17))
def test_padding_and_batch_mates_change_no_token(tokenizer: Tokenizer, texts: list[str], more: int):
    """A sequence has the tokens, in a batch and however far it is padded, that it has alone."""
    together = tokenizer.encode(torch.nn.functional.pad(codes_of(texts), (0, more), value=alphabet.PAD))
    for row, text in enumerate(texts):
        alone = tokenizer.encode(codes_of([text]))
        n = alone.ids.shape[1]
        for field in ("ids", "start", "end", "unknown"):
            ours, theirs = getattr(together, field), getattr(alone, field)
            if ours is not None:
                assert torch.equal(ours[row, :n], theirs[0]) and not ours[row, n:].any()


@settings(max_examples=200, deadline=None)
@given(tokenizer=tokenizers, texts=texts)
def test_tokens_are_as_many_as_reckoned_with(tokenizer: Tokenizer, texts: list[str]):
    """On a grid the number of tokens follows from the length; elsewhere there are at most as many as bases."""
    tokens = tokenizer.encode(codes_of(texts))
    for row, text in enumerate(texts):
        n = int((tokens.ids[row] != PAD_ID).sum())
        assert n == tokenizer.most_tokens(len(text)) if tokenizer.on_grid else n <= len(text)


def _values(tokens: Tokens, heads: int, seed: int, dtype: torch.dtype) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    n, t = tokens.ids.shape
    values = torch.randn(n, heads, t, generator=generator, dtype=torch.float64) ** 3
    return (values * (tokens.ids != PAD_ID)[:, None]).to(dtype)


@settings(max_examples=200, deadline=None)
@given(
    tokenizer=tokenizers, texts=texts, seed=st.integers(0, 99), dtype=st.sampled_from([torch.float32, torch.float64])
)
def test_projection_to_bases_conserves_what_tokens_carry(tokenizer: Tokenizer, texts, seed: int, dtype: torch.dtype):
    """Summed over bases as over tokens, of every sequence and head; each base gets its share of each token over it."""
    codes = codes_of(texts)
    tokens = tokenizer.encode(codes)
    values = _values(tokens, 2, seed, dtype)
    bases = to_bases(values, tokens.start, tokens.end, codes.shape[1])
    assert bases.dtype == dtype and bases.shape == (len(texts), 2, codes.shape[1])
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-13}[dtype] * float(values.abs().sum() + 1)
    torch.testing.assert_close(bases.sum(-1), values.sum(-1), rtol=0, atol=tolerance)
    assert not bases[(codes == alphabet.PAD)[:, None].expand_as(bases)].any()
    slow = torch.zeros_like(bases)
    for n, t in (tokens.ids != PAD_ID).nonzero().tolist():
        start, end = int(tokens.start[n, t]), int(tokens.end[n, t])
        slow[n, :, start:end] += values[n, :, t, None] / (end - start)
    torch.testing.assert_close(bases, slow, rtol=1e-5, atol=1e-5)
    assert (bases[values.amin(-1) >= 0] >= 0).all()


def test_projection_of_one_value_per_sequence():
    """Without a head axis too; a token that tiles gives each of its bases the same."""
    tokens = TOKENIZERS["3-mers"].encode(codes_of(["ACGTACGT"]))
    bases = to_bases(torch.tensor([[3.0, 6.0, 4.0]]), tokens.start, tokens.end, 8)
    assert bases.tolist() == [[1, 1, 1, 2, 2, 2, 2, 2]]


def test_projection_keeps_its_digits_over_long_sequences():
    """A value of 1e-6 beside one of 1e6, ten thousand bases away, comes through in float32."""
    start = torch.arange(0, 20_000, 10)[None]
    values = torch.full((1, 2000), 1e-6)
    values[0, 0] = 1e6
    bases = to_bases(values, start, start + 10, 20_000)
    torch.testing.assert_close(bases[0, 10:], torch.full((19_990,), 1e-7), rtol=1e-6, atol=0)


def test_projection_refuses_what_has_no_bases():
    """A value on padding, and a span beyond the sequence, are named."""
    start, end = torch.tensor([[0, 3, 0]]), torch.tensor([[3, 5, 0]])
    for values, length, message in (
        (torch.tensor([[1.0, 1.0, 1.0]]), 5, "must carry no value"),
        (torch.tensor([[1.0, 1.0, float("nan")]]), 5, "must carry no value"),
        (torch.tensor([[1.0, 1.0, 0.0]]), 4, "reach to base 5 of sequences of 4 bases"),
    ):
        try:
            to_bases(values, start, end, length)
        except DataError as error:
            assert message in str(error)
        else:
            raise AssertionError(message)
