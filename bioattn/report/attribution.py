"""Section about attribution: what each base does to the prediction, and which cheap way to say it can be trusted."""

from typing import Any

import numpy as np
import pandas as pd

from bioattn.config import RunConfig
from bioattn.plot.faithfulness import ATTRIBUTIONS, EDGES, edge_curves, faithfulness_curves
from bioattn.plot.ism import importance_profile, substitution_map
from bioattn.plot.logo import Site, signed_logo
from bioattn.report.blocks import (
    Block,
    Cell,
    Column,
    Heading,
    Notice,
    Picture,
    Pictures,
    Section,
    Table,
    Text,
    picture,
)  # fmt: skip
from bioattn.report.files import ResultFiles
from bioattn.report.numbers import count, listing, number, with_interval
from bioattn.report.tables import measured_cell, plain_table, records
from bioattn.report.words import MODEL_KINDS

_LETTERS = list("ACGT")
_DIRECTIONS = ("deletion", "insertion")
#: Attributions that come from attention.
_ATTENTION = ("received_sum", "gradient_sum")
_HOW = (
    "The bases of each sequence were ranked by each attribution: by how much a base raises the prediction, or, of "
    "attention received, by how much there is, as that has no sign and cannot tell what raises from what lowers. "
    "Deletion replaces bases, the first in rank first, by those of a copy with its dinucleotides shuffled; insertion "
    "puts them into the copy. The sooner the prediction falls, or rises, the better the attribution knows what the "
    "model uses. The area between its curve and that of random orders is more than 0 where it is better than chance."
)


def attribution_section(files: ResultFiles, run: RunConfig) -> Section:
    """Mutagenesis (mean profile, sites, one sequence in letters), faithful attributions, and how few edges do."""
    if not run.model.has_attention:
        return Section(
            "attribution",
            "Attribution",
            [Notice(f"{MODEL_KINDS[run.model.encoder]} was trained for comparison and is not explained.")],
        )
    return Section(
        "attribution", "Attribution", [*_mutagenesis(files, run), *_faithfulness(files, run), *_edges(files)]
    )


# -------------------------------------------------------------------- mutagenesis


def _mutagenesis(files: ResultFiles, run: RunConfig) -> list[Block]:
    ism, notices = files.stacked(
        "attribution/seed*/ism.parquet",
        ["name", "position", "reference", *_LETTERS],
        needed_for="attribution profile",
        example="attribution/seed1/ism.parquet",
    )
    if ism is None:
        return list(notices)
    sites = [Site(site.name, site.start, site.end) for site in run.motifs.sites]
    blocks: list[Block] = [
        Text(
            f"Saturation mutagenesis in the model: every letter of {count(ism['name'].nunique(), 'held-out sequence')} "
            f"was replaced by each other letter, in {count(ism['seed'].nunique(), 'trained model')}, and the change of "
            f"the prediction was recorded ({run.task.scale} scale)."
        ),
        *notices,
        Pictures(_mutagenesis_pictures(ism, sites, run.task.scale)),
    ]
    if sites:
        blocks.append(plain_table("sites", "Importance inside the sites", _site_table(ism, sites), sortable=True))
    return blocks


def _mutagenesis_pictures(ism: pd.DataFrame, sites: list[Site], scale: str) -> list[Picture]:
    means = ism.groupby("position")[_LETTERS].mean().sort_index()
    start = int(means.index[0])
    whole = means.reindex(range(start, int(means.index[-1]) + 1))
    pictures = []
    if sites:
        drawing: Any = substitution_map(whole.to_numpy().T, start=start, sites=sites, unit=scale)
    else:
        # Sites lie elsewhere in each sequence: mean effects cancel, mean sizes do not.
        drawing = importance_profile(_importance(ism).to_numpy(), start=start)
    alt = "Bar profile: mean size of the change of the prediction when a position is mutated"
    pictures.append(picture(drawing, alt=alt, caption="Mean over sequences and trained models."))
    name, cwm, first = _example(ism)
    alt = f"Letters of sequence {name}, scaled by how much the prediction depends on them"
    caption = f"Sequence {name}: letter height = drop of the prediction when the letter is replaced (mean of three)."
    drawing = signed_logo(cwm, start=first, sites=[s for s in sites if s.start >= first], ylabel=f"change ({scale})")
    return [*pictures, picture(drawing, alt=alt, caption=caption)]


def _importance(ism: pd.DataFrame) -> pd.Series:
    """Mean |change| over the three other letters, sequences and models, by position."""
    sizes = ism[_LETTERS].abs().sum(axis=1) / 3
    whole = sizes.groupby(ism["position"]).mean().sort_index()
    return whole.reindex(range(int(whole.index[0]), int(whole.index[-1]) + 1)).fillna(0.0)


def _example(ism: pd.DataFrame, *, window_bp: int = 90) -> tuple[str, np.ndarray, int]:
    """The sequence with the largest effect: its name, contributions (4, W) and first position."""
    size = ism[_LETTERS].abs().max(axis=1)
    name = str(ism["name"].iloc[int(size.to_numpy().argmax())])
    rows = ism[ism["name"] == name].groupby(["position", "reference"])[_LETTERS].mean().reset_index()
    contribution = -rows[_LETTERS].sum(axis=1).to_numpy() / 3
    positions = rows["position"].to_numpy(dtype=int)
    first = int(positions.min())
    if len(rows) > window_bp:
        middle = int(positions[np.abs(contribution).argmax()])
        first = min(max(first, middle - window_bp // 2), int(positions.max()) + 1 - window_bp)
    last = min(first + window_bp, int(positions.max()) + 1)
    cwm = np.zeros((4, last - first))
    for position, letter, value in zip(positions, rows["reference"], contribution, strict=True):
        if first <= position < last and letter in _LETTERS:
            cwm[_LETTERS.index(letter), position - first] = value
    return name, cwm, first


def _site_table(ism: pd.DataFrame, sites: list[Site]) -> pd.DataFrame:
    importance = _importance(ism)
    inside = np.zeros(len(importance), dtype=bool)
    for site in sites:
        inside |= (importance.index >= site.start) & (importance.index < site.end)
    outside = float(importance[~inside].mean()) if (~inside).any() else float("nan")
    rows = []
    for site in sites:
        mean = float(importance[(importance.index >= site.start) & (importance.index < site.end)].mean())
        ratio = mean / outside if outside else float("nan")
        rows.append(
            {"site": site.name, "from": site.start, "to": site.end, "mean |change|": mean, "times outside": ratio}
        )
    return pd.DataFrame(rows).sort_values("mean |change|", ascending=False)


# ------------------------------------------------------------------- faithfulness


def _faithfulness(files: ResultFiles, run: RunConfig) -> list[Block]:
    """Which attribution is nearest to mutagenesis, whether attention beats chance, the curves and all numbers."""
    ends = [f"{name}_ci_{end}" for name in ("area", "spearman") for end in ("low", "high")]
    summary, notices = files.stacked(
        "attribution/seed*/faithfulness.tsv",
        ["kind", "direction", "area", "spearman_ism", *ends],
        needed_for="comparison of attributions",
        example="attribution/seed1/faithfulness.tsv",
    )
    blocks: list[Block] = [Heading("Which attribution says what the model does"), *notices]
    if summary is None:
        return blocks
    sentences = [_nearest(summary), *(_against_chance(summary, kind) for kind in _ATTENTION)]
    blocks += [Text(" ".join(sentence for sentence in sentences if sentence)), Text(_HOW, "small")]
    seed = int(summary["seed"].min())
    curves = files.table(
        f"attribution/seed{seed}/curves.tsv",
        ["kind", "direction", "fraction", "mean", "ci_low", "ci_high"],
        needed_for="deletion and insertion curve",
    )
    if isinstance(curves, Notice):
        blocks.append(curves)
    else:
        alt = "Two line plots: mean prediction while bases are replaced, and while they are restored, by attribution"
        caption = "First trained model; mean over held-out sequences with 95 % intervals."
        drawn = faithfulness_curves(curves, unit=run.task.scale)
        blocks.append(Pictures([picture(drawn, alt=alt, caption=caption)]))
    return [*blocks, _faithfulness_table(summary)]


def _name(kind: object) -> str:
    return ATTRIBUTIONS.get(str(kind), str(kind))


def _nearest(summary: pd.DataFrame) -> str:
    """Which attribution orders bases most as mutagenesis does, in how many models."""
    rows = summary[~summary["kind"].isin(["ism", "random"])].drop_duplicates(["seed", "kind"])
    wide = rows.pivot(index="seed", columns="kind", values="spearman_ism").dropna(axis=1, how="all")
    if wide.empty:
        return "No attribution could be compared with mutagenesis."
    means = wide.mean()
    best = str(means.idxmax())
    own = rows[rows["kind"] == best].iloc[0]
    value = number(means[best])
    if len(wide) == 1:
        value = with_interval(means[best], own["spearman_ci_low"], own["spearman_ci_high"])
        where = ""
    else:
        first = int((wide.eq(wide.max(axis=1), axis=0)[best]).sum())
        where = f", and the nearest in {first} of {count(len(wide), 'trained model')}"
    if means[best] <= 0:
        nearest = f"{_name(best)}, mean rank correlation {value}"
        return f"No attribution orders bases as mutagenesis does (the nearest: {nearest})."
    return f"Nearest to mutagenesis is {_name(best)}: mean rank correlation {value}{where}."


def _against_chance(summary: pd.DataFrame, kind: str) -> str:
    """Whether an attribution ranks bases better than a random order, by direction."""
    rows = summary[(summary["kind"] == kind) & summary["area"].notna()]
    if rows.empty:
        return ""
    found: dict[str, list[str]] = {}
    for direction in _DIRECTIONS:
        own = rows[rows["direction"] == direction]
        if own.empty:
            continue
        n, better, worse = len(own), int((own["area_ci_low"] > 0).sum()), int((own["area_ci_high"] < 0).sum())
        if n > 1:
            mean = f"mean area {number(own['area'].mean())}"
            counts = f"{better} of {n} trained models" + (f", worse in {worse}" if worse else "")
            text = f"{direction} ({mean}, better in {counts})"
        else:
            row = own.iloc[0]
            text = f"{direction} (area {with_interval(row['area'], row['area_ci_low'], row['area_ci_high'])})"
        verdict = (
            "beats a random order" if better == n
            else "is worse than a random order" if worse == n
            else "beats a random order in some trained models only" if better
            else "does not beat a random order"
        )  # fmt: skip
        found.setdefault(verdict, []).append(text)
    parts = [f"{verdict} in {listing(texts)}" for verdict, texts in found.items()]
    name = _name(kind)
    return f"{name[:1].upper()}{name[1:]} {' but '.join(parts)}."


def _faithfulness_table(summary: pd.DataFrame) -> Table:
    """One row for each model and attribution."""
    columns = [
        Column("seed", "seed", numeric=True),
        Column("kind", "attribution"),
        Column("deletion", "area, deletion", "How far the curve lies below that of random orders", numeric=True),
        Column("insertion", "area, insertion", "How far the curve lies above that of random orders", numeric=True),
        Column("spearman_ism", "rank correlation with ISM", "Mean over sequences of Spearman's r", numeric=True),
        Column("n", "sequences", numeric=True),
        Column("note", "note"),
    ]
    kinds = list(ATTRIBUTIONS)
    groups = sorted(
        summary.groupby(["seed", "kind"], sort=False),
        key=lambda item: (item[0][0], kinds.index(item[0][1]) if item[0][1] in kinds else len(kinds)),
    )
    rows = []
    for (seed, kind), group in groups:
        by_direction = {str(row["direction"]): row for row in records(group)}
        any_row = next(iter(by_direction.values()))
        rows.append(
            [
                Cell(str(seed), sort=str(seed)),
                Cell(_name(kind)),
                *(measured_cell(by_direction.get(direction, {}), "area", "area") for direction in _DIRECTIONS),
                measured_cell(any_row, "spearman_ism", "spearman"),
                Cell(number(any_row.get("n")), sort=str(any_row.get("n", ""))),
                Cell(str(any_row.get("note") or "")),
            ]
        )
    caption = f"How faithful attributions are, in {count(summary['seed'].nunique(), 'trained model')}"
    note = "Areas are in units of the prediction's scale; below each number its 95 % interval over sequences."
    return Table("faithfulness", caption, columns, rows, sortable=True, note=note)


# -------------------------------------------------------------------------- edges

_EDGES_HOW = (
    "All edges of a sequence (a query, a key, a head, a layer) were ranked; the first keep the weight that the model "
    "gives them, and what is left of a query's attention is spread evenly over the others. With none kept attention is "
    "uniform. Explained is the share of the prediction's variance over held-out sequences that such a model still has."
)
#: The share of edges of which the text speaks.
_SPOKEN = 0.05


def _edges(files: ResultFiles) -> list[Block]:
    """How much of the prediction a few edges carry, in words, and the curve of the first model."""
    table, notices = files.stacked(
        "attribution/seed*/edges.tsv",
        ["ranking", "kept", "explained", "ci_low", "ci_high", "area", "area_ci_low", "area_ci_high", "note"],
        needed_for="curve of edges",
        example="attribution/seed1/edges.tsv",
    )
    blocks: list[Block] = [Heading("How few edges of attention are enough"), *notices]
    if table is None:
        return blocks
    known = table[table["explained"].notna()]
    if known.empty:
        return [*blocks, Text(f"Not measured: {table['note'].iloc[0]}.")]
    blocks += [Text(_enough(known)), Text(_EDGES_HOW, "small")]
    first = known[known["seed"] == known["seed"].min()]
    alt = "Line plot: variance of the prediction explained against the share of edges that are kept, by ranking"
    caption = "First trained model, with 95 % intervals over held-out sequences; the axis is logarithmic from 1 % on."
    return [*blocks, Pictures([picture(edge_curves(first), alt=alt, caption=caption)])]


def _enough(known: pd.DataFrame) -> str:
    """What uniform attention explains, what a few edges add by each ranking, and which rankings beat chance."""
    n = known["seed"].nunique()
    mean = known.groupby(["ranking", "kept"])["explained"].mean()
    several = f" (means over {count(n, 'trained model')})" if n > 1 else ""
    left = mean[("pattern", 0.0)]
    uniform = f"{number(left)} of its" if left > 0 else f"nothing ({number(left)}, worse than the mean) of its"
    kept = listing([f"{EDGES[name]} {number(mean[(name, _SPOKEN)])}" for name in EDGES])
    beyond = known.drop_duplicates(["seed", "ranking"]).set_index("ranking")["area_ci_low"]
    better = {name: int((beyond.loc[[name]] > 0).sum()) for name in ("pattern", "gradient")}
    chance = listing([f"{EDGES[name]} in {better[name]} of {n}" for name in better])
    return (
        f"With its attention made uniform the model explains {uniform} prediction's variance{several}; with "
        f"{_SPOKEN:.0%} of the edges kept, ranked by {kept}. Better than random edges, over all shares: {chance}."
    )
