"""What every use of pysam needs: silence, and indices beside their files."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pysam

from bioattn.errors import DataError
from bioattn.io.files import replacing

#: Bytes by which `is_bgzip` knows.
BGZIP_HEAD = 18


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without messages of htslib on stderr: what is wrong goes into an exception instead."""
    before = pysam.set_verbosity(0)
    try:
        yield
    finally:
        pysam.set_verbosity(before)


def is_bgzip(head: bytes) -> bool:
    """Whether the first `BGZIP_HEAD` bytes of a gzip file say bgzip: gzip in blocks, whose header has a field BC."""
    return len(head) == BGZIP_HEAD and bool(head[3] & 4) and head[12:14] == b"BC"


def is_current(index: Path, path: Path) -> bool:
    """Whether an index is there, and not older than its file."""
    return index.is_file() and index.stat().st_mtime >= path.stat().st_mtime


def keep(made: Path, place: Path) -> None:
    """Copy a new index to where it is looked for the next time, if the folder allows it."""
    with contextlib.suppress(DataError), replacing(place) as temporary:
        shutil.copyfile(made, temporary)
