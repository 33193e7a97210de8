"""A made-up results folder with every table that the report reads, and so the description of those tables."""

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bioattn.config import FORMAT_VERSION, RunConfig, digest, parse_run, step_settings
from bioattn.explain.head_columns import COLUMNS
from bioattn.io.files import write_text
from bioattn.io.tables import write_parquet, write_tsv
from bioattn.plot.logo import information_logo, signed_logo
from bioattn.plot.save import svg_bytes
from bioattn.plot.style import figure_of

MOTIFS = ["NFYA", "SP1", "ETS1", "YY1", "GABPA", "NRF1", "CREB1", "USF1", "JUN", "KLF4", "RFX2", "ZBTB33"]
CLASSES = ["AND", "INERT", "ADDITIVE", "HIDDEN", "GC", "DECOY"]
SEEDS = (1, 2, 3)
#: What an attacker or an unlucky user may call a motif.
HOSTILE = "<script>alert('x')</script>"


@dataclass(frozen=True)
class Made:
    """A results folder and the settings it was made with."""

    root: Path
    run: RunConfig


def record(run: RunConfig, step: str, **more: Any) -> dict[str, Any]:
    """Provenance record of a result file."""
    settings = step_settings(run, step)
    return {"step": step, "digest": digest(settings), "seed": run.seed, "format": FORMAT_VERSION, **more}


def planted_run(**changes: Any) -> RunConfig:
    """Settings of a simulated regression."""
    document = {
        "description": "Promoters simulated from a structural causal model with one true interaction.",
        "data": {"simulate": {"n_sequences": 600, "length": 60}},
        "task": {"kind": "regression", "targets": ["y"]},
        "split": {"group_by": ["shared_kmer"]},
        "motifs": {"jaspar_ids": [f"MA{i:04d}.1" for i in range(12)]},
        "model": {"stem": {"kind": "pwm", "n_filters": 16}},
        **changes,
    }
    return parse_run(document)


def binary_run(**changes: Any) -> RunConfig:
    """Settings of a classification with fixed sites."""
    sites = [{"name": "-35 box", "start": 10, "end": 16}, {"name": "-10 box", "start": 33, "end": 39}]
    document = {"data": {"samples": "samples.tsv"}, "motifs": {"sites": sites}, **changes}
    return parse_run(document)


def write_results(root: Path, run: RunConfig) -> Made:
    """Write one file of every kind below `root` (the folder results/{run})."""
    generator = np.random.default_rng(7)
    sequences = _sequences(root, run, generator)
    split = _split(root, run, sequences, generator)
    _models(root, run, generator)
    _evaluation(root, run, sequences, split, generator)
    for seed in SEEDS:
        _heads(root, run, seed)
        _attribution(root, run, seed, sequences, generator)
    pairs = _interactions(root, run, generator)
    if run.data.simulate is not None:
        _truth(root, run, pairs)
    return Made(root, run)


def _sequences(root: Path, run: RunConfig, generator: np.random.Generator) -> pd.DataFrame:
    n, length = 600, 60
    letters = generator.choice(list("ACGT"), size=(n, length))
    kind = run.task.kind
    values = generator.normal(size=n) if kind == "regression" else (np.arange(n) % 2).astype(float)
    table = pd.DataFrame(
        {
            "name": [f"seq{i:04d}" for i in range(n)],
            "sequence": ["".join(row) for row in letters],
            "sample": "input",
            "length": length,
            "split_given": None,
            "group": None,
            run.task.targets[0]: values,
        }
    )
    write_parquet(root / "data/sequences.parquet", table, record(run, "ingest"))
    write_text(root / "data/summary.json", json.dumps({"n_read": 601, "n_rejected": 1, "n_negatives_made": 0}))
    rejected = pd.DataFrame(
        {
            "file": ["input.fa"],
            "line": [17],
            "name": [HOSTILE],
            "reason": ["found the letter 'Z', allowed are IUPAC codes"],
        }
    )
    write_tsv(root / "data/rejected.tsv", rejected, record(run, "ingest"))
    _composition(root, run)
    return table


def _composition(root: Path, run: RunConfig) -> None:
    numeric = run.task.kind == "regression"
    sides = ("highest third", "lowest third") if numeric else ("1", "0")
    contrast = dict(zip(("target", "group", "reference"), (run.task.targets[0], *sides), strict=True))
    differences = {"gc": 0.31, "cpg_ratio": -0.14, "length": 0.0, "soft_masked": 0.0, "unknown": 0.0}
    balance = [
        {
            **contrast,
            "feature": feature,
            "stage": "after",
            "smd": smd,
            "n_group": 300,
            "mean_group": 0.5 + 0.05 * smd,
            "sd_group": 0.05,
            "n_reference": 300,
            "mean_reference": 0.5,
            "sd_reference": 0.05,
        }
        for feature, smd in {**differences, "top_dinucleotide": 0.02}.items()
    ]
    write_tsv(root / "data/balance.tsv", pd.DataFrame(balance), record(run, "ingest"))
    contrast |= {"group": "higher values", "reference": "lower values"} if numeric else {}
    scores = [
        {
            **contrast,
            "features": features,
            "metric": "pearson" if numeric else "auroc",
            "value": value - 0.35 * numeric,
            "ci_low": value - 0.02 - 0.35 * numeric,
            "ci_high": value + 0.02 - 0.35 * numeric,
            "n": 600,
            "n_folds": 5,
        }
        for features, value in {"GC": 0.6, "dinucleotides": 0.64, "trinucleotides": 0.63}.items()
    ]
    write_tsv(root / "data/composition.tsv", pd.DataFrame(scores), record(run, "ingest"))


def _split(root: Path, run: RunConfig, sequences: pd.DataFrame, generator: np.random.Generator) -> pd.DataFrame:
    parts = generator.choice(["train", "validation", "test"], size=len(sequences), p=[0.7, 0.15, 0.15])
    table = pd.DataFrame({"name": sequences["name"], "group": np.arange(len(sequences)) // 2, "fold_0": parts})
    write_parquet(root / "split/split.parquet", table, record(run, "split"))
    leakage = pd.DataFrame(
        {
            "fold": [0, 0],
            "subset": ["validation", "test"],
            "n": [90, 90],
            "n_groups": [45, 45],
            "largest_group": [2, 2],
            "n_train": [420, 420],
            "n_groups_train": [210, 210],
            "largest_group_train": [2, 2],
            "kmer": [20, 20],
            "n_identical_to_train": [0, 0],
            "n_reverse_complement_of_train": [0, 0],
            "n_sharing_kmer_with_train": [1, 2],
            "fraction_identical_to_train": [0.0, 0.0],
            "fraction_reverse_complement_of_train": [0.0, 0.0],
            "fraction_sharing_kmer_with_train": [1 / 90, 2 / 90],
        }
    )
    write_tsv(root / "split/leakage.tsv", leakage, record(run, "split"))
    return table


def _models(root: Path, run: RunConfig, generator: np.random.Generator) -> None:
    for seed in SEEDS:
        folder = root / f"models/fold0/seed{seed}"
        epochs = np.arange(1, 21)
        train = 1.6 * np.exp(-epochs / 5) + 0.3 + 0.02 * generator.normal(size=20)
        validation = 1.6 * np.exp(-epochs / 5) + 0.42 + 0.004 * epochs + 0.02 * generator.normal(size=20)
        history = pd.DataFrame(
            {
                "epoch": epochs,
                "step": 40 * epochs,
                "learning_rate": 1e-3,
                "train_loss": train,
                "validation_loss": validation,
                "validation_metric": 1 - validation / 4,
                "seconds": 1.5 * epochs,
            }
        )
        write_tsv(folder / "history.tsv", history, record(run, "train", fold=0))
        content = {
            **record(run, "train"),
            "fold": 0,
            "seed": seed,
            "device": "CPU",
            "precision": "32-true",
            "n_parameters": 81234,
            "seconds": 41.7 + seed,
            "versions": {"python": "3.11.9", "bioattn": "0.1.0", "torch": "2.7.0", "numpy": "2.2.0"},
        }
        write_text(folder / "run_record.json", json.dumps(content))


def _evaluation(
    root: Path, run: RunConfig, sequences: pd.DataFrame, split: pd.DataFrame, generator: np.random.Generator
) -> None:
    target_name = run.task.targets[0]
    regression = run.task.kind == "regression"
    levels = {"composition": 0.21, "onehot": 0.55, "kmer": 0.68, "cnn": 0.8, "transformer": 0.866}
    metrics = ["pearson", "spearman", "r2"] if regression else ["auroc", "auprc", "mcc", "accuracy"]
    rows = []
    for model, level in levels.items():
        for place, metric in enumerate(metrics):
            base = {"model": model, "readout": target_name, "subset": "test", "metric": metric, "n": 90, "note": ""}
            value = level - 0.03 * place
            if model == "transformer":
                for seed in SEEDS:
                    own = value + 0.004 * (seed - 2)
                    interval = {"ci_low": own - 0.02, "ci_high": own + 0.02}
                    rows.append({**base, "fold": "0", "seed": seed, "value": own, **interval})
            interval = {"ci_low": value - 0.02, "ci_high": value + 0.018}
            if model == "transformer":
                rows.append({**base, "fold": "all", "seed": None, "value": value, "sd": 0.004, **interval, "n": 270})
            else:
                rows.append({**base, "fold": "0", "seed": None, "value": value, **interval})
    columns = ["model", "readout", "fold", "seed", "subset", "metric", "value", "ci_low", "ci_high", "sd", "n", "note"]
    write_tsv(root / "evaluation/metrics.tsv", pd.DataFrame(rows)[columns], record(run, "evaluate"))

    test = sequences[split["fold_0"] == "test"]
    target = test[target_name].to_numpy()
    parts = []
    for seed in SEEDS:
        score = 0.8 * target + 0.4 * generator.normal(size=len(test))
        prediction = score if regression else 1 / (1 + np.exp(-score))
        part = {"name": test["name"], "fold": 0, "seed": seed, "model": "transformer", "subset": "test", "readout": 0}
        parts.append(pd.DataFrame({**part, "target": target, "prediction": prediction, "score": score}))
    write_parquet(root / "evaluation/predictions.parquet", pd.concat(parts), record(run, "evaluate"))

    x = np.linspace(0, 1, 30)
    readout = run.task.targets[0]
    curves = [
        pd.DataFrame(
            {
                "model": model,
                "fold": 0,
                # Baselines have no seed, as in the real table.
                "seed": pd.array([seed if model == "transformer" else None], dtype="Int64").repeat(len(x)),
                "subset": "test",
                "readout": readout,
                "kind": kind,
                "x": x,
                "y": y,
                "n": 90,
            }
        )
        for model, power in (("transformer", 0.15), ("kmer", 0.4))
        for seed in (SEEDS if model == "transformer" else (0,))
        for kind, y in (("roc", x ** (power + 0.02 * seed)), ("pr", 1 - 0.5 * x ** (1 / power)), ("calibration", x))
    ]
    write_parquet(root / "evaluation/curves.parquet", pd.concat(curves), record(run, "evaluate"))


#: Verdict and number of motifs of each head, layer by layer.
HEADS = [
    [("motif", 2), ("redundant", 1), ("positional", 0), ("diffuse", 0)],
    [("motif", 1), ("weak", 1), ("dead", 0), ("redundant", 0)],
]
#: What taking a head of each verdict away costs: score and loss; and how many heads of random models cost as much.
_COSTS = {
    "motif": (0.12, 0.31, 0.01), "weak": (0.02, 0.04, 0.2), "redundant": (0.004, 0.012, 0.4),
    "positional": (0.06, 0.11, 0.03), "diffuse": (0.05, 0.1, 0.03), "dead": (-0.001, -0.002, 0.9),
}  # fmt: skip


def _heads(root: Path, run: RunConfig, seed: int) -> None:
    """Everything that the verb `heads` writes about one model."""
    folder, made = root / f"heads/seed{seed}", record(run, "heads", model_seed=seed)
    rows: list[dict[str, Any]] = []
    matrices: dict[str, dict[str, np.ndarray]] = {"motifs": {}, "cwms": {}, "readers": {}}
    distances = []
    for layer, verdicts in enumerate(HEADS):
        for head, (verdict, n_motifs) in enumerate(verdicts):
            for motif in range(n_motifs) if n_motifs else [-1]:
                name = f"layer{layer}_head{head}_motif{motif}"
                rows.append(_head_row(layer, head, motif, verdict, name))
                if motif < 0:
                    continue
                ppm = toy_ppm(layer, head, motif)
                matrices["motifs"][name], matrices["cwms"][name] = ppm, 0.1 * (ppm - 0.25)
                if rows[-1]["reader_logo"]:
                    matrices["readers"][name] = toy_ppm(layer, head, motif + 7)
                for column, signed in (("logo", False), ("cwm_logo", True), ("reader_logo", False)):
                    if rows[-1][column]:
                        path = folder / rows[-1][column]
                        path.parent.mkdir(parents=True, exist_ok=True)
                        path.write_bytes(_toy_logo(layer, head, motif + 7 * (column == "reader_logo"), signed))
                distances.append(_toy_distances(layer, head, motif))
    write_tsv(folder / "heads.tsv", pd.DataFrame(rows), made)
    write_tsv(folder / "distances.tsv", pd.concat(distances, ignore_index=True), made)
    write_tsv(folder / "ablation.tsv", _ablation(run), made)
    write_tsv(folder / "similarity.tsv", _similarity(), made)
    write_tsv(folder / "tracks.tsv", _judged_tracks(), made)
    write_tsv(folder / "columns.tsv", pd.DataFrame(COLUMNS.items(), columns=["column", "definition"]), made)
    for kind, named in matrices.items():
        np.savez(folder / f"{kind}.npz", **named)  # type: ignore[arg-type]
    write_text(folder / "motifs.meme", "MEME version 4\n\nALPHABET= ACGT\n\nMOTIF layer0_head0_motif0 CCAATCAGCG\n")
    write_text(folder / "seqlets.bed", "seq0003\t12\t22\tlayer0_head0_motif0\t7.25\t+\n")
    write_text(folder / "contact_sheet.svg", "<svg xmlns='http://www.w3.org/2000/svg'/>\n")
    summary = {
        "n_heads": 8, "effective_heads": 5.31, "metric": _metric(run), "n_scored": 90, "n_random_heads": 40,
        "random_loss_q95": 0.05,
    }  # fmt: skip
    write_text(folder / "summary.json", json.dumps(summary))

    positions = np.arange(0, 60, 4)
    profiles = [
        pd.DataFrame({"layer": layer, "head": head, "position": positions, "received": received, "background": 1.0})
        for layer in range(2)
        for head in range(4)
        for received in [1 + (head + 1) * 0.4 * np.exp(-((positions - 12 * (head + 1)) ** 2) / 40)]
    ]
    write_parquet(folder / "positions.parquet", pd.concat(profiles), made)


def _judged_tracks() -> pd.DataFrame:
    """Both tracks of each head against substitutions; nothing flows through the last one."""
    rows: list[dict[str, Any]] = []
    for layer in range(2):
        for head in range(4):
            silent = (layer, head) == (1, 3)
            for track, value in (("received", 0.1 * head), ("gradient", 0.6 - 0.2 * layer)):
                row = {"layer": layer, "head": head, "track": track, "spearman": np.nan if silent else value}
                row |= {f"spearman_ci_{end}": row["spearman"] + by for end, by in (("low", -0.05), ("high", 0.05))}
                row |= {"n_sequences": 0 if silent else 20, "n_positions": 0 if silent else 300}
                rows.append(row | {"note": "substitutions do nothing through this head, or all alike" * silent})
    return pd.DataFrame(rows)


def _metric(run: RunConfig) -> str:
    return "pearson" if run.task.kind in ("regression", "count") else "auroc"


def toy_ppm(layer: int, head: int, motif: int) -> np.ndarray:
    """Matrix (4, 10) of a motif, the same for every seed."""
    best = np.random.default_rng([layer, head, motif]).integers(0, 4, size=10)
    ppm = np.full((4, 10), 0.04)
    ppm[best, np.arange(10)] = 0.88
    return ppm


@functools.cache
def _toy_logo(layer: int, head: int, motif: int, signed: bool) -> bytes:
    ppm = toy_ppm(layer, head, motif)
    return svg_bytes(figure_of(signed_logo(0.1 * (ppm - 0.25)) if signed else information_logo(ppm)))


def _head_row(layer: int, head: int, motif: int, verdict: str, name: str) -> dict[str, Any]:
    drop, loss, p_random = _COSTS[verdict]
    has, has_readers = motif >= 0, motif == 0 and head == 0
    named = f"{MOTIFS[head + 4 * layer]} MA0060.4 (q=1e-05) +2 of Heteromeric, CCAAT; OTHER MA0001.1 (q=0.01)"
    note = "too few seqlets (n = 12)" if verdict == "diffuse" else "" if has else "no motif with at least 10 sites"
    own, around = ("".join("ACGT"[i] for i in toy_ppm(layer, head, number).argmax(0)) for number in (motif % 7, 7))
    return {
        "layer": layer,
        "head": head,
        "motif": motif,
        "verdict": verdict,
        "track": "received" if motif != 1 else "gradient",
        "n_seqlets": 731 if has else 12,
        "n_sites": 412 if has else 0,
        "consensus": own if has else "",
        "information_bits": 12.4 if has else np.nan,
        "enrichment_log2": 2.31 - motif if has else np.nan,
        "p_value": 1e-9 if has else np.nan,
        "q_value": 3.2e-8 if has else np.nan,
        "matches": named if motif == 0 else "",
        "reader_consensus": around if has_readers else "",
        "reader_p_value": 0.002 if has_readers else np.nan,
        "distance_bp": -13.0 if has else np.nan,
        "distance_iqr_bp": 6.0 if has else np.nan,
        "ablation_loss": loss,
        "ablation_loss_ci_low": loss - 0.02,
        "ablation_loss_ci_high": loss + 0.03,
        "ablation_drop": drop,
        "ablation_drop_ci_low": drop - 0.01,
        "ablation_drop_ci_high": drop + 0.02,
        "ablation_effect": 2 * abs(loss),
        "ablation_effect_ci_low": 1.9 * abs(loss),
        "ablation_effect_ci_high": 2.1 * abs(loss),
        "p_random": p_random,
        "motif_response": 0.73 if has else np.nan,
        "motif_response_lost": 0.61 if has else np.nan,
        "through_head": 0.21 if has else np.nan,
        "through_head_ci_low": 0.18 if has else np.nan,
        "through_head_ci_high": 0.24 if has else np.nan,
        "through_head_p_value": 0.002 if has else np.nan,
        "through_head_q_value": 0.004 if has else np.nan,
        "evidence": ("causal in model" if motif == 0 else "correlated") if has else "",
        "positional_share": 0.83 if verdict == "positional" else 0.07,
        "similar_head": "1.3" if (layer, head) == (0, 1) else "0.1",
        "similarity": 0.91 if verdict == "redundant" else 0.2,
        "logo": f"logos/{name}.svg" if has else "",
        "cwm_logo": f"logos/{name}_cwm.svg" if has else "",
        "reader_logo": f"logos/{name}_readers.svg" if has_readers else "",
        "note": note,
    }


def _toy_distances(layer: int, head: int, motif: int) -> pd.DataFrame:
    distance = np.arange(-56, 57, 4)
    expected = 60.0 - np.abs(distance)
    share = expected + 200 * np.exp(-((distance + 13) ** 2) / 30)
    columns = {"distance_bp": distance, "share": share / share.sum(), "expected": expected / expected.sum()}
    return pd.DataFrame({"layer": layer, "head": head, "motif": motif, **columns})


def _ablation(run: RunConfig) -> pd.DataFrame:
    rows = []
    for kind, times in (("zero", 1.3), ("mean", 1.0), ("resample", 0.8)):
        for layer, verdicts in enumerate(HEADS):
            for head, (verdict, _) in enumerate(verdicts):
                drop, loss, _ = _COSTS[verdict]
                row: dict[str, Any] = {"heads": f"{layer}.{head}", "layer": layer, "head": head, "kind": kind}
                measures = {"loss": loss * times, "drop": drop * times, "effect": 2 * abs(loss) * times}
                for name, value in measures.items():
                    row |= {name: value, f"{name}_ci_low": value - 0.02, f"{name}_ci_high": value + 0.03}
                rows.append(row | {"metric": _metric(run)})
    return pd.DataFrame(rows)


def _similarity() -> pd.DataFrame:
    heads = [(layer, head) for layer in range(2) for head in range(4)]
    rows = [
        (*a, *b, 0.91 if {a, b} == {(0, 1), (1, 3)} else 0.15 + 0.01 * (a[1] + b[1]))
        for i, a in enumerate(heads)
        for b in heads[i + 1 :]
    ]
    return pd.DataFrame(rows, columns=["layer_a", "head_a", "layer_b", "head_b", "similarity"])


def _attribution(
    root: Path, run: RunConfig, seed: int, sequences: pd.DataFrame, generator: np.random.Generator
) -> None:
    """Importance of every base of some held-out sequences, and how faithful each way to say it is."""
    folder, made = root / f"attribution/seed{seed}", record(run, "attribution", model_seed=seed)
    parts, tracks = [], []
    for name, sequence in sequences[["name", "sequence"]].head(8).itertuples(index=False):
        length = len(sequence)
        weight = (
            0.02 + np.exp(-((np.arange(length) - 13) ** 2) / 9) + 0.7 * np.exp(-((np.arange(length) - 36) ** 2) / 9)
        )
        effects = -weight[:, None] * generator.uniform(0.4, 1.0, size=(length, 4))
        effects[np.arange(length), ["ACGT".index(letter) for letter in sequence]] = 0.0
        where = {"name": name, "position": np.arange(length), "reference": list(sequence)}
        parts.append(pd.DataFrame(effects, columns=list("ACGT")).assign(**where))
        importance = -effects.sum(1) / 3
        noise = generator.normal(size=(4, length))
        columns = {
            "input_x_gradient": importance + 0.2 * noise[0],
            "integrated_gradients": importance + 0.1 * noise[1],
            "ism": importance,
            "received_sum": 8 + 3 * weight + noise[2],
            "gradient_sum": importance + 0.3 * noise[3],
        }
        tracks.append(pd.DataFrame({**where, **columns}))
    ism = pd.concat(parts)[["name", "position", "reference", "A", "C", "G", "T"]]
    write_parquet(folder / "ism.parquet", ism, made)
    write_parquet(folder / "attributions.parquet", pd.concat(tracks), made)
    _faithfulness(folder, made)


#: How well each attribution ranks bases: area between its curves and those of random orders.
_AREAS = {
    "received_sum": 0.12, "gradient_sum": 0.23, "input_x_gradient": 0.27, "integrated_gradients": 0.31, "ism": 0.35,
    "random": 0.0,
}  # fmt: skip


def _faithfulness(folder: Path, made: dict[str, Any]) -> None:
    fraction = np.linspace(0, 1, 11)
    curves, rows = [], []
    for kind, area in _AREAS.items():
        rise = fraction ** ((0.5 - area) / (0.5 + area))  # its area is 0.5 + area, and that of chance 0.5
        spearman = np.nan if kind == "ism" else 2 * area
        for direction, mean in (("deletion", 1 - rise), ("insertion", rise)):
            names = {"kind": kind, "direction": direction}
            ends = {"ci_low": mean - 0.03, "ci_high": mean + 0.03}
            curves.append(pd.DataFrame({**names, "fraction": fraction, "mean": mean, **ends, "n": 8}))
            rows.append(
                {
                    **names, "area": area, "area_ci_low": area - 0.03, "area_ci_high": area + 0.03,
                    "spearman_ism": spearman, "spearman_ci_low": spearman - 0.1, "spearman_ci_high": spearman + 0.1,
                    "n": 8, "note": "not compared with itself" if kind == "ism" else "",
                }
            )  # fmt: skip
    write_tsv(folder / "curves.tsv", pd.concat(curves), made)
    write_tsv(folder / "faithfulness.tsv", pd.DataFrame(rows), made)
    kept, edges = np.array([0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]), []
    for ranking, power in (("pattern", 0.2), ("gradient", 0.1), ("random", 1.0)):
        explained = 0.4 + 0.6 * kept**power
        area = {"area": 1 / (power + 1) - 0.5, "area_ci_low": 0.6 / (power + 1) - 0.3, "area_ci_high": 1.0}
        ends = {"ci_low": explained - 0.05, "ci_high": explained + 0.05}
        edges.append(pd.DataFrame({"ranking": ranking, "kept": kept, "explained": explained, **ends, **area}))
    write_tsv(folder / "edges.tsv", pd.concat(edges).assign(n=8, note=""), made)


_SPECIAL = {
    # pair of classes: verdict, evidence, epistasis, attention, co-occurrence, mediated
    "AND": ("causal in model", "L3", 1.72, 3.4, 0.05, 0.93),
    "INERT": ("attention-only (correlational)", "L1", 0.03, 2.2, 0.3, np.nan),
    "ADDITIVE": ("not supported", "L2", -0.06, 0.9, 3.6, np.nan),
    "HIDDEN": ("co-occurrence confounded", "L3", 0.74, 2.9, 1.9, 0.7),
    "GC": ("hidden (causal without attention)", "L2", 0.31, 0.4, 0.4, 0.12),
    "DECOY": ("insufficient data", "L0", np.nan, 0.1, 0.0, np.nan),
}


def _interactions(root: Path, run: RunConfig, generator: np.random.Generator) -> pd.DataFrame:
    rows = []
    for a in range(12):
        for b in range(a + 1, 12):
            name = CLASSES[a // 2] if a // 2 == b // 2 else "NULL"
            plain = "not supported" if (a + b) % 3 == 0 else "not tested"
            noise = 0.03 * float(generator.normal())
            null = (plain, "L2", noise, 0.15 * float(generator.normal()), 0.1 * float(generator.normal()), np.nan)
            rows.append(_pair_row(MOTIFS[a], MOTIFS[b], a, b, *_SPECIAL.get(name, null)))
    table = pd.DataFrame(rows)
    table = table.sort_values("epistasis_effect", key=lambda values: values.abs(), ascending=False, kind="stable")
    write_tsv(root / "interactions/table/interactions.tsv", table, record(run, "interactions"))
    dictionary = pd.DataFrame(
        {"column": list(table), "definition": [f'Definition of {name}: "a" & b.' for name in table]}
    )
    write_tsv(root / "interactions/table/columns.tsv", dictionary, record(run, "interactions"))
    return table


def _pair_row(
    a: str, b: str, i: int, j: int, verdict: str, level: str, effect: float, bits: float, odds: float, mediated: float
) -> dict[str, Any]:
    tested = verdict not in ("not tested", "insufficient data")
    measured = effect if tested else np.nan
    strong = tested and abs(effect) > 0.2
    return {
        "tf_a": a,
        "tf_b": b,
        "motif_id_a": f"MA{i:04d}.1",
        "motif_id_b": f"MA{j:04d}.1",
        "n_instances": 120,
        "n_pairs": 104,
        "tested": tested,
        "candidate": bits > 1,
        "cooccurrence_logodds": odds,
        "cooccurrence_ci_low": odds - 0.2,
        "cooccurrence_ci_high": odds + 0.2,
        "cooccurrence_q": 1e-9 if abs(odds) > 0.5 else 0.4,
        "attention_effect": bits,
        "attention_p": 0.002 if bits > 1 else 0.5,
        "attention_q": 0.012 if bits > 1 else 0.7,
        "attention_direction": "a<-b",
        "best_layer_head": "0.1",
        "main_a": 0.21,
        "main_b": 0.18,
        "epistasis_effect": measured,
        "epistasis_ci_low": measured - 0.1,
        "epistasis_ci_high": measured + 0.1,
        "epistasis_p": 0.0002 if strong else 0.6 if tested else np.nan,
        "epistasis_q": 0.00012 if strong else 0.8 if tested else np.nan,
        "permutation_p": 0.002 if strong else 0.4,
        "control_epistasis": 0.01 if tested else np.nan,
        "logic": "AND" if strong else "additive",
        "edge_knockout_effect": 0.9 if strong else 0.02,
        "edge_knockout_q": 0.004 if strong else 0.6,
        "mediated_fraction": mediated,
        "interventional_effect": np.nan,
        "interventional_se": np.nan,
        "interventional_ci_low": np.nan,
        "interventional_ci_high": np.nan,
        "seeds_supporting": 3 if strong else 0,
        "n_replicates": 3,
        "minimum_effect": 0.1,
        "verdict": verdict,
        "evidence_level": level,
        "sentence": f"Removing {a} changes what {b} does to the prediction by {effect:.2f}." if strong else "",
        # Optional: mean readout of the four cells, drawn on the pair's card.
        "cell_neither": -0.1 if strong else np.nan,
        "cell_a": 0.1 if strong else np.nan,
        "cell_b": 0.08 if strong else np.nan,
        "cell_both": 0.28 + effect if strong else np.nan,
    }


def _truth(root: Path, run: RunConfig, pairs: pd.DataFrame) -> None:
    rows = []
    for a in range(12):
        for b in range(a + 1, 12):
            name = CLASSES[a // 2] if a // 2 == b // 2 else "NULL"
            # The other way round on purpose: pairs have no order.
            rows.append((MOTIFS[b], MOTIFS[a], "", "", name, 2.0 if name == "AND" else 0.0, 0.1))
    columns = ["motif_a", "motif_b", "motif_id_a", "motif_id_b", "class", "interaction", "cooccurrence_logodds"]
    write_tsv(root / "input/truth_pairs.tsv", pd.DataFrame(rows, columns=columns), record(run, "simulate"))
    ceilings = {run.task.targets[0]: {"ceiling": 0.9, "ceiling_given_hidden": 0.97}}
    write_text(root / "input/truth.json", json.dumps({"ceilings": ceilings}))
