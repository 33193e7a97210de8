"""Time, memory and correctness of reading, encoding, shuffling, tokenizing, splitting and loading, as one table.

    python tests/benchmarks/ingestion.py [--quick] [--only NAME] [--out FILE.tsv]

Each case runs in a process of its own, on one core; ratios compare numbers of the same run, taken in turns.
Exits with 1 if a threshold is missed. What the rows mean is in README.md beside this file.
"""

import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import NamedTuple

import ingest_cases as cases
from ingest_cases import LIMIT, OURS, PEERS, Timed
from measure import MIB, Row, Threshold, in_fresh_process, print_table, table_options

#: Set to 1 before any process is started: all that is compared runs on one core.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS", "RAYON_NUM_THREADS")


class Scale(NamedTuple):
    """How much is run."""

    genome: int
    n_windows: int
    n_encoded: int
    n_shuffled: int
    n_draws: int
    n_tokenized: int
    n_related: int
    n_loaded: int
    repetitions: int
    #: False: fewer sequences, on which fixed costs weigh more, and no thresholds on time and memory.
    judge_speed: bool


FULL = Scale(30_000_000, 100_000, 100_000, 10_000, 43_200, 20_000, 100_000, 1_000_000, 3, True)
QUICK = Scale(600_000, 2_000, 2_000, 500, 7_200, 500, 2_000, 5_000, 1, False)
LENGTH, RELATED_LENGTH = 600, 200

# Thresholds.
NOT_SLOWER = Threshold("at most", 1)
NONE_DIFFERS = Threshold("at most", 0)
P_VALUE = Threshold("at least", 1e-3)
PRECISION = Threshold("at least", 0.99)
RECALL = Threshold("at least", 0.99)
# The bases once, one byte each, and as much again for names, targets and what the reader holds at a time.
LOADED_MEMORY = Threshold("at most", 2)


def extraction(scale: Scale) -> Iterator[Row]:
    """Windows of a genome."""
    with tempfile.TemporaryDirectory() as folder:
        paths = in_fresh_process(cases.write_genome, folder, scale.genome)
        for kind, path in paths.items():
            found = in_fresh_process(cases.extraction, path, scale.n_windows, LENGTH, repetitions=scale.repetitions)
            case = f"{scale.n_windows} windows of {scale.genome / 10**6:g} Mb, {kind}"
            yield from _compared("extract", case, LENGTH, found, scale)
    yield from _missing("extract", "pyfaidx")


def encoding(scale: Scale) -> Iterator[Row]:
    """Text to one-hot."""
    found = in_fresh_process(cases.encoding, scale.n_encoded, LENGTH, repetitions=scale.repetitions)
    yield from _compared("one-hot", f"{scale.n_encoded} sequences", LENGTH, found, scale)
    yield from _missing("one-hot", "tangermeme")


def shuffles(scale: Scale) -> Iterator[Row]:
    """Dinucleotide shuffles: how fast, and whether all come equally often."""
    found = in_fresh_process(cases.shuffles, scale.n_shuffled, LENGTH, repetitions=scale.repetitions)
    yield from _compared("shuffle", f"{scale.n_shuffled} sequences", LENGTH, found, scale)
    draws = in_fresh_process(cases.shuffle_uniformity, scale.n_draws)
    for name, (n_seen, p_value) in draws.items():
        case = f"{name}: {n_seen} of the {cases.N_SHUFFLES} shuffles of {cases.SHUFFLED} in {scale.n_draws} draws"
        bound = P_VALUE if name == OURS else None
        yield Row("shuffle", case, len(cases.SHUFFLED), None, None, p_value, "p-value of equal rates", bound)
    yield from _missing("shuffle", "tangermeme")


def tokens(scale: Scale) -> Iterator[Row]:
    """k-mers and byte pairs."""
    for stride in (1, 6):
        found = in_fresh_process(cases.kmers, scale.n_tokenized, LENGTH, 6, stride, repetitions=scale.repetitions)
        yield from _compared("tokens", f"{scale.n_tokenized} sequences, 6-mers, stride {stride}", LENGTH, found, scale)
    found = in_fresh_process(cases.bpe, scale.n_tokenized, LENGTH, 1024, repetitions=scale.repetitions)
    yield from _compared("tokens", f"{scale.n_tokenized} sequences, byte pairs", LENGTH, found, scale)


def homology(scale: Scale) -> Iterator[Row]:
    """Planted relatives: does grouping join them and nothing else, and does the audit see them."""
    n, length = scale.n_related, RELATED_LENGTH
    found = in_fresh_process(cases.grouping, n, length)
    judged = next(iter(found))
    for name, scores in found.items():
        yield Row("related", f"{n} sequences grouped, {name}", length, scores["seconds"])
        for measure, bound in (("precision", PRECISION), ("recall", RECALL), *((kind, None) for kind in cases.KINDS)):
            what = f"recall of kind '{measure}'" if measure in cases.KINDS else f"{measure} of pairs"
            yield Row(
                "related", f"{name}: {what}", length, None, None, scores[measure], "planted families",
                bound if name == judged else None,
            )  # fmt: skip
    audited = in_fresh_process(cases.leakage, n, length)
    case = f"audit, {audited['n']} held out, {audited['n_leaks']} with a relative in training"
    yield Row("related", case, length, audited["seconds"])
    for measure, bound in (("precision", PRECISION), ("recall", RECALL)):
        yield Row(
            "related", f"audit: {measure} of leaks, identity 0.8", length, None, None, audited[measure],
            "planted families", bound,
        )  # fmt: skip
    if PEERS["edlib"]:
        seconds = in_fresh_process(cases.all_pairs_seconds, n, length, 300 if scale.judge_speed else 60)
        name = "edlib: all pairs, both strands, computed from a few"
        yield Row("related", name, length, seconds)
        ratio = found[judged]["seconds"] / seconds
        bound = NOT_SLOWER if scale.judge_speed else None
        yield Row("related", f"{judged} (time)", length, None, None, ratio, "edlib: all pairs", bound)
    yield from _missing("related", "edlib")


def loading(scale: Scale) -> Iterator[Row]:
    """From parquet to shuffled batches."""
    n, batch = scale.n_loaded, 512
    with tempfile.TemporaryDirectory() as folder:
        paths = in_fresh_process(cases.write_examples, folder, n, LENGTH)
        ours = in_fresh_process(cases.load_ours, paths, batch)
        usual = in_fresh_process(cases.load_pandas, paths, batch, max(n // 50, 1000))
    names = {f"{OURS}: load_examples, Batches": ours, "pandas, one-hot one by one, DataLoader": usual}
    for name, found in names.items():
        yield Row("load", f"{n} sequences, {name}: load", LENGTH, found.load_seconds, found.peak_mib)
        yield Row("load", f"{n} sequences, {name}: an epoch", LENGTH, found.epoch_seconds)
    against = "pandas, one-hot one by one, DataLoader"
    speed, memory = (NOT_SLOWER, LOADED_MEMORY) if scale.judge_speed else (None, None)
    case = f"{OURS}: load_examples, Batches"
    both = (ours.load_seconds + ours.epoch_seconds) / (usual.load_seconds + usual.epoch_seconds)
    yield Row("load", f"{case} (time of loading and an epoch)", LENGTH, None, None, both, against, speed)
    ratio = ours.epoch_seconds / usual.epoch_seconds
    yield Row("load", f"{case} (time of an epoch)", LENGTH, None, None, ratio, against, speed)
    bases = n * LENGTH / MIB
    yield Row(
        "load", f"{case} (memory)", LENGTH, None, ours.peak_mib, ours.peak_mib / bases, "one byte per base", memory
    )  # fmt: skip


def _compared(section: str, case: str, length: int, found: Timed, scale: Scale) -> Iterator[Row]:
    """Seconds of every way, and for each of ours its ratio to the fastest of the others."""
    middle = {name: statistics.median(each) for name, each in found.seconds.items()}
    for name, value in middle.items():
        yield Row(section, f"{case}: {name}", length, value)
    others = [name for name in middle if not name.startswith((OURS, LIMIT))]
    fastest = min(others, key=middle.__getitem__) if others else None
    for name in middle:
        if name.startswith(OURS) and fastest is not None:
            pairs = zip(found.seconds[name], found.seconds[fastest], strict=True)
            ratio = statistics.median(ours / other for ours, other in pairs)
            bound = NOT_SLOWER if scale.judge_speed else None
            yield Row(section, f"{case}: {name}", length, None, None, ratio, fastest, bound)
    yield Row(section, f"{case}: ways with other results", None, None, None, len(found.different), "", NONE_DIFFERS)


def _missing(section: str, package: str) -> Iterator[Row]:
    if not PEERS[package]:
        yield Row(section, package, against=f"not installed: pip install {package}")


SECTIONS: dict[str, Callable[[Scale], Iterator[Row]]] = {
    "extract": extraction,
    "one-hot": encoding,
    "shuffle": shuffles,
    "tokens": tokens,
    "related": homology,
    "load": loading,
}


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 if a threshold is missed."""
    options = table_options(__doc__, SECTIONS, quick="few sequences and one repetition, below a minute").parse_args(
        arguments
    )
    scale = QUICK if options.quick else FULL
    os.environ.update(dict.fromkeys(THREADS, "1"), TOKENIZERS_PARALLELISM="false")
    return print_table("1 thread", SECTIONS, scale, only=options.only, out=options.out)


if __name__ == "__main__":
    sys.exit(main())
