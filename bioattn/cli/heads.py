"""Verb `heads`: what every attention head of one model reads, from where, and whether it matters."""

import json
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import typer

from bioattn.cli.network import load_network
from bioattn.cli.options import Fold, Model, Run, Sequences, Settings, Split, step_record
from bioattn.config import load_run
from bioattn.explain.head_columns import COLUMNS
from bioattn.explain.head_motifs import HeadMotifs, head_motifs
from bioattn.explain.sample import held_out_sample
from bioattn.io.bed import seqlet_bed, write_bed
from bioattn.io.files import replacing_folder, write_text
from bioattn.io.motifs import naming_library, write_meme
from bioattn.io.tables import read_parquet, write_parquet, write_tsv
from bioattn.plot.contact_sheet import contact_sheet
from bioattn.plot.logo import information_logo, signed_logo
from bioattn.plot.save import svg_bytes
from bioattn.plot.style import figure_of


def heads(
    settings: Settings,
    sequences: Sequences,
    split: Split,
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder for heads.tsv, motifs.meme, logos and further tables.")],
    fold: Fold = 0,
    run: Run = None,
) -> None:
    """Find what each attention head reads and whether it matters: motifs, readers, ablation, names."""
    chosen = load_run(settings, run)
    network, trained = load_network(model)
    table = read_parquet(sequences)
    sample = held_out_sample(chosen, table, read_parquet(split), fold=fold)
    result = head_motifs(
        network,
        sample.discovery,
        sample.held_out,
        chosen.explain,
        scored=sample.scored,
        task=chosen.task,
        library=naming_library(chosen.motifs),
        seed=chosen.seed,
    )
    record = step_record(chosen, "heads", model_digest=trained["digest"], model_seed=trained["seed"], fold=fold)
    with replacing_folder(out) as folder:
        write_tsv(folder / "heads.tsv", result.table, record)
        write_tsv(folder / "columns.tsv", pd.DataFrame(COLUMNS.items(), columns=["column", "definition"]), record)
        write_tsv(folder / "ablation.tsv", result.ablation, record)
        write_tsv(folder / "similarity.tsv", _pairs(result.similarity, network.n_heads), record)
        write_tsv(folder / "distances.tsv", result.distances, record)
        write_tsv(folder / "tracks.tsv", result.judged_tracks, record)
        write_parquet(folder / "positions.parquet", result.positions, record)
        seqlets = result.seqlets.assign(name=[sample.discovery_names[row] for row in result.seqlets["sequence"]])
        write_bed(folder / "seqlets.bed", seqlet_bed(seqlets, table))
        sites = result.table.loc[result.table["motif"] >= 0, "n_sites"]
        write_meme(folder / "motifs.meme", result.motifs, n_sites=sites.tolist())
        np.savez(folder / "motifs.npz", **{m.motif_id: m.ppm for m in result.motifs})  # type: ignore[arg-type]
        np.savez(folder / "cwms.npz", **result.cwms)  # type: ignore[arg-type]
        np.savez(folder / "readers.npz", **result.readers)  # type: ignore[arg-type]
        write_text(folder / "summary.json", json.dumps({"record": record, **result.summary}, indent=1) + "\n")
        _draw(folder, result)
    verdicts = result.table.drop_duplicates(["layer", "head"])["verdict"].value_counts()
    counts = ", ".join(f"{n} {verdict}" for verdict, n in verdicts.items())
    typer.echo(f"{out}: {len(result.motifs)} motifs in {network.n_layers * network.n_heads} heads ({counts})")


def _pairs(similarity: np.ndarray, n_heads: int) -> pd.DataFrame:
    """Similarity of every two heads, each pair once."""
    a, b = np.triu_indices(len(similarity), 1)
    values = {"layer_a": a // n_heads, "head_a": a % n_heads, "layer_b": b // n_heads, "head_b": b % n_heads}
    return pd.DataFrame(values | {"similarity": similarity[a, b]})


def _draw(folder: Path, result: HeadMotifs) -> None:
    """Logos of all motifs and of what stands around their readers, and one sheet with the first motif of each head."""
    (folder / "logos").mkdir()
    first: dict[tuple[int, int], np.ndarray] = {}
    rows = result.table[result.table["motif"] >= 0]
    for row, motif in zip(rows.to_dict("records"), result.motifs, strict=True):
        first.setdefault((int(row["layer"]), int(row["head"])), motif.ppm)
        logos = {"logo": information_logo(motif.ppm), "cwm_logo": signed_logo(result.cwms[motif.motif_id])}
        if motif.motif_id in result.readers:
            logos["reader_logo"] = information_logo(result.readers[motif.motif_id])
        for column, drawing in logos.items():
            (folder / str(row[column])).write_bytes(svg_bytes(figure_of(drawing)))
    sheet = contact_sheet(result.table, first, metric=str(result.summary.get("metric", "")))
    (folder / "contact_sheet.svg").write_bytes(svg_bytes(sheet))
