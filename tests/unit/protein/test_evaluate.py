"""Scores of predicted distances against loops, and intervals against what they must hold."""

import numpy as np
import pandas as pd
import pytest
import torch
from toy_protein import network, places, proteins

from bioattn.data.structure import pair_distances
from bioattn.nn.pair.distogram import Distogram
from bioattn.protein.batches import told_contacts
from bioattn.protein.evaluate import (
    calibration,
    differences,
    distances_of_logits,
    lddt,
    mean_scores,
    precision_all,
    predicted_violations,
    score_protein,
    score_untold,
    untold_distances,
)
from bioattn.protein.network import EDGES_ANGSTROM

DISTOGRAM = Distogram(4, EDGES_ANGSTROM)


def sure(distances: np.ndarray) -> np.ndarray:
    """Logits that are certain of given distances."""
    bins = DISTOGRAM.bins(torch.from_numpy(distances))
    return 40 * torch.nn.functional.one_hot(bins, len(EDGES_ANGSTROM) + 1).float().numpy()


def test_certain_and_right_predictions_are_perfect():
    """True distances as logits: contacts all found, lDDT as high as bins allow, no violation, no loss."""
    protein = proteins(47)[0]
    true = protein.distances_angstrom.astype(float)
    scores = score_protein(sure(true), protein, DISTOGRAM)
    i, j = np.triu_indices(47, 6)
    assert (true[i, j] < 8).sum() > 10 and scores["precision_all_L5"] == 1
    assert scores["lddt"] > 0.85 and scores["violation_rate"] == 0 and scores["log_loss"] < 1e-4
    predicted = distances_of_logits(sure(true), DISTOGRAM)
    assert (np.diag(predicted.likeliest_angstrom) == 0).all()
    near = true < 20
    assert np.abs(predicted.likeliest_angstrom - true)[near & (true > 4)].max() <= 0.5 + 1e-5


def test_lddt_is_that_of_a_loop():
    """Pairs six or more apart and truly within 15 angstrom, four thresholds."""
    true = pair_distances(places(31, 1))
    predicted = true + np.random.default_rng(0).normal(0, 1.5, (31, 31))
    hits = [
        np.mean([abs(predicted[i, j] - true[i, j]) < most for most in (0.5, 1, 2, 4)])
        for i in range(31) for j in range(i + 6, 31) if true[i, j] < 15
    ]  # fmt: skip
    assert lddt(predicted, true) == pytest.approx(np.mean(hits)) and 0.2 < np.mean(hits) < 0.9
    assert np.isnan(lddt(predicted, np.full((31, 31), 40.0)))


def test_pairs_that_are_told_and_those_next_to_them_do_not_count():
    """By a loop: neither residue more than two from a told pair's; a predictor of these alone finds nothing."""
    protein = proteins(47)[0]
    told = told_contacts(protein, 0.3, np.random.default_rng(1))
    assert told.told is not None and told.told.any()
    known = untold_distances(told)
    where = np.argwhere(told.told)
    for i in range(47):
        for j in range(47):
            near = any(abs(i - a) <= 2 and abs(j - b) <= 2 for a, b in where)
            assert np.isnan(known[i, j]) == near
    true = protein.distances_angstrom.astype(float)
    assert score_untold(sure(true), told, DISTOGRAM)["precision_all_L5"] == 1
    elsewhere = sure(np.where(np.isnan(known), 5.0, np.where(true < 8, 15.0, true)))
    assert score_untold(elsewhere, told, DISTOGRAM)["precision_all_L5"] < 0.2
    assert score_protein(elsewhere, told, DISTOGRAM)["precision_all_L5"] > 0.5
    assert np.array_equal(untold_distances(protein), true)


def test_impossible_distances_are_counted_and_rounding_is_not():
    """Distances of points give none after rounding to bins; one pair too far by 8 angstrom gives some."""
    true = np.minimum(pair_distances(places(29, 3)), 20.4)
    assert predicted_violations(distances_of_logits(sure(true), DISTOGRAM).likeliest_angstrom, DISTOGRAM).rate == 0
    wrong = true.copy()
    near = next((i, j) for i in range(29) for j in range(i + 2, 29) if true[i, j] < 7)
    wrong[near] = wrong[near[::-1]] = 20.4
    found = predicted_violations(distances_of_logits(sure(wrong), DISTOGRAM).likeliest_angstrom, DISTOGRAM)
    assert found.rate > 0 and found.size_angstrom > 1.5


def test_precision_over_all_ranges():
    """Best L/5 of all pairs six or more apart, L counting resolved residues alone."""
    true = pair_distances(places(40, 2))
    true[35:] = true[:, 35:] = np.nan
    scores = np.random.default_rng(1).random((40, 40))
    ranked = sorted(
        ((i, j) for i in range(35) for j in range(i + 6, 35)), key=lambda p: -scores[p]
    )[:7]  # fmt: skip
    assert precision_all(scores, true) == pytest.approx(np.mean([true[p] < 8 for p in ranked]))


def test_intervals_are_over_groups_and_pairs():
    """Ten copies of each of twelve proteins are twelve; a difference that all share is sure though proteins vary."""
    draw = np.random.default_rng(0)
    level = np.repeat(draw.normal(size=12), 10)
    groups = np.repeat(np.arange(12), 10)
    names = [f"p{i}" for i in range(120)]
    scores = pd.concat(
        [
            pd.DataFrame({"network": "trunk", "name": names, "x": level + 0.1}),
            pd.DataFrame({"network": "window", "name": names, "x": level}),
        ]
    )
    options = {"by": "network", "draws": 2000, "seed": 1}
    means = mean_scores(scores, groups, **options).set_index("network")
    half = (means.loc["window", "ci_high"] - means.loc["window", "ci_low"]) / 2
    assert half == pytest.approx(1.96 * level.std() / np.sqrt(12), rel=0.25)
    row = differences(scores, groups, base="trunk", **options).iloc[0]
    assert row[["difference", "ci_low", "ci_high"]].tolist() == pytest.approx([0.1] * 3) and row["n"] == 120
    missing = scores.assign(x=np.where(scores["name"] == "p0", np.nan, scores["x"]))
    assert mean_scores(missing, groups, **options)["n"].tolist() == [119, 119]


def test_calibration_counts_pairs_in_bins():
    """Probabilities that are right on average lie on the diagonal; every pair is counted once."""
    draw = np.random.default_rng(0)
    contact = draw.random((60, 60))
    contact = (contact + contact.T) / 2
    distance = np.where(draw.random((60, 60)) < contact, 5.0, 12.0)
    table = calibration([contact], [distance])
    assert table["n"].sum() == len(np.triu_indices(60, 6)[0])
    big = table[table["n"] > 60]
    assert np.abs(big["predicted"] - big["observed"]).max() < 0.12


def test_scores_of_a_network_are_finite_where_there_are_pairs():
    """A short chain has no long-range pair: NaN, not zero."""
    protein = proteins(21)[0]
    made = network()
    from bioattn.protein.network import predict_logits

    scores = score_protein(predict_logits(made, [protein])[0], protein, made.distogram)
    assert np.isnan(scores["precision_long_L5"]) and np.isfinite(scores["precision_short_L5"])
