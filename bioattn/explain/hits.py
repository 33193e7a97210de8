"""Where motifs occur in sequences: scanned hits, or the fixed sites of an aligned library."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bioattn.config import SiteConfig
from bioattn.data import alphabet
from bioattn.data.motif import Motif, log_odds, ppm_from_counts, scan, score_threshold
from bioattn.errors import DataError

#: Bases that are scanned at a time: scores of one motif take some 24 bytes each.
_BASES = 2**24

HIT_COLUMNS = ("sequence", "motif", "start", "end", "strand", "score", "copy")


def find_hits(codes: NDArray[np.uint8], motifs: Sequence[Motif], *, p_value: float, copies: int = 1) -> pd.DataFrame:
    """Best hit of each motif in each sequence, and the next best that do not overlap it.

    One best hit per sequence and motif stands for the motif, so that no pair of motifs counts for
    more because it has more weak copies; further copies are for pairs of a motif with itself.

    Parameters
    ----------
    codes : ndarray, uint8, shape (N, L)
    p_value : float
        A window is a hit if a random window scores as high with at most this probability.
    copies : int
        Most hits of a motif in a sequence.

    Returns
    -------
    DataFrame
        sequence (row of `codes`), motif (index), start, end (0-based half-open), strand, score (bits),
        copy (0 for the best one); sorted by sequence and start.
    """
    tables = []
    rows = max(1, _BASES // max(codes.shape[1], 1))
    for first in range(0, len(codes), rows):
        for m, motif in enumerate(motifs):
            found = _hits_of(codes[first : first + rows], motif, m, p_value, copies)
            tables += [each.assign(sequence=each["sequence"] + first) for each in found]
    hits = pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(HIT_COLUMNS))
    return hits.sort_values(["sequence", "start"], ignore_index=True)


def _hits_of(codes: NDArray[np.uint8], motif: Motif, m: int, p_value: float, copies: int) -> list[pd.DataFrame]:
    """Best hits of one motif, next best, and so on."""
    pwm = log_odds(motif.ppm)
    forward, reverse = scan(codes, pwm), scan(codes, pwm[::-1, ::-1])
    if forward.shape[1] == 0:
        return []
    least, score = score_threshold(pwm, p_value), np.maximum(forward, reverse)
    rows, found = np.arange(len(codes)), []
    for copy in range(copies):
        start = score[rows].argmax(1)
        hit = score[rows, start] >= least
        rows, start = rows[hit], start[hit]
        strand = np.where(forward[rows, start] >= reverse[rows, start], "+", "-")
        found.append(_hit_table(rows, m, start, start + motif.width, strand, score[rows, start], copy))
        near = start[:, None] + np.arange(1 - motif.width, motif.width)
        score[rows[:, None], near.clip(0, score.shape[1] - 1)] = -np.inf
    return found


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
    """Pairs of hits in one sequence that share no token: of different motifs, and of the two best of one motif.

    Parameters
    ----------
    margin_bp : int
        How far beyond a site an edit of it changes stem features (flank and half of the receptive field).
    token_bp : int
        Bases per token. With disjoint tokens the two sites can meet in attention only.

    Returns
    -------
    DataFrame
        sequence, hit_a, hit_b (rows of `hits`), motif_a <= motif_b, gap_bp.
    """
    sites = hits.reset_index(names="hit")[["sequence", "hit", "motif", "start", "end", "copy"]]
    best = sites[sites["copy"] == 0]
    pairs = best.merge(best, on="sequence", suffixes=("_a", "_b"))
    pairs = pairs[pairs.motif_a < pairs.motif_b]
    again = sites[sites["copy"] == 1]
    if len(again):
        twice = best.merge(again, on=["sequence", "motif"], suffixes=("_a", "_b"))
        twice = twice.assign(motif_a=twice["motif"], motif_b=twice.pop("motif"))
        pairs = pd.concat([pairs, twice[pairs.columns]], ignore_index=True)
    gap = np.maximum(pairs.start_b - pairs.end_a, pairs.start_a - pairs.end_b)
    (first_a, last_a), (first_b, last_b) = (
        ((pairs[f"start_{s}"] - margin_bp) // token_bp, (pairs[f"end_{s}"] - 1 + margin_bp) // token_bp) for s in "ab"
    )
    pairs = pairs.assign(gap_bp=gap)[(last_a < first_b) | (last_b < first_a)]
    return pairs[["sequence", "hit_a", "hit_b", "motif_a", "motif_b", "gap_bp"]].reset_index(drop=True)


def _hit_table(
    sequence: NDArray, motif: int, start: NDArray, end: NDArray, strand: NDArray, score: NDArray, copy: int = 0
) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "sequence": sequence, "motif": motif, "start": start, "end": end, "strand": strand, "score": score,
            "copy": copy,
        }
    )  # fmt: skip
