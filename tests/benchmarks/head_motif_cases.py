"""What the benchmark of head motifs runs: planted sequences, models trained on them, every way to find motifs."""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import rivals
import torch
from measure import MIB, Peak, timed
from numpy.typing import NDArray

from bioattn.config import ExplainConfig, ModelConfig, RunConfig, SimulateConfig, TaskConfig
from bioattn.data import alphabet
from bioattn.data.motif import Motif, best_correlation, sharpen
from bioattn.data.simulate import simulate
from bioattn.data.splits import split
from bioattn.explain.head_ablation import Scored
from bioattn.explain.head_motifs import HeadMotifs, head_motifs
from bioattn.explain.naming import read_matches
from bioattn.explain.predict import predict
from bioattn.explain.tracks import head_tracks, shuffled
from bioattn.io.motifs import jaspar_group, jaspar_motif
from bioattn.models import SequenceModel, build_model, load_model, save_model

#: Twelve vertebrate factors of as many families; which of them have an effect is drawn from the seed.
JASPAR_IDS = (
    "MA0028.3",  # ELK1
    "MA0060.4",  # NFYA
    "MA0148.5",  # FOXA1
    "MA0046.3",  # HNF1A
    "MA0102.5",  # CEBPA
    "MA0090.4",  # TEAD1
    "MA0093.4",  # USF1
    "MA0592.4",  # ESRRA
    "MA0083.3",  # SRF
    "MA0101.1",  # REL
    "MA0079.5",  # SP1
    "MA0496.4",  # MAFK
)
#: Six motifs with an effect (two of AND and ADDITIVE each, the first of each CHAIN) and six without: the second of each
#: CHAIN, which follows the first, two that GC brings, and two independent ones.
PAIRS = ["AND", "ADDITIVE", "CHAIN", "CHAIN", "GC", "DECOY"]
LENGTH = 200
#: A motif is recovered at the first correlation, and what a reported motif is, is decided at the second.
RECOVERED, ALIKE = 0.9, 0.8
TRAINED, RANDOM, PERMUTED = "trained", "random weights", "permuted labels"
TASK = TaskConfig(kind="regression", targets=["y"])
#: The model of the cases about memory and time of long sequences, where a token is a base and patterns are large.
LONG = {"n_layers": 4, "n_heads": 8, "d_model": 128, "d_feedforward": 256, "positions": "rope"}
#: Sequences of a forward pass of that model, as many as the caches hold, and batches timed at a time.
LONG_BATCH, LONG_BATCHES = 16, 3
#: Sequences on which its heads are ablated.
LONG_SCORED = 50
#: Shuffled sequences into which a reported motif is put, and matrices of the same columns it is compared with.
BACKGROUNDS, SCRAMBLES = 50, 39


class Scale(NamedTuple):
    """How much is run."""

    seeds: tuple[int, ...]
    n_sequences: int
    epochs: int
    n_discovery: int
    n_held_out: int
    #: Sequences of the case that is about memory, half of them held out, and their length.
    n_stored: int
    stored_length: int
    #: False: a model that has learned little, and no thresholds.
    judge: bool
    #: Models with random weights for each seed.
    n_random: int = 3
    #: Sequences of the case that is about the time of tracks; as long as those above.
    n_tracked: int = 384
    #: Where trained models are kept.
    work: str = ""


# ------------------------------------------------------------------- planted data


@dataclass(frozen=True)
class Planted:
    """Simulated sequences, and what was planted in them.

    Attributes
    ----------
    table, split : DataFrame
        As training takes them.
    discovery, held_out : ndarray, uint8
        Codes of training and validation sequences, and of test sequences.
    high : ndarray, bool
        Which discovery sequences have a target above the median.
    targets : ndarray, float32, shape (M, 1)
        Of the held-out sequences.
    causal, inert : list of Motif
        With the matrices that sites were drawn from.
    ceiling : float
        Pearson r of a perfect reader on the test sequences.
    """

    table: pd.DataFrame
    split: pd.DataFrame
    discovery: NDArray[np.uint8]
    held_out: NDArray[np.uint8]
    high: NDArray[np.bool_]
    targets: NDArray[np.float32]
    causal: list[Motif]
    inert: list[Motif]
    ceiling: float


def simulation(scale: Scale) -> SimulateConfig:
    """How sequences are simulated."""
    return SimulateConfig.model_validate({"n_sequences": scale.n_sequences, "length": LENGTH, "pairs": PAIRS})


def planted(seed: int, scale: Scale) -> Planted:
    """Sequences of one seed with six motifs that matter and six that do not."""
    config = simulation(scale)
    motifs = [jaspar_motif(motif_id) for motif_id in JASPAR_IDS]
    made = simulate(config, motifs, seed=seed)
    table = made.table.assign(sequence=made.sequences)
    run = run_of(seed, scale)
    parts = split(table, run.split, run.task, seed=seed)
    test = (parts["fold_0"] == "test").to_numpy()
    codes, y = alphabet.encode_batch(made.sequences), table["y"].to_numpy()
    found_in = np.flatnonzero(~test)[: scale.n_discovery]
    tested_in = np.flatnonzero(test)[: scale.n_held_out]
    placed = [
        Motif(motif.name, motif.motif_id, sharpen(motif.ppm, config.motif_sharpening), motif.family)
        for motif in motifs
    ]  # fmt: skip
    matters = made.motifs["total_effect"].to_numpy() != 0
    return Planted(
        table,
        parts,
        codes[found_in],
        codes[tested_in],
        y[found_in] > np.median(y[found_in]),
        y[tested_in, None].astype(np.float32),
        [motif for motif, causal in zip(placed, matters, strict=True) if causal],
        [motif for motif, causal in zip(placed, matters, strict=True) if not causal],
        _correlation(table.loc[test, "expected"].to_numpy(), y[test]),
    )


def _correlation(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    return float(np.corrcoef(a, b)[0, 1])


# ------------------------------------------------------------------------- models


def run_of(seed: int, scale: Scale, *, permuted: bool = False) -> RunConfig:
    """Settings of a Transformer that learns its filters from nothing."""
    return RunConfig.model_validate(
        {
            "seed": seed,
            "task": TASK.model_dump(mode="json"),
            "model": {
                "stem": {"kind": "conv", "n_filters": 64, "width": 15, "pool": 5},
                "d_model": 64,
                "n_layers": 1,
                "n_heads": 8,
                "d_feedforward": 128,
            },
            "train": {
                "epochs": scale.epochs,
                "batch_size": 128,
                "learning_rate": 2e-3,
                "patience": 10,
                "augment": {"reverse_complement": True},
                "permute_labels": permuted,
            },
        }
    )


class Trained(NamedTuple):
    """Where a model lies, the Pearson r it reaches on test sequences, that of a perfect reader, and its training time.

    seconds is NaN where the model was there already.
    """

    folder: str
    r: float
    ceiling: float
    seconds: float


def trained(seed: int, scale: Scale, kind: str) -> Trained:
    """Model of one seed, trained unless the folder `scale.work` holds it already."""
    run = run_of(seed, scale, permuted=kind == PERMUTED)
    folder = Path(scale.work, f"{kind.replace(' ', '_')}_seed{seed}_{digest_of(run, scale)}")
    seconds = float("nan")
    if not (folder / "model.json").exists():
        # Training brings Lightning along, which explaining a saved model does not need.
        from bioattn.train.fit import fit

        data = planted(seed, scale)
        start = time.perf_counter()
        model = fit(run, data.table, data.split, seed=seed, progress=False).model
        seconds = time.perf_counter() - start
        test = (data.split["fold_0"] == "test").to_numpy()
        scores = predict(model, alphabet.encode_batch(data.table.loc[test, "sequence"].tolist()))[:, 0]
        r = _correlation(scores, data.table.loc[test, "y"].to_numpy())
        folder.mkdir(parents=True, exist_ok=True)
        save_model(folder, model, config=run.model, motifs=[], record={"seed": seed, "r": r, "ceiling": data.ceiling})
    record = load_model(folder)[1]
    return Trained(str(folder), float(record["r"]), float(record["ceiling"]), seconds)


def digest_of(run: RunConfig, scale: Scale) -> str:
    """Of all that a trained model depends on."""
    sections = run.model_dump(mode="json", include={"seed", "task", "split", "model", "train"})
    material = json.dumps([sections, simulation(scale).model_dump(mode="json"), JASPAR_IDS])
    return hashlib.sha256(material.encode()).hexdigest()[:12]


def random_model(seed: int, scale: Scale, number: int) -> SequenceModel:
    """A model that was never trained."""
    return build_model(run_of(seed, scale).model, n_readouts=1, seed=100 * seed + number)


# --------------------------------------------------------------------------- ways


class Looked(NamedTuple):
    """What a way gets: a model and the planted sequences."""

    model: SequenceModel
    data: Planted
    seed: int


@dataclass(frozen=True)
class Found:
    """Motifs that one way reports, its seconds and its peak memory; of ours, more about each.

    Attributes
    ----------
    rows : DataFrame
        Of ours, the row of the table of each motif.
    n_heads, n_tested : int
        Heads that were looked at, and motifs that were tested in all of them.
    read : ndarray, bool
        Motifs that the model responds to.
    """

    ppms: list[NDArray[np.float64]]
    rows: pd.DataFrame
    n_heads: int
    n_tested: int
    read: NDArray[np.bool_]
    seconds: float = float("nan")
    peak_mib: float = float("nan")

    def take(self, which: NDArray[np.bool_]) -> "Found":
        """Some of the motifs."""
        ppms = [ppm for ppm, wanted in zip(self.ppms, which, strict=True) if wanted]
        return replace(self, ppms=ppms, rows=self.rows[which].reset_index(drop=True), read=self.read[which])

    @property
    def heads_with_motif(self) -> int:
        """Heads that report a motif."""
        return len(self.rows[["layer", "head"]].drop_duplicates()) if len(self.rows) else 0


OURS = "bioattn"
ISM, GRADIENT = "modisco-lite on mutagenesis", "modisco-lite on gradients"
DNABERT, SATORI = "DNABERT's motif search", "SATORI's filters"

RIVALS: dict[str, Callable[[Looked], list[NDArray[np.float64]]]] = {
    DNABERT: lambda it: rivals.dnabert_motifs(it.model, it.data.discovery, it.data.high),
    SATORI: lambda it: rivals.satori_motifs(it.model, it.data.discovery, it.data.high),
    GRADIENT: lambda it: rivals.modisco_motifs(
        rivals.gradient_scores(it.model, it.data.discovery), it.data.discovery
    ),
    ISM: lambda it: rivals.modisco_motifs(rivals.ism_scores(it.model, it.data.discovery), it.data.discovery),
}  # fmt: skip


def ours(looked: Looked) -> HeadMotifs:
    """Motifs of all heads, at default settings."""
    model, data, config = looked.model, looked.data, ExplainConfig()
    n = config.scored_sequences
    return head_motifs(
        model, data.discovery, data.held_out, config,
        scored=Scored(data.held_out[:n], data.targets[:n]), task=TASK,
        library=jaspar_group("vertebrates"), seed=looked.seed,
    )  # fmt: skip


def find(way: str, model: str | int, seed: int, scale: Scale) -> Found:
    """Motifs of one way in one model; to be called in a fresh process, whose memory is looked at.

    Parameters
    ----------
    model : str or int
        Folder of a trained one, or the number of one with random weights.
    """
    torch.set_num_threads(1)
    data = planted(seed, scale)
    network = random_model(seed, scale, model) if isinstance(model, int) else load_model(model)[0]
    looked = Looked(network.eval(), data, seed)
    _load_code(way)
    with Peak() as peak:
        start = time.perf_counter()
        result = ours(looked) if way == OURS else RIVALS[way](looked)
        seconds = time.perf_counter() - start
    if isinstance(result, HeadMotifs):
        ppms = [motif.ppm for motif in result.motifs]
        rows = result.table[result.table["motif"] >= 0].reset_index(drop=True)
        n_tested = result.summary["n_tested"]
    else:
        ppms, rows, n_tested = result, pd.DataFrame(index=range(len(result))), 0
    read = responds(network, ppms, data.held_out[:BACKGROUNDS], seed)
    return Found(ppms, rows, network.n_layers * network.n_heads, n_tested, read, seconds, peak.mib)


def responds(
    model: SequenceModel, ppms: Sequence[NDArray[np.float64]], sequences: NDArray[np.uint8], seed: int
) -> NDArray[np.bool_]:
    """Motifs that change the readout more than any of 39 matrices with the same columns in random order.

    Sites drawn from a matrix are put into the middle of shuffled sequences; of all matrices
    from the same random numbers, and into the same sequences. What counts is the absolute
    mean change: a motif that does nothing passes once in 40.
    """
    backgrounds = shuffled(sequences, seed, "benchmark", "backgrounds")
    draw = np.random.default_rng(seed)
    plain = predict(model, backgrounds)[:, 0]
    found = []
    for ppm in ppms:
        width = min(ppm.shape[1], backgrounds.shape[1])
        start, at_random = (backgrounds.shape[1] - width) // 2, draw.random((len(backgrounds), width, 1))
        orders = [np.arange(width), *(draw.permutation(width) for _ in range(SCRAMBLES))]
        changes = []
        for order in orders:
            placed = backgrounds.copy()
            upto = np.cumsum(ppm[:, order], axis=0)[:-1]
            placed[:, start : start + width] = (at_random > upto.T).sum(2)
            changes.append(abs((predict(model, placed)[:, 0] - plain).mean()))
        found.append(changes[0] > max(changes[1:]))
    return np.array(found, dtype=bool)


def _load_code(way: str) -> None:
    """Import what a way imports when it runs, so that it does not count as its time and memory."""
    if way == OURS:
        import memelite  # noqa: F401

        jaspar_group("vertebrates")
    elif way in (ISM, GRADIENT):
        import modiscolite.tfmodisco  # noqa: F401
        import sklearn.manifold  # noqa: F401


def read_by_heads(found: Found) -> Found:
    """Motifs of ours that count: enriched at q < 0.05, in a head that matters or has a double that does the same."""
    if not len(found.rows):
        return found
    rows = found.rows
    enriched = rows["q_value"].to_numpy(dtype=float) < 0.05
    return found.take(enriched & rows["verdict"].isin(["motif", "redundant"]).to_numpy())


# ------------------------------------------------------------------------- scores


@dataclass(frozen=True)
class Scores:
    """How reported motifs compare with the planted ones.

    Attributes
    ----------
    n, n_causal, n_inert : int
        Motifs reported, and planted.
    recovered, found : int
        Causal motifs that a reported one resembles with a correlation of at least 0.9, and 0.8.
    named : int
        Recovered ones, of which one that recovers it has a name of its family as its best.
    decoys, strangers : int
        Reported motifs that resemble no causal one at 0.8 but an inert one, and that resemble none.
    unread : int
        Of these two, motifs that the model does not respond to either.
    inert : int
        Inert motifs that these decoys resemble.
    best : dict of str to float
        Best correlation of each causal motif.
    """

    n: int
    n_causal: int
    n_inert: int
    recovered: int
    found: int
    named: int
    decoys: int
    strangers: int
    unread: int
    inert: int
    best: dict[str, float]

    @property
    def false(self) -> int:
        """Reported motifs that are no causal one."""
        return self.decoys + self.strangers

    @property
    def precision(self) -> float:
        """Share of reported motifs that are a causal one; NaN if there is none."""
        return 1 - self.false / self.n if self.n else float("nan")


def score(found: Found, causal: Sequence[Motif], inert: Sequence[Motif]) -> Scores:
    """Compare reported motifs with planted ones."""
    with_causal, with_inert = (_correlations(found.ppms, motifs) for motifs in (causal, inert))
    best = with_causal.max(0, initial=-1)
    is_causal, is_inert = ((each >= ALIKE).any(1) for each in (with_causal, with_inert))
    named = 0
    if "matches" in found.rows:
        families = [_first_families(text) for text in found.rows["matches"]]
        named = sum(
            any(families[i] & set(motif.family.split("; ")) for i in np.flatnonzero(with_causal[:, k] >= RECOVERED))
            for k, motif in enumerate(causal)
        )
    return Scores(
        n=len(found.ppms),
        n_causal=len(causal),
        n_inert=len(inert),
        recovered=int((best >= RECOVERED).sum()),
        found=int((best >= ALIKE).sum()),
        named=named,
        decoys=int((~is_causal & is_inert).sum()),
        strangers=int((~is_causal & ~is_inert).sum()),
        unread=int((~is_causal & ~found.read).sum()),
        inert=int((with_inert[~is_causal] >= ALIKE).any(0).sum()),
        best={motif.name: float(value) for motif, value in zip(causal, best, strict=True)},
    )


def _correlations(ppms: Sequence[NDArray[np.float64]], motifs: Sequence[Motif]) -> NDArray[np.float64]:
    """Best correlation of every reported motif with every planted one."""
    values = [[best_correlation(ppm, motif.ppm) for motif in motifs] for ppm in ppms]
    return np.array(values).reshape(len(ppms), len(motifs))


def _first_families(matches: str) -> set[str]:
    """Families of the best name."""
    return {family for match in read_matches(matches)[:1] for family in match.families}


# ---------------------------------------------------------------- memory and time


def stored_mib(n: int, n_heads: int, n_tokens: int) -> float:
    """All patterns of all heads in float64."""
    return n * n_heads * n_tokens**2 * 8 / MIB


def _long(n: int, length: int) -> tuple[SequenceModel, NDArray[np.uint8]]:
    """A model with a token per base and random weights, which time and memory do not depend on, and sequences."""
    config = ModelConfig.model_validate({"stem": {"kind": "none", "pool": 1}, **LONG})
    codes = np.random.default_rng(1).integers(0, 4, (n, length)).astype(np.uint8)
    return build_model(config, n_readouts=1, seed=1).eval(), codes


def memory_of_long(scale: Scale) -> tuple[float, float]:
    """Seconds and peak memory of ours where patterns are large.

    Heads are ablated on few of the sequences: that is done batch by batch, so memory does
    not grow with them, and time would.
    """
    torch.set_num_threads(1)
    model, codes = _long(scale.n_stored, scale.stored_length)
    half = len(codes) // 2
    targets = np.random.default_rng(2).normal(size=(len(codes) - half, 1)).astype(np.float32)
    _load_code(OURS)
    with Peak() as peak:
        start = time.perf_counter()
        head_motifs(
            model, codes[:half], codes[half:], ExplainConfig(),
            scored=Scored(codes[half:][:LONG_SCORED], targets[:LONG_SCORED]), task=TASK,
            library=jaspar_group("vertebrates"),
        )  # fmt: skip
        seconds = time.perf_counter() - start
    return seconds, peak.mib


FORWARD, TRACKS = "predict", "head_tracks, all three"


def tracks_seconds(scale: Scale) -> dict[str, list[float]]:
    """Seconds of a forward pass and of all tracks of all heads, in turns, of groups that make up all sequences."""
    torch.set_num_threads(1)
    model, codes = _long(scale.n_tracked, scale.stored_length)
    seconds: dict[str, list[float]] = {FORWARD: [], TRACKS: []}
    size = LONG_BATCH * LONG_BATCHES
    groups = [codes[first : first + size] for first in range(0, len(codes), size)]
    ways: dict[str, Callable[[NDArray[np.uint8]], object]] = {
        FORWARD: lambda some: predict(model, some, batch_size=LONG_BATCH),
        TRACKS: lambda some: head_tracks(model, some),
    }
    for do in ways.values():
        do(groups[0][:2])
    for i, some in enumerate(groups):
        # Backwards every second time: no way always follows the other.
        for name in list(ways)[:: 1 if i % 2 == 0 else -1]:
            seconds[name].append(timed(lambda do=ways[name], some=some: do(some)))  # type: ignore[misc]
    return seconds
