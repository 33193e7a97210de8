"""What of the heads comes back in every replicate: a part of the section about attention heads."""

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from bioattn.errors import DataError
from bioattn.io.motifs import read_matrices
from bioattn.plot.stability import motif_frequencies
from bioattn.report.blocks import Block, Heading, Notice, Pictures, Text, picture
from bioattn.report.files import ResultFiles
from bioattn.report.numbers import count, number, percent
from bioattn.report.tables import plain_table

MOTIFS, HEADS = "heads/stability.tsv", "heads/head_matches.tsv"
_MOTIF_COLUMNS = (
    "consensus", "matches", "n_replicates", "n_total", "frequency", "frequency_ci_low", "frequency_ci_high",
    "n_reading", "q_value", "representative", "members",
)  # fmt: skip
_HEAD_COLUMNS = ("seed_a", "layer_a", "head_a", "seed_b", "layer_b", "head_b", "similarity", "null_q95")
_TITLES = {
    "found": "replicates (95 % interval)",
    "n_reading": "read by a head that matters",
    "q_value": "q",
    "members": "found as",
}
#: A member of a cluster, seed:layer.head.motif.
_MEMBER = re.compile(r"^(?P<seed>\d+):(?P<name>\d+\.\d+\.\d+)$")


def stability_blocks(files: ResultFiles) -> list[Block]:
    """Motifs by the share of replicates that show them, and how well heads match; nothing where that was not made."""
    if not (files.root / MOTIFS).exists():
        return []
    motifs = files.table(MOTIFS, _MOTIF_COLUMNS, needed_for="motif found again")
    blocks: list[Block] = [Heading("What comes back in every replicate")]
    if isinstance(motifs, Notice):
        return [*blocks, motifs]
    found = motifs[motifs["n_replicates"] > 0]
    n = int(motifs["n_total"].iloc[0])
    blocks.append(Text(_motif_sentence(found, n)))
    if len(found) and n > 1:
        drawing = motif_frequencies(found, _matrices(files, found["representative"].tolist()))
        alt = f"Logos of {count(len(found), 'motif')}, each with the share of {n} replicates in which it is enriched"
        caption = "Share of replicates with the motif enriched in held-out sequences; bars: Wilson 95 % interval."
        blocks.append(Pictures([picture(drawing, alt=alt, caption=caption)]))
    if len(found):
        caption = "Motifs of all replicates"
        blocks.append(plain_table("stability-table", caption, _readable(found), titles=_TITLES, note=_NOTE))
    heads = files.table(HEADS, _HEAD_COLUMNS, needed_for="match of heads between replicates")
    return [*blocks, heads if isinstance(heads, Notice) else Text(_head_sentence(heads))]


_NOTE = (
    "Motifs that correlate on average at 0.8 or more are one. 'Found as' lists seed:layer.head.motif of all, enriched "
    "or not; consensus and matches are those of the most enriched one."
)


def _motif_sentence(found: pd.DataFrame, n: int) -> str:
    if found.empty:
        return f"No motif is enriched in held-out sequences in any of {count(n, 'replicate')}."
    if n == 1:
        return f"There is one replicate with {count(len(found), 'enriched motif')}, which says nothing about others."
    always = int((found["n_replicates"] == n).sum())
    once = int((found["n_replicates"] == 1).sum())
    return (
        f"Of {count(len(found), 'motif')} that some replicate shows enriched in held-out sequences, {always} "
        f"{'is' if always == 1 else 'are'} found in all {n} and {once} in one only."
    )


def _head_sentence(heads: pd.DataFrame) -> str:
    known = heads[heads["similarity"].notna()]
    if known.empty:
        return "With one replicate there are no heads to match."
    above = known["similarity"] > known["null_q95"]
    return (
        "Heads were matched one to one between every two replicates, by the motifs they read and the places they look "
        f"at. The median similarity of a head to its partner is {number(known['similarity'].median())}; "
        f"{percent(above.mean())} of {count(len(known), 'match', 'matches')} are closer than 95 % of random partners."
    )


def _readable(found: pd.DataFrame) -> pd.DataFrame:
    shown = found[["consensus", "matches", "n_reading", "q_value", "members"]].copy()
    ends = [
        f"{row.n_replicates} of {row.n_total} ({percent(row.frequency_ci_low)} to {percent(row.frequency_ci_high)})"
        for row in found.itertuples()
    ]
    shown.insert(2, "found", ends)
    return shown


def _matrices(files: ResultFiles, members: Sequence[str]) -> dict[str, np.ndarray]:
    """Matrices of members by their label, from the replicates' own files; what cannot be read is left out."""
    read: dict[str, dict[str, np.ndarray]] = {}
    found = {}
    for label in members:
        match = _MEMBER.match(str(label))
        if match is None:
            continue
        if match["seed"] not in read:
            try:
                read[match["seed"]] = read_matrices(files.root / "heads" / f"seed{match['seed']}" / "motifs.npz")
            except DataError:
                read[match["seed"]] = {}
        layer, head, motif = match["name"].split(".")
        matrix = read[match["seed"]].get(f"layer{layer}_head{head}_motif{motif}")
        if matrix is not None:
            found[label] = matrix
    return found
