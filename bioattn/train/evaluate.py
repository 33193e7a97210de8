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
from bioattn.data.motif import Motif
from bioattn.errors import ConfigError, DataError
from bioattn.models import load_model
from bioattn.rng import stream
from bioattn.train.baselines import fit_baseline
from bioattn.train.data import SUBSETS, Examples, load_examples, predict
from bioattn.train.devices import resolve_device
from bioattn.train.metrics import (
    Score,
    best_mcc_threshold,
    curves,
    group_bootstrap,
    interval,
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
    sequences: pd.DataFrame,
    split: pd.DataFrame,
    models: Sequence[TrainedModel],
    *,
    work_dir: Path,
    motifs: Sequence[Motif] = (),
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

    Raises
    ------
    DataError
        If there is no model, or two of the same fold and seed.
    ConfigError
        If baseline "rnn" is asked for and a model was trained with another configuration than `run.model`.
    """
    if not models:
        raise DataError("there is no model to evaluate: give at least one trained model")
    keys = [(model.fold, model.seed) for model in models]
    if len(set(keys)) < len(keys):
        raise DataError(f"two models are of the same fold and seed, found {sorted(keys)}: give each model once")
    if "rnn" in run.evaluate.baselines:
        _check_same_model(run.model, models)
    rows = _Rows()
    baselines: dict[str, Any] = {}
    for fold in sorted({model.fold for model in models}):
        parts = load_examples(sequences, split, run.task, fold=fold)
        parts = {subset: part for subset, part in parts.items() if len(part)}
        weights = _weights(run, parts, fold)
        ours = sorted((model for model in models if model.fold == fold), key=lambda model: model.seed)
        scores = [{s: predict(model.network, part.tokens) for s, part in parts.items()} for model in ours]
        for model, each in zip(ours, scores, strict=True):
            _score(rows, run.task, parts, each, weights, model="transformer", fold=fold, seed=model.seed)
        if len(ours) > 1:
            mean = {s: np.mean([each[s] for each in scores], axis=0) for s in parts}
            _score(rows, run.task, parts, mean, weights, model="ensemble", fold=fold, seed=None)
        for name in run.evaluate.baselines:
            result = fit_baseline(
                name,
                run,
                parts,
                fold=fold,
                n_parameters=ours[0].n_parameters,
                work_dir=work_dir,
                motifs=motifs,
                progress=progress,
            )
            if result is not None:
                baselines.setdefault(name, {})[f"fold_{fold}"] = result.record
                _score(rows, run.task, parts, result.scores, weights, model=name, fold=fold, seed=None)
    _summarise(rows)
    return Evaluation(
        pd.DataFrame(rows.metrics, columns=list(METRICS)).astype({"seed": "Int64", "fold": str}),
        pd.concat(rows.predictions, ignore_index=True)[list(PREDICTIONS)],
        pd.concat(rows.curves, ignore_index=True)[list(CURVES)],
        baselines,
    )


def _check_same_model(config: ModelConfig, models: Sequence[TrainedModel]) -> None:
    """Raise `ConfigError` if the recurrent baseline would be built like another model than those it stands beside."""
    for model in models:
        if model.config is not None and model.config != config:
            differ = [k for k in ModelConfig.model_fields if getattr(model.config, k) != getattr(config, k)]
            raise ConfigError(
                f"baseline 'rnn' is built from model.*, but the model of fold {model.fold}, seed {model.seed} was "
                f"trained with other settings of model.{', model.'.join(differ)}: evaluate with those of its training"
            )


def _weights(run: RunConfig, parts: Mapping[str, Examples], fold: int) -> dict[str, Array | None]:
    draws = run.evaluate.bootstrap
    return {
        subset: group_bootstrap(part.groups, draws, stream(run.seed, "evaluate", fold, subset))
        if subset in _HELD_OUT and draws
        else None
        for subset, part in parts.items()
    }


def _score(
    rows: _Rows,
    task: TaskConfig,
    parts: Mapping[str, Examples],
    scores: Mapping[str, Array],
    weights: Mapping[str, Array | None],
    *,
    model: str,
    fold: int,
    seed: int | None,
) -> None:
    """Add the metrics, predictions and curves of one model."""
    where = {"model": model, "fold": str(fold), "seed": seed}
    for subset in (s for s in SUBSETS if s in parts):
        targets = parts[subset].targets.numpy().astype(np.float64)
        for readout, found in _metrics(task, parts, scores, subset, weights[subset]):
            for score in found:
                rows.metrics.append(
                    {**where, "readout": readout, "subset": subset, **score._asdict(), "sd": float("nan")}
                )
                rows.repeats.setdefault((model, readout, subset, score.metric), []).append(score)
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
        mean, sd = summarise([score.value for score in repeats])
        low, high = interval(_mean_draws(repeats))
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
                "note": f"mean of {len(repeats)} folds and seeds",
            }
        )


def _mean_draws(repeats: Sequence[Score]) -> Array:
    """Bootstrap draws of the mean: seeds of a fold share draws, folds have their own."""
    draws = [score.draws for score in repeats]
    if any(len(d) == 0 for d in draws):
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
