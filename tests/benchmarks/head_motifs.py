"""Motifs of attention heads against other ways to read a model, on planted data, as one table.

    python tests/benchmarks/head_motifs.py [--quick] [--only NAME] [--seeds 1,2] [--work DIR] [--out FILE.tsv]

Each case runs in a process of its own, on one core. Models are trained first, and kept in DIR.
Exits with 1 if a threshold is missed. What the rows mean is in README.md beside this file.
"""

import os
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial

import head_motif_cases as cases
from head_motif_cases import (
    FORWARD,
    LENGTH,
    LONG,
    OURS,
    PERMUTED,
    RANDOM,
    RIVALS,
    TRACKS,
    TRAINED,
    Found,
    Scale,
    Scores,
)
from measure import Row, Threshold, in_fresh_process, print_table, table_options

#: Set to 1 before any process is started: all that is compared runs on one core.
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
FULL = Scale((1, 2, 3, 4, 5), 20_000, 25, 2000, 2000, 500, 600, True)
QUICK = Scale((1,), 1000, 1, 200, 100, 40, 60, False, n_random=1, n_tracked=64)

# Thresholds.
EVERY_ONE = Threshold("at least", 1)
NO_FEWER = Threshold("at least", 0)
FEWER = Threshold("at most", -1)
NO_MORE = Threshold("at most", 0)
RARE = Threshold("at most", 0.05)
MEMORY = Threshold("at most", 1 / 20)
TRACKS_TIME = Threshold("at most", 3)

#: What of ours counts: motifs in heads that matter. All enriched motifs are shown beside them.
ALL_ENRICHED = f"{OURS}, all enriched"


# ---------------------------------------------------------------------- sections


def recovery(scale: Scale) -> Iterator[Row]:
    """Planted motifs that each way recovers from the same trained models, and what else it reports."""
    models = [_trained(seed, scale, TRAINED) for seed in scale.seeds]
    r, ceiling = (statistics.mean(getattr(it, name) for it in models) for name in ("r", "ceiling"))
    each = " ".join(f"{it.r:.3f}" for it in models)
    against = f"each seed: {each}; a perfect reader {ceiling:.3f}"
    yield Row("recovery", "Pearson r of the trained models", LENGTH, None, None, r, against)
    scores: dict[str, list[Scores]] = {}
    for way in (OURS, *RIVALS):
        found = [_found(way, seed, scale) for seed in scale.seeds]
        if way == OURS:
            scores[ALL_ENRICHED] = [_scored(each, seed, scale) for each, seed in zip(found, scale.seeds, strict=True)]
            found = [cases.read_by_heads(each) for each in found]
        scores[way] = [_scored(each, seed, scale) for each, seed in zip(found, scale.seeds, strict=True)]
        if way == OURS:
            yield from _quality(ALL_ENRICHED, scores[ALL_ENRICHED], scale)
        yield from _quality(way, scores[way], scale)
        seconds, peaks = ([getattr(each, name) for each in found] for name in ("seconds", "peak_mib"))
        yield Row("recovery", f"{way}: mean time and largest memory", LENGTH, statistics.mean(seconds), max(peaks))
    for way in RIVALS:
        case, against = f"{OURS} less {way}", "sum over seeds"
        more = {what: _sum(scores[OURS], what) - _sum(scores[way], what) for what in ("recovered", "false", "unread")}
        fewer = FEWER if _sum(scores[way], "unread") else NO_MORE
        rows = {"recovered": ("recovered", NO_FEWER), "reported that are false": ("false", None),
                "false ones that the model does not respond to": ("unread", fewer)}  # fmt: skip
        for what, (name, bound) in rows.items():
            judged = _if(scale, bound) if bound else None
            yield Row("recovery", f"{case}: {what}", LENGTH, None, None, more[name], against, judged)


def nulls(scale: Scale) -> Iterator[Row]:
    """How often motifs come from models that read nothing, and motifs that have no effect from those that do."""
    numbers = range(scale.n_random)
    kinds: dict[str, list[Callable[[], Found]]] = {
        RANDOM: [partial(_found, OURS, seed, scale, number) for seed in scale.seeds for number in numbers],
        PERMUTED: [partial(_found, OURS, seed, scale, PERMUTED) for seed in scale.seeds],
    }
    for kind, makers in kinds.items():
        found = [make() for make in makers]
        n_heads, n_tested = (sum(getattr(each, name) for each in found) for name in ("n_heads", "n_tested"))
        for what, some in (("", [cases.read_by_heads(each) for each in found]), (", all enriched", found)):
            bound = None if what else _if(scale, RARE)
            case = f"{kind}, {len(found)} models: heads with a motif{what}"
            yield _share(case, sum(each.heads_with_motif for each in some), n_heads, "heads", bound)
            case = f"{kind}, {len(found)} models: motifs{what}"
            yield _share(case, sum(len(each.ppms) for each in some), n_tested, "tested motifs", None)
    scores = [_scored(cases.read_by_heads(_found(OURS, seed, scale)), seed, scale) for seed in scale.seeds]
    case = f"{TRAINED}, {len(scores)} models: inert motifs that are reported"
    yield _share(case, sum(s.inert for s in scores), sum(s.n_inert for s in scores), "inert motifs", _if(scale, RARE))
    case = f"{TRAINED}, {len(scores)} models: reported motifs that are inert"
    yield _share(case, sum(s.decoys for s in scores), sum(s.n for s in scores), "reported motifs", None)


def memory(scale: Scale) -> Iterator[Row]:
    """Peak memory against that of all patterns."""
    n, length, layers, heads = scale.n_stored, scale.stored_length, LONG["n_layers"], LONG["n_heads"]
    stored = cases.stored_mib(n, int(layers) * int(heads), length)
    yield Row(
        "memory", f"patterns of {n} sequences in float64, {layers} x {heads} heads, computed", length, None, stored
    )
    seconds, peak = in_fresh_process(cases.memory_of_long, scale)
    against = "these patterns (memory)"
    yield Row("memory", f"{OURS}, {n} sequences", length, seconds, peak, peak / stored, against, _if(scale, MEMORY))


def tracks(scale: Scale) -> Iterator[Row]:
    """Time of all tracks of all heads against a forward pass."""
    found = in_fresh_process(cases.tracks_seconds, scale)
    n, length = scale.n_tracked, scale.stored_length
    for name, each in found.items():
        yield Row("tracks", f"{name}, {n} sequences, {LONG['n_layers']} x {LONG['n_heads']} heads", length, sum(each))
    ratio = statistics.median(a / b for a, b in zip(found[TRACKS], found[FORWARD], strict=True))
    yield Row("tracks", f"{TRACKS} (time)", length, None, None, ratio, FORWARD, _if(scale, TRACKS_TIME))


# ------------------------------------------------------------------------- parts


def _trained(seed: int, scale: Scale, kind: str) -> cases.Trained:
    return in_fresh_process(cases.trained, seed, scale, kind)


@cache
def _found(way: str, seed: int, scale: Scale, model: str | int = TRAINED) -> Found:
    """What a way finds in a model of one seed: of that kind, or with random weights if it is a number."""
    source = model if isinstance(model, int) else _trained(seed, scale, model).folder
    return in_fresh_process(cases.find, way, source, seed, scale)


def _scored(found: Found, seed: int, scale: Scale) -> Scores:
    data = cases.planted(seed, scale)
    return cases.score(found, data.causal, data.inert)


def _quality(way: str, scores: Sequence[Scores], scale: Scale) -> Iterator[Row]:
    """What a way reports, as means over seeds."""
    judged = _if(scale, EVERY_ONE) if way == OURS else None
    shares = {f"causal motifs recovered at {cases.RECOVERED:g} (recall)": "recovered"}
    if way.startswith(OURS):
        shares["causal motifs recovered and named after their family"] = "named"
    shares[f"causal motifs found at {cases.ALIKE:g}"] = "found"
    for what, name in shares.items():
        counts = [getattr(each, name) for each in scores]
        n = scores[0].n_causal
        bound = None if name == "found" else judged
        yield Row(
            "recovery", f"{way}: {what}", LENGTH, None, None, statistics.mean(counts) / n, _each(counts, n), bound
        )
    known = [each for each in scores if each.n]
    precision = statistics.mean(each.precision for each in known) if known else None
    right = " ".join(f"{each.n - each.false}/{each.n}" for each in scores)
    yield Row("recovery", f"{way}: precision of reported motifs", LENGTH, None, None, precision, f"each seed: {right}")
    others = {
        "inert motifs": "decoys",
        "like no planted motif": "strangers",
        "either, and unread by the model": "unread",
    }
    for what, name in others.items():
        counts = [getattr(each, name) for each in scores]
        mean = statistics.mean(counts)
        yield Row("recovery", f"{way}: reported that are {what}", LENGTH, None, None, mean, _each(counts))


def _sum(scores: Sequence[Scores], name: str) -> int:
    return sum(getattr(each, name) for each in scores)


def _each(counts: Sequence[int], n: int | None = None) -> str:
    return f"each seed: {' '.join(map(str, counts))}" + ("" if n is None else f" of {n}")


def _share(case: str, count: int, n: int, of: str, bound: Threshold | None) -> Row:
    return Row("nulls", case, LENGTH, None, None, count / n if n else None, f"{count} of {n} {of}", bound)


def _if(scale: Scale, bound: Threshold) -> Threshold | None:
    return bound if scale.judge else None


SECTIONS: dict[str, Callable[[Scale], Iterator[Row]]] = {
    "recovery": recovery,
    "nulls": nulls,
    "memory": memory,
    "tracks": tracks,
}


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 if a threshold is missed."""
    parser = table_options(__doc__, SECTIONS, quick="one small model that learns little, and no thresholds")
    parser.add_argument("--seeds", help="of data and models, such as 1,2,3")
    parser.add_argument("--work", metavar="DIR", help="keep trained models there; without it, they are trained anew")
    options = parser.parse_args(arguments)
    scale = QUICK if options.quick else FULL
    if options.seeds:
        scale = scale._replace(seeds=tuple(int(seed) for seed in options.seeds.split(",")))
    os.environ.update(dict.fromkeys(THREADS, "1"))
    with tempfile.TemporaryDirectory() as folder:
        scale = scale._replace(work=options.work or folder)
        return print_table("1 thread", SECTIONS, scale, only=options.only, out=options.out)


if __name__ == "__main__":
    sys.exit(main())
