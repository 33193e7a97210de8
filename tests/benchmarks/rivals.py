"""Motifs from a trained model in ways that others published, written anew from their descriptions.

All take a model and codes of sequences, and return position probability matrices (A, W), those with most sites first.
Thresholds are the defaults of the authors' scripts.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import false_discovery_control, hypergeom

from bioattn.data import alphabet
from bioattn.data.motif import ppm_from_counts
from bioattn.explain.attribution import input_x_gradient
from bioattn.explain.ism import ism
from bioattn.explain.predict import batches
from bioattn.models import SequenceModel
from bioattn.nn.observe import attention_rows

Codes = NDArray[np.uint8]
Floats = NDArray[np.float64]
#: Sequences per forward pass.
BATCH = 128

# ------------------------------------------------------------------------ patterns


def last_patterns(model: SequenceModel, codes: Codes) -> Floats:
    """Patterns (N, H, t, t) of the last layer, in float64 as DNABERT's script keeps them; without prefix tokens."""
    n_tokens = -(-codes.shape[1] // model.token_bp)
    kept = np.zeros((len(codes), model.n_heads, n_tokens, n_tokens))
    queries = torch.arange(n_tokens) + model.n_prefix
    first = 0
    for batch in batches(codes, BATCH):
        rows = attention_rows(model, batch, model.n_layers - 1, None, queries)[..., model.n_prefix :]
        kept[first : first + len(batch)] = rows.numpy()
        first += len(batch)
    return kept


def base_scores(patterns: Floats, token_bp: int, length: int) -> Floats:
    """What every base (N, L) receives: heads added up, mean over queries, each base with its token's value.

    Without a CLS token there is no row that stands for the sequence, so all queries do. Each
    sequence's scores are brought to unit norm, as in the script.
    """
    received = patterns.sum(1).mean(1)
    scores = np.repeat(received, token_bp, axis=1)[:, :length]
    norm = np.linalg.norm(scores, axis=1, keepdims=True)
    return scores / np.where(norm > 0, norm, 1)


# ------------------------------------------------------------------------- DNABERT


class Region(NamedTuple):
    """A stretch of high attention: row of the sequence, first base, and the one after the last."""

    row: int
    start: int
    end: int


def high_attention(scores: NDArray[np.floating], *, least_bp: int) -> list[Region]:
    """Stretches of at least `least_bp` bases above the sequence's mean and above ten times its minimum."""
    high = (scores > scores.mean(1, keepdims=True)) & (scores > 10 * scores.min(1, keepdims=True))
    edges = np.diff(np.pad(high, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    starts, ends = np.argwhere(edges == 1), np.argwhere(edges == -1)
    # Rows come in order, and within a row the n-th start belongs to the n-th end.
    return [
        Region(int(row), int(start), int(end))
        for (row, start), (_, end) in zip(starts, ends, strict=True)
        if end - start >= least_bp
    ]


def word_q_values(words: Sequence[str], positives: Sequence[str], negatives: Sequence[str]) -> Floats:
    """BH-adjusted hypergeometric p of each word: sequences that hold it, among positives against all."""
    n, n_positive = len(positives) + len(negatives), len(positives)
    p_values = []
    for word in words:
        held = sum(word in text for text in positives)
        everywhere = held + sum(word in text for text in negatives)
        p_values.append(hypergeom.sf(held - 1, n, n_positive, everywhere))
    return false_discovery_control(np.clip(p_values, 0, 1)) if p_values else np.zeros(0)


def best_offset(word: str, other: str) -> tuple[int, int]:
    """Most letters that agree when `word` is laid on `other` without gaps, and where in `other` it then begins."""
    found = []
    for offset in range(1 - len(word), len(other)):
        low, high = max(0, offset), min(len(other), offset + len(word))
        found.append((sum(word[i - offset] == other[i] for i in range(low, high)), offset))
    return max(found, key=lambda pair: (pair[0], -abs(pair[1])))


def merged_words(words: Iterable[str], *, least_bp: int) -> dict[str, list[tuple[str, int]]]:
    """Words by the group they belong to, each with the place in the group's word where it begins.

    From short to long, a word joins the group it agrees with most, if in at least `least_bp` - 1 letters and half of
    the shorter word, and else makes a group of its own. Ties go to the first group; the
    script can also add a word to all of them.
    """
    groups: dict[str, list[tuple[str, int]]] = {}
    for word in sorted(words, key=lambda one: (len(one), one)):
        best: tuple[int, int, str] | None = None
        for name in groups:
            agreeing, offset = best_offset(word, name)
            enough = max(least_bp - 1, 0.5 * min(len(word), len(name)))
            if agreeing >= enough and (best is None or agreeing > best[0]):
                best = agreeing, offset, name
        if best is None:
            groups[word] = [(word, 0)]
        else:
            groups[best[2]].append((word, best[1]))
    return groups


def dnabert_motifs_of_scores(
    scores: NDArray[np.floating],
    codes: Codes,
    positive: NDArray[np.bool_],
    *,
    least_bp: int = 5,
    window_bp: int = 24,
    q_value: float = 0.005,
    least_sites: int = 3,
) -> list[Floats]:
    """Motifs of scores (N, L) of bases; see `dnabert_motifs`."""
    texts = [alphabet.decode(row) for row in codes]
    chosen = np.flatnonzero(positive)
    by_word: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for region in high_attention(scores[chosen], least_bp=least_bp):
        row = int(chosen[region.row])
        by_word[texts[row][region.start : region.end]].append((row, region.start))
    words = sorted(by_word)
    q = word_q_values(words, [texts[i] for i in chosen], [texts[i] for i in np.flatnonzero(~positive)])
    passed = [word for word, value in zip(words, q, strict=True) if value < q_value]
    found = []
    for name, members in merged_words(passed, least_bp=least_bp).items():
        starts = np.array([(row, start - offset) for word, offset in members for row, start in by_word[word]])
        first = starts[:, 1] - (window_bp - len(name)) // 2
        inside = (first >= 0) & (first + window_bp <= codes.shape[1])
        windows = codes[starts[inside, 0][:, None], first[inside][:, None] + np.arange(window_bp)]
        if len(windows) >= least_sites:
            found.append((len(windows), _ppm(windows)))
    return [ppm for _, ppm in sorted(found, key=lambda each: -each[0])]


def dnabert_motifs(model: SequenceModel, codes: Codes, positive: NDArray[np.bool_]) -> list[Floats]:
    """Motif search of DNABERT-viz: stretches of high attention whose words are over-represented in positives.

    Attention of the last layer, summed over heads, gives each base a score. Of the positive
    sequences, stretches of at least 5 bases above mean and above ten times the minimum
    are taken; their words are kept if a hypergeometric test of positives against negatives
    gives an adjusted p below 0.005 (in the same sequences); similar words are merged by
    alignment without gaps; windows of 24 bp around at least 3 places give a matrix.

    What had to be chosen: there the CLS token's row gives the scores, and tokens overlap;
    here there is no CLS token, so all queries stand for it, and all bases of a token share
    its score. The task is a regression, so positives are what the caller calls so.

    Parameters
    ----------
    positive : ndarray, bool, shape (N,)

    Source: Ji et al. 2021, Bioinformatics 37:2112, section on DNABERT-viz.
    """
    return dnabert_motifs_of_scores(
        base_scores(last_patterns(model, codes), model.token_bp, codes.shape[1]), codes, positive
    )


# -------------------------------------------------------------------------- SATORI


def satori_motifs(model: SequenceModel, codes: Codes, positive: NDArray[np.bool_]) -> list[Floats]:
    """Motifs of the filters of the first convolution that attention joins with another one, as SATORI reads a model.

    In positive sequences, the bases under a filter are a site where it is as active as
    `active_bases` says; filters with at least 10 sites have a motif. Two filters are joined if
    in some sequence and some head of the last layer (its maximum over heads) a token
    with a site of one reads another token with a site of the other with at least 0.04.
    Without a background, which is the default there, no test of the pair follows.

    Parameters
    ----------
    positive : ndarray, bool, shape (N,)

    Source: Ullah & Ben-Hur 2021, Nucleic Acids Research 49:e77.
    """
    codes = codes[positive]
    active = active_bases(filter_outputs(model, codes))
    strongest = last_patterns(model, codes).max(1)
    kept = joined_filters(active, strongest, model.token_bp)
    return motifs_of_sites(active[:, kept], codes, width=model.stem.filters.kernel_size[0])


def active_bases(outputs: NDArray[np.floating], *, share: float = 0.65) -> NDArray[np.bool_]:
    """Where a filter's output (N, F, L) is above its mean by `share` of what its maximum is."""
    mean = outputs.mean((0, 2), keepdims=True)
    return outputs > mean + share * (outputs.max((0, 2), keepdims=True) - mean)


def joined_filters(
    active: NDArray[np.bool_], attention: NDArray[np.floating], token_bp: int, *, least_attention: float = 0.04
) -> NDArray[np.bool_]:
    """Which filters (F,) stand at a token that reads, or is read by, another token with another filter."""
    n, n_filters, length = active.shape
    n_tokens = attention.shape[1]
    padded = np.pad(active, ((0, 0), (0, 0), (0, n_tokens * token_bp - length)))
    at_token = padded.reshape(n, n_filters, n_tokens, token_bp).any(3).astype(np.float32)
    reads = (attention >= least_attention).astype(np.float32)
    reads[:, np.arange(n_tokens), np.arange(n_tokens)] = 0
    pairs = sum(here @ read @ here.T for here, read in zip(at_token, reads, strict=True)) > 0
    pairs[np.arange(n_filters), np.arange(n_filters)] = False
    joined: NDArray[np.bool_] = (pairs | pairs.T).any(1)
    return joined


def motifs_of_sites(active: NDArray[np.bool_], codes: Codes, *, width: int, least_sites: int = 10) -> list[Floats]:
    """Motifs of filters whose middle is at the active bases (N, F, L); sites that leave the sequence do not count."""
    found = []
    for f in range(active.shape[1]):
        row, middle = np.nonzero(active[:, f])
        first = middle - width // 2
        inside = (first >= 0) & (first + width <= codes.shape[1])
        windows = codes[row[inside][:, None], first[inside][:, None] + np.arange(width)]
        if len(windows) >= least_sites:
            found.append(windows)
    return [_ppm(windows) for windows in sorted(found, key=len, reverse=True)]


@torch.inference_mode()
def filter_outputs(model: SequenceModel, codes: Codes) -> NDArray[np.float32]:
    """What every filter of the first convolution gives at every base, (N, F, L), after its activation (ReLU)."""
    found = []
    for batch in batches(codes, BATCH):
        x = torch.from_numpy(alphabet.one_hot(batch.numpy().astype(np.uint8)))
        found.append(torch.relu(model.stem.filters(x)))
    return torch.cat(found).numpy()


# ------------------------------------------------------------------------- MoDISco


def ism_scores(model: SequenceModel, codes: Codes) -> NDArray[np.float32]:
    """Hypothetical contributions (N, A, L) by saturation mutagenesis: effect of each letter less the letters' mean."""
    effect = ism(model, codes)
    return effect - effect.mean(1, keepdims=True)


def gradient_scores(model: SequenceModel, codes: Codes) -> NDArray[np.float32]:
    """Hypothetical contributions (N, A, L) by the gradient at the one-hot sequence, less its mean over letters."""
    return input_x_gradient(model, codes)


def modisco_motifs(scores: NDArray[np.float32], codes: Codes) -> list[Floats]:
    """Patterns of modisco-lite, of either sign, at its default settings.

    Source: Shrikumar et al. 2018, arXiv:1811.00416; the package modisco-lite.
    """
    from modiscolite.tfmodisco import TFMoDISco

    one_hot = alphabet.one_hot(codes).transpose(0, 2, 1).astype(np.float32)
    signs = TFMoDISco(one_hot, np.ascontiguousarray(scores.transpose(0, 2, 1), dtype=np.float32))
    patterns = sorted((one for sign in signs for one in sign or []), key=lambda one: len(one.seqlets), reverse=True)
    return [trimmed(np.asarray(one.sequence, dtype=np.float64).T, one.contrib_scores.T) for one in patterns]


def trimmed(ppm: Floats, contributions: Floats, *, share: float = 0.3) -> Floats:
    """The matrix (A, W) between the columns whose contributions reach `share` of the largest, as the report cuts it."""
    strength = np.abs(contributions).sum(0)
    strong = np.flatnonzero(strength >= share * strength.max())
    cut = ppm[:, strong[0] : strong[-1] + 1]
    return cut / cut.sum(0, keepdims=True)


def _ppm(windows: Codes) -> Floats:
    counts = np.stack([(windows == letter).sum(0) for letter in range(alphabet.N_LETTERS)])
    return ppm_from_counts(counts)
