"""A motif for every attention head: what it reads, from where, and whether the prediction needs it.

Seqlets of a head are places that stand out beyond what place and composition make
of shuffled sequences. Motifs are sought in them and tested on held-out sequences,
against other places of these and against shuffled ones. A head counts as a reader of its
motif if it also matters: taking it away costs more than taking away the heads of
models with random weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import false_discovery_control

from bioattn import rng
from bioattn.config import ENRICHED_Q, ExplainConfig, TaskConfig
from bioattn.data import alphabet
from bioattn.data.motif import Motif, information
from bioattn.errors import DataError
from bioattn.explain.head_ablation import Scored, heads_of
from bioattn.explain.head_columns import CAUSAL_Q, COLUMNS
from bioattn.explain.head_mutagenesis import judged_tracks, site_effect
from bioattn.explain.head_search import Details, HeadFound, HeadMotif, Search, consensus_of
from bioattn.explain.head_worth import Worth
from bioattn.explain.motif_response import MotifResponses
from bioattn.explain.naming import name_motifs
from bioattn.explain.path_patching import Head
from bioattn.explain.sample import two_parts
from bioattn.models import SequenceModel

#: Share of the variance of attention received in shuffles that the place explains, above which a head is positional.
_POSITIONAL = 0.5
#: Backgrounds that a motif is put into, and other heads that are taken away for comparison.
_BACKGROUNDS = 100
_OTHER_HEADS = 3

_DISTANCE_COLUMNS = ("layer", "head", "motif", "distance_bp", "share", "expected")
_SEQLET_COLUMNS = ("layer", "head", "motif", "sequence", "start", "end", "strand", "score")


@dataclass(frozen=True)
class HeadMotifs:
    """What every head reads.

    Attributes
    ----------
    table : DataFrame
        One row per layer, head and motif: see `bioattn.explain.head_columns.COLUMNS`.
    motifs : list of Motif
        The discovered motifs (PPMs), in the order of the table's rows that have one.
    cwms, readers : dict of str to ndarray (A, W)
        By the motif's identifier: mean contribution of each letter at its sites, and
        PPM of what stands around the tokens that read it.
    positions : DataFrame
        layer, head, position, received and background attention. Where every sequence
        has its tokens at the same places: one row per token, position being its first
        base, and 1 = uniform. For learned words: one row per base, with the base's share
        of what its token receives, so that a sequence's bases sum up to its tokens.
    distances : DataFrame
        layer, head, motif, distance_bp (seqlet minus reader), share of the reading at this
        distance, and expected, if all tokens read alike.
    seqlets : DataFrame
        layer, head, motif, sequence (row of the given discovery sequences), start, end, strand, score.
    judged_tracks : DataFrame
        How well the tracks say what substitutions do through each head alone: see
        `bioattn.explain.head_mutagenesis.judged_tracks`.
    ablation : DataFrame
        See `bioattn.explain.head_ablation.ablate_heads`; empty without targets.
    similarity : ndarray, shape (C, C)
        See `bioattn.explain.head_similarity.head_similarity`.
    summary : dict
        n_heads, effective_heads, n_motifs (enriched), n_tested; with targets metric, n_scored,
        n_random_heads, and random_loss_q95, which 95 % of the latter stay below.
    """

    table: pd.DataFrame
    motifs: list[Motif]
    positions: pd.DataFrame
    cwms: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    readers: dict[str, NDArray[np.float64]] = field(default_factory=dict)
    distances: pd.DataFrame = field(default_factory=pd.DataFrame)
    seqlets: pd.DataFrame = field(default_factory=pd.DataFrame)
    judged_tracks: pd.DataFrame = field(default_factory=pd.DataFrame)
    ablation: pd.DataFrame = field(default_factory=pd.DataFrame)
    similarity: NDArray[np.float64] = field(default_factory=lambda: np.zeros((0, 0)))
    summary: dict[str, Any] = field(default_factory=dict)


def head_motifs(
    model: SequenceModel,
    discovery: NDArray[np.uint8] | Sequence[str],
    held_out: NDArray[np.uint8] | Sequence[str] | None = None,
    config: ExplainConfig | None = None,
    *,
    scored: Scored | None = None,
    task: TaskConfig | None = None,
    library: Sequence[Motif] = (),
    readout: int | None = None,
    seed: int = 0,
) -> HeadMotifs:
    """Motif, readers, enrichment and importance of every attention head.

    Parameters
    ----------
    discovery, held_out : ndarray, uint8, shapes (N, L) and (M, L), or sequences of str
        Sequences in which motifs are found, and others in which they are tested; without
        the latter a random half of the former is held out.
    scored : Scored, optional
        Held-out sequences with their targets (of `task`), for ablation. Without them
        nothing is said about whether a head matters: p_random is NaN and the verdict
        rests on enrichment and position.
    library : sequence of Motif
        Motifs to name the discovered ones after; may be empty.
    readout : int, optional
        By default the task's, or the first one.

    Returns
    -------
    HeadMotifs
        Columns of its table are defined in `bioattn.explain.head_columns.COLUMNS`.

    Raises
    ------
    DataError
        If there is no sequence, one is empty or of other letters, the model has no attention
        or no such readout, or targets do not fit the sequences or the task.
    """
    readout = _readout(readout, task)
    config = ExplainConfig() if config is None else config
    discovery, held_out, given = two_parts(discovery, held_out, seed)
    search = Search(model, discovery, held_out, config, readout=readout, seed=seed)
    found, q_values, kept = _enriched(search)
    details = {motif.name: search.details(motif) for motif in kept}
    worth = Worth.of(model, scored, task, discovery, seed)
    responses = MotifResponses(model, search.null[:_BACKGROUNDS], readout=readout, seed=seed)
    names = name_motifs([motif.ppm for motif in kept], library, q_value=config.match_q_value)
    columns = {
        motif.name: _motif_columns(motif, details[motif.name])
        | {"q_value": q_values[motif.p_value], "matches": "; ".join(map(str, named))}
        | _response_columns(motif, responses, seed)
        | site_effect(
            model, held_out, details[motif.name].held_out_sites, (motif.layer, motif.head), readout=readout, seed=seed
        )
        for motif, named in zip(kept, names, strict=True)
    }
    columns = _with_evidence(columns)
    readers = {name: each.readers.ppm for name, each in details.items()}
    return HeadMotifs(
        table=_table(found, columns, q_values, worth, config, _too_short(discovery, config)),
        motifs=[Motif(motif.consensus, motif.name, motif.ppm) for motif in kept],
        positions=search.positions(),
        cwms={name: each.cwm for name, each in details.items()},
        readers={name: ppm for name, ppm in readers.items() if ppm is not None},
        distances=_joined([each.readers.distances for each in details.values()], _DISTANCE_COLUMNS),
        seqlets=_of_given(_joined([each.seqlets for each in details.values()], _SEQLET_COLUMNS), given),
        judged_tracks=judged_tracks(
            model, held_out, search.tested_in.excess, search.tested_in.places, readout=readout, seed=seed
        ),
        ablation=worth.ablation,
        similarity=worth.similarity,
        summary=worth.summary | {"n_motifs": len(kept), "n_tested": sum(len(head.tested) for head in found)},
    )


def enriched_motifs(
    model: SequenceModel,
    discovery: NDArray[np.uint8],
    held_out: NDArray[np.uint8],
    config: ExplainConfig,
    *,
    readout: int = 0,
    seed: int = 0,
) -> list[Motif]:
    """Enriched motifs of all heads, whether or not the heads matter."""
    search = Search(model, discovery, held_out, config, readout=readout, seed=seed)
    return [Motif(motif.consensus, motif.name, motif.ppm) for motif in _enriched(search)[2]]


def _enriched(search: Search) -> tuple[list[HeadFound], dict[float, float], list[HeadMotif]]:
    """What all heads have found, the q-value of each p-value, and the motifs that are enriched."""
    found = [search.head(layer, head) for layer, head in heads_of(search.model)]
    q_values = _q_values(found)
    return found, q_values, [motif for head in found for motif in head.motifs if q_values[motif.p_value] < ENRICHED_Q]


def _readout(readout: int | None, task: TaskConfig | None) -> int:
    """The readout that is explained."""
    if readout is None:
        return 0 if task is None else task.readout
    if task is not None and readout != task.readout:
        raise DataError(f"readout {readout} was asked for, and the task's is {task.readout}: leave one of them out")
    return readout


def _q_values(found: Sequence[HeadFound]) -> dict[float, float]:
    """BH-adjusted p-value of each p-value, over all motifs that were tested in any head."""
    p_values = np.array([p for head in found for p in head.tested], dtype=np.float64)
    if not len(p_values):
        return {}
    return dict(zip(p_values.tolist(), false_discovery_control(p_values).tolist(), strict=True))


def _joined(tables: Sequence[pd.DataFrame], columns: Sequence[str]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=list(columns))


def _of_given(seqlets: pd.DataFrame, given: NDArray[np.int64]) -> pd.DataFrame:
    """Seqlets by the row of the sequences that the caller gave, of which discovery saw the rows `given`."""
    return seqlets.assign(sequence=given[seqlets["sequence"].to_numpy(np.int64)])


def _table(
    found: Sequence[HeadFound],
    columns: dict[str, dict[str, Any]],
    q_values: dict[float, float],
    worth: Worth,
    config: ExplainConfig,
    too_short: str,
) -> pd.DataFrame:
    """A row for each enriched motif, with its `columns`, and for each head without one."""
    rows: list[dict[str, Any]] = []
    for c, head in enumerate(found):
        common: dict[str, Any] = {"layer": head.layer, "head": head.head, "positional_share": head.positional_share}
        common |= worth.columns(head.layer, head.head, c)
        motifs = [motif for motif in head.motifs if motif.name in columns]
        common["verdict"] = _verdict(common, worth, bool(motifs), (head.layer, head.head))
        for motif in motifs:
            rows.append(common | _seqlet_columns(head, motif.track) | columns[motif.name])
        if not motifs:
            rows.append(common | _no_motif(head, q_values, config, too_short))
    return pd.DataFrame(rows).reindex(columns=list(COLUMNS))


def _motif_columns(motif: HeadMotif, details: Details) -> dict[str, Any]:
    readers = details.readers
    return {
        "motif": motif.number,
        "track": motif.track,
        "n_sites": motif.found.n_sites,
        "consensus": motif.consensus,
        "information_bits": information(motif.ppm).sum(),
        "enrichment_log2": motif.enrichment,
        "p_value": motif.p_value,
        "reader_consensus": "" if readers.ppm is None else consensus_of(readers.ppm),
        "reader_p_value": readers.p_value,
        "distance_bp": readers.distance[0],
        "distance_iqr_bp": readers.distance[1],
        "logo": f"logos/{motif.name}.svg",
        "cwm_logo": f"logos/{motif.name}_cwm.svg",
        "reader_logo": "" if readers.ppm is None else f"logos/{motif.name}_readers.svg",
    }


def _with_evidence(columns: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The columns of each motif with whether its sites act through its head: adjusted over all motifs, and in words."""
    p_values = np.array([each["through_head_p_value"] for each in columns.values()], dtype=np.float64)
    q_values, tested = np.full(len(p_values), np.nan), np.isfinite(p_values)
    if tested.any():
        q_values[tested] = false_discovery_control(p_values[tested])
    words = np.where(q_values < CAUSAL_Q, "causal in model", np.where(tested, "correlated", "not tested"))
    return {
        name: each | {"through_head_q_value": float(q), "evidence": str(word)}
        for (name, each), q, word in zip(columns.items(), q_values, words, strict=True)
    }


def _too_short(codes: NDArray[np.uint8], config: ExplainConfig) -> str:
    """How many sequences have no place for a seqlet, if any."""
    n = int(((codes != alphabet.PAD).sum(1) < config.window_bp).sum())
    return f": {n} of {len(codes)} sequences are shorter than window_bp = {config.window_bp}" if n else ""


def _no_motif(head: HeadFound, q_values: dict[float, float], config: ExplainConfig, too_short: str) -> dict[str, Any]:
    track = min(head.seqlets, key=lambda kind: (-head.seqlets[kind].n, head.seqlets[kind].fdr))
    if head.seqlets[track].n < config.min_seqlets:
        note = f"too few seqlets (n = {head.seqlets[track].n}){too_short}"
    elif not head.tested:
        note = "no motif with at least 10 sites and 6 bits"
    else:
        best = min(q_values[p] for p in head.tested)
        note = f"no motif is enriched in held-out sequences (the best of {len(head.tested)} has q = {best:.2g})"
    texts = dict.fromkeys(
        ("evidence", "consensus", "matches", "reader_consensus", "logo", "cwm_logo", "reader_logo"), ""
    )
    return {"motif": -1, "track": track, "n_sites": 0, "note": note, **texts} | _seqlet_columns(head, track)


def _seqlet_columns(head: HeadFound, track: str) -> dict[str, Any]:
    return {"n_seqlets": head.seqlets[track].n, "seqlet_fdr": head.seqlets[track].fdr}


def _verdict(row: dict[str, Any], worth: Worth, enriched: bool, head: Head) -> str:
    matters = worth.matters(row)
    if matters is False and worth.redundant(head):
        return "redundant"
    # The loss also depends on how sure the model is, the score only on its order: either may show what a head does.
    if matters is False and not (row["ablation_loss_ci_low"] > 0 or row["ablation_drop_ci_low"] > 0):
        return "dead"
    if row["positional_share"] > _POSITIONAL:
        return "positional"
    if not enriched:
        return "diffuse"
    return "weak" if matters is False else "motif"


def _response_columns(motif: HeadMotif, responses: MotifResponses, seed: int) -> dict[str, Any]:
    """How the readout responds to a motif, and what of that its head and others carry."""
    own = (motif.layer, motif.head)
    others = [head for head in heads_of(responses.model) if head != own]
    order = rng.stream(seed, "heads", "others", motif.name).permutation(len(others))
    table = responses.of(motif.consensus, [own, *(others[i] for i in order[:_OTHER_HEADS])])
    row = table.to_dict("records")[0]
    columns = {
        f"{column}{end}": row[f"{name}{end}"]
        for name, column in (("response", "motif_response"), ("lost", "motif_response_lost"))
        for end in ("", "_ci_low", "_ci_high")
    }
    return columns | {"motif_response_lost_others": table["lost"][1:].mean(), "note": row["note"]}
