"""Suites of the benchmark: which classes of pairs are planted together, and the model that learns them."""

import re
from typing import Any, NamedTuple

from bioattn.config import RunConfig
from bioattn.errors import ConfigError

#: What models are trained on: the data, the data with presence of pairs made independent by weights, permuted targets.
TRAININGS = ("plain", "balanced", "permuted")
_MIXED = re.compile(r"mixed(0?\.\d+)")

#: Vertebrate factors of different families, whose sites can be told apart.
MOTIFS = (
    "MA0028.3", "MA0060.4", "MA0148.5", "MA0046.3", "MA0102.5", "MA0090.4", "MA0093.4", "MA0592.4", "MA0083.3",
    "MA0785.2", "MA0091.2", "MA0496.4", "MA0052.5", "MA0101.1", "MA0509.3", "MA0833.3", "MA0143.5", "MA0069.1",
    "MA0079.5", "MA0162.5",
)  # fmt: skip


class Suite(NamedTuple):
    """What is planted, and how it is learned.

    Attributes
    ----------
    about : str
    simulate, model, train : dict
        Settings of these sections, beside the common ones.
    motifs : tuple of str
        JASPAR ids that pairs are made of, two for each pair, from the first on.
    target : str
        Readout that models learn.
    """

    about: str
    simulate: dict[str, Any]
    model: dict[str, Any] = {}
    train: dict[str, Any] = {}
    motifs: tuple[str, ...] = MOTIFS
    target: str = "y"


SUITES: dict[str, Suite] = {
    "A": Suite(
        "two interactions, three pairs with a strong hidden cause, one co-occurring additive pair",
        {
            "n_sequences": 32_000,
            "pairs": ["AND", "AND", "HIDDEN", "HIDDEN", "HIDDEN", "ADDITIVE"],
            "pair_effects": [1.0, 0.8, 2.5, 2.2, 2.0, 0.7],
            "hidden_rate": 0.15,
            "hidden_presence": [0.95, 0.30],
        },
    ),
    "B": Suite(
        "syntax: distance, strands and order, beside a plain interaction and a hidden cause",
        {
            "n_sequences": 24_000,
            "length": 200,
            "pairs": ["AND", "SPC", "ORI", "ORD", "HIDDEN", "ADDITIVE"],
            "syntax_rate": 0.6,
            "spacing": {"kind": "within", "max_bp": 60.0},
        },
        {"stem": {"motif_strands": "separate"}, "d_model": 48},
    ),
    "C": Suite(
        "ten classes at once, in longer sequences",
        {
            "n_sequences": 40_000,
            "length": 240,
            "pairs": ["AND", "AND_COOC", "OR", "REP", "XOR", "SPC", "ORI", "HIDDEN", "CHAIN", "GC"],
        },
        {"stem": {"motif_strands": "separate"}, "d_model": 64},
        {"epochs": 30, "batch_size": 256},
    ),
    "D": Suite(
        "logic: redundancy, repression, exclusive or, and an interaction between motifs that co-occur",
        {
            "n_sequences": 32_000,
            "pairs": ["AND_COOC", "OR", "REP", "XOR", "CHAIN", "GC"],
        },
    ),
    "E": Suite(
        "a plateau that bends all effects, of which most only add up, and a motif that looks like another",
        {
            "n_sequences": 32_000,
            "pairs": ["PARALOG", "AND", "ADDITIVE", "ADDITIVE", "ADDITIVE", "ADDITIVE"],
            "saturation": {},
        },
        motifs=(MOTIFS[0], "MA0098.4", *MOTIFS[1:]),  # ELK1 and ETS1 look alike
        target="y_sat",
    ),
}


def run_of(
    suite: str,
    regime: str,
    seed: int,
    *,
    replicates: int,
    training: str = "plain",
    n_sequences: int | None = None,
    epochs: int | None = None,
) -> RunConfig:
    """Settings of one unit of the benchmark: one structural causal model, one regime, one way to train.

    Parameters
    ----------
    regime : str
        How motifs come to be present: "observational", by their causes; "randomised", at random;
        "mixed0.25", at random in a quarter of the sequences; "twins": by their causes, and each sequence again with
        one pair of motifs set to all four combinations.
    seed : int
        Draws which motifs form which pair, the sequences, and all that follows.
    replicates : int
        Models, each on its own resample of the data.
    n_sequences, epochs : int, optional
        Smaller or larger than the suite's own.

    Raises
    ------
    ConfigError
        If there is no such regime.
    """
    chosen = SUITES[suite]
    simulate = chosen.simulate | check_regime(regime) | ({"n_sequences": n_sequences} if n_sequences else {})
    n_motifs = 2 * len(simulate["pairs"])
    stem = {"kind": "pwm", "n_filters": 4, "width": 11, "pool": 10} | chosen.model.get("stem", {})
    train = {"epochs": 20, "batch_size": 128, "learning_rate": 0.004} | chosen.train
    if epochs:
        train["epochs"] = epochs
    return RunConfig.model_validate(
        {
            "seed": seed,
            "data": {"simulate": simulate},
            "task": {"kind": "regression", "targets": [chosen.target]},
            "split": {"kind": "random", **({"group_by": ["column"], "column": "group"} if regime == "twins" else {})},
            "motifs": {"jaspar_ids": list(chosen.motifs[:n_motifs])},
            "model": {
                "d_model": 32, "n_layers": 1, "n_heads": 4, "d_feedforward": 64, "positions": "relative",
                # An additive readout: an interaction can only arise in attention.
                "pooling": "sum", "dropout": 0.0, **chosen.model, "stem": stem,
            },
            "train": {
                "seeds": list(range(1, replicates + 1)), "resample": "bootstrap",
                "permute_labels": training == "permuted", **train,
            },
            "interactions": {"instances_per_pair": 50, "draws": 1, "permutations": 499},
        }
    )  # fmt: skip


def check_regime(regime: str) -> dict[str, Any]:
    """Settings of the simulator for a regime by name. Raises `ConfigError` for an unknown one."""
    if regime in ("observational", "randomised", "twins"):
        return {"regime": regime}
    mixed = _MIXED.fullmatch(regime)
    if not mixed:
        raise ConfigError(f"a regime is observational, randomised, twins, or mixedF such as mixed0.25, got '{regime}'")
    return {"regime": "mixed", "randomised_fraction": float(mixed.group(1))}
