"""Tables of measured sequences: what is read, and what is refused with file and line."""

import numpy as np
import pandas as pd
import pytest

from bioattn.errors import DataError
from bioattn.io.measured import read_measured

COLUMNS = {"sequence_column": "seq", "value_column": "log_rna"}


def test_text_and_parquet_give_the_same(tmp_path):
    """Lower case counts as upper case, IUPAC codes as unknown; backgrounds if their column is named."""
    table = pd.DataFrame({"seq": ["ACGTACGTACGT", "acgtacgtacgr"], "log_rna": [1.5, -2.0], "bg": ["x", "y"]})
    table.to_csv(tmp_path / "a.tsv", sep="\t", index=False)
    table.to_csv(tmp_path / "a.csv.gz", index=False)
    table.to_parquet(tmp_path / "a.parquet")
    for name in ("a.tsv", "a.csv.gz", "a.parquet"):
        found = read_measured(tmp_path / name, **COLUMNS, background_column="bg")
        assert found.sequences == ["ACGTACGTACGT", "ACGTACGTACGN"] and found.backgrounds == ["x", "y"]
        np.testing.assert_array_equal(found.values, [1.5, -2.0])
        assert read_measured(tmp_path / name, **COLUMNS).backgrounds is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seq\tvalue\nACGTACGTACGT\t1\n", "no column 'log_rna'"),
        ("seq\tlog_rna\nACGTACGTACGT\t1\nACGTACGTACXT\t2\n", "line 3: .*X"),
        ("seq\tlog_rna\nACGTACGTACGT\thigh\n", "line 2: 'high' is not a number"),
        ("seq\tlog_rna\nACGTACGTACGT\tinf\n", "line 2: 'inf' is not a finite number"),
        ("seq\tlog_rna\nACGTACGTACGT\tnan\n", "line 2: 'nan' is not a finite number"),
        ("seq\tlog_rna\n", "found no rows"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, text: str, message: str):
    """File, line, what was found."""
    path = tmp_path / "library.tsv"
    path.write_text(text)
    with pytest.raises(DataError, match=message) as error:
        read_measured(path, **COLUMNS)
    assert "library.tsv" in str(error.value)
