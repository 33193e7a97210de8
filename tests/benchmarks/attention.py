"""Time and memory of attention and encoders on this machine's CPU, as one table.

    python tests/benchmarks/attention.py [--quick] [--only NAME] [--out FILE.tsv]

Each case runs in a process of its own; ratios compare numbers of the same run.
Exits with 1 if a threshold is missed. What the rows mean is in README.md beside this file.
"""

import statistics
import sys
from collections.abc import Callable, Iterator
from concurrent.futures.process import BrokenProcessPool
from typing import NamedTuple

import cases
import torch
from cases import CAPTURE, KINDS, OURS, SIZES, TORCH, X_TRANSFORMERS
from measure import MIB, Measured, Row, Threshold, fit_exponent, in_fresh_process, print_table, table_options

#: A case that would need more memory than this is left out, in MiB.
MOST_MIB = 6 * 1024
#: Exponents are fitted over lengths from here on, where what grows linearly no longer hides what grows quadratically.
FIT_FROM = 2048


class Scale(NamedTuple):
    """How much is run."""

    lengths: tuple[int, ...]
    long: int
    n_captured: int
    repetitions: int
    #: False: fewer cases, and no thresholds on growth and on long sequences.
    judge_length: bool


FULL = Scale((256, 512, 1024, 2048, 4096, 8192, 16384), 16384, 500, 5, True)
QUICK = Scale((512, 1024), 1024, 16, 3, False)

# Thresholds.
TIME_EXPONENT_FULL = Threshold("at least", 1.8)
# Linear is 1; caches and the standard error of the fit (up to 0.1) add to it, and a quadratic part would show as 2.
TIME_EXPONENT_LOCAL = Threshold("at most", 1.3)
MEMORY_EXPONENT_FULL = Threshold("at least", 1.8)
MEMORY_EXPONENT_LOCAL = Threshold("at most", 1.2)
LONG_MEMORY = Threshold("at most", 4 * 1024, "peak_mib")
LONG_SPEEDUP = Threshold("at least", 10)
CAPTURE_MEMORY = Threshold("at most", 1 / 50)
CAPTURE_TIME = Threshold("at most", 2)
CAPTURE_ERROR = Threshold("at most", 1e-5)
TRACKS_TIME = Threshold("at most", 3)
TRACKS_MEMORY = Threshold("at most", 1 / 20)
ENCODER_TIME = Threshold("at most", 1)


# ---------------------------------------------------------------------- sections


def scaling(scale: Scale) -> Iterator[Row]:
    """How time and memory grow with the length: attention alone, and an encoder."""
    for what, backward in (("attention", False), ("attention", True), ("encoder", False), ("encoder", True)):
        if not (backward or scale.judge_length):
            continue
        name = f"{what}, {'forward + backward' if backward else 'forward'}"
        kinds = [(kind, False) for kind in KINDS]
        if what == "encoder" and backward:
            kinds += [("sdpa", True), ("local, window 256", True)]
        found: dict[str, dict[int, Measured]] = {}
        for kind, checkpointing in kinds:
            label = f"{kind}, checkpointing" if checkpointing else kind
            found[label] = {}
            for length in scale.lengths:
                if what == "attention":
                    measured = _measured(found[label], length, cases.operation, kind, length, backward=backward)
                else:
                    options = {"backward": backward, "checkpointing": checkpointing}
                    measured = _measured(found[label], length, cases.encoder, kind, length, **options)
                if isinstance(measured, str):
                    yield Row("scaling", f"{name}: {label}", length, against=measured)
                    break
                found[label][length] = measured
                base = found["sdpa"].get(length) if label != "sdpa" else None
                ratio = None if base is None else measured.seconds / base.seconds
                yield Row(
                    "scaling", f"{name}: {label}", length, *measured, ratio, "" if base is None else "sdpa (time)"
                )
        for label, by_length in found.items():
            yield from _exponents(f"{name}: {label}", by_length, scale, alone=what == "attention")


def _measured(
    found: dict[int, Measured], length: int, function: Callable[..., Measured], *args: object, **options: object
) -> Measured | str:
    """Result of a case, or why there is none: memory that follows from half the length by the square."""
    before = found.get(length // 2)
    if before is not None and 4 * before.peak_mib > MOST_MIB and args[0] == "reference":
        return f"left out: needs about {4 * before.peak_mib / 1024:.1f} GiB, limit {MOST_MIB / 1024:.0f} GiB"
    try:
        return in_fresh_process(function, *args, **options)
    except BrokenProcessPool:
        return "left out: the process was killed, probably for its memory"


def _exponents(case: str, found: dict[int, Measured], scale: Scale, *, alone: bool) -> Iterator[Row]:
    lengths = [n for n in found if n >= FIT_FROM or not scale.judge_length]
    if len(lengths) < 2:
        # Full memory ends the reference early: its last three lengths have to do.
        lengths = list(found)[-3:]
    for what in ("time", "memory"):
        values = [found[n].seconds if what == "time" else found[n].peak_mib for n in lengths]
        if len(lengths) < 2 or min(values) <= 0:
            continue
        exponent, error = fit_exponent(lengths, values)
        bound = None
        if scale.judge_length and "checkpointing" not in case:
            bound = _exponent_bound(case, what, alone)
        text = f"lengths {lengths[0]} to {lengths[-1]}"
        if len(lengths) > 2:
            text += f"; standard error {error:.2f}"
        yield Row("scaling", f"{case}: exponent of {what}", ratio=exponent, against=text, threshold=bound)


def _exponent_bound(case: str, what: str, alone: bool) -> Threshold | None:
    """Local attention must be linear throughout; full attention quadratic where nothing else is measured."""
    if "local" in case:
        return TIME_EXPONENT_LOCAL if what == "time" else MEMORY_EXPONENT_LOCAL
    if not alone:
        return None
    if what == "time":
        return TIME_EXPONENT_FULL
    return MEMORY_EXPONENT_FULL if "reference" in case else None  # the fused kernel holds no scores


def long(scale: Scale) -> Iterator[Row]:
    """Training on long sequences: local windows against full attention, and what checkpointing saves."""
    length, kinds = scale.long, ["sdpa", "local, window 256", "local, window 128"]
    steps = {kind: in_fresh_process(cases.encoder, kind, length, backward=True, optimizer=True) for kind in kinds}
    layers = {kind: in_fresh_process(cases.layer, kind, length) for kind in kinds}
    for what, found in (("training step of the encoder", steps), ("attention layer, forward + backward", layers)):
        for kind in kinds:
            memory = LONG_MEMORY if found is steps and kind != "sdpa" else None
            yield Row("long", f"{what}: {kind}", length, *found[kind], threshold=memory)
        for kind in kinds[1:]:
            bound = LONG_SPEEDUP if scale.judge_length and kind == "local, window 256" else None
            ratio = found["sdpa"].seconds / found[kind].seconds
            yield Row("long", f"{what}: times faster: {kind}", length, None, None, ratio, "sdpa", bound)
    kind, deep = "local, window 256", {"backward": True, "optimizer": True, "n_layers": 8}
    stored = in_fresh_process(cases.encoder, kind, length, **deep)
    again = in_fresh_process(cases.encoder, kind, length, checkpointing=True, **deep)
    yield Row("long", f"training step, 8 layers: {kind}", length, *stored)
    case, without = f"training step, 8 layers: {kind}, checkpointing", "without checkpointing"
    yield Row("long", case, length, *again, again.peak_mib / stored.peak_mib, f"{without} (memory)")
    yield Row("long", case, length, *again, again.seconds / stored.seconds, f"{without} (time)")


def capture(scale: Scale) -> Iterator[Row]:
    """Exact attention between few positions of many sequences, all heads, against a plain forward pass."""
    n, n_all, length, batch = scale.n_captured, 5000, CAPTURE["length"], CAPTURE["batch"]
    seconds = in_fresh_process(cases.capture_seconds, n)
    plain = seconds["plain forward pass"]
    peak = {name: in_fresh_process(cases.capture_peak, name, batch) for name in cases.WAYS}
    for name, each in seconds.items():
        ratio = None if each is plain else statistics.median(a / b for a, b in zip(each, plain, strict=False))
        bound = {"attention_blocks": CAPTURE_TIME, cases.TRACKS: TRACKS_TIME}.get(name)
        against = "" if ratio is None else "plain forward pass (time)"
        # Sums and tracks are slower: they are taken from some of the sequences.
        done = min(n, len(each) * cases.GROUP)
        yield Row("capture", f"{name}, {done} sequences", length, sum(each), None, ratio, against, bound)
    for name, value in peak.items():
        ratio = value / peak[cases.DENSE]
        yield Row("capture", f"{name}, one batch of {batch}", length, None, value, ratio, f"{cases.DENSE} (memory)")
    n_pairs = CAPTURE["n_layers"] * CAPTURE["n_heads"]
    dense = n_all * n_pairs * length**2 * 4 / MIB
    yield Row("capture", f"dense float32 patterns, {n_all} sequences, computed", length, None, dense)
    case, total = f"attention_blocks, {n_all} sequences", in_fresh_process(cases.capture_peak, "attention_blocks", n)
    scaled = sum(seconds["attention_blocks"]) * n_all / n
    if n < n_all:
        case += f", scaled from {n}"
        # What is returned grows with the sequences, and exists twice while its batches are joined.
        total += 2 * (n_all - n) * n_pairs * CAPTURE["n_hits"] ** 2 * 4 / MIB
    yield Row("capture", case, length, scaled, total, total / dense, "these dense patterns (memory)", CAPTURE_MEMORY)
    patterns = n_all * n_pairs * length**2 * 8 / MIB
    yield Row("capture", f"dense float64 patterns, {n_all} sequences, computed", length, None, patterns)
    case, total = f"{cases.TRACKS}, {n_all} sequences", in_fresh_process(cases.capture_peak, cases.TRACKS, n)
    if n < n_all:
        case += f", memory scaled from {n}"
        total += 2 * (n_all - n) * 3 * n_pairs * length * 4 / MIB  # as above
    yield Row("capture", case, length, None, total, total / patterns, "these dense patterns (memory)", TRACKS_MEMORY)
    difference = in_fresh_process(cases.capture_agrees)
    yield Row("capture", "largest error of an entry", length, None, None, difference, cases.DENSE, CAPTURE_ERROR)


def encoder(scale: Scale) -> Iterator[Row]:
    """A training step of our encoder against other implementations of the same network."""
    for size, (n_batch, length, *_) in SIZES.items():
        if not scale.judge_length and n_batch < 16:
            continue
        for dropout in (0.1, 0.0):
            # Short steps need more repetitions, and allow them; so do steps whose times are close.
            repetitions = scale.repetitions * (4 if n_batch > 16 else 1 if dropout else 2)
            for padded in (False, True):
                if not scale.judge_length and (dropout == 0.0) == padded:
                    continue
                options = {"padded": padded, "dropout": dropout, "repetitions": repetitions}
                seconds = in_fresh_process(cases.training_steps, size, **options)
                middle = {name: statistics.median(each) for name, each in seconds.items()}
                case = f"{size.split(' (')[0]}, dropout {dropout:g}{', padding' if padded else ''}"
                for name, value in middle.items():
                    yield Row("encoder", f"{case}: {name}", length, value)
                for name in middle:
                    if name != OURS:
                        bound = ENCODER_TIME if name == TORCH else None
                        ratio = middle[OURS] / middle[name]
                        yield Row("encoder", f"{case}: {OURS}", length, None, None, ratio, name, bound)
    if X_TRANSFORMERS not in middle:
        yield Row("encoder", X_TRANSFORMERS, against="not installed: pip install x-transformers")


def flops(scale: Scale) -> Iterator[Row]:
    """Operations per second of a training step, as a part of what a large matrix product reaches."""
    size = list(SIZES)[-1 if scale.judge_length else 0]
    runs: list[tuple[str, int | None]] = [("sdpa", None)]
    if scale.judge_length:
        runs += [("sdpa", 4096), ("local, window 256", 4096)]
    for kind, length in runs:
        found = in_fresh_process(cases.utilisation, size, kind=kind, length=length)
        rate = found["step flop"] / found["step seconds"]
        best = found["product flop"] / found["product seconds"]
        case = f"training step, {size.split(' (')[0]}: {kind}, {rate / 1e9:.0f} GFLOP/s"
        against = f"2048 x 2048 x 2048 float32, {best / 1e9:.0f} GFLOP/s"
        yield Row("flops", case, length or SIZES[size][1], found["step seconds"], None, rate / best, against)


SECTIONS: dict[str, Callable[[Scale], Iterator[Row]]] = {
    "scaling": scaling,
    "long": long,
    "capture": capture,
    "encoder": encoder,
    "flops": flops,
}


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 if a threshold is missed."""
    parser = table_options(__doc__, SECTIONS, quick="short lengths and few repetitions, below a minute")
    parser.add_argument("--full", action="store_true", help="capture all 5,000 sequences instead of scaling from 500")
    options = parser.parse_args(arguments)
    scale = QUICK if options.quick else FULL
    if options.full:
        scale = scale._replace(n_captured=5000)
    head = f"torch {torch.__version__}, {torch.get_num_threads()} threads"
    return print_table(head, SECTIONS, scale, only=options.only, out=options.out)


if __name__ == "__main__":
    sys.exit(main())
