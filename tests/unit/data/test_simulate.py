"""The simulator: its truth follows from its structural equation."""

import numpy as np
import pytest

from bioattn.config import MotifsConfig, SimulateConfig, load_config
from bioattn.data import alphabet
from bioattn.data.motif import log_odds, scan_both_strands
from bioattn.data.simulate import PAIR_CLASSES, simulate
from bioattn.errors import ConfigError
from bioattn.io.motifs import load_motifs

IDS = load_config("config/config.yaml").runs["planted"].motifs.jaspar_ids
MOTIFS = load_motifs(MotifsConfig(jaspar_ids=IDS))
N = 6000


@pytest.fixture(scope="module", params=["observational", "randomised"])
def simulation(request):
    return request.param, simulate(SimulateConfig(n_sequences=N, regime=request.param), MOTIFS, seed=3)


def pair_index(result, name: str) -> list[int]:
    return result.motifs.index[result.motifs["class"] == name].tolist()


def test_each_class_has_one_pair(simulation):
    """Two motifs and one pair of every class; no class is tied to a motif."""
    _, result = simulation
    assert sorted(result.motifs["class"]) == sorted([*PAIR_CLASSES] * 2)
    named = result.pairs[result.pairs["class"] != "NULL"]["class"]
    assert sorted(named) == sorted(PAIR_CLASSES) and len(result.pairs) == 66
    other = simulate(SimulateConfig(n_sequences=50), MOTIFS, seed=4)
    assert other.motifs["class"].tolist() != result.motifs["class"].tolist()


def test_co_occurrence_exists_in_observational_data_only(simulation):
    """Pairs with a common cause co-occur when observed and not when randomised; the AND pair never does."""
    regime, result = simulation
    table = result.pairs.set_index("class")["cooccurrence_logodds"]
    error = 4 * np.sqrt(4 * 9 / N)  # four standard errors of a log odds ratio at rates of a third
    assert abs(table["AND"]) < error and abs(table["DECOY"]) < error
    for name in ("INERT", "ADDITIVE", "HIDDEN"):
        assert table[name] > 0.5 if regime == "observational" else abs(table[name]) < error


def test_readout_is_the_structural_equation(simulation):
    """Regression of y on presence recovers the coefficients, and nothing for inert motifs and decoys."""
    regime, result = simulation
    z = result.presence.astype(float)
    a, b = pair_index(result, "AND")
    features = np.column_stack([z, z[:, a] * z[:, b], result.table["gc"], result.table["hidden_cause"], np.ones(N)])
    coefficient = np.linalg.lstsq(features, result.table["y"], rcond=None)[0]
    expected = np.zeros(features.shape[1])
    expected[pair_index(result, "ADDITIVE")] = 0.7
    expected[[12, 13, 14, 15]] = [2.0, 1.0, 2.4, -0.5]
    np.testing.assert_allclose(coefficient, expected, atol=0.08)


def test_ceiling_is_that_of_the_best_reader_of_the_sequence(simulation):
    """The stated expectation is calibrated: residuals are uncorrelated with every motif and with the AND term."""
    regime, result = simulation
    residual = (result.table["y"] - result.table["expected"]).to_numpy()
    a, b = pair_index(result, "HIDDEN")
    z = result.presence.astype(float)
    for column in (*z.T, z[:, a] * z[:, b]):
        assert abs(np.corrcoef(residual, column)[0, 1]) < 4 / np.sqrt(N)
    assert result.ceiling < result.ceiling_given_hidden < 1


def test_placed_motifs_can_be_found(simulation):
    """A placed motif scores higher than the best window of sequences without it, most of the time."""
    _, result = simulation
    codes = alphabet.encode_batch(result.sequences)
    for m, motif in enumerate(MOTIFS):
        score = scan_both_strands(codes, log_odds(motif.ppm)).max(1)
        with_motif, without = score[result.presence[:, m]], score[~result.presence[:, m]]
        assert np.median(with_motif) > np.quantile(without, 0.97)


def test_same_seed_same_promoters_and_wrong_input_is_refused():
    """Reproducible; the number of motifs and the slot width are checked."""
    first, again = (simulate(SimulateConfig(n_sequences=40), MOTIFS, seed=1) for _ in range(2))
    assert first.sequences == again.sequences and (first.table["y"] == again.table["y"]).all()
    with pytest.raises(ConfigError, match="needs 12 motifs .* got 5"):
        simulate(SimulateConfig(), MOTIFS[:5], seed=1)
    with pytest.raises(ConfigError, match=r"slot_bp must be at least the widest motif \(SRF, 16 bp\), got 12"):
        simulate(SimulateConfig(slot_bp=12), MOTIFS, seed=1)
