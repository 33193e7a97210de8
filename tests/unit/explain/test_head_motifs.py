"""Head motifs: what heads with known weights read is found, named, tested and judged; where there is nothing, nothing.

Also what the search rests on: places of tokens, two parts of the sequences, and the two comparisons of an enrichment.
"""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import hypergeom
from toy_heads import (
    CONFIG,
    EBOX,
    HNF1A,
    POSITIONAL,
    READ_PLACE,
    READER,
    TOKEN_BP,
    USF1,
    WORDS,
    padded,
    random_codes,
    reading_model,
    with_ebox,
    with_sites,
    word_model,
)

import bioattn
from bioattn.config import ENRICHED_Q, ExplainConfig, ModelConfig, StemConfig, TaskConfig
from bioattn.data import alphabet
from bioattn.data.motif import (
    Motif,
    best_correlation,
    information,
    log_odds,
    scan,
    scan_both_strands,
    score_threshold,
)
from bioattn.errors import DataError
from bioattn.explain import head_motifs as module
from bioattn.explain import head_search
from bioattn.explain.head_ablation import Scored, heads_of
from bioattn.explain.head_columns import COLUMNS
from bioattn.explain.head_motifs import HeadMotifs, enriched_motifs, head_motifs
from bioattn.explain.head_search import HeadFound, Search, _odds, _positional_share
from bioattn.explain.head_worth import Worth
from bioattn.explain.motif_discovery import Discovered
from bioattn.explain.sample import two_parts
from bioattn.explain.seqlets import Threshold, find_peaks, windows_at
from bioattn.explain.tracks import by_place, expectation, head_tracks, token_places
from bioattn.io.motifs import jaspar_group, jaspar_motif
from bioattn.models import SequenceModel, build_model
from bioattn.tokens.base import PAD_ID

SILENT = [
    head for head in ((layer, head) for layer in range(2) for head in range(3)) if head not in (READER, POSITIONAL)
]
#: Unlike the other two, this one is no palindrome.
NFYA = jaspar_motif("MA0060.4")
#: Few seqlets of the heads that read nothing, in which motifs are sought in vain.
FAST = CONFIG.model_copy(update={"seqlets_per_head": 100})
NAME = f"layer{READER[0]}_head{READER[1]}_motif0"


def row_of(result: HeadMotifs, head: tuple[int, int]) -> pd.Series:
    """The row of a head that has at most one motif."""
    rows = result.table[(result.table["layer"] == head[0]) & (result.table["head"] == head[1])]
    assert len(rows) == 1
    return rows.iloc[0]


def with_targets(n: int, length: int, seed: int) -> Scored:
    """Sequences of which the first half have a site, and targets that say so."""
    target = (np.arange(n) < n // 2).astype(np.float32)
    return Scored(with_sites(USF1, n, length, seed, share=0.5), target[:, None])


@pytest.fixture(scope="module")
def found() -> HeadMotifs:
    """Of the reading model, with targets that depend on the motif, named after JASPAR."""
    return head_motifs(
        reading_model(USF1, pooling="sum"), with_sites(USF1, 200, 60, 0), with_sites(USF1, 100, 60, 1), FAST,
        scored=with_targets(200, 60, 2), task=TaskConfig(), library=jaspar_group("vertebrates"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def untold() -> HeadMotifs:
    """Of the reading model in sequences of two lengths, without targets and names."""
    discovery, held_out = padded(with_sites(USF1, 300, 60, 0), 47), with_sites(USF1, 100, 60, 1)
    return head_motifs(reading_model(USF1), discovery, held_out, FAST)


# --------------------------------------------------------------- what a head reads


def test_the_reader_of_a_motif_is_found(found: HeadMotifs):
    """A head that attends to USF1 has its matrix, enriched in held-out sequences beyond any doubt."""
    row = row_of(found, READER)
    assert row["motif"] == 0 and row["q_value"] < 1e-6 and row["p_value"] <= row["q_value"]
    assert row["enrichment_log2"] > 3 and row["n_sites"] > 80
    assert best_correlation(found.motifs[0].ppm, USF1.ppm) > 0.9
    assert row["information_bits"] == pytest.approx(information(found.motifs[0].ppm).sum())
    assert row["consensus"] == found.motifs[0].consensus == found.motifs[0].name


def test_its_motif_is_named_after_jaspar(found: HeadMotifs):
    """The matches name the family of the matrix that the head was given."""
    row = row_of(found, READER)
    assert USF1.family and USF1.family in row["matches"] and "MA0" in row["matches"]
    assert HNF1A.family not in row["matches"]


def test_verdicts_with_targets(found: HeadMotifs):
    """The reader, whose removal costs more than that of random heads, is "motif"; heads that write nothing are dead."""
    reader = row_of(found, READER)
    assert reader["verdict"] == "motif" and reader["p_random"] <= 0.05 and reader["ablation_loss_ci_low"] > 0
    for head in (*SILENT, POSITIONAL):
        row = row_of(found, head)
        assert row["verdict"] == "dead" and row["p_random"] > 0.05 and row["ablation_loss"] == 0
    assert row_of(found, POSITIONAL)["positional_share"] > 0.9 > 0.1 > reader["positional_share"]
    assert found.summary["n_scored"] == 200 and found.summary["metric"] == "auroc" and len(found.ablation) == 18


def test_verdicts_without_targets(untold: HeadMotifs):
    """Nothing is known of what heads are worth: p_random is NaN, the head that reads a place is "positional"."""
    assert untold.table["p_random"].isna().all() and untold.table["ablation_loss"].isna().all()
    assert row_of(untold, READER)["verdict"] == "motif" and row_of(untold, POSITIONAL)["verdict"] == "positional"
    assert [row_of(untold, head)["verdict"] for head in SILENT] == ["diffuse"] * 4
    assert untold.ablation.empty and "metric" not in untold.summary and untold.summary["n_heads"] == 6


def test_a_reader_of_what_random_heads_are_worth_is_weak(monkeypatch: pytest.MonkeyPatch):
    """Where heads of random models cost as much, the motif of the reader remains, as that of a "weak" head."""
    monkeypatch.setattr("bioattn.explain.head_worth.random_model_losses", lambda *a, **k: np.full(99, 1e3))
    row = row_of(
        head_motifs(
            reading_model(USF1), with_sites(USF1, 100, 60, 0), with_sites(USF1, 60, 60, 1), FAST,
            scored=with_targets(60, 60, 2), task=TaskConfig(),
        ),
        READER,
    )  # fmt: skip
    assert row["verdict"] == "weak" and row["p_random"] == 1 and row["motif"] == 0 and row["ablation_drop"] > 0.2


def test_the_readout_responds_to_the_motif_through_its_head(untold: HeadMotifs):
    """What the motif does to the readout is gone without its reader, and all there without others."""
    row = row_of(untold, READER)
    assert row["motif_response"] > 1 and row["motif_response_ci_low"] > 0.5
    assert row["motif_response_lost"] == pytest.approx(1, abs=0.01)
    assert row["motif_response_lost_others"] == pytest.approx(0, abs=0.01)
    assert row["through_head_ci_low"] > 1 and row["through_head_p_value"] < 1e-4 and row["note"] == ""


def test_tracks_are_judged_by_what_flows_through_heads(found: HeadMotifs):
    """Both tracks of the reader agree with mutagenesis, those of heads that write nothing with nothing."""
    judged = found.judged_tracks.set_index(["layer", "head"])
    assert (judged.loc[READER, "spearman_ci_low"] > 0).all() and judged.loc[READER, "track"].nunique() == 2
    assert judged.drop(READER)["spearman"].isna().all() and len(judged) == 12


# -------------------------------------------------------------------- form of results


def test_all_columns_are_there(found: HeadMotifs, untold: HeadMotifs):
    """The table has the columns that are promised, in their order, and a row for each head that has no motif."""
    for result in (found, untold):
        assert tuple(result.table.columns) == tuple(COLUMNS)
        assert list(zip(result.table["layer"], result.table["head"], strict=True)) == heads_of(reading_model(USF1))
        without = result.table[result.table["motif"] == -1]
        assert len(without) == 5 and without["note"].str.len().min() > 0 and (without["consensus"] == "").all()
        assert without[["q_value", "enrichment_log2", "distance_bp", "through_head"]].isna().all(axis=None)
        assert result.summary["n_motifs"] == 1 <= result.summary["n_tested"]
    assert not found.table.drop(columns="note").loc[found.table["motif"] == 0].isna().any(axis=None)


def test_matrices_go_by_the_names_of_motifs(found: HeadMotifs):
    """CWMs and readers have the identifiers of the motifs as keys, their sizes, and files named after them."""
    assert [motif.motif_id for motif in found.motifs] == [NAME] == list(found.cwms)
    assert set(found.readers) <= {NAME} and found.cwms[NAME].shape == found.motifs[0].ppm.shape
    row = row_of(found, READER)
    assert (row["logo"], row["cwm_logo"]) == (f"logos/{NAME}.svg", f"logos/{NAME}_cwm.svg")
    assert row["reader_logo"] == (f"logos/{NAME}_readers.svg" if found.readers else "")


def test_the_cwm_shows_what_raises_the_readout(untold: HeadMotifs):
    """Letters of the motif contribute to what the reader writes, most where the motif says most."""
    cwm, ppm = untold.cwms[NAME], untold.motifs[0].ppm
    assert np.corrcoef(cwm.ravel(), (ppm * information(ppm)).ravel())[0, 1] > 0.8
    assert cwm.sum() > 0


def test_distances_sum_to_one(found: HeadMotifs, untold: HeadMotifs):
    """Shares of reading at all distances are all of it, and so are those of tokens that all read alike."""
    for result in (found, untold):
        sums = result.distances.groupby(["layer", "head", "motif"])[["share", "expected"]].sum()
        np.testing.assert_allclose(sums, 1, rtol=1e-5)
        assert list(sums.index) == [(*READER, 0)]


def test_positions_are_those_of_tokens(untold: HeadMotifs):
    """Each head has a row for each token; a head that reads a place gives most to it, silent ones as in shuffles."""
    for (layer, head), rows in untold.positions.groupby(["layer", "head"]):
        assert rows["position"].tolist() == list(range(0, 60, TOKEN_BP))
        if (layer, head) == POSITIONAL:
            assert rows["received"].idxmax() == rows.index[READ_PLACE] and rows["received"].max() > 3
        elif (layer, head) in SILENT:
            np.testing.assert_allclose(rows["received"], rows["background"], rtol=1e-5)
    assert untold.positions.groupby(["layer", "head"]).ngroups == 6


def test_similarity_is_that_of_all_pairs_of_heads(found: HeadMotifs):
    """Heads that read everything are alike, and unlike those that read something; each head has its nearest."""
    c = {head: i for i, head in enumerate(heads_of(reading_model(USF1)))}
    assert found.similarity.shape == (6, 6) and found.similarity[c[SILENT[0]], c[SILENT[1]]] == pytest.approx(1)
    assert found.similarity[c[READER], c[SILENT[0]]] < 0.5 > found.similarity[c[POSITIONAL], c[SILENT[0]]]
    nearest = row_of(found, SILENT[0])
    assert nearest["similarity"] == pytest.approx(1) and nearest["similar_head"] == "L0H1"


def test_similar_heads_exist(untold: HeadMotifs):
    """Without targets too, the nearest head is one that the model has."""
    assert set(untold.table["similar_head"]) <= {f"L{layer}H{head}" for layer, head in heads_of(reading_model(USF1))}


def test_same_seed_same_result(untold: HeadMotifs):
    """A seed gives the same tables and matrices again, another seed others."""
    discovery, held_out = padded(with_sites(USF1, 300, 60, 0), 47), with_sites(USF1, 100, 60, 1)
    again = head_motifs(reading_model(USF1), discovery, held_out, FAST)
    for name in ("table", "positions", "distances", "seqlets", "judged_tracks"):
        pd.testing.assert_frame_equal(getattr(again, name), getattr(untold, name))
    assert all(np.array_equal(again.cwms[key], untold.cwms[key]) for key in untold.cwms)
    other = head_motifs(reading_model(USF1), discovery, held_out, CONFIG, seed=1)
    assert not np.array_equal(other.positions["background"], untold.positions["background"])
    assert row_of(other, READER)["consensus"] == row_of(untold, READER)["consensus"]


def test_enriched_motifs_are_those_of_the_whole_result(untold: HeadMotifs):
    """Motifs alone are the same as with everything else that is said of them."""
    discovery, held_out = padded(with_sites(USF1, 300, 60, 0), 47), with_sites(USF1, 100, 60, 1)
    (motif,) = enriched_motifs(reading_model(USF1), discovery, held_out, FAST)
    assert motif.motif_id == NAME and np.array_equal(motif.ppm, untold.motifs[0].ppm)


# ------------------------------------------------------------------ given sequences


def held(texts: list[str], seqlets: pd.DataFrame, ppm: np.ndarray) -> np.ndarray:
    """Whether the stated interval of each stated sequence, on its strand, holds the motif."""
    pwm, sites = log_odds(ppm), []
    for s in seqlets.itertuples():
        site = alphabet.encode(texts[s.sequence][s.start : s.end])
        assert len(site) == ppm.shape[1]
        sites.append(alphabet.reverse_complement_codes(site) if s.strand == "-" else site)
    return scan(np.stack(sites), pwm)[:, 0] >= score_threshold(pwm, 1e-2)


def test_seqlets_are_rows_of_the_given_list():
    """Of a list without held-out sequences random halves are taken; seqlets say which of the list hold the motif."""
    texts = [alphabet.decode(row) for row in padded(with_sites(NFYA, 240, 60, 0), 47)]
    result = bioattn.head_motifs(reading_model(NFYA), texts)
    seqlets, ppm = result.seqlets, result.motifs[0].ppm
    assert best_correlation(ppm, NFYA.ppm) > 0.9 and len(seqlets) > 60
    assert held(texts, seqlets, ppm).mean() > 0.95
    rows = np.sort(seqlets["sequence"].unique())
    # A half of the list, and not its first one.
    assert 60 < len(rows) <= 120 and rows[-1] > 200
    cwm = result.cwms[NAME]
    assert np.corrcoef(cwm.ravel(), (ppm * information(ppm)).ravel())[0, 1] > 0.9
    other = seqlets.assign(sequence=(seqlets["sequence"] + 2) % 240)
    turned = seqlets.assign(strand=seqlets["strand"].map({"+": "-", "-": "+"}))
    assert held(texts, other, ppm).mean() < 0.3 > held(texts, turned, ppm).mean()


def test_seqlets_of_discovery_sequences_keep_their_rows(untold: HeadMotifs):
    """With held-out sequences of their own, seqlets are rows of the discovery sequences, highest score first."""
    codes = padded(with_sites(USF1, 300, 60, 0), 47)
    seqlets = untold.seqlets
    assert held([alphabet.decode(row) for row in codes], seqlets, untold.motifs[0].ppm).mean() > 0.95
    assert set(seqlets["strand"]) == {"+", "-"} and seqlets["score"].is_monotonic_decreasing
    assert len(seqlets) == row_of(untold, READER)["n_sites"]
    assert (seqlets[["layer", "head", "motif"]].drop_duplicates().to_numpy() == [[*READER, 0]]).all()


def test_sites_of_one_strand_only_where_that_was_asked():
    """With `both_strands` off all sites lie on the given strand; else about half of them, and there are more."""
    given = [with_sites(NFYA, n, 60, seed) for n, seed in ((160, 0), (100, 1))]
    config = CONFIG.model_copy(update={"seqlets_per_head": 200})
    both = head_motifs(reading_model(NFYA), *given, config)
    one = head_motifs(reading_model(NFYA), *given, config.model_copy(update={"both_strands": False}))
    assert set(one.seqlets["strand"]) == {"+"} and row_of(one, READER)["motif"] == row_of(both, READER)["motif"] == 0
    assert (both.seqlets["strand"] == "+").mean() == pytest.approx(0.5, abs=0.15)
    assert row_of(both, READER)["n_sites"] > 1.5 * row_of(one, READER)["n_sites"]


def test_a_model_that_averages_strands():
    """The motif of a model that reads both strands is found in sequences as they are given."""
    model = reading_model(USF1, reverse_complement="average")
    row = row_of(head_motifs(model, with_sites(USF1, 120, 60, 0), with_sites(USF1, 60, 60, 1), FAST), READER)
    assert row["verdict"] == "motif" and row["q_value"] < 1e-6 and row["through_head_ci_low"] > 1


@pytest.mark.filterwarnings("ignore::bioattn.errors.BioattnWarning")
@pytest.mark.parametrize("words", list(WORDS))
def test_motif_of_a_head_that_reads_words(words: str):
    """A head that attends to the word of a planted site shows it, wherever the word's token begins."""
    model, n = word_model(words), 500 if words == "tiling" else 200
    discovery = padded(with_ebox(n, 80, 0), 71)  # of two lengths, so that some tokens are padding
    result = head_motifs(model, discovery, with_ebox(n // 2, 80, 1), CONFIG)
    row = result.table.iloc[0]
    # On a grid of three only one site in three is read, as two words that also occur alone.
    assert row["verdict"] == "motif" and row["q_value"] < (0.01 if words == "tiling" else 1e-6)
    assert EBOX in row["consensus"] or (words == "tiling" and EBOX[1:5] in row["consensus"])
    assert len(result.positions) == (80 if words == "bpe" else model.tokenizer.most_tokens(80))
    assert held([alphabet.decode(c) for c in discovery], result.seqlets, result.motifs[0].ppm).mean() > 0.9


@pytest.mark.parametrize("lengths", [(60, 83), (83, 60)])
def test_held_out_sequences_may_be_longer_or_shorter(lengths: tuple[int, int]):
    """Discovery and held-out sequences of different lengths go together; beyond the former nothing is sought."""
    discovery, held_out = with_sites(USF1, 120, lengths[0], 0), with_sites(USF1, 60, lengths[1], 1)
    result = head_motifs(reading_model(USF1), discovery, held_out, FAST)
    assert row_of(result, READER)["verdict"] == "motif"
    assert len(result.positions) == 6 * -(-lengths[0] // TOKEN_BP)


# ------------------------------------------------------------------------- the search


def search_of(model: SequenceModel, *parts: np.ndarray, config: ExplainConfig = FAST) -> Search:
    return Search(model, *parts, config, readout=0, seed=0)


def two_motif_model() -> SequenceModel:
    """Reading model whose reader attends to either of two motifs."""
    config = ModelConfig(
        stem=StemConfig(kind="pwm", n_filters=1, width=1, pool=TOKEN_BP), positions="learned", pooling="cls",
        d_model=6, n_layers=2, n_heads=3, d_feedforward=5, dropout=0.0,
    )  # fmt: skip
    model = build_model(config, n_readouts=1, motifs=[USF1, HNF1A], seed=0).eval()
    weights = reading_model(USF1).state_dict()
    first = weights["stem.project.weight"]
    weights["stem.project.weight"] = torch.cat([first[:, :1], first], dim=1)
    pwm = {name: value for name, value in model.state_dict().items() if name.startswith("stem.pwm_")}
    model.load_state_dict(weights | pwm)
    return model


def test_both_motifs_of_a_head_are_found_once_each():
    """A head that reads two motifs has both, though both tracks show them, by p-value; asked for one, the first."""
    given = [
        np.concatenate([with_sites(USF1, n, 60, seed), with_sites(HNF1A, n, 60, seed + 7)])
        for n, seed in ((120, 0), (60, 1))
    ]
    config = CONFIG.model_copy(update={"motifs_per_head": 2})
    found = search_of(two_motif_model(), *given, config=config).head(*READER)
    assert [motif.number for motif in found.motifs] == [0, 1] and len(found.tested) > 2
    assert found.motifs[0].p_value == min(found.tested) < found.motifs[1].p_value
    for motif in (USF1, HNF1A):
        assert max(best_correlation(one.ppm, motif.ppm) for one in found.motifs) > 0.9
    assert best_correlation(*(motif.ppm for motif in found.motifs)) < 0.8
    assert len(search_of(two_motif_model(), *given, config=CONFIG).head(*READER).motifs) == 1


@pytest.mark.parametrize("most", [100, 1000])
def test_seqlets_are_peaks_beyond_their_threshold(most: int):
    """Motifs are sought in the highest peaks that pass, and held-out sequences have them where theirs pass too."""
    given = with_sites(USF1, 200, 60, 0), with_sites(USF1, 100, 60, 1)
    config = CONFIG.model_copy(update={"seqlets_per_head": most})
    search = search_of(reading_model(USF1), *given, config=config)
    (motif,) = search.head(*READER).motifs
    least = search.head(*READER).seqlets[motif.track]
    assert len(motif.peaks.row) == min(least.n, most) and motif.peaks.score.min() >= least.score and least.n > 100
    c = READER[0] * 3 + READER[1]
    track, centre = search.tested_in.excess[motif.track][:, c], search.tested_in.places.centre
    peaks = find_peaks(track, centre, apart_bp=config.window_bp)
    high = peaks.take(peaks.score >= least.score)
    windows = windows_at(given[1], high.row, centre[high.row, high.token], config.window_bp)
    expected = set(zip(windows.row, windows.start, strict=True))
    held_out = set(zip(motif.held_out.row, motif.held_out.start, strict=True))
    assert held_out <= expected and len(held_out) > 0.8 * len(expected) and len(high.row) < len(peaks.row)


def test_sites_of_held_out_sequences():
    """Details of a motif have the place of its best site in each held-out seqlet that holds it."""
    given = with_sites(NFYA, 120, 60, 0), with_sites(NFYA, 100, 60, 1)
    search = search_of(reading_model(NFYA), *given)
    (motif,) = search.head(*READER).motifs
    sites, pwm = search.details(motif).held_out_sites, log_odds(motif.ppm)
    index = sites.start[:, None] + np.arange(pwm.shape[1])
    assert np.array_equal(sites.codes, given[1][sites.row[:, None], index])
    score = scan_both_strands(sites.codes, pwm)[:, 0]
    assert (score >= score_threshold(pwm, 1e-3)).all() and len(score) > 50
    np.testing.assert_allclose(score, scan_both_strands(motif.held_out.codes, pwm).max(1))


def test_a_word_that_shuffles_have_as_often_is_not_enriched():
    """A head reads a word of random sequences: it is found, more often in seqlets than elsewhere, but not enriched."""
    model = word_model("overlapping")
    with torch.no_grad():
        for i in range(model.tokenizer.n_tokens):
            read = "GCGC" in model.tokenizer.word(i)
            model.stem.table.weight[i] = torch.tensor([3.0, -3.0, 0, 0] if read else [-1.0, 1.0, 0, 0])
    config = CONFIG.model_copy(update={"seqlets_per_head": 60})
    search = search_of(model, random_codes(300, 80, 0), random_codes(300, 80, 1), config=config)
    found = search.head(0, 0)
    (motif,) = found.motifs
    assert "GCGC" in motif.consensus and motif.p_value > 0.05
    holds, elsewhere = (
        (scan_both_strands(codes, log_odds(motif.ppm)).max(1) >= score_threshold(log_odds(motif.ppm), 1e-3)).mean()
        for codes in (motif.held_out.codes, random_codes(300, 30, 2))
    )
    assert holds == 1 and len(motif.held_out.row) > 30 and elsewhere < 0.2


def test_a_motif_of_little_information_is_none(monkeypatch: pytest.MonkeyPatch):
    """A matrix of less than six bits is not even tested; the row of its head says what was missing."""
    rows = np.arange(60)
    for sharpness, n_tested in ((0.5, 0), (0.97, 2)):
        ppm = sharpness * np.eye(4)[:, [0, 1, 2, 3, 0, 2]] + (1 - sharpness) / 4
        assert (information(ppm).sum() < 6) == (n_tested == 0)
        one = Discovered(ppm, rows, np.zeros(60, np.int64), np.zeros(60, bool))
        monkeypatch.setattr(head_search, "discover", lambda *a, one=one, **k: [one])
        search = search_of(reading_model(USF1), with_sites(USF1, 120, 60, 0), with_sites(USF1, 60, 60, 1))
        found = search.head(*READER)
        assert len(found.tested) == n_tested
    assert (
        module._no_motif(replace(found, tested=[]), {}, FAST, "")["note"]
        == "no motif with at least 10 sites and 6 bits"
    )


def test_no_more_motifs_than_were_asked_for(monkeypatch: pytest.MonkeyPatch):
    """Where the two tracks show different motifs, both are tested, and the more enriched one is kept."""
    search = search_of(reading_model(USF1), with_sites(USF1, 120, 60, 0), with_sites(USF1, 60, 60, 1))
    rows = np.arange(60)
    ppms = iter([HNF1A.ppm, USF1.ppm])
    monkeypatch.setattr(
        head_search, "discover",
        lambda *a, **k: [Discovered(next(ppms), rows, np.zeros(60, np.int64), np.zeros(60, bool))],
    )  # fmt: skip
    found = search.head(*READER)
    (motif,) = found.motifs
    assert motif.ppm is USF1.ppm and motif.number == 0 and len(found.tested) == 2 and motif.p_value == min(found.tested)


def test_readers_are_tested_where_they_were_not_found(monkeypatch: pytest.MonkeyPatch):
    """What stands around readers is sought in some of them and tested in others, of which none was seen before."""
    search = search_of(reading_model(USF1), with_sites(USF1, 200, 60, 0), with_sites(USF1, 60, 60, 1), config=CONFIG)
    (motif,) = search.head(*READER).motifs
    seen, tested = [], []
    discover, holds = head_search.discover, head_search._holds
    monkeypatch.setattr(head_search, "discover", lambda *a, **k: seen.extend(a) or discover(*a, **k))
    monkeypatch.setattr(head_search, "_holds", lambda *a: tested.append(a[0]) or holds(*a))
    assert np.isfinite(search.details(motif).readers.p_value)
    shown, others = ({alphabet.decode(row) for codes in parts for row in codes} for parts in (seen, tested))
    assert len(seen) == len(tested) == 2 and len(shown) > 100 < len(others) and not shown & others


# --------------------------------------------------------------- where there is nothing


def test_no_motif_where_there_is_none():
    """In sequences without planted sites no head has an enriched motif, and each row says why."""
    for seed in range(2):
        result = head_motifs(reading_model(USF1), random_codes(150, 60, seed), random_codes(90, 60, seed + 10), FAST)
        assert (result.table["motif"] == -1).all() and result.motifs == [] and len(result.seqlets) == 0
        assert set(result.table["verdict"]) == {"diffuse", "positional"}
        assert row_of(result, READER)["note"].startswith("no motif")
        assert result.table["note"].str.match("no motif|too few seqlets").all()
        assert result.cwms == {} and result.readers == {} and len(result.distances) == 0


def test_no_motif_where_held_out_sequences_lack_it():
    """A motif of the discovery sequences that held-out ones do not have is sought and found, but is not enriched."""
    result = head_motifs(reading_model(USF1), with_sites(USF1, 150, 60, 0), random_codes(90, 60, 1), FAST)
    row = row_of(result, READER)
    assert row["motif"] == -1 and row["verdict"] == "diffuse" and "is enriched in held-out sequences" in row["note"]
    assert row["seqlet_fdr"] <= CONFIG.seqlet_fdr


@pytest.mark.parametrize("n, length, n_seqlets", [(12, 80, range(12, 37)), (90, 20, [0])])
def test_too_few_seqlets_are_said(n: int, length: int, n_seqlets):
    """Few sequences, or sequences shorter than a window, give rows that say how many seqlets there are, and why."""
    result = head_motifs(reading_model(USF1), with_sites(USF1, n, length, 0), with_sites(USF1, n, length, 1), CONFIG)
    assert len(result.table) == 6 and result.motifs == [] and result.summary["n_tested"] == 0
    why = f": {n} of {n} sequences are shorter than window_bp = 30" if length < 30 else ""
    for row in result.table.itertuples():
        assert row.note == f"too few seqlets (n = {row.n_seqlets}){why}"
    assert row_of(result, READER)["n_seqlets"] in n_seqlets


def test_heads_that_read_everything_alike_have_no_seqlets():
    """A motif at one place of all sequences is none of a head that prefers no place: it has no peaks at all."""
    given = [random_codes(n, 60, seed) for n, seed in ((90, 0), (90, 1))]
    for codes in given:
        codes[:, : HNF1A.width] = alphabet.encode(HNF1A.consensus)
    result = head_motifs(reading_model(USF1, pooling="mean"), *given, FAST)
    for head in SILENT:
        row = row_of(result, head)
        assert row["motif"] == -1 and row["note"] == "too few seqlets (n = 0)" and np.isnan(row["seqlet_fdr"])
    assert row_of(result, READER)["n_seqlets"] > 50


def test_short_sequences_among_others_have_no_seqlets():
    """Sequences shorter than a window are left out of the search, the others are searched."""
    codes = padded(with_sites(USF1, 240, 60, 0), 29)
    result = head_motifs(reading_model(USF1), codes, with_sites(USF1, 60, 60, 1), FAST)
    assert (result.seqlets["sequence"] % 2 == 1).all() and row_of(result, READER)["motif"] == 0


@pytest.mark.parametrize(
    "given, message",
    [
        (([],), "discovery has no sequence, expected at least one"),
        ((["ACGT"] * 3, []), "held_out has no sequence"),
        (("ACGTACGT",), "discovery is one text of 8 letters, expected a list"),
        ((["ACGT", "ACGU"],), r"discovery\[1\] has 'U' at position 4, allowed are A, C, G, T and N"),
        ((["ACGT"], ["AC-T"]), r"held_out\[0\] has '-' at position 3"),
        ((["ACGT", ""],), r"discovery\[1\] is empty"),
        ((["ACGT", 5],), r"discovery\[1\] is int, expected text"),
        ((np.zeros((2, 3)),), "is ndarray, expected text"),
        ((np.zeros(5, dtype=np.uint8),), r"codes from 0 to 5 of shape \(N, L\), got \(5,\)"),
        ((np.full((2, 3), 6),), "codes from 0 to 5"),
        ((np.array([[0, 1], [5, 5]]),), r"discovery\[1\] is empty"),
        ((["ACGT"],), "found 1 sequence: motifs are sought in some and tested on others"),
    ],
)
def test_sequences_that_are_none_are_refused(given: tuple, message: str):
    """What is no list of sequences of letters ends in an error that says which and why."""
    with pytest.raises(DataError, match=message):
        bioattn.head_motifs(reading_model(USF1), *given)


def test_a_model_without_attention_is_refused():
    """A recurrent model has no heads to look at; a readout must exist, and be the task's."""
    config = ModelConfig(encoder="gru", stem=StemConfig(pool=5), d_model=8, n_layers=1)
    with pytest.raises(DataError, match="no attention layers"):
        head_motifs(build_model(config, n_readouts=1), random_codes(9, 40, 0), random_codes(9, 40, 1))
    with pytest.raises(DataError, match="readout 1 does not exist"):
        head_motifs(reading_model(USF1), random_codes(9, 40, 0), random_codes(9, 40, 1), readout=1)
    with pytest.raises(DataError, match="readout 1 was asked for, and the task's is 0"):
        head_motifs(reading_model(USF1), random_codes(9, 40, 0), readout=1, task=TaskConfig())


def test_the_readout_is_the_tasks():
    """Unless one is asked for, the readout of the task is explained, or the first one without a task."""
    task = TaskConfig(kind="multilabel", targets=["a", "b"], readout=1)
    assert (module._readout(None, task), module._readout(1, task), module._readout(None, None)) == (1, 1, 0)


def test_two_parts_of_a_list():
    """Without held-out sequences random halves share nothing and are all of them; with them, all of the first are."""
    texts = [alphabet.decode(row) for row in random_codes(21, 13, 0)]
    discovery, held_out, given = two_parts(texts, None, 3)
    assert (len(discovery), len(held_out)) == (10, 11)
    assert [alphabet.decode(row) for row in discovery] == [texts[i] for i in given]
    rest = sorted(set(range(21)) - set(given.tolist()))
    assert sorted(alphabet.decode(row) for row in held_out) == sorted(texts[i] for i in rest) and len(rest) == 11
    assert np.array_equal(two_parts(texts, None, 3)[2], given) and not np.array_equal(
        two_parts(texts, None, 4)[2], given
    )
    lower = [text.lower() for text in texts]
    first, second, every = two_parts(lower, random_codes(2, 13, 1), 3)
    assert np.array_equal(first, random_codes(21, 13, 0)) and np.array_equal(every, np.arange(21))
    assert np.array_equal(second, random_codes(2, 13, 1))


# ---------------------------------------------------------------------- rules


def worth_of(*, redundant: bool = False) -> Worth:
    """Worth of heads among random ones that cost 0 to 98, where one head costs more than any without its double."""
    without_double = {(0, 0) if redundant else (0, 1): 1e3}
    return Worth([(0, 0), (0, 1)], pd.DataFrame(), np.eye(2), np.arange(99.0), without_double, {})


@pytest.mark.parametrize(
    "p_random, ci_low, positional, enriched, redundant, verdict",
    [
        (0.01, 1.0, 0.1, True, False, "motif"),
        (0.05, 1.0, 0.1, True, False, "motif"),
        (np.nan, np.nan, 0.1, True, False, "motif"),
        (0.01, 1.0, 0.1, False, False, "diffuse"),
        (np.nan, np.nan, 0.1, False, False, "diffuse"),
        (0.06, 0.1, 0.1, False, False, "diffuse"),
        (0.06, 0.1, 0.1, True, False, "weak"),
        (0.06, 0.0, 0.1, True, False, "dead"),
        (0.06, np.nan, 0.1, True, False, "dead"),
        (0.06, 0.0, 0.9, False, False, "dead"),
        (0.06, 0.0, 0.1, False, True, "redundant"),
        (0.06, 0.1, 0.9, True, True, "redundant"),
        (0.01, 1.0, 0.1, True, True, "motif"),
        (np.nan, np.nan, 0.1, True, True, "motif"),
        (0.01, 1.0, 0.9, True, False, "positional"),
        (0.06, 0.1, 0.9, True, False, "positional"),
        (np.nan, np.nan, 0.9, True, False, "positional"),
        (0.01, 1.0, 0.5, True, False, "motif"),
    ],
)
def test_verdicts(p_random: float, ci_low: float, positional: float, enriched: bool, redundant: bool, verdict: str):
    """Where random heads are worth as much, redundant and dead go first; then place, then an enriched motif."""
    row = {"p_random": p_random, "ablation_loss_ci_low": ci_low, "positional_share": positional}
    row["ablation_drop_ci_low"] = -0.01
    assert module._verdict(row, worth_of(redundant=redundant), enriched, (0, 0)) == verdict


@pytest.mark.parametrize(
    "loss, drop, verdict",
    [(0.0, 0.01, "weak"), (0.01, 0.0, "weak"), (0.0, 0.0, "dead"), (0.0, np.nan, "dead"), (np.nan, 0.01, "weak")],
)
def test_a_head_is_dead_if_neither_loss_nor_score_suffer(loss: float, drop: float, verdict: str):
    """A head whose loss is no worse but whose score falls is not dead, nor the other way round."""
    row = {"p_random": 0.5, "ablation_loss_ci_low": loss, "ablation_drop_ci_low": drop, "positional_share": 0.1}
    assert module._verdict(row, worth_of(redundant=False), True, (0, 0)) == verdict


def found_with(*p_values: float) -> HeadFound:
    nothing = {kind: Threshold(np.inf, 0, np.nan) for kind in ("received", "gradient")}
    return HeadFound(0, 0, nothing, 0.0, [], list(p_values))


def test_q_values_are_of_all_motifs_of_all_heads():
    """Each q-value is the least rate, p times tests by rank, at which its motif passes, over all heads."""
    p = [0.001, 0.2, 0.03, 0.03, 0.9, 0.04, 0.5]
    q = module._q_values([found_with(*p[:3]), found_with(), found_with(*p[3:])])
    for value in p:
        rates = [other * len(p) / sum(x <= other for x in p) for other in p if other >= value]
        assert q[value] == pytest.approx(min(rates))
    assert module._q_values([found_with()]) == {}
    assert q[0.001] < ENRICHED_Q < q[0.03]


@pytest.mark.parametrize("counts", [(30, 50, 7, 40), (0, 11, 3, 17), (9, 9, 0, 9)])
def test_odds_and_their_p_value(counts: tuple[int, int, int, int]):
    """The p-value is the hypergeometric tail, the odds are those of counts with one half added; NaN without any."""
    held_here, n, held_there, m = counts
    odds, p = _odds(*counts)
    assert p == pytest.approx(hypergeom.sf(held_here - 1, n + m, held_here + held_there, n))
    cells = np.array([held_here, n - held_here, held_there, m - held_there]) + 0.5
    assert 2**odds == pytest.approx(cells[0] / cells[1] / (cells[2] / cells[3]))
    assert all(np.isnan(_odds(0, 0, 1, 5))) and all(np.isnan(_odds(1, 5, 0, 0)))


def test_share_of_a_place():
    """Attention that is the same in every sequence is a matter of place, noise and rounding are not."""
    draw, shape = np.random.default_rng(0), (400, 23)
    profile, noise = np.sin(np.arange(23.0)), draw.normal(size=shape)
    for weight in (0.0, 0.5, 1.0, 3.0):
        real, null = (np.float32(1 + weight * profile + draw.normal(size=shape)) for _ in range(2))
        expected = weight**2 * profile.var() / (weight**2 * profile.var() + 1)
        assert _positional_share(real, null) == pytest.approx(expected, abs=0.02)
    assert _positional_share(np.ones(shape, np.float32), np.ones(shape, np.float32)) == 0
    rounded = np.float32(1 + 1e-7 * np.sign(profile) + 0 * noise)
    assert np.ptp(rounded) > 0 and _positional_share(rounded, rounded) == 0


# --------------------------------------------------------------------- places of tokens


def centres(model: SequenceModel, codes: np.ndarray) -> np.ndarray:
    """Middle of the token that receives most in each sequence."""
    received = head_tracks(model, codes, gradients=False).received[:, 0]
    return token_places(model, codes).centre[np.arange(len(codes)), np.nanargmax(received, axis=1)]


@pytest.mark.parametrize("words", ["overlapping", "bpe"])
def test_windows_of_words_have_the_word_in_their_middle(words: str):
    """The window around the most attended token is centred on the middle of its span, for words of any length."""
    codes = alphabet.encode_batch(["T" * 31 + EBOX + "A" * 40, "G" * 36 + EBOX + "A" * 27])
    middle = centres(word_model(words), codes)
    assert middle.tolist() == [34, 39]
    windows = windows_at(codes, np.arange(2), middle, 12)
    assert [alphabet.decode(row)[3:9] for row in windows.codes] == [EBOX] * 2


def test_bases_share_what_their_token_receives():
    """For learned words the profile of a sequence sums up to its tokens, over its own bases, the last one included."""
    model = word_model("bpe")
    codes = alphabet.encode_batch([alphabet.decode(row) for row in with_ebox(3, 40, 0)] + ["CACGTGTTN"])
    received = head_tracks(model, codes, gradients=False).received
    profile = by_place(received, token_places(model, codes))
    n_tokens = (model.tokenizer.encode(torch.from_numpy(codes)).ids != PAD_ID).sum(1).numpy()
    np.testing.assert_allclose(np.nansum(profile[:, 0], axis=1), n_tokens, rtol=1e-5)
    assert np.isnan(profile[3, :, 9:]).all() and np.isfinite(profile[3, :, :9]).all()
    box = profile[3, 0, :6]
    assert (box == box[0]).all() and box[0] * 6 == pytest.approx(received[3, 0, 0], rel=1e-6)


def test_excess_of_words_is_against_what_their_bases_are_expected_to_get():
    """A token's expectation is that of its bases: the mean of a sequence with itself as background is its own."""
    model, codes = word_model("bpe"), with_ebox(1, 40, 0)
    received, places = head_tracks(model, codes, gradients=False).received, token_places(model, codes)
    by_base = expectation(received, codes, places)
    bare = by_base._replace(profile=by_place(received, places)[0], slope=np.zeros_like(by_base.slope))
    excess = bare.excess(received, codes, places)[0, 0]
    np.testing.assert_allclose(excess[places.real[0]], 0, atol=1e-5)
    longer = np.concatenate([codes, with_ebox(1, 40, 1)], axis=1)
    more, where = head_tracks(model, longer, gradients=False).received, token_places(model, longer)
    excess = bare.excess(more, longer, where)[0, 0]
    assert np.isfinite(excess[where.end[0] <= 40]).all() and np.isnan(excess[where.start[0] >= 40]).all()


@pytest.mark.parametrize("pool", [1, 4, 5, 40])
def test_windows_of_a_stem_lie_around_the_middles_of_whole_tokens(pool: int):
    """With a stem, centres are index times bases per token plus half a token, for every token, the cut one included."""
    config = ModelConfig(stem=StemConfig(pool=pool), d_model=8, n_layers=1, n_heads=2, d_feedforward=8)
    model = build_model(config, n_readouts=1, seed=0).eval()
    codes = random_codes(7, 83, 0)
    codes[::3, 61:] = alphabet.PAD
    places = token_places(model, codes)
    track = head_tracks(model, codes, gradients=False).received
    assert by_place(track, places) is track and np.array_equal(places.first, np.arange(track.shape[2]) * pool)
    for row, n_bases in enumerate((codes != alphabet.PAD).sum(1)):
        n_tokens = -(-n_bases // pool)
        assert places.centre[row, :n_tokens].tolist() == [t * pool + pool // 2 for t in range(n_tokens)]
        assert places.real[row].sum() == n_tokens
        peak = int(np.nanargmax(track[row, 1]))
        start = windows_at(codes[[row]], np.array([0]), places.centre[[row], peak], 6).start[0]
        assert start == min(max(peak * pool + pool // 2 - 3, 0), n_bases - 6)


def test_received_attention_sums_to_the_number_of_tokens():
    """Each sequence's received attention has mean one over its real tokens, whatever the padding."""
    codes = alphabet.encode_batch([alphabet.decode(r) for r in random_codes(3, 47, 0)] + ["ACGTACGTACGTA"])
    received = head_tracks(reading_model(USF1, pooling="mean"), codes, gradients=False).received
    np.testing.assert_allclose(np.nanmean(received, axis=2), 1.0, rtol=1e-5)
    assert np.isnan(received[3, :, 3:]).all() and np.isfinite(received[3, :, :3]).all()


def test_only_enriched_motifs_are_kept(monkeypatch: pytest.MonkeyPatch):
    """A motif is kept if its q-value is below the rate, and not if it may be chance."""
    codes = with_sites(USF1, 100, 60, 0)
    search = search_of(reading_model(USF1), codes, codes, config=CONFIG)
    real = search.head(*READER)
    for p, n in ((0.049, 1), (0.05, 0), (1.0, 0)):
        fake = replace(real, motifs=[replace(real.motifs[0], p_value=p)], tested=[p])
        monkeypatch.setattr(
            module, "Search", lambda model, *a, fake=fake, **k: SimpleNamespace(model=model, head=lambda *head: fake)
        )
        monkeypatch.setattr(module, "heads_of", lambda model: [READER])
        assert [motif.motif_id for motif in enriched_motifs(None, codes, codes, FAST)] == [NAME] * n
        assert all(isinstance(motif, Motif) for motif in enriched_motifs(None, codes, codes, FAST))


# -------------------------------------------------------------------- evidence


def test_evidence_is_adjusted_over_the_motifs_that_were_tested():
    """Of three tested motifs two with small p are causal in the model, one is correlated; a fourth is not tested."""
    p_values = {"a": 0.001, "b": 0.03, "c": 0.2, "d": float("nan")}
    found = module._with_evidence({name: {"through_head_p_value": p, "n_sites": 7} for name, p in p_values.items()})
    assert [each["evidence"] for each in found.values()] == [
        "causal in model", "causal in model", "correlated", "not tested",
    ]  # fmt: skip
    assert [found[name]["through_head_q_value"] for name in "abc"] == pytest.approx([0.003, 0.045, 0.2])
    assert np.isnan(found["d"]["through_head_q_value"]) and found["a"]["n_sites"] == 7
    assert module._with_evidence({}) == {}


def test_a_motif_that_is_read_and_not_used_is_correlated():
    """The same head reads the same motif whether it writes to the readout or not; only then do its sites act."""
    given = [with_sites(USF1, n, 80, seed) for n, seed in ((150, 0), (150, 1))]
    used, unused = reading_model(USF1), reading_model(USF1)
    with torch.no_grad():
        unused.encoder.layer[READER[0]].attn.project_out.weight.zero_()
    for model, evidence in ((used, "causal in model"), (unused, "correlated")):
        row = row_of(head_motifs(model, *given, CONFIG), READER)
        assert row["motif"] == 0 and row["q_value"] < 1e-6 and row["evidence"] == evidence
