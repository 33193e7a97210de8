"""Time and memory of triangle attention on this machine's CPU, as one table.

    python tests/benchmarks/triangle.py [--quick] [--only NAME] [--out FILE.tsv]

Each case runs in a process of its own; ratios compare numbers of the same run.
Exits with 1 if a threshold is missed. What the rows mean is in README.md beside this file.
"""

import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from measure import Measured, Row, Threshold, fit_exponent, in_fresh_process, measure, print_table, table_options
from torch import Tensor

from bioattn.nn.pair.triangle import make_triangle_backend
from bioattn.nn.pair.trunk import PairTrunk

HEADS, CHANNELS = 4, 32
BACKENDS = ("reference", "chunked", "sdpa_exact")
#: Residues of the case that is judged.
JUDGED = 320


class Scale(NamedTuple):
    """How much is run."""

    lengths: tuple[int, ...]
    #: Lengths at which the readable way, which holds N^3 scores, is run too.
    most_reference: int
    trunk_lengths: tuple[int, ...]
    judge: bool


FULL = Scale((96, 160, 224, 320, 448), 320, (64, 128, 192), True)
QUICK = Scale((24, 48), 48, (16,), False)

TIME, MEMORY = Threshold("at most", 0.4), Threshold("at most", 0.25)
ERROR = Threshold("at most", 1e-6)
MEMORY_EXPONENT = Threshold("at most", 2.3)


def terms(length: int, *, seed: int = 0) -> list[Tensor]:
    """Query, key and value as a layer makes them, and the bias, wanting gradients."""
    draw = torch.Generator().manual_seed(seed)
    projected = torch.randn(1, length, length, 3 * HEADS * CHANNELS, generator=draw)
    made = [x.unflatten(-1, (HEADS, CHANNELS)).transpose(2, 3) for x in projected.chunk(3, dim=-1)]
    made.append(torch.randn(1, HEADS, length, length, generator=draw))
    return [x.detach().requires_grad_() for x in made]


def operation(backend: str) -> Callable[[int], Callable[[], object]]:
    """From a length to a step: forward and backward."""
    attend = make_triangle_backend(backend)

    def prepare(length: int) -> Callable[[], object]:
        inputs = terms(length)

        def step() -> object:
            values = attend(*inputs, None)  # type: ignore[call-arg]
            return torch.autograd.grad(values, inputs, torch.ones_like(values))

        return step

    return prepare


def measured(backend: str, length: int) -> Measured:
    """Time and peak memory of one backend."""
    return measure(operation(backend), length, small=16, most=5)


def error(length: int) -> float:
    """Largest relative error (by norm) of the float32 gradients of the fused way, against float64."""
    exact = [x.detach().double().requires_grad_() for x in terms(length, seed=1)]
    ours = terms(length, seed=1)
    gradients = [
        torch.autograd.grad(make_triangle_backend(name)(*given, None).square().sum(), given)
        for name, given in (("chunked", exact), ("sdpa_exact", ours))
    ]
    return max(float((one.double() - true).norm() / true.norm()) for true, one in zip(*gradients, strict=True))


# ---------------------------------------------------------------------- sections


def attention(scale: Scale) -> Iterator[Row]:
    """Forward and backward of every backend at growing lengths, their exponents, and the error."""
    found: dict[str, dict[int, Measured]] = {}
    for backend in BACKENDS:
        found[backend] = {}
        for length in scale.lengths:
            if backend == "reference" and length > scale.most_reference:
                continue
            result = in_fresh_process(measured, backend, length)
            found[backend][length] = result
            base = found["reference"].get(length)
            ratio = None if backend == "reference" or base is None else result.seconds / base.seconds
            against = "" if ratio is None else "reference"
            judged = scale.judge and backend == "sdpa_exact" and length == JUDGED
            case = f"{backend}, forward + backward, {HEADS} heads of {CHANNELS}"
            yield Row("attention", case, length, *result, ratio, against, TIME if judged else None)
            if judged and base is not None:
                share = result.peak_mib / base.peak_mib
                yield Row("attention", f"{backend}: peak memory", length, None, result.peak_mib, share, against, MEMORY)
    for backend, by_length in found.items():
        if len(by_length) < 2:
            continue
        for what, values in (
            ("time", [m.seconds for m in by_length.values()]),
            ("memory", [m.peak_mib for m in by_length.values()]),
        ):
            exponent, _ = fit_exponent(list(by_length), values)
            judged = scale.judge and backend == "sdpa_exact" and what == "memory"
            bound = MEMORY_EXPONENT if judged else None
            yield Row("attention", f"{backend}: exponent of {what}", None, None, None, exponent, "length", bound)
    length = max(length for length in scale.lengths if length <= scale.most_reference)
    worst = in_fresh_process(error, length)
    bound = ERROR if scale.judge else None
    yield Row(
        "attention", "sdpa_exact: largest relative error of a gradient", length, None, None, worst, "float64", bound
    )


def trunk_step(length: int, checkpointing: bool) -> Callable[[int], Callable[[], object]]:
    """From a length to a training step of a small trunk."""

    def prepare(size: int) -> Callable[[], object]:
        torch.manual_seed(0)
        model = PairTrunk(64, 32, 4, checkpointing=checkpointing)
        single, pair = torch.randn(1, size, 64), torch.randn(1, size, size, 32)

        def step() -> object:
            model.zero_grad()
            out = model(single, pair)
            return (out[0].square().mean() + out[1].square().mean()).backward()  # type: ignore[no-untyped-call]

        return step

    return prepare


def trunk_measured(length: int, checkpointing: bool) -> Measured:
    """Time and peak memory of a step of the trunk."""
    return measure(trunk_step(length, checkpointing), length, small=16, most=3)


def trunk(scale: Scale) -> Iterator[Row]:
    """A training step of a trunk of four blocks, with and without checkpointing."""
    for length in scale.trunk_lengths:
        kept = in_fresh_process(trunk_measured, length, False)
        yield Row("trunk", "4 blocks, 32 pair channels, training step", length, *kept)
        again = in_fresh_process(trunk_measured, length, True)
        share = again.peak_mib / max(kept.peak_mib, 1e-9)
        yield Row("trunk", "the same with checkpointing: memory", length, *again, share, "without")


SECTIONS: dict[str, Callable[[Scale], Iterator[Row]]] = {"attention": attention, "trunk": trunk}


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 if a threshold is missed."""
    options = table_options(__doc__, SECTIONS, quick="short lengths, and no thresholds").parse_args(arguments)
    head = f"{torch.get_num_threads()} threads"
    return print_table(head, SECTIONS, QUICK if options.quick else FULL, only=options.only, out=options.out)


if __name__ == "__main__":
    sys.exit(main())
