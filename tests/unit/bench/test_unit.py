"""Parts of a unit of the benchmark: what all models are scored on."""

import pytest

from bioattn.bench.suites import SUITES, run_of
from bioattn.bench.unit import _probe
from bioattn.data.simulate import simulate
from bioattn.io.motifs import load_motifs


@pytest.mark.parametrize("suite", ["A", "D"])
def test_models_are_scored_on_other_sequences_of_the_same_pairs(suite: str):
    """The probe shares no sequence with what was trained on, in either regime, and plants the same motifs together."""
    for regime in ("observational", "randomised"):
        run = run_of(suite, regime, 5, replicates=2, n_sequences=2000)
        motifs = load_motifs(run.motifs)
        made, probe = simulate(run.data.simulate, motifs, seed=5), _probe(run, motifs)
        assert not set(made.sequences) & set(probe.sequences) and len(probe.sequences) == 2000
        first, other = (
            {
                (row["class"], frozenset((row["motif_a"], row["motif_b"])), row["motif_first"], row["effect"])
                for row in each.pairs.to_dict("records")
                if row["class"] != "NULL"
            }
            for each in (made, probe)
        )
        assert first == other and len(first) == len(SUITES[suite].simulate["pairs"])
