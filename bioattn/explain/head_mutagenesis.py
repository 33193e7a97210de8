"""What flows through one head when bases change, and how well the cheap tracks of the heads say so."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import wilcoxon

from bioattn import rng
from bioattn.data import alphabet
from bioattn.data.weighted import interval
from bioattn.explain.faithfulness import spearman
from bioattn.explain.path_patching import Head, head_restricted_mutagenesis, through_heads
from bioattn.explain.seqlets import Windows, windows_elsewhere
from bioattn.explain.tracks import Places
from bioattn.models import SequenceModel

#: Draws of the bootstrap over sequences or sites.
_BOOTSTRAP = 500
#: Fewer positions of a sequence give no rank correlation, and fewer sites no test.
_FEWEST_POSITIONS, _FEWEST_SITES = 5, 10
TRACK_COLUMNS = (
    "layer", "head", "track", "spearman", "spearman_ci_low", "spearman_ci_high", "n_sequences", "n_positions", "note",
)  # fmt: skip


def judged_tracks(
    model: SequenceModel,
    codes: NDArray[np.uint8],
    tracks: Mapping[str, NDArray[np.float32]],
    places: Places,
    *,
    readout: int = 0,
    n_sequences: int = 20,
    n_positions: int = 15,
    seed: int = 0,
) -> pd.DataFrame:
    """Rank correlation of tracks with the size of what substitutions do through each head alone.

    In random sequences, one base of every chosen token is replaced by each other letter; the
    size of its effect through a head is the root mean square over the three. A third of the
    tokens is where some head's first track is highest, a third where the second is, the
    rest is random: most places of a sequence do nothing, and would only show ties.

    Parameters
    ----------
    codes : ndarray, uint8, shape (N, L)
    tracks : mapping of ndarray, shape (N, C, t)
        By name; larger should mean more.
    places : Places
        Of the tokens.
    n_sequences, n_positions : int
        Sequences, and at most so many positions in each.

    Returns
    -------
    DataFrame
        One row per head and track: layer, head, track, spearman (mean over sequences
        where it is defined, with a 95 % bootstrap interval over these), n_sequences (in
        which it is), n_positions (in all), note.
    """
    draw = rng.stream(seed, "heads", "mutagenesis")
    row = draw.permutation(len(codes))[:n_sequences]
    token = _chosen_tokens([track[row] for track in tracks.values()], places.real[row], n_positions, draw)
    bases = _bases(places, row, token, draw)
    heads = [(layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)]
    effect = head_restricted_mutagenesis(model, codes[row], heads, bases, readout=readout)
    # Of the four letters, one is the base itself and does nothing.
    size = np.sqrt((effect.astype(np.float64) ** 2).sum(-1) / (alphabet.N_LETTERS - 1))
    rows = []
    for c, (layer, head) in enumerate(heads):
        for name, track in tracks.items():
            values = np.take_along_axis(track[row, c], token.clip(min=0), axis=1)
            row_of = {"layer": layer, "head": head, "track": name}
            rows.append(row_of | _agreement(np.where(token < 0, np.nan, values), size[:, c], draw))
    return pd.DataFrame(rows, columns=list(TRACK_COLUMNS))


def _chosen_tokens(
    tracks: list[NDArray[np.float32]], real: NDArray[np.bool_], n: int, draw: np.random.Generator
) -> NDArray[np.int64]:
    """Tokens (N, n) of each sequence, each once; -1 where there are fewer."""
    n_tokens = tracks[0].shape[2]
    ranked = [_strongest(track) for track in tracks]
    chosen = np.full((len(real), n), -1)
    for i, there in enumerate(real[:, :n_tokens]):
        n_each = n // (len(ranked) + 1)
        high = [int(t) for order in ranked for t in order[i, :n_each]]
        rest = draw.permutation(n_tokens).tolist()
        kept = [t for t in dict.fromkeys([*high, *rest]) if there[t]][:n]
        chosen[i, : len(kept)] = kept
    return chosen


def _strongest(track: NDArray[np.float32]) -> NDArray[np.int64]:
    """Tokens (N, t) by the value of the head that gives most to them, in units of each head's spread."""
    sd = np.nanstd(track, axis=(0, 2), keepdims=True)
    highest = np.nan_to_num(track / np.where(sd > 0, sd, 1), nan=-np.inf).max(1)
    return np.argsort(-highest, axis=1, kind="stable")


def _bases(
    places: Places, row: NDArray[np.int64], token: NDArray[np.int64], draw: np.random.Generator
) -> NDArray[np.int64]:
    """A base of each token (N, K), -1 where there is none."""
    at = row[:, None], token.clip(min=0)
    start, end = places.start[at], places.end[at]
    base = start + (draw.random(token.shape) * (end - start)).astype(np.int64)
    return np.where(token < 0, -1, base)


def _agreement(
    values: NDArray[np.float32], size: NDArray[np.float64], draw: np.random.Generator
) -> dict[str, float | int | str]:
    """Mean rank correlation of values and sizes (N, K), over sequences."""
    known = np.isfinite(values) & np.isfinite(size)
    enough = known.sum(1) >= _FEWEST_POSITIONS
    found = np.array([spearman(v, s) if e else np.nan for v, s, e in zip(values, size, enough, strict=True)])
    defined = found[np.isfinite(found)]
    n = len(defined)
    note = "" if n else "substitutions do nothing through this head, or all alike"
    if not enough.any():
        note = f"fewer than {_FEWEST_POSITIONS} positions in every sequence whose tokens stay where they are"
    low, high = interval(defined[draw.integers(0, n, (_BOOTSTRAP, n))].mean(1)) if n > 1 else (np.nan, np.nan)
    return {
        "spearman": float(defined.mean()) if n else np.nan,
        "spearman_ci_low": low,
        "spearman_ci_high": high,
        "n_sequences": n,
        "n_positions": int(known[np.isfinite(found)].sum()),
        "note": note,
    }


def site_effect(
    model: SequenceModel,
    codes: NDArray[np.uint8],
    sites: Windows,
    head: Head,
    *,
    readout: int = 0,
    most_sites: int = 50,
    seed: int = 0,
) -> dict[str, Any]:
    """What the sites of a motif do to the readout through one head alone.

    Every base of a site is replaced by another one at random; the same is done at as many
    bases elsewhere in the same sequence.

    Parameters
    ----------
    sites : Windows
        In `codes` (N, L); the first `most_sites` are taken.

    Returns
    -------
    dict
        through_head: mean change of the readout that the sites make (intact less
        replaced), with a 95 % bootstrap interval over sites (through_head_ci_low,
        _ci_high); through_head_p_value: whether its size is larger than elsewhere
        (Wilcoxon's signed rank test, one-sided). NaN with fewer than 10 sites, or where
        tokens move.
    """
    names = ("through_head", "through_head_ci_low", "through_head_ci_high", "through_head_p_value")
    sites = sites.take(slice(most_sites))
    draw = rng.stream(seed, "heads", "site effect", *head)
    if len(sites.row) < _FEWEST_SITES:
        return dict.fromkeys(names, float("nan"))
    elsewhere = windows_elsewhere(codes, sites, draw)
    effects = []
    for windows in (sites, elsewhere):
        original, width = codes[windows.row], windows.codes.shape[1]
        index = np.arange(len(original))[:, None], windows.start[:, None] + np.arange(width)
        mutated = original.copy()
        known = windows.codes < alphabet.N_LETTERS
        other = (windows.codes + draw.integers(1, alphabet.N_LETTERS, windows.codes.shape)) % alphabet.N_LETTERS
        mutated[index] = np.where(known, other, windows.codes)
        effects.append(-through_heads(model, original, mutated, [head], readout=readout)[:, 0].astype(np.float64))
    both = np.isfinite(effects[0]) & np.isfinite(effects[1])
    here, there = (effect[both] for effect in effects)
    n = len(here)
    if n < _FEWEST_SITES:
        return dict.fromkeys(names, float("nan"))
    low, high = interval(here[draw.integers(0, n, (_BOOTSTRAP, n))].mean(1))
    beyond = np.abs(here) - np.abs(there)
    p_value = float(wilcoxon(beyond, alternative="greater").pvalue) if np.any(beyond) else 1.0
    return dict(zip(names, (float(here.mean()), low, high, p_value), strict=True))
