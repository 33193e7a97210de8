"""Attention is correlation, unless the data are interventional.

A hidden cause that brings two motifs and raises the readout makes them look as if they interacted. Trained on such
observations, a model attends them like a pair that truly interacts, and interventions in the model agree with its
attention: what it learned is there, only the world is another. Trained on sequences in which the same motifs were
placed at random, with everything else as before, attention and model keep the true interaction and lose the other.
No test of a model trained on observations can tell the two, only data of another kind can. Motifs that merely occur
together, and act each by itself, are another matter: that the model gets right from observations too. Trained on
permuted targets, a model shows nothing.

Source: Jain and Wallace 2019; Pearl 2009, section 3.3, for what a hidden cause does.
"""

import sys
from typing import Any

import pandas as pd

from bioattn.config import PrinciplesConfig
from bioattn.principles.finding import Drawing, Finding, Verdict, finding_of
from bioattn.principles.planted import of_class, pair_table, planted_run, trained_on

#: The hidden cause of the second pair raises the readout by so much; neither of its motifs does.
_PAIRS = {"AND": 2.0, "HIDDEN": 2.5, "DECOY": None, "ADDITIVE": 0.7}
_CAUSE: dict[str, Any] = {"hidden_rate": 0.15, "hidden_presence": [0.95, 0.3]}
_NAMES = {"AND": "interacts", "HIDDEN": "shares a hidden cause", "ADDITIVE": "occurs together"}
_TRAININGS = {
    "observations": ("observational", False), "randomised": ("randomised", False),
    "permuted targets": ("observational", True),
}  # fmt: skip


def run(settings: PrinciplesConfig) -> Finding:
    """Co-attention and epistasis of planted pairs, trained on observations, at random, and on permuted targets."""
    n, epochs = (12_000, 15) if settings.size == "fast" else (32_000, 20)
    rows = []
    for seed in settings.seeds:
        for training, (regime, permuted) in _TRAININGS.items():
            planned = planted_run(
                seed, _PAIRS, regime=regime, n_sequences=n, epochs=4 if permuted else epochs, permuted=permuted,
                **_CAUSE,
            )  # fmt: skip
            rows.append(pair_table(trained_on(planned)).assign(seed=seed, training=training))
    table = pd.concat(rows, ignore_index=True)

    def measured(training: str, kind: str, column: str) -> tuple[float, ...]:
        chosen = table[table["training"] == training]
        return tuple(of_class(chosen[chosen["seed"] == seed], kind, column) for seed in settings.seeds)

    control = table[table["training"] == "permuted targets"]
    verdicts = [
        Verdict(
            "Observations: a pair that a hidden cause brings is attended like an interaction: bits of co-attention.",
            "trained", 1.0, measured("observations", "HIDDEN", "attention_bits"), rule="at least",
        ),
        Verdict(
            "And the model has made it one, which the world does not have: epistasis.", "trained", 0.4,
            measured("observations", "HIDDEN", "epistasis"), rule="at least",
        ),
        Verdict(
            "Motifs that occur together and act alone do not interact in the model: epistasis.", "trained", 0.0,
            measured("observations", "ADDITIVE", "epistasis"), 0.15,
        ),
        Verdict(
            "Randomised: the same pair has no co-attention to speak of: bits.", "trained", 1.0,
            measured("randomised", "HIDDEN", "attention_bits"), rule="at most",
        ),
        Verdict(
            "Nor does the model have an interaction: epistasis.", "trained", 0.0,
            measured("randomised", "HIDDEN", "epistasis"), 0.05,
        ),
        Verdict(
            "The true interaction stays: bits of co-attention.", "trained", 1.0,
            measured("randomised", "AND", "attention_bits"), rule="at least",
        ),
        Verdict(
            f"And its size is near the planted one ({_PAIRS['AND']:g}): epistasis.", "trained", 1.2,
            measured("randomised", "AND", "epistasis"), rule="at least",
        ),
        Verdict(
            "Permuted targets: largest epistasis of any pair.", "control", 0.1,
            tuple(control["epistasis"].abs().groupby(control["seed"]).max()), rule="at most",
        ),
        Verdict(
            "And largest co-attention of any: bits.", "control", 1.0,
            tuple(control.groupby("seed")["attention_bits"].max()), rule="at most",
        ),
    ]  # fmt: skip
    shown = table[table["class"].isin(list(_NAMES)) & (table["training"] != "permuted targets")]
    shown = shown.assign(shown=shown["class"].map(_NAMES) + ", " + shown["training"])
    drawing = Drawing("points", "attention_bits", "epistasis", "shown", "co-attention (bits)", "epistasis in the model")
    return finding_of(sys.modules[__name__], verdicts, shown, drawing)
