"""Motifs that are over-represented in one set of short windows: enriched seeds refined by expectation-maximisation."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bioattn.data import alphabet
from bioattn.data.motif import log_odds, ppm_from_counts, scan, trim

_SEED_BP = 6
_SEEDS_TRIED = 3
_ITERATIONS = 25
#: A window counts as a site if the motif is in it with more than this probability.
_SITE_PROBABILITY = 0.5


@dataclass(frozen=True)
class Discovered:
    """A discovered motif: trimmed probabilities (A, W), and the number of windows that hold it."""

    ppm: NDArray[np.float64]
    n_sites: int


def discover(
    windows: NDArray[np.uint8], controls: NDArray[np.uint8], *, width: int, n_motifs: int, both_strands: bool = True
) -> list[Discovered]:
    """Motifs of `windows` that `controls` do not have, strongest seed first.

    Each motif starts from the hexamer (either strand) whose presence differs most
    and is refined by EM with zero or one occurrence per window; found sites are
    masked before the next one is sought.

    Parameters
    ----------
    windows, controls : ndarray, uint8, shapes (N, L) and (M, L)
        Codes; the letter frequencies of `controls` are the background.
    width : int
        Width before weak flanks are trimmed, in bp.
    n_motifs : int
        Most motifs returned; fewer if no seed is left or a motif has fewer than 10 sites.
    both_strands : bool
        Whether a site may lie on the other strand.

    Source: Bailey & Elkan 1994 (ZOOPS model).
    """
    windows = windows.copy()
    frequency = np.bincount(controls.ravel(), minlength=6)[: alphabet.N_LETTERS] + 1.0
    background = frequency / frequency.sum()
    found: list[Discovered] = []
    while len(found) < n_motifs and windows.shape[1] >= width:
        seeds = _enriched_seeds(windows, controls, both_strands)
        fits = [_refine(windows, _seed_ppm(seed, width), background, both_strands) for seed in seeds]
        if not fits:
            break
        _, ppm, site = max(fits, key=lambda fit: fit[0])
        holds = site.sum((1, 2)) > _SITE_PROBABILITY
        if holds.sum() < 10:
            break
        found.append(Discovered(ppm[:, trim(ppm)], int(holds.sum())))
        _mask(windows, site, holds, width)
    return found


def _enriched_seeds(
    windows: NDArray[np.uint8], controls: NDArray[np.uint8], both_strands: bool
) -> list[NDArray[np.intp]]:
    """Hexamers, as letters (k,), more often present in windows than in controls; most significant first."""
    n, m = len(windows), len(controls)
    inside, outside = (_presence(w, both_strands).sum(0) for w in (windows, controls))
    pooled = (inside + outside + 1) / (n + m + 2)
    z = (inside / n - outside / m) / np.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    best = np.argsort(-z)[:_SEEDS_TRIED]
    digits = alphabet.N_LETTERS ** np.arange(_SEED_BP - 1, -1, -1)
    return [(code // digits) % alphabet.N_LETTERS for code in best if z[code] > 0]


def _presence(windows: NDArray[np.uint8], both_strands: bool) -> NDArray[np.bool_]:
    """Which hexamer is in which window (N, 4^k); on both strands it goes by the smaller code of the two."""
    letters = np.lib.stride_tricks.sliding_window_view(windows, _SEED_BP, axis=1).astype(np.int64)
    known = (letters < alphabet.N_LETTERS).all(-1)
    digits = alphabet.N_LETTERS ** np.arange(_SEED_BP - 1, -1, -1)
    code = letters @ digits
    if both_strands:
        code = np.minimum(code, (3 - letters[..., ::-1]) @ digits)
    present = np.zeros((len(windows), alphabet.N_LETTERS**_SEED_BP), dtype=bool)
    row = np.broadcast_to(np.arange(len(windows))[:, None], code.shape)
    present[row[known], code[known]] = True
    return present


def _seed_ppm(seed: NDArray[np.intp], width: int) -> NDArray[np.float64]:
    """Probabilities (A, width) with the seed in the middle and flat flanks."""
    ppm = np.full((alphabet.N_LETTERS, width), 0.25)
    start = max((width - len(seed)) // 2, 0)
    for i, letter in enumerate(seed[:width]):
        ppm[:, start + i] = 0.1
        ppm[letter, start + i] = 0.7
    return ppm


def _refine(
    windows: NDArray[np.uint8], ppm: NDArray[np.float64], background: NDArray[np.float64], both_strands: bool
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """Log likelihood ratio to the background, probabilities, and site posteriors (N, strands, starts)."""
    width = ppm.shape[1]
    letters = alphabet.one_hot(windows).astype(np.float64)
    n_starts = windows.shape[1] - width + 1
    share = 0.5
    for _ in range(_ITERATIONS):
        strands = [ppm, ppm[::-1, ::-1]] if both_strands else [ppm]
        scores = [scan(windows, log_odds(p, background=background) * np.log(2)) for p in strands]
        weight = share / (len(strands) * n_starts) * np.exp(np.stack(scores, axis=1))
        evidence = weight.sum((1, 2)) + 1 - share
        site = weight / evidence[:, None, None]
        share = float(np.clip(site.sum() / len(windows), 0.01, 0.99))
        counts = [_site_counts(letters, site[:, i], width) for i in range(len(strands))]
        ppm = ppm_from_counts(counts[0] + counts[1][::-1, ::-1] if both_strands else counts[0])
    return float(np.log(evidence).sum()), ppm, site


def _site_counts(letters: NDArray[np.float64], site: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Expected letter counts (A, W) of sites whose starts have the probabilities `site` (N, starts)."""
    n_starts = site.shape[1]
    return np.stack([np.einsum("ns,nas->a", site, letters[:, :, w : w + n_starts]) for w in range(width)], axis=1)


def _mask(windows: NDArray[np.uint8], site: NDArray[np.float64], holds: NDArray[np.bool_], width: int) -> None:
    """Hide the best site of each window that holds one, in place."""
    start = site.max(1).argmax(1)
    for i in np.flatnonzero(holds):
        windows[i, start[i] : start[i] + width] = alphabet.UNKNOWN
