"""What flows through single heads: tracks that say it are told from others, and so are sites that do it."""

import numpy as np
import pandas as pd
import pytest
import torch
from toy_heads import (
    EBOX,
    POSITIONAL,
    READER,
    USF1,
    expected_received,
    padded,
    random_codes,
    reading_model,
    with_ebox,
    with_sites,
    word_model,
)

from bioattn.config import ModelConfig, StemConfig
from bioattn.data import alphabet
from bioattn.explain import head_mutagenesis
from bioattn.explain.head_mutagenesis import TRACK_COLUMNS, _bases, _chosen_tokens, judged_tracks, site_effect
from bioattn.explain.path_patching import head_restricted_mutagenesis
from bioattn.explain.predict import predict
from bioattn.explain.seqlets import Windows
from bioattn.explain.tracks import head_tracks, token_places
from bioattn.models import SequenceModel, build_model

SILENT = (1, 0)


def random_model() -> SequenceModel:
    """Model with a token for each base and random weights, so that every head does something."""
    config = ModelConfig(
        stem=StemConfig(kind="none", pool=1), positions="rope", pooling="mean",
        d_model=12, n_layers=2, n_heads=3, d_feedforward=17, dropout=0.0,
    )  # fmt: skip
    model = build_model(config, n_readouts=2, seed=1).eval()
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model


# --------------------------------------------------------------------- tracks


@pytest.fixture(scope="module")
def judged() -> pd.DataFrame:
    """Judgement of tracks that are what flows through each head by definition, or its opposite, chance or constant."""
    model, codes = random_model(), padded(random_codes(13, 23, 0), 17)
    positions = np.where(codes == alphabet.PAD, -1, np.arange(23))
    heads = [(layer, head) for layer in range(2) for head in range(3)]
    effect = head_restricted_mutagenesis(model, codes, heads, positions, readout=1)
    exact = np.sqrt((effect**2).sum(-1) / 3)
    tracks = {
        "exact": exact,
        "opposite": -exact,
        "chance": np.random.default_rng(0).normal(size=exact.shape).astype(np.float32),
        "constant": np.ones_like(exact),
    }
    return judged_tracks(model, codes, tracks, token_places(model, codes), readout=1, n_positions=11)


def test_what_flows_through_a_head_agrees_with_itself(judged: pd.DataFrame):
    """A track that is the effect through a head has rank correlation one with it, its opposite minus one."""
    assert tuple(judged.columns) == TRACK_COLUMNS and len(judged) == 6 * 4
    for track, value in (("exact", 1), ("opposite", -1)):
        rows = judged[judged["track"] == track]
        np.testing.assert_allclose(rows[["spearman", "spearman_ci_low", "spearman_ci_high"]], value, atol=1e-9)
        assert (
            (rows["n_sequences"] == 13).all() and (rows["n_positions"] == 13 * 11).all() and (rows["note"] == "").all()
        )


def test_chance_agrees_with_nothing(judged: pd.DataFrame):
    """A random track has correlations about zero, with intervals that hold it for most heads."""
    rows = judged[judged["track"] == "chance"]
    assert rows["spearman"].abs().mean() < 0.15
    holds = (rows["spearman_ci_low"] < 0) & (rows["spearman_ci_high"] > 0)
    assert holds.sum() >= 5 and (rows["spearman_ci_low"] < rows["spearman"]).all()


def test_a_constant_track_says_nothing(judged: pd.DataFrame):
    """Without any variation there is no correlation, and the note says so."""
    rows = judged[judged["track"] == "constant"]
    assert rows["spearman"].isna().all() and (rows["n_sequences"] == 0).all() and (rows["n_positions"] == 0).all()
    assert rows["note"].str.contains("all alike").all()


@pytest.fixture(scope="module")
def reading() -> pd.DataFrame:
    """Judgement of the tracks of the reading model, beyond what shuffles have."""
    model, codes = reading_model(USF1), with_sites(USF1, 60, 60, 0)
    places = token_places(model, codes)
    tracks = head_tracks(model, codes)
    received = expected_received(model, codes, seed=0).excess(tracks.received, codes, places)
    given = {"received": received, "gradient": np.abs(tracks.gradient)}
    return judged_tracks(model, codes, given, places).set_index(["layer", "head"])


def test_received_attention_of_a_reader_says_what_flows_through_it(reading: pd.DataFrame):
    """Bases in tokens that the reader attends to matter more through it than others."""
    rows = reading.loc[[READER]]
    assert (rows["spearman_ci_low"] > 0).all() and (rows["n_sequences"] == 20).all()


def test_nothing_flows_through_a_silent_head(reading: pd.DataFrame):
    """Heads that write nothing have no correlation, which the note explains."""
    for head in (SILENT, POSITIONAL):
        rows = reading.loc[[head]]
        assert rows["spearman"].isna().all() and (rows["n_positions"] == 0).all()
        assert (rows["note"] == "substitutions do nothing through this head, or all alike").all()


def test_short_sequences_are_not_judged():
    """Sequences of four bases have too few positions: no correlation, and a note that says which."""
    model, codes = random_model(), random_codes(7, 4, 0)
    track = np.random.default_rng(0).normal(size=(7, 6, 4)).astype(np.float32)
    table = judged_tracks(model, codes, {"any": track}, token_places(model, codes))
    assert table["spearman"].isna().all() and table["note"].str.startswith("fewer than 5 positions").all()


def test_tokens_are_the_highest_of_each_track_and_some_others():
    """A third goes to each of two tracks, none twice and none at padding; where all are taken the rest is -1."""
    draw = np.random.default_rng(0)
    tracks = [draw.normal(size=(5, 2, 19)).astype(np.float32) for _ in range(2)]
    real = np.arange(19) < np.array([19, 19, 11, 7, 3])[:, None]
    for track in tracks:
        track[~np.broadcast_to(real[:, None], track.shape)] = np.nan
    chosen = _chosen_tokens(tracks, real, 9, np.random.default_rng(1))
    assert chosen.shape == (5, 9)
    for row, tokens in enumerate(chosen):
        kept = tokens[tokens >= 0]
        assert len(set(kept)) == len(kept) == min(9, real[row].sum()) and real[row, kept].all()
        for track in tracks:
            in_sd = np.nan_to_num(track[row] / np.nanstd(track, axis=(0, 2))[:, None], nan=-np.inf)
            assert set(np.argsort(-in_sd.max(0))[:3]) <= set(kept)
    again = _chosen_tokens(tracks, real, 9, np.random.default_rng(2))
    assert not np.array_equal(again, chosen)


def test_bases_lie_in_their_tokens():
    """Any base of a token may be drawn, the cut one at the end included, and none outside."""
    model, codes = reading_model(USF1), random_codes(400, 23, 0)
    places = token_places(model, codes)
    token = np.tile([0, 4, -1], (400, 1))
    base = _bases(places, np.arange(400), token, np.random.default_rng(0))
    assert set(base[:, 0]) == set(range(5)) and set(base[:, 1]) == {20, 21, 22} and (base[:, 2] == -1).all()


# ---------------------------------------------------------------------- sites


def planted(n: int, length: int, seed: int) -> tuple[np.ndarray, Windows]:
    """Random sequences with the best site of the motif at a random place of each."""
    codes = random_codes(n, length, seed)
    start = np.random.default_rng(seed).integers(0, length - USF1.width + 1, n)
    for row, first in zip(codes, start, strict=True):
        row[first : first + USF1.width] = alphabet.encode(USF1.consensus)
    return codes, cut(codes, start, USF1.width)


def cut(codes: np.ndarray, start: np.ndarray, width: int) -> Windows:
    """One window of each sequence."""
    row = np.arange(len(codes))
    return Windows(codes[row[:, None], start[:, None] + np.arange(width)], row, start)


def test_sites_act_through_their_reader():
    """Planted sites raise the readout through the head that reads them, more than other places of these sequences."""
    codes, sites = planted(40, 60, 0)
    found = site_effect(reading_model(USF1), codes, sites, READER)
    assert 0.5 < found["through_head_ci_low"] < found["through_head"] < found["through_head_ci_high"]
    assert found["through_head_p_value"] < 1e-5


@pytest.mark.parametrize("head", [SILENT, POSITIONAL])
def test_sites_do_nothing_through_other_heads(head: tuple[int, int]):
    """Through a head that writes nothing the effect is zero, and so is its interval; nothing is significant."""
    codes, sites = planted(40, 60, 0)
    found = site_effect(reading_model(USF1), codes, sites, head)
    assert found == {
        "through_head": 0, "through_head_ci_low": 0, "through_head_ci_high": 0, "through_head_p_value": 1
    }  # fmt: skip


def test_effects_are_those_of_replaced_sites(monkeypatch: pytest.MonkeyPatch):
    """All bases of a site are replaced and no others; where one head carries all, that is the change of the readout."""
    model, seen = reading_model(USF1), []
    real = head_mutagenesis.through_heads

    def spy(model, codes, mutated, heads, **more):
        seen.append((codes, mutated))
        return real(model, codes, mutated, heads, **more)

    monkeypatch.setattr(head_mutagenesis, "through_heads", spy)
    codes, sites = planted(40, 60, 0)
    sites.codes[3, 2] = codes[3, sites.start[3] + 2] = alphabet.UNKNOWN
    found = site_effect(model, codes, sites, READER)
    original, mutated = seen[0]
    inside = (np.arange(60) >= sites.start[:, None]) & (np.arange(60) < sites.start[:, None] + USF1.width)
    inside[3, sites.start[3] + 2] = False
    assert np.array_equal(original, codes) and np.array_equal(original != mutated, inside)
    change = predict(model, original)[:, 0] - predict(model, mutated)[:, 0]
    assert found["through_head"] == pytest.approx(change.mean(), rel=1e-4)
    # At as many bases of the same sequence, elsewhere.
    elsewhere = seen[1][0] != seen[1][1]
    assert np.array_equal(seen[1][0], codes) and (elsewhere.sum(1) >= USF1.width - 1).all()
    assert not (elsewhere & inside).all(1).any() and ((elsewhere & inside).sum(1) <= USF1.width // 2).all()


def test_places_that_do_less_than_others_are_not_significant():
    """Bases beside a site do less than the site itself, with which they are compared: a p-value near one."""
    codes, _ = planted(40, 2 * USF1.width, 0)
    codes[:, USF1.width :] = alphabet.encode(USF1.consensus)
    found = site_effect(reading_model(USF1), codes, cut(codes, np.zeros(40, dtype=int), USF1.width), READER)
    assert abs(found["through_head"]) < 0.5 and found["through_head_p_value"] > 0.99


def test_fewer_than_ten_sites_are_not_tested():
    """Nine sites have no effect that could be told, ten have one."""
    codes, sites = planted(10, 60, 0)
    model = reading_model(USF1)
    few = site_effect(model, codes, sites.take(slice(9)), READER)
    assert len(few) == 4 and all(np.isnan(value) for value in few.values())
    assert all(np.isfinite(value) for value in site_effect(model, codes, sites, READER).values())


def test_the_first_sites_are_taken():
    """Of more sites than are looked at, only the first count."""
    codes, sites = planted(40, 60, 0)
    model = reading_model(USF1)
    found = site_effect(model, codes, sites, READER, most_sites=15)
    assert found == site_effect(model, codes, sites.take(slice(15)), READER)
    assert found != site_effect(model, codes, sites, READER)


def test_words_that_move_are_not_compared():
    """Where replacing a site moves the borders of learned words, nothing is said."""
    model, codes = word_model("bpe"), with_ebox(30, 40, 0)
    start = np.array([alphabet.decode(row).index(EBOX) for row in codes])
    found = site_effect(model, codes, cut(codes, start, 6), (0, 0))
    assert all(np.isnan(value) for value in found.values())


def test_places_that_are_no_sites_have_no_small_p_values():
    """P-values of random places, through heads with random weights, are not smaller than chance has them."""
    model, p = random_model(), []
    for seed in range(60):
        codes = random_codes(20, 31, seed)
        start = np.random.default_rng(seed + 500).integers(0, 26, 20)
        p.append(
            site_effect(model, codes, cut(codes, start, 5), (seed % 2, seed % 3), seed=seed)["through_head_p_value"]
        )
    p = np.array(p)
    assert np.isfinite(p).all() and (p <= 0.05).mean() < 0.15 and 0.35 < p.mean() < 0.65
