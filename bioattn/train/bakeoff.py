"""Tokenizers compared on one split: what they cost, how well models predict with them, and what these find.

Each tokenizer and seed is a unit of work whose numbers are kept in a file of their
own, so that a comparison that was cut off goes on with the next unit.
"""

import json
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch

from bioattn.config import ModelConfig, RunConfig, TokenizerConfig, digest, step_settings
from bioattn.data.motif import Motif
from bioattn.errors import DataError
from bioattn.io.files import write_text
from bioattn.models import SequenceModel
from bioattn.rng import stream_seed
from bioattn.tokens import NucleotideTokenizer, Tokenizer
from bioattn.train.data import load_examples, predict
from bioattn.train.devices import resolve_device
from bioattn.train.fit import fit
from bioattn.train.metrics import summarise, validation_metric
from bioattn.train.next_token import bits_per_base
from bioattn.train.store import Codes, Examples
from bioattn.train.windows import markov_bits

_LOG = logging.getLogger(__name__)

#: Metric of each kind of task on held-out sequences: see `validation_metric`.
METRIC = {
    "binary": "auroc", "multilabel": "auroc", "multiclass": "accuracy", "regression": "pearson", "count": "pearson",
}  # fmt: skip
#: What is measured for each tokenizer and seed.
MEASURED = (
    "metric", "bits_per_base", "motif_recovery", "train_sequences_per_second", "predict_sequences_per_second",
)  # fmt: skip
#: What a tokenizer is, beside what is measured.
_SAME = ("n_words", "n_parameters", "tokens_per_sequence", "markov3_bits_per_base", "n_train", "n_test", "n_bits")
SEEDS = ("tokenizer", "seed", "metric_name", *MEASURED, *_SAME)
#: Two columns, mean and standard deviation over seeds, for each thing measured.
TABLE = (
    "tokenizer", "metric_name", *(f"{name}{suffix}" for name in MEASURED for suffix in ("", "_sd")), *_SAME, "n_seeds",
)  # fmt: skip
#: Order of the Markov model that bits per base stand beside.
_MARKOV_ORDER = 3


class BakeOff(NamedTuple):
    """Tables with the columns `TABLE`, one row per tokenizer, and `SEEDS`, one per tokenizer and seed."""

    table: pd.DataFrame
    seeds: pd.DataFrame


def bakeoff(
    run: RunConfig,
    sequences: pd.DataFrame | str | Path,
    split: pd.DataFrame,
    *,
    fold: int = 0,
    work_dir: str | Path,
    motifs: Sequence[Motif] = (),
    recovery: Callable[[SequenceModel], float] | None = None,
    progress: bool = True,
) -> BakeOff:
    """Train the run's model with every tokenizer and seed of `run.bakeoff`, and measure it.

    Nucleotides keep the run's stem, the others have none. Everything is trained on
    the training part and measured on the test part of one fold; a learned tokenizer
    sees the training part only. The run is not pretrained here.

    Parameters
    ----------
    sequences, split
        As `fit` takes them.
    work_dir : path
        Folder for checkpoints and finished units; `units/` in it is what makes an interrupted comparison go on.
    motifs : sequence of Motif
        For a stem of kind "pwm".
    recovery : callable, optional
        Share of the known motifs that a trained model's heads show; without it that column is missing (NaN).
    progress : bool
        Show a progress bar if standard error is a terminal.

    Returns
    -------
    BakeOff
        The metric is that of `METRIC` for the task. Speeds are those of this machine:
        training with its validation, predicting with finding the tokens.
    """
    parts = load_examples(sequences, split, run.task, fold=fold)
    if not len(parts["test"]):
        raise DataError(f"fold {fold} has no test sequences to compare tokenizers on: change the split settings")
    data = "-".join(parts[subset].fingerprint() for subset in ("train", "validation", "test"))
    work_dir = Path(work_dir)
    rows = []
    for tokenizer in run.bakeoff.tokenizers:
        for seed in run.bakeoff.seeds:
            name = f"{slug(tokenizer)}-seed{seed}"
            settings = _settings(run, tokenizer)
            key = {"settings": digest(settings), "data": data, "fold": fold, "recovery": recovery is not None}
            unit = work_dir / "units" / f"{name}.json"
            values = _finished(unit, key)
            if values is None:
                own = _with_tokenizer(run, tokenizer)
                result = fit(
                    own, sequences, split, fold=fold, seed=seed, work_dir=work_dir / name, motifs=motifs,
                    progress=progress,
                )  # fmt: skip
                values = _measure(own, parts, result.model, result.history, seed=seed)
                values["motif_recovery"] = float("nan") if recovery is None else recovery(result.model)
                write_text(unit, json.dumps(key | {"values": values}, indent=1) + "\n")
                for checkpoint in (work_dir / name).glob("*.ckpt"):
                    checkpoint.unlink()
            _LOG.info("%s, seed %d: %s %.4f", label(tokenizer), seed, METRIC[run.task.kind], values["metric"])
            rows.append({"tokenizer": label(tokenizer), "seed": seed, "metric_name": METRIC[run.task.kind], **values})
    seeds = pd.DataFrame(rows)[list(SEEDS)]
    return BakeOff(_summary(seeds), seeds)


def label(tokenizer: TokenizerConfig) -> str:
    """What a tokenizer is called in tables and figures."""
    if tokenizer.kind == "kmer":
        return f"{tokenizer.k}-mers, stride {tokenizer.stride}"
    return "nucleotides" if tokenizer.kind == "nucleotide" else f"BPE, {tokenizer.vocabulary} words"


def slug(tokenizer: TokenizerConfig) -> str:
    """Name of a tokenizer in file names."""
    if tokenizer.kind == "kmer":
        return f"kmer{tokenizer.k}-{tokenizer.stride}"
    return "nucleotide" if tokenizer.kind == "nucleotide" else f"bpe{tokenizer.vocabulary}"


def _with_tokenizer(run: RunConfig, tokenizer: TokenizerConfig) -> RunConfig:
    """The run with another tokenizer, and no stem unless tokens are nucleotides; not pretrained."""
    model = run.model.model_dump() | {"tokenizer": tokenizer.model_dump()}
    if tokenizer.kind != "nucleotide":
        model["stem"] = {"kind": "none", "pool": 1}
    return run.model_copy(update={"model": ModelConfig.model_validate(model), "pretrain": None})


def _settings(run: RunConfig, tokenizer: TokenizerConfig) -> dict[str, Any]:
    """Settings on which the numbers of one tokenizer and seed depend."""
    settings = step_settings(_with_tokenizer(run, tokenizer), "bakeoff")
    settings["train"].pop("seeds", None)
    settings["bakeoff"] = {"language_epochs": run.bakeoff.language_epochs}
    return settings


def _finished(unit: Path, key: dict[str, Any]) -> dict[str, Any] | None:
    """Numbers of a finished unit of the same settings and data, or None."""
    try:
        found = json.loads(unit.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(found, dict) or any(found.get(name) != value for name, value in key.items()):
        return None
    values: dict[str, Any] = found["values"]
    return values


def _measure(
    run: RunConfig, parts: dict[str, Examples], model: SequenceModel, history: pd.DataFrame, *, seed: int
) -> dict[str, Any]:
    """All numbers of one trained model but the recovery of motifs."""
    train, test = parts["train"], parts["test"]
    model = model.to(resolve_device(run.train.device, "32-true").accelerator)
    predict(model, test)  # once to warm up
    began = time.perf_counter()
    scores = predict(model, test)
    seconds = time.perf_counter() - began
    bits, n_bits = float("nan"), 0
    if run.bakeoff.language_epochs:
        words: Tokenizer = NucleotideTokenizer() if model.tokenizer is None else model.tokenizer
        bits, n_bits = bits_per_base(
            train.codes, test.codes, words, run.model, run.train,
            epochs=run.bakeoff.language_epochs, seed=stream_seed(run.seed, "bakeoff", seed),
        )  # fmt: skip
    return {
        "metric": validation_metric(run.task.kind, test.targets.numpy().astype(np.float64), scores),
        "bits_per_base": bits,
        "train_sequences_per_second": len(train) * len(history) / max(float(history["seconds"].sum()), 1e-9),
        "predict_sequences_per_second": len(test) / seconds,
        "n_words": None if model.tokenizer is None else model.tokenizer.n_tokens,
        "n_parameters": sum(p.numel() for p in model.parameters()),
        "tokens_per_sequence": _tokens_per_sequence(model, test.codes),
        "markov3_bits_per_base": markov_bits(train.codes, test.codes, order=_MARKOV_ORDER, both_strands=False),
        "n_train": len(train),
        "n_test": len(test),
        "n_bits": n_bits,
    }


def _tokens_per_sequence(model: SequenceModel, codes: Codes) -> float:
    device = next(model.parameters()).device
    total = sum(int(model.real_tokens(torch.from_numpy(rows).long().to(device)).sum()) for rows in codes.chunks())
    return total / len(codes)


def _summary(seeds: pd.DataFrame) -> pd.DataFrame:
    """Mean and standard deviation over seeds, one row per tokenizer in the order of the settings."""
    rows = []
    for tokenizer, part in seeds.groupby("tokenizer", sort=False):
        row: dict[str, Any] = {"tokenizer": tokenizer, "metric_name": part["metric_name"].iloc[0]}
        for name in MEASURED:
            row[name], row[f"{name}_sd"] = summarise(part[name].astype(float).tolist())
        rows.append(row | {name: part[name].iloc[0] for name in _SAME} | {"n_seeds": len(part)})
    return pd.DataFrame(rows)[list(TABLE)]
