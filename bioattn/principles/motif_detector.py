"""A head reads a motif, and what it reads can be written down.

Two motifs are planted that act where both are, and two that do nothing. Filters and heads begin at random: no motif is
given. After training, heads that the model cannot do without read the two; aligned windows around what they read give
their matrices back, and a library names them. The idle motifs stand in as many sequences; a head may read one beside
another, but the readout hardly responds to it. Heads with random weights read motifs too, as any filter may, and
taking such a head out costs nothing. So a motif that a head reads is no finding before an intervention says that it
matters.

Source: Alipanahi et al. 2015 for filters as motifs; Voita et al. 2019 for heads that matter.
"""

import sys

import numpy as np
import pandas as pd

from bioattn.config import PrinciplesConfig
from bioattn.explain.head_motifs import HeadMotifs, head_motifs
from bioattn.explain.recovery import RECOVERED_CORRELATION, recovery_table
from bioattn.explain.sample import held_out_sample
from bioattn.explain.similar_motifs import align
from bioattn.io.motifs import naming_library
from bioattn.principles.finding import Drawing, Finding, Verdict, finding_of
from bioattn.principles.planted import Planted, of_class, pair_table, planted_run, trained_on

_STEM = {"kind": "conv", "n_filters": 16, "width": 13, "pool": 5}
_LETTERS = "ACGT"


def run(settings: PrinciplesConfig) -> Finding:
    """What heads that matter read, its names, idle motifs among it, and what random heads are worth."""
    n, epochs = (8000, 15) if settings.size == "fast" else (20_000, 20)
    read, named, idle, worth, rows = [], [], [], [], []
    for seed in settings.seeds:
        planted = trained_on(
            planted_run(
                seed, {"AND": 2.0, "DECOY": None}, n_sequences=n, epochs=epochs, stem=_STEM, length=100, base_rate=0.5
            )
        )
        sample = held_out_sample(planted.run, planted.table, planted.parts, fold=0)
        library = naming_library(planted.run.motifs)
        found = head_motifs(
            planted.model, sample.discovery, sample.held_out, planted.run.explain, scored=sample.scored,
            task=planted.run.task, library=library, seed=seed,
        )  # fmt: skip
        acting = _acting(planted)
        best = {name: _best(planted, found, name) for name in acting}
        read.append(min(best[name][0] for name in acting))
        pairs = pair_table(planted)
        idle.append(abs(of_class(pairs, "DECOY", "epistasis") / of_class(pairs, "AND", "epistasis")))
        names = recovery_table(found.table, found.motifs, planted.motifs, library=library).set_index("motif")["named"]
        named.append(float(names[acting].mean()))
        worth.append(found.summary["random_loss_q95"] / float(found.table["ablation_loss"].max()))
        if seed == settings.seeds[0]:
            for name in acting:
                rows += _columns(f"{name}, planted", _planted(planted, name))
                rows += _columns(f"{name}, read by a head", best[name][1])
    verdicts = [
        Verdict(
            "Heads that matter read both motifs: smaller of the two correlations with the planted matrices.", "trained",
            RECOVERED_CORRELATION, tuple(read), rule="at least",
        ),
        Verdict("Both are named after their family: share.", "trained", 1.0, tuple(named)),
        Verdict(
            "Put into sequences, the idle motifs do nothing: their epistasis over that of the acting ones.",
            "control", 0.1, tuple(idle), rule="at most",
        ),
        Verdict(
            "Heads with random weights are worth nothing: loss without one (95th percentile) over that of the best "
            "trained head.", "control", 0.2, tuple(worth), rule="at most",
        ),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["motif", "position", *_LETTERS])
    drawing = Drawing("logos", "position", "bits", "motif", "position (bp)", "bits")
    return finding_of(sys.modules[__name__], verdicts, table, drawing)


def _acting(planted: Planted) -> list[str]:
    """Names of the two motifs that act."""
    return [str(name) for name in planted.made.pairs.set_index("class").loc["AND", ["motif_a", "motif_b"]]]


def _best(planted: Planted, found: HeadMotifs, name: str) -> tuple[float, np.ndarray]:
    """Correlation of a planted motif with the closest one that a head which matters reads, and that one's matrix."""
    rows = found.table[found.table["motif"] >= 0]
    matters = [motif for motif, said in zip(found.motifs, rows["verdict"], strict=True) if said == "motif"]
    if not matters:
        return float("nan"), np.full((4, 1), 0.25)
    alike = align([_planted(planted, name)], [motif.ppm for motif in matters])
    place = int(alike.correlation[0].argmax())
    ppm = matters[place].ppm
    return float(alike.correlation[0, place]), ppm[::-1, ::-1] if alike.reverse[0, place] else ppm


def _planted(planted: Planted, name: str) -> np.ndarray:
    return next(motif.ppm for motif in planted.motifs if motif.name == name)


def _columns(name: str, ppm: np.ndarray) -> list[list[object]]:
    return [[name, place, *map(float, column)] for place, column in enumerate(ppm.T)]
