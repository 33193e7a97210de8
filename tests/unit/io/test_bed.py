"""Intervals as BED: on the genome, on either strand, and where there is no genome."""

import numpy as np
import pandas as pd
import pytest

from bioattn.data import alphabet
from bioattn.errors import DataError
from bioattn.io.bed import COLUMNS, SEQLET_COLUMNS, genome_intervals, seqlet_bed, write_bed

GENOME = {"chr1": "ACGTTGCAAATTTGGCCCATGACCGTTAACG", "chr10": "TTGACCTAGGATCCAATCGGA"}
#: name, chromosome, start, end, strand
REGIONS = [("a", "chr1", 3, 16, "+"), ("b", "chr1", 7, 24, "-"), ("c", "chr10", 2, 13, "-"), ("d", "chr10", 5, 16, ".")]


def regions() -> pd.DataFrame:
    """Sequences cut out of the genome, on their own strand."""
    table = pd.DataFrame(REGIONS, columns=["name", "chromosome", "start", "end", "strand"])
    letters = [GENOME[row.chromosome][row.start : row.end] for row in table.itertuples()]
    pairs = zip(letters, table["strand"], strict=True)
    table["sequence"] = [alphabet.other_strand(text) if strand == "-" else text for text, strand in pairs]
    return table.assign(length=table["sequence"].str.len())


def seqlets(*rows: tuple[str, int, int, str]) -> pd.DataFrame:
    table = pd.DataFrame(rows, columns=["name", "start", "end", "strand"])
    return table.assign(score=np.arange(1.0, len(table) + 1), layer=0, head=1, motif=2)


def test_letters_on_the_genome_are_those_of_the_seqlet():
    """Where the BED says that a seqlet is, the genome holds its letters: all intervals of all sequences."""
    table = regions()
    rows = [
        (row.name_, start, start + width, strand)
        for row in table.rename(columns={"name": "name_"}).itertuples()
        for width in (1, 3, 5)
        for start in range(row.length - width + 1)
        for strand in "+-"
    ]
    bed = seqlet_bed(seqlets(*rows), table)
    assert len(bed) == len(rows) > 200
    for place in bed.itertuples():
        name, start, end, strand = rows[int(place.value) - 1]  # scores are the numbers of the rows
        text = table.set_index("name").loc[name, "sequence"][start:end]
        wanted = alphabet.other_strand(text) if strand == "-" else text
        found = GENOME[place.chrom][place.start : place.end]
        assert (alphabet.other_strand(found) if place.strand == "-" else found) == wanted


def test_rows_are_sorted_and_say_where_they_come_from():
    """Columns of BED6, then layer, head, motif and value; sorted by contig and start; scores are whole, up to 1000."""
    made = seqlets(("c", 0, 4, "+"), ("a", 6, 9, "-"), ("a", 0, 3, "+"))
    made.loc[0, "score"] = -2.0
    bed = seqlet_bed(made, regions())
    assert tuple(bed.columns) == COLUMNS + SEQLET_COLUMNS
    assert bed["chrom"].tolist() == ["chr1", "chr1", "chr10"] and bed["start"].tolist() == [3, 9, 9]
    assert bed["score"].tolist() == [1000, 667, 0] and bed["value"].tolist() == [3.0, 2.0, -2.0]
    assert set(bed["name"]) == {"layer0_head1_motif2"}
    other = pd.concat([made, made.assign(head=0, score=10.0)])
    assert sorted(seqlet_bed(other, regions()).query("head == 0")["score"]) == [1000, 1000, 1000]


def test_sequences_without_a_place_are_their_own_contig():
    """Without columns of a genome, or where they are empty, coordinates are those in the sequence."""
    plain = pd.DataFrame({"name": ["a", "b"], "length": [13, 17]})
    bed = seqlet_bed(seqlets(("b", 2, 5, "-"), ("a", 1, 4, "+")), plain)
    assert bed[["chrom", "start", "end", "strand"]].to_numpy().tolist() == [["a", 1, 4, "+"], ["b", 2, 5, "-"]]
    mixed = regions()
    mixed.loc[0, ["chromosome", "start"]] = [None, np.nan]
    mixed = mixed.astype({"start": object})
    bed = seqlet_bed(seqlets(("a", 1, 4, "+"), ("b", 0, 3, "+")), mixed)
    assert bed["chrom"].tolist() == ["a", "chr1"] and bed["start"].tolist() == [1, 21]
    text = regions().assign(start=lambda t: t["start"].astype(str))
    text.loc[0, ["chromosome", "start", "strand"]] = ["", "", ""]
    assert seqlet_bed(seqlets(("a", 1, 4, "+")), text)["chrom"].tolist() == ["a"]


@pytest.mark.parametrize("strand", ["+", "-"])
def test_what_lies_before_the_contig_is_cut_off(strand: str):
    """Of a region that was padded before its contig, an interval across the border is cut, one beyond left out."""
    table = pd.DataFrame({"name": ["p"], "length": [20], "chromosome": ["chr1"], "start": [-6], "strand": [strand]})
    whole = [(2, 6), (4, 9), (6, 9)]
    rows = [("p", start, end, "+") if strand == "+" else ("p", 20 - end, 20 - start, "+") for start, end in whole]
    bed = seqlet_bed(seqlets(*rows), table)
    assert bed[["start", "end"]].to_numpy().tolist() == [[0, 3], [0, 3]]


def test_intervals_outside_their_sequence_are_refused():
    """An interval beyond either end, an empty one, and one of an unknown sequence are named."""
    for row in (("a", -1, 3, "+"), ("a", 10, 14, "+"), ("a", 5, 5, "+")):
        with pytest.raises(DataError, match=f"{row[1]}-{row[2]} is not inside sequence 'a' of 13 bp"):
            seqlet_bed(seqlets(row), regions())
    with pytest.raises(DataError, match="'x', which is no sequence"):
        seqlet_bed(seqlets(("x", 0, 3, "+")), regions())


def test_files_are_whole_and_never_empty(tmp_path):
    """Tab-separated without a header, read as they were; without intervals, a comment; nothing beside them is left."""
    bed = seqlet_bed(seqlets(("c", 0, 4, "+"), ("a", 6, 9, "-")), regions())
    write_bed(tmp_path / "seqlets.bed", bed)
    again = pd.read_csv(tmp_path / "seqlets.bed", sep="\t", header=None, names=list(bed.columns))
    pd.testing.assert_frame_equal(again, bed, check_dtype=False)
    write_bed(tmp_path / "none.bed", seqlet_bed(seqlets(), regions()))
    assert (tmp_path / "none.bed").read_text() == "# no interval\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["none.bed", "seqlets.bed"]


def test_intervals_of_anything_keep_their_columns():
    """Other columns travel with their interval through sorting."""
    rows = pd.DataFrame(
        {"sequence": ["b", "a"], "start": [0, 0], "end": [2, 2], "name": ["x", "y"], "score": 0, "strand": "+"}
    )
    placed = genome_intervals(rows.assign(kind=["of b", "of a"]), regions())
    assert placed["kind"].tolist() == ["of a", "of b"] and placed["start"].tolist() == [3, 22]
