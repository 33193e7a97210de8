"""The held-out sequences, motifs, hits and pair instances that every step about pairs looks at.

They follow from the settings, the data and the split alone, so every replicate
model and every step sees the same instances.
"""

import warnings
from collections.abc import Sequence
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
from bioattn.errors import BioattnWarning, ConfigError, DataError
from bioattn.explain.hits import find_hits, pair_instances, presence_of, site_hits, site_motifs
from bioattn.io.motifs import load_motifs
from bioattn.models import SequenceModel

#: Training sequences in which the motifs of a large library are counted.
_LIBRARY_SAMPLE = 2000


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
    hits, instances : DataFrame
        See `bioattn.explain.hits`, on the rows of `codes`.
    occupied : DataFrame
        sequence, start, end of everything that a control locus must avoid.
    controls : list of bool
        Which motifs are spacers that hold nothing, and serve as negative controls.
    presence : ndarray, bool, shape (N_all, M)
        Which motif is hit in which of all sequences of the run, for co-occurrence.
    flank_bp : int
        Bases on either side that are knocked out with a site: none for fixed
        sites, which are exactly what the user named.
    geometry : Geometry
        Of the models.
    """

    codes: NDArray[np.uint8]
    rows: NDArray[np.int64]
    motifs: list[Motif]
    hits: pd.DataFrame
    instances: pd.DataFrame
    occupied: pd.DataFrame
    controls: list[bool]
    presence: NDArray[np.bool_]
    flank_bp: int
    geometry: Geometry

    @property
    def pwms(self) -> list[NDArray[np.float64]]:
        """Log-odds matrices of the library."""
        return [log_odds(m.ppm) for m in self.motifs]

    @property
    def n_motifs(self) -> int:
        """Size of the library."""
        return len(self.motifs)


def pair_data(
    run: RunConfig, sequences: pd.DataFrame, split: pd.DataFrame, *, fold: int, geometry: Geometry
) -> PairData:
    """Held-out sequences of a fold with their hits and pair instances.

    Parameters
    ----------
    sequences, split : DataFrame
        As the steps `ingest` and `split` write them.
    geometry : Geometry
        Of the models. Sites whose knock-outs would touch the same token are no instance.

    Raises
    ------
    ConfigError
        If the run names fewer than two motifs or sites.
    DataError
        If no sequence holds two of them far enough apart.
    """
    subset = subset_of(sequences, split, fold=fold)
    held = np.flatnonzero(subset != "train")
    most = run.interactions.n_sequences
    if len(held) > most:
        held = np.sort(rng.stream(run.seed, "pairs", "sequences").choice(held, most, replace=False))
    everything = alphabet.encode_batch(sequences["sequence"].tolist())
    motifs, all_hits = _library_hits(run, everything, everything[subset == "train"])
    presence = presence_of(all_hits, len(everything), len(motifs))
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
    return PairData(everything[held], held, motifs, hits, instances, occupied, controls, presence, flank_bp, geometry)


def _library_hits(
    run: RunConfig, codes: NDArray[np.uint8], training: NDArray[np.uint8]
) -> tuple[list[Motif], pd.DataFrame]:
    """Library and all its hits: matrices are scanned for, fixed sites count where they are intact.

    A site is intact in the half of the sequences that match the library best there.
    """
    if run.motifs.sites:
        motifs = site_motifs(training, run.motifs.sites)
        _check_two(motifs)
        hits = site_hits(codes, run.motifs.sites, motifs)
        return motifs, hits[hits["score"] >= hits.groupby("motif")["score"].transform("median")].reset_index(drop=True)
    motifs = load_motifs(run.motifs)
    _check_two(motifs)
    motifs = _most_frequent(motifs, training, run)
    return motifs, find_hits(codes, motifs, p_value=run.interactions.hit_p_value)


def _most_frequent(motifs: list[Motif], training: NDArray[np.uint8], run: RunConfig) -> list[Motif]:
    """The library, or of a large one the motifs with most hits in training sequences, one of each family.

    The choice looks at neither targets nor models, so it biases no test.
    """
    most = run.interactions.most_motifs
    if len(motifs) <= most:
        return motifs
    draw = rng.stream(run.seed, "pairs", "library")
    sample = training[draw.permutation(len(training))[:_LIBRARY_SAMPLE]]
    hits = find_hits(sample, motifs, p_value=run.interactions.hit_p_value)
    count = np.bincount(hits["motif"].to_numpy(dtype=int), minlength=len(motifs))
    best: dict[str, int] = {}
    for m in np.argsort(-count, kind="stable"):
        best.setdefault(motifs[m].family or motifs[m].motif_id, int(m))
    chosen = sorted(list(best.values())[:most])
    warnings.warn(
        f"pairs are made of {len(chosen)} of {len(motifs)} motifs: those with most hits, one of each family; "
        "interactions.most_motifs or motifs.jaspar_ids change that",
        BioattnWarning,
        stacklevel=2,
    )
    return [motifs[m] for m in chosen]


def _held_by_both(data: PairData) -> NDArray[np.int64]:
    """How many held-out sequences have a hit of both motifs, (M, M)."""
    present = presence_of(data.hits, len(data.codes), data.n_motifs).astype(np.int64)
    return present.T @ present


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


def _check_two(motifs: Sequence[Motif]) -> None:
    if len(motifs) < 2:
        raise ConfigError(f"pairs need at least 2 motifs or sites, got {len(motifs)}: see the section motifs")


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
