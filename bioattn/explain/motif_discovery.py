"""Motifs that are over-represented in one set of short windows: enriched seeds refined by expectation-maximisation."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bioattn.data import alphabet
from bioattn.data.motif import best_correlation, information, log_odds, ppm_from_counts, scan, trim

_SEED_BP = 6
_SEEDS_TRIED = 3
_ITERATIONS = 25
#: Columns by which a motif may grow on either side, and the information that makes it grow.
_FLANK_BP, _FLANK_BITS = 6, 0.25
#: A window counts as a site if the motif is in it with more than this probability.
_SITE_PROBABILITY = 0.5
_FEWEST_SITES = 10
#: Sites score so high that of as many controls at most this share, relative to the sites, do.
_CONTROL_SHARE, _SHARPENINGS = 0.25, 5
#: Each of two motifs that lie on each other has at least this share of the sites, and they correlate less than this.
_LEAST_PART, _ALIKE = 0.15, 0.8


@dataclass(frozen=True)
class Discovered:
    """A discovered motif and its sites.

    Attributes
    ----------
    ppm : ndarray, shape (A, W)
        Trimmed probabilities.
    window : ndarray, int64, shape (S,)
        Windows that hold it.
    start : ndarray, int64, shape (S,)
        First base of the site in its window.
    reverse : ndarray, bool, shape (S,)
        Whether the site is on the other strand.
    """

    ppm: NDArray[np.float64]
    window: NDArray[np.int64]
    start: NDArray[np.int64]
    reverse: NDArray[np.bool_]

    @property
    def n_sites(self) -> int:
        """Number of windows that hold it."""
        return len(self.window)


def discover(
    windows: NDArray[np.uint8], controls: NDArray[np.uint8], *, width: int, n_motifs: int, both_strands: bool = True
) -> list[Discovered]:
    """Motifs of `windows` that `controls` do not have, strongest seed first.

    Each motif starts from the hexamer (either strand) whose presence differs most
    and is refined by EM with zero or one occurrence per window, then by those sites that
    score beyond what controls have; found sites are masked before the next one is sought.

    Parameters
    ----------
    windows, controls : ndarray, uint8, shapes (N, L) and (M, L)
        Codes; the letter frequencies of `controls` are the background.
    width : int
        Width that is sought, in bp. A motif grows beyond it while its flanks carry information,
        and weak flanks are trimmed.
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
        wider = _widened(windows, site, width)
        if wider.shape[1] > width:
            _, ppm, site = _refine(windows, wider, background, both_strands)
        sites = _sites_beyond(windows, controls, ppm, both_strands)
        if sites is None:
            holds = np.flatnonzero(site.sum((1, 2)) > _SITE_PROBABILITY)
            strand, start = np.divmod(site.reshape(len(site), -1).argmax(1)[holds], site.shape[2])
        else:
            ppm, holds, strand, start = sites
        if len(holds) < _FEWEST_SITES:
            break
        cut = _cut(windows, holds, strand, start, ppm.shape[1])
        if (larger := larger_part(cut)) is not None:
            # As they are: what scores beyond controls by this matrix would bring the other motif's sites back.
            ppm, holds, strand, start = _ppm_of(cut[larger]), holds[larger], strand[larger], start[larger]
        kept = trim(ppm)
        windows[holds[:, None], start[:, None] + np.arange(ppm.shape[1])] = alphabet.UNKNOWN
        first = np.where(strand == 1, start + ppm.shape[1] - kept.stop, start + kept.start)
        found.append(Discovered(ppm[:, kept], holds, first, strand == 1))
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


def _sites_beyond(
    windows: NDArray[np.uint8], controls: NDArray[np.uint8], ppm: NDArray[np.float64], both_strands: bool
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]] | None:
    """Probabilities of sites that score beyond what controls have, their windows, strands and starts; None if too few.

    Where few windows hold a motif, expectation-maximisation finds its best place in the
    others too, and they wash it out.
    """
    width, sites = ppm.shape[1], None
    for _ in range(_SHARPENINGS):
        pwm = log_odds(ppm)
        # A constant for all places without unknown bases, which then score as a random base does on average. As the
        # background they would score zero, more than most controls, and masked sites would be sites of every motif.
        pwm -= pwm.mean(0)
        pwms = [pwm, pwm[::-1, ::-1]] if both_strands else [pwm]
        scores = np.stack([scan(windows, one) for one in pwms], axis=1)
        best = scores.max((1, 2))
        theirs = np.sort(np.stack([scan(controls, one) for one in pwms], axis=1).max((1, 2)))
        order = np.argsort(-best, kind="stable")
        beyond = 1 + len(theirs) - np.searchsorted(theirs, best[order], side="left")
        rate = beyond * len(windows) / len(controls) / np.arange(1, len(windows) + 1)
        n = int(np.flatnonzero(rate <= _CONTROL_SHARE)[-1]) + 1 if (rate <= _CONTROL_SHARE).any() else 0
        if n < _FEWEST_SITES:
            return sites
        holds = np.sort(order[:n])
        strand, start = np.divmod(scores[holds].reshape(n, -1).argmax(1), scores.shape[2])
        ppm = _ppm_of(_cut(windows, holds, strand, start, width))
        sites = ppm, holds, strand, start
    return sites


def _cut(
    windows: NDArray[np.uint8],
    holds: NDArray[np.int64],
    strand: NDArray[np.int64],
    start: NDArray[np.int64],
    width: int,
) -> NDArray[np.uint8]:
    """Sites (S, width) of some windows, on their own strand."""
    cut = windows[holds[:, None], start[:, None] + np.arange(width)]
    return np.where((strand == 1)[:, None], alphabet.reverse_complement_codes(cut), cut)


def _ppm_of(sites: NDArray[np.uint8]) -> NDArray[np.float64]:
    return ppm_from_counts(np.stack([(sites == letter).sum(0) for letter in range(alphabet.N_LETTERS)]))


def larger_part(sites: NDArray[np.uint8]) -> NDArray[np.bool_] | None:
    """Which sites are of the larger of two motifs that lie on each other; None if all are of one motif.

    Motifs that share a core, as GTTAATNATTAAC and CCAATCAG do, are one to
    expectation-maximisation if both are frequent. A mixture of two matrices is fitted to the sites, from a
    start for each letter that some have and some have not. They are two motifs if that is
    much more likely, and the matrices do not resemble each other. Columns of a real
    motif depend on each other too, so both is asked for.

    Parameters
    ----------
    sites : ndarray, uint8, shape (S, W)
        Codes of aligned sites.
    """
    n, width = sites.shape
    letters = alphabet.one_hot(sites).transpose(0, 2, 1).reshape(n, -1).astype(np.float64)

    def log_likelihood(weight: NDArray[np.float64]) -> NDArray[np.float64]:
        counts = (weight @ letters).reshape(width, -1).T
        scores: NDArray[np.float64] = letters @ np.log(ppm_from_counts(counts)).T.ravel()
        return scores + np.log(weight.sum() / n)

    best, first = -np.inf, np.ones(n)
    frequency = letters.mean(0)
    for column in np.flatnonzero((frequency >= _LEAST_PART) & (frequency <= 1 - _LEAST_PART)):
        weight = np.where(letters[:, column] == 1, 0.9, 0.1)
        for _ in range(_ITERATIONS):
            one, other = log_likelihood(weight), log_likelihood(1 - weight)
            total = np.logaddexp(one, other)
            weight = np.clip(np.exp(one - total), 1e-6, 1 - 1e-6)
        if total.sum() > best:
            best, first = float(total.sum()), weight
    # Bayesian information criterion of a second matrix and a share, twice.
    needed = 2 * (3 * width + 1) * np.log(max(n, 1))
    if 2 * (best - log_likelihood(np.ones(n)).sum()) <= needed:
        return None
    small, large = sorted((first >= 0.5, first < 0.5), key=lambda part: int(part.sum()))
    one_motif = best_correlation(_ppm_of(sites[small]), _ppm_of(sites[large])) >= _ALIKE
    return None if small.mean() < _LEAST_PART or one_motif else large


def _site_counts(letters: NDArray[np.float64], site: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Expected letter counts (A, W) of sites whose starts have the probabilities `site` (N, starts)."""
    n_starts = site.shape[1]
    return np.stack([np.einsum("ns,nas->a", site, letters[:, :, w : w + n_starts]) for w in range(width)], axis=1)


def _widened(windows: NDArray[np.uint8], site: NDArray[np.float64], width: int) -> NDArray[np.float64]:
    """Probabilities around the sites, with the columns of the flanks up to the last one that carries information.

    A motif wider than what was sought is found by its core; its flanks stand beside the sites.
    """
    strand, start = np.divmod(site.reshape(len(site), -1).argmax(1), site.shape[2])
    flank = min(_FLANK_BP, windows.shape[1] - width)
    beside = np.full((len(windows), windows.shape[1] + 2 * flank), alphabet.UNKNOWN, dtype=np.uint8)
    beside[:, flank : flank + windows.shape[1]] = windows
    cut = beside[np.arange(len(windows))[:, None], start[:, None] + np.arange(width + 2 * flank)]
    cut = np.where((strand == 1)[:, None], alphabet.reverse_complement_codes(cut), cut)
    weight = site.sum((1, 2))
    counts = np.stack([(weight[:, None] * (cut == letter)).sum(0) for letter in range(alphabet.N_LETTERS)])
    ppm = ppm_from_counts(counts)
    # Few sites have windows that reach so far: their columns say little.
    known = counts.sum(0) >= _FEWEST_SITES
    strong = np.flatnonzero(known & (information(ppm) >= _FLANK_BITS))
    left = min([flank, *strong[:1]])
    right = max([flank + width, *(strong[-1:] + 1)])
    # No wider than what leaves a site some places in its window.
    while right - left > max(width, windows.shape[1] * 2 // 3):
        left, right = (left + 1, right) if flank - left > right - flank - width else (left, right - 1)
    return ppm[:, left:right]
