"""Named, independent random streams from one run seed.

Two consumers never share a stream, so adding a draw in one place changes no
number elsewhere, and a name says in the code what the draws are for.
"""

import hashlib

import numpy as np


def stream_seed(seed: int, *names: object) -> int:
    """63-bit integer seed of the stream called `names` under the run seed.

    Parameters
    ----------
    seed : int
        Run seed, any integer >= 0.
    names : object
        Path of the stream, e.g. ``"nulls", "replicate", 3``; their `str` counts.

    Returns
    -------
    int
        Stable across processes, platforms and Python versions (SHA-256).
    """
    text = "/".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def stream(seed: int, *names: object) -> np.random.Generator:
    """NumPy generator of the stream called `names` under the run seed."""
    return np.random.default_rng(stream_seed(seed, *names))
