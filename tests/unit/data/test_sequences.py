"""Record checks, target checks and the table they make."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from bioattn.config import RunConfig, parse_run
from bioattn.data.alphabet import reverse_complement
from bioattn.data.sequences import BadRecord, Ingested, LabelRow, LeftOut, Record, build_table, finish, parse_target
from bioattn.errors import ConfigError, DataError

BASES = np.array(list("ACGT"))


def run(**sections: Any) -> RunConfig:
    return parse_run(sections)


def dna(number: int, length: int = 29) -> str:
    return "".join(np.random.default_rng(number).choice(BASES, length))


def records(n: int = 13, **changes: Any) -> list[Record]:
    """n good binary records, classes alternating."""
    return [
        Record("s", "x.fa", 2 * i + 1, i + 1, dna(i), f"r{i} note", fields={"label": str(i % 2)}, **changes)
        for i in range(n)
    ]


def changed(record: Record, **changes: Any) -> Record:
    return Record(**{**record.__dict__, **changes})


def build(rows: list[Record], labels: dict[str, dict[str, LabelRow]] | None = None, **sections: Any) -> Ingested:
    settings = run(**sections)
    return build_table(rows, labels or {}, rules=settings.data, task=settings.task, seed=settings.seed)


def test_columns_and_types_are_the_contract() -> None:
    """The table has the agreed columns in order, float targets and no split given."""
    table = build(records()).table
    assert list(table.columns) == ["name", "sequence", "sample", "length", "split_given", "group", "label"]
    assert table["name"].tolist() == [f"r{i}" for i in range(13)]
    assert table["sequence"].tolist() == [dna(i) for i in range(13)]
    assert table["label"].dtype == np.float64
    assert table["length"].eq(29).all()
    assert table["split_given"].isna().all() and table["group"].isna().all()


def test_a_record_may_be_called_na() -> None:
    """Words for missing values are missing in cells, not in names."""
    rows = records()
    rows[0] = changed(rows[0], header="NA")
    assert build(rows).table["name"][0] == "NA"


def test_bad_record_stops_and_names_file_line_and_record() -> None:
    """By default the first bad record raises with its file, line and name."""
    rows = records()
    rows[4] = changed(rows[4], sequence="ACGTXACGTACGT")
    with pytest.raises(DataError, match=r"x\.fa line 9: record 'r4': found 'X' at position 5.*on_bad_record: skip"):
        build(rows)


def test_skip_lists_bad_records_and_keeps_the_others() -> None:
    """With skip the bad record is listed with line and reason, and only it is missing."""
    rows = records(23)
    rows[4] = changed(rows[4], sequence="ACGTXACGTACGT")
    done = build(rows, data={"on_bad_record": "skip"})
    assert done.table["name"].tolist() == [f"r{i}" for i in range(23) if i != 4]
    assert done.rejected[["file", "line", "name"]].to_numpy().tolist() == [["x.fa", 9, "r4"]]
    assert "found 'X'" in done.rejected["reason"][0]
    assert done.summary["n_rejected"] == 1


def test_skip_stops_when_too_many_are_bad() -> None:
    """More bad records than max_bad_fraction raise, naming the first."""
    rows = [changed(r, sequence="X" * 20) if i in (3, 5) else r for i, r in enumerate(records(23))]
    with pytest.raises(DataError, match=r"2 bad of 23 records.*max_bad_fraction.*x\.fa line 7, 'r3'"):
        build(rows, data={"on_bad_record": "skip"})
    assert len(build(rows, data={"on_bad_record": "skip", "max_bad_fraction": 0.1}).table) == 21


def test_repeated_name_suggests_other_naming() -> None:
    """Two records of one name raise with both places and the setting that helps."""
    rows = records()
    rows[5] = changed(rows[5], header="r1 other")
    with pytest.raises(DataError, match=r"x\.fa line 11: record 'r1'.*first x\.fa line 3.*number or full_header"):
        build(rows)
    assert build(rows, data={"name_from": "full_header"}).table["name"][5] == "r1 other"
    assert build(rows, data={"name_from": "number"}).table["name"][5] == "s_000006"


def test_bad_record_does_not_take_its_name() -> None:
    """A good record may follow a bad one of the same name."""
    rows = records(23)
    rows[4] = changed(rows[4], sequence="XX", header="r5 note")
    assert "r5" in build(rows, data={"on_bad_record": "skip"}).table["name"].tolist()


def test_too_few_sequences() -> None:
    """Fewer than ten usable sequences raise."""
    with pytest.raises(DataError, match=r"x\.fa: found 9 usable sequences, at least 10"):
        build(records(9))
    assert len(build(records(10)).table) == 10


@pytest.mark.parametrize(
    ("kind", "text", "allowed"),
    [
        ("binary", "2", "0 and 1"),
        ("binary", "yes", "0 and 1"),
        ("binary", "NA", "needs one"),
        ("multilabel", "0.5", "0 and 1, or NA"),
        ("count", "1.5", "whole numbers"),
        ("count", "-1", "whole numbers"),
        ("regression", "high", "finite numbers"),
        ("regression", "inf", "finite numbers"),
        ("multiclass", "C", r"A, B \(task.classes\)"),
    ],
)
def test_illegal_targets(kind: str, text: str, allowed: str) -> None:
    """A target that its kind does not allow makes the record bad, with what was found and what is allowed."""
    task: dict[str, Any] = {"kind": kind, **({"classes": ["A", "B"]} if kind == "multiclass" else {})}
    rows = records()
    rows[2] = changed(rows[2], fields={"label": text})
    if kind == "multiclass":
        rows = [changed(r, fields={"label": "AB"[i % 2]}) if i != 2 else r for i, r in enumerate(rows)]
    with pytest.raises(DataError, match=f"x.fa line 5: record 'r2'.*{allowed}"):
        build(rows, task=task)


def test_targets_become_numbers() -> None:
    """Classes become their index, missing regression values NaN."""
    multiclass = run(task={"kind": "multiclass", "classes": ["A", "B", "C"]}).task
    assert parse_target("C", "label", multiclass) == 2.0
    assert np.isnan(parse_target("NA", "label", run(task={"kind": "regression"}).task))
    assert parse_target("7", "label", run(task={"kind": "count"}).task) == 7.0


def test_missing_values_of_some_targets_are_kept_and_of_all_are_bad() -> None:
    """A multilabel record needs one known target; the others may be missing."""
    rows = [changed(r, fields={"a": str(i % 2), "b": "NA"}) for i, r in enumerate(records())]
    task = {"kind": "multilabel", "targets": ["a", "b"]}
    assert build(rows, task=task).table["b"].isna().all()
    rows[3] = changed(rows[3], fields={"a": "", "b": "NA"})
    with pytest.raises(DataError, match="record 'r3': found no value of any target"):
        build(rows, task=task)


def test_labels_join_by_name() -> None:
    """Targets and further columns come from the label table by record name, whatever its order."""
    rows = [changed(r, fields={}, labels="l.tsv") for r in records()]
    table = {
        f"r{i}": LabelRow(i + 2, {"label": str(i % 2), "split": "train", "group": f"g{i % 3}", "tissue": "leaf"})
        for i in reversed(range(13))
    }
    done = build(rows, {"l.tsv": table}).table
    assert done["label"].tolist() == [i % 2 for i in range(13)]
    assert done["group"].tolist() == [f"g{i % 3}" for i in range(13)]
    assert done["split_given"].eq("train").all() and done["tissue"].eq("leaf").all()


def test_labels_of_unknown_records_and_records_without_labels() -> None:
    """A label for no record and a record with no label raise, each naming its own file and line."""
    rows = [changed(r, fields={}, labels="l.tsv") for r in records()]
    table = {f"r{i}": LabelRow(i + 2, {"label": str(i % 2)}) for i in range(13)}
    with pytest.raises(DataError, match=r"l\.tsv line 40: record 'r99': found labels for a record that no"):
        build(rows, {"l.tsv": {**table, "r99": LabelRow(40, {"label": "1"})}})
    del table["r6"]
    with pytest.raises(DataError, match=r"x\.fa line 13: record 'r6': found no row for it in the labels l\.tsv"):
        build(rows, {"l.tsv": table})


def test_no_target_anywhere() -> None:
    """A record without any source of its target says where one can come from."""
    with pytest.raises(DataError, match=r"line 1: record 'r0': found no value of the target 'label'.*\(\?P<label>"):
        build([changed(r, fields={}) for r in records()])


def test_header_pattern_makes_columns() -> None:
    """Named groups become columns: targets, group, coordinates, strand as a sign, and the name."""
    rows = [
        changed(r, header=f"chr2:{100 * i}:{'forward' if i % 2 else 'reverse'}|{i % 2}|id{i}", fields={})
        for i, r in enumerate(records())
    ]
    pattern = r"^(?P<chromosome>\w+):(?P<start>\d+):(?P<strand>\w+)\|(?P<label>\d)\|(?P<name>\w+)"
    table = build(rows, data={"header_pattern": pattern}).table
    assert table["name"].tolist() == [f"id{i}" for i in range(13)]
    assert table["start"].tolist() == [100 * i for i in range(13)]
    assert table["strand"].tolist() == ["+" if i % 2 else "-" for i in range(13)]
    assert table["chromosome"].eq("chr2").all()
    assert table["label"].tolist() == [i % 2 for i in range(13)]


def test_header_pattern_that_never_matches_names_the_first_header() -> None:
    """A pattern without any match raises with the first header, even where bad records are skipped."""
    with pytest.raises(DataError, match=r"x\.fa line 1: data\.header_pattern 'z\(\?P<start>.*first is 'r0 note'"):
        build(records(), data={"header_pattern": r"z(?P<start>\d+)", "on_bad_record": "skip"})


def test_header_that_does_not_match_is_a_bad_record() -> None:
    """Where the pattern matches some headers, one that it misses is a bad record."""
    rows = records()
    rows[3] = changed(rows[3], header="other")
    with pytest.raises(DataError, match="line 7: record 'other': data.header_pattern does not match its header"):
        build(rows, data={"header_pattern": r"r(?P<number>\d+)"})


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [("(", "not a regular expression"), (r"r\d+", "without named groups"), (r"(?P<sequence>\w+)", "group 'sequence'")],
)
def test_unusable_header_patterns(pattern: str, expected: str) -> None:
    """A pattern that cannot work is a configuration error."""
    with pytest.raises(ConfigError, match=expected):
        build(records(), data={"header_pattern": pattern})


def test_pattern_problems_without_skipping() -> None:
    """Where bad records stop the run, a pattern that matches nothing is still told from a header that it misses."""
    with pytest.raises(DataError, match="matches no header, the first is 'r0 note'"):
        build(records(), data={"header_pattern": r"z(?P<number>\d+)"})
    with pytest.raises(DataError, match="line 1: record 'r0': data.header_pattern does not match its header"):
        build(records(), data={"header_pattern": r"r(?P<number>[4-9])"})


def test_target_from_two_sources() -> None:
    """A target that comes from the header and from samples.tsv is refused rather than chosen silently."""
    with pytest.raises(DataError, match=r"'label' in its file or samples\.tsv and in data\.header_pattern"):
        build(records(), data={"header_pattern": r"r(?P<label>\d)"})


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("split", "training", "train, validation, test"),
        ("strand", "up", "forward"),
        ("start", "-5", "whole number of at least 0"),
        ("start", "1e3", "whole number of at least 0"),
        ("end", "0", "whole number above the start"),
        ("end", "last", "whole number of at least 0"),
    ],
)
def test_illegal_cells(field: str, value: str, expected: str) -> None:
    """Split, strand, start and end take their allowed values only."""
    rows = records()
    rows[1] = changed(rows[1], fields={"label": "1", field: value})
    with pytest.raises(DataError, match=f"line 3: record 'r1': found {field} '{value}'.*{expected}"):
        build(rows)


def test_duplicate_sequences_keep_or_drop() -> None:
    """Identical sequences stay by default; with drop the first stays and the others are listed, not counted as bad."""
    rows = records(12)
    rows[7] = changed(rows[7], sequence=rows[2].sequence.lower())
    assert len(build(rows).table) == 12
    done = build(rows, data={"duplicate_sequences": "drop"})
    assert done.table["name"].tolist() == [f"r{i}" for i in range(12) if i != 7]
    assert done.rejected[["line", "name", "reason"]].to_numpy().tolist() == [
        [15, "r7", "same sequence as 'r2', dropped"]
    ]
    assert (done.summary["n_rejected"], done.summary["n_duplicates_dropped"]) == (0, 1)


@pytest.mark.parametrize(
    ("task", "value", "expected"),
    [
        ({}, "1", "one class only .1 for all 13 sequences.*dinucleotide_shuffle"),
        ({"kind": "regression"}, "3.5", "3.5 for all 13 sequences, values that differ"),
        ({"kind": "multiclass", "classes": ["A", "B"]}, "A", "no sequence of class B"),
    ],
)
def test_targets_that_do_not_vary(task: dict[str, Any], value: str, expected: str) -> None:
    """One class or one value only raises: nothing could be learned."""
    built = build([changed(r, fields={"label": value}) for r in records()], task=task)
    with pytest.raises(DataError, match=expected):
        finish(built, task=run(task=task).task, negatives=run().data.negatives, seed=1)


def test_summary_counts() -> None:
    """The summary counts letters, classes and conflicting copies as a slow count would."""
    rows = records(12)
    rows[7] = changed(rows[7], sequence=rows[2].sequence)  # label 1 and label 0
    rows[3] = changed(rows[3], sequence="N" + rows[3].sequence[1:])
    summary = finish(build(rows), task=run().task, negatives=run().data.negatives, seed=1).summary
    letters = "".join(r.sequence for r in rows)
    assert summary["gc_mean"] == pytest.approx(sum(letters.count(b) for b in "GC") / (len(letters) - 1))
    assert summary["n_sequences"] == 12
    assert summary["n_with_unknown_bases"] == 1
    assert summary["n_duplicate_sequences"] == 1
    assert summary["n_sequences_with_conflicting_targets"] == 1
    assert summary["targets"]["label"]["classes"] == {"0": 6, "1": 6}


GENOME = dna(99, 400)


def placed(start: int, end: int, strand: str, number: int) -> Record:
    """Record of an interval of GENOME that says where it lies."""
    letters = GENOME[start:end]
    fields = {"chromosome": "c", "start": str(start), "end": str(end), "strand": strand, "label": str(number % 2)}
    return Record(
        "s", "x.bed", number, number, letters if strand != "-" else reverse_complement(letters), name=f"p{number}",
        fields=fields,
    )  # fmt: skip


@pytest.mark.parametrize("anchor", ["start", "center", "end"])
@pytest.mark.parametrize("bp", [20, 33])
def test_coordinates_move_with_the_letters(anchor: str, bp: int) -> None:
    """After cutting and padding, the letters lie where the coordinates say, on both strands."""
    spans = [(3 * i, 3 * i + 24 + i % 7, "+-."[i % 3]) for i in range(30)]
    rows = [placed(*span, number=i + 1) for i, span in enumerate(spans)]
    table = build(rows, data={"length": {"bp": bp, "shorter": "pad", "anchor": anchor}}).table
    assert len(table) == 30 and str(table["start"].dtype) == str(table["end"].dtype) == "Int64"
    for row in table.itertuples():
        assert row.end - row.start == row.length == bp
        letters = "".join(GENOME[i] if 0 <= i < len(GENOME) else "N" for i in range(row.start, row.end))
        letters = letters if row.strand != "-" else reverse_complement(letters)
        known = [i for i, letter in enumerate(row.sequence) if letter != "N"]
        assert known and all(row.sequence[i] == letters[i] for i in known)


def test_start_before_the_contig_needs_an_end_on_it() -> None:
    """A negative start is right for a region that was filled up with N, and wrong otherwise."""
    rows = records()
    rows[1] = changed(rows[1], fields={"label": "1", "start": "-4", "end": "25"})
    assert build(rows).table["start"][1] == -4
    rows[1] = changed(rows[1], fields={"label": "1", "start": "-40", "end": "-11"})
    with pytest.raises(DataError, match="record 'r1': found start '-40'"):
        build(rows)


def test_soft_masked_column_only_where_letters_were_lower_case() -> None:
    """The column says which letters were lower case, is empty text for other rows, and absent without any."""
    rows = records()
    assert "soft_masked" not in build(rows).table
    rows[3] = changed(rows[3], sequence=rows[3].sequence[:5] + rows[3].sequence[5:9].lower() + rows[3].sequence[9:])
    table = build(rows).table
    assert table["soft_masked"].tolist() == ["5-9" if i == 3 else "" for i in range(13)]
    assert table["sequence"].tolist() == [dna(i) for i in range(13)]


def test_lower_case_throughout_marks_nothing() -> None:
    """A sample without any upper case is not soft-masked, unless its letters come from a genome."""
    lower = [changed(r, sequence=r.sequence.lower(), sample="low") for r in records()]
    assert "soft_masked" not in build(lower).table
    assert build(lower, data={"length": {"bp": 40, "shorter": "pad"}}).table["length"].eq(40).all()
    upper = [changed(r, sample="up", header=f"u{r.header}") for r in records()]
    assert "soft_masked" not in build(lower + upper).table
    upper[5] = changed(upper[5], sequence="acgta" + upper[5].sequence[5:])
    both = build(lower + upper).table
    assert both["soft_masked"].tolist() == [""] * 18 + ["0-5"] + [""] * 7
    place = {"chromosome": "c", "start": "3", "end": "32"}
    placed = [changed(r, fields={**r.fields, **place}) for r in lower]
    assert build(placed).table["soft_masked"].eq("0-29").all()


def test_sampled_letters_depend_on_seed_and_name_alone() -> None:
    """Other records, their order and the file do not change what is drawn for a record; seed and name do."""
    rows = [changed(r, sequence=r.sequence + "RYSWKMBDHV") for r in records(20)]

    def drawn(rows: list[Record], seed: int = 1) -> dict[str, str]:
        table = build(rows, data={"ambiguous": "sample"}, seed=seed).table
        return dict(zip(table["name"], table["sequence"], strict=True))

    whole = drawn(rows)
    part = drawn([changed(r, file="other.fa", line=7) for r in reversed(rows[5:])])
    assert part == {name: whole[name] for name in part}
    assert not set("".join(whole.values())) - set("ACGT")
    assert len({sequence[-10:] for sequence in whole.values()}) > 15
    assert drawn(rows, seed=2) != whole


def test_records_are_judged_as_they_come() -> None:
    """Reading stops at the first bad record: what follows is never asked for."""

    def stream() -> Iterator[Record]:
        yield from records(3)
        yield changed(records(1)[0], sequence="ACGTX", header="bad")
        raise AssertionError("read on after a bad record")

    with pytest.raises(DataError, match="record 'bad'"):
        build_table(stream(), {}, rules=run().data, task=run().task, seed=1)


def test_bad_lines_of_a_reader_are_bad_records() -> None:
    """What a reader cannot make a record of stops the run, or is listed and counted as bad."""
    rows: list[Any] = [*records(23), BadRecord("a.bed", 7, "gene1", "found start 20 after end 10")]
    with pytest.raises(DataError, match=r"a\.bed line 7: record 'gene1': found start 20 after end 10 \(data.on_bad"):
        build(rows)
    done = build(rows, data={"on_bad_record": "skip"})
    assert done.rejected.to_numpy().tolist() == [["a.bed", 7, "gene1", "found start 20 after end 10"]]
    assert (done.summary["n_read"], done.summary["n_rejected"]) == (24, 1)
    with pytest.raises(DataError, match=r"1 bad of 24 records, allowed are 0\.01.*a\.bed line 7, 'gene1'"):
        build(rows, data={"on_bad_record": "skip", "max_bad_fraction": 0.01})


def test_what_a_setting_leaves_out_is_listed_but_not_bad() -> None:
    """Merged regions are listed with their reason, neither stop the run nor count as bad."""
    rows: list[Any] = [*records(), LeftOut("a.bed", 9, "t2", "same place as 't1'")]
    done = build(rows)
    assert done.rejected.to_numpy().tolist() == [["a.bed", 9, "t2", "same place as 't1'"]]
    assert {key: done.summary[key] for key in ("n_read", "n_rejected", "n_merged")} == {
        "n_read": 14, "n_rejected": 0, "n_merged": 1,
    }  # fmt: skip


def test_labels_of_what_was_left_out_are_no_problem() -> None:
    """A label is unknown only if no record of its name was read at all, usable or not."""
    rows: list[Any] = [changed(r, fields={}, labels="l.tsv") for r in records()]
    rows += [LeftOut("a.bed", 9, "t2", "same place"), BadRecord("a.bed", 10, "t3", "empty")]
    table = {
        name: LabelRow(2, {"label": str(i % 2)}) for i, name in enumerate([*(f"r{i}" for i in range(13)), "t2", "t3"])
    }
    done = build(rows, {"l.tsv": table}, data={"on_bad_record": "skip", "max_bad_fraction": 0.1})
    assert done.rejected["name"].tolist() == ["t2", "t3"]


def test_names_of_records_with_name_and_header() -> None:
    """A region has a name and a header: name_from chooses between name, header and number."""
    rows = [changed(r, name=f"gene {i}", header=f"gene {i} c:{i}-{i + 29}(+)") for i, r in enumerate(records())]
    expected = {"first_word": "gene 2", "full_header": "gene 2 c:2-31(+)", "number": "s_000003"}
    for name_from, name in expected.items():
        assert build(rows, data={"name_from": name_from}).table["name"][2] == name
