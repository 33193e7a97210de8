"""Sections about the inside of the model: attention heads and attribution."""

from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from bioattn.config import RunConfig
from bioattn.plot.ism import importance_profile, substitution_map
from bioattn.plot.logo import Site, signed_logo
from bioattn.plot.positions import received_profiles
from bioattn.report.blocks import (
    Block,
    Card,
    Cards,
    Cell,
    Column,
    Fact,
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
from bioattn.report.numbers import count, interval, number, p_value
from bioattn.report.tables import plain_table, readable, records, value_cell
from bioattn.report.words import MODEL_KINDS

#: Cards shown at most; the table below them holds every head.
_MOST_CARDS = 64
_LETTERS = list("ACGT")
_KIND_TEXT = {
    "motif": "reads a motif",
    "positional": "reads a place",
    "diffuse": "no clear preference",
}


def heads_section(files: ResultFiles, run: RunConfig) -> Section:
    """Contact sheet of the first replicate, and the table of all heads of all replicates."""
    if not run.model.has_attention:
        return Section(
            "heads",
            "Attention heads",
            [Notice(f"{MODEL_KINDS[run.model.encoder]} has no attention, so there are no heads to look at.")],
        )
    heads, notices = files.stacked(
        "heads/seed*/heads.tsv", ["layer", "head", "kind"], needed_for="head motif", example="heads/seed1/heads.tsv"
    )
    blocks: list[Block] = [
        Text(
            "For each head: the windows that receive the most attention beyond what the same place receives in "
            "shuffled sequences, summarised as motifs. The logo shows what the head looks at, not what it does with "
            "it; the ablation effect says how much the prediction depends on the head."
        ),
        *notices,
    ]
    if heads is None:
        return Section("heads", "Attention heads", blocks)
    first = heads[heads["seed"] == heads["seed"].min()] if "seed" in heads else heads
    blocks += [_contact_sheet(files, first), *_profiles(files), _head_table(heads)]
    return Section("heads", "Attention heads", blocks)


def _contact_sheet(files: ResultFiles, heads: pd.DataFrame) -> Cards:
    seed = f" of seed {heads['seed'].iloc[0]}" if "seed" in heads else ""
    ordered = heads.sort_values(["layer", "head", *(["motif"] if "motif" in heads else [])], kind="stable")
    cards = [_head_card(files, row) for row in records(ordered.head(_MOST_CARDS))]
    return Cards(f"Heads{seed}: logo, kind, consensus, best match", cards, narrow=True)


def _head_card(files: ResultFiles, row: dict[str, Any]) -> Card:
    kind = str(row["kind"])
    number_in_head = row.get("motif")
    motif = f", motif {number_in_head}" if _known(number_in_head) and str(number_in_head) not in ("0", "0.0") else ""
    title = f"Layer {row['layer']}, head {row['head']}{motif}"
    consensus = str(row["consensus"]) if _known(row.get("consensus")) else ""
    facts = [Fact("consensus", consensus)] if consensus else []
    matches = str(row["matches"]).split(";") if _known(row.get("matches")) else []
    facts += [Fact("best match", matches[0].strip())] if matches else []
    if _known(row.get("enrichment_log2")):
        q = f" (q = {p_value(row['q_value'])})" if _known(row.get("q_value")) else ""
        facts.append(Fact("enriched", f"{number(2.0 ** float(row['enrichment_log2']), digits=2)}x{q}"))
    if _known(row.get("ablation_effect")):
        around = interval(row.get("ablation_ci_low"), row.get("ablation_ci_high"))
        facts.append(Fact("ablation", f"{number(row['ablation_effect'])} {around}".strip()))
    return Card(
        title,
        chip=_KIND_TEXT.get(kind, kind),
        verdict=f"kind-{kind}" if kind in _KIND_TEXT else "",
        picture=_logo(files, row, title, consensus),
        facts=facts,
    )


def _logo(files: ResultFiles, row: dict[str, Any], title: str, consensus: str) -> Picture | None:
    if not _known(row.get("logo")):
        return None
    folder = f"heads/seed{row['seed']}" if _known(row.get("seed")) else "heads"
    relative = PurePosixPath(folder) / str(row["logo"])
    path = files.root / relative
    inside = path.resolve().is_relative_to(files.root.resolve())
    if not (inside and path.suffix == ".svg" and path.is_file()):
        return None
    return Picture(
        data_uri(path.read_bytes(), "image/svg+xml"), f"Sequence logo of {title}: {consensus or 'no consensus'}"
    )


def _known(value: object) -> bool:
    return value is not None and value == value and value != ""


_HEAD_COLUMNS = [
    "seed", "layer", "head", "motif", "kind", "n_sites", "consensus",
    "enrichment_log2", "q_value", "ablation_effect", "ablation_ci_low", "ablation_ci_high", "matches",
]  # fmt: skip
_HEAD_TITLES = {
    "enrichment_log2": "enrichment (log2)",
    "q_value": "q",
    "n_sites": "sites",
    "ablation_effect": "ablation",
}


def _head_table(heads: pd.DataFrame) -> Table:
    names = [name for name in _HEAD_COLUMNS if name in heads and not name.startswith("ablation_ci")]
    text = {"kind", "consensus", "matches"}
    columns = [Column(name, _HEAD_TITLES.get(name, readable(name)), numeric=name not in text) for name in names]
    rows = []
    for row in records(heads):
        cells = [value_cell(name, row[name]) for name in names]
        if "ablation_effect" in names:
            place = names.index("ablation_effect")
            below = interval(row.get("ablation_ci_low"), row.get("ablation_ci_high"))
            cells[place] = Cell(cells[place].text, below=below, sort=cells[place].sort)
        rows.append(cells)
    n = heads["seed"].nunique() if "seed" in heads else 1
    caption = f"All head motifs of {count(n, 'trained model')}"
    return Table("head-table", caption, columns, rows, sortable=True)


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


# -------------------------------------------------------------------- attribution


def attribution_section(files: ResultFiles, run: RunConfig) -> Section:
    """In-silico mutagenesis: mean profile with sites, site table, and one sequence in letters."""
    if not run.model.has_attention:
        return Section(
            "attribution",
            "Attribution",
            [Notice(f"{MODEL_KINDS[run.model.encoder]} was trained for comparison and is not explained.")],
        )
    columns = ["name", "position", "reference", *_LETTERS]
    ism, notices = files.stacked(
        "heads/seed*/ism.parquet", columns, needed_for="attribution profile", example="heads/seed1/ism.parquet"
    )
    blocks: list[Block] = list(notices)
    if ism is None:
        return Section("attribution", "Attribution", blocks)
    sites = [Site(site.name, site.start, site.end) for site in run.motifs.sites]
    n_sequences, n_models = ism["name"].nunique(), ism["seed"].nunique() if "seed" in ism else 1
    blocks.insert(
        0,
        Text(
            f"Saturation mutagenesis in the model: every letter of {count(n_sequences, 'held-out sequence')} was "
            f"replaced by each other letter, in {count(n_models, 'trained model')}, and the change of the prediction "
            f"was recorded ({run.task.scale} scale)."
        ),
    )
    blocks.append(Pictures(_attribution_pictures(ism, sites, run.task.scale)))
    if sites:
        blocks.append(plain_table("sites", "Importance inside the sites", _site_table(ism, sites), sortable=True))
    return Section("attribution", "Attribution", blocks)


def _attribution_pictures(ism: pd.DataFrame, sites: list[Site], scale: str) -> list[Picture]:
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
