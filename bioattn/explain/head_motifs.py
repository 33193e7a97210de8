"""A motif for every attention head: what stands where a head looks.

Received attention of each token is compared with its expectation from shuffled
sequences at the same place. The window that a head looks at most in each sequence
is searched for a motif; the motif is then tested on held-out sequences, against
random windows of the same sequences. This says what a head looks at. Whether the
prediction depends on the head is measured by ablating it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import false_discovery_control, fisher_exact

from bioattn import rng
from bioattn.config import ExplainConfig
from bioattn.data import alphabet
from bioattn.data.edits import dinucleotide_shuffle_codes
from bioattn.data.motif import Motif, information, log_odds, scan, scan_both_strands, score_threshold
from bioattn.explain.motif_discovery import discover
from bioattn.explain.naming import name_motifs
from bioattn.explain.predict import batches
from bioattn.models import SequenceModel
from bioattn.nn import taps
from bioattn.nn.observe import BATCH, attention_sums
from bioattn.tokens.base import to_bases

#: A window holds the motif if a random window scores as high with at most this probability.
_HOLDS_P_VALUE = 1e-3
#: Share of the variance of received attention that position explains, above which a head is positional.
_POSITIONAL = 0.5
_BOOTSTRAP = 1000


@dataclass(frozen=True)
class HeadMotifs:
    """What every head looks at.

    Attributes
    ----------
    table : DataFrame
        One row per layer, head and motif: see `head_motifs`.
    motifs : list of Motif
        The discovered motifs, in the order of the table's rows that have one.
    positions : DataFrame
        layer, head, position, received and background attention. Where every sequence
        has its tokens at the same places: one row per token, position being its first
        base, and 1 = uniform. For learned words: one row per base, with the base's share
        of what its token receives, so that a sequence's bases sum up to its tokens.
    """

    table: pd.DataFrame
    motifs: list[Motif]
    positions: pd.DataFrame


def head_motifs(
    model: SequenceModel,
    discovery: NDArray[np.uint8],
    held_out: NDArray[np.uint8],
    config: ExplainConfig,
    *,
    library: Sequence[Motif] = (),
    readout: int = 0,
    seed: int = 0,
) -> HeadMotifs:
    """Motif, enrichment and importance of every attention head.

    Parameters
    ----------
    discovery, held_out : ndarray, uint8, shapes (N, L) and (M, L)
        Codes of sequences in which motifs are found, and of others in which they are tested.
    library : sequence of Motif
        Motifs to name the discovered ones after; may be empty.

    Returns
    -------
    HeadMotifs
        Columns of the table: layer, head, motif (number within the head), kind
        ("motif" if enriched at q < 0.05 on held-out sequences, "positional" if
        position explains most of what it receives, else "diffuse"), n_windows,
        n_sites, consensus, information_bits, enrichment_log2, p_value (Fisher),
        q_value (BH over all motifs), matches, ablation_effect (root mean square
        change of the readout when the head's output is replaced by its mean) with
        a bootstrap interval, note.
    """
    found_in, tested_in = _received(model, discovery), _received(model, held_out)
    background = _background(model, discovery, rng.stream(seed, "heads", "shuffle"))
    by_place = found_in.profile
    ablation = [ablate_head(model, held_out, *head, readout=readout, seed=seed) for head in _heads(model)]
    rows, ppms = [], []
    for c, (layer, head) in enumerate(_heads(model)):
        draw = rng.stream(seed, "heads", layer, head)
        windows, controls = _windows(discovery, found_in.excess(c, background), found_in.centre, config, draw)
        test, test_controls = _windows(held_out, tested_in.excess(c, background), tested_in.centre, config, draw)
        common = {
            "layer": layer,
            "head": head,
            "n_windows": len(windows),
            **dict(zip(("ablation_effect", "ablation_ci_low", "ablation_ci_high"), ablation[c], strict=True)),
            "positional_share": _positional_share(by_place[:, c]),
        }
        motifs = []
        if len(windows) >= config.min_windows:
            motifs = discover(
                windows,
                controls,
                width=config.motif_width_bp,
                n_motifs=config.motifs_per_head,
                both_strands=config.both_strands,
            )
        for number, motif in enumerate(motifs):
            ppms.append(motif.ppm)
            enrichment, p = _enrichment(motif.ppm, test, test_controls, config.both_strands)
            rows.append(
                common
                | {
                    "motif": number,
                    "n_sites": motif.n_sites,
                    "consensus": "".join(alphabet.LETTERS[i] for i in motif.ppm.argmax(0)),
                    "information_bits": information(motif.ppm).sum(),
                    "enrichment_log2": enrichment,
                    "p_value": p,
                    "note": "",
                }
            )
        if not motifs:
            few = len(windows) < config.min_windows
            note = f"too few windows (n = {len(windows)})" if few else "no motif with at least 10 sites"
            rows.append(common | {"motif": -1, "n_sites": 0, "consensus": "", "p_value": np.nan, "note": note})
    table = _finish(pd.DataFrame(rows), ppms, library, config)
    return HeadMotifs(table, _named(table, ppms), _position_table(by_place, background, found_in.places, model))


def _heads(model: SequenceModel) -> list[tuple[int, int]]:
    return [(layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)]


def received_attention(model: SequenceModel, codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Attention that each token receives, mean over queries times the number of tokens: 1 = uniform.

    Returns
    -------
    ndarray, float32, shape (N, C, t)
        C = layer * n_heads + head; NaN at padding. Only these sums are kept, never the patterns of all sequences.
    """
    parts = [
        attention_sums(model, batch).received.flatten(1, 2)[..., model.n_prefix :] for batch in batches(codes, BATCH)
    ]
    return _stacked(parts, float("nan")).numpy()


class _Received(NamedTuple):
    """Attention that tokens receive, and where they lie.

    Attributes
    ----------
    values : ndarray, float32, shape (N, C, t)
        See `received_attention`.
    start, end : ndarray, int64, shape (N, t)
        Spans of the tokens.
    centre : ndarray, int64, shape (N, t)
        Base in the middle of each token.
    on_grid : bool
        Whether token t lies at the same place in every sequence.
    length : int
        Bases of the longest sequence.
    """

    values: NDArray[np.float32]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    centre: NDArray[np.int64]
    on_grid: bool
    length: int

    @property
    def profile(self) -> NDArray[np.float32]:
        """What each place receives, (N, C, places), NaN at padding: each token of a grid, else each base's share."""
        if self.on_grid:
            return self.values
        values, start, end = map(torch.from_numpy, (np.nan_to_num(self.values), self.start, self.end))
        bases = to_bases(values, start, end, self.length).numpy()
        beyond = np.arange(self.length) >= self.end.max(1)[:, None]
        return np.where(beyond[:, None], np.nan, bases)

    @property
    def places(self) -> NDArray[np.int64]:
        """First base of each place of the profile."""
        return self.start.max(0) if self.on_grid else np.arange(self.length)

    def excess(self, c: int, background: NDArray[np.float32]) -> NDArray[np.float32]:
        """What the tokens (N, t) of head C = c receive more than expected where they lie.

        `background` (C, places) is the mean profile of sequences without motifs; beyond
        the longest of them nothing is known, and the excess is NaN.
        """
        n_places = self.values.shape[-1] if self.on_grid else self.length
        expected = np.full(n_places, np.nan, dtype=np.float32)
        expected[: background.shape[1]] = background[c, :n_places]
        if self.on_grid:
            return self.values[:, c] - expected
        before = np.concatenate([[0.0], expected.cumsum(dtype=np.float64)])
        return (self.values[:, c] - (before[self.end] - before[self.start])).astype(np.float32)


def _received(model: SequenceModel, codes: NDArray[np.uint8]) -> _Received:
    spans = [model.token_spans(batch) for batch in batches(codes, BATCH)]
    start, end = (_stacked([span[i] for span in spans], 0).numpy() for i in (0, 1))
    on_grid = model.tokenizer is None or model.tokenizer.on_grid
    width = end - start
    if on_grid:  # the last token may be cut; its middle is that of a whole one
        width = np.where(width > 0, width.max(initial=0), 0)
    return _Received(received_attention(model, codes), start, end, start + width // 2, on_grid, codes.shape[1])


def _stacked(parts: Sequence[torch.Tensor], filler: float) -> torch.Tensor:
    """Batches one below the other; of learned words their last axis differs in length."""
    widest = max(part.shape[-1] for part in parts)
    return torch.cat([torch.nn.functional.pad(part, (0, widest - part.shape[-1]), value=filler) for part in parts])


def _background(model: SequenceModel, codes: NDArray[np.uint8], draw: np.random.Generator) -> NDArray[np.float32]:
    """Received attention (C, places) expected at each place, from dinucleotide shuffles of the sequences."""
    shuffled = codes.copy()
    lengths = (codes != alphabet.PAD).sum(1)
    for length in np.unique(lengths):
        rows = np.flatnonzero(lengths == length)
        shuffled[rows, :length] = dinucleotide_shuffle_codes(codes[rows, :length], draw)
    return np.nanmean(_received(model, shuffled).profile, axis=0)


def _windows(
    codes: NDArray[np.uint8],
    excess: NDArray[np.float32],
    centre: NDArray[np.int64],
    config: ExplainConfig,
    draw: np.random.Generator,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Most attended window of each of the most attended sequences, and as many random windows elsewhere."""
    length = (codes != alphabet.PAD).sum(1)
    usable = np.flatnonzero(length >= config.window_bp)
    if len(usable) == 0:
        empty = np.empty((0, config.window_bp), dtype=np.uint8)
        return empty, empty
    peak = np.nanargmax(excess[usable], axis=1)
    height = excess[usable, peak]
    order = np.argsort(-height, kind="stable")[: config.windows_per_head]
    rows, peak = usable[order], peak[order]
    last = length[rows] - config.window_bp
    start = np.clip(centre[rows, peak] - config.window_bp // 2, 0, last)
    # Elsewhere: at least half a window away where the sequence has room for that.
    shift = draw.integers(
        config.window_bp // 2, np.maximum(last + 2 - config.window_bp // 2, config.window_bp // 2 + 1)
    )
    other = (start + shift) % (last + 1)
    offset = np.arange(config.window_bp)
    return codes[rows[:, None], start[:, None] + offset], codes[rows[:, None], other[:, None] + offset]


def _enrichment(
    ppm: NDArray[np.float64], windows: NDArray[np.uint8], controls: NDArray[np.uint8], both_strands: bool
) -> tuple[float, float]:
    """Log2 odds ratio of windows holding the motif against controls, and Fisher's one-sided p."""
    pwm = log_odds(ppm)
    threshold = score_threshold(pwm, _HOLDS_P_VALUE)
    if len(windows) == 0 or windows.shape[1] < pwm.shape[1]:
        return float("nan"), float("nan")
    search = scan_both_strands if both_strands else scan
    held, held_control = (int((search(w, pwm).max(1) >= threshold).sum()) for w in (windows, controls))
    n, m = len(windows), len(controls)
    odds = (held + 0.5) * (m - held_control + 0.5) / ((n - held + 0.5) * (held_control + 0.5))
    p = fisher_exact([[held, n - held], [held_control, m - held_control]], alternative="greater").pvalue
    return float(np.log2(odds)), float(p)


@torch.inference_mode()
def ablate_head(
    model: SequenceModel, codes: NDArray[np.uint8], layer: int, head: int, *, readout: int = 0, seed: int = 0
) -> tuple[float, float, float]:
    """Root mean square change of a readout when a head's output is replaced by its mean, with a 95 % interval.

    The mean is over the tokens of the given sequences; the interval is a bootstrap over sequences.
    """
    name = f"layer.{layer}.attn.head_output"
    device = next(model.parameters()).device
    tokens = [batch.to(device) for batch in batches(codes)]
    total, count = torch.zeros((), device=device), 0
    before = []
    with taps.record(model, [name]) as store:
        for batch in tokens:
            before.append(model.one_strand(batch)[:, readout])
            output_BQC = store[name][:, head, model.n_prefix :]
            keep = model.real_tokens(batch)
            total = total + (output_BQC * keep[..., None]).sum((0, 1))
            count += int(keep.sum())
    with taps.edit(model, {name: taps.replace(total / count, np.s_[:, head])}):
        after = [model.one_strand(batch)[:, readout] for batch in tokens]
    squared = (torch.cat(after) - torch.cat(before)).double().square().cpu().numpy()
    draw = rng.stream(seed, "heads", "ablation", layer, head)
    weight = draw.multinomial(len(squared), np.full(len(squared), 1 / len(squared)), _BOOTSTRAP) / len(squared)
    low, high = np.quantile(np.sqrt(weight @ squared), [0.025, 0.975])
    return float(np.sqrt(squared.mean())), float(low), float(high)


def _positional_share(received: NDArray[np.float32]) -> float:
    """Share of the variance of received attention (N, places) that the place explains."""
    total = np.nanvar(received)
    return float(np.nanvar(np.nanmean(received, axis=0)) / total) if total > 0 else 0.0


def _finish(
    table: pd.DataFrame, ppms: list[NDArray[np.float64]], library: Sequence[Motif], config: ExplainConfig
) -> pd.DataFrame:
    """Table with q-values, kinds and matches."""
    tested = table["p_value"].notna()
    table["q_value"] = np.nan
    if tested.any():
        table.loc[tested, "q_value"] = false_discovery_control(table.loc[tested, "p_value"])
    enriched = table["q_value"] < 0.05
    positional = table["positional_share"] > _POSITIONAL
    table["kind"] = np.where(positional, "positional", np.where(enriched, "motif", "diffuse"))
    table["matches"] = ""
    has_motif = table.index[table["motif"] >= 0]
    names = name_motifs(ppms, library, q_value=config.match_q_value)
    table.loc[has_motif, "matches"] = ["; ".join(map(str, found)) for found in names]
    table["logo"] = ""
    table.loc[has_motif, "logo"] = [f"logos/{name}.svg" for name in _identifiers(table.loc[has_motif])]
    columns = (
        "layer", "head", "motif", "kind", "n_windows", "n_sites", "consensus", "information_bits", "enrichment_log2",
        "p_value", "q_value", "matches", "ablation_effect", "ablation_ci_low", "ablation_ci_high", "positional_share",
        "logo", "note",
    )  # fmt: skip
    return table.reindex(columns=list(columns))


def _identifiers(rows: pd.DataFrame) -> list[str]:
    return [f"layer{r.layer}_head{r.head}_motif{r.motif}" for r in rows.itertuples()]


def _named(table: pd.DataFrame, ppms: list[NDArray[np.float64]]) -> list[Motif]:
    rows = table[table["motif"] >= 0]
    return [
        Motif(consensus, name, ppm)
        for consensus, name, ppm in zip(rows["consensus"], _identifiers(rows), ppms, strict=True)
    ]


def _position_table(
    received: NDArray[np.float32], background: NDArray[np.float32], places: NDArray[np.int64], model: SequenceModel
) -> pd.DataFrame:
    mean = np.nanmean(received, axis=0)
    tables = [
        pd.DataFrame(
            {
                "layer": layer,
                "head": head,
                "position": places,
                "received": mean[c],
                "background": background[c],
            }
        )
        for c, (layer, head) in enumerate(_heads(model))
    ]
    return pd.concat(tables, ignore_index=True)
