"""Cost of testing all pairs of motifs, against other ways to do the same, as one table.

    python tests/benchmarks/interactions.py [--quick] [--only NAME] [--out FILE.tsv]

Each case runs in a process of its own, on one core. Exits with 1 if a threshold is missed.
What the rows mean is in README.md beside this file.
"""

import os
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from measure import Row, Threshold, in_fresh_process, print_table, table_options, timed
from numpy.typing import NDArray

from bioattn.causal.marginalize import KnockIn, backgrounds_of
from bioattn.causal.sites import drawn_sites
from bioattn.config import ModelConfig
from bioattn.data import alphabet
from bioattn.data.motif import Motif
from bioattn.explain.attribution import integrated_gradients
from bioattn.explain.coattention import coattention, pair_attention
from bioattn.explain.hits import find_hits, pair_instances
from bioattn.io.motifs import jaspar_group
from bioattn.models import SequenceModel, build_model

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")
LENGTH, P_VALUE, SEED = 200, 1e-4, 1
#: Steps of integrated gradients.
STEPS = 50
FASTER_THAN_FIS, FASTER_THAN_CELLS = Threshold("at least", 20), Threshold("at least", 3)
AN_HOUR = Threshold("at most", 3600, "seconds")


class Scale(NamedTuple):
    """How much is run."""

    n_motifs: int
    n_backgrounds: int
    #: Pairs and backgrounds on which slow ways are measured; the rest is scaled up.
    n_slow_pairs: int
    n_slow_backgrounds: int
    n_sequences: int
    #: Motifs and replicates of the case of a whole analysis, and pairs that it tests at full depth.
    n_many: int
    n_replicates: int
    n_tested: int
    judge: bool


FULL = Scale(50, 100, 4, 10, 1000, 100, 10, 250, True)
QUICK = Scale(6, 16, 1, 2, 100, 8, 2, 5, False)


def case(n_motifs: int, n: int) -> tuple[SequenceModel, list[Motif], NDArray[np.uint8]]:
    """A model with these motifs in its stem, of the size that the benchmark of pairs trains, and sequences."""
    motifs = [motif for motif in jaspar_group("vertebrates") if motif.width <= 16][:n_motifs]
    config = ModelConfig.model_validate(
        {
            "stem": {"kind": "pwm", "n_filters": 4, "width": 11, "pool": 10}, "d_model": 32, "n_layers": 1,
            "n_heads": 4, "d_feedforward": 64, "positions": "relative", "pooling": "sum", "dropout": 0.0,
        }
    )  # fmt: skip
    codes = np.random.default_rng(SEED).integers(0, 4, (n, LENGTH)).astype(np.uint8)
    return build_model(config, n_readouts=1, motifs=motifs, seed=SEED).eval(), motifs, codes


def knock_in(model: SequenceModel, motifs: list[Motif], codes: NDArray[np.uint8], n: int) -> KnockIn:
    """Motifs and decoys in n backgrounds."""
    hits = find_hits(codes, motifs, p_value=P_VALUE)
    sites = drawn_sites(codes, hits, motifs, n=n, hit_p_value=P_VALUE, seed=SEED)
    widest = max(motif.width for motif in motifs)
    backgrounds = backgrounds_of(codes, n=n, widest=widest, model=model, seed=SEED)
    return KnockIn(model, backgrounds, motifs, sites, readout=0, seed=SEED)


def all_pairs(n_motifs: int) -> list[tuple[int, int]]:
    """Pairs of motifs."""
    return [(a, b) for a in range(n_motifs) for b in range(a + 1, n_motifs)]


# -------------------------------------------------------------------------- parts


def ours(scale: Scale) -> dict[str, float]:
    """Seconds of co-attention, of the four cells of all pairs, and of these with all cuts."""
    torch.set_num_threads(1)
    model, motifs, codes = case(scale.n_motifs, scale.n_sequences)
    attend(model, motifs, codes[:50])
    seconds = {"co-attention": timed(lambda: attend(model, motifs, codes))}
    made: list[KnockIn] = []
    seconds["insertions"] = timed(lambda: made.append(knock_in(model, motifs, codes, scale.n_backgrounds)))
    pairs = all_pairs(scale.n_motifs)
    seconds["four cells and control"] = timed(lambda: made[0].pairs(pairs))
    some = pairs[:: max(1, len(pairs) // 100)]
    seconds["with cut edges"] = timed(lambda: made[0].pairs(some, edges=True)) * len(pairs) / len(some)
    return seconds


def attend(model: SequenceModel, motifs: list[Motif], codes: NDArray[np.uint8]) -> None:
    """Hits, attention between them, and co-attention with its null."""
    hits = find_hits(codes, motifs, p_value=P_VALUE)
    margin = 2 + model.receptive_field_bp // 2
    instances = pair_instances(hits, margin_bp=margin, token_bp=model.token_bp)
    coattention(
        pair_attention(model, codes, hits, instances), hits, instances, n_motifs=len(motifs), n_heads=model.n_heads,
        n_tokens=-(-LENGTH // model.token_bp), token_bp=model.token_bp, permutations=499, seed=SEED,
    )  # fmt: skip


def fis(scale: Scale) -> float:
    """Seconds of feature interaction scores of all pairs, measured on some.

    For each pair and background: integrated gradients with both motifs, and with the first
    replaced; the change of what is attributed to the second (Greenside et al. 2018).
    """
    torch.set_num_threads(1)
    model, motifs, codes = case(scale.n_motifs, scale.n_sequences)
    placed = sequences(motifs, codes[: scale.n_slow_backgrounds])
    pairs = all_pairs(scale.n_motifs)[: scale.n_slow_pairs]
    integrated_gradients(model, codes[:1], steps=2, draws=1)

    def loop() -> None:
        for a, b in pairs:
            for cell in (placed([(a, 0), (b, 1)]), placed([(b, 1)])):
                integrated_gradients(model, cell, steps=STEPS, draws=1)

    return timed(loop) * _share(scale, len(pairs), scale.n_slow_backgrounds)


def library_cells(scale: Scale) -> float:
    """Seconds of the four cells of all pairs with tangermeme's functions, measured on some pairs."""
    from tangermeme.ersatz import multisubstitute, substitute
    from tangermeme.predict import predict

    torch.set_num_threads(1)
    model, motifs, codes = case(scale.n_motifs, scale.n_sequences)
    network = OneHot(model)
    x = torch.from_numpy(alphabet.one_hot(codes[: scale.n_backgrounds]))
    texts = [motif.consensus for motif in motifs]
    pairs = all_pairs(scale.n_motifs)[: 5 * scale.n_slow_pairs]
    first, gap = 40, 60

    def loop() -> None:
        for a, b in pairs:
            second = first + len(texts[a]) + gap
            both = multisubstitute(x, [texts[a], texts[b]], [gap], start=first)
            cells = (both, substitute(x, texts[a], start=first), substitute(x, texts[b], start=second), x)
            for cell in cells:
                predict(network, cell, device="cpu", batch_size=512)

    loop()
    return timed(loop) * _share(scale, len(pairs), scale.n_backgrounds)


class OneHot(torch.nn.Module):
    """A model that takes one-hot sequences, as other libraries have it."""

    def __init__(self, model: SequenceModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, x_BAL: torch.Tensor) -> torch.Tensor:  # noqa: D102
        real = torch.ones(len(x_BAL), x_BAL.shape[2], dtype=torch.bool)
        return self.model.tail(*self.model.embed_one_hot(x_BAL.float(), real))


def sequences(motifs: list[Motif], codes: NDArray[np.uint8]) -> Callable[[list[tuple[int, int]]], NDArray[np.uint8]]:
    """Function that writes motifs into one of two places of all backgrounds."""

    def write(placed: list[tuple[int, int]]) -> NDArray[np.uint8]:
        result = codes.copy()
        for motif, place in placed:
            letters = alphabet.encode(motifs[motif].consensus)
            result[:, 40 + 80 * place : 40 + 80 * place + len(letters)] = letters
        return result

    return write


def analysis(scale: Scale) -> dict[str, float]:
    """Seconds of one replicate of an analysis of many motifs: co-attention, screen of all pairs, full depth of some."""
    torch.set_num_threads(1)
    model, motifs, codes = case(scale.n_many, scale.n_sequences)
    pairs = all_pairs(scale.n_many)
    seconds = {"co-attention": timed(lambda: attend(model, motifs, codes))}
    seconds["screen"] = timed(lambda: knock_in(model, motifs, codes, 16).pairs(pairs))
    made: list[KnockIn] = []
    seconds["insertions"] = timed(lambda: made.append(knock_in(model, motifs, codes, scale.n_backgrounds)))
    seconds["full depth"] = timed(lambda: made[0].pairs(pairs[: scale.n_tested], edges=True))
    return seconds


def _share(scale: Scale, n_pairs: int, n_backgrounds: int) -> float:
    """What all pairs in all backgrounds cost against those measured."""
    return len(all_pairs(scale.n_motifs)) * scale.n_backgrounds / (n_pairs * n_backgrounds)


# ----------------------------------------------------------------------- sections


def cost(scale: Scale) -> Iterator[Row]:
    """All pairs against other ways."""
    n = len(all_pairs(scale.n_motifs))
    case_of = f"{n:,} pairs of {scale.n_motifs} motifs, {scale.n_backgrounds} backgrounds"
    found = in_fresh_process(ours, scale)
    for name, seconds in found.items():
        yield Row("cost", f"{name}, {case_of}", LENGTH, seconds)
    levels = found["co-attention"] + found["insertions"] + found["four cells and control"] + found["with cut edges"]
    slow = in_fresh_process(fis, scale)
    yield Row("cost", f"interaction scores by integrated gradients, {case_of}, scaled up", LENGTH, slow)
    faster = FASTER_THAN_FIS if scale.judge else None
    yield Row("cost", "all of ours: times faster", LENGTH, levels, None, slow / levels, "integrated gradients", faster)
    cells = found["insertions"] + found["four cells and control"]
    library = in_fresh_process(library_cells, scale)
    yield Row("cost", f"four cells with tangermeme, {case_of}, scaled up", LENGTH, library)
    faster = FASTER_THAN_CELLS if scale.judge else None
    yield Row("cost", "ours, with control: times faster", LENGTH, cells, None, library / cells, "tangermeme", faster)


def many(scale: Scale) -> Iterator[Row]:
    """A whole analysis."""
    found = in_fresh_process(analysis, scale)
    n = len(all_pairs(scale.n_many))
    for name, seconds in found.items():
        yield Row("many", f"{name}, {n:,} pairs of {scale.n_many} motifs, one replicate", LENGTH, seconds)
    whole = sum(found.values()) * scale.n_replicates
    bound = AN_HOUR if scale.judge else None
    yield Row("many", f"{scale.n_replicates} replicates, one after the other, one core", LENGTH, whole, threshold=bound)


SECTIONS: dict[str, Callable[[Scale], Iterator[Row]]] = {"cost": cost, "many": many}


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 if a threshold is missed."""
    parser = table_options(__doc__, SECTIONS, quick="few motifs, and no thresholds")
    options = parser.parse_args(arguments)
    os.environ.update(dict.fromkeys(THREADS, "1"))
    return print_table("1 thread", SECTIONS, QUICK if options.quick else FULL, only=options.only, out=options.out)


if __name__ == "__main__":
    sys.exit(main())
