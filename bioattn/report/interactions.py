"""Section about motif pairs: verdicts, table, network, attention against effect, and the truth if it is known."""

import re
from typing import Any

import numpy as np
import pandas as pd

from bioattn.config import RunConfig
from bioattn.plot.interactions import attention_epistasis, four_cells, pair_figure
from bioattn.plot.multiplicity import calls_against_hits
from bioattn.plot.network import interaction_network
from bioattn.plot.spacing import spacing_curve
from bioattn.plot.style import TELLING, VERDICTS
from bioattn.report.blocks import (
    Block,
    Box,
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
    Tile,
    picture,
    tsv_uri,
    verdict_slug,
)  # fmt: skip
from bioattn.report.files import ResultFiles
from bioattn.report.model import attention_is_needed
from bioattn.report.numbers import count, interval, listing, number, p_value, percent, with_interval
from bioattn.report.tables import definitions, is_numeric, plain_table, readable, records, value_cell
from bioattn.report.words import MODEL_KINDS, VERDICT_BOX, VERDICT_MEANING

INTERACTIONS = "interactions/table/interactions.tsv"
_COLUMNS = "interactions/table/columns.tsv"
_SPACING = "interactions/table/spacing.tsv"
_LIBRARY = "interactions/hits/library.parquet"
_MOTIFS = "interactions/table/motifs.tsv"
_NEEDED = ["tf_a", "tf_b", "verdict", "epistasis_effect", "attention_effect"]
#: Rows in the page; browsers sort this many at once without a pause.
_MOST_ROWS = 1500
#: A larger table is not carried inside the page.
_MOST_DOWNLOAD_ROWS = 20_000
_MOST_CARDS = 6
#: A smaller share of an epistasis is not named.
_SHOWN = 0.005
_COMPACT = [
    "tf_a", "tf_b", "verdict", "epistasis_effect", "epistasis_q", "attention_effect", "cooccurrence_logodds",
    "mediated_fraction", "seeds_supporting", "evidence_level",
]  # fmt: skip
#: Columns shown under their effect, as an interval, when the table is compact.
_INTERVALS = {
    "epistasis_effect": ("epistasis_ci_low", "epistasis_ci_high"),
    "cooccurrence_logodds": ("cooccurrence_ci_low", "cooccurrence_ci_high"),
    "interventional_effect": ("interventional_ci_low", "interventional_ci_high"),
}
_CELLS = ["cell_neither", "cell_a", "cell_b", "cell_both"]


def read_interactions(files: ResultFiles, run: RunConfig) -> pd.DataFrame | Notice:
    """The table of pairs, or why there is none."""
    if not run.motifs.any:
        return Notice("This run names neither motifs nor sites (settings: motifs), so there are no pairs to test.")
    if not run.model.has_attention:
        return Notice(f"{MODEL_KINDS[run.model.encoder]} has no attention, so no pairs were looked for.")
    return files.table(INTERACTIONS, _NEEDED, needed_for="verdict on motif pairs")


def verdict_tiles(pairs: pd.DataFrame) -> list[Tile]:
    """One tile per verdict, in order of how much it claims."""
    counts = pairs["verdict"].value_counts()
    return [
        Tile(f"{int(counts.get(verdict, 0)):,}", verdict, verdict=verdict_slug(verdict))
        for verdict in VERDICTS
        if verdict in TELLING or counts.get(verdict, 0)
    ]


def interactions_section(files: ResultFiles, run: RunConfig) -> Section:
    """Everything about pairs, from what verdicts mean to the full table."""
    pairs = read_interactions(files, run)
    blocks: list[Block] = [Box("What the verdicts mean", VERDICT_BOX, list(VERDICT_MEANING.items()))]
    if isinstance(pairs, Notice):
        return Section("interactions", "Interactions of motifs", [*blocks, pairs])
    blocks.append(Text(_summary(pairs)))
    needed = attention_is_needed(files, run)
    blocks += [needed] if needed else []
    blocks += _cards(pairs, _matrices(files))
    blocks.append(Pictures(_pictures(pairs, run)))
    blocks += _syntax(files, pairs)
    blocks += _single_motifs(files)
    dictionary = files.table(_COLUMNS, ["column", "definition"], needed_for="definition of the columns")
    if isinstance(dictionary, Notice):
        blocks.append(dictionary)
    blocks.append(pair_table(pairs, None if isinstance(dictionary, Notice) else dictionary, files.run))
    return Section("interactions", "Interactions of motifs", blocks)


def _summary(pairs: pd.DataFrame) -> str:
    text = f"{count(len(pairs), 'pair')} of motifs"
    if {"tested", "candidate"} <= set(pairs):
        tested, candidate = _true(pairs["tested"]), _true(pairs["candidate"])
        text += (
            f": {int(candidate.sum()):,} pointed to by attention; {int(tested.sum()):,} tested by intervention, of "
            f"which {int((tested & ~candidate).sum()):,} are controls that attention did not point to"
        )
    if "minimum_effect" in pairs and pairs["minimum_effect"].notna().any():
        text += f". An epistasis below {number(pairs['minimum_effect'].dropna().iloc[0])} does not count"
    return f"{text}."


def _true(values: pd.Series) -> pd.Series:
    return values.astype(str).str.lower().isin(["true", "1", "1.0"])


# ------------------------------------------------------------------------- cards


def _matrices(files: ResultFiles) -> dict[str, np.ndarray]:
    """PPM (A, W) of each motif by its accession; empty where there is no library."""
    if not (files.root / _LIBRARY).exists():
        return {}
    table = files.table(_LIBRARY, ["motif_id", "ppm"], needed_for="logos of motifs")
    if isinstance(table, Notice):
        return {}
    return {row["motif_id"]: np.asarray(row["ppm"], dtype=float).reshape(4, -1) for row in records(table)}


def _cards(pairs: pd.DataFrame, matrices: dict[str, np.ndarray]) -> list[Block]:
    top = _standing_out(pairs)
    if top.empty:
        return [Text("No pair showed anything beyond chance that would deserve a card.")]
    cards = [_pair_card(row, matrices) for row in records(top)]
    return [Heading("The pairs that stand out"), Cards("", cards)]


def _standing_out(pairs: pd.DataFrame) -> pd.DataFrame:
    """The pairs that get a card: by verdict, then by size."""
    telling = pairs[pairs["verdict"].isin(TELLING)]
    order = {verdict: place for place, verdict in enumerate(VERDICTS)}
    telling = telling.assign(_order=telling["verdict"].map(order), _size=telling["epistasis_effect"].abs())
    return telling.sort_values(["_order", "_size"], ascending=[True, False], kind="stable").head(_MOST_CARDS)


def _pair_card(row: dict[str, Any], matrices: dict[str, np.ndarray]) -> Card:
    effect = with_interval(row["epistasis_effect"], row.get("epistasis_ci_low"), row.get("epistasis_ci_high"))
    facts = [Fact("epistasis", effect)]
    facts += [Fact("logic", str(row["logic"]))] if _known(row.get("logic")) else []
    facts.append(Fact("attention", f"{number(row['attention_effect'])} bits"))
    if _known(row.get("epistasis_ko")) and str(row.get("design")) == "knock-in":
        agree = {"yes": " (agrees)", "no": " (disagrees)"}.get(str(row.get("design_agreement")), "")
        facts.append(Fact("knocked out", f"{number(row['epistasis_ko'])}{agree}"))
    if _known(row.get("mediated_fraction")):
        facts.append(Fact("through attention", _shares(row)))
    if _known(row.get("carrying_head")):
        facts.append(Fact("heads that carry it", f"{row['carrying_head']} ({percent(row['head_fraction'])})"))
    elsewhere = {"balanced_epistasis": "motifs balanced", "gc_balanced_epistasis": "GC balanced"}
    facts += [Fact(name, number(row[column])) for column, name in elsewhere.items() if _known(row.get(column))]
    if _known(row.get("cooccurrence_logodds")):
        facts.append(Fact("co-occurrence", f"{number(row['cooccurrence_logodds'])} (log odds)"))
    for side in ("a", "b"):
        others = [name for name in str(row.get(f"members_{side}") or "").split(", ") if name != str(row[f"tf_{side}"])]
        if any(others):
            facts.append(Fact(f"{row[f'tf_{side}']} stands for", listing(others)))
    if _known(row.get("seeds_supporting")) and _known(row.get("n_replicates")):
        facts.append(Fact("replicates", f"{number(row['seeds_supporting'])} of {number(row['n_replicates'])}"))
    text = str(row["sentence"]) if _known(row.get("sentence")) else VERDICT_MEANING.get(str(row["verdict"]), "")
    return Card(
        f"{row['tf_a']} + {row['tf_b']}", text=text, chip=str(row["verdict"]),
        verdict=verdict_slug(row["verdict"]), picture=_cells_picture(row, matrices), facts=facts,
    )  # fmt: skip


def _shares(row: dict[str, Any]) -> str:
    """Share through the edge between the sites, and where the rest of the epistasis comes about."""
    names = {"third_party_fraction": "other tokens", "readout_fraction": "the readout"}
    shown = {place: row[name] for name, place in names.items() if _known(row.get(name)) and abs(row[name]) >= _SHOWN}
    rest = [f"{percent(share)} in {place}" for place, share in shown.items()]
    return percent(row["mediated_fraction"]) + (f"; {', '.join(rest)}" if rest else "")


def _syntax(files: ResultFiles, pairs: pd.DataFrame) -> list[Block]:
    """Epistasis against distance and strands, of the pairs that have a card; nothing where sites are fixed."""
    if not (files.root / _SPACING).exists():
        return []
    table = files.table(_SPACING, ["tf_a", "tf_b", "distance_bp", "epistasis"], needed_for="distances of pairs")
    if isinstance(table, Notice):
        return [table]
    pictures = []
    for row in records(_standing_out(pairs)):
        part = table[(table["tf_a"] == row["tf_a"]) & (table["tf_b"] == row["tf_b"])]
        if len(part):
            pictures.append(_spacing_picture(row, part))
    if not pictures:
        return []
    text = (
        "Both motifs lie around the middle of the same backgrounds, at every distance and in either order. Bands: 95 % "
        "intervals over backgrounds; grey: epistasis that does not count."
    )
    return [Heading("Distance, strands and order"), Text(text), Pictures(pictures)]


def _single_motifs(files: ResultFiles) -> list[Block]:
    """Table of single motifs; nothing where sites are fixed."""
    if not (files.root / _MOTIFS).exists():
        return []
    columns = ["tf", "effect", "effect_ci_low", "effect_ci_high", "decoy_effect", "q_value", "seeds_supporting"]
    table = files.table(_MOTIFS, columns, needed_for="effects of single motifs")
    if isinstance(table, Notice):
        return [table]
    text = (
        "A site of each motif is put into the same backgrounds, and in its place a decoy: its letters in another "
        "order. q: of the difference."
    )
    ranges = [interval(low, high) for low, high in zip(table["effect_ci_low"], table["effect_ci_high"], strict=True)]
    shown = table[[name for name in ("tf", "members", "n_hits", "effect") if name in table]].copy()
    shown["95 % interval"], shown["of its decoy"] = ranges, table["decoy_effect"]
    shown["q"], shown["replicates"] = table["q_value"], table["seeds_supporting"]
    titles = {"tf": "motif", "members": "stands for", "n_hits": "sequences with a hit"}
    return [
        Heading("What single motifs do"),
        Text(text),
        plain_table(
            "single-motifs", "Effect of putting in one motif, largest first", shown, titles=titles, sortable=True
        ),
    ]


def _spacing_picture(row: dict[str, Any], curves: pd.DataFrame) -> Picture:
    a, b = str(row["tf_a"]), str(row["tf_b"])
    tests = {"distance": "spacing_q", "strand": "orientation_q", "order": "order_q"}
    told = [f"{what} q = {p_value(row[name])}" for what, name in tests.items() if _known(row.get(name))]
    return picture(
        spacing_curve(curves, minimum=row.get("minimum_effect"), names=(a, b)),
        alt=f"Lines: epistasis of {a} and {b} at each distance, on the same strand and on opposite ones",
        caption=f"{a} + {b}: {', '.join(told)}.",
    )


def _cells_picture(row: dict[str, Any], matrices: dict[str, np.ndarray]) -> Picture | None:
    if not all(_known(row.get(name)) for name in _CELLS):
        return None
    means = np.array([float(row[name]) for name in _CELLS])
    values = ", ".join(f"{name} {number(v)}" for name, v in zip(("neither", "A", "B", "both"), means, strict=True))
    ids = [row.get(f"motif_id_{side}") for side in ("a", "b")]
    if all(motif_id in matrices for motif_id in ids):
        names = [str(row[f"tf_{side}"]) for side in ("a", "b")]
        drawing = pair_figure(means, [matrices[str(motif_id)] for motif_id in ids], names)
        return picture(drawing, alt=f"Logos of {' and '.join(names)}; bars: mean readout with {values}")
    return picture(four_cells(means), alt=f"Bars: mean readout with {values}")


def _known(value: object) -> bool:
    return value is not None and value == value and value != ""


# ---------------------------------------------------------------------- pictures


def _pictures(pairs: pd.DataFrame, run: RunConfig) -> list[Picture]:
    strong = pairs[pairs["verdict"].isin(TELLING)]
    names = listing([f"{row['tf_a']}-{row['tf_b']} ({row['verdict']})" for row in records(strong.head(8))])
    minimum = pairs["minimum_effect"].dropna().iloc[0] if _has(pairs, "minimum_effect") else None
    return [
        picture(
            interaction_network(pairs),
            alt=f"Network of tested motif pairs. {names or 'No pair stands out'}",
            caption="Tested pairs. Colour and line: verdict; width: size of the epistasis.",
        ),
        picture(
            attention_epistasis(pairs, floor=run.interactions.attention_floor_bits, minimum=minimum),
            alt="Scatter plot: attention effect in bits against epistasis, coloured by verdict",
            caption=(
                "What attention says (right of the dashed line: a candidate) against what interventions say (outside "
                "the grey band: an effect that counts)."
            ),
        ),
        *_multiplicity(pairs),
    ]


def _multiplicity(pairs: pd.DataFrame) -> list[Picture]:
    """Calls of each motif against its hits, where hits were counted."""
    if not {"n_hits_a", "n_hits_b", "candidate"} <= set(pairs):
        return []
    claimed = pairs["verdict"].isin(["causal in model", "hidden (causal without attention)"])
    calls = pairs.assign(candidates=_true(pairs["candidate"]), claims=claimed)
    sides = [
        calls[[f"tf_{side}", f"n_hits_{side}", "candidates", "claims"]].set_axis(
            ["motif", "n_hits", "candidates", "claims"], axis=1
        )
        for side in ("a", "b")
    ]
    motifs = (
        pd.concat(sides)
        .groupby("motif")
        .agg(n_hits=("n_hits", "first"), candidates=("candidates", "sum"), claims=("claims", "sum"))
    )
    ranks = {name: motifs["n_hits"].corr(motifs[name], method="spearman") for name in ("candidates", "claims")}
    told = {"candidates": "candidates of attention", "claims": "interactions of the model"}
    words = [f"{told[name]} {number(rho)}" for name, rho in ranks.items() if rho == rho]
    caption = "Calls of each motif against its hits: common motifs must not be called more because they are common."
    return [
        picture(
            calls_against_hits(motifs, told),
            alt="Scatter plot: pairs called for each motif against the sequences with a hit of it",
            caption=caption + (f" Rank correlation: {', '.join(words)}." if words else ""),
        )
    ]


def _has(pairs: pd.DataFrame, column: str) -> bool:
    return column in pairs and bool(pairs[column].notna().any())


# ------------------------------------------------------------------------- table


def pair_table(pairs: pd.DataFrame, dictionary: pd.DataFrame | None, run: str) -> Table:
    """The sortable, filterable table: compact columns first, all columns behind a switch."""
    tips = definitions(dictionary)
    compact = [name for name in _COMPACT if name in pairs]
    others = [str(name) for name in pairs if name not in compact]
    columns = [
        Column(name, readable(name), tips.get(name, ""), is_numeric(pairs[name]), compact=name in compact)
        for name in [*compact, *others]
    ]
    shown = pairs.head(_MOST_ROWS)
    rows = [[_pair_cell(column.key, row) for column in columns] for row in records(shown)]
    note = (
        "" if len(shown) == len(pairs) else f"First {len(shown):,} of {len(pairs):,} pairs; {INTERACTIONS} holds all. "
    )
    carried = pairs.head(_MOST_DOWNLOAD_ROWS)
    return Table(
        "pairs",
        "All pairs, largest effects first",
        columns,
        rows,
        sortable=True,
        tools=True,
        verdicts=[verdict for verdict in VERDICTS if (shown["verdict"] == verdict).any()],
        note=note + "Point at a column name for its definition.",
        download=tsv_uri(carried),
        download_name=f"{re.sub(r'[^A-Za-z0-9_-]', '_', run)}.interactions.tsv",
    )


def _pair_cell(column: str, row: dict[str, Any]) -> Cell:
    if column == "verdict":
        order = list(VERDICTS).index(row["verdict"]) if row["verdict"] in VERDICTS else len(VERDICTS)
        full = str(row["verdict"])
        short = VERDICTS[full].short if full in VERDICTS else full
        return Cell(short, sort=str(order), verdict=verdict_slug(full), full=full)
    cell = value_cell(column, row[column])
    if column in _INTERVALS:
        low, high = _INTERVALS[column]
        return Cell(cell.text, below=interval(row.get(low), row.get(high)), sort=cell.sort)
    if column == "attention_effect" and _known(row.get("attention_q")):
        return Cell(cell.text, below=f"q = {p_value(row['attention_q'])}", sort=cell.sort)
    if column == "seeds_supporting" and _known(row.get("n_replicates")):
        return Cell(f"{cell.text} of {number(row['n_replicates'])}", sort=cell.sort)
    return cell


# ------------------------------------------------------------------------- truth


def truth_section(files: ResultFiles, run: RunConfig) -> Section | None:
    """Simulated runs: what was planted next to what was found; None for real data."""
    if not (files.root / "input/truth_pairs.tsv").exists():
        return None
    truth = files.table(
        "input/truth_pairs.tsv", ["motif_a", "motif_b", "class", "interaction"], needed_for="comparison with the truth"
    )
    pairs = read_interactions(files, run)
    broken: list[Block] = [part for part in (truth, pairs) if isinstance(part, Notice)]
    if isinstance(truth, Notice) or isinstance(pairs, Notice):
        return Section("truth", "Truth of the simulation", broken)
    joined = join_truth(pairs, truth)
    planted = joined[joined["interaction"] != 0]
    found = int((planted["verdict"] == "causal in model").sum())
    false = int(((joined["interaction"] == 0) & (joined["verdict"] == "causal in model")).sum())
    text = (
        f"These sequences were simulated, so the truth is known. {found} of "
        f"{count(len(planted), 'planted interaction')} got the verdict 'causal in model'; {count(false, 'pair')} "
        "without an interaction got it too."
    )
    blocks: list[Block] = [
        Text(text),
        Table("truth-classes", "Planted classes of pairs and their verdicts", _TRUTH_COLUMNS, _truth_rows(joined)),
        plain_table("truth-pairs", "Designed pairs, one by one", _designed(joined), sortable=True),
    ]
    return Section("truth", "Truth of the simulation", blocks)


_CLASS_MEANING = {
    "AND": "both motifs together raise the readout; placed independently",
    "AND_COOC": "both motifs together raise the readout; placed together by a common cause",
    "OR": "either motif raises the readout, the second adds nothing; placed independently",
    "REP": "the first motif raises the readout unless the second is there; placed independently",
    "XOR": "exactly one of the motifs raises the readout; placed independently",
    "SPC": "both motifs together at a good distance raise the readout; placed independently",
    "ORI": "both motifs together on the same strand raise the readout; placed independently",
    "ORD": "both motifs together in the right order raise the readout; placed independently",
    "INERT": "placed together by a common cause; do nothing",
    "ADDITIVE": "placed together by a common cause; each adds its own effect",
    "CHAIN": "the first motif raises the readout and brings the second, which does nothing",
    "HIDDEN": "a cause outside the sequence places them and raises the readout",
    "GC": "likely where GC is high; GC itself raises the readout",
    "PARALOG": "the first motif raises the readout; the second looks like it and is never placed",
    "DECOY": "placed independently; do nothing",
    "NULL": "all other pairs",
}
_TRUTH_COLUMNS = [
    Column("class", "class"),
    Column("pairs", "pairs", numeric=True),
    Column("interaction", "true interaction", numeric=True),
    Column("effect", "measured epistasis", numeric=True),
    Column("verdicts", "verdicts"),
]


def join_truth(pairs: pd.DataFrame, truth: pd.DataFrame) -> pd.DataFrame:
    """Pairs with the truth about each, whichever way round the two motifs are written."""
    key = ["_first", "_second"]
    known = ["class", "interaction", *(["depends_on"] if "depends_on" in truth else [])]
    named = truth.rename(columns={"motif_a": "tf_a", "motif_b": "tf_b"})
    joined = _keyed(pairs).merge(_keyed(named)[[*key, *known]], on=key, how="left")
    joined = joined.assign(
        **{"class": joined["class"].fillna("NULL"), "interaction": joined["interaction"].fillna(0.0)}
    )
    return joined.drop(columns=key)


def _keyed(table: pd.DataFrame) -> pd.DataFrame:
    ends = np.sort(table[["tf_a", "tf_b"]].astype(str).to_numpy(), axis=1)
    return table.assign(_first=ends[:, 0], _second=ends[:, 1])


def _truth_rows(joined: pd.DataFrame) -> list[list[Cell]]:
    order = {name: place for place, name in enumerate(_CLASS_MEANING)}
    rows = []
    for name in sorted(set(joined["class"]), key=lambda n: order.get(n, 99)):
        part = joined[joined["class"] == name]
        counts = part["verdict"].value_counts()
        verdicts = ", ".join(f"{counts[v]:,} {VERDICTS[v].short}" for v in VERDICTS if v in counts)
        cells = [
            Cell(str(name), below=_CLASS_MEANING.get(str(name), "")),
            Cell(number(len(part))),
            Cell(number(part["interaction"].mean())),
            Cell(number(part["epistasis_effect"].mean())),
            Cell(verdicts),
        ]
        rows.append(cells)
    return rows


def _designed(joined: pd.DataFrame) -> pd.DataFrame:
    columns = ["class", "tf_a", "tf_b", "interaction"]
    columns += ["depends_on"] if "depends_on" in joined and joined["depends_on"].fillna("").ne("").any() else []
    columns += ["epistasis_effect", "attention_effect"]
    columns += [name for name in ("cooccurrence_logodds", "verdict") if name in joined]
    return joined[joined["class"] != "NULL"][columns]
