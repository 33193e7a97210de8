"""Which examples are held out: related sequences never part, and what leaks is measured."""

import difflib
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bioattn.config import SplitConfig, TaskConfig
from bioattn.data import alphabet
from bioattn.data.homology import relatives
from bioattn.data.partition import OVERSHOOT, components, group_counts, partition, strata
from bioattn.data.sequences import SUBSETS
from bioattn.errors import BioattnWarning, DataError
from bioattn.rng import stream

#: Longest k-mer that two bits a base fit into 64.
MAX_KMER = 31
#: k of the leakage table, where the sequences are long enough.
LEAKAGE_KMER = 20
#: k-mers held at a time: bounds memory to about 40 bytes each.
_BUCKET_KMERS = 8_000_000
#: Bases encoded at a time.
_CHUNK_BASES = 2_000_000

#: Below this share of relatives found, grouping by homology warns.
_LOW_SENSITIVITY = 0.9
#: Chromosomes that an error lists.
_MOST_SHOWN = 30

Edges = tuple[NDArray[np.int64], NDArray[np.int64]]


# ------------------------------------------------------------------------- groups


def assign_groups(table: pd.DataFrame, rules: SplitConfig) -> NDArray[np.int64]:
    """Group of each row, (N,): rows in one group must not be parted. Numbered by first appearance.

    Groups are the connected components over the relations in force: always the
    same sequence and the reverse complement; by `rules.group_by` a shared k-mer
    on either strand, an identity on either strand (see `bioattn.data.homology`),
    starts that lie close on a chromosome, intervals that overlap, the same value
    in a column. Relations chain, so a group may hold rows that are not directly
    related. A missing start or value relates a row to nothing.

    Raises
    ------
    DataError
        If a column that a relation needs is missing or empty, or if unrelated
        sequences reach the identity by chance.
    """
    edges = [_same_or_reverse(table["sequence"])]
    if "shared_kmer" in rules.group_by:
        edges += [_chains(codes, rows) for codes, rows in kmers(list(table["sequence"]), rules.kmer)]
    if "coordinate" in rules.group_by:
        edges.append(_near_starts(table, rules.coordinate_distance_bp))
    if "overlap" in rules.group_by:
        edges.append(_overlaps(table, rules.overlap_distance_bp))
    if "column" in rules.group_by:
        edges.append(_same_value(table, str(rules.column)))
    groups = _components(len(table), edges)
    if "homology" in rules.group_by:  # last: what is together already need not be compared
        edges.append(_related(table, rules.identity, groups))
        groups = _components(len(table), edges)
    return groups


def kmers(sequences: Sequence[str], k: int) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.int64]]]:
    """Canonical k-mers of sequences and the rows they are in, in buckets of bounded size.

    A k-mer and its reverse complement are one code, two bits a base; windows
    with an unknown base are left out. All occurrences of a code are in one
    bucket, sorted by code, and a row occurs once per code.

    Raises
    ------
    DataError
        If k is not between 1 and `MAX_KMER`.
    """
    if not 1 <= k <= MAX_KMER:
        raise DataError(f"k-mers must have 1 to {MAX_KMER} bases, got {k}")
    n_kmers = sum(max(len(sequence) - k + 1, 0) for sequence in sequences)
    n_buckets = -(-n_kmers // _BUCKET_KMERS)
    for bucket in range(n_buckets):
        parts = []
        for codes, rows in _kmer_chunks(sequences, k):
            keep = codes % np.uint64(n_buckets) == bucket if n_buckets > 1 else slice(None)
            parts.append((codes[keep], rows[keep]))
        codes = np.concatenate([part[0] for part in parts])
        rows = np.concatenate([part[1] for part in parts])
        order = np.lexsort((rows, codes))
        codes, rows = codes[order], rows[order]
        new = np.ones(len(codes), dtype=bool)
        new[1:] = (codes[1:] != codes[:-1]) | (rows[1:] != rows[:-1])
        yield codes[new], rows[new]


def _kmer_chunks(sequences: Sequence[str], k: int) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.int64]]]:
    start = 0
    while start < len(sequences):
        stop, n_bases = start, 0
        while stop < len(sequences) and (stop == start or n_bases < _CHUNK_BASES):
            n_bases += len(sequences[stop]) + 1
            stop += 1
        # One unknown base between sequences keeps windows from reaching over.
        bases = alphabet.encode("N".join(sequences[start:stop]))
        lengths = np.array([len(sequence) + 1 for sequence in sequences[start:stop]])
        rows = np.repeat(np.arange(start, stop), lengths)[: len(bases)]
        n_windows = len(bases) - k + 1
        if n_windows > 0:
            unknown = np.concatenate([[0], np.cumsum(bases == alphabet.UNKNOWN)])
            known = unknown[k:] == unknown[:-k]
            codes = _canonical(bases, k)
            yield codes[known], rows[:n_windows][known]
        start = stop


def _canonical(bases: NDArray[np.uint8], k: int) -> NDArray[np.uint64]:
    """Smaller code of each window and its reverse complement; windows with unknown bases hold nonsense."""
    n_windows = len(bases) - k + 1
    two_bits = (bases & 3).astype(np.uint64)
    forward = np.zeros(n_windows, dtype=np.uint64)
    reverse = np.zeros(n_windows, dtype=np.uint64)
    for offset in range(k):
        window = two_bits[offset : offset + n_windows]
        forward = (forward << np.uint64(2)) | window
        reverse |= (np.uint64(3) - window) << np.uint64(2 * offset)
    return np.minimum(forward, reverse)


def _chains(codes: NDArray[np.uint64], rows: NDArray[np.int64]) -> Edges:
    """Edges from each row to the next with the same code, where codes are sorted."""
    same = codes[1:] == codes[:-1]
    return rows[:-1][same], rows[1:][same]


def _chains_of(codes: NDArray[np.int64], rows: NDArray[np.int64]) -> Edges:
    """Edges between rows of the same code, in any order."""
    order = np.argsort(codes, kind="stable")
    return _chains(codes[order].astype(np.uint64), rows[order])


def _same_or_reverse(sequences: pd.Series) -> Edges:
    either_strand = [min(sequence, alphabet.reverse_complement(sequence)) for sequence in sequences]
    return _same_code(pd.factorize(np.array(either_strand, dtype=object))[0])


def _same_code(codes: NDArray[np.int64]) -> Edges:
    """Edges between rows of the same code; -1 is none."""
    rows = np.flatnonzero(codes >= 0)
    return _chains_of(codes[rows], rows)


def _near_starts(table: pd.DataFrame, distance: int) -> Edges:
    start = _starts(table, "coordinate")
    chromosome = _chromosomes(table)
    rows = np.flatnonzero(~np.isnan(start))
    rows = rows[np.lexsort((start[rows], chromosome[rows]))]
    near = (np.diff(start[rows]) < distance) & (np.diff(chromosome[rows]) == 0)
    return rows[:-1][near], rows[1:][near]


def _overlaps(table: pd.DataFrame, distance: int) -> Edges:
    """Edges along intervals at most `distance` apart; one without an end has the sequence's length."""
    start = _starts(table, "overlap")
    end = start + table["sequence"].str.len().to_numpy(dtype=float)
    if "end" in table:
        given = pd.to_numeric(table["end"]).to_numpy(dtype=float, na_value=np.nan)
        end = np.where(np.isnan(given), end, given)
    chromosome = _chromosomes(table)
    rows = np.flatnonzero(~np.isnan(start))
    rows = rows[np.lexsort((start[rows], chromosome[rows]))]
    # The farthest end so far on the chromosome: each chromosome lies behind the one before it.
    behind = (chromosome[rows] + 1) * (np.ptp(np.append(start[rows], end[rows])) + distance + 1)
    farthest = np.maximum.accumulate(behind + end[rows])
    near = (behind + start[rows])[1:] - farthest[:-1] <= distance
    return rows[:-1][near], rows[1:][near]


def _starts(table: pd.DataFrame, rule: str) -> NDArray[np.float64]:
    if "start" not in table or table["start"].isna().all():
        raise DataError(
            f"split.group_by '{rule}' needs a column 'start', found {', '.join(table.columns)}: name a group "
            f"(?P<start>\\d+) in data.header_pattern, or add the column to the labels"
        )
    return pd.to_numeric(table["start"]).to_numpy(dtype=float, na_value=np.nan)


def _chromosomes(table: pd.DataFrame) -> NDArray[np.int64]:
    """Number of each row's chromosome, -1 for none; all on one without such a column."""
    if "chromosome" not in table:
        return np.zeros(len(table), dtype=np.int64)
    return pd.factorize(table["chromosome"])[0].astype(np.int64)


def _related(table: pd.DataFrame, identity: float, groups: NDArray[np.int64]) -> Edges:
    found = relatives(list(table["sequence"]), identity, groups=groups)
    if found.seeds.sensitivity < _LOW_SENSITIVITY:
        warnings.warn(
            f"split.group_by 'homology': with so many bases, the search finds an estimated "
            f"{found.seeds.sensitivity:.0%} of the relatives of identity {identity:g} that differ all over their "
            f"{found.seeds.length} bp (overlaps and closer relatives are found): a higher split.identity is safer",
            BioattnWarning,
            stacklevel=4,
        )
    return found.edges


def _same_value(table: pd.DataFrame, column: str) -> Edges:
    if column not in table or table[column].isna().all():
        what = "no column" if column not in table else "no values in the column"
        raise DataError(f"split.column: found {what} '{column}', allowed are {', '.join(table.columns)}")
    return _same_code(pd.factorize(table[column])[0])


def _components(n_rows: int, edges: list[Edges]) -> NDArray[np.int64]:
    left, right = (np.concatenate(ends) for ends in zip(*edges, strict=True))
    return pd.factorize(components(n_rows, left, right))[0].astype(np.int64)


# -------------------------------------------------------------------------- split


def split(table: pd.DataFrame, rules: SplitConfig, task: TaskConfig, *, seed: int) -> pd.DataFrame:
    """Subset of each sequence in each fold: columns name, group, fold_0, fold_1, ...

    Groups are kept whole, sizes and the proportions of classes, label
    combinations or target quantiles as near to what was asked as whole groups
    allow. A group too big for a held-out part goes to training, with a warning.
    With one fold, test and validation have their fractions of all sequences.
    With k folds the test set of fold i is part i of k, and validation is its
    fraction of the rest. A predefined split, and one by chromosome, is taken as
    it is, whatever it parts.

    Raises
    ------
    DataError
        If there are too few groups, a part remains empty, a class is missing in
        a part, a predefined split is incomplete, or a chromosome is unknown.
    """
    if rules.kind != "random":
        # Only for the leakage table: a split that the user made is not changed.
        groups = _components(len(table), [_same_or_reverse(table["sequence"])])
        folds = [_predefined(table) if rules.kind == "predefined" else _by_chromosome(table, rules)]
        _warn_of_parted(groups, folds[0])
    else:
        _warn_of_unused_group(table, rules)
        groups = assign_groups(table, rules)
        stratum = strata(table, task) if rules.stratify else np.zeros(len(table), dtype=np.int64)
        _check_enough(groups, rules)
        folds = _random_folds(groups, stratum, rules, seed)
    result = pd.DataFrame({"name": table["name"].to_numpy(), "group": groups})
    for fold, subsets in enumerate(folds):
        _check_fold(table, subsets, task, fold, rules)
        result[f"fold_{fold}"] = subsets
    return result


def _predefined(table: pd.DataFrame) -> NDArray[np.object_]:
    given = table["split_given"]
    missing = table.loc[given.isna(), "name"]
    if len(missing):
        raise DataError(
            f"split.kind 'predefined': found no split for {len(missing)} of {len(table)} sequences (first: "
            f"'{missing.iloc[0]}'), every one needs {', '.join(SUBSETS)}: add a column 'split', "
            f"or set split.kind: random"
        )
    return given.to_numpy(dtype=object)


def _warn_of_parted(groups: NDArray[np.int64], subsets: NDArray[np.object_]) -> None:
    parted = np.isin(groups, groups[subsets == "train"]) & (subsets != "train")
    if parted.any():
        warnings.warn(
            f"{parted.sum()} held-out sequence(s) equal a training sequence or its reverse complement, because the "
            f"split is given: drop them (data.duplicate_sequences), or let split.kind 'random' keep them together",
            BioattnWarning,
            stacklevel=3,
        )


def _by_chromosome(table: pd.DataFrame, rules: SplitConfig) -> NDArray[np.object_]:
    if "chromosome" not in table or table["chromosome"].isna().all():
        raise DataError(
            f"split.kind 'chromosome' needs a column 'chromosome', found {', '.join(table.columns)}: name a group "
            f"(?P<chromosome>\\w+) in data.header_pattern, or add the column to the labels"
        )
    # A made negative that lies nowhere, called parent|kind1, goes where its parent goes.
    own = dict(zip(table["name"], table["chromosome"], strict=True))
    parents = table["name"].map(lambda name: own.get(name.rpartition("|")[0]))
    chromosome = table["chromosome"].where(table["chromosome"].notna(), parents)
    missing = table.loc[chromosome.isna(), "name"]
    if len(missing):
        raise DataError(
            f"split.kind 'chromosome': found no chromosome for {len(missing)} of {len(table)} sequences (first: "
            f"'{missing.iloc[0]}'), every one needs one: add it, or set split.kind: random"
        )
    subsets = np.full(len(table), "train", dtype=object)
    for subset in ("validation", "test"):
        for name in getattr(rules, f"{subset}_chromosomes"):
            inside = (chromosome == name).to_numpy(dtype=bool)
            if not inside.any():
                raise DataError(_unknown_chromosome(subset, name, chromosome))
            subsets[inside] = subset
    return subsets


def _unknown_chromosome(subset: str, name: str, chromosomes: pd.Series) -> str:
    """What is wrong with a chromosome's name."""
    counts = chromosomes.value_counts()
    known = sorted(map(str, counts.index))
    shown = ", ".join(f"{chromosome} ({counts[chromosome]})" for chromosome in known[:_MOST_SHOWN])
    more = f" and {len(known) - _MOST_SHOWN} more" if len(known) > _MOST_SHOWN else ""
    other = name[3:] if name.startswith("chr") else f"chr{name}"
    near = [other] if other in known else difflib.get_close_matches(name, known, n=1)
    hint = f": did you mean '{near[0]}'?" if near else ""
    return f"split.{subset}_chromosomes: found no sequence on '{name}', there are some on {shown}{more}{hint}"


def _warn_of_unused_group(table: pd.DataFrame, rules: SplitConfig) -> None:
    if "group" in table and table["group"].notna().any() and rules.column != "group":
        warnings.warn(
            "the sequences have a column 'group' that the split ignores; to keep its values together set "
            "split.group_by: [column] and split.column: group",
            BioattnWarning,
            stacklevel=3,
        )


def _check_enough(groups: NDArray[np.int64], rules: SplitConfig) -> None:
    sizes = np.bincount(groups)
    needed = max(3, rules.n_folds)
    if len(sizes) < needed:
        raise DataError(
            f"found {len(sizes)} group(s) of related sequences (largest {sizes.max()} of {len(groups)}), at least "
            f"{needed} are needed to fill train, validation and test: group less strictly (split.group_by, "
            f"split.identity, split.kmer, split.coordinate_distance_bp), or lower split.n_folds"
        )


def _random_folds(
    groups: NDArray[np.int64], stratum: NDArray[np.int64], rules: SplitConfig, seed: int
) -> list[NDArray[np.object_]]:
    counts = group_counts(groups, stratum)
    names = np.array(SUBSETS, dtype=object)
    if rules.n_folds == 1:
        held = rules.validation_fraction, rules.test_fraction
        parts = partition(counts, [1 - sum(held), *held], sink=True, rng=stream(seed, "split"))
        _warn_of_large(counts, min(held))
        return [names[parts[groups]]]
    share = 1 / rules.n_folds
    parts = partition(counts, [share] * rules.n_folds, sink=False, rng=stream(seed, "split"))
    _warn_of_large(counts, share)
    folds = []
    for fold in range(rules.n_folds):
        rest = parts != fold
        fraction = rules.validation_fraction
        rng = stream(seed, "split", "validation", fold)
        subset = np.full(len(counts), SUBSETS.index("test"))
        subset[rest] = partition(counts[rest], [1 - fraction, fraction], sink=True, rng=rng)
        folds.append(names[subset[groups]])
    return folds


def _warn_of_large(counts: NDArray[np.int64], smallest_share: float) -> None:
    sizes = counts.sum(axis=1)
    large = sizes[sizes > OVERSHOOT * smallest_share * sizes.sum()]
    if len(large):
        warnings.warn(
            f"{len(large)} group(s) of related sequences are larger than a held-out set and stay in training: "
            f"{', '.join(str(n) for n in sorted(large, reverse=True)[:5])} of {sizes.sum()} sequences",
            BioattnWarning,
            stacklevel=4,
        )


def _check_fold(
    table: pd.DataFrame, subsets: NDArray[np.object_], task: TaskConfig, fold: int, rules: SplitConfig
) -> None:
    sizes = {subset: int((subsets == subset).sum()) for subset in SUBSETS}
    way_out = (
        {"predefined": "correct the column 'split'", "chromosome": "hold out other chromosomes"}[rules.kind]
        if rules.kind != "random"
        else "use more sequences, a larger split.test_fraction or split.validation_fraction, or group less strictly"
    )
    for subset in SUBSETS:
        inside = subsets == subset
        if not inside.any():
            counts = ", ".join(f"{name} {n}" for name, n in sizes.items())
            raise DataError(f"fold {fold}: found no sequence in {subset} ({counts}), each needs some: {way_out}")
        if task.kind not in ("binary", "multiclass"):
            continue
        values = table[task.targets[0]].to_numpy()
        missing = sorted(set(values.tolist()) - set(values[inside].tolist()))
        if missing:
            name = task.classes[int(missing[0])] if task.kind == "multiclass" else f"{missing[0]:g}"
            raise DataError(
                f"fold {fold}: found no sequence of class '{name}' among the {sizes[subset]} in {subset}, each class "
                f"needs some: {way_out}"
            )


# ------------------------------------------------------------------------ leakage


def subset_of(sequences: pd.DataFrame, split_table: pd.DataFrame, *, fold: int) -> NDArray[np.object_]:
    """Subset ("train", "validation" or "test") of each sequence (N,) in one fold, whatever order the split has."""
    return split_table.set_index("name").loc[sequences["name"], f"fold_{fold}"].to_numpy()


def fold_columns(split_table: pd.DataFrame) -> list[str]:
    """Columns of a split that hold the subsets of its folds, in order."""
    return [name for name in split_table.columns if name.startswith("fold_")]


def check_same_rows(table: pd.DataFrame, split_table: pd.DataFrame) -> None:
    """Raise `DataError` unless sequences and split hold the same names in the same order."""
    if not (table["name"].to_numpy() == split_table["name"].to_numpy()).all():
        raise DataError("split and sequences must hold the same names in the same order: make the split anew")


def leakage(table: pd.DataFrame, split_table: pd.DataFrame, *, kmer: int | None = None) -> pd.DataFrame:
    """What held-out sequences have in common with training, one row per fold and held-out subset.

    Parameters
    ----------
    table : DataFrame
        Columns name and sequence.
    split_table : DataFrame
        As `split` returns it, in the same order.
    kmer : int, optional
        Default: `LEAKAGE_KMER`, or the shortest sequence if that is shorter.

    Returns
    -------
    DataFrame
        fold, subset, n, n_groups, largest_group, n_train, n_groups_train,
        largest_group_train, kmer, and as n_ and fraction_: identical_to_train,
        reverse_complement_of_train, sharing_kmer_with_train (either strand).
    """
    check_same_rows(table, split_table)
    sequences = table["sequence"].to_numpy(dtype=object)
    k = kmer or min(LEAKAGE_KMER, int(table["sequence"].str.len().min()))
    folds = fold_columns(split_table)
    in_train = np.stack([(split_table[name] == "train").to_numpy() for name in folds], axis=1)
    shares = _shares_kmer(list(sequences), k, in_train)
    reverse = np.array([alphabet.reverse_complement(sequence) for sequence in sequences], dtype=object)
    groups = split_table["group"].to_numpy()
    rows = []
    for fold, column in enumerate(folds):
        train = in_train[:, fold]
        known = set(sequences[train])
        train_sizes = np.unique(groups[train], return_counts=True)[1]
        for subset in SUBSETS[1:]:
            inside = (split_table[column] == subset).to_numpy()
            sizes = np.unique(groups[inside], return_counts=True)[1]
            found = {
                "identical_to_train": sum(sequence in known for sequence in sequences[inside]),
                "reverse_complement_of_train": sum(sequence in known for sequence in reverse[inside]),
                "sharing_kmer_with_train": int(shares[inside, fold].sum()),
            }
            n = int(inside.sum())
            rows.append(
                {
                    "fold": fold,
                    "subset": subset,
                    "n": n,
                    "n_groups": len(sizes),
                    "largest_group": int(sizes.max(initial=0)),
                    "n_train": int(train.sum()),
                    "n_groups_train": len(train_sizes),
                    "largest_group_train": int(train_sizes.max(initial=0)),
                    "kmer": k,
                    **{f"n_{what}": count for what, count in found.items()},
                    **{f"fraction_{what}": count / max(n, 1) for what, count in found.items()},
                }
            )
    return pd.DataFrame(rows)


def _shares_kmer(sequences: Sequence[str], k: int, in_train: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether each sequence has a k-mer of a training sequence, (N, F); training sequences do with themselves."""
    shares = np.zeros_like(in_train)
    for codes, rows in kmers(sequences, k):
        first = np.flatnonzero(np.concatenate([[True], codes[1:] != codes[:-1]]))
        n_occurrences = np.diff(np.append(first, len(codes)))
        for fold in range(in_train.shape[1]):
            known = np.logical_or.reduceat(in_train[rows, fold], first)
            shares[rows[np.repeat(known, n_occurrences)], fold] = True
    return shares
