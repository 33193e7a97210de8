"""Readers of seqlets: who reads, how far away, and what stands there."""

import numpy as np
import pytest
import torch
from toy_heads import (
    CONFIG,
    HNF1A,
    POSITIONAL,
    READ_PLACE,
    READER,
    TOKEN_BP,
    USF1,
    padded,
    random_codes,
    reading_model,
    with_ebox,
    with_sites,
    word_model,
)

from bioattn.config import ModelConfig, StemConfig
from bioattn.data import alphabet
from bioattn.data.motif import best_correlation
from bioattn.explain import readers
from bioattn.explain.head_motifs import head_motifs
from bioattn.explain.readers import Reading, distance_quantiles, distance_table, reader_middles, reading
from bioattn.explain.seqlets import Peaks
from bioattn.explain.tracks import head_tracks, token_places
from bioattn.models import SequenceModel, build_model
from bioattn.nn import taps


def peaks_at(row: np.ndarray, token: np.ndarray) -> Peaks:
    return Peaks(np.asarray(row), np.asarray(token), np.ones(len(row), np.float32))


def read(model: SequenceModel, codes: np.ndarray, peaks: Peaks, head: tuple[int, int]) -> Reading:
    places = token_places(model, codes)
    return reading(model, codes, places.centre, places.real, peaks, layer=head[0], head=head[1])


def directed_model() -> SequenceModel:
    """Reading model whose head `POSITIONAL` reads its place from tokens with the motif; others read all alike."""
    model = reading_model(USF1)
    layer, head = POSITIONAL
    attn = model.encoder.layer[layer].attn
    with torch.no_grad():
        # After normalisation tokens have about +1.73 or -1.73 in their first channel: queries of 4 or 0.
        attn.project_in.weight[2 * head, 0] = 2 / 1.73
        attn.project_in.bias[2 * head] = 2.0
    return model


# -------------------------------------------------------------------- reading


@pytest.mark.parametrize("head", [READER, POSITIONAL])
def test_shares_are_those_of_the_pattern(head: tuple[int, int], monkeypatch: pytest.MonkeyPatch):
    """Of a seqlet's column of the pattern each token has its share; tokens before the sequence read nothing here."""
    monkeypatch.setattr(readers, "BATCH", 3)  # several batches
    model, codes = directed_model(), padded(with_sites(USF1, 7, 60, 0), 43)
    draw = np.random.default_rng(0)
    row = draw.integers(0, 7, 11)
    token = draw.integers(0, 9, 11)
    seen = read(model, codes, peaks_at(row, token), head)
    name = f"layer.{head[0]}.attn.pattern"
    with taps.record(model, [name]) as store, torch.no_grad():
        model.one_strand(torch.from_numpy(codes.astype(np.int64)))
    n_tokens = np.where(np.arange(7) % 2 == 0, 9, 12)
    assert seen.share.shape == (11, 12) and seen.share.dtype == np.float32
    for s in range(11):
        column = store[name][row[s], head[1], 1:, token[s] + 1].numpy()[: n_tokens[row[s]]]
        np.testing.assert_allclose(seen.share[s, : len(column)], column / column.sum(), rtol=1e-5)
        assert (seen.share[s, len(column) :] == 0).all() and seen.real[s].sum() == len(column)
    np.testing.assert_allclose(seen.share.sum(1), 1, rtol=1e-5)
    assert np.array_equal(seen.row, row)


@pytest.mark.parametrize("start, sign", [(5, 1), (45, -1)])
def test_distance_is_seqlet_minus_reader(start: int, sign: int):
    """A seqlet to the right of its reader has a positive distance, to the left of it a negative one."""
    codes = np.full((1, 60), 3, dtype=np.uint8)
    codes[0, start : start + USF1.width] = alphabet.encode(USF1.consensus)
    model = directed_model()
    seen = read(model, codes, peaks_at([0], [READ_PLACE]), POSITIONAL)
    reader = int(seen.strongest[0])
    assert start <= reader < start + USF1.width
    middle = READ_PLACE * TOKEN_BP + TOKEN_BP // 2
    assert sign * (middle - reader) > 0
    best = int(seen.share[0].argmax())
    assert seen.distance_bp[0, best] == middle - reader
    assert np.array_equal(seen.distance_bp[0], middle - (np.arange(12) * TOKEN_BP + TOKEN_BP // 2))
    low, median, high = distance_quantiles(seen)
    assert median == middle - reader and low <= median <= high


def test_tokens_that_read_alike_have_equal_shares():
    """The queries of the reader all ask alike: every token reads a site as much as any other."""
    model, codes = reading_model(USF1), padded(with_sites(USF1, 5, 60, 0), 43)
    seen = read(model, codes, peaks_at(np.arange(5), np.full(5, 3)), READER)
    for share, real in zip(seen.share, seen.real, strict=True):
        np.testing.assert_allclose(share[real], 1 / real.sum(), rtol=1e-4)
    table = distance_table(seen, bin_bp=TOKEN_BP)
    np.testing.assert_allclose(table["share"], table["expected"], rtol=1e-4)


def test_readers_of_learned_words(monkeypatch: pytest.MonkeyPatch):
    """Sequences of few and of many words go together: shares are those of each alone, none at padding."""
    monkeypatch.setattr(readers, "BATCH", 2)
    model, codes = word_model("bpe"), padded(with_ebox(6, 40, 0), 13, every=3)
    places = token_places(model, codes)
    received = head_tracks(model, codes, gradients=False).received[:, 0]
    peaks = peaks_at([0, 3, 1, 2, 4, 5], np.nanargmax(received, axis=1)[[0, 3, 1, 2, 4, 5]])
    seen = read(model, codes, peaks, (0, 0))
    np.testing.assert_allclose(seen.share.sum(1), 1, rtol=1e-5)
    n_tokens = places.real.sum(1)[peaks.row]
    assert n_tokens[:2].max() < n_tokens[2:].min()  # the first batch is of the short sequences
    for s, row in enumerate(peaks.row):
        alone = alphabet.encode(alphabet.decode(codes[row]))[None]
        other = read(model, alone, peaks_at([0], peaks.token[[s]]), (0, 0))
        np.testing.assert_allclose(seen.share[s, : n_tokens[s]], other.share[0], rtol=1e-5)
        assert (seen.share[s, n_tokens[s] :] == 0).all() and seen.real[s].sum() == n_tokens[s]
        assert np.array_equal(seen.distance_bp[s, : n_tokens[s]], other.distance_bp[0])
        assert seen.strongest[s] == other.strongest[0]


# ------------------------------------------------------------------ distances


def made_up(seed: int = 0) -> Reading:
    """Shares and distances of 7 seqlets among up to 11 tokens."""
    draw = np.random.default_rng(seed)
    real = np.arange(11) < np.array([11, 11, 9, 8, 5, 3, 1])[:, None]
    share = draw.dirichlet(np.ones(11), 7) * real
    distance = draw.integers(-30, 30, (7, 1)) - np.sort(draw.integers(0, 60, (7, 11)), axis=1)
    distance[~real] = 10_000  # whatever stands at padding
    share = (share / share.sum(1, keepdims=True)).astype(np.float32)
    return Reading(share, distance, real, np.arange(7), np.zeros(7, np.int64))


@pytest.mark.parametrize("bin_bp", [1, 4, 7])
def test_distance_table_is_that_of_a_slow_loop(bin_bp: int):
    """Each bin has the shares whose distance rounds to it, and those of tokens that all read alike; sums are one."""
    seen = made_up()
    table = distance_table(seen, bin_bp=bin_bp)
    share, even = {}, {}
    for s in range(7):
        for t in np.flatnonzero(seen.real[s]):
            middle = round(seen.distance_bp[s, t] / bin_bp) * bin_bp
            share[middle] = share.get(middle, 0) + seen.share[s, t] / 7
            even[middle] = even.get(middle, 0) + 1 / seen.real[s].sum() / 7
    every = list(range(min(share), max(share) + 1, bin_bp))
    assert table["distance_bp"].tolist() == every
    np.testing.assert_allclose(table["share"], [share.get(d, 0) for d in every], atol=1e-7)
    np.testing.assert_allclose(table["expected"], [even.get(d, 0) for d in every], atol=1e-7)
    np.testing.assert_allclose(table[["share", "expected"]].sum(), 1, rtol=1e-6)


def test_quantiles_are_those_of_weighted_distances():
    """At each quantile so much of the reading has at most that distance, and less has a smaller one."""
    seen = made_up()
    quantiles = (0.05, 0.25, 0.5, 0.75, 0.95)
    distance, weight = seen.distance_bp[seen.real], seen.share[seen.real] / seen.share.sum()
    for q, value in zip(quantiles, distance_quantiles(seen, quantiles), strict=True):
        assert value in distance
        assert weight[distance <= value].sum() >= q - 1e-6 and weight[distance < value].sum() < q
    single = Reading(np.ones((1, 1), np.float32), np.array([[-7]]), np.ones((1, 1), bool), np.zeros(1), np.zeros(1))
    assert distance_quantiles(single) == [-7.0] * 3


def test_middles_of_readers_lie_in_their_sequences():
    """The middle of a last token that is cut may lie beyond the end of the sequence, what it sees does not."""
    codes = alphabet.encode_batch(["A" * 31, "A" * 46])
    seen = Reading(*[np.zeros((3, 1))] * 3, np.array([0, 0, 1]), np.array([32, 7, 32]))
    assert reader_middles(seen, codes).tolist() == [30, 7, 32]


# ------------------------------------------------------------- what stands there

#: From the start of a site of HNF1A to that of a site of USF1.
SPACING = 25


def pair_model() -> SequenceModel:
    """Model whose head 0.0 reads tokens with USF1, and only from tokens with HNF1A; head 0.1 reads everything alike."""
    config = ModelConfig(
        stem=StemConfig(kind="pwm", n_filters=1, width=1, pool=TOKEN_BP), positions="none", pooling="sum",
        d_model=8, n_layers=1, n_heads=2, d_feedforward=5, dropout=0.0,
    )  # fmt: skip
    model = build_model(config, n_readouts=1, motifs=[USF1, HNF1A], seed=0).eval()
    block = model.encoder.layer[0]
    with torch.no_grad():
        for part in (block.attn.project_in, block.attn.project_out, block.feedforward.narrow):
            part.weight.zero_()
            part.bias.zero_()
        # Two channels for each motif: (+, -) in tokens with it, else (-, +).
        model.stem.project.weight.zero_()
        model.stem.project.weight[:2, 0] = model.stem.project.weight[2:4, 1] = torch.tensor([4.0, -4.0])
        model.stem.project.bias.copy_(torch.tensor([-1.0, 1.0, -1.0, 1.0, 0, 0, 0, 0]))
        block.attn.project_in.weight[0, 2], block.attn.project_in.bias[0] = 3.0, 2.0  # HNF1A asks
        block.attn.project_in.weight[8, 0] = 2.0  # USF1 answers
        block.attn.project_in.weight[16, 0] = block.attn.project_out.weight[4, 0] = 1.0
        model.readout.weight.copy_(torch.tensor([[0, 0, 0, 0, 1.0, 0, 0, 0]]))
    return model


def with_pairs(n: int, length: int, seed: int) -> np.ndarray:
    """Random sequences with a site of HNF1A at a random place and one of USF1 to the right of it."""
    draw = np.random.default_rng(seed)
    codes = random_codes(n, length, seed + 1000)
    for row in codes:
        start = int(draw.integers(0, length - SPACING - USF1.width + 1))
        for motif, at in ((HNF1A, start), (USF1, start + SPACING)):
            row[at : at + motif.width] = [draw.choice(4, p=p) for p in motif.ppm.T]
    return codes


def test_the_motif_of_the_readers_is_found():
    """A head that reads one motif from another shows the second around its readers, and the distance between them."""
    result = head_motifs(pair_model(), with_pairs(200, 80, 0), with_pairs(100, 80, 1), CONFIG)
    row = result.table.iloc[0]
    assert best_correlation(result.motifs[0].ppm, USF1.ppm) > 0.9
    assert best_correlation(result.readers["layer0_head0_motif0"], HNF1A.ppm) > 0.9
    assert row["reader_p_value"] < 1e-6 and row["distance_bp"] == SPACING and row["distance_iqr_bp"] <= 2 * TOKEN_BP
    distances = result.distances.set_index("distance_bp")
    assert distances["share"].idxmax() == SPACING and distances.loc[SPACING, "share"] > 0.5
    assert distances.loc[SPACING, "expected"] < 0.1 and distances.loc[-SPACING, "share"] < 0.05


def test_readers_that_read_alike_have_no_motif():
    """Where every token reads the motif, what stands around the strongest is not more than chance."""
    result = head_motifs(reading_model(USF1), with_sites(USF1, 200, 60, 0), with_sites(USF1, 60, 60, 1), CONFIG)
    row = result.table[result.table["motif"] == 0].iloc[0]
    assert not row["reader_p_value"] < 0.01 and row["distance_iqr_bp"] > 20
