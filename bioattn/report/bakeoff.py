"""Section about tokenizers, for runs in which they were compared."""

import pandas as pd

from bioattn.plot.bakeoff import bakeoff_panels
from bioattn.report.blocks import Block, Notice, Pictures, Section, Text, picture
from bioattn.report.files import ResultFiles
from bioattn.report.numbers import MISSING, number
from bioattn.report.tables import plain_table
from bioattn.report.words import METRIC_NAMES

TABLE = "bakeoff/bakeoff.tsv"
#: Column -> its title, for what is measured with a mean and a standard deviation.
_MEASURED = {
    "metric": "held-out score",
    "bits_per_base": "bits per base",
    "motif_recovery": "known motifs found",
    "train_sequences_per_second": "sequences/s, training",
    "predict_sequences_per_second": "sequences/s, prediction",
}
_TITLES = {
    "tokenizer": "tokens",
    "tokens_per_sequence": "tokens per sequence",
    "n_words": "vocabulary",
    "n_parameters": "parameters",
}
#: What the figure shows, where it was measured.
_PANELS = ("metric", "bits_per_base", "motif_recovery")


def bakeoff_section(files: ResultFiles) -> Section | None:
    """Tokenizers compared on this run's data, or None where nobody asked for that."""
    if not (files.root / TABLE).exists():
        return None
    needed = ["tokenizer", "metric_name", "n_seeds", "n_train", "n_test", *_MEASURED]
    table = files.table(TABLE, [*needed, *(f"{name}_sd" for name in _MEASURED)], needed_for="comparison of tokenizers")
    if isinstance(table, Notice):
        return Section("tokenizers", "Tokenizers", [table])
    metric = METRIC_NAMES.get(str(table["metric_name"].iloc[0]), str(table["metric_name"].iloc[0]))
    titles = _MEASURED | {"metric": metric}
    shown = [name for name in _PANELS if table[name].notna().any()]
    blocks: list[Block] = [Text(_what_was_done(table, metric))]
    if shown:
        alt = f"Dot plots of {', '.join(titles[name] for name in shown)} for {len(table)} kinds of tokens"
        markov = table.get("markov3_bits_per_base")
        references = {} if markov is None else {"bits_per_base": float(markov.iloc[0])}
        drawing = bakeoff_panels(table, [(name, titles[name]) for name in shown], references=references)
        blocks.append(Pictures([picture(drawing, alt=alt, caption=_CAPTION)]))
    blocks.append(plain_table("tokenizers-table", "Tokenizers", _readable(table), titles=_TITLES | titles, note=_NOTE))
    return Section("tokenizers", "Tokenizers", blocks)


_CAPTION = (
    "Mean and standard deviation over seeds. Dashed: a Markov model in which a base depends on the three before it."
)
_NOTE = (
    "Bits per base are those of a small model that predicts the next token; fewer mean that the sequences were "
    "understood better. Speeds are those of the machine that ran the comparison."
)


def _what_was_done(table: pd.DataFrame, metric: str) -> str:
    first = table.iloc[0]
    text = (
        f"The run's model was trained with {len(table)} kinds of tokens, {number(first['n_seeds'])} times each, on "
        f"{number(first['n_train'])} sequences, and scored ({metric}) on {number(first['n_test'])} held-out ones. "
        "A learned vocabulary saw the training sequences only."
    )
    scored = table[table["metric"].notna()]
    if len(scored) < 2:
        return text
    if first["n_seeds"] == 1:
        return f"{text} With one seed, differences may be those between two trainings of the same model."
    best, second = (row for _, row in scored.sort_values("metric", ascending=False, kind="stable").head(2).iterrows())
    if best["metric"] - second["metric"] <= max(best["metric_sd"], second["metric_sd"]):
        return f"{text} The best two, {best['tokenizer']} and {second['tokenizer']}, differ by less than seeds do."
    return f"{text} The best are {best['tokenizer']} with {metric} {number(best['metric'])}."


def _readable(table: pd.DataFrame) -> pd.DataFrame:
    """Means with their standard deviations in one cell, and columns without any value left out."""
    shown = table[["tokenizer"]].copy()
    for name in _MEASURED:
        if table[name].notna().any():
            shown[name] = [
                number(mean) + (f" ± {number(sd)}" if pd.notna(sd) and pd.notna(mean) else "")
                for mean, sd in zip(table[name], table[f"{name}_sd"], strict=True)
            ]
    for name in ("tokens_per_sequence", "n_words", "n_parameters"):
        if name in table:
            shown[name] = [MISSING if pd.isna(value) else number(value) for value in table[name]]
    return shown
