"""Motifs of attention heads: sought in their seqlets, tested on held-out sequences."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import fisher_exact

from bioattn import rng
from bioattn.config import ExplainConfig
from bioattn.data import alphabet
from bioattn.data.motif import best_correlation, information, log_odds, scan, scan_both_strands, score_threshold
from bioattn.explain.attribution import input_x_gradient
from bioattn.explain.head_ablation import Head, heads_of
from bioattn.explain.motif_discovery import Discovered, discover
from bioattn.explain.readers import distance_quantiles, distance_table, reader_middles, reading
from bioattn.explain.seqlets import Peaks, Threshold, Windows, find_peaks, threshold, windows_at, windows_elsewhere
from bioattn.explain.tracks import (
    HeadTracks,
    Places,
    by_place,
    expectation,
    head_tracks,
    mean_over_sequences,
    shuffled,
    token_places,
)
from bioattn.models import SequenceModel

#: A window holds the motif if a random window scores as high with at most this probability.
_HOLDS_P_VALUE = 1e-3
#: Motifs of one head that correlate as much are one.
_SAME_MOTIF = 0.8
#: A matrix with less information in all tells sites from chance sequence by its composition only.
_LEAST_BITS = 6.0
#: Seqlets of a motif whose readers are looked at.
_READ_SEQLETS = 200
_TRACKS = ("received", "gradient")
#: Tracks that vary less, as a share of their scale, have only rounding in them, which may go by place.
_ROUNDING = 1e-5


class _Looked(NamedTuple):
    """Some sequences as the heads see them: tracks (N, C, t) beyond their expectation."""

    codes: NDArray[np.uint8]
    places: Places
    received: NDArray[np.float32]
    excess: dict[str, NDArray[np.float32]]


@dataclass(frozen=True)
class HeadMotif:
    """A motif of a head, and how it fared in held-out sequences.

    Attributes
    ----------
    number : int
        Within its head, the most enriched first.
    track : str
        Where its seqlets come from.
    found : Discovered
        Matrix, and which window holds it where.
    peaks, start : Peaks and ndarray, int64, shape (S,)
        Seqlets in which it was found, and the first base of their windows.
    enrichment, p_value : float
        See `Search.head`.
    held_out : Windows
        Seqlets of held-out sequences that hold it.
    """

    layer: int
    head: int
    number: int
    track: str
    found: Discovered
    peaks: Peaks
    start: NDArray[np.int64]
    enrichment: float
    p_value: float
    held_out: Windows

    @property
    def ppm(self) -> NDArray[np.float64]:
        return self.found.ppm

    @property
    def name(self) -> str:
        return f"layer{self.layer}_head{self.head}_motif{self.number}"

    @property
    def consensus(self) -> str:
        return consensus_of(self.ppm)


class Details(NamedTuple):
    """What else is known of a motif.

    Attributes
    ----------
    cwm : ndarray, float64, shape (A, W)
        Mean contribution of each letter at its sites.
    seqlets : DataFrame
        layer, head, motif, sequence, start, end, strand, score: its sites in the discovery sequences.
    readers : Readers
    held_out_sites : Windows
        Its sites in the seqlets of held-out sequences.
    """

    cwm: NDArray[np.float64]
    seqlets: pd.DataFrame
    readers: "Readers"
    held_out_sites: Windows


class Readers(NamedTuple):
    """What reads a motif.

    Attributes
    ----------
    ppm : ndarray (A, W) or None
        What stands around the tokens that read it most; None if nothing in particular.
    p_value : float
        Of that, in readers it was not found in.
    distance : tuple of float
        Median and interquartile range of seqlet minus reader, in bp.
    distances : DataFrame
        layer, head, motif, distance_bp, share, expected.
    """

    ppm: NDArray[np.float64] | None
    p_value: float
    distance: tuple[float, float]
    distances: pd.DataFrame


@dataclass(frozen=True)
class HeadFound:
    """What was found in one head.

    Attributes
    ----------
    seqlets : dict of str to Threshold
        By track: how many peaks count as seqlets, and their false discovery rate.
    positional_share : float
        Share of the variance of received attention that the places explain. Their means are
        taken from shuffled sequences, since in real ones a place may always hold the same
        letters; the variance is that in real ones, since shuffles hold few of the motifs.
    motifs : list of HeadMotif
        Those that differ, the most enriched first.
    tested : list of float
        P-values of all that were tested, these and others.
    """

    layer: int
    head: int
    seqlets: dict[str, Threshold]
    positional_share: float
    motifs: list[HeadMotif]
    tested: list[float]


class Search:
    """Motifs of the heads of a model in some sequences, tested on others."""

    def __init__(
        self,
        model: SequenceModel,
        discovery: NDArray[np.uint8],
        held_out: NDArray[np.uint8],
        config: ExplainConfig,
        *,
        readout: int,
        seed: int,
    ) -> None:
        self.model, self.config, self.readout, self.seed = model, config, readout, seed
        self.null = shuffled(discovery, seed, "heads", "shuffle")
        background = head_tracks(model, self.null, readout=readout)
        places = token_places(model, self.null)
        self.expected = {kind: expectation(_track(background, kind), self.null, places) for kind in _TRACKS}
        self.shuffle = self._looked(self.null, background)
        tracks = head_tracks(model, discovery, readout=readout)
        self.found_in = self._looked(discovery, tracks)
        self._contribution = self._contributions(tracks)
        self.tested_in = self._looked(held_out, head_tracks(model, held_out, readout=readout))
        null = shuffled(held_out, seed, "heads", "shuffle", "held-out")
        self.test_shuffle = self._looked(null, head_tracks(model, null, readout=readout))
        self.by_place = by_place(self.found_in.received, self.found_in.places)
        self.null_by_place = by_place(self.shuffle.received, self.shuffle.places)

    def _looked(self, codes: NDArray[np.uint8], tracks: HeadTracks) -> _Looked:
        places = token_places(self.model, codes)
        excess = {kind: self.expected[kind].excess(_track(tracks, kind), codes, places) for kind in _TRACKS}
        # What a reading does counts, whichever way it goes.
        excess["gradient"] = np.abs(excess["gradient"])
        return _Looked(codes, places, tracks.received, excess)

    @cached_property
    def _varies(self) -> dict[str, NDArray[np.bool_]]:
        """Which heads' tracks vary beyond rounding; of others the first token would be the peak of every sequence."""
        spread = {kind: np.nanstd(excess, axis=(0, 2)) for kind, excess in self.found_in.excess.items()}
        # Received attention is 1 on average; the other track has the units of the readout.
        scale = {"received": 1.0, "gradient": spread["gradient"].max()}
        return {kind: sd > _ROUNDING * scale[kind] for kind, sd in spread.items()}

    def _contributions(self, tracks: HeadTracks) -> NDArray[np.float32]:
        """Contribution of each base (N, L): by its gradient, or of words, its share of what the heads' reading does."""
        codes = self.found_in.codes
        if self.model.tokenizer is None:
            slopes = input_x_gradient(self.model, codes, readout=self.readout)
            return np.nan_to_num(slopes * alphabet.one_hot(codes)).sum(1)
        places = self.found_in.places._replace(on_grid=False)
        return np.nan_to_num(by_place(_track(tracks, "gradient"), places)).sum(1)

    def positions(self) -> pd.DataFrame:
        """Received attention of every place, and its background."""
        mean = mean_over_sequences(self.by_place)
        profile = self.expected["received"].profile
        background = np.full_like(mean, np.nan)
        background[:, : profile.shape[1]] = profile[:, : mean.shape[1]]
        tables = [
            pd.DataFrame(
                {
                    "layer": layer,
                    "head": head,
                    "position": self.found_in.places.first,
                    "received": mean[c],
                    "background": background[c],
                }
            )
            for c, (layer, head) in enumerate(heads_of(self.model))
        ]
        return pd.concat(tables, ignore_index=True)

    def head(self, layer: int, head: int) -> HeadFound:
        """Motifs of one head, from both of its tracks, the most enriched first.

        enrichment (log2 odds ratio) and p_value (Fisher) of a motif are of the weaker of
        two comparisons, see `_enrichment`.
        """
        c = layer * self.model.n_heads + head
        candidates: list[HeadMotif] = []
        seqlets = {}
        for kind in _TRACKS:
            seqlets[kind], peaks = self._seqlets(c, kind)
            candidates += self._candidates(c, kind, seqlets[kind].score, peaks, (layer, head))
        kept: list[HeadMotif] = []
        for candidate in sorted(candidates, key=lambda one: (one.p_value, -one.found.n_sites)):
            if all(best_correlation(candidate.ppm, other.ppm) < _SAME_MOTIF for other in kept):
                kept.append(replace(candidate, number=len(kept)))
        positional = _positional_share(self.by_place[:, c], self.null_by_place[:, c])
        tested = [candidate.p_value for candidate in candidates]
        return HeadFound(layer, head, seqlets, positional, kept[: self.config.motifs_per_head], tested)

    def _seqlets(self, c: int, kind: str) -> tuple[Threshold, Peaks]:
        """Which peaks of a head are seqlets, and the highest of them."""
        peaks, null = (self._peaks(part, c, kind) for part in (self.found_in, self.shuffle))
        share = len(self.found_in.codes) / len(self.shuffle.codes)
        fdr, fewest, most = self.config.seqlet_fdr, self.config.min_seqlets, self.config.seqlets_per_head
        found = threshold(peaks.score, null.score, share=share, fdr=fdr, fewest=fewest, most=most)
        return found, peaks.take(slice(min(found.n, most)))

    def _peaks(self, part: _Looked, c: int, kind: str) -> Peaks:
        track = part.excess[kind][:, c]
        if not self._varies[kind][c]:
            track = np.full_like(track, np.nan)
        found = find_peaks(track, part.places.centre, apart_bp=self.config.window_bp)
        length = (part.codes != alphabet.PAD).sum(1)
        return found.take(np.flatnonzero(length[found.row] >= self.config.window_bp))

    def _candidates(self, c: int, kind: str, least: float, peaks: Peaks, head: Head) -> Iterator[HeadMotif]:
        if len(peaks.row) < self.config.min_seqlets:
            return
        draw = rng.stream(self.seed, "heads", *head, kind)
        windows = self._windows(self.found_in, peaks)
        controls = windows_elsewhere(self.found_in.codes, windows, draw)
        for found in discover(
            windows.codes,
            controls.codes,
            width=self.config.motif_width_bp,
            n_motifs=self.config.motifs_per_head,
            both_strands=self.config.both_strands,
        ):
            if information(found.ppm).sum() < _LEAST_BITS:
                continue
            enrichment, p_value, held = self._enrichment(c, kind, least, found.ppm)
            yield HeadMotif(*head, 0, kind, found, peaks, windows.start, enrichment, p_value, held)

    def _windows(self, part: _Looked, peaks: Peaks) -> Windows:
        return windows_at(part.codes, peaks.row, part.places.centre[peaks.row, peaks.token], self.config.window_bp)

    def _enrichment(self, c: int, kind: str, least: float, ppm: NDArray[np.float64]) -> tuple[float, float, Windows]:
        """Log2 odds ratio and p of a motif in held-out seqlets, the weaker of two comparisons, and those that hold it.

        Against windows elsewhere in the same sequences, since a head that marks half of
        every sequence marks the motif too; and of sequences with such a seqlet against
        shuffled ones, since a head may read composition, which the shuffles keep.
        """
        real, null = (self._held_seqlets(part, c, kind, least, ppm) for part in (self.tested_in, self.test_shuffle))
        elsewhere = windows_elsewhere(
            self.tested_in.codes, real.windows, rng.stream(self.seed, "heads", "elsewhere", c, kind)
        )
        control = int(_holds(elsewhere.codes, ppm, self.config.both_strands).sum())
        n = len(real.holds)
        beside = _odds(int(real.holds.sum()), n, control, n)
        shuffles = _odds(real.n_sequences, len(self.tested_in.codes), null.n_sequences, len(self.test_shuffle.codes))
        # Without a held-out seqlet there is nothing to test, and nothing is enriched.
        tests = [(odds, p) if np.isfinite(p) else (0.0, 1.0) for odds, p in (beside, shuffles)]
        return *max(tests, key=lambda odds_and_p: odds_and_p[1]), real.windows.take(real.holds)

    def _held_seqlets(self, part: _Looked, c: int, kind: str, least: float, ppm: NDArray[np.float64]) -> "_Held":
        peaks = self._peaks(part, c, kind)
        windows = self._windows(part, peaks.take(peaks.score >= least))
        holds = _holds(windows.codes, ppm, self.config.both_strands)
        return _Held(windows, holds, len(np.unique(windows.row[holds])))

    def details(self, motif: HeadMotif) -> Details:
        """Contributions, sites and readers of a motif."""
        found, peaks = motif.found, motif.peaks
        row = peaks.row[found.window]
        start = motif.start[found.window] + found.start
        seqlets = pd.DataFrame(
            _where(motif)
            | {
                "sequence": row,
                "start": start,
                "end": start + found.ppm.shape[1],
                "strand": np.where(found.reverse, "-", "+"),
                "score": peaks.score[found.window],
            }
        )
        return Details(
            self._cwm(row, start, found.reverse, found.ppm.shape[1]),
            seqlets,
            self._readers(motif),
            _sites(motif.held_out, found.ppm, self.config.both_strands),
        )

    def _cwm(
        self, row: NDArray[np.int64], start: NDArray[np.int64], reverse: NDArray[np.bool_], width: int
    ) -> NDArray[np.float64]:
        """Mean contribution of each letter (A, W) over sites, on their own strand."""
        index = start[:, None] + np.arange(width)
        letters = alphabet.one_hot(self.found_in.codes[row[:, None], index])
        weighted = letters * self._contribution[row[:, None], index][:, None]
        return np.where(reverse[:, None, None], weighted[:, ::-1, ::-1], weighted).mean(0).astype(np.float64)

    def _readers(self, motif: HeadMotif) -> Readers:
        part, config, layer, head = self.found_in, self.config, motif.layer, motif.head
        peaks = motif.peaks.take(motif.found.window[:_READ_SEQLETS])
        seen = reading(self.model, part.codes, part.places.centre, part.places.real, peaks, layer=layer, head=head)
        low, middle, high = distance_quantiles(seen)
        step = int(np.median(part.places.end[part.places.real] - part.places.start[part.places.real]))
        distances = distance_table(seen, bin_bp=max(step, 1)).assign(**_where(motif))
        distances = distances[["layer", "head", "motif", "distance_bp", "share", "expected"]]
        # One reader of each sequence, where one token may read several seqlets: half of them show a motif, the others
        # test it.
        first = np.sort(np.unique(seen.row, return_index=True)[1])
        windows = windows_at(part.codes, seen.row, reader_middles(seen, part.codes), config.window_bp).take(first)
        controls = windows_elsewhere(part.codes, windows, rng.stream(self.seed, "heads", layer, head, "readers"))
        shows, tests = slice(0, None, 2), slice(1, None, 2)
        found = []
        n = len(windows.codes[tests])
        if n >= config.min_seqlets:
            found = discover(
                windows.codes[shows], controls.codes[shows], width=config.motif_width_bp, n_motifs=1,
                both_strands=config.both_strands,
            )  # fmt: skip
        if not found:
            return Readers(None, float("nan"), (middle, high - low), distances)
        held = [int(_holds(w.codes[tests], found[0].ppm, config.both_strands).sum()) for w in (windows, controls)]
        return Readers(found[0].ppm, _odds(held[0], n, held[1], n)[1], (middle, high - low), distances)


class _Held(NamedTuple):
    """Seqlets of some sequences, which of them hold a motif, and how many sequences have one that does."""

    windows: Windows
    holds: NDArray[np.bool_]
    n_sequences: int


def _where(motif: HeadMotif) -> dict[str, int]:
    return {"layer": motif.layer, "head": motif.head, "motif": motif.number}


def _track(tracks: HeadTracks, kind: str) -> NDArray[np.float32]:
    track: NDArray[np.float32] = getattr(tracks, kind)
    return track


def _holds(windows: NDArray[np.uint8], ppm: NDArray[np.float64], both_strands: bool) -> NDArray[np.bool_]:
    """Which windows hold the motif."""
    pwm = log_odds(ppm)
    if not len(windows) or windows.shape[1] < pwm.shape[1]:
        return np.zeros(len(windows), dtype=bool)
    search = scan_both_strands if both_strands else scan
    held: NDArray[np.bool_] = search(windows, pwm).max(1) >= score_threshold(pwm, _HOLDS_P_VALUE)
    return held


def _sites(windows: Windows, ppm: NDArray[np.float64], both_strands: bool) -> Windows:
    """The best site of the motif in each window."""
    search, width = scan_both_strands if both_strands else scan, ppm.shape[1]
    if not len(windows.row):
        return Windows(windows.codes[:, :width], windows.row, windows.start)
    offset = search(windows.codes, log_odds(ppm)).argmax(1)
    codes = windows.codes[np.arange(len(offset))[:, None], offset[:, None] + np.arange(width)]
    return Windows(codes, windows.row, windows.start + offset)


def _odds(held: int, n: int, held_control: int, m: int) -> tuple[float, float]:
    """Log2 odds ratio and Fisher's one-sided p of `held` of n against `held_control` of m."""
    if not n or not m:
        return float("nan"), float("nan")
    odds = (held + 0.5) * (m - held_control + 0.5) / ((n - held + 0.5) * (held_control + 0.5))
    p = fisher_exact([[held, n - held], [held_control, m - held_control]], alternative="greater").pvalue
    return float(np.log2(odds)), float(p)


def _positional_share(received: NDArray[np.float32], null: NDArray[np.float32]) -> float:
    """Share of the variance of received attention (N, places) that the places explain, as they do in shuffles."""
    total = np.nanvar(received)
    return min(float(np.nanvar(mean_over_sequences(null)) / total), 1.0) if total > _ROUNDING**2 else 0.0


def consensus_of(ppm: NDArray[np.float64]) -> str:
    return "".join(alphabet.LETTERS[i] for i in ppm.argmax(0))
