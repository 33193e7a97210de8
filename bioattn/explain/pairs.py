"""The held-out sequences, motifs, hits and pair instances that every step about pairs looks at.

They follow from the settings, the data and the split alone, so every replicate
model and every step sees the same instances.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bioattn import rng
from bioattn.config import RunConfig
from bioattn.data import alphabet
from bioattn.data.motif import Motif, log_odds
from bioattn.data.replacement import FLANK_BP
from bioattn.data.splits import subset_of
from bioattn.errors import DataError
from bioattn.explain.hits import pair_instances, presence_of
from bioattn.explain.library import Library
from bioattn.models import SequenceModel


class Geometry(NamedTuple):
    """What decides whether two sites can share a token: a model's receptive field and bases per token."""

    receptive_field_bp: int
    token_bp: int

    @classmethod
    def of(cls, model: SequenceModel) -> "Geometry":
        """Geometry of a model."""
        return cls(model.receptive_field_bp, model.token_bp)


@dataclass(frozen=True)
class PairData:
    """What pairs are measured on.

    Attributes
    ----------
    codes : ndarray, uint8, shape (N, L)
        Held-out sequences.
    rows : ndarray of int, shape (N,)
        Which sequences of the run they are.
    motifs : list of Motif
        The library; motif indices in all tables point here.
    members : list of tuple of str
        Names of the motifs that each stands for.
    hits, instances : DataFrame
        See `bioattn.explain.hits`, on the rows of `codes`.
    occupied : DataFrame
        sequence, start, end of everything that a control locus must avoid.
    controls : list of bool
        Which motifs are spacers that hold nothing, and serve as negative controls.
    presence, twice : ndarray, bool, shape (N_all, M)
        Which motif is hit in which of all sequences of the run, once or more, and two times or more: for
        co-occurrence.
    flank_bp : int
        Bases on either side that are knocked out with a site: none for fixed
        sites, which are exactly what the user named.
    geometry : Geometry
        Of the models.
    homotypic : list of (int, int)
        Motifs of which enough sequences hold two sites in tokens of their own, as pairs of a motif with itself.
    """

    codes: NDArray[np.uint8]
    rows: NDArray[np.int64]
    motifs: list[Motif]
    members: list[tuple[str, ...]]
    hits: pd.DataFrame
    instances: pd.DataFrame
    occupied: pd.DataFrame
    controls: list[bool]
    presence: NDArray[np.bool_]
    twice: NDArray[np.bool_]
    flank_bp: int
    geometry: Geometry
    homotypic: list[tuple[int, int]]

    @property
    def pwms(self) -> list[NDArray[np.float64]]:
        """Log-odds matrices of the library."""
        return [log_odds(m.ppm) for m in self.motifs]

    @property
    def best_hits(self) -> pd.DataFrame:
        """The best hit of each motif in each sequence."""
        return self.hits[self.hits["copy"] == 0]

    @property
    def n_motifs(self) -> int:
        """Size of the library."""
        return len(self.motifs)


def pair_data(
    run: RunConfig, sequences: pd.DataFrame, split: pd.DataFrame, library: Library, *, fold: int, geometry: Geometry
) -> PairData:
    """Held-out sequences of a fold with their hits and pair instances.

    Parameters
    ----------
    sequences, split : DataFrame
        As the steps `ingest` and `split` write them.
    library : Library
        `bioattn.explain.library.scan_library` of the same sequences.
    geometry : Geometry
        Of the models. Sites whose knock-outs would touch the same token are no instance.

    Raises
    ------
    DataError
        If no sequence holds two of the motifs far enough apart.
    """
    subset = subset_of(sequences, split, fold=fold)
    held = np.flatnonzero(subset != "train")
    most = run.interactions.n_sequences
    if len(held) > most:
        held = np.sort(rng.stream(run.seed, "pairs", "sequences").choice(held, most, replace=False))
    everything = alphabet.encode_batch(sequences["sequence"].tolist())
    motifs, all_hits = library.motifs, library.hits
    presence, twice = (presence_of(all_hits[all_hits["copy"] == copy], len(everything), len(motifs)) for copy in (0, 1))
    hits = all_hits[all_hits["sequence"].isin(held)].reset_index(drop=True)
    hits["sequence"] = np.searchsorted(held, hits["sequence"])
    flank_bp = 0 if run.motifs.sites else FLANK_BP
    instances = pair_instances(hits, margin_bp=flank_bp + geometry.receptive_field_bp // 2, token_bp=geometry.token_bp)
    if instances.empty:
        raise DataError(
            f"none of {len(held)} held-out sequences holds two different motifs in tokens of their own "
            f"({geometry.token_bp} bp per token, receptive field {geometry.receptive_field_bp} bp): check motifs, "
            "interactions.hit_p_value and model.stem"
        )
    controls = [site.control for site in run.motifs.sites] or [False] * len(motifs)
    occupied = _functional_sites(run, len(held)) if run.motifs.sites else hits[["sequence", "start", "end"]]
    return PairData(
        everything[held], held, motifs, library.members, hits, instances, occupied, controls, presence, twice, flank_bp,
        geometry, _homotypic(instances, run.interactions.min_instances),
    )  # fmt: skip


def _homotypic(instances: pd.DataFrame, least: int) -> list[tuple[int, int]]:
    own = instances.loc[instances["motif_a"] == instances["motif_b"], "motif_a"].value_counts()
    return [(int(motif), int(motif)) for motif in sorted(own.index[own >= least])]


def _held_by_both(data: PairData) -> NDArray[np.int64]:
    """How many held-out sequences have a hit of both motifs, (M, M); two of the same one on the diagonal."""
    present, twice = (
        presence_of(data.hits[data.hits["copy"] == copy], len(data.codes), data.n_motifs).astype(np.int64)
        for copy in (0, 1)
    )
    both: NDArray[np.int64] = present.T @ present
    np.fill_diagonal(both, twice.sum(0))
    return both


def _functional_sites(run: RunConfig, n: int) -> pd.DataFrame:
    """All fixed sites but the control spacers, in each of `n` sequences."""
    functional = [site for site in run.motifs.sites if not site.control]
    return pd.DataFrame(
        {
            "sequence": np.repeat(np.arange(n), len(functional)),
            "start": np.tile([site.start for site in functional], n),
            "end": np.tile([site.end for site in functional], n),
        }
    )


def choose_pairs(
    candidates: pd.DataFrame,
    data: PairData,
    *,
    n_noncandidates: int,
    seed: int,
    promising: NDArray[np.bool_] | None = None,
) -> pd.DataFrame:
    """Candidates with the column `tested`: all candidates, and a random sample of the other pairs that occur.

    The sample is what shows whether interventions also find what attention missed.

    Parameters
    ----------
    promising : ndarray, bool, optional
        Further pairs, one for each row of `candidates`, that are tested without being candidates.
    """
    occurs = data.instances.groupby(["motif_a", "motif_b"]).size().rename("n_sequences").reset_index()
    table = candidates.merge(occurs, how="left", on=["motif_a", "motif_b"]).fillna({"n_sequences": 0})
    table["n_sequences"] = table["n_sequences"].astype(int)
    table["n_too_close"] = _held_by_both(data)[table["motif_a"], table["motif_b"]] - table["n_sequences"]
    present = table["n_sequences"] > 0
    chosen = table["candidate"] if promising is None else table["candidate"] | promising
    others = table.index[present & ~chosen].to_numpy()
    draw = rng.stream(seed, "pairs", "noncandidates")
    sample = others if len(others) <= n_noncandidates else draw.choice(others, n_noncandidates, replace=False)
    table["tested"] = (chosen & present) | table.index.isin(sample)
    return table
