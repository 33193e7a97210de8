"""Verb `heads`: motifs, logos and names of every attention head of one model, and its mutagenesis profile."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from bioattn.cli.network import load_network
from bioattn.cli.options import Fold, Model, Run, Sequences, Settings, Split, progress_bar, step_record
from bioattn.config import load_run
from bioattn.explain.head_motifs import HeadMotifs, head_motifs
from bioattn.explain.ism import ism, ism_table
from bioattn.explain.sample import held_out_sample
from bioattn.io.files import replacing_folder
from bioattn.io.motifs import jaspar_group, write_meme
from bioattn.io.tables import read_parquet, write_parquet, write_tsv
from bioattn.plot.contact_sheet import contact_sheet
from bioattn.plot.logo import information_logo
from bioattn.plot.save import svg_bytes
from bioattn.plot.style import figure_of


def heads(
    settings: Settings,
    sequences: Sequences,
    split: Split,
    model: Model,
    out: Annotated[Path, typer.Option(help="Folder for heads.tsv, motifs.meme, logos and ism.parquet.")],
    fold: Fold = 0,
    run: Run = None,
) -> None:
    """Find what each attention head reads: motifs, logos, names."""
    chosen = load_run(settings, run)
    network, trained = load_network(model)
    sample = held_out_sample(chosen, read_parquet(sequences), read_parquet(split), fold=fold)
    group = chosen.motifs.naming_tax_group
    result = head_motifs(
        network,
        sample.discovery,
        sample.held_out,
        chosen.explain,
        library=jaspar_group(group) if group else (),
        readout=chosen.task.readout,
        seed=chosen.seed,
    )
    some = sample.held_out[: chosen.explain.ism_sequences]
    effect = ism(network, some, readout=chosen.task.readout, progress=progress_bar("mutagenesis"))
    record = step_record(chosen, "heads", model_digest=trained["digest"], model_seed=trained["seed"], fold=fold)
    with replacing_folder(out) as folder:
        write_tsv(folder / "heads.tsv", result.table, record)
        write_parquet(folder / "positions.parquet", result.positions, record)
        write_parquet(folder / "ism.parquet", ism_table(effect, some, sample.held_out_names), record)
        sites = result.table.loc[result.table["motif"] >= 0, "n_sites"]
        write_meme(folder / "motifs.meme", result.motifs, n_sites=sites.tolist())
        np.savez(folder / "motifs.npz", **{m.motif_id: m.ppm for m in result.motifs})  # type: ignore[arg-type]
        _draw(folder, result)
    typer.echo(f"{out}: {len(result.motifs)} motifs in {network.n_layers * network.n_heads} heads")


def _draw(folder: Path, result: HeadMotifs) -> None:
    """Logos of all motifs, and one sheet with the first motif of each head."""
    (folder / "logos").mkdir()
    first: dict[tuple[int, int], np.ndarray] = {}
    rows = result.table[result.table["motif"] >= 0]
    for row, motif in zip(rows.to_dict("records"), result.motifs, strict=True):
        first.setdefault((int(row["layer"]), int(row["head"])), motif.ppm)
        (folder / str(row["logo"])).write_bytes(svg_bytes(figure_of(information_logo(motif.ppm))))
    (folder / "contact_sheet.svg").write_bytes(svg_bytes(contact_sheet(result.table, first)))
