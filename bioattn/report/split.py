"""Section about the split: who is held out, and what held-out sequences share with training."""

import re

import pandas as pd

from bioattn.config import RunConfig
from bioattn.plot.split import leakage_bars, split_bars
from bioattn.report.blocks import Block, Fact, Facts, Notice, Pictures, Section, Text, picture
from bioattn.report.files import ResultFiles
from bioattn.report.numbers import percent
from bioattn.report.tables import plain_table

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
