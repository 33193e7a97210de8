"""What every use of pysam needs."""

import contextlib
from collections.abc import Iterator

import pysam


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without messages of htslib on stderr: what is wrong goes into an exception instead."""
    before = pysam.set_verbosity(0)
    try:
        yield
    finally:
        pysam.set_verbosity(before)
