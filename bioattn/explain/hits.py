"""Where motifs occur in sequences: scanned hits, or the fixed sites of an aligned library."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bioattn.config import SiteConfig
from bioattn.data import alphabet
from bioattn.data.motif import Motif, log_odds, ppm_from_counts, scan, score_threshold
from bioattn.errors import DataError

HIT_COLUMNS = ("sequence", "motif", "start", "end", "strand", "score")


def find_hits(codes: NDArray[np.uint8], motifs: Sequence[Motif], *, p_value: float) -> pd.DataFrame:
    """Best hit of each motif in each sequence.

    One hit per sequence and motif, so that no pair of motifs counts for more
    because it has more weak copies.

    Parameters
    ----------
    codes : ndarray, uint8, shape (N, L)
    p_value : float
        A window is a hit if a random window scores as high with at most this probability.

    Returns
    -------
    DataFrame
        sequence (row of `codes`), motif (index), start, end (0-based half-open), strand, score (bits);
        sorted by sequence and start.
    """
    tables = []
    for m, motif in enumerate(motifs):
        pwm = log_odds(motif.ppm)
        forward, reverse = scan(codes, pwm), scan(codes, pwm[::-1, ::-1])
        if forward.shape[1] == 0:
            continue
        score = np.maximum(forward, reverse)
        start = score.argmax(1)
        row = np.arange(len(codes))
        hit = np.flatnonzero(score[row, start] >= score_threshold(pwm, p_value))
        start = start[hit]
        strand = np.where(forward[hit, start] >= reverse[hit, start], "+", "-")
        tables.append(_hit_table(hit, m, start, start + motif.width, strand, score[hit, start]))
    hits = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(HIT_COLUMNS))
    return hits.sort_values(["sequence", "start"], ignore_index=True)


def presence_of(hits: pd.DataFrame, n_sequences: int, n_motifs: int) -> NDArray[np.bool_]:
    """Which motif has a hit in which sequence, bool (n_sequences, n_motifs)."""
    presence = np.zeros((n_sequences, n_motifs), dtype=bool)
    presence[hits["sequence"].to_numpy(dtype=np.int64), hits["motif"].to_numpy(dtype=np.int64)] = True
    return presence


def site_motifs(codes: NDArray[np.uint8], sites: Sequence[SiteConfig]) -> list[Motif]:
    """Motif of each fixed site: the letter frequencies that the aligned library has there.

    Raises
    ------
    DataError
        If a site reaches past the end of the shortest sequence.
    """
    length = int((codes != alphabet.PAD).sum(1).min())
    motifs = []
    for site in sites:
        if site.end > length:
            raise DataError(f"site '{site.name}' ends at {site.end}, but the shortest sequence has {length} bp")
        window = codes[:, site.start : site.end]
        counts = np.stack([(window == letter).sum(0) for letter in range(alphabet.N_LETTERS)])
        motifs.append(Motif(site.name, site.name, ppm_from_counts(counts)))
    return motifs


def site_hits(codes: NDArray[np.uint8], sites: Sequence[SiteConfig], motifs: Sequence[Motif]) -> pd.DataFrame:
    """Every fixed site of every sequence as a hit, with its PWM score; columns as `find_hits`."""
    tables = []
    for m, (site, motif) in enumerate(zip(sites, motifs, strict=True)):
        score = scan(codes[:, site.start : site.end], log_odds(motif.ppm))[:, 0]
        row = np.arange(len(codes))
        start = np.full(len(codes), site.start)
        tables.append(_hit_table(row, m, start, start + motif.width, np.full(len(codes), "+"), score))
    return pd.concat(tables, ignore_index=True).sort_values(["sequence", "start"], ignore_index=True)


def pair_instances(hits: pd.DataFrame, *, margin_bp: int, token_bp: int) -> pd.DataFrame:
    """Pairs of hits of different motifs in one sequence that share no token.

    Parameters
    ----------
    margin_bp : int
        How far beyond a site an edit of it changes stem features (flank and half of the receptive field).
    token_bp : int
        Bases per token. With disjoint tokens the two sites can meet in attention only.

    Returns
    -------
    DataFrame
        sequence, hit_a, hit_b (rows of `hits`), motif_a < motif_b, gap_bp.
    """
    left = hits.reset_index(names="hit")[["sequence", "hit", "motif", "start", "end"]]
    pairs = left.merge(left, on="sequence", suffixes=("_a", "_b"))
    pairs = pairs[pairs.motif_a < pairs.motif_b]
    gap = np.maximum(pairs.start_b - pairs.end_a, pairs.start_a - pairs.end_b)
    (first_a, last_a), (first_b, last_b) = (
        ((pairs[f"start_{s}"] - margin_bp) // token_bp, (pairs[f"end_{s}"] - 1 + margin_bp) // token_bp) for s in "ab"
    )
    pairs = pairs.assign(gap_bp=gap)[(last_a < first_b) | (last_b < first_a)]
    return pairs[["sequence", "hit_a", "hit_b", "motif_a", "motif_b", "gap_bp"]].reset_index(drop=True)


def _hit_table(
    sequence: NDArray, motif: int, start: NDArray, end: NDArray, strand: NDArray, score: NDArray
) -> pd.DataFrame:
    return pd.DataFrame(
        {"sequence": sequence, "motif": motif, "start": start, "end": end, "strand": strand, "score": score}
    )
