"""Held-out scores of trained models and baselines in one table, with predictions and curves."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn

from bioattn.config import ModelConfig, RunConfig, TaskConfig
from bioattn.data.audit import leak_free
from bioattn.data.motif import Motif
from bioattn.data.weighted import interval
from bioattn.errors import ConfigError, DataError
from bioattn.models import load_model
from bioattn.rng import stream
from bioattn.tokens import BpeTokenizer
from bioattn.train.baselines import fit_baseline
from bioattn.train.data import SUBSETS, Examples, load_examples, predict
from bioattn.train.devices import resolve_device
from bioattn.train.metrics import (
    Score,
    best_mcc_threshold,
    curves,
    group_bootstrap,
    link,
    score_classes,
    score_readout,
    summarise,
)

Array = NDArray[np.float64]

METRICS = ("model", "readout", "fold", "seed", "subset", "metric", "value", "ci_low", "ci_high", "sd", "n", "note")
PREDICTIONS = ("name", "fold", "seed", "model", "subset", "readout", "target", "prediction", "score")
CURVES = ("model", "readout", "fold", "seed", "subset", "kind", "x", "y", "n")
#: Subsets whose predictions are kept and whose scores have intervals; training scores only show overfitting.
_HELD_OUT = ("validation", "test")
#: Subset of the rows about the test sequences that resemble no training sequence.
LEAK_FREE = "test_leak_free"
#: Fewer leak-free test sequences are not scored.
FEWEST_LEAK_FREE = 20


class TrainedModel(NamedTuple):
    """A model with the fold it was trained on, its replicate seed, and its configuration if it has one."""

    fold: int
    seed: int
    network: nn.Module
    n_parameters: int
    config: ModelConfig | None = None


class Evaluation(NamedTuple):
    """Tables with the columns `METRICS`, `PREDICTIONS` and `CURVES`, and a record of the baselines."""

    metrics: pd.DataFrame
    predictions: pd.DataFrame
    curves: pd.DataFrame
    baselines: dict[str, Any]


@dataclass
class _Rows:
    metrics: list[dict[str, Any]] = field(default_factory=list)
    predictions: list[pd.DataFrame] = field(default_factory=list)
    curves: list[pd.DataFrame] = field(default_factory=list)
    #: (model, readout, subset, metric) to the scores of every fold and seed.
    repeats: dict[tuple[str, str, str, str], list[Score]] = field(default_factory=dict)


def evaluate(
    run: RunConfig,
    sequences: pd.DataFrame | str | Path,
    split: pd.DataFrame,
    models: Sequence[TrainedModel],
    *,
    work_dir: Path,
    motifs: Sequence[Motif] = (),
    neighbours: pd.DataFrame | None = None,
    progress: bool = True,
) -> Evaluation:
    """Score every model, the ensemble of each fold's seeds, and the baselines of each fold.

    Confidence intervals come from resampling whole split groups, with the same
    draws for all models of a fold. The threshold of MCC and accuracy is chosen on
    validation examples. Rows of fold "all" are means over folds and seeds: their
    interval holds the sampling of examples, their `sd` the spread of the repeats.

    Parameters
    ----------
    models : sequence of TrainedModel
        Every fold and seed of the run.
    work_dir : path
        Checkpoints of baselines that are trained by steps.
    motifs : sequence of Motif
        For baselines whose stem is that of the models, of kind "pwm".
    neighbours : DataFrame, optional
        As `bioattn.data.audit` writes them. With them there are rows of subset
        `LEAK_FREE`: scores on the test sequences without a training neighbour of
        `split.leak_free_identity`; NaN, with the reason, where those are too few.

    Raises
    ------
    DataError
        If there is no model, two of the same fold and seed, or no neighbours of
        a test sequence.
    ConfigError
        If baseline "rnn" or "uniform" is asked for and a model was trained with another configuration than `run.model`.
    """
    if not models:
        raise DataError("there is no model to evaluate: give at least one trained model")
    keys = [(model.fold, model.seed) for model in models]
    if len(set(keys)) < len(keys):
        raise DataError(f"two models are of the same fold and seed, found {sorted(keys)}: give each model once")
    if {"rnn", "uniform"} & set(run.evaluate.baselines):
        _check_same_model(run.model, models)
    rows = _Rows()
    baselines: dict[str, Any] = {}
    for fold in sorted({model.fold for model in models}):
        parts = load_examples(sequences, split, run.task, fold=fold)
        parts = {subset: part for subset, part in parts.items() if len(part)}
        free = None
        if neighbours is not None and "test" in parts:
            names = parts["test"].names
            free = np.flatnonzero(leak_free(names, neighbours, fold=fold, identity=run.split.leak_free_identity))
        weights = _weights(run, parts, fold, free)
        ours = sorted((model for model in models if model.fold == fold), key=lambda model: model.seed)
        scores = [{s: predict(model.network, part) for s, part in parts.items()} for model in ours]
        for model, each in zip(ours, scores, strict=True):
            _score(rows, run.task, parts, each, weights, free, model="transformer", fold=fold, seed=model.seed)
        if len(ours) > 1:
            mean = {s: np.mean([each[s] for each in scores], axis=0) for s in parts}
            _score(rows, run.task, parts, mean, weights, free, model="ensemble", fold=fold, seed=None)
        for name in run.evaluate.baselines:
            result = fit_baseline(
                name,
                run,
                parts,
                fold=fold,
                n_parameters=ours[0].n_parameters,
                work_dir=work_dir,
                motifs=motifs,
                tokenizer=_learned_words(ours[0].network),
                progress=progress,
            )
            if result is not None:
                baselines.setdefault(name, {})[f"fold_{fold}"] = result.record
                _score(rows, run.task, parts, result.scores, weights, free, model=name, fold=fold, seed=None)
    _summarise(rows)
    return Evaluation(
        pd.DataFrame(rows.metrics, columns=list(METRICS)).astype({"seed": "Int64", "fold": str}),
        pd.concat(rows.predictions, ignore_index=True)[list(PREDICTIONS)],
        pd.concat(rows.curves, ignore_index=True)[list(CURVES)],
        baselines,
    )


def _check_same_model(config: ModelConfig, models: Sequence[TrainedModel]) -> None:
    """Raise `ConfigError` if a baseline would be built like another model than those it stands beside."""
    for model in models:
        if model.config is not None and model.config != config:
            differ = [k for k in ModelConfig.model_fields if getattr(model.config, k) != getattr(config, k)]
            raise ConfigError(
                "baselines 'rnn' and 'uniform' are built from model.*, but the model of "
                f"fold {model.fold}, seed {model.seed} was trained with other settings of "
                f"model.{', model.'.join(differ)}: evaluate with those of its training"
            )


def _learned_words(network: nn.Module) -> BpeTokenizer | None:
    """The tokenizer that a model learned, if it learned one; all models of a fold have the same."""
    found = getattr(network, "tokenizer", None)
    return found if isinstance(found, BpeTokenizer) else None


def _weights(
    run: RunConfig, parts: Mapping[str, Examples], fold: int, free: NDArray[np.int64] | None
) -> dict[str, Array | None]:
    groups = {subset: part.groups for subset, part in parts.items() if subset in _HELD_OUT}
    if free is not None:
        groups[LEAK_FREE] = parts["test"].groups[free]
    draws = run.evaluate.bootstrap
    none: dict[str, Array | None] = dict.fromkeys((*parts, LEAK_FREE))
    if not draws:
        return none
    drawn = {s: group_bootstrap(g, draws, stream(run.seed, "evaluate", fold, s)) for s, g in groups.items() if len(g)}
    return {**none, **drawn}


def _score(
    rows: _Rows,
    task: TaskConfig,
    parts: Mapping[str, Examples],
    scores: Mapping[str, Array],
    weights: Mapping[str, Array | None],
    free: NDArray[np.int64] | None,
    *,
    model: str,
    fold: int,
    seed: int | None,
) -> None:
    """Add the metrics, predictions and curves of one model; `free` are the leak-free test examples, if known."""
    where = {"model": model, "fold": str(fold), "seed": seed}
    for subset in (s for s in SUBSETS if s in parts):
        targets = parts[subset].targets.numpy().astype(np.float64)
        found = _metrics(task, parts, scores, subset, weights[subset])
        _add_metrics(rows, found, {**where, "subset": subset})
        if subset == "test" and free is not None:
            fewer = _leak_free_metrics(task, parts, scores, free, weights[LEAK_FREE], found)
            _add_metrics(rows, fewer, {**where, "subset": LEAK_FREE})
        if subset not in _HELD_OUT:
            continue
        if task.kind == "multiclass":
            targets = np.eye(task.n_readouts)[targets[:, 0].astype(int)]
        predictions = link(task.kind, scores[subset])
        names = task.classes if task.kind == "multiclass" else task.targets
        for t, name in enumerate(names):
            table = pd.DataFrame(
                {
                    "name": parts[subset].names,
                    "target": targets[:, t],
                    "prediction": predictions[:, t],
                    "score": scores[subset][:, t],
                }
            )
            place = {**where, "fold": fold, "seed": pd.array([seed], "Int64")[0], "subset": subset}
            rows.predictions.append(_assigned(table, {**place, "readout": t}))
            if subset == "test":
                drawn = curves(task.kind, targets[:, t], predictions[:, t])
                rows.curves.append(_assigned(drawn, {**place, "readout": name}))


def _add_metrics(rows: _Rows, found: Sequence[tuple[str, list[Score]]], where: Mapping[str, Any]) -> None:
    for readout, scores in found:
        for score in scores:
            rows.metrics.append({**where, "readout": readout, **score._asdict(), "sd": float("nan")})
            rows.repeats.setdefault((where["model"], readout, where["subset"], score.metric), []).append(score)


def _leak_free_metrics(
    task: TaskConfig,
    parts: Mapping[str, Examples],
    scores: Mapping[str, Array],
    free: NDArray[np.int64],
    weights: Array | None,
    whole: Sequence[tuple[str, list[Score]]],
) -> list[tuple[str, list[Score]]]:
    """Scores on the leak-free test examples; without a value where too few or of one class. `whole`: on all."""
    part = parts["test"].take(free)
    targets = part.targets.numpy().astype(np.float64)
    reasons = [_too_few(task.kind, target) for target in targets.T]
    found = list(whole)
    if not all(reasons):
        found = _metrics(
            task, {**parts, LEAK_FREE: part}, {**scores, LEAK_FREE: scores["test"][free]}, LEAK_FREE, weights
        )
    nan, nothing = float("nan"), np.zeros(0)
    return [
        (name, [Score(s.metric, nan, nan, nan, int((~np.isnan(target)).sum()), reason, nothing) for s in each])
        if reason
        else (name, each)
        for (name, each), reason, target in zip(found, reasons, targets.T, strict=True)
    ]


def _too_few(kind: str, target: Array) -> str:
    """Why leak-free examples cannot be scored; empty if they can."""
    known = target[~np.isnan(target)]
    if len(known) < FEWEST_LEAK_FREE:
        return f"undefined: {len(known)} leak-free test sequences, at least {FEWEST_LEAK_FREE} are needed"
    if kind not in ("regression", "count") and len(np.unique(known)) == 1:
        return f"undefined: all {len(known)} leak-free test sequences are of one class"
    return ""


def _assigned(table: pd.DataFrame, columns: Mapping[str, Any]) -> pd.DataFrame:
    table = table.assign(**{name: value for name, value in columns.items() if name != "seed"})
    table["seed"] = pd.array([columns["seed"]] * len(table), dtype="Int64")
    return table


def _metrics(
    task: TaskConfig,
    parts: Mapping[str, Examples],
    scores: Mapping[str, Array],
    subset: str,
    weights: Array | None,
) -> list[tuple[str, list[Score]]]:
    """Name of each readout and its scores."""
    targets = parts[subset].targets.numpy().astype(np.float64)
    if task.kind == "multiclass":
        return [(task.targets[0], score_classes(targets[:, 0], scores[subset], weights=weights))]
    found = []
    for t, name in enumerate(task.targets):
        threshold = 0.0
        if task.kind in ("binary", "multilabel"):
            held_out = parts["validation"].targets.numpy()[:, t].astype(np.float64)
            known = ~np.isnan(held_out)
            threshold = best_mcc_threshold(held_out[known], scores["validation"][known, t])
        result = score_readout(task.kind, targets[:, t], scores[subset][:, t], threshold=threshold, weights=weights)
        found.append((name, result))
    return found


def _summarise(rows: _Rows) -> None:
    """Add rows of fold "all": means over folds and seeds where there is more than one."""
    for (model, readout, subset, metric), repeats in rows.repeats.items():
        if len(repeats) < 2:
            continue
        defined = [score for score in repeats if np.isfinite(score.value)]
        mean, sd = summarise([score.value for score in repeats])
        # Folds whose leak-free examples are too few have no say; elsewhere what is undefined once has no interval.
        low, high = interval(_mean_draws(defined if subset == LEAK_FREE else repeats))
        missing = f", {len(repeats) - len(defined)} of them undefined" if len(defined) < len(repeats) else ""
        rows.metrics.append(
            {
                "model": model,
                "readout": readout,
                "fold": "all",
                "seed": None,
                "subset": subset,
                "metric": metric,
                "value": mean,
                "ci_low": low,
                "ci_high": high,
                "sd": sd,
                "n": sum(score.n for score in repeats),
                "note": f"mean of {len(repeats)} folds and seeds{missing}",
            }
        )


def _mean_draws(repeats: Sequence[Score]) -> Array:
    """Bootstrap draws of the mean: seeds of a fold share draws, folds have their own."""
    draws = [score.draws for score in repeats]
    if not draws or any(len(d) == 0 for d in draws):
        return np.zeros(0)
    return np.mean(draws, axis=0)


def load_models(folders: Sequence[str | Path]) -> list[TrainedModel]:
    """Trained models of the folders that the `train` step wrote, on CUDA where there is one.

    Raises
    ------
    DataError
        If a folder holds no whole model or does not say its fold and seed.
    """
    models = []
    device = resolve_device("auto", "32-true").accelerator
    for folder in map(Path, folders):
        network, record = load_model(folder)
        missing = [key for key in ("fold", "seed") if key not in record]
        if missing:
            raise DataError(f"{folder}: the model's record does not say its {' and '.join(missing)}: train it again")
        n_parameters = sum(p.numel() for p in network.parameters())
        config = ModelConfig.model_validate(record["architecture"]["model"])
        models.append(TrainedModel(int(record["fold"]), int(record["seed"]), network.to(device), n_parameters, config))
    return models
