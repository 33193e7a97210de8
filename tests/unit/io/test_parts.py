"""Tables made in parts: work that was finished before a stop is kept, and no other."""

import pandas as pd
import pytest

from bioattn.io.parts import finish_parts, make_in_parts
from bioattn.io.tables import write_parquet


def test_a_stopped_table_goes_on_where_it_was(tmp_path):
    """Seven items by two: stopped in the third part, the next call makes that and the last one."""
    out, made, shown = tmp_path / "t.parquet", [], []

    def make(items):
        if 5 in items and "broken" not in made:
            made.append("broken")
            raise RuntimeError("power cut")
        made.append(list(items))
        return pd.DataFrame({"x": items})

    record = {"digest": "a"}
    with pytest.raises(RuntimeError):
        make_in_parts(out, list(range(1, 8)), make, record, size=2)
    assert made == [[1, 2], [3, 4], "broken"]
    table = make_in_parts(out, list(range(1, 8)), make, record, size=2, progress=lambda *n: shown.append(n))
    assert made[3:] == [[5, 6], [7]] and table["x"].tolist() == list(range(1, 8))
    assert shown == [(2, 7), (4, 7), (6, 7), (7, 7)]
    write_parquet(out, table, record)
    finish_parts(out)
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]


@pytest.mark.parametrize("change", ["record", "size", "cut short"])
def test_parts_of_something_else_are_made_again(tmp_path, change: str):
    """Other settings, another size of parts, or a file that is not whole."""
    out, made = tmp_path / "t.parquet", []

    def make(items):
        made.append(list(items))
        return pd.DataFrame({"x": items})

    make_in_parts(out, [1, 2, 3], make, {"digest": "a"}, size=2)
    if change == "cut short":
        path = tmp_path / "t.parquet.parts" / "00000.parquet"
        path.write_bytes(path.read_bytes()[:50])
    made.clear()
    record, size = {"digest": "b" if change == "record" else "a"}, 1 if change == "size" else 2
    table = make_in_parts(out, [1, 2, 3], make, record, size=size)
    expected = {"record": [[1, 2], [3]], "size": [[1], [2], [3]], "cut short": [[1, 2]]}
    assert made == expected[change] and table["x"].tolist() == [1, 2, 3]


def test_no_items_give_an_empty_table(tmp_path):
    """The columns are those that the maker gives to nothing."""
    table = make_in_parts(tmp_path / "t", [], lambda items: pd.DataFrame({"x": items}), {}, size=5)
    assert list(table) == ["x"] and table.empty
