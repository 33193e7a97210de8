"""Section about the split: who is held out, and what held-out sequences share with training."""

import re

import pandas as pd

from bioattn.config import RunConfig
from bioattn.plot.split import leakage_bars, nearest_identity, split_bars
from bioattn.report.blocks import (
    Block,
    Cell,
    Column,
    Fact,
    Facts,
    Heading,
    Notice,
    Pictures,
    Section,
    Table,
    Text,
    picture,
)
from bioattn.report.files import ResultFiles
from bioattn.report.model import HeadlineScore, headline_score, held_out_scores, read_metrics
from bioattn.report.numbers import listing, number, percent, with_interval
from bioattn.report.tables import plain_table, records
from bioattn.report.words import MODEL_NAMES

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


_MEMORY = {"nearest_auroc": "AUROC", "nearest_accuracy": "accuracy", "nearest_pearson": "Pearson r"}
#: As the evaluation calls the rows about test sequences that resemble no training sequence.
LEAK_FREE = "test_leak_free"
_LEAK_FREE_COLUMNS = [
    Column("model", "model"),
    Column("readout", "readout"),
    Column("test", "all", numeric=True),
    Column("n", "n", tip="test sequences", numeric=True),
    Column("free", "leak-free", numeric=True),
    Column("n_free", "n", tip="leak-free test sequences", numeric=True),
]


def split_section(files: ResultFiles, run: RunConfig) -> Section:
    """Who is trained on and who is held out, and what they share."""
    blocks: list[Block] = [Text(split_sentence(run)), *_parts(files), *_leakage(files), *_nearest(files, run)]
    return Section("split", "Split and leakage", blocks)


def _parts(files: ResultFiles) -> list[Block]:
    split = files.table("split/split.parquet", ["name"], needed_for="split figure")
    if isinstance(split, Notice):
        return [split]
    blocks: list[Block] = []
    if "group" in split:
        sizes = split["group"].value_counts()
        facts = [("groups kept together", f"{len(sizes):,}"), ("sequences in the largest", f"{sizes.max():,}")]
        blocks.append(Facts([Fact(*fact) for fact in facts]))
    counts = _fold_counts(split)
    if len(counts):
        alt = "Stacked bars: sequences for training, validation and test in each fold"
        blocks.append(Pictures([picture(split_bars(counts), alt=alt, caption="Sequences per fold and part.")]))
    return blocks


def _leakage(files: ResultFiles) -> list[Block]:
    leakage = files.table("split/leakage.tsv", ["fold", "subset", "n"], needed_for="leakage report")
    if isinstance(leakage, Notice):
        return [leakage]
    blocks: list[Block] = []
    shares = leakage_shares(leakage)
    if len(shares):
        alt = "Bars: " + "; ".join(f"{row.kind} {percent(row.fraction)}" for row in shares.itertuples())
        caption = "Test sequences that resemble a training sequence (worst fold)."
        blocks += [
            Text(_leakage_sentence(shares)),
            Pictures([picture(leakage_bars(shares), alt=alt, caption=caption)]),
        ]
    counts = leakage[[name for name in leakage if not str(name).startswith("fraction_")]]
    caption = "Held-out sequences and what they share with training"
    return [*blocks, plain_table("leakage", caption, counts, titles=_LEAKAGE_TITLES)]


# -------------------------------------------------------------------- nearest training sequences


def _nearest(files: ResultFiles, run: RunConfig) -> list[Block]:
    """How near held-out sequences are to training, how far memory goes, and the scores without what is near."""
    columns = ["fold", "subset", "n", "measure", "readout", "identity", "count", "value", "chance"]
    audit = files.table("split/audit.tsv", columns, needed_for="audit of nearest training sequences")
    related = None if isinstance(audit, Notice) else _related(audit)
    sentence, table = _leak_free(files, run, related)
    blocks: list[Block] = [Heading("Nearest training sequences")]
    if isinstance(audit, Notice):
        blocks += [audit, *([Text(sentence)] if sentence else [])]
    else:
        blocks.append(Text(" ".join(part for part in (sentence, _memory_sentence(audit)) if part)))
    blocks += [_identity_curve(files, run, related), *table]
    if related is not None:
        titles = {"count": "so near", "value": "share", "chance": "share, shuffled", "sensitivity": "found"}
        note = (
            "Shuffled: what sequences of the same letters in another order reach. Found: estimated share of relatives "
            "that the search finds if their differences lie all over them; overlaps are found nearly always."
        )
        caption = "Held-out sequences with a training sequence of at least an identity"
        shown = related.assign(identity=related["identity"].map(percent))
        blocks.append(plain_table("audit", caption, shown, titles=titles, note=note))
    return blocks


def _identity_curve(files: ResultFiles, run: RunConfig, related: pd.DataFrame | None) -> Block:
    path = "split/neighbours.parquet"
    neighbours = files.table(path, ["subset", "identity"], needed_for="curve of nearest training sequences")
    if isinstance(neighbours, Notice):
        return neighbours
    chance = None if related is None else related[related["subset"] == "test"]
    drawing = nearest_identity(neighbours, leak_free=run.split.leak_free_identity, chance=chance)
    alt = "Falling curves: share of held-out sequences by the identity with their nearest training sequence"
    caption = (
        "Held-out sequences with a training sequence of at least this identity (identical bases of the best "
        "alignment on either strand, divided by the length of the shorter sequence), all folds."
    )
    return Pictures([picture(drawing, alt=alt, caption=caption)])


def _related(audit: pd.DataFrame) -> pd.DataFrame:
    """Counts and shares at each identity and subset, all folds together."""
    rows = audit[audit["measure"] == "related"]
    found = rows.groupby(["subset", "identity"], as_index=False, sort=False)
    columns = {"n": ("n", "sum"), "count": ("count", "sum"), "chance": ("chance", "mean")}
    if "sensitivity" in rows:
        columns["sensitivity"] = ("sensitivity", "mean")
    table = found.agg(**columns)
    table.insert(4, "value", table["count"] / table["n"].clip(lower=1))
    return table


def _test_share(related: pd.DataFrame | None, identity: float) -> float | None:
    """Share of test sequences with a training neighbour of an identity, if that was counted."""
    if related is None:
        return None
    rows = related[(related["subset"] == "test") & (abs(related["identity"] - identity) < 1e-9)]
    return float(rows["value"].iloc[0]) if len(rows) else None


def _memory_sentence(audit: pd.DataFrame) -> str:
    """How well the target of the nearest training sequence predicts that of a test sequence."""
    rows = audit[(audit["subset"] == "test") & audit["measure"].isin(_MEMORY)].dropna(subset=["value"])
    if rows.empty:
        return ""
    measure = next(measure for measure in _MEMORY if (rows["measure"] == measure).any())
    rows = rows[rows["measure"] == measure]
    constant = rows["chance"].mean()
    return (
        f"Predicting the target of the nearest training sequence, memory and nothing else, reaches "
        f"{_MEMORY[measure]} {number(rows['value'].mean())} on the test sequences (a constant: {number(constant)})."
    )


def _leak_free(files: ResultFiles, run: RunConfig, related: pd.DataFrame | None) -> tuple[str, list[Block]]:
    """How many test sequences are near to training and what the score is without them; the scores side by side."""
    near = _near_sentence(related, run)
    metrics = read_metrics(files)
    if isinstance(metrics, Notice) or not (metrics["subset"] == LEAK_FREE).any():
        return near, []  # the section of held-out scores says what is missing
    free = metrics[metrics["subset"] == LEAK_FREE].assign(subset="test")
    score, score_free = headline_score(metrics, run), headline_score(free, run)
    if score is None or score_free is None or score.metric != score_free.metric:
        return f"{near} {_no_leak_free_score(free)}".strip(), []
    values = score.model["value"], score_free.model["value"]
    if _test_share(related, run.split.leak_free_identity) == 0:
        sentence = f"{near} So the whole test score is leak-free: {score.name} {number(values[0])}."
    else:
        sentence = (
            f"{near} Without the test sequences that are so near, {score.name} of the trained model is "
            f"{number(values[1])} instead of {number(values[0])}."
        )
    return sentence.strip(), [_both_scores(metrics, free, score)]


def _both_scores(metrics: pd.DataFrame, free: pd.DataFrame, score: HeadlineScore) -> Table:
    keys = ["model", "readout", "metric"]
    both = held_out_scores(metrics).merge(held_out_scores(free), on=keys, suffixes=("", "_free"))
    order = {name: place for place, name in enumerate(MODEL_NAMES)}
    both = both.sort_values("model", key=lambda names: names.map(order).fillna(len(order)), kind="stable")
    rows = []
    for row in records(both[both["metric"] == score.metric]):
        texts = [MODEL_NAMES.get(str(row["model"]), str(row["model"])), str(row["readout"])]
        for end in ("", "_free"):
            texts.append(with_interval(*(row[f"{name}{end}"] for name in ("value", "ci_low", "ci_high"))))
            texts.append(number(row[f"n{end}"]))
        rows.append([Cell(text) for text in texts])
    return Table("leak-free", f"{score.name} on all and on leak-free test sequences", _LEAK_FREE_COLUMNS, rows)


def _no_leak_free_score(free: pd.DataFrame) -> str:
    """Why the leak-free test sequences have no score."""
    notes = free["note"].dropna().astype(str) if "note" in free else pd.Series(dtype=object)
    reasons = [note.partition("undefined: ")[2] for note in notes if note.startswith("undefined: ")]
    return f"The leak-free test sequences have no score of their own{f': {reasons[0]}' if reasons else ''}."


def _near_sentence(related: pd.DataFrame | None, run: RunConfig) -> str:
    """How many test sequences are near to training; empty if that was not counted."""
    share = _test_share(related, run.split.leak_free_identity)
    near = f"a training neighbour at {percent(run.split.leak_free_identity)} identity or more."
    if share is None:
        return ""
    return f"No test sequence has {near}" if share == 0 else f"{percent(share)} of the test sequences have {near}"


def split_sentence(run: RunConfig) -> str:
    """How examples were held out, in one or two sentences."""
    split = run.split
    if split.kind == "predefined":
        return "The parts were given with the data (training, validation, test) and taken as they are."
    if split.kind == "chromosome":
        return (
            f"Held out: {listing(split.test_chromosomes)} for the test and {listing(split.validation_chromosomes)} for "
            "early stopping; sequences on all other chromosomes train."
        )
    rules = {
        "shared_kmer": f"sequences that share a {split.kmer}-mer on either strand",
        "homology": f"sequences of at least {percent(split.identity)} identity on either strand",
        "overlap": "overlapping intervals"
        + (f", or at most {split.overlap_distance_bp} bp apart" if split.overlap_distance_bp else ""),
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
