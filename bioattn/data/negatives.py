"""Negative examples made from positives: shuffles, draws from a Markov chain, and matched regions of a genome."""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bioattn.config import NegativesConfig
from bioattn.data import alphabet
from bioattn.data.composition import features, gc_share, kmer_counts, masked_letters, masked_spans
from bioattn.data.edits import (
    dinucleotide_shuffle_codes,
    fit_markov,
    mononucleotide_shuffle_codes,
    sample_markov,
)
from bioattn.data.matching import GenomeLike, Interval, Matcher, Places, Tolerance, Wishes
from bioattn.errors import DataError
from bioattn.rng import stream

Codes = NDArray[np.uint8]

#: A negative that equals its parent is drawn again this often before the parent counts as one that gives none.
_ATTEMPTS = 50
#: Sequences drawn at a time: bounds memory to some ten bytes per letter.
_CHUNK_LETTERS = 4_000_000
#: Most regions of the random pool that matched ones are compared with.
_POOL = 20_000


class WithNegatives(NamedTuple):
    """The table with negatives below the positives, and what there was to choose from.

    Attributes
    ----------
    table : DataFrame
    rejected : DataFrame
        Columns file, line, name, reason: negatives that could not be made.
    before : DataFrame or None
        Composition (`bioattn.data.composition.features`) of random regions before matching, for kind "genomic".
    """

    table: pd.DataFrame
    rejected: pd.DataFrame
    before: pd.DataFrame | None = None


def add_negatives(
    table: pd.DataFrame,
    *,
    target: str,
    rules: NegativesConfig,
    seed: int,
    genome: GenomeLike | None = None,
    exclude: Iterable[Interval] = (),
) -> WithNegatives:
    """Table with negatives made from its positives.

    A negative is called ``parent|shuffle1``, ``parent|markov1`` or
    ``parent|genomic1`` and has target 0. It takes over the parent's
    `split_given` and `group`, so predefined splits and splits by a column stay
    valid, but it is not tied to its parent otherwise: the two share
    composition, which both classes have alike, and no longer words, so parting
    them leaks nothing. Other columns are empty; only a genomic negative lies
    somewhere.

    Parents that give no negative are listed; they stay positives.

    Parameters
    ----------
    genome : GenomeLike, optional
        For kind "genomic".
    exclude : iterable of Interval
        For kind "genomic": where no negative may lie, beside the places of the table's own sequences.

    Raises
    ------
    DataError
        If there is no positive, or none of them gives a negative, or the places
        to avoid are of another genome.
    """
    if rules.kind == "none":
        return WithNegatives(table, _rejected({}))
    positives = table[table[target] == 1]
    if positives.empty:
        raise DataError(f"target '{target}': found no positive (1), data.negatives needs some to make negatives of")
    if rules.kind == "genomic":
        if genome is None:
            raise DataError("data.negatives.kind 'genomic' needs a genome: set data.negatives.genome")
        made = _genomic(table, positives, rules, genome, list(exclude), seed)
    else:
        made = _drawn(positives, rules, stream(seed, "negatives", rules.kind))
    if made.cells.empty:
        name, reason = next(iter(made.failed.items()))
        parent = name.rpartition("|")[0]
        raise DataError(
            f"data.negatives.kind '{rules.kind}': found no positive that gives a negative (first: '{parent}': "
            f"{reason}); give negatives of your own, or choose another kind"
        )
    taken = set(table["name"]) & set(made.cells["name"])
    if taken:
        raise DataError(f"found the name '{min(taken)}' among the sequences, which a made negative needs: rename it")
    table = _with_places(table) if rules.kind == "genomic" else table
    return WithNegatives(_appended(table, made.cells.assign(**{target: 0.0})), _rejected(made.failed), made.before)


class _Made(NamedTuple):
    """Cells of the negatives with their parents' split and group; names and reasons of those that failed."""

    cells: pd.DataFrame
    failed: dict[str, str]
    before: pd.DataFrame | None = None


# ------------------------------------------------------------- shuffles and chains

_REASONS = {
    "dinucleotide_shuffle": "no other sequence has the dinucleotide counts of its parent",
    "mononucleotide_shuffle": "no other sequence has the letters of its parent",
    "markov": "every sequence drawn from the chain equals its parent",
}


def _drawn(positives: pd.DataFrame, rules: NegativesConfig, rng: np.random.Generator) -> _Made:
    draw = _drawer(positives, rules)
    sequences, names = positives["sequence"].to_dict(), positives["name"].to_dict()
    drawn = {int(row): [""] * rules.per_positive for row in positives.index}
    stuck: set[int] = set()
    for rows in _batches(positives, one_length=rules.kind != "markov"):
        parents = alphabet.encode_batch([sequences[row] for row in rows])
        for copy in range(rules.per_positive):
            made, same = _unlike(parents, draw, rng)
            stuck.update(int(row) for row, failed in zip(rows, same, strict=True) if failed)
            for row, codes in zip(rows, made, strict=True):
                drawn[int(row)][copy] = alphabet.decode(codes)
    label = "markov" if rules.kind == "markov" else "shuffle"
    places = [(row, copy) for row in drawn if row not in stuck for copy in range(rules.per_positive)]
    cells = _inherited(positives, [row for row, _ in places])
    cells["name"] = [f"{names[row]}|{label}{copy + 1}" for row, copy in places]
    cells["sequence"] = [drawn[row][copy] for row, copy in places]
    cells["sample"] = "markov" if rules.kind == "markov" else "shuffled"
    return _Made(cells, {f"{names[row]}|{label}1": _REASONS[rules.kind] for row in sorted(stuck)})


def _drawer(positives: pd.DataFrame, rules: NegativesConfig) -> Callable[[Codes, np.random.Generator], Codes]:
    """Function that makes a negative of each row of codes (N, L), padded for chains only."""
    if rules.kind == "dinucleotide_shuffle":
        return dinucleotide_shuffle_codes
    if rules.kind == "mononucleotide_shuffle":
        return mononucleotide_shuffle_codes
    chain = fit_markov(positives["sequence"], rules.markov_order)

    def draw(parents: Codes, rng: np.random.Generator) -> Codes:
        made = sample_markov(chain, (parents != alphabet.PAD).sum(axis=1), rng)
        # Unknown bases stay where the parent has them, or their number would tell the classes apart.
        unknown = parents[:, : made.shape[1]] == alphabet.UNKNOWN
        made[unknown] = alphabet.UNKNOWN
        return np.pad(made, ((0, 0), (0, parents.shape[1] - made.shape[1])), constant_values=alphabet.PAD)

    return draw


def _batches(positives: pd.DataFrame, *, one_length: bool) -> Iterator[pd.Index]:
    """Rows to draw together: all of one length, or of similar length and bounded size."""
    if one_length:
        yield from positives.groupby("length", sort=True).groups.values()
        return
    rows = positives["length"].sort_values(kind="stable")
    begin = 0
    while begin < len(rows):
        # The sizes of batches of 1, 2, ... rows, each as wide as its last row.
        sizes = rows.iloc[begin:].to_numpy() * np.arange(1, len(rows) - begin + 1)
        end = begin + max(1, int(np.searchsorted(sizes, _CHUNK_LETTERS, side="right")))
        yield rows.index[begin:end]
        begin = end


def _unlike(
    parents: Codes, draw: Callable[[Codes, np.random.Generator], Codes], rng: np.random.Generator
) -> tuple[Codes, NDArray[np.bool_]]:
    """Negatives (N, L) of parents (N, L), and which of them still equal their parent."""
    made = parents.copy()
    same = np.ones(len(parents), dtype=bool)
    for _ in range(_ATTEMPTS):
        made[same] = draw(parents[same], rng)
        same = (made == parents).all(axis=1)
        if not same.any():
            break
    return made, same


# ------------------------------------------------------------------ genomic regions


def _genomic(
    table: pd.DataFrame,
    positives: pd.DataFrame,
    rules: NegativesConfig,
    genome: GenomeLike,
    exclude: list[Interval],
    seed: int,
) -> _Made:
    own = _renamed(list(_own_places(table)), genome, "column 'chromosome' of the sequences")
    matcher = Matcher(genome, own + _renamed(exclude, genome, "data.negatives.exclude"))
    sequences = positives["sequence"]
    spans = positives["soft_masked"] if "soft_masked" in table else pd.Series("", index=positives.index)
    lengths = np.array([len(text) for text in sequences], dtype=np.int64)
    wishes = Wishes(
        lengths,
        gc_share(kmer_counts(sequences, 1)),
        masked_letters(spans) / lengths if rules.match_repeats else None,
    ).take(np.repeat(np.arange(len(positives)), rules.per_positive))
    found = matcher.find(
        wishes,
        Tolerance(rules.gc_tolerance, rules.repeat_tolerance, rules.max_unknown),
        unwanted={strand for text in table["sequence"] for strand in (text, alphabet.reverse_complement(text))},
        rng=stream(seed, "negatives", "genomic"),
    )
    names = [f"{name}|genomic{copy + 1}" for name in positives["name"] for copy in range(rules.per_positive)]
    reverse = stream(seed, "negatives", "genomic", "strand").random(len(found.wish)) < 0.5
    cells = _inherited(positives, list(positives.index[found.wish // rules.per_positive]))
    cells["name"] = [names[wish] for wish in found.wish]
    cells["sample"] = "genomic"
    cells = pd.concat([cells, _region_cells(found, reverse)], axis=1)
    failed = {names[i]: _no_region(wishes, i, rules) for i in sorted(set(range(len(names))) - set(found.wish.tolist()))}
    return _Made(cells, failed, _pool(matcher, wishes, rules, seed))


def _own_places(table: pd.DataFrame) -> Iterator[Interval]:
    """Where the sequences of a table lie, those that say so."""
    if not {"chromosome", "start"} <= set(table.columns):
        return
    start = pd.to_numeric(table["start"], errors="coerce")
    end = pd.to_numeric(table["end"], errors="coerce") if "end" in table else pd.Series(np.nan, index=table.index)
    end = end.astype(np.float64).fillna((start + table["length"]).astype(np.float64))
    known = table["chromosome"].notna() & start.notna()
    for contig, first, last in zip(table["chromosome"][known], start[known], end[known], strict=True):
        yield Interval(str(contig), int(first), int(last))


def _renamed(intervals: list[Interval], genome: GenomeLike, what: str) -> list[Interval]:
    """The intervals that lie on contigs of the genome, with its names, 'chr' added or removed where needed.

    A contig that the genome leaves out is no problem: no region can be drawn there. If it leaves out all, it is
    another genome.
    """
    names: dict[str, str] = {}
    problem = ""
    for contig in dict.fromkeys(interval.contig for interval in intervals):
        try:
            names[contig] = genome.resolve(contig, "chr_prefix")
        except DataError as error:
            problem = problem or str(error)
    if intervals and not names:
        raise DataError(f"{what}: none of the places to avoid is on a contig of data.negatives.genome ({problem})")
    return [interval._replace(contig=names[interval.contig]) for interval in intervals if interval.contig in names]


def _region_cells(found: Places, reverse: NDArray[np.bool_]) -> pd.DataFrame:
    pairs = list(zip(found.letters, reverse, strict=True))
    forward = (alphabet.decode(alphabet.encode(text)) for text in found.letters)
    return pd.DataFrame(
        {
            "sequence": [
                alphabet.reverse_complement(text) if flip else text for text, flip in zip(forward, reverse, strict=True)
            ],
            "chromosome": pd.Series([interval.contig for interval in found.intervals], dtype=object),
            "start": [interval.start for interval in found.intervals],
            "end": [interval.end for interval in found.intervals],
            "strand": pd.Series(np.where(reverse, "-", "+"), dtype=object),
            "soft_masked": [masked_spans(text[::-1] if flip else text) for text, flip in pairs],
        }
    )


def _no_region(wishes: Wishes, row: int, rules: NegativesConfig) -> str:
    what, found = "length and GC", f"{wishes.lengths[row]} bp, {wishes.gc[row]:.3f}"
    allowed = f"{rules.gc_tolerance:g} (data.negatives.gc_tolerance)"
    if wishes.masked is not None:
        what, found = "length, GC and soft-masked share", f"{found}, {wishes.masked[row]:.3f}"
        allowed += f" and {rules.repeat_tolerance:g} (data.negatives.repeat_tolerance)"
    return f"found no free region of the genome with its {what} ({found}), allowed is a difference of {allowed}"


def _pool(matcher: Matcher, wishes: Wishes, rules: NegativesConfig, seed: int) -> pd.DataFrame:
    """Composition of random free regions with the lengths of the wishes."""
    rng = stream(seed, "negatives", "genomic", "pool")
    lengths = rng.permutation(wishes.lengths)[:_POOL]
    found = matcher.sample(lengths, max_unknown=rules.max_unknown, rng=rng)
    cells = _region_cells(found, np.zeros(len(found.wish), dtype=bool))
    return features(cells["sequence"], cells["soft_masked"])


# -------------------------------------------------------------------------- tables


def _inherited(positives: pd.DataFrame, parents: list[int]) -> pd.DataFrame:
    """Cells that the negatives of some rows have from their parents."""
    return positives.loc[parents, ["length", "split_given", "group"]].reset_index(drop=True)


def _with_places(table: pd.DataFrame) -> pd.DataFrame:
    """The table with columns for places, empty where it has none."""
    empty = {
        "chromosome": pd.Series([None] * len(table), index=table.index, dtype=object),
        "start": pd.Series(pd.NA, index=table.index, dtype="Int64"),
        "end": pd.Series(pd.NA, index=table.index, dtype="Int64"),
        "strand": pd.Series(".", index=table.index, dtype=object),
    }
    return table.assign(**{name: column for name, column in empty.items() if name not in table})


def _appended(table: pd.DataFrame, cells: pd.DataFrame) -> pd.DataFrame:
    cells = cells.assign(**{name: value for name, value in (("strand", "."), ("soft_masked", "")) if name not in cells})
    # With the dtypes of the table, so that columns a negative lacks are empty rather than retyped.
    negatives = cells.reindex(columns=table.columns).astype(table.dtypes.to_dict())
    for name in negatives.columns[negatives.dtypes == np.dtype(object)]:
        negatives[name] = negatives[name].where(negatives[name].notna(), None)  # as the table has missing text
    return pd.concat([table, negatives], ignore_index=True)


def _rejected(failed: dict[str, str]) -> pd.DataFrame:
    return pd.DataFrame({"file": "(made)", "line": 0, "name": list(failed), "reason": list(failed.values())})
