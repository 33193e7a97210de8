"""Heads and motifs over replicates: planted partners, planted motifs, and what is there by chance."""

import itertools

import numpy as np
import pandas as pd
import pytest

from bioattn.data.motif import ppm_from_counts
from bioattn.errors import DataError
from bioattn.explain.stability import (
    HEAD_COLUMNS,
    MOTIF_COLUMNS,
    ReplicateHeads,
    head_similarities,
    match_heads,
    read_replicate,
    stability,
)
from bioattn.io.motifs import jaspar_motif
from bioattn.io.tables import write_parquet, write_tsv

USF1, HNF1A, NFYA, TEAD1 = (jaspar_motif(f"MA{name}").ppm for name in ("0093.4", "0046.3", "0060.4", "0090.4"))
PLACES = np.arange(0, 65, 5)


def sampled(ppm: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    return ppm_from_counts(np.stack([draw.multinomial(150, column / column.sum()) for column in ppm.T], axis=1))


def replicate(
    heads: list[tuple[np.ndarray | None, int]], seed: int, *, n_heads: int = 3, q: float = 1e-6, verdict: str = "motif"
) -> ReplicateHeads:
    """Heads given as (motif that is read, place that is looked at), in the order layer by layer."""
    draw = np.random.default_rng(seed)
    rows, motifs, places = [], {}, []
    for c, (ppm, place) in enumerate(heads):
        layer, head = divmod(c, n_heads)
        number = -1 if ppm is None else 0
        if ppm is not None:
            motifs[f"layer{layer}_head{head}_motif0"] = sampled(ppm, draw)
        rows.append(
            {
                "layer": layer, "head": head, "motif": number, "verdict": verdict if ppm is not None else "diffuse",
                "consensus": f"seed{seed}", "enrichment_log2": float(seed), "q_value": q if ppm is not None else np.nan,
                "matches": f"X{seed} M{seed} (q=1.0e-03)",
            }
        )  # fmt: skip
        received = 1 + np.exp(-(((PLACES - place) / 8.0) ** 2)) + 0.02 * draw.random(len(PLACES))
        places.append(pd.DataFrame({"layer": layer, "head": head, "position": PLACES, "received": received}))
    return ReplicateHeads(pd.DataFrame(rows), motifs, pd.concat(places, ignore_index=True))


HEADS = [(USF1, 10), (HNF1A, 50), (NFYA, 30), (None, 10), (None, 50), (USF1, 60)]


def test_heads_find_their_partners_in_any_order():
    """Heads of a second replicate in another order are matched to those that read the same at the same places."""
    draw = np.random.default_rng(0)
    for seed in range(3):
        order = draw.permutation(len(HEADS))
        a, b = replicate(HEADS, 10 + seed), replicate([HEADS[i] for i in order], 20 + seed)
        matched, _ = match_heads(a, b)
        partner = matched["layer_b"] * 3 + matched["head_b"]
        own = matched["layer_a"] * 3 + matched["head_a"]
        assert [int(order[p]) for p in partner] == own.tolist()
        assert (matched["similarity"][[0, 1, 2, 5]] > 0.9).all()


def test_matching_is_the_best_of_all():
    """The sum of similarities is that of the best among all ways to match four heads."""
    a, b = replicate(HEADS[:4], 1), replicate([(HNF1A, 20), (TEAD1, 10), (USF1, 55), (None, 30)], 2)
    similarity = head_similarities(a, b)
    best = max(similarity[range(4), list(order)].sum() for order in itertools.permutations(range(4)))
    assert match_heads(a, b)[0]["similarity"].sum() == pytest.approx(best)


def test_similarity_is_that_of_motif_and_places():
    """The same head is 1, another place or motif costs up to half; without motif it is half, and 0 beside others."""
    heads = [(USF1, 10), (USF1, 50), (HNF1A, 10), (None, 10)]
    a = replicate(heads, 3)
    itself = head_similarities(a, a)
    np.testing.assert_allclose(itself, itself.T)
    np.testing.assert_allclose(np.diag(itself), [1, 1, 1, 0.5])
    assert 0.4 < itself[0, 1] < 0.6 and 0.4 < itself[0, 2] < 0.8 and (itself[3, :3] == 0).all()
    chance = replicate(heads, 3, q=0.3)  # motifs that may be chance are none
    np.testing.assert_allclose(np.diag(head_similarities(chance, chance)), 0.5)


def test_places_that_say_nothing_give_no_similarity():
    """Flat profiles, unknown places and places that the other replicate lacks count as unlike, not as NaN."""
    a = replicate([(None, 10), (None, 50)], 1)
    flat = ReplicateHeads(a.table, a.motifs, a.positions.assign(received=0.3))
    elsewhere = ReplicateHeads(a.table, a.motifs, a.positions.assign(position=a.positions["position"] + 1))
    missing = a.positions.copy()
    missing.loc[missing["head"] == 0, "received"] = np.nan
    for other in (flat, elsewhere):
        assert (head_similarities(a, other) == 0).all()
    unknown = head_similarities(ReplicateHeads(a.table, a.motifs, missing), a)
    assert (unknown[0] == 0).all() and unknown[1, 1] == pytest.approx(0.5)


def test_null_is_what_another_partner_gives():
    """The null is that of all matchings that give no head its partner, and true partners are above it."""
    a, b = replicate(HEADS, 1), replicate(HEADS[::-1], 2)
    heads = stability({4: a, 7: b}).heads
    assert tuple(heads.columns) == HEAD_COLUMNS and set(heads["seed_a"]) == {4} and set(heads["seed_b"]) == {7}
    similarity = head_similarities(a, b)
    orders = [order for order in itertools.permutations(range(6)) if all(order[i] != 5 - i for i in range(6))]
    others = np.array([similarity[range(6), list(order)] for order in orders])
    assert heads["null_similarity"][0] == pytest.approx(np.median(others), abs=1e-9)
    assert others.min() <= heads["null_q95"][0] <= others.max()
    assert (heads["similarity"] > heads["null_q95"]).sum() >= 4
    alone = stability({1: replicate(HEADS[:1], 1), 2: replicate(HEADS[:1], 2)}).heads
    assert alone["similarity"][0] > 0.9 and np.isnan(alone["null_similarity"][0])


def test_every_two_replicates_are_compared():
    """Three replicates of six heads give three times six matches, of replicates with fewer heads the fewer."""
    made = {seed: replicate(HEADS, seed) for seed in (5, 1, 3)}
    heads = stability(made).heads
    pairs = heads.groupby(["seed_a", "seed_b"]).size()
    assert pairs.to_dict() == {(1, 3): 6, (1, 5): 6, (3, 5): 6}
    assert len(stability({1: made[1], 2: replicate(HEADS[:4], 2)}).heads) == 4


def test_a_motif_is_counted_in_the_replicates_that_show_it():
    """A motif of all, one of two and one of one replicate: their frequencies, members and Wilson intervals."""
    made = {
        1: replicate([(USF1, 10), (HNF1A, 20), (NFYA, 30)], 1),
        2: replicate([(HNF1A[::-1, ::-1], 10), (USF1, 20), (HNF1A, 30)], 2),
        5: replicate([(None, 10), (USF1, 20), (USF1, 40)], 5),
    }
    motifs = stability(made).motifs
    assert tuple(motifs.columns) == MOTIF_COLUMNS and motifs["cluster"].tolist() == [0, 1, 2]
    assert motifs["n_replicates"].tolist() == [3, 2, 1] and (motifs["n_total"] == 3).all()
    assert motifs["members"].tolist() == ["1:0.0.0; 2:0.1.0; 5:0.1.0; 5:0.2.0", "1:0.1.0; 2:0.0.0; 2:0.2.0", "1:0.2.0"]
    k, n, z = motifs["n_replicates"].to_numpy(), 3, 1.959964
    centre = (k / n + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(k / n * (1 - k / n) / n + z**2 / (4 * n**2))
    np.testing.assert_allclose(motifs["frequency_ci_low"], np.maximum(centre - half, 0), atol=1e-5)
    np.testing.assert_allclose(motifs["frequency_ci_high"], np.minimum(centre + half, 1), atol=1e-5)
    # Equal q-values: the one with the largest enrichment, here its seed, speaks for the cluster.
    assert motifs["representative"].tolist() == ["5:0.1.0", "2:0.0.0", "1:0.2.0"]
    assert motifs["consensus"].tolist() == ["seed5", "seed2", "seed1"] and motifs["matches"][0].startswith("X5")


def test_motifs_that_may_be_chance_do_not_count():
    """A cluster of motifs that are not enriched is found in none, and one of heads that do not matter is not read."""
    made = {
        1: replicate([(USF1, 10)], 1, q=0.2),
        2: replicate([(USF1, 10)], 2, verdict="weak"),
        3: replicate([(USF1, 10)], 3, q=np.nan),
    }
    row = stability(made).motifs.iloc[0]
    assert (row["n_replicates"], row["n_total"], row["n_reading"]) == (1, 3, 0) and row["representative"] == "2:0.0.0"
    none = stability({1: made[1], 3: made[3]}).motifs.iloc[0]
    assert none["n_replicates"] == 0 and none["frequency"] == 0 and none["representative"] == "1:0.0.0"


def test_little_is_said_not_refused():
    """One replicate, or none with a motif: a row with a note in each table; no replicate at all is refused."""
    one = stability({3: replicate(HEADS, 3)})
    assert len(one.heads) == 1 and "one replicate" in one.heads["note"][0] and one.heads["similarity"].isna().all()
    assert one.motifs["note"].str.contains("one replicate").all() and (one.motifs["n_total"] == 1).all()
    nothing = stability({1: replicate([(None, 3)], 1), 2: replicate([(None, 3)], 2)}).motifs
    assert nothing[["cluster", "n_total"]].to_numpy().tolist() == [[-1, 2]]
    assert nothing["note"][0] == "no head of 2 replicates has a motif"
    with pytest.raises(DataError, match="no replicate"):
        stability({})


def test_replicates_are_read_from_their_folder(tmp_path):
    """What the verb heads wrote is read back; a column, matrix or file that is missing is named."""
    made = replicate(HEADS, 1)
    write_tsv(tmp_path / "heads.tsv", made.table, {})
    write_parquet(tmp_path / "positions.parquet", made.positions, {})
    np.savez(tmp_path / "motifs.npz", **made.motifs)
    again = read_replicate(tmp_path)
    assert again.heads == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    np.testing.assert_allclose(head_similarities(again, made), head_similarities(made, made), atol=1e-6)
    np.savez(tmp_path / "motifs.npz", layer0_head0_motif0=made.motifs["layer0_head0_motif0"])
    with pytest.raises(DataError, match=r"motifs.npz has no matrix of layer0_head1_motif0"):
        read_replicate(tmp_path)
    write_tsv(tmp_path / "heads.tsv", made.table.drop(columns="verdict"), {})
    with pytest.raises(DataError, match=r"heads.tsv lacks the columns verdict"):
        read_replicate(tmp_path)
    (tmp_path / "heads.tsv").unlink()
    with pytest.raises(DataError, match=r"heads.tsv: no such file"):
        read_replicate(tmp_path)
