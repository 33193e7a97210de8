"""Section about the data: counts, lengths, composition, and records that were left out."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from bioattn.config import RunConfig
from bioattn.plot.balance import LARGE, SMALL, love_plot
from bioattn.report.blocks import Block, Fact, Facts, Heading, Notice, Pictures, Section, Text, picture
from bioattn.report.files import ResultFiles
from bioattn.report.numbers import count, listing, number, percent, with_interval
from bioattn.report.tables import plain_table
from bioattn.report.words import METRIC_NAMES

_SEQUENCES = "data/sequences.parquet"
_SUMMARY = "data/summary.json"
_BALANCE = "data/balance.tsv"
_COMPOSITION = "data/composition.tsv"
#: Columns that name a comparison: a target and its two sides.
_CONTRAST = ["target", "group", "reference"]
#: Comparisons that get a sentence and a figure.
_MOST_CONTRASTS = 3
_FEATURES = {
    "gc": "GC content",
    "cpg_ratio": "CpG observed over expected",
    "length": "length",
    "soft_masked": "soft-masked share",
    "unknown": "share of unknown bases",
    "top_dinucleotide": "share of the most frequent dinucleotide",
}
_STATISTICS = {"n": "sequences", "mean": "mean", "sd": "standard deviation"}
#: Numbers and quoted text in a reason.
_VARIABLE = r"'[^']*'|\d+(?:\.\d+)?"
#: Records that are named for each reason.
_MOST_PLACES = 3
#: Counts of the summary that are shown unless they are 0.
_COUNTS = {
    "n_read": "records read",
    "n_rejected": "records rejected",
    "n_merged": "regions merged (same place)",
    "n_duplicates_dropped": "duplicates dropped",
    "n_negatives_made": "negatives made",
}


def data_section(files: ResultFiles, run: RunConfig) -> Section:
    """What was read: counts, lengths, GC per class, what composition alone can tell, and rejected records."""
    table = files.table(_SEQUENCES, ["name", "sequence", "length"], needed_for="summary of the sequences")
    blocks: list[Block] = (
        [table] if isinstance(table, Notice) else _sequences(table, run, files.document(_SUMMARY) or {})
    )
    blocks += [*_balance(files, run), *_composition(files, run), *_rejected(files)]
    return Section("data", "Data", blocks)


def _sequences(table: pd.DataFrame, run: RunConfig, summary: dict[str, Any]) -> list[Block]:
    lengths = table["length"]
    span = f"{lengths.min():,} bp" if lengths.min() == lengths.max() else f"{lengths.min():,} to {lengths.max():,} bp"
    facts = [
        Fact("sequences", f"{len(table):,}"),
        Fact("distinct sequences", f"{table['sequence'].nunique():,}"),
        Fact("length", span),
        Fact("GC content", percent(_gc(table["sequence"]).mean())),
    ]
    if "sample" in table:
        facts.append(Fact("input files", f"{table['sample'].nunique():,}"))
    facts += [Fact(text, number(summary[key])) for key, text in _COUNTS.items() if summary.get(key)]
    groups = _by_class(table, run)
    title = "Sequences by class" if run.task.kind in ("binary", "multilabel", "multiclass") else "Sequences by target"
    note = (
        "A difference in length or GC between classes is something a model can use instead of motifs. The baseline "
        "'composition only' shows how far that goes."
    )
    return [Facts(facts), plain_table("classes", title, groups, note=note)]


def _by_class(table: pd.DataFrame, run: RunConfig) -> pd.DataFrame:
    """Counts, lengths and GC per class; for numeric targets per third of the values."""
    table = table.assign(_gc=_gc(table["sequence"]))
    rows = []
    for target in [t for t in run.task.targets if t in table]:
        order = table[target].sort_values(kind="stable").index
        for label, part in table.loc[order].groupby(_labels(table[target], run), sort=False):
            rows.append(
                {
                    "target": target,
                    "class": str(label),
                    "sequences": len(part),
                    "mean length (bp)": part["length"].mean(),
                    "GC, mean": part["_gc"].mean(),
                    "GC, standard deviation": part["_gc"].std(),
                }
            )
    return pd.DataFrame(rows, columns=list(rows[0]) if rows else ["target", "class", "sequences"])


def _labels(values: pd.Series, run: RunConfig) -> pd.Series:
    if run.task.kind in ("regression", "count"):
        labels = pd.qcut(values.rank(method="first"), 3, labels=["lowest third", "middle third", "highest third"])
        return labels.astype("object").fillna("missing")
    if run.task.kind == "multiclass":
        names = dict(enumerate(run.task.classes))
        return values.map(lambda value: names.get(int(value), str(value)) if pd.notna(value) else "missing")
    return values.map({0.0: "0 (negative)", 1.0: "1 (positive)"}).fillna("missing")


def _gc(sequences: pd.Series) -> pd.Series:
    """GC share of the known letters of each sequence."""
    gc = sequences.str.count("[GC]")
    return gc / (gc + sequences.str.count("[AT]")).clip(lower=1)


# -------------------------------------------------------------- what tells the classes apart


def _balance(files: ResultFiles, run: RunConfig) -> list[Block]:
    """Standardised differences of simple features, in words, as a figure and as a table."""
    table = files.table(_BALANCE, [*_CONTRAST, "feature", "stage", "smd"], needed_for="comparison of composition")
    if isinstance(table, Notice):
        return [table]
    table = table[~table["feature"].isin(_unvaried(table))]
    after = table[table["stage"] == "after"]
    worst = after["smd"].abs().groupby([after[name] for name in _CONTRAST], sort=False).max()
    order = list(worst.sort_values(ascending=False, kind="stable").index[:_MOST_CONTRASTS])
    pictures, sentences = [], []
    for contrast in order:
        rows = table[(table[_CONTRAST] == list(contrast)).all(axis=1)]
        sentences.append(_difference_sentence(rows, _sides(contrast, run)))
        shown = rows.assign(feature=rows["feature"].map(_feature))
        sizes = shown[shown["stage"] == "after"].set_index("feature")["smd"]
        alt = "Dots: " + "; ".join(f"{feature} {_size(size)}" for feature, size in sizes.items())
        pictures.append(picture(love_plot(shown), alt=alt, caption=f"{_caption(contrast, run)}."))
    if not order:
        sentences.append("No feature of composition differs at all.")
    if len(worst) > len(order):
        sentences.append(f"The {len(order)} of {len(worst)} comparisons that differ most are shown; the table has all.")
    note = (
        "A standardised difference is the difference of the means in standard deviations; below 0.1 it is customarily "
        "called negligible, above 0.25 large. Features that are the same everywhere are left out."
    )
    title = "Composition of the classes"
    # The sides by name where there is one comparison, else as the column with the comparison names them.
    sides = _sides(order[0], run) if len(worst) == 1 else ("first", "second")
    titles = {
        f"{key}_{side}": f"{text}, {name}"
        for key, text in _STATISTICS.items()
        for side, name in zip(("group", "reference"), sides, strict=True)
    }
    titles["smd"] = "standardised difference"
    return [
        Heading("Can composition tell the classes apart?"),
        *map(Text, sentences),
        *([Pictures(pictures)] if pictures else []),
        plain_table("balance", title, _readable_contrasts(table, run), titles=titles, note=note),
    ]


def _composition(files: ResultFiles, run: RunConfig) -> list[Block]:
    """Scores of models that see composition only, with a verdict."""
    needed = [*_CONTRAST, "features", "metric", "value", "ci_low", "ci_high", "n"]
    table = files.table(_COMPOSITION, needed, needed_for="score of composition alone")
    if isinstance(table, Notice):
        if "no rows" in table.text:
            return [Text("There are too few sequences to see how far composition alone predicts the target.", "small")]
        return [table]
    best = table.sort_values("value", ascending=False, kind="stable").iloc[0]
    shown = _readable_contrasts(table, run)
    score = [with_interval(*row) for row in table[["value", "ci_low", "ci_high"]].itertuples(index=False)]
    shown.insert(list(shown).index("value"), "score", score)
    shown["metric"] = [METRIC_NAMES.get(name, name) for name in shown["metric"]]
    shown = shown.drop(columns=["value", "ci_low", "ci_high", "n_folds"], errors="ignore")
    note = (
        "Linear models of GC content or of the frequencies of all di- or trinucleotides, on held-out sequences "
        "(5-fold cross-validation; identical sequences, and negatives made from a positive, stay together), with 95 % "
        "intervals. They see no positions and no motif longer than three letters. A score below that of chance (AUROC "
        "0.5, r 0) means the same as chance: composition tells nothing."
    )
    caption = "What composition alone predicts"
    return [
        Text(_verdict(best, _sides(list(best[_CONTRAST]), run), run)),
        plain_table("composition", caption, shown, titles={"n": "sequences"}, note=note),
    ]


def _difference_sentence(rows: pd.DataFrame, sides: tuple[str, str]) -> str:
    """Which features differ between two sides, and what that means for a model."""
    after = rows[rows["stage"] == "after"].set_index("feature")
    before = rows[rows["stage"] == "before"].set_index("feature")["smd"].abs()
    order = after["smd"].abs().sort_values(ascending=False, kind="stable").index
    large = [name for name in order if abs(after["smd"][name]) >= LARGE]
    small = [name for name in order if SMALL <= abs(after["smd"][name]) < LARGE]
    parts = []
    for name in large:
        row = after.loc[name]
        means = f"{number(row['mean_group'])} in {sides[0]}, {number(row['mean_reference'])} in {sides[1]}"
        size = "in every sequence" if math.isinf(row["smd"]) else f"by {_size(row['smd'])} standard deviations"
        feature = _feature(name)
        parts.append(f"{feature[0].upper()}{feature[1:]} differs {size} ({means}).")
    if "soft_masked" in large:
        parts.append("Models do not see lower case, but may see the repeats that it marks, if it does.")
    if set(large) - {"soft_masked"}:
        parts.append("A model can use such differences instead of motifs.")
    if small:
        parts.append(f"Small differences ({SMALL:g} to {LARGE:g}): {listing([_feature(name) for name in small])}.")
    if not large and not small:
        parts.append(f"No feature differs by {SMALL:g} standard deviations or more between {sides[0]} and {sides[1]}.")
    changes = [
        f"{_feature(name)} from {_size(before[name])} to {_size(after['smd'][name])}"
        for name in before.index[before >= SMALL]
        if name in after.index and abs(after["smd"][name]) < before[name]
    ]
    if changes:
        parts.append(f"Matching took the difference in {listing(changes)}.")
    return " ".join(parts)


def _verdict(best: pd.Series, sides: tuple[str, str], run: RunConfig) -> str:
    numeric = best["metric"] == "pearson"
    low, high = (0.2, 0.5) if numeric else (0.6, 0.75)
    value = float(best["value"])
    metric = METRIC_NAMES.get(best["metric"], best["metric"])
    score = f"{metric} {with_interval(value, best['ci_low'], best['ci_high'])}, from {best['features']}"
    task = f"predicts {best['target']}" if numeric else f"tells {sides[0]} from {sides[1]}"
    if value < low:
        return f"Composition alone hardly {task} ({score}): a model that does better has found more than composition."
    if value < high:
        return f"Composition alone {task} to some degree ({score}): compare every score of a model with this one."
    way_out = ""
    if run.task.kind == "binary" and run.data.negatives.kind == "none":
        way_out = " Negatives that are matched in composition (data.negatives) make a model look for motifs."
    return f"Composition alone {task} well ({score}): a model needs no motif for such a score.{way_out}"


def _sides(contrast: Sequence[str], run: RunConfig) -> tuple[str, str]:
    """What the two sides of a comparison are called in a sentence."""
    _, group, reference = map(str, contrast)
    if run.task.kind in ("binary", "multilabel"):
        return "positives", "negatives"
    if run.task.kind == "multiclass":
        return f"class {group}", reference
    return f"the {group}", f"the {reference}"


def _caption(contrast: Sequence[str], run: RunConfig) -> str:
    group, reference = _sides(contrast, run)
    of = f" ({contrast[0]})" if len(run.task.targets) > 1 or run.task.kind in ("regression", "count") else ""
    return f"{group[0].upper()}{group[1:]} against {reference}{of}"


def _readable_contrasts(table: pd.DataFrame, run: RunConfig) -> pd.DataFrame:
    """The table with the columns of a comparison as one, left out if it is always the same, and features in words."""
    shown = table.drop(columns=_CONTRAST)
    if "feature" in shown:
        shown["feature"] = shown["feature"].map(_feature)
    if len(table[_CONTRAST].drop_duplicates()) > 1:
        shown.insert(0, "comparison", [_caption(row, run) for row in table[_CONTRAST].itertuples(index=False)])
    if "stage" in shown and (shown["stage"] == "after").all():
        shown = shown.drop(columns="stage")
    return shown


def _unvaried(table: pd.DataFrame) -> list[str]:
    """Features that are the same on both sides of every comparison."""
    varies = (table["smd"] != 0).groupby(table["feature"]).any()
    return [str(name) for name in varies.index[~varies]]


def _size(difference: float) -> str:
    return number(abs(difference), digits=2)


def _feature(name: object) -> str:
    return _FEATURES.get(str(name), str(name).replace("_", " "))


# ---------------------------------------------------------------------- rejected records


def _rejected(files: ResultFiles) -> list[Block]:
    if not (files.root / "data/rejected.tsv").exists():
        return []
    rejected = files.table("data/rejected.tsv", ["file", "line", "name", "reason"], needed_for="rejected records")
    if isinstance(rejected, Notice):
        return [Text("No record was rejected.", "small")] if "no rows" in rejected.text else [rejected]
    # Reasons that differ in a number or a quoted name only are one reason, shown as the first record has it.
    kind = rejected["reason"].astype(str).str.replace(_VARIABLE, "…", regex=True)
    rows = []
    for _, part in rejected.groupby(kind, sort=False):
        first = [_place(row) for row in part.head(_MOST_PLACES).to_dict("records")]
        more = ["…"] if len(part) > len(first) else []
        rows.append({"records": len(part), "reason": part["reason"].iloc[0], "first": "; ".join([*first, *more])})
    grouped = pd.DataFrame(rows).sort_values("records", ascending=False, kind="stable")
    note = (
        "Reasons that differ only in a number or a name are counted together." if len(rejected) > len(grouped) else ""
    )
    caption = f"{count(len(rejected), 'rejected record')}, by reason"
    return [plain_table("rejected", caption, grouped, titles={"first": "first of them"}, most_rows=20, note=note)]


def _place(row: Mapping[Any, Any]) -> str:
    """Where a rejected record is; a made one is nowhere but has a name."""
    return str(row["name"]) if row["file"] == "(made)" else f"{row['file']} line {row['line']}: {row['name']}"
