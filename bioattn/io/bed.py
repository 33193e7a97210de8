"""Intervals of sequences as BED, on the genome where it is known."""

from pathlib import Path

import numpy as np
import pandas as pd

from bioattn.errors import DataError
from bioattn.io.files import write_text

COLUMNS = ("chrom", "start", "end", "name", "score", "strand")
#: Columns of seqlets beyond those of BED6: where they come from, and the score before it was scaled.
SEQLET_COLUMNS = ("layer", "head", "motif", "value")
#: Scores of a BED file are whole numbers up to this one, which browsers draw darkest.
_MOST = 1000


def seqlet_bed(seqlets: pd.DataFrame, sequences: pd.DataFrame) -> pd.DataFrame:
    """Seqlets on the contigs that their sequences come from, sorted.

    Parameters
    ----------
    seqlets : DataFrame
        Columns name (of the sequence), start and end (0-based half-open, in the
        sequence), score, strand ("+" or "-", of the sequence), layer, head, motif.
    sequences : DataFrame
        See `genome_intervals`.

    Returns
    -------
    DataFrame
        `COLUMNS`, then `SEQLET_COLUMNS`. name is that of the motif, layer0_head1_motif0; score
        is scaled so that the highest of each head is 1000, value is as it was.
    """
    where = [seqlets[column].astype(int).astype(str) for column in ("layer", "head", "motif")]
    highest = seqlets.groupby(["layer", "head"])["score"].transform("max")
    # A head whose highest score is not positive has nothing to scale by.
    share = (seqlets["score"] / highest.where(highest > 0)).fillna(0).clip(0, 1)
    intervals = seqlets.assign(
        sequence=seqlets["name"],
        name="layer" + where[0] + "_head" + where[1] + "_motif" + where[2],
        score=(share * _MOST).round().astype(np.int64),
        value=seqlets["score"],
    )
    return genome_intervals(intervals, sequences)[[*COLUMNS, *SEQLET_COLUMNS]]


def genome_intervals(intervals: pd.DataFrame, sequences: pd.DataFrame) -> pd.DataFrame:
    """Intervals of sequences on the contigs that these come from, sorted.

    Parameters
    ----------
    intervals : DataFrame
        Columns sequence (name), start and end (0-based half-open, in the sequence), name,
        score and strand ("+" or "-", of the sequence); others are kept.
    sequences : DataFrame
        Columns name and length, and where known chromosome, start and strand: a sequence
        of strand "-" runs from its end backwards. start is negative where unknown bases
        stand for what lies before the contig.

    Returns
    -------
    DataFrame
        `COLUMNS`, then the others. A sequence without a place is its own contig. What lies
        before the contig is cut off.

    Raises
    ------
    DataError
        If an interval is of no sequence, or goes beyond its sequence.
    """
    wanted = ["name", "length", "chromosome", "start", "strand"]
    placed = sequences.reindex(columns=wanted).add_prefix("of_")
    table = intervals.merge(placed, left_on="sequence", right_on="of_name", how="left", validate="many_to_one")
    _check_inside(table)
    origin = pd.to_numeric(table["of_start"], errors="coerce")
    known = table["of_chromosome"].notna() & origin.notna()
    reverse = known & (table["of_strand"] == "-")
    start = np.where(reverse, table["of_length"] - table["end"], table["start"]) + origin.where(known, 0)
    end = start + table["end"] - table["start"]
    flipped = table["strand"].map({"+": "-", "-": "+"}).fillna(table["strand"])
    result = pd.DataFrame(
        {
            "chrom": table["of_chromosome"].where(known, table["sequence"]).astype(str),
            "start": start.clip(lower=0).astype(np.int64),
            "end": end.astype(np.int64),
            "name": table["name"],
            "score": table["score"],
            "strand": table["strand"].where(~reverse, flipped),
        }
    )
    others = [str(column) for column in intervals if column not in (*COLUMNS, "sequence")]
    result[others] = table[others]
    on_contig = result[result["end"] > 0]
    return on_contig.sort_values(["chrom", "start", "end", "name"], kind="stable", ignore_index=True)


def write_bed(path: str | Path, intervals: pd.DataFrame) -> None:
    """Write BED: `COLUMNS`, then the others, without a header; one comment line where there is no interval."""
    others = [str(column) for column in intervals if column not in COLUMNS]
    rows = intervals[[*COLUMNS, *others]]
    text = rows.to_csv(sep="\t", header=False, index=False, float_format="%.4g", lineterminator="\n")
    write_text(path, text if len(rows) else "# no interval\n")


def _check_inside(table: pd.DataFrame) -> None:
    """Raise for the first interval that lies in no known sequence."""
    lost = table["of_name"].isna()
    if lost.any():
        raise DataError(f"there is an interval in '{table.loc[lost, 'sequence'].iloc[0]}', which is no sequence")
    outside = (table["start"] < 0) | (table["end"] > table["of_length"]) | (table["start"] >= table["end"])
    if outside.any():
        row = table[outside].iloc[0]
        raise DataError(
            f"interval {row['start']}-{row['end']} is not inside sequence '{row['sequence']}' of {row['of_length']} bp"
        )
