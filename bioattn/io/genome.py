"""Letters of a genome by coordinate: an indexed FASTA file, plain or bgzip."""

import difflib
import itertools
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import pysam
from numpy.typing import ArrayLike, NDArray

from bioattn.data import alphabet
from bioattn.data.sequences import Unusable
from bioattn.errors import DataError
from bioattn.io.htslib import BGZIP_HEAD, is_bgzip, is_current, keep, quiet
from bioattn.io.lines import read_lines

#: Contigs stay in memory up to this many bytes, the last one always.
_CACHED_BYTES = 2**29
#: Names of the mitochondrion with and without 'chr'.
_MITOCHONDRIA = ("chrM", "chrMT", "MT", "M")


class Genome:
    """A FASTA file from which any interval can be read.

    The index (.fai, and .gzi for bgzip) is used if it is there and not older
    than the file, else made: beside the file, or in memory only where that
    folder cannot be written. Coordinates are 0-based and half-open.

    Attributes
    ----------
    path : Path
    lengths : dict of str to int
        Length of every contig in bp, in file order.

    Raises
    ------
    DataError
        If the file is missing, no FASTA, compressed other than by bgzip, or has
        a contig name twice.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        compressed = _check_format(self.path)
        self._file = _open(self.path, compressed)
        self.lengths: dict[str, int] = dict(zip(self._file.references, self._file.lengths, strict=True))
        self._cache: OrderedDict[str, NDArray[np.uint8]] = OrderedDict()

    def resolve(self, name: str, contig_names: Literal["exact", "chr_prefix"] = "exact") -> str:
        """Name of a contig in this file.

        Parameters
        ----------
        contig_names : str
            `data.regions.contig_names`: "chr_prefix" also tries the name with
            'chr' added or removed (and chrM for MT).

        Raises
        ------
        DataError
            If there is none. Says whether the names differ by 'chr' only.
        """
        return resolve_contig(name, self.lengths, self.path, contig_names)

    def sequence(self, contig: str, start: int, end: int) -> str:
        """Letters of an interval as they are written, upper or lower case.

        Raises
        ------
        DataError
            If the contig is unknown or the interval does not lie within it.
        """
        length = self.lengths[self.resolve(contig)]
        if not 0 <= start <= end <= length:
            raise DataError(f"{self.path}: found {contig}:{start}-{end}, allowed is within 0-{length}")
        if contig in self._cache:
            return self._cache[contig][start:end].tobytes().decode("latin-1")
        return self._fetch(contig, start, end) if end > start else ""

    def letters(self, contig: str) -> NDArray[np.uint8]:
        """Bytes of a whole contig as they are written, shape (L,), read-only."""
        self.resolve(contig)
        if contig not in self._cache:
            # Room first, so that at most one contig is held beyond the limit.
            while self._cache and self._held() + self.lengths[contig] > _CACHED_BYTES:
                self._cache.popitem(last=False)
            self._cache[contig] = np.frombuffer(
                self._fetch(contig, 0, self.lengths[contig]).encode("latin-1"), dtype=np.uint8
            )
        self._cache.move_to_end(contig)
        return self._cache[contig]

    def codes(self, contig: str) -> NDArray[np.uint8]:
        """Alphabet codes of a whole contig, shape (L,)."""
        return _coded(self.letters(contig))

    def windows(self, contig: str, starts: ArrayLike, length: int) -> NDArray[np.uint8]:
        """Alphabet codes of windows of one length, shape (N, length), gathered at once.

        Raises
        ------
        DataError
            If the contig is unknown or a window does not lie within it.
        """
        letters, starts = self.letters(contig), np.asarray(starts, dtype=np.int64)
        outside = (starts < 0) | (starts + length > len(letters))
        if outside.any():
            first = int(starts[outside][0])
            raise DataError(f"{self.path}: found {contig}:{first}-{first + length}, allowed is within 0-{len(letters)}")
        if not len(starts):
            return np.empty((0, length), dtype=np.uint8)
        gather = np.lib.stride_tricks.sliding_window_view
        if len(starts) * length < len(letters):
            return _coded(gather(letters, length)[starts])
        return gather(_coded(letters), length)[starts]

    def _fetch(self, contig: str, start: int, end: int) -> str:
        try:
            with quiet():
                text: str = self._file.fetch(contig, start, end)
        except (OSError, ValueError) as error:
            text, problem = "", f" ({error})"
        else:
            problem = f" (found {len(text)} letters)"
        if len(text) != end - start:
            raise DataError(
                f"{self.path}: cannot be read at {contig}:{start}-{end}{problem}: the file is cut short, or its index "
                f"(.fai) does not fit it: delete the index, or copy the file again"
            )
        return text

    def _held(self) -> int:
        return sum(map(len, self._cache.values()))


def _coded(letters: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return alphabet.encode_bytes(letters.tobytes()).reshape(letters.shape)


class Contigs:
    """Names of the genome's contigs by those of another file, which names few of them often: looked up once each."""

    def __init__(self, genome: Genome, contig_names: Literal["exact", "chr_prefix"]) -> None:
        self.genome, self.how = genome, contig_names
        self.known: dict[str, str | None] = {}
        self.reasons: dict[str, str] = {}

    def get(self, name: str) -> str | None:
        """The genome's name, None if there is none."""
        if name not in self.known:
            try:
                self.known[name] = self.genome.resolve(name, self.how)
            except DataError as error:
                self.known[name], self.reasons[name] = None, str(error)
        return self.known[name]

    def __getitem__(self, name: str) -> str:
        found = self.get(name)
        if found is None:
            raise Unusable(self.reasons[name])
        return found


def resolve_contig(
    name: str, contigs: Collection[str], path: Path, contig_names: Literal["exact", "chr_prefix"] = "exact"
) -> str:
    """Name that a file with these contigs has for one. See `Genome.resolve`."""
    if name in contigs:
        return name
    other = next((candidate for candidate in _other_names(name) if candidate in contigs), None)
    if other is not None and contig_names == "chr_prefix":
        return other
    found = f"{path}: found no contig '{name}'"
    if other is not None:
        raise DataError(
            f"{found}, the file calls it '{other}': set data.regions.contig_names: chr_prefix if both are of one "
            f"assembly"
        )
    first = list(itertools.islice(contigs, 10_000))
    near = difflib.get_close_matches(name, first, n=1)
    hint = f"is it '{near[0]}'?" if near else "are the two of one assembly?"
    names = ", ".join(first[:5]) + (", ..." if len(contigs) > 5 else "")
    raise DataError(f"{found}, it has {len(contigs)} ({names}): {hint}")


def _other_names(name: str) -> Iterator[str]:
    """The name with 'chr' added or removed, and the mitochondrion's other names."""
    if name in _MITOCHONDRIA:
        yield from (other for other in _MITOCHONDRIA if other != name)
    elif name.startswith("chr"):
        yield name.removeprefix("chr")
    else:
        yield f"chr{name}"


def _check_format(path: Path) -> bool:
    """Whether the file is bgzip. Raises `DataError` if it cannot be read, or is packed otherwise."""
    try:
        with path.open("rb") as handle:
            head = handle.read(BGZIP_HEAD)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file, expected a genome as FASTA, plain or bgzip") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}), expected a genome as FASTA") from None
    if not head.strip():
        raise DataError(f"{path}: found an empty file, expected a genome as FASTA")
    if not head.startswith(b"\x1f\x8b"):
        if not head.lstrip().startswith(b">"):
            raise DataError(
                f"{path}: found {head[:8]!r} at the start, allowed is a genome as FASTA ('>name', then letters), plain "
                f"or bgzip"
            )
        return False
    if not is_bgzip(head):
        raise DataError(
            f"{path}: found plain gzip, in which no place can be looked up, allowed are plain text and bgzip: pack it "
            f"anew with `gunzip -c {path.name} | bgzip > new.fa.gz`"
        )
    return True


def _open(path: Path, compressed: bool) -> pysam.FastaFile:
    index, blocks = Path(f"{path}.fai"), Path(f"{path}.gzi")
    if all(is_current(file, path) for file in ([index, blocks] if compressed else [index])):
        opened = _load(path, index, blocks, compressed)
        if opened is not None:
            _check_headers(path, index, blocks if compressed else None)
            return opened
    with tempfile.TemporaryDirectory() as folder:
        made, made_blocks = Path(folder, "fai"), Path(folder, "gzi")
        _make_index(path, made, made_blocks)
        for source, place in [(made, index), (made_blocks, blocks)]:
            if source.exists():
                keep(source, place)
        opened = _load(path, made, made_blocks, compressed)
        if opened is None:
            raise DataError(f"{path}: cannot be read as FASTA: {_what_is_wrong(path)}")
        _check_headers(path, made, made_blocks if compressed else None)
    return opened


def _load(path: Path, index: Path, blocks: Path, compressed: bool) -> pysam.FastaFile | None:
    """The file with its index in memory, or None if the index is damaged."""
    try:
        with quiet():
            return pysam.FastaFile(
                str(path), filepath_index=str(index), filepath_index_compressed=str(blocks) if compressed else None
            )
    except (OSError, ValueError):
        return None


def _make_index(path: Path, index: Path, blocks: Path) -> None:
    try:
        with quiet():
            pysam.faidx(str(path), "--fai-idx", str(index), "--gzi-idx", str(blocks))
    except pysam.SamtoolsError:
        raise DataError(f"{path}: cannot be indexed: {_what_is_wrong(path)}") from None


def _check_headers(path: Path, index: Path, blocks: Path | None) -> None:
    """Raise `DataError` unless the index has every header: it leaves out repeated names and empty contigs.

    Looks at what lies between the letters of the contigs, where there must be one header each.
    """
    after, complete = 0, True
    try:
        with pysam.BGZFile(str(path), "rb") if blocks else path.open("rb") as file:
            place = _block_offsets(blocks) if blocks else int
            for line in index.read_bytes().splitlines():
                name, *numbers = line.split(b"\t")
                length, offset, n_letters, width = map(int, numbers[:4])
                file.seek(place(after))
                complete &= _n_headers(file.read(max(offset - after, 0))) == 1 and bool(name)
                # An index that lists an empty contig gives it lines without letters.
                full, rest = divmod(length, max(n_letters, 1))
                after = offset + full * width + rest
            file.seek(place(after))
            complete &= _n_headers(file.read()) == 0
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: damaged or cut short ({error}): copy or download it again") from None
    if not complete:
        raise DataError(f"{path}: cannot be used as a genome: {_what_is_wrong(path)}")


def _n_headers(between: bytes) -> int:
    return (b"\n" + between).count(b"\n>")


def _block_offsets(blocks: Path) -> Callable[[int], int]:
    """Maps a place in the letters of a bgzip file to the virtual offset that htslib seeks, by the .gzi index."""
    starts = np.fromfile(blocks, dtype="<u8", offset=8).astype(np.int64).reshape(-1, 2)
    starts = np.concatenate([np.zeros((1, 2), dtype=np.int64), starts])

    def virtual(place: int) -> int:
        packed, unpacked = starts[np.searchsorted(starts[:, 1], place, side="right") - 1]
        return int(packed) << 16 | int(place - unpacked)

    return virtual


def _what_is_wrong(path: Path) -> str:
    """Why a FASTA file cannot be indexed, with its line. Reads it line by line, so only after a failure."""
    first: dict[str, int] = {}
    name, width, ended, n_letters = "", 0, False, 1
    for number, text in read_lines(path):
        if text.startswith(">"):
            if not n_letters:
                return f"line {first[name]}: contig '{name}' has no letters"
            name = (text[1:].split() or [""])[0]
            if not name or name in first:
                found = f"contig name '{name}', which line {first[name]} has already" if name else "no name"
                return f"line {number}: found {found}, every contig needs its own"
            first[name], width, ended, n_letters = number, 0, False, 0
        elif not first:
            if text.strip():
                return f"line {number}: found {text[:30]!r} before the first '>name'"
        else:
            if text and (ended or (width and len(text) > width)):
                return (
                    f"line {number}: found lines of different lengths in contig '{name}', allowed is one length up to "
                    f"the last line: write the file anew with lines of one length"
                )
            ended = ended or len(text) < max(width, 1)
            width, n_letters = width or len(text), n_letters + len(text.strip())
    if not n_letters:
        return f"line {first[name]}: contig '{name}' has no letters"
    return "its index (.fai) does not fit it: delete the index"
