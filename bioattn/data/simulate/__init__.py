"""Promoters from a structural causal model: the truth about every motif and pair is known.

Motifs are placed into random background, and the readout follows one structural
equation in every regime. The classes of pairs are chosen so that correlation and
causation come apart. With a and b the presence of the two motifs of a pair, and
e the effect of its class:

========== =================== ================================================
class      readout             presence of the two motifs
========== =================== ================================================
AND        e a b               independent
AND_COOC   e a b               a common cause makes both likely
OR         e max(a, b)         independent (redundant)
REP        e a (1 - b)         independent (b masks a)
XOR        e abs(a - b)        independent
SPC        e a b w(distance)   independent; w by `spacing`
ORI        e a b [same strand] independent
ORD        e a b [a before b]  independent; in the sequence as written
ADDITIVE   e a + e b           a common cause makes both likely
INERT      nothing             a common cause makes both likely
CHAIN      e a                 a makes b likely
HIDDEN     e u                 u is no part of the sequence, and makes both likely
GC         nothing             likely where GC is high
PARALOG    e a                 b, which looks like a, is never placed
DECOY      nothing             independent
========== =================== ================================================

GC itself adds `gc_effect` (GC - 0.5), whatever the pairs.
"""

from bioattn.data.simulate.classes import GRAMMARS, Pair
from bioattn.data.simulate.simulation import Simulation, simulate
from bioattn.data.simulate.truth import beside_truth

__all__ = ["GRAMMARS", "Pair", "Simulation", "beside_truth", "simulate"]
