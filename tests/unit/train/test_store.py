"""Sequences in one block of bytes: encoding at once against base by base, views, files, and parquet piece by piece."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bioattn.data import alphabet
from bioattn.data.alphabet import PAD
from bioattn.errors import DataError
from bioattn.train import store
from bioattn.train.store import Codes, Examples, codes_of_matrix, codes_of_texts, columns_of, read_sequences

ROOT = Path(__file__).parents[3]
TEXTS = ["ACGTN", "", "acgtR", "T", "GGé漢A", "ACGTACGTACG"]


def one_by_one(texts: list[str]) -> np.ndarray:
    """Codes of texts, each letter looked up by itself."""
    code = {letter: i for i, letter in enumerate("ACGT")} | {letter: i for i, letter in enumerate("acgt")}
    longest = max(map(len, texts), default=0)
    rows = [[code.get(letter, 4) for letter in text] + [PAD] * (longest - len(text)) for text in texts]
    return np.array(rows, dtype=np.uint8).reshape(len(texts), longest)


FORMS = {
    "list": list,
    "objects": lambda texts: pd.Series(texts, dtype=object),
    "series": pd.Series,
    "categories": lambda texts: pd.Series(texts, dtype="category"),
    "array": lambda texts: np.array(texts, dtype=object),
    "string": lambda texts: pa.array(texts, pa.string()),
    "large_string": lambda texts: pa.array(texts, pa.large_string()),
    "dictionary": lambda texts: pa.array(texts, pa.string()).dictionary_encode(),
    "slice": lambda texts: pa.array(["GG", *texts, "TTT"], pa.string())[1:-1],
    "chunks": lambda texts: pa.chunked_array([texts[:2], texts[2:]], pa.string()),
}


@pytest.mark.parametrize("form", list(FORMS))
@pytest.mark.parametrize("texts", [TEXTS, ["ACGT", "GGTA"], ["", ""], []], ids=["mixed", "equal", "empty", "none"])
def test_batches_are_encoded_as_letter_by_letter(form: str, texts: list[str]):
    """All at once gives the codes of a loop over letters: any container, unequal lengths, letters beyond ASCII."""
    found = alphabet.encode_batch(FORMS[form](texts))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, one_by_one(texts))


@given(st.lists(st.text(alphabet=st.characters(), max_size=9), max_size=20), st.integers(1, 400))
def test_chunks_change_no_code(texts: list[str], chunk: int):
    """Whatever the text and however many bases are encoded at a time, codes are those of a loop."""
    before, alphabet._CHUNK_BASES = alphabet._CHUNK_BASES, chunk
    try:
        np.testing.assert_array_equal(alphabet.encode_batch(texts), one_by_one(texts))
    finally:
        alphabet._CHUNK_BASES = before


def test_subsets_are_views():
    """Taking sequences, in any order and repeatedly, gives those rows and copies no base."""
    codes = codes_of_texts(TEXTS)
    index = np.array([4, 0, 0, 3])
    taken = codes.take(index)
    assert np.shares_memory(taken.flat, codes.flat)
    np.testing.assert_array_equal(taken.matrix, one_by_one(TEXTS)[index])
    assert list(taken.texts()) == ["GGNNA", "ACGTN", "ACGTN", "T"]
    np.testing.assert_array_equal(codes.rows(index), one_by_one([TEXTS[i] for i in index]))
    np.testing.assert_array_equal(np.concatenate(list(codes.chunks())), codes.matrix)


def test_rows_are_copies():
    """Changing a batch changes no stored sequence."""
    codes = codes_of_matrix(one_by_one(["ACGT", "GGTA"]))
    codes.rows(np.array([0, 1]))[:] = 4
    assert list(codes.texts()) == ["ACGT", "GGTA"]


@given(st.lists(st.text(alphabet="ACGTN", min_size=1, max_size=9), min_size=1, max_size=9))
def test_matrix_and_text_make_the_same_codes(texts: list[str]):
    """Codes from a padded matrix and from text give the same rows, also of sequences that end where the block does."""
    matrix = one_by_one(texts)
    for codes in (codes_of_matrix(matrix), codes_of_texts(texts)):
        np.testing.assert_array_equal(codes.matrix, matrix)
        for i in range(len(texts)):
            np.testing.assert_array_equal(codes.rows(np.array([i])), one_by_one([texts[i]]))


def test_saved_codes_are_mapped_and_travel_without_their_bases(tmp_path: Path):
    """Codes in a file are the same, and a pickle of them holds the path in the place of the bases."""
    codes = codes_of_texts(["ACGT" * 2500, "GGT"])
    saved = codes.saved(tmp_path / "codes.bin")
    message = pickle.dumps(saved)
    assert len(message) < 2000 < len(pickle.dumps(codes))
    again: Codes = pickle.loads(message)
    np.testing.assert_array_equal(again.matrix, codes.matrix)
    np.testing.assert_array_equal(saved.matrix, codes.matrix)
    assert again.path == tmp_path / "codes.bin"


def table(n: int = 50) -> pd.DataFrame:
    """Sequences of unequal length with names and labels."""
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(list("ACGTN"), length)) for length in rng.integers(1, 40, n)]
    return pd.DataFrame({"name": [f"s{i}" for i in range(n)], "sequence": texts, "label": np.arange(n) / 2})


@pytest.mark.parametrize("chunk", [7, 1000])
@pytest.mark.parametrize("row_group", [11, 1000])
def test_parquet_is_read_piece_by_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int, row_group: int):
    """Pieces and row groups of any size give the names, labels and codes of the whole table."""
    wanted = table()
    pq.write_table(pa.Table.from_pandas(wanted), tmp_path / "s.parquet", row_group_size=row_group)
    monkeypatch.setattr(store, "_CHUNK", chunk)
    found, codes = read_sequences(tmp_path / "s.parquet", ["name", "label"])
    assert list(found["name"]) == list(wanted["name"]) and list(found["label"]) == list(wanted["label"])
    assert "sequence" not in found
    np.testing.assert_array_equal(codes.matrix, one_by_one(list(wanted["sequence"])))
    assert columns_of(tmp_path / "s.parquet")[:3] == ["name", "sequence", "label"]


def test_a_missing_sequence_is_named(tmp_path: Path):
    """A row without a sequence is an error with file and row, never an empty sequence."""
    wanted = table(5).astype({"sequence": object})
    wanted.loc[3, "sequence"] = None
    pq.write_table(pa.Table.from_pandas(wanted), tmp_path / "s.parquet")
    with pytest.raises(DataError, match="s.parquet: the sequence in row 4 is missing"):
        read_sequences(tmp_path / "s.parquet", ["name"])


@pytest.mark.parametrize("read", [columns_of, lambda path: read_sequences(path, ["name"])])
def test_files_that_cannot_be_read_are_named(tmp_path: Path, read):
    """A missing file, a foreign one and one that was cut short end in one line with the path."""
    with pytest.raises(DataError, match="absent.parquet: no such file"):
        read(tmp_path / "absent.parquet")
    (tmp_path / "s.parquet").write_text("name\tsequence\n")
    with pytest.raises(DataError, match="s.parquet: not a complete parquet file") as caught:
        read(tmp_path / "s.parquet")
    assert "\n" not in str(caught.value)


def test_fingerprint_is_that_of_the_padded_matrix(monkeypatch: pytest.MonkeyPatch):
    """However many rows are hashed at a time, the fingerprint is that of all codes, targets and groups."""
    codes = codes_of_texts(TEXTS)
    part = Examples(np.arange(6).astype(object), codes, torch.arange(6.0)[:, None], np.arange(6))
    monkeypatch.setattr(store, "_CHUNK", 2)
    as_tensor = Examples(part.names, torch.from_numpy(one_by_one(TEXTS)), part.targets, part.groups)
    assert part.fingerprint() == as_tensor.fingerprint()
    changed = part.take(np.array([0, 1, 2, 3, 5, 4]))
    assert changed.fingerprint() != part.fingerprint()


MEMORY_SCRIPT = """
import resource, sys
import numpy as np, pyarrow as pa, pyarrow.parquet as pq
from bioattn.config import TaskConfig
from bioattn.io.tables import read_parquet
from bioattn.train import fit
from bioattn.train.batches import Batches
from bioattn.train.data import load_examples

n_seen = 0
if sys.argv[1] == "load":
    parts = load_examples("s.parquet", read_parquet("split.parquet"), TaskConfig(), fold=0)
    n_seen = sum(len(tokens) for tokens, _ in Batches(parts["train"], 128, seed=1))
print(n_seen, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


@pytest.mark.slow
def test_memory_is_that_of_the_bases(tmp_path: Path):
    """To load 200,000 sequences of 600 bp and pass an epoch takes less than 1.9 bytes per base: one is its code."""
    n, length = 200_000, 600
    rng = np.random.default_rng(0)
    letters = np.frombuffer(b"ACGT", np.uint8)[rng.integers(0, 4, size=n * length, dtype=np.uint8)]
    texts = pa.LargeStringArray.from_buffers(n, pa.py_buffer(np.arange(n + 1) * length), pa.py_buffer(letters))
    names = pa.array([f"sequence_{i}" for i in range(n)])
    label = pa.array((np.arange(n) % 2).astype(float))
    pq.write_table(pa.table({"name": names, "sequence": texts, "label": label}), tmp_path / "s.parquet")
    fold = np.array(["train"] * 7 + ["validation", "test", "test"])[np.arange(n) % 10]
    pq.write_table(pa.table({"name": names, "group": np.arange(n), "fold_0": fold}), tmp_path / "split.parquet")

    def measured(what: str) -> list[int]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", MEMORY_SCRIPT, what]
        out = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
        return [int(value) for value in out.split()]

    (_, before), (n_seen, after) = measured("nothing"), measured("load")
    assert n_seen == n * 7 // 10
    assert (after - before) / (n * length) < 1.9
