"""Single and double knock-outs of motif sites in real sequences, with and without the attention edge between them.

For each pair instance four cells share one sequence and one draw of replacements:
both sites, one, the other, neither. All four are evaluated with attention intact
and with the edge between the sites cut; a control locus of the same width takes
the part of the second site, and a moved edge at the same distance that of the edge.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from bioattn import rng
from bioattn.causal.edge_knockout import edges_between, matched_shift, rows_with_scores, strand_interval, tail_with_cut
from bioattn.data import alphabet
from bioattn.data.replacement import FLANK_BP, replace_sites
from bioattn.explain.predict import batches
from bioattn.models import SequenceModel

#: Cells of one instance: 1 = site present, 0 = replaced; first the site of a, then of b; c = control locus replaced.
CELLS = ("y11", "y10", "y01", "y00", "y1c", "y0c")
#: Cells that are also evaluated with the edge between the sites cut.
CUT_CELLS = ("y11", "y10", "y01", "y00")


def choose_instances(instances: pd.DataFrame, pairs: set[tuple[int, int]], *, most: int, seed: int) -> pd.DataFrame:
    """At most `most` random instances of each chosen pair, the same for every model of a run."""
    chosen = []
    for pair, rows in instances.groupby(["motif_a", "motif_b"]):
        if pair in pairs:
            draw = rng.stream(seed, "instances", *pair)
            take = rows.index if len(rows) <= most else draw.choice(rows.index, most, replace=False)
            chosen.append(rows.loc[np.sort(take)])
    return pd.concat(chosen, ignore_index=True) if chosen else instances.iloc[:0]


def knock_out(
    model: SequenceModel,
    codes: NDArray[np.uint8],
    hits: pd.DataFrame,
    instances: pd.DataFrame,
    pwms: Sequence[NDArray[np.float64]],
    *,
    occupied: pd.DataFrame,
    flank_bp: int,
    draws: int,
    readout: int,
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> pd.DataFrame:
    """Readouts of all cells of all pair instances.

    Parameters
    ----------
    codes : ndarray, uint8, shape (N, L)
    hits, instances : DataFrame
        On the rows of `codes` (see `bioattn.explain.hits`).
    pwms : sequence of ndarray (A, W)
        Library that replacements must be free of, in the order of motif indices.
    occupied : DataFrame
        sequence, start, end of what the control locus must avoid.
    flank_bp : int
        Bases on either side that are replaced with a site.
    draws : int
        Replacements drawn for each instance.
    readout : int
        Index of the readout, on the pre-link scale.
    progress : callable, optional
        Called with the number of draws done and to do.

    Returns
    -------
    DataFrame
        One row per instance and draw: instance, draw, sequence, motif_a, motif_b,
        the `CELLS`, the `CUT_CELLS` with suffix "_cut", `y11_moved` (the moved
        edge cut; NaN if there is no room), `clean` (replacements free of motifs).
    """
    site_a, site_b = (
        hits.loc[instances[c], ["start", "end", "motif"]].to_numpy().astype(int).T for c in ("hit_a", "hit_b")
    )
    x11 = codes[instances["sequence"].to_numpy()]
    length = (x11 != alphabet.PAD).sum(1)
    # Apart by more than this, two edits touch no token in common.
    clear_bp = 2 * (flank_bp + model.receptive_field_bp // 2) + model.token_bp
    tables = []
    for d in range(draws):
        draw = rng.stream(seed, "replacements", d)
        control = _control_locus(occupied, instances, site_a, site_b, length, clear_bp, draw)
        absent = np.full(len(x11), -1)
        without_a, without_b, without_c = (
            replace_sites(x11, start, end, own, pwms, flank_bp=flank_bp, rng=draw)
            for start, end, own in (site_a, site_b, (*control, absent))
        )
        cells = {
            "y11": x11,
            "y10": without_b.codes,
            "y01": without_a.codes,
            "y00": _merge(without_a.codes, without_b.codes, x11),
            "y1c": without_c.codes,
            "y0c": _merge(without_a.codes, without_c.codes, x11),
        }
        shift = matched_shift(*site_a[:2], *site_b[:2], length=length, token_bp=model.token_bp, rng=draw)
        table = instances[["sequence", "motif_a", "motif_b"]].assign(instance=np.arange(len(instances)), draw=d)
        for name, values in _evaluate(model, cells, site_a[:2], site_b[:2], shift, length, readout).items():
            table[name] = values
        table["clean"] = without_a.clean & without_b.clean & without_c.clean
        tables.append(table)
        if progress is not None:
            progress(d + 1, draws)
    return pd.concat(tables, ignore_index=True)


def _merge(first: NDArray[np.uint8], second: NDArray[np.uint8], original: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Both replacements in one sequence: wherever the second one changed a letter, its letter."""
    return np.where(second != original, second, first)


def _control_locus(
    occupied: pd.DataFrame,
    instances: pd.DataFrame,
    site_a: NDArray[np.int_],
    site_b: NDArray[np.int_],
    length: NDArray[np.int_],
    gap_bp: int,
    draw: np.random.Generator,
) -> NDArray[np.int_]:
    """Random interval (2, N) as wide as b that touches nothing occupied and is `gap_bp` from a and b.

    Without room, the interval that comes closest to that.
    """
    n = len(instances)
    taken = np.zeros((n, int(length.max()) + 1))
    row_of = pd.DataFrame({"sequence": instances["sequence"].to_numpy(), "row": np.arange(n)})
    at = row_of.merge(occupied[["sequence", "start", "end"]], on="sequence")
    row = np.concatenate([at["row"], np.arange(n), np.arange(n)])
    margin = np.concatenate([np.full(len(at), 2 * FLANK_BP), np.full(2 * n, gap_bp)])
    start = np.concatenate([at["start"], site_a[0], site_b[0]]) - margin
    end = np.concatenate([at["end"], site_a[1], site_b[1]]) + margin
    np.add.at(taken, (row, np.maximum(start, 0)), 1)
    np.add.at(taken, (row, np.minimum(end, taken.shape[1] - 1)), -1)
    # Bases taken, then bases taken before each position.
    before = np.concatenate([np.zeros((n, 1)), taken.cumsum(1)[:, :-1].cumsum(1)], axis=1)
    width = site_b[1] - site_b[0]
    chosen = np.zeros(n, dtype=int)
    for i in range(n):
        last = length[i] - width[i]
        cost = before[i, width[i] : last + width[i] + 1] - before[i, : last + 1]
        chosen[i] = draw.choice(np.flatnonzero(cost == cost.min()))
    return np.stack([chosen, chosen + width])


@torch.inference_mode()
def _evaluate(
    model: SequenceModel,
    cells: dict[str, NDArray[np.uint8]],
    site_a: NDArray[np.int_],
    site_b: NDArray[np.int_],
    shift: NDArray[np.float64],
    length: NDArray[np.int_],
    readout: int,
) -> dict[str, NDArray[np.float64]]:
    """Readout of every cell, with attention intact and cut, averaged over the strands that the model reads."""
    device = next(model.parameters()).device
    n = len(length)
    names = [*CELLS, *(f"{c}_cut" for c in CUT_CELLS), "y11_moved"]
    result = {name: np.zeros(n) for name in names}
    strands = 2 if model.average_strands else 1
    n_tokens = -(-cells["y11"].shape[1] // model.token_bp)
    moved = np.nan_to_num(shift).astype(int)
    for reverse in range(strands):
        a = strand_interval(site_a, length, reverse=bool(reverse))
        b = strand_interval(site_b, length, reverse=bool(reverse))
        move = -moved if reverse else moved
        first = 0
        size = rows_with_scores(model, n_tokens)
        by_cell = {name: batches(codes, size) for name, codes in cells.items()}
        for k in range(len(by_cell["y11"])):
            rows = slice(first, first + len(by_cell["y11"][k]))
            first = rows.stop
            spans = [a[0][rows], a[1][rows], b[0][rows], b[1][rows]]
            edges = edges_between(*spans, n_tokens=n_tokens, token_bp=model.token_bp)
            for name in CELLS:
                hidden, keep = model.embed(model.strands(by_cell[name][k].to(device))[reverse])
                result[name][rows] += model.tail(hidden, keep)[:, readout].double().cpu().numpy()
                if name in CUT_CELLS:
                    cut = tail_with_cut(model, hidden, keep, torch.from_numpy(edges))
                    result[f"{name}_cut"][rows] += cut[:, readout].double().cpu().numpy()
                if name == "y11":
                    spans = [s + move[rows] for s in spans]
                    elsewhere = edges_between(*spans, n_tokens=n_tokens, token_bp=model.token_bp)
                    cut = tail_with_cut(model, hidden, keep, torch.from_numpy(elsewhere))
                    result["y11_moved"][rows] += cut[:, readout].double().cpu().numpy()
    result = {name: values / strands for name, values in result.items()}
    result["y11_moved"][np.isnan(shift)] = np.nan
    return result
