"""Classes of motif pairs, and which motifs of a run form which pair."""

from typing import Literal, NamedTuple

import numpy as np

from bioattn import rng
from bioattn.config import PairClass, SimulateConfig

Presence = Literal["independent", "syntax", "common", "hidden", "gc", "chain", "look-alike"]
Rule = Literal["spacing", "orientation", "order"]

_CAUSAL = "causal in model"
_HIDDEN = "hidden (causal without attention)"
_CONFOUNDED = "co-occurrence confounded"
_NOTHING = "not supported"


class Grammar(NamedTuple):
    """What a class of pairs does to the readout, and what makes its motifs present.

    The structural term is effect * (first a + second b + both a b w), where w is
    one, or what the rule says about the two sites. So effect * both * w is the
    interaction: the double difference of the readout over the four cells.

    Attributes
    ----------
    observational, randomised : str
        Verdicts that are right after training on data of that regime, joined by " | ".
    """

    first: float
    second: float
    both: float
    presence: Presence
    observational: str
    randomised: str
    rule: Rule | None = None


#: A pair that co-occurs and does nothing may be called confounded by observational data: that is no false claim.
_IDLE = f"{_NOTHING} | {_CONFOUNDED}"
#: Redundant motifs also compete for attention, which counts as a path outside their edge.
_REDUNDANT = f"{_CAUSAL} | {_HIDDEN}"
#: Both names of a look-alike pair have hits at the same sites only.
_NO_INSTANCES = f"{_NOTHING} | insufficient data | not tested"

GRAMMARS: dict[PairClass, Grammar] = {
    "AND": Grammar(0, 0, 1, "independent", _CAUSAL, _CAUSAL),
    "AND_COOC": Grammar(0, 0, 1, "common", _CONFOUNDED, _CAUSAL),
    "OR": Grammar(1, 1, -1, "independent", _REDUNDANT, _REDUNDANT),
    "REP": Grammar(1, 0, -1, "independent", _CAUSAL, _CAUSAL),
    "XOR": Grammar(1, 1, -2, "independent", _REDUNDANT, _REDUNDANT),
    "SPC": Grammar(0, 0, 1, "syntax", _CAUSAL, _CAUSAL, "spacing"),
    "ORI": Grammar(0, 0, 1, "syntax", _CAUSAL, _CAUSAL, "orientation"),
    "ORD": Grammar(0, 0, 1, "syntax", _CAUSAL, _CAUSAL, "order"),
    "ADDITIVE": Grammar(1, 1, 0, "common", _IDLE, _NOTHING),
    "INERT": Grammar(0, 0, 0, "common", _IDLE, _NOTHING),
    "CHAIN": Grammar(1, 0, 0, "chain", _IDLE, _NOTHING),
    "HIDDEN": Grammar(0, 0, 0, "hidden", _CONFOUNDED, _NOTHING),
    "GC": Grammar(0, 0, 0, "gc", _IDLE, _NOTHING),
    "PARALOG": Grammar(1, 0, 0, "look-alike", _NO_INSTANCES, _NO_INSTANCES),
    "DECOY": Grammar(0, 0, 0, "independent", _NOTHING, _NOTHING),
}
#: All pairs of motifs from different designed pairs.
NULL = Grammar(0, 0, 0, "independent", _NOTHING, _NOTHING)


class Pair(NamedTuple):
    """Two motifs by their place in the run, and what they do. `effect` is the hidden cause's for HIDDEN."""

    kind: PairClass
    first: int
    second: int
    effect: float

    @property
    def grammar(self) -> Grammar:
        """Its class."""
        return GRAMMARS[self.kind]


def make_pairs(config: SimulateConfig, seed: int) -> list[Pair]:
    """The pairs of `config.pairs`, in that order, with the motifs that are assigned to them.

    Shuffled assignment leaves PARALOG pairs the motifs at their own places, since
    those two must look alike.
    """
    motifs = np.arange(2 * len(config.pairs))
    if config.assignment == "shuffled":
        free = np.repeat([kind != "PARALOG" for kind in config.pairs], 2)
        order = rng.stream(seed, "simulate", "classes").permutation(int(free.sum()))
        motifs[free] = motifs[free][order]
    effects = config.pair_effects or [None] * len(config.pairs)
    pairs = []
    for i, (kind, effect) in enumerate(zip(config.pairs, effects, strict=True)):
        own = float(getattr(config, f"{kind.lower()}_effect", 0.0)) if effect is None else effect
        pairs.append(Pair(kind, int(motifs[2 * i]), int(motifs[2 * i + 1]), own))
    return pairs


def partner_of(pairs: list[Pair]) -> dict[int, tuple[int, int]]:
    """Index of the pair and the other motif, of each motif."""
    found = {}
    for k, pair in enumerate(pairs):
        found[pair.first] = (k, pair.second)
        found[pair.second] = (k, pair.first)
    return found
