"""Settings that cannot be simulated, refused with what is allowed."""

from collections.abc import Sequence

import numpy as np

from bioattn.config import SimulateConfig
from bioattn.data.motif import Motif
from bioattn.data.simulate.causes import Floats, crowding
from bioattn.data.simulate.classes import Pair
from bioattn.errors import ConfigError

#: Sequences with more motifs than slots lose some, which the stated probabilities leave out: so they must be few.
MOST_CROWDED = 0.05
#: Least similarity of the two motifs of a PARALOG pair.
LOOK_ALIKE = 0.8
#: The best reader weighs all combinations of hidden causes.
_MOST_HIDDEN = 8


def check_number(config: SimulateConfig, motifs: Sequence[Motif]) -> None:
    """Two motifs for each pair, in slots that hold them."""
    wanted = 2 * len(config.pairs)
    if len(motifs) != wanted:
        raise ConfigError(
            f"the simulator needs {wanted} motifs (two for each entry of data.simulate.pairs), got {len(motifs)}: "
            "see motifs.jaspar_ids"
        )
    widest = max(motifs, key=lambda m: m.width)
    if widest.width > config.slot_bp:
        raise ConfigError(
            f"data.simulate.slot_bp must be at least the widest motif ({widest.name}, {widest.width} bp), "
            f"got {config.slot_bp}"
        )
    if config.length < 2 * config.slot_bp:
        raise ConfigError(
            f"data.simulate.length must be at least two slots ({2 * config.slot_bp} bp), got {config.length}"
        )
    n_hidden = sum(kind == "HIDDEN" for kind in config.pairs)
    if n_hidden > _MOST_HIDDEN:
        raise ConfigError(f"data.simulate.pairs may hold at most {_MOST_HIDDEN} HIDDEN pairs, got {n_hidden}")


def check_pairs(config: SimulateConfig, motifs: Sequence[Motif], pairs: list[Pair]) -> None:
    """Slots for the motifs that are present, and look-alikes that look alike."""
    crowded = crowding(config, pairs)
    if crowded > MOST_CROWDED:
        raise ConfigError(
            f"data.simulate: {100 * crowded:.0f} % of sequences would have more motifs than the "
            f"{config.length // config.slot_bp} slots of {config.slot_bp} bp, allowed are {100 * MOST_CROWDED:.0f} %: "
            "raise length, or lower slot_bp, base_rate or the number of pairs"
        )
    for k, pair in enumerate(pairs):
        first, second = motifs[pair.first], motifs[pair.second]
        if pair.kind == "PARALOG" and similarity(first.ppm, second.ppm) < LOOK_ALIKE:
            raise ConfigError(
                f"data.simulate.pairs: entry {k + 1} is PARALOG, but its motifs {first.name} and {second.name} do not "
                f"look alike (similarity {similarity(first.ppm, second.ppm):.2f}, needed {LOOK_ALIKE}): "
                f"put two similar matrices at places {pair.first + 1} and {pair.second + 1} of the run's motifs"
            )


def similarity(first: Floats, second: Floats) -> float:
    """Cosine of two motifs' departures from even letters at their best alignment on either strand; 1 if identical."""
    best = -1.0
    a = first - 0.25
    for other in (second, second[::-1, ::-1]):
        b = other - 0.25
        for offset in range(1 - b.shape[1], a.shape[1]):
            start, end = max(0, offset), min(a.shape[1], offset + b.shape[1])
            overlap = float((a[:, start:end] * b[:, start - offset : end - offset]).sum())
            best = max(best, overlap / float(np.linalg.norm(a) * np.linalg.norm(b)))
    return best
