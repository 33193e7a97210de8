"""Examples in memory: the codes of all sequences in one block of bytes, of which subsets are views."""

import hashlib
import mmap
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor

from bioattn.data import alphabet
from bioattn.errors import DataError
from bioattn.io.files import replacing
from bioattn.io.tables import parquet_errors

#: Sequences that are read, hashed or decoded at a time.
_CHUNK = 16_384
#: Bytes of a parquet file that are read at a time.
_READ_BYTES = 2**20


@dataclass(frozen=True)
class Codes:
    """Codes of many sequences, each an interval of one block of bytes.

    Subsets and resamples share the block, and so do processes if it lies in a file.

    Attributes
    ----------
    flat : ndarray, uint8, shape (bases,)
        Codes of A C G T N = 0 .. 4, then `width` bytes of padding, so that no row of `rows` ends outside.
    starts, lengths : ndarray, int64, shape (N,)
        Interval of each sequence.
    width : int
        Columns of `matrix`: the longest of all sequences, also of those that are not in this subset.
    path : Path or None
        File that `flat` is mapped from.
    """

    flat: NDArray[np.uint8]
    starts: NDArray[np.int64]
    lengths: NDArray[np.int64]
    width: int
    path: Path | None = None

    def __len__(self) -> int:
        return len(self.starts)

    def __getstate__(self) -> dict[str, Any]:
        """All but what another process can map for itself."""
        return self.__dict__ | ({} if self.path is None else {"flat": None})

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["path"] is not None:
            state = state | {"flat": _mapped(state["path"])}
        self.__dict__.update(state)

    def take(self, index: NDArray[np.int64]) -> "Codes":
        """The sequences at `index`, in that order, repeats allowed; no base is copied."""
        return replace(self, starts=self.starts[index], lengths=self.lengths[index])

    def rows(self, index: NDArray[np.int64] | slice) -> NDArray[np.uint8]:
        """Codes (B, L of the longest) of some sequences, padded on the right, as an array of their own."""
        starts, lengths = self.starts[index], self.lengths[index]
        return self._padded(starts, lengths, int(lengths.max(initial=0)))

    @property
    def matrix(self) -> NDArray[np.uint8]:
        """Codes (N, width) of all sequences: as many bytes again."""
        return self._padded(self.starts, self.lengths, self.width)

    def chunks(self) -> Iterator[NDArray[np.uint8]]:
        """The rows of `matrix`, some thousand at a time."""
        for start in range(0, len(self), _CHUNK):
            part = slice(start, start + _CHUNK)
            yield self._padded(self.starts[part], self.lengths[part], self.width)

    def texts(self) -> Iterator[str]:
        """The sequences as text."""
        for start, length in zip(self.starts, self.lengths, strict=True):
            yield alphabet.decode(self.flat[start : start + length])

    def saved(self, path: Path) -> "Codes":
        """The same sequences, mapped from a file that is written at `path`."""
        with replacing(path) as temporary:
            self.flat.tofile(temporary)
        return replace(self, flat=_mapped(path), path=path)

    def _padded(self, starts: NDArray[np.int64], lengths: NDArray[np.int64], width: int) -> NDArray[np.uint8]:
        if not width:
            return np.empty((len(starts), 0), dtype=np.uint8)
        codes = sliding_window_view(self.flat, width)[starts]
        if (lengths < width).any():
            codes[np.arange(width) >= lengths[:, None]] = alphabet.PAD
        return codes


def _mapped(path: Path) -> NDArray[np.uint8]:
    with path.open("rb") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)


def codes_of_matrix(matrix: NDArray[np.uint8]) -> Codes:
    """Sequences of the rows of codes (N, L), padded on the right."""
    n, width = matrix.shape
    flat = np.concatenate([matrix.reshape(-1), np.full(width, alphabet.PAD, dtype=np.uint8)])
    return Codes(flat, np.arange(n, dtype=np.int64) * width, (matrix != alphabet.PAD).sum(1), width)


def codes_of_texts(texts: Sequence[str] | Any) -> Codes:
    """Sequences given as text, in anything that `alphabet.encode_batch` takes."""
    return codes_of_parts(alphabet.encode_flat(texts))


def codes_of_parts(parts: Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]) -> Codes:
    """Sequences given as codes one after the other and their lengths, as `alphabet.encode_flat` gives them."""
    flat = bytearray()  # grows in its place, where an array would be copied
    lengths = [np.zeros(0, dtype=np.int64)]
    for codes, n_bases in parts:
        flat += codes.data
        lengths.append(n_bases)
    all_lengths = np.concatenate(lengths)
    width = int(all_lengths.max(initial=0))
    flat += bytes([alphabet.PAD]) * width
    return Codes(np.frombuffer(flat, dtype=np.uint8), np.cumsum(all_lengths) - all_lengths, all_lengths, width)


def columns_of(path: str | Path) -> list[str]:
    """Names of the columns of a parquet file. Raises `DataError` if it is missing or not parquet."""
    with _opened(path) as file:
        return list(file.schema_arrow.names)


def read_sequences(path: str | Path, columns: Sequence[str]) -> tuple[pd.DataFrame, Codes]:
    """Columns of a sequence table, and the codes of its column `sequence`.

    The text of the sequences is read a piece at a time and never held whole.

    Raises
    ------
    DataError
        If the file is missing or not parquet, or a sequence is missing.
    """
    with _opened(path) as file:
        table = file.read(columns=list(columns)).to_pandas()
        codes = codes_of_parts(_encoded(path, file))
    pa.default_memory_pool().release_unused()
    return table, codes


@contextmanager
def _opened(path: str | Path) -> Iterator[pq.ParquetFile]:
    # Without pre_buffer, which would read the whole column of sequences at once.
    with parquet_errors(path), pq.ParquetFile(path, pre_buffer=False, buffer_size=_READ_BYTES) as file:
        yield file


def _encoded(path: str | Path, file: pq.ParquetFile) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.int64]]]:
    row = 0
    for batch in file.iter_batches(batch_size=_CHUNK, columns=["sequence"], use_threads=False):
        texts = batch.column(0)
        if texts.null_count:
            first = row + int(np.flatnonzero(texts.is_null().to_numpy(zero_copy_only=False))[0])
            raise DataError(f"{path}: the sequence in row {first + 1} is missing: ingest the sequences again")
        row += len(texts)
        yield from alphabet.encode_flat(texts)


@dataclass(frozen=True)
class Examples:
    """Examples of one subset, in memory.

    Attributes
    ----------
    names : ndarray of str, shape (N,)
    codes : Codes
        May be given as a Tensor, uint8, shape (N, L), padded on the right with `alphabet.PAD`.
    targets : Tensor, float32, shape (N, T)
        NaN where missing. Multiclass: one column, the class index.
    groups : ndarray of int64, shape (N,)
        Split group; examples of one group are not independent.
    """

    names: NDArray[np.object_]
    codes: Codes
    targets: Tensor
    groups: NDArray[np.int64]

    def __post_init__(self) -> None:
        if isinstance(self.codes, Tensor):
            object.__setattr__(self, "codes", codes_of_matrix(self.codes.numpy().astype(np.uint8, copy=False)))

    def __len__(self) -> int:
        return len(self.names)

    @property
    def tokens(self) -> Tensor:
        """Codes as a matrix, uint8, shape (N, L), padded on the right: made anew each time, as large as all codes."""
        return torch.from_numpy(self.codes.matrix)

    @property
    def lengths(self) -> Tensor:
        """Sequence lengths in bp, int64, shape (N,)."""
        return torch.from_numpy(self.codes.lengths)

    def take(self, index: NDArray[np.int64]) -> "Examples":
        """The examples at `index`, in that order, repeats allowed; their sequences are not copied."""
        index = np.asarray(index)
        return Examples(
            self.names[index], self.codes.take(index), self.targets[torch.from_numpy(index)], self.groups[index]
        )

    def fingerprint(self) -> str:
        """Twelve hex digits that change when any sequence, target or group does."""
        digest = hashlib.sha256()
        for codes in self.codes.chunks():
            digest.update(codes.data)
        digest.update(np.ascontiguousarray(self.targets.numpy()).tobytes())
        digest.update(np.ascontiguousarray(self.groups).tobytes())
        return digest.hexdigest()[:12]
