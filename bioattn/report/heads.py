"""Section about attention heads: what each reads, from where, and what it is worth."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any
from zipfile import BadZipFile

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bioattn.config import ENRICHED_Q, RunConfig
from bioattn.plot.contact_sheet import best_match, plain_words, split_matches
from bioattn.plot.heads import ablation_bars, head_card, similarity_map, similarity_matrix
from bioattn.plot.positions import received_profiles
from bioattn.report.blocks import (
    Block,
    Box,
    Card,
    Cards,
    Cell,
    Code,
    Column,
    Fact,
    Facts,
    Heading,
    Notice,
    Picture,
    Pictures,
    Section,
    Table,
    Text,
    data_uri,
    picture,
)  # fmt: skip
from bioattn.report.files import ResultFiles
from bioattn.report.head_table import head_table, verdict_cell, verdict_class
from bioattn.report.numbers import as_float, count, interval, listing, number, p_value, percent, with_interval
from bioattn.report.stability import stability_blocks
from bioattn.report.tables import is_known, records
from bioattn.report.tracks import track_blocks
from bioattn.report.words import HEAD_BOX, HEAD_VERDICTS, METRIC_NAMES, MODEL_KINDS, NO_MOTIF_REASONS, TRACKS

#: Cards and drawn motifs shown at most; the table below them holds every head.
_MOST_CARDS = 64
_MOST_DETAILS = 24
#: A MEME file longer than this is named, not shown.
_MOST_MEME_LETTERS = 200_000


def heads_section(files: ResultFiles, run: RunConfig) -> Section:
    """What the heads of the first replicate read and are worth, and the table of all heads of all replicates."""
    if not run.model.has_attention:
        return Section(
            "heads",
            "Attention heads",
            [Notice(f"{MODEL_KINDS[run.model.encoder]} has no attention, so there are no heads to look at.")],
        )
    heads, notices = files.stacked(
        "heads/seed[0-9]*/heads.tsv",
        ["layer", "head", "verdict"],
        needed_for="head motif",
        example="heads/seed1/heads.tsv",
    )
    if heads is None:
        return Section("heads", "Attention heads", notices)
    seed = int(heads["seed"].min())
    ordered = ["layer", "head", *(["motif"] if "motif" in heads else [])]
    first = heads[heads["seed"] == seed].sort_values(ordered, kind="stable")
    folder = f"heads/seed{seed}"
    pairs = files.table(
        f"{folder}/similarity.tsv",
        ["layer_a", "head_a", "layer_b", "head_b", "similarity"],
        needed_for="map of heads that are alike",
    )
    first = first if isinstance(pairs, Notice) else _with_nearest(first, pairs)
    summary = files.document(f"{folder}/summary.json") or {}
    metric = METRIC_NAMES.get(str(summary.get("metric", "")).lower(), "the score")
    blocks: list[Block] = [
        Text(
            "What each attention head reads, from where, and whether the prediction needs it. A logo shows what a head "
            "looks at, not what it does with it; only taking the head away shows whether that matters."
        ),
        *notices,
        Text(_in_short(heads)),
        _verdict_table(heads),
        Box("What was compared with what", HEAD_BOX),
        Heading("Every head at a glance"),
        _overview(files, folder, first, metric),
        *_details(files, folder, first, metric),
        *_ablation(files, folder, summary, metric),
        *_similarity(pairs, summary),
        *track_blocks(files, folder),
        *_profiles(files),
        *head_table(files, heads, folder),
        *stability_blocks(files),
        *_downloads(files, folder),
    ]
    return Section("heads", "Attention heads", blocks)


def _one_row_per_head(heads: pd.DataFrame) -> pd.DataFrame:
    return heads.drop_duplicates(["seed", "layer", "head"])


def _in_short(heads: pd.DataFrame) -> str:
    """How many heads read motifs and matter; if none, that and why."""
    each = _one_row_per_head(heads)
    where = f"{count(len(each), 'head')} of {count(each['seed'].nunique(), 'trained model')}"
    has_motif = heads["verdict"].isin(["motif", "weak"])
    if "motif" in heads:
        has_motif = pd.to_numeric(heads["motif"], errors="coerce") >= 0
    verdicts = each["verdict"].value_counts()
    if not has_motif.any():
        return f"No head reads a motif: nothing was found in any of the {where}. {NO_MOTIF_REASONS}"
    n = int(verdicts.get("motif", 0))
    rest = [f"{verdicts[name]} {name}" for name in HEAD_VERDICTS if name != "motif" and name in verdicts]
    others = f" The others: {listing(rest)}." if rest else ""
    if not n:
        found = len(heads[has_motif].drop_duplicates(["seed", "layer", "head"]))
        return (
            f"No head reads a motif and matters. Motifs were found in {found} of the {where}, but they are not "
            f"enriched in held-out sequences, or taking these heads away alone costs no more than taking away heads of "
            f"models with random weights.{others}"
        )
    return (
        f"Of the {where}, {n} {'reads' if n == 1 else 'read'} a motif and {'matters' if n == 1 else 'matter'}.{others}"
        f"{_evidence_in_short(heads)}"
    )


def _evidence_in_short(heads: pd.DataFrame) -> str:
    """How many motifs act on the prediction through their heads."""
    if "evidence" not in heads:
        return ""
    counts = heads["evidence"].value_counts()
    causal, correlated = (int(counts.get(name, 0)) for name in ("causal in model", "correlated"))
    if not causal + correlated:
        return ""
    return (
        f" Of {count(causal + correlated, 'motif')} whose sites were replaced, {causal} "
        f"{'acts' if causal == 1 else 'act'} on the prediction through the head that reads them (causal in the model); "
        f"the others are read only."
    )


def _verdict_table(heads: pd.DataFrame) -> Table:
    """What each verdict means, and how many heads of each replicate got it."""
    each = _one_row_per_head(heads)
    seeds = sorted(each["seed"].unique())
    columns = [Column("verdict", "verdict"), Column("meaning", "what it means")]
    columns += [Column(f"seed{seed}", f"seed {seed}", numeric=True) for seed in seeds]
    unknown = [name for name in dict.fromkeys(each["verdict"].astype(str)) if name not in HEAD_VERDICTS]
    rows = []
    for verdict in [*HEAD_VERDICTS, *unknown]:
        given = each[each["verdict"].astype(str) == verdict]
        short, meaning = HEAD_VERDICTS.get(verdict, ("", "No description of this verdict."))
        counts = [Cell(str(int((given["seed"] == seed).sum()))) for seed in seeds]
        words = f"{short[:1].upper()}{short[1:]}. {meaning}" if short else meaning
        rows.append([verdict_cell(verdict), Cell(words), *counts])
    return Table("head-verdicts", "Verdicts on heads, and how many heads of each trained model got them", columns, rows)


def _with_nearest(heads: pd.DataFrame, pairs: pd.DataFrame) -> pd.DataFrame:
    """Heads with the name of the most similar other one, from the pairs: a TSV's 1.10 reads as the number 1.1."""
    places, matrix = similarity_matrix(pairs)
    np.fill_diagonal(matrix, -1.0)
    best = np.nan_to_num(matrix, nan=-1.0).argmax(axis=1)
    nearest = {
        place: (".".join(map(str, places[other])), float(matrix[row, other]))
        for row, (place, other) in enumerate(zip(places, best, strict=True))
    }
    found = [nearest.get(key, ("", np.nan)) for key in zip(heads["layer"], heads["head"], strict=True)]
    return heads.assign(similar_head=[name for name, _ in found], similarity=[value for _, value in found])


# ---------------------------------------------------------------------- the cards


def _overview(files: ResultFiles, folder: str, heads: pd.DataFrame, metric: str) -> Cards:
    """A card for each head: its first motif, or what it is without one."""
    each = _one_row_per_head(heads)
    shown = records(each.head(_MOST_CARDS))
    more = f" (first {_MOST_CARDS} of {len(each)}; the table below has all)" if len(each) > _MOST_CARDS else ""
    label = f"Heads of seed {each['seed'].iloc[0]}: verdict, first motif, best match, what taking it away costs{more}"
    return Cards(label, [_head_card(files, folder, row, metric) for row in shown], narrow=True)


def _head_card(files: ResultFiles, folder: str, row: dict[str, Any], metric: str) -> Card:
    verdict, title = str(row["verdict"]), f"Layer {row['layer']}, head {row['head']}"
    consensus = str(row["consensus"]) if is_known(row.get("consensus")) else ""
    drawn = _logo(files, folder, row, f"Sequence logo of {title}: {consensus or 'no consensus'}")
    facts = [Fact("consensus", consensus)] if consensus else []
    if named := best_match(row.get("matches")):
        facts.append(Fact("best match", named))
    if is_known(row.get("enrichment_log2")):
        facts.append(Fact("enriched", _enrichment(row)))
    if is_known(row.get("evidence")):
        facts.append(Fact("evidence", str(row["evidence"])))
    if cost := _cost(row, metric):
        facts.append(Fact("costs", cost))
    if is_known(row.get("note")):
        facts.append(Fact("note", str(row["note"])))
    text = "" if drawn or consensus else _sentence(plain_words(row))
    chip = HEAD_VERDICTS.get(verdict, (verdict,))[0]
    return Card(title, text=text, chip=chip, verdict=verdict_class(verdict), picture=drawn, facts=facts)


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}." if words else ""


def _enrichment(row: dict[str, Any]) -> str:
    q_value = as_float(row.get("q_value"))
    weak = ": not enriched" if q_value is not None and q_value >= ENRICHED_Q else ""
    q = "" if q_value is None else f" (q = {p_value(q_value)}{weak})"
    return f"{number(2.0 ** float(row['enrichment_log2']), digits=2)}x{q}"


def _cost(row: dict[str, Any], metric: str) -> str:
    """What mean ablation costs, with its interval: of the score where that is defined, else of the loss."""
    for column, what in (("ablation_drop", metric), ("ablation_loss", "of loss")):
        if as_float(row.get(column)) is not None:
            around = interval(row.get(f"{column}_ci_low"), row.get(f"{column}_ci_high"))
            return f"{number(row[column])} {what} {around}".strip()
    return ""


def _logo(files: ResultFiles, folder: str, row: dict[str, Any], alt: str) -> Picture | None:
    """A saved logo, if it lies inside the results."""
    if not is_known(row.get("logo")):
        return None
    path = files.root / PurePosixPath(folder) / str(row["logo"])
    inside = path.resolve().is_relative_to(files.root.resolve())
    if not (inside and path.suffix == ".svg" and path.is_file()):
        return None
    return Picture(data_uri(path.read_bytes(), "image/svg+xml"), alt)


# ----------------------------------------------------------- one motif after the other


def _details(files: ResultFiles, folder: str, heads: pd.DataFrame, metric: str) -> list[Block]:
    """Every motif with its matrices, distances and numbers."""
    rows = [
        row for row in records(heads) if (as_float(row.get("motif")) or 0.0) >= 0 and is_known(row.get("consensus"))
    ]
    if not rows:
        return []
    # Those that claim most come first, so that a cut loses the others.
    order = list(HEAD_VERDICTS)
    rows.sort(key=lambda row: order.index(row["verdict"]) if row["verdict"] in order else len(order))
    matrices, notices = [], []
    for name, what in (("motifs", "logo"), ("cwms", "contribution"), ("readers", "logo of the readers")):
        found, notice = _matrices(files, f"{folder}/{name}.npz", f"{what} of a motif beside its numbers")
        matrices.append(found)
        notices += notice
    distances = files.table(
        f"{folder}/distances.tsv",
        ["layer", "head", "motif", "distance_bp", "share", "expected"],
        needed_for="distance between motif and reader",
    )
    notices += [distances] if isinstance(distances, Notice) else []
    table = None if isinstance(distances, Notice) else distances
    blocks: list[Block] = [Heading("What is read, and from where"), *notices]
    if len(rows) > _MOST_DETAILS:
        blocks.append(Text(f"The first {_MOST_DETAILS} of {len(rows)} motifs; the table below holds all.", "small"))
    for row in rows[:_MOST_DETAILS]:
        blocks += _motif(row, matrices, table, metric)
    return blocks


def _motif(
    row: dict[str, Any], matrices: Sequence[dict[str, NDArray[Any]]], distances: pd.DataFrame | None, metric: str
) -> list[Block]:
    layer, head, motif = (int(as_float(row.get(name)) or 0) for name in ("layer", "head", "motif"))
    ppm, cwm, readers = (found.get(f"layer{layer}_head{head}_motif{motif}") for found in matrices)
    if distances is not None:
        own = (distances["layer"] == layer) & (distances["head"] == head) & (distances["motif"] == motif)
        distances = distances[own & np.isfinite(distances["share"].astype(float))]
    verdict = HEAD_VERDICTS.get(str(row["verdict"]), (str(row["verdict"]),))[0]
    blocks: list[Block] = [Heading(f"Layer {layer}, head {head}, motif {motif}: {verdict}")]
    if not (ppm is None and cwm is None and readers is None and (distances is None or distances.empty)):
        alt = (
            f"Four panels for layer {layer}, head {head}, motif {motif}: logo of what is read, {row['consensus']}; its "
            f"contribution; logo around its readers; distance from motif to reader"
        )
        blocks.append(Pictures([picture(head_card(ppm, cwm, readers, distances), alt=alt)]))
    return [*blocks, Facts(_motif_facts(row, metric))]


def _motif_facts(row: dict[str, Any], metric: str) -> list[Fact]:
    """Everything that the table says of a motif, in words; what is not known is left out."""
    named = split_matches(row.get("matches"))
    facts = [Fact("consensus", str(row["consensus"]))]
    if is_known(row.get("evidence")):
        facts.append(Fact("evidence", str(row["evidence"])))
    facts.append(Fact("known motifs like it" if len(named) != 1 else "known motif like it", "; ".join(named) or "none"))
    if is_known(row.get("n_sites")):
        seqlets = f" of {number(row['n_seqlets'])} seqlets" if is_known(row.get("n_seqlets")) else ""
        track = TRACKS.get(str(row.get("track")), "")
        facts.append(Fact("held by", f"{number(row['n_sites'])}{seqlets}" + (f" ({track})" if track else "")))
    if is_known(row.get("enrichment_log2")):
        facts.append(Fact("enriched, held-out", _enrichment(row)))
    if is_known(row.get("reader_consensus")):
        p = f" (p = {p_value(row['reader_p_value'])})" if is_known(row.get("reader_p_value")) else ""
        facts.append(Fact("around its readers", f"{row['reader_consensus']}{p}"))
    if is_known(row.get("distance_bp")):
        spread = (
            f", quartiles {number(row['distance_iqr_bp'])} bp apart" if is_known(row.get("distance_iqr_bp")) else ""
        )
        facts.append(Fact("motif minus reader", f"median {number(row['distance_bp'])} bp{spread}"))
    return facts + _worth_facts(row, metric)


def _worth_facts(row: dict[str, Any], metric: str) -> list[Fact]:
    facts = []
    names = {
        "ablation_drop": f"{metric} lost without the head",
        "ablation_loss": "loss gained without it",
        "ablation_effect": "RMS change of the readout",
    }
    for column, label in names.items():
        if as_float(row.get(column)) is not None:
            value = with_interval(row[column], row.get(f"{column}_ci_low"), row.get(f"{column}_ci_high"))
            facts.append(Fact(label, value))
    if is_known(row.get("p_random")):
        facts.append(Fact("p, against random models' heads", p_value(row["p_random"])))
    if is_known(row.get("motif_response")):
        response = f"{_signed(row['motif_response'])}{_lost(as_float(row.get('motif_response_lost')))}"
        facts.append(Fact("readout when put into backgrounds", response))
    if is_known(row.get("through_head")):
        value = with_interval(row["through_head"], row.get("through_head_ci_low"), row.get("through_head_ci_high"))
        q = f", q = {p_value(row['through_head_q_value'])}" if is_known(row.get("through_head_q_value")) else ""
        facts.append(Fact("its sites, through this head", f"{value}{q}"))
    if is_known(row.get("similar_head")) and is_known(row.get("similarity")):
        facts.append(Fact("most alike", f"head {row['similar_head']} (shares {percent(row['similarity'])})"))
    if is_known(row.get("note")):
        facts.append(Fact("note", str(row["note"])))
    return facts


def _lost(share: float | None) -> str:
    """What becomes of the response to a motif without the head."""
    if share is None:
        return ""
    if share < 0:
        return f"; larger by {percent(-share)} without the head"
    return "; turned around without the head" if share > 1.005 else f"; {percent(share)} of it gone without the head"


def _signed(value: Any) -> str:
    return f"+{number(value)}" if (as_float(value) or 0.0) > 0 else number(value)


def _matrices(files: ResultFiles, path: str, needed_for: str) -> tuple[dict[str, NDArray[Any]], list[Notice]]:
    """Matrices (4, W) of an npz file by name, and a notice if there is no such file."""
    full = files.root / path
    if not full.exists():
        command = f"snakemake --cores 2 {files.root.resolve().parent.name}/{files.run}/{path}"
        return {}, [Notice(f"{path} is missing, so there is no {needed_for}. Make it with:", command)]
    try:
        with np.load(full, allow_pickle=False) as archive:
            found = {name: np.asarray(archive[name], dtype=float) for name in archive.files}
    # AttributeError, TypeError: an .npy of that name is an array, no archive.
    except (OSError, ValueError, EOFError, BadZipFile, AttributeError, TypeError) as error:
        return {}, [Notice(f"{path} cannot be read, so there is no {needed_for}: {error}")]
    usable = {
        name: matrix
        for name, matrix in found.items()
        if matrix.ndim == 2 and matrix.shape[0] == 4 and matrix.shape[1] and np.isfinite(matrix).all()
    }
    return usable, []


# ------------------------------------------------------------------- worth and likeness


def _ablation(files: ResultFiles, folder: str, summary: dict[str, Any], metric: str) -> list[Block]:
    ends = [f"{name}_ci_{end}" for name in ("loss", "drop") for end in ("low", "high")]
    table = files.table(
        f"{folder}/ablation.tsv", ["layer", "head", "kind", "loss", "drop", *ends], needed_for="figure of ablations"
    )
    heading = Heading("Taking heads away")
    if isinstance(table, Notice):
        return [heading, table]
    pictures = []
    for measure, what in (("loss", "Rise of the held-out loss"), ("drop", f"Held-out {metric} lost")):
        values = table.loc[table["layer"] >= 0, measure].astype(float)
        if np.isfinite(values).any():
            q95 = as_float(summary.get(f"random_{measure}_q95"))
            alt = f"Bars with 95 % intervals: {what.lower()} without each head, in three ways to take it away"
            line = "; dashed: 95 % of the heads of models with random weights cost less" if q95 is not None else ""
            caption = f"{what} without each head{line}."
            drawn = ablation_bars(table, measure=measure, random_q95=q95)
            pictures.append(picture(drawn, alt=alt, caption=caption))
    if not pictures:
        return [heading, Notice(f"{folder}/ablation.tsv has no finite value: the held-out targets allow no score.")]
    sample = as_float(summary.get("n_scored"))
    random = as_float(summary.get("n_random_heads"))
    parts = [f"on {count(int(sample), 'held-out sequence')}" if sample else ""]
    parts += [f"against {count(int(random), 'head')} of models with random weights" if random else ""]
    where = ", ".join(part for part in parts if part)
    text = (
        "Each head's output was replaced by its mean, by zero, or by its output in another sequence"
        f"{', ' if where else ''}{where}. The verdict rests on the mean, which takes least from the layers after it."
    )
    return [heading, Text(text), Pictures(pictures)]


def _similarity(pairs: pd.DataFrame | Notice, summary: dict[str, Any]) -> list[Block]:
    heading = Heading("Heads that do the same")
    if isinstance(pairs, Notice):
        return [heading, pairs]
    effective, n = as_float(summary.get("effective_heads")), as_float(summary.get("n_heads"))
    text = "Shared attention of two heads is the part that both give to the same tokens, averaged over readers."
    if effective is not None and n is not None:
        text = f"The {number(n)} heads count as {number(effective)} different ones (effective number of heads). {text}"
    alt = "Heat map: attention that every two heads share, heads that are alike next to each other"
    return [heading, Text(text), Pictures([picture(similarity_map(pairs), alt=alt)])]


def _profiles(files: ResultFiles) -> list[Block]:
    paths = files.replicates("heads/seed*/positions.parquet")
    if not paths:
        return []
    table = files.table(paths[0], ["layer", "head", "position", "received"], needed_for="positional profile")
    if isinstance(table, Notice):
        return [table]
    alt = "Small line plots: mean attention received by position, one for each head"
    caption = "Mean attention received along the sequence (1 = uniform; dashed: expected from the background)."
    return [Heading("Where heads look"), Pictures([picture(received_profiles(table), alt=alt, caption=caption)])]


def _downloads(files: ResultFiles, folder: str) -> list[Block]:
    """Where the motifs and seqlets lie, and the motifs themselves to copy."""
    whole = f"{files.root.resolve().parent.name}/{files.run}/{folder}"
    kinds = {
        "motifs.meme": "matrices for any motif program",
        "seqlets.bed": "places where the motifs were read, on the genome where it is known",
        "motifs.npz": "the same matrices for Python",
        "cwms.npz": "contributions of their letters",
        "contact_sheet.svg": "all heads on one sheet",
    }
    found = [Fact(what, f"{whole}/{name}") for name, what in kinds.items() if (files.root / folder / name).is_file()]
    if not found:
        return []
    blocks: list[Block] = [Heading("Files to take away"), Facts(found)]
    meme = files.root / folder / "motifs.meme"
    if meme.is_file() and meme.stat().st_size <= _MOST_MEME_LETTERS:
        text = meme.read_text(encoding="utf-8", errors="replace")
        blocks.append(Code(f"{folder}/motifs.meme, to copy", text, folded=True))
    return blocks
