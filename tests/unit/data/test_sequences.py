"""Record checks, target checks and the table they make."""

from typing import Any

import numpy as np
import pytest

from bioattn.config import RunConfig, parse_run
from bioattn.data.sequences import Ingested, LabelRow, Record, build_table, clean_sequence, finish, parse_target
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
    return build_table(rows, labels or {}, rules=settings.data, task=settings.task)


def test_columns_and_types_are_the_contract() -> None:
    """The table has the agreed columns in order, float targets, upper-case sequences and no split given."""
    table = build([changed(r, sequence=r.sequence.lower()) for r in records()]).table
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


def test_ambiguity_codes_become_n() -> None:
    """IUPAC ambiguity codes are kept as N, at their place."""
    assert clean_sequence("acgtRYSWKMBDHVNacgtacgta") == "ACGTNNNNNNNNNNNACGTACGTA"


@pytest.mark.parametrize(
    ("sequence", "expected"),
    [
        ("ACGUACGU", r"'U' at position 4: it looks like RNA.*write T"),
        ("MKLVINLPQE", r"'L' at position 3: it looks like a protein sequence; allowed are A, C, G, T"),
        ("MKKVDSRWHYSKM", "is it a protein sequence"),
        ("ACG-TACGT", r"'-' at position 4: it looks like an aligned"),
        ("ACGT7ACGT", r"'7' at position 5; allowed are A, C, G, T, N"),
        ("ACGTÄCGT", r"'Ä' at position 5"),
        ("NNNNNNNN", "only unknown bases"),
        ("", "no sequence after the header"),
        ("A", r"length 1, allowed is at least 4 \(data.min_length\)"),
        ("ACGTACGTACGTACGT", r"length 16, allowed is at most 13 \(data.max_length\)"),
    ],
)
def test_bad_sequences_say_what_is_wrong(sequence: str, expected: str) -> None:
    """Each kind of unusable sequence gets its own message with what is allowed."""
    with pytest.raises(DataError, match=expected):
        clean_sequence(sequence, min_length=4, max_length=13)


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


def test_target_from_two_sources() -> None:
    """A target that comes from the header and from samples.tsv is refused rather than chosen silently."""
    with pytest.raises(DataError, match=r"'label' in its file or samples\.tsv and in data\.header_pattern"):
        build(records(), data={"header_pattern": r"r(?P<label>\d)"})


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [("split", "training", "train, validation, test"), ("strand", "up", "forward"), ("start", "-5", "whole number")],
)
def test_illegal_cells(field: str, value: str, expected: str) -> None:
    """Split, strand and start take their allowed values only."""
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
