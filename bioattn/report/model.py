"""Sections about the model: training curves, held-out scores, baselines."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from bioattn.config import RunConfig
from bioattn.plot.curves import classifier_curve
from bioattn.plot.metrics import metric_intervals
from bioattn.plot.scatter import predicted_measured
from bioattn.plot.training import training_curves
from bioattn.report.blocks import Block, Cell, Column, Heading, Notice, Picture, Pictures, Section, Table, Text, picture
from bioattn.report.files import ResultFiles
from bioattn.report.numbers import as_float, count, listing, number, percent, with_interval
from bioattn.report.tables import records
from bioattn.report.words import HEADLINE_METRICS, LOWER_IS_BETTER, METRIC_NAMES, MODEL_NAMES

MODEL = "transformer"
_METRICS = "evaluation/metrics.tsv"
#: A replicate is left behind if its validation loss is this many times the median of at least so many replicates.
_BEHIND, _FEWEST_TO_COMPARE = 1.25, 3
_METRIC_COLUMNS = ["model", "readout", "fold", "seed", "subset", "metric", "value", "ci_low", "ci_high", "n"]


# ----------------------------------------------------------------------- training


def training_section(files: ResultFiles) -> Section:
    """Loss curves of every replicate, and how long each took."""
    history, notices = files.stacked(
        "models/fold*/seed*/history.tsv",
        ["epoch", "train_loss", "validation_loss"],
        needed_for="training curve",
        example="models/fold0/seed1/history.tsv",
    )
    blocks: list[Block] = list(notices)
    if history is not None:
        n = len(history.groupby(["fold", "seed"]))
        alt = f"Line plot: training and validation loss by epoch for {count(n, 'model')}"
        caption = "Each colour is one trained model; the dot marks the epoch with the lowest validation loss."
        blocks += _left_behind(history)
        blocks.append(Pictures([picture(training_curves(history), alt=alt, caption=caption)]))
    rows = _training_rows(files)
    if rows:
        blocks.append(Table("replicates", "Trained models", _TRAINING_COLUMNS, rows))
    return Section("training", "Training", [*_pretraining(files), *blocks])


def _left_behind(history: pd.DataFrame) -> list[Block]:
    """Replicates that learned much less than the others of their fold, of which one can hide what the others found."""
    best = history.groupby(["fold", "seed"], as_index=False)["validation_loss"].min()
    losses = best.groupby("fold")["validation_loss"]
    typical = losses.transform("median")
    behind = best[(losses.transform("size") >= _FEWEST_TO_COMPARE) & (best["validation_loss"] > _BEHIND * typical)]
    return [
        Notice(
            f"Seed {number(row.seed)} of fold {number(row.fold)} learned much less than the others: validation loss "
            f"{number(row.validation_loss)}, their median {number(usual)}. An effect must recur in the replicates, so "
            f"one such model can cost the verdicts of all pairs. Let it train longer (train.epochs) or at a lower "
            f"train.learning_rate."
        )
        for row, usual in zip(behind.itertuples(), typical[behind.index], strict=True)
    ]


def _pretraining(files: ResultFiles) -> list[Block]:
    """What was learned from unlabelled sequences, beside what a Markov chain learns of them."""
    record = files.document("pretrain/run_record.json")
    if record is None:
        return []
    lacking = [key for key in _PRETRAINED if key not in record]
    if lacking:
        return [Notice(f"pretrain/run_record.json lacks {listing(lacking)}, so nothing is said of pretraining.")]
    windows = record["windows"]
    spans, alone, order0, order3 = (
        None if record[key] is None else number(record[key], digits=4) for key in _PRETRAINED[-4:]
    )
    said = (
        f"Stem and encoder were pretrained on {count(windows['train'], 'window')} of at most {record['window_bp']} bp; "
        f"{count(windows['validation'], 'other')} chose epoch {record['best_epoch']}. Bits per hidden base there (2 is "
        f"chance): {spans} in spans{'' if alone is None else f', {alone} where a base is hidden alone'}; Markov "
        f"chains: {order0} (order 0), {order3} (order 3)."
    )
    return [Text(said)]


_PRETRAINED = (
    "windows", "window_bp", "best_epoch", "validation_bits_per_base", "isolated_bits", "order0_bits", "order3_bits",
)  # fmt: skip

_TRAINING_COLUMNS = [
    Column("fold", "fold", numeric=True),
    Column("seed", "seed", numeric=True),
    Column("epoch", "best epoch", numeric=True),
    Column("loss", "validation loss", numeric=True),
    Column("time", "training time", numeric=True),
    Column("device", "device"),
    Column("parameters", "parameters", numeric=True),
]


def _training_rows(files: ResultFiles) -> list[list[Cell]]:
    rows = []
    for path in files.replicates("models/fold*/seed*/run_record.json"):
        record = files.document(path) or {}
        history = files.table(
            path.replace("run_record.json", "history.tsv"), ["epoch", "validation_loss"], needed_for=""
        )
        losses = None if isinstance(history, Notice) else history.dropna(subset=["validation_loss"])
        best = None if losses is None or losses.empty else losses.sort_values("validation_loss", kind="stable").iloc[0]
        texts = [
            number(record.get("fold")),
            number(record.get("seed")),
            number(None if best is None else best["epoch"]),
            number(None if best is None else best["validation_loss"]),
            duration(record.get("seconds")),
            str(record.get("device", "")),
            number(record.get("n_parameters")),
        ]
        rows.append([Cell(text) for text in texts])
    return rows


def duration(seconds: object) -> str:
    """A time span in the unit that fits."""
    value = as_float(seconds)
    if value is None:
        return number(None)
    if value < 90:
        return f"{number(value, digits=2)} s"
    return f"{number(value / 60, digits=2)} min" if value < 5400 else f"{number(value / 3600, digits=2)} h"


# ------------------------------------------------------------------------ metrics


def read_metrics(files: ResultFiles) -> pd.DataFrame | Notice:
    """The table of held-out scores, or why there is none."""
    return files.table(_METRICS, _METRIC_COLUMNS, needed_for="comparison with baselines")


def held_out_scores(metrics: pd.DataFrame, *, readout: str | None = None) -> pd.DataFrame:
    """One row per model, readout and metric on the test part: pooled where that is given, otherwise the mean.

    Columns model, readout, metric, value, ci_low, ci_high, n, replicates. A mean
    over replicates has no interval of its own unless the table gives one.
    """
    rows = []
    test = metrics[metrics["subset"] == "test"]
    if readout is not None and (test["readout"].astype(str) == readout).any():
        test = test[test["readout"].astype(str) == readout]
    for (model, name, metric), part in test.groupby(["model", "readout", "metric"], sort=False):
        whole = part[(part["fold"].astype(str) == "all") & part["seed"].map(_is_summary)]
        whole = whole if len(whole) else part[part["fold"].astype(str) == "all"]
        single = part[part["fold"].astype(str) != "all"]
        chosen = whole if len(whole) else single
        first = chosen.iloc[0]
        one = len(chosen) == 1 or bool(len(whole))
        rows.append(
            {
                "model": model,
                "readout": name,
                "metric": metric,
                "value": float(first["value"]) if one else float(chosen["value"].mean()),
                "ci_low": first["ci_low"] if one else np.nan,
                "ci_high": first["ci_high"] if one else np.nan,
                # A summary row counts a sequence once per seed; each counts once here.
                "n": int((single if len(single) else chosen).groupby("fold")["n"].first().sum()),
                "replicates": max(1, len(single)),
            }
        )
    columns = ["model", "readout", "metric", "value", "ci_low", "ci_high", "n", "replicates"]
    return pd.DataFrame(rows, columns=columns)


def _is_summary(seed: object) -> bool:
    return bool(pd.isna(seed)) or str(seed) in ("", "all", "NA")  # type: ignore[call-overload]


@dataclass(frozen=True)
class HeadlineScore:
    """The model's main score, its best baseline (None if there is none) and the metric's name."""

    metric: str
    model: dict
    baseline: dict | None

    @property
    def name(self) -> str:
        """The metric as it is written."""
        return METRIC_NAMES.get(self.metric, self.metric)

    @property
    def gain(self) -> float:
        """How much better than the best baseline; negative if worse."""
        assert self.baseline is not None
        difference = self.model["value"] - self.baseline["value"]
        return -difference if self.metric in LOWER_IS_BETTER else difference


def headline_score(metrics: pd.DataFrame, run: RunConfig) -> HeadlineScore | None:
    """Main score of the explained readout and the best baseline on the same examples."""
    scores = held_out_scores(metrics, readout=_readout_name(run))
    for metric in HEADLINE_METRICS[run.task.kind]:
        rows = scores[scores["metric"] == metric].dropna(subset=["value"])
        model = records(rows[rows["model"] == MODEL])
        if model:
            better_first = metric in LOWER_IS_BETTER
            others = rows[~rows["model"].isin([MODEL, "ensemble"])].sort_values("value", ascending=better_first)
            return HeadlineScore(metric, model[0], next(iter(records(others)), None))
    return None


#: A smaller gain over uniform attention is none.
_LEAST_GAIN = 0.01


def attention_is_needed(files: ResultFiles, run: RunConfig) -> Block | None:
    """Whether the model predicts better than itself with uniform attention; nothing where that was not measured.

    Source: Wiegreffe & Pinter 2019: without a gain, patterns carry no claim.
    """
    metrics = read_metrics(files)
    score = None if isinstance(metrics, Notice) else headline_score(metrics, run)
    if isinstance(metrics, Notice) or score is None:
        return None
    scores = held_out_scores(metrics, readout=_readout_name(run))
    rows = scores[(scores["model"] == "uniform") & (scores["metric"] == score.metric)].dropna(subset=["value"])
    if rows.empty:
        return None
    own, uniform = float(score.model["value"]), float(rows["value"].iloc[0])
    gain = uniform - own if score.metric in LOWER_IS_BETTER else own - uniform
    compared = f"{score.name} {number(own)}; the same model with uniform attention reaches {number(uniform)}"
    if gain < _LEAST_GAIN:
        return Notice(
            f"The model reaches {compared}. Attention patterns are hardly needed for these predictions, so what they "
            "show carries no claim here, whatever the verdicts below say."
        )
    return Text(f"Attention is needed: the model reaches {compared}.")


def _readout_name(run: RunConfig) -> str:
    return run.task.targets[0] if run.task.kind == "multiclass" else run.task.targets[run.task.readout]


def metrics_section(files: ResultFiles, run: RunConfig) -> Section:
    """Held-out scores with intervals next to every baseline, and the curves behind them."""
    metrics = read_metrics(files)
    blocks: list[Block] = []
    if isinstance(metrics, Notice):
        blocks.append(metrics)
    else:
        blocks += _scores(metrics, run, _ceiling(files, run))
    blocks += _curves(files, run)
    return Section("metrics", "Held-out scores", blocks)


def _scores(metrics: pd.DataFrame, run: RunConfig, ceiling: float | None) -> list[Block]:
    scores = held_out_scores(metrics)
    if scores.empty:
        return [Notice(f"{_METRICS} has no rows of the test part, so there is no held-out score.")]
    draws = f"95 % bootstrap over split groups, {run.evaluate.bootstrap:,} draws"
    blocks: list[Block] = [
        Text(
            f"Every model was trained and scored on the same split. Intervals: {draws}. Scores are of test sequences "
            "only."
        )
    ]
    pictures = []
    wanted = [metric for metric in HEADLINE_METRICS[run.task.kind] if (scores["metric"] == metric).any()][:3]
    ours = scores[scores["readout"].astype(str) == _readout_name(run)]
    for metric in wanted:
        rows = _ordered(ours[ours["metric"] == metric]).dropna(subset=["value"])
        if rows.empty:
            continue
        name = METRIC_NAMES.get(metric, metric)
        shown = rows.assign(model=rows["model"].map(lambda key: MODEL_NAMES.get(key, key)))
        reference = ("ceiling", ceiling) if ceiling is not None and metric == "pearson" else None
        alt = f"{name} of " + ", ".join(f"{row['model']} {number(row['value'])}" for row in records(shown))
        drawing = metric_intervals(shown, highlight=MODEL_NAMES[MODEL], reference=reference, xlabel=name)
        pictures.append(picture(drawing, alt=alt, caption=f"{name}, held out."))
    blocks += [Pictures(pictures)] if pictures else []
    blocks.append(_score_table(scores))
    return blocks


def _ordered(scores: pd.DataFrame) -> pd.DataFrame:
    """The model first, then baselines from simple to able."""
    order = {name: place for place, name in enumerate(MODEL_NAMES)}
    return scores.sort_values("model", key=lambda names: names.map(order).fillna(99), kind="stable")


def _score_table(scores: pd.DataFrame) -> Table:
    metrics = list(dict.fromkeys(scores["metric"]))
    several = scores["readout"].nunique() > 1
    columns = [Column("model", "model")] + ([Column("readout", "readout")] if several else [])
    columns += [Column(metric, METRIC_NAMES.get(metric, metric), numeric=True) for metric in metrics]
    columns += [Column("n", "n", tip="test sequences", numeric=True)]
    rows = []
    for (model, readout), part in _ordered(scores).groupby(["model", "readout"], sort=False):
        by_metric = {row["metric"]: row for row in records(part)}
        cells = [Cell(MODEL_NAMES.get(str(model), str(model)), below=_replicates(part))]
        cells += [Cell(str(readout))] if several else []
        for metric in metrics:
            row = by_metric.get(metric)
            cells.append(Cell(number(None)) if row is None else _score_cell(row))
        rows.append([*cells, Cell(number(part["n"].iloc[0]))])
    return Table("scores", "Held-out scores with 95 % intervals", columns, rows, sortable=True)


def _replicates(part: pd.DataFrame) -> str:
    n = int(part["replicates"].max())
    return f"{n} trained models" if n > 1 else ""


def _score_cell(row: dict) -> Cell:
    whole = with_interval(row["value"], row["ci_low"], row["ci_high"])
    value, _, interval = whole.partition(" ")
    return Cell(value, below=interval, sort=repr(float(row["value"])))


def _ceiling(files: ResultFiles, run: RunConfig) -> float | None:
    """Score of a perfect reader for the explained readout, if the sequences are simulated."""
    truth = files.document("input/truth.json") or {}
    return as_float(truth.get("ceilings", {}).get(_readout_name(run), {}).get("ceiling"))


# ------------------------------------------------------------------------- curves


def _curves(files: ResultFiles, run: RunConfig) -> list[Block]:
    if run.task.kind in ("regression", "count"):
        return _scatter(files, run)
    curves = files.table(
        "evaluation/curves.parquet", ["model", "kind", "x", "y"], needed_for="ROC and calibration curve"
    )
    if isinstance(curves, Notice):
        return [curves]
    pictures = [p for kind in ("roc", "pr", "calibration") if (p := _curve_picture(curves, kind, run)) is not None]
    return [Heading("Curves"), Pictures(pictures)] if pictures else []


def _curve_picture(curves: pd.DataFrame, kind: str, run: RunConfig) -> Picture | None:
    rows = curves[curves["kind"] == kind]
    if "readout" in rows:
        names = {_readout_name(run), str(run.task.readout)}
        rows = rows[rows["readout"].astype(str).isin(names)] if rows["readout"].astype(str).isin(names).any() else rows
    if rows.empty:
        return None
    keys = [key for key in ("fold", "seed") if key in rows]
    if keys:
        rows = rows.assign(replicate=rows.groupby(keys, dropna=False).ngroup())  # baselines have no seed
    rows = rows.assign(model=rows["model"].map(lambda name: MODEL_NAMES.get(name, name)))
    titles = {"roc": "ROC curve", "pr": "Precision-recall curve", "calibration": "Calibration curve"}
    alt = f"{titles[kind]} of {', '.join(dict.fromkeys(rows['model']))}"
    drawing = classifier_curve(rows, kind=kind, highlight=MODEL_NAMES[MODEL])
    return picture(drawing, alt=alt, caption=f"{titles[kind]}, test sequences.")


def _scatter(files: ResultFiles, run: RunConfig) -> list[Block]:
    columns = ["model", "subset", "readout", "target", "prediction"]
    table = files.table("evaluation/predictions.parquet", columns, needed_for="predicted-versus-measured figure")
    if isinstance(table, Notice):
        return [table]
    rows = table[(table["model"] == MODEL) & (table["subset"] == "test") & (table["readout"] == run.task.readout)]
    rows = rows.dropna(subset=["target", "prediction"])
    if "name" in rows:
        # Several seeds predict the same sequence: their mean is one point.
        rows = rows.groupby("name", sort=False)[["target", "prediction"]].mean()
    if rows.empty:
        return [Notice("evaluation/predictions.parquet has no test prediction of the Transformer.")]
    target, prediction = rows["target"].to_numpy(), rows["prediction"].to_numpy()
    alt = f"Predicted against measured values of {len(rows):,} test sequences"
    caption = f"{_readout_name(run)}: mean prediction of all trained models, {count(len(rows), 'test sequence')}."
    return [
        Heading("Predicted against measured"),
        Pictures([picture(predicted_measured(target, prediction), alt=alt, caption=caption)]),
    ]


def ceiling_sentence(files: ResultFiles, run: RunConfig, score: HeadlineScore | None) -> str:
    """How close the model comes to a perfect reader of the simulated sequences; empty if not simulated."""
    ceiling = _ceiling(files, run)
    if ceiling is None or ceiling <= 0 or score is None or score.metric != "pearson":
        return ""
    return (
        f"A perfect reader of these simulated sequences would reach {number(ceiling)}; the model reaches "
        f"{percent(score.model['value'] / ceiling)} of that."
    )
