"""Related proteins are found, stay together, and are counted where they leak."""

import math

import numpy as np
import pandas as pd
import pytest
from toy_protein import sequence

from bioattn.data.residues import AMINO_ACIDS
from bioattn.errors import DataError
from bioattn.protein.relatives import SUBSETS, e_value, leakage, related_pairs, split_chains


def mutated(one: str, share: float, seed: int) -> str:
    draw = np.random.default_rng(seed)
    letters = np.array(list(one))
    where = draw.random(len(one)) < share
    letters[where] = draw.choice(list(AMINO_ACIDS), where.sum())
    return "".join(letters)


def test_relatives_are_found_and_strangers_are_not():
    """Half of the residues changed, or a part in another sequence: related; of 60 strangers none is, at E 0.001."""
    first = sequence(80, 0)
    inside = sequence(30, 1) + first[20:70] + sequence(10, 2)
    strangers = [sequence(60, seed) for seed in range(10, 70)]
    pairs = related_pairs([first, mutated(first, 0.5, 3), inside, *strangers])
    assert {(a, b) for a, b in zip(pairs["left"], pairs["right"], strict=True)} >= {(0, 1), (0, 2)}
    assert pairs["right"].max() <= 2 and (pairs["e_value"] <= 1e-3).all()
    near = pairs.set_index(["left", "right"])["identity"]
    assert near[0, 1] == pytest.approx(0.52, abs=0.12) and near[0, 2] == pytest.approx(50 / 80, abs=0.06)
    # Three times as many are expected at three times the threshold, and some do appear when it is lifted enough.
    assert len(related_pairs(strangers, most_e_value=30)) > 0


def test_e_values_follow_their_formula():
    """Doubling the database doubles them; a score higher by ln(10) / lambda divides them by ten."""
    assert e_value(50, 60, 2000) == pytest.approx(2 * e_value(50, 60, 1000))
    assert e_value(50 + math.log(10) / 0.267, 60, 1000) == pytest.approx(e_value(50, 60, 1000) / 10)


def test_groups_stay_together_and_parts_have_their_sizes():
    """Links through third ones count; fractions hold to a few chains; no relative is left in training."""
    n = 300
    chained = pd.DataFrame({"left": range(0, 20), "right": range(1, 21), "identity": 0.4})
    parts = split_chains(n, chained, test_fraction=0.2, validation_fraction=0.1, seed=1)
    assert parts["subset"].iloc[:21].nunique() == 1 and parts["group"].iloc[:21].nunique() == 1
    sizes = parts["subset"].value_counts() / n
    assert sizes["test"] == pytest.approx(0.2, abs=0.02) and sizes["validation"] == pytest.approx(0.1, abs=0.02)
    assert (leakage(parts["subset"], chained)["n_related"] == 0).all()
    again = split_chains(n, chained, test_fraction=0.2, validation_fraction=0.1, seed=1)
    other = split_chains(n, chained, test_fraction=0.2, validation_fraction=0.1, seed=2)
    assert parts.equals(again) and not parts.equals(other)


def test_a_split_that_leaks_is_told():
    """Two of three test chains have a relative in training, one at 90 %; relatives inside a part do not count."""
    subset = ["train", "train", "test", "test", "test", "validation"]
    related = pd.DataFrame({"left": [0, 1, 3, 2], "right": [2, 3, 4, 5], "identity": [0.3, 0.9, 1.0, 1.0]})
    table = leakage(subset, related).set_index("subset")
    assert table.loc["test", ["n", "n_related"]].tolist() == [3, 2]
    assert table.loc["test", "highest_identity"] == 0.9 and table.loc["validation", "n_related"] == 0
    assert np.isnan(table.loc["validation", "highest_identity"])


def test_too_few_groups_leave_a_part_empty():
    """Everything related: there is nothing to hold out."""
    everything = pd.DataFrame({"left": [0] * 9, "right": range(1, 10), "identity": 0.9})
    with pytest.raises(DataError, match="10 chains in 1 groups of related ones leave nothing for the part"):
        split_chains(10, everything, test_fraction=0.2, validation_fraction=0.2, seed=1)
    assert SUBSETS == ("train", "validation", "test")
