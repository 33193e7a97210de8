"""Two motifs that act together attend each other.

Promoters are simulated in which two motifs act only where both are, two others act each by itself, and two do nothing;
all of them come and go independently. A model whose readout adds up over tokens can only bring the two together in
attention. Co-attention, what two motifs attend each other beyond how attentive and how attended each is, then puts
the interacting pair on top of all pairs. Motifs that act each by itself are no candidate, and a model with random
weights has none.

Source: Kovaleva et al. 2019 for looking at patterns; Dunn et al. 2008 for the centring, there of contacts.
"""

import sys

import pandas as pd

from bioattn.config import PrinciplesConfig
from bioattn.explain.random_models import reinitialised
from bioattn.principles.finding import Drawing, Finding, Verdict, finding_of
from bioattn.principles.planted import of_class, pair_table, planted_run, trained_on

_PAIRS = {"AND": 1.6, "ADDITIVE": 0.7, "DECOY": None}
_NAMES = {"AND": "interacts", "ADDITIVE": "each acts alone", "DECOY": "does nothing", "NULL": "of different pairs"}


def run(settings: PrinciplesConfig) -> Finding:
    """Rank, co-attention and epistasis of the planted pairs, trained and with random weights."""
    n, epochs = (6000, 12) if settings.size == "fast" else (20_000, 20)
    ranks, bits, alone, effects, random, rows = [], [], [], [], [], []
    for seed in settings.seeds:
        planted = trained_on(planted_run(seed, _PAIRS, n_sequences=n, epochs=epochs, length=120))
        pairs = pair_table(planted)
        ranks.append(float(pairs["attention_bits"].rank(ascending=False)[pairs["class"] == "AND"].iloc[0]))
        bits.append(of_class(pairs, "AND", "attention_bits"))
        alone.append(of_class(pairs, "ADDITIVE", "attention_bits"))
        effects.append(of_class(pairs, "AND", "epistasis"))
        untrained = pair_table(planted._replace(model=reinitialised(planted.model, seed=seed)))
        random.append(of_class(untrained, "AND", "attention_bits"))
        rows.append(pairs.assign(seed=seed))
    table = pd.concat(rows, ignore_index=True)
    table["pair"] = table["class"].map(_NAMES)
    floor = 1.0
    verdicts = [
        Verdict("The interacting pair tops all fifteen by co-attention: its rank.", "trained", 1.0, tuple(ranks)),
        Verdict(
            "It passes the floor for candidates: bits of co-attention.", "trained", floor, tuple(bits), rule="at least"
        ),
        Verdict(
            f"Put into sequences, the two act as planted ({_PAIRS['AND']}): epistasis.", "trained", 1.0,
            tuple(effects), rule="at least",
        ),
        Verdict(
            "Motifs that act each by itself are no candidate: bits of co-attention.", "control", floor, tuple(alone),
            rule="at most",
        ),
        Verdict(
            "With random weights the interacting pair is none either: bits of co-attention.", "control", floor,
            tuple(random), rule="at most",
        ),
    ]  # fmt: skip
    drawing = Drawing("points", "attention_bits", "epistasis", "pair", "co-attention (bits)", "epistasis in the model")
    return finding_of(sys.modules[__name__], verdicts, table, drawing)
