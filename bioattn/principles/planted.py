"""Simulated promoters with planted pairs of motifs, a model trained on them, and what can be said of each pair."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from bioattn.causal import pair_tests
from bioattn.config import RunConfig
from bioattn.data.motif import Motif
from bioattn.data.simulate import Simulation, beside_truth, simulate
from bioattn.data.splits import split
from bioattn.explain.coattention import candidate_table
from bioattn.explain.library import scan_library
from bioattn.explain.pairs import Geometry, pair_data
from bioattn.io.motifs import load_motifs
from bioattn.models import SequenceModel
from bioattn.train.fit import fit

#: Vertebrate factors of different families: ELK1, NFYA, FOXA1, HNF1A, CEBPA, TEAD1, USF1, ESRRA.
_MOTIFS = ("MA0028.3", "MA0060.4", "MA0148.5", "MA0046.3", "MA0102.5", "MA0090.4", "MA0093.4", "MA0592.4")
#: The stem reads the motifs themselves and four filters more; a token is 10 bp.
_PWM_STEM = {"kind": "pwm", "n_filters": 4, "width": 11, "pool": 10}


class Planted(NamedTuple):
    """A run, its motifs, the simulation, its table of sequences and their split, and the trained model."""

    run: RunConfig
    motifs: Sequence[Motif]
    made: Simulation
    table: pd.DataFrame
    parts: pd.DataFrame
    model: SequenceModel


def planted_run(
    seed: int,
    pairs: Mapping[str, float | None],
    *,
    regime: str = "randomised",
    n_sequences: int,
    epochs: int,
    permuted: bool = False,
    stem: Mapping[str, Any] = _PWM_STEM,
    **simulated: object,
) -> RunConfig:
    """Settings of a small run: one layer of four heads, an additive readout, so that pairs interact in attention only.

    Parameters
    ----------
    pairs : mapping of str to float or None
        Class of each planted pair and its effect (None where the class has none).
    permuted : bool
        Train on targets that were permuted.
    stem, simulated
        Further settings of `model.stem` and `data.simulate`.
    """
    return RunConfig.model_validate(
        {
            "seed": seed,
            "data": {
                "simulate": {
                    "n_sequences": n_sequences, "regime": regime, "pairs": list(pairs),
                    "pair_effects": list(pairs.values()), **simulated,
                }
            },
            "task": {"kind": "regression", "targets": ["y"]},
            "split": {"kind": "random"},
            "motifs": {"jaspar_ids": list(_MOTIFS[: 2 * len(pairs)])},
            "model": {
                "stem": dict(stem), "d_model": 32, "n_layers": 1, "n_heads": 4, "d_feedforward": 64,
                "positions": "relative", "pooling": "sum", "dropout": 0.0,
            },
            "train": {
                "seeds": [1], "epochs": epochs, "batch_size": 128, "learning_rate": 0.004, "permute_labels": permuted
            },
            "explain": {
                "n_sequences": 1000, "scored_sequences": 300, "min_seqlets": 30, "motif_width_bp": 16,
                "motifs_per_head": 3,
            },
            "interactions": {"permutations": 199},
        }
    )  # fmt: skip


def trained_on(run: RunConfig) -> Planted:
    """Simulate the data of a run and train its model."""
    assert run.data.simulate is not None
    motifs = load_motifs(run.motifs)
    made = simulate(run.data.simulate, motifs, seed=run.seed)
    table = made.table.assign(sequence=made.sequences)
    parts = split(table, run.split, run.task, seed=run.seed)
    model = fit(run, table, parts, seed=run.train.seeds[0], motifs=motifs, progress=False).model
    return Planted(run, motifs, made, table, parts, model)


def pair_table(planted: Planted, *, backgrounds: int = 100) -> pd.DataFrame:
    """What attention, and interventions in the model, say of every pair of different motifs, beside the truth.

    Returns
    -------
    DataFrame
        motif_a, motif_b, class and interaction (as planted), cooccurrence_logodds, attention_bits, candidate,
        epistasis (mean over backgrounds into which both motifs are put).
    """
    run, motifs, made, table, parts, model = planted
    library = scan_library(run, table, parts, fold=0)
    data = pair_data(run, table, parts, library, fold=0, geometry=Geometry.of(model))
    attention = pair_tests.measure_coattention(run, model, data)
    found = candidate_table([attention], floor_bits=run.interactions.attention_floor_bits, q_value=0.05)
    cells = pair_tests.knock_in(run, model, data, table, n=backgrounds).pairs(
        list(itertools.combinations(range(len(motifs)), 2))
    )
    cells["epistasis"] = cells["y11"] - cells["y10"] - cells["y01"] + cells["y00"]
    found = found.merge(cells.groupby(["motif_a", "motif_b"])["epistasis"].mean().reset_index())
    names, ids = (np.array([getattr(motif, key) for motif in data.motifs]) for key in ("name", "motif_id"))
    for side in ("a", "b"):
        index = found[f"motif_{side}"]
        found = found.assign(**{f"motif_{side}": names[index], f"motif_id_{side}": ids[index]})
    found = beside_truth(found.rename(columns={"attention_effect_bits": "attention_bits"}), made.pairs)
    return found[[
        "motif_a", "motif_b", "class", "interaction", "cooccurrence_logodds", "attention_bits", "candidate", "epistasis"
    ]]  # fmt: skip


def of_class(pairs: pd.DataFrame, kind: str, column: str) -> float:
    """A column's value of the one pair of a class."""
    (found,) = pairs.loc[pairs["class"] == kind, column].tolist()
    return float(found)
