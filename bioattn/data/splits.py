"""Which examples are held out: related sequences never part, and what leaks is measured."""

import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from bioattn.config import SplitConfig, TaskConfig
from bioattn.data import alphabet
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
#: A held-out part may overshoot its size by this factor to take a group in whole.
_OVERSHOOT = 1.02

Edges = tuple[NDArray[np.int64], NDArray[np.int64]]


# ------------------------------------------------------------------------- groups


def assign_groups(table: pd.DataFrame, rules: SplitConfig) -> NDArray[np.int64]:
    """Group of each row, (N,): rows in one group must not be parted. Numbered by first appearance.

    Groups are the connected components over the relations in force: always the
    same sequence and the reverse complement; by `rules.group_by` a shared k-mer
    on either strand, starts that lie close on a chromosome, the same value in a
    column. Relations chain, so a group may hold rows that are not directly
    related. A missing start or value relates a row to nothing.

    Raises
    ------
    DataError
        If a column that a relation needs is missing or empty.
    """
    edges = [_same_or_reverse(table["sequence"])]
    if "shared_kmer" in rules.group_by:
        edges += [_chains(codes, rows) for codes, rows in kmers(list(table["sequence"]), rules.kmer)]
    if "coordinate" in rules.group_by:
        edges.append(_near_starts(table, rules.coordinate_distance_bp))
    if "column" in rules.group_by:
        edges.append(_same_value(table, str(rules.column)))
    return _components(len(table), edges)


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


def _same_or_reverse(sequences: pd.Series) -> Edges:
    either_strand = [min(sequence, alphabet.reverse_complement(sequence)) for sequence in sequences]
    return _same_code(pd.factorize(np.array(either_strand, dtype=object))[0])


def _same_code(codes: NDArray[np.int64]) -> Edges:
    """Edges between rows of the same code; -1 is none."""
    rows = np.flatnonzero(codes >= 0)
    rows = rows[np.argsort(codes[rows], kind="stable")]
    return _chains(codes[rows].astype(np.uint64), rows)


def _near_starts(table: pd.DataFrame, distance: int) -> Edges:
    if "start" not in table or table["start"].isna().all():
        raise DataError(
            f"split.group_by 'coordinate' needs a column 'start', found {', '.join(table.columns)}: name a group "
            f"(?P<start>\\d+) in data.header_pattern, or add the column to the labels"
        )
    start = pd.to_numeric(table["start"]).to_numpy(dtype=float, na_value=np.nan)
    chromosome = pd.factorize(table["chromosome"])[0] if "chromosome" in table else np.zeros(len(table), dtype=np.int64)
    rows = np.flatnonzero(~np.isnan(start))
    rows = rows[np.lexsort((start[rows], chromosome[rows]))]
    near = (np.diff(start[rows]) < distance) & (np.diff(chromosome[rows]) == 0)
    return rows[:-1][near], rows[1:][near]


def _same_value(table: pd.DataFrame, column: str) -> Edges:
    if column not in table or table[column].isna().all():
        what = "no column" if column not in table else "no values in the column"
        raise DataError(f"split.column: found {what} '{column}', allowed are {', '.join(table.columns)}")
    return _same_code(pd.factorize(table[column])[0])


def _components(n_rows: int, edges: list[Edges]) -> NDArray[np.int64]:
    left = np.concatenate([edge[0] for edge in edges])
    right = np.concatenate([edge[1] for edge in edges])
    graph = coo_matrix((np.ones(len(left), dtype=bool), (left, right)), shape=(n_rows, n_rows))
    labels = connected_components(graph, directed=False)[1]
    return pd.factorize(labels)[0].astype(np.int64)


# -------------------------------------------------------------------------- split


def split(table: pd.DataFrame, rules: SplitConfig, task: TaskConfig, *, seed: int) -> pd.DataFrame:
    """Subset of each sequence in each fold: columns name, group, fold_0, fold_1, ...

    Groups are kept whole, sizes and (for binary and multiclass targets) class
    proportions as near to what was asked as whole groups allow. A group too big
    for a held-out part goes to training, with a warning. With one fold, test
    and validation have their fractions of all sequences. With k folds the test
    set of fold i is part i of k, and validation is its fraction of the rest.

    Raises
    ------
    DataError
        If there are too few groups, a part remains empty, a class is missing in
        a part, or a predefined split is incomplete.
    """
    if rules.kind == "predefined":
        # Only for the leakage table: a split that the user made is not changed.
        groups = _components(len(table), [_same_or_reverse(table["sequence"])])
        folds = [_predefined(table)]
    else:
        _warn_of_unused_group(table, rules)
        groups = assign_groups(table, rules)
        strata = _strata(table, rules, task)
        _check_enough(groups, rules)
        folds = _random_folds(groups, strata, rules, seed)
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


def _warn_of_unused_group(table: pd.DataFrame, rules: SplitConfig) -> None:
    if "group" in table and table["group"].notna().any() and rules.column != "group":
        warnings.warn(
            "the sequences have a column 'group' that the split ignores; to keep its values together set "
            "split.group_by: [column] and split.column: group",
            BioattnWarning,
            stacklevel=3,
        )


def _strata(table: pd.DataFrame, rules: SplitConfig, task: TaskConfig) -> NDArray[np.int64]:
    if rules.stratify and task.kind in ("binary", "multiclass"):
        return table[task.targets[0]].to_numpy(dtype=np.int64)
    return np.zeros(len(table), dtype=np.int64)


def _check_enough(groups: NDArray[np.int64], rules: SplitConfig) -> None:
    sizes = np.bincount(groups)
    needed = max(3, rules.n_folds)
    if len(sizes) < needed:
        raise DataError(
            f"found {len(sizes)} group(s) of related sequences (largest {sizes.max()} of {len(groups)}), at least "
            f"{needed} are needed to fill train, validation and test: group less strictly (split.group_by, split.kmer, "
            f"split.coordinate_distance_bp), or lower split.n_folds"
        )


def _random_folds(
    groups: NDArray[np.int64], strata: NDArray[np.int64], rules: SplitConfig, seed: int
) -> list[NDArray[np.object_]]:
    counts = _group_counts(groups, strata)
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


def partition(
    counts: NDArray[np.int64], fractions: Sequence[float], *, sink: bool, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Part of each group, (G,): whole groups to parts of given fractions, strata alike in each.

    Greedy from the largest group down, equal ones in random order: each goes
    where the squared relative excess over what every part should have of every
    stratum grows least.

    Parameters
    ----------
    counts : ndarray, int64, shape (G, S)
        Members of each group in each stratum.
    fractions : sequence of float
        Of all members, one per part; they sum to one.
    sink : bool
        Part 0 takes every group that does not fit another part. Without a sink
        a group larger than every part gets part -1, and one that fits nowhere
        any more goes where it costs least.
    """
    totals = counts.sum(axis=0)
    goals = [[max(fraction * float(n), 1e-9) for n in totals] for fraction in fractions]
    room = [max(1.0, _OVERSHOOT * sum(goal)) for goal in goals]
    filled = [[0.0] * len(totals) for _ in fractions]
    sizes = counts.sum(axis=1)
    order = np.lexsort((rng.random(len(counts)), -sizes))
    parts = np.empty(len(counts), dtype=np.int64)
    for group in order:
        members = [(stratum, float(n)) for stratum, n in enumerate(counts[group]) if n]
        size = float(sizes[group])
        if sink:
            open_parts = [part for part in range(1, len(goals)) if sum(filled[part]) + size <= room[part]] + [0]
        elif size > max(room):
            parts[group] = -1
            continue
        else:
            every = range(len(goals))
            open_parts = [part for part in every if sum(filled[part]) + size <= room[part]] or list(every)
        best = min(
            open_parts,
            key=lambda part: sum(n * (n + 2 * (filled[part][s] - goals[part][s])) / goals[part][s] for s, n in members),
        )
        parts[group] = best
        for stratum, n in members:
            filled[best][stratum] += n
    return parts


def _group_counts(groups: NDArray[np.int64], strata: NDArray[np.int64]) -> NDArray[np.int64]:
    counts = np.zeros((groups.max() + 1, strata.max() + 1), dtype=np.int64)
    np.add.at(counts, (groups, strata), 1)
    return counts


def _warn_of_large(counts: NDArray[np.int64], smallest_share: float) -> None:
    sizes = counts.sum(axis=1)
    large = sizes[sizes > _OVERSHOOT * smallest_share * sizes.sum()]
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
        "correct the column 'split'"
        if rules.kind == "predefined"
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
    if not (table["name"].to_numpy() == split_table["name"].to_numpy()).all():
        raise DataError("split and sequences must hold the same names in the same order: make the split anew")
    sequences = table["sequence"].to_numpy(dtype=object)
    k = kmer or min(LEAKAGE_KMER, int(table["sequence"].str.len().min()))
    folds = [name for name in split_table.columns if name.startswith("fold_")]
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
