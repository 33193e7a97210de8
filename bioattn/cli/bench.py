"""Verbs `bench` and `scoreboard`: units of the benchmark with known truth, and what they say together."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
import typer

from bioattn.bench import scores as scoring
from bioattn.bench.suites import SUITES, TRAININGS, check_regime, run_of
from bioattn.bench.unit import run_unit
from bioattn.config import InteractionsConfig, digest
from bioattn.errors import ConfigError, DataError
from bioattn.io.files import replacing_folder, write_text
from bioattn.io.tables import read_parquet, read_tsv, write_parquet, write_tsv
from bioattn.plot.bench import arm_name, calibration_curves, dose_response, has_doses, precision_bars
from bioattn.plot.save import svg_bytes
from bioattn.plot.style import figure_of
from bioattn.report.bench import build_scoreboard

#: Tables of the scoreboard, which the page shows too.
TABLES = ("ranking", "calls", "verdicts", "calibration", "coverage", "syntax", "costs", "demonstration")


def bench(
    suite: Annotated[str, typer.Option(help=f"Suite: {', '.join(SUITES)}.")],
    out: Annotated[Path, typer.Option(help="Folder for pairs, scores, costs and summary.")],
    regime: Annotated[
        str,
        typer.Option(help="observational, randomised, twins, or mixedF with a randomised share F such as mixed0.25."),
    ] = "observational",
    training: Annotated[str, typer.Option(help=f"{', '.join(TRAININGS)}.")] = "plain",
    seed: Annotated[
        int, typer.Option(min=0, help="Structural causal model: which motifs pair, and all sequences.")
    ] = 1,
    replicates: Annotated[int, typer.Option(min=1, help="Models, each on its own resample.")] = 10,
    sequences: Annotated[int | None, typer.Option(min=200, help="Sequences, if not the suite's own number.")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs, if not the suite's own number.")] = None,
    rivals: Annotated[bool, typer.Option(help="Also what published ways say.")] = True,
) -> None:
    """Simulate one structural causal model, train on it, and score verdicts and rivals against the truth."""
    if suite not in SUITES:
        raise ConfigError(f"--suite must be one of {', '.join(SUITES)}, got '{suite}'")
    if training not in TRAININGS:
        raise ConfigError(f"--training must be one of {', '.join(TRAININGS)}, got '{training}'")
    check_regime(regime)
    run = run_of(suite, regime, seed, replicates=replicates, training=training, n_sequences=sequences, epochs=epochs)
    key = digest({"run": run.model_dump(mode="json"), "training": training})
    work_dir = out.with_name(f"{out.name}.work") / key
    unit = run_unit(run, training=training, work_dir=work_dir, rivals=rivals)
    names: dict[str, Any] = {"suite": suite, "regime": regime, "training": training, "seed": seed}
    record = {"step": "bench", "digest": key, "replicates": replicates, **names}
    with replacing_folder(out) as folder:
        write_parquet(folder / "pairs.parquet", unit.pairs.assign(**names), record)
        write_parquet(folder / "scores.parquet", unit.scores.assign(**names), record)
        write_tsv(folder / "costs.tsv", unit.costs.assign(**names), record)
        write_text(folder / "summary.json", json.dumps({**names, **unit.summary}, indent=1) + "\n")
    shutil.rmtree(work_dir.parent, ignore_errors=True)
    planted = unit.pairs[unit.pairs["class"] != "NULL"]
    told = ", ".join(f"{row['class']}: {row['verdict']}" for row in planted.to_dict("records"))
    typer.echo(f"{out}: {told}")


def scoreboard(
    unit: Annotated[list[Path], typer.Option(help="Folder of the verb bench; repeat for every unit.")],
    out: Annotated[Path, typer.Option(help="Folder for the tables, figures and the page.")],
) -> None:
    """Score verdicts and rivals over all units of the benchmark."""
    pairs, ranked = (
        _joined([read_parquet(folder / f"{name}.parquet") for folder in unit]) for name in ("pairs", "scores")
    )
    seconds = _joined([read_tsv(folder / "costs.tsv") for folder in unit])
    summaries = pd.DataFrame([_summary(folder / "summary.json") for folder in unit])
    within_bp = SUITES["B"].simulate["spacing"]["max_bp"]
    tables = {
        "ranking": scoring.ranking(ranked),
        "calls": scoring.calls(ranked),
        "verdicts": scoring.verdicts(pairs),
        "calibration": scoring.calibration(pairs, InteractionsConfig()),
        "coverage": scoring.coverage(pairs),
        "syntax": scoring.syntax(pairs, within_bp=within_bp),
        "costs": scoring.costs(seconds),
        "demonstration": scoring.demonstration(summaries, ranked),
    }
    record = {"step": "scoreboard", "units": len(unit)}
    with replacing_folder(out) as folder:
        for name in TABLES:
            write_tsv(folder / f"{name}.tsv", tables[name], record)
        for name, axes in {
            "precision": precision_bars(tables["ranking"]), "calibration": calibration_curves(tables["calibration"]),
            **({"dose": dose_response(tables["demonstration"])} if has_doses(tables["demonstration"]) else {}),
        }.items():  # fmt: skip
            (folder / f"{name}.svg").write_bytes(svg_bytes(figure_of(axes)))
        write_text(folder / "report.html", build_scoreboard(tables, {name: SUITES[name].about for name in SUITES}))
    for row in tables["ranking"].groupby(["suite", "regime", "training"]).first().reset_index().to_dict("records"):
        arm = arm_name(row["suite"], row["regime"], row["training"])
        typer.echo(f"{arm}: {row['method']} ranks best, average precision {row['auprc']:.3f}")


def _joined(tables: Sequence[pd.DataFrame]) -> pd.DataFrame:
    return pd.concat(tables, ignore_index=True)


def _summary(path: Path) -> dict[str, object]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError) as error:
        raise DataError(f"{path}: no summary of a unit ({error}): run the verb bench again") from None
