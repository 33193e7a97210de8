"""Parts of a unit of the benchmark: what all models are scored on."""

import numpy as np
import pytest

from bioattn.bench.suites import SUITES, run_of
from bioattn.bench.unit import _probe
from bioattn.data.simulate import simulate
from bioattn.data.splits import split
from bioattn.explain.library import scan_library
from bioattn.io.motifs import load_motifs


@pytest.mark.parametrize("suite", ["A", "D", "E"])
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


def test_the_suite_of_look_alikes_plants_one_of_them_and_names_both():
    """Of ELK1 and ETS1 one stands for both, and the bent readout, not the plain one, is what models learn."""
    run = run_of("E", "randomised", 1, replicates=2, n_sequences=2000)
    made = simulate(run.data.simulate, load_motifs(run.motifs), seed=1)
    table = made.table.assign(sequence=made.sequences)
    library = scan_library(run, table, split(table, run.split, run.task, seed=1), fold=0)
    assert len(library.motifs) == len(run.motifs.jaspar_ids) - 1
    assert {"ELK1", "ETS1"} in [set(members) for members in library.members]
    assert "ETS1" not in set(made.sites["motif"])
    assert run.task.targets == ["y_sat"]
    bent = np.corrcoef(table["y"], table["y_sat"])[0, 1]
    assert 0.5 < bent < 0.97
