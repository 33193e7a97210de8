"""Sections about the data: counts, lengths, composition, split and leakage."""

import re
from typing import Any

import pandas as pd

from bioattn.config import RunConfig
from bioattn.plot.split import leakage_bars, split_bars
from bioattn.report.blocks import Block, Fact, Facts, Notice, Pictures, Section, Text, picture
from bioattn.report.files import ResultFiles
from bioattn.report.numbers import count, number, percent
from bioattn.report.tables import plain_table

_SEQUENCES = "data/sequences.parquet"
_SUMMARY = "data/summary.json"
#: Counts of the summary that are shown unless they are 0.
_COUNTS = {
    "n_read": "records read",
    "n_rejected": "records rejected",
    "n_duplicates_dropped": "duplicates dropped",
    "n_negatives_made": "negatives made",
}
#: Column of the leakage table without its prefix -> its name, and what the test sequences do.
_KINDS = {
    "identical_to_train": ("identical", "equal a training sequence"),
    "reverse_complement_of_train": ("reverse complement", "equal the reverse complement of a training sequence"),
    "sharing_kmer_with_train": ("shared k-mer", "share a k-mer with a training sequence"),
}
_LEAKAGE_TITLES = {
    "n": "sequences",
    "n_groups": "groups",
    "n_train": "training sequences",
    "n_groups_train": "training groups",
    "largest_group_train": "largest training group",
    "kmer": "k",
    **{f"n_{key}": label for key, (label, _) in _KINDS.items()},
}


def data_section(files: ResultFiles, run: RunConfig) -> Section:
    """What was read: counts, lengths, GC per class, and rejected records."""
    table = files.table(_SEQUENCES, ["name", "sequence", "length"], needed_for="summary of the sequences")
    blocks: list[Block] = (
        [table] if isinstance(table, Notice) else _sequences(table, run, files.document(_SUMMARY) or {})
    )
    blocks += _rejected(files)
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


def _rejected(files: ResultFiles) -> list[Block]:
    if not (files.root / "data/rejected.tsv").exists():
        return []
    rejected = files.table("data/rejected.tsv", [], needed_for="list of rejected records")
    if isinstance(rejected, Notice):
        return [Text("No record was rejected.", "small")] if "no rows" in rejected.text else [rejected]
    return [plain_table("rejected", f"{count(len(rejected), 'rejected record')}", rejected, most_rows=10)]


def split_section(files: ResultFiles, run: RunConfig) -> Section:
    """Who is trained on and who is held out, and what they share."""
    blocks: list[Block] = [Text(split_sentence(run))]
    split = files.table("split/split.parquet", ["name"], needed_for="split figure")
    leakage = files.table("split/leakage.tsv", ["fold", "subset", "n"], needed_for="leakage report")
    pictures = []
    if isinstance(split, Notice):
        blocks.append(split)
    else:
        counts = _fold_counts(split)
        if "group" in split:
            blocks.append(Facts([Fact("groups kept together", f"{split['group'].nunique():,}")]))
        if len(counts):
            alt = "Stacked bars: sequences for training, validation and test in each fold"
            pictures.append(picture(split_bars(counts), alt=alt, caption="Sequences per fold and part."))
    if isinstance(leakage, Notice):
        return Section("split", "Split and leakage", [*blocks, *([Pictures(pictures)] if pictures else []), leakage])
    shares = leakage_shares(leakage)
    if len(shares):
        alt = "Bars: " + "; ".join(f"{row.kind} {percent(row.fraction)}" for row in shares.itertuples())
        caption = "Test sequences that resemble a training sequence (worst fold)."
        pictures.append(picture(leakage_bars(shares), alt=alt, caption=caption))
        blocks.append(Text(_leakage_sentence(shares)))
    blocks += [Pictures(pictures)] if pictures else []
    counts = leakage[[name for name in leakage if not str(name).startswith("fraction_")]]
    caption = "Held-out sequences and what they share with training"
    blocks.append(plain_table("leakage", caption, counts, titles=_LEAKAGE_TITLES))
    return Section("split", "Split and leakage", blocks)


def split_sentence(run: RunConfig) -> str:
    """How examples were held out, in one or two sentences."""
    split = run.split
    if split.kind == "predefined":
        return "The parts were given with the data (training, validation, test) and taken as they are."
    rules = {
        "shared_kmer": f"sequences that share a {split.kmer}-mer on either strand",
        "coordinate": f"sequences that start within {split.coordinate_distance_bp} bp of each other",
        "column": f"sequences with the same value of '{split.column}'",
    }
    together = ["identical sequences", "reverse complements", *(rules[rule] for rule in split.group_by)]
    if split.n_folds > 1:
        how = f"{split.n_folds}-fold cross-validation"
    else:
        how = f"{percent(split.test_fraction)} for the test and {percent(split.validation_fraction)} for early stopping"
    return f"Held out: {how}. Never parted: {', '.join(together)}."


def _fold_counts(split: pd.DataFrame) -> pd.DataFrame:
    rows = []
    for column in split.columns:
        found = re.fullmatch(r"fold_(\d+)", str(column))
        if found:
            for subset, n in split[column].value_counts().items():
                rows.append({"fold": int(found[1]), "subset": subset, "n": int(n)})
    return pd.DataFrame(rows, columns=["fold", "subset", "n"])


def leakage_shares(leakage: pd.DataFrame) -> pd.DataFrame:
    """Largest share over folds of test sequences with each kind of resemblance: columns kind, does, fraction."""
    test = leakage[leakage["subset"] == "test"]
    rows = [
        {"kind": label, "does": does, "fraction": float((test[f"n_{key}"] / test["n"].clip(lower=1)).max())}
        for key, (label, does) in _KINDS.items()
        if f"n_{key}" in test and len(test)
    ]
    return pd.DataFrame(rows, columns=["kind", "does", "fraction"])


def _leakage_sentence(shares: pd.DataFrame) -> str:
    worst = float(shares["fraction"].max())
    if worst == 0:
        return "No test sequence resembles a training sequence in any of the ways that were checked."
    if worst < 0.01:
        return f"At most {percent(worst)} of the test sequences resemble a training sequence in one of these ways."
    row = shares.sort_values("fraction", ascending=False).iloc[0]
    return (
        f"{percent(worst)} of the test sequences {row['does']}, so part of the held-out score may be memory; "
        "split.group_by keeps such sequences together."
    )
