"""How the readout responds to a motif put into backgrounds, and what part of that each head carries."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bioattn import rng
from bioattn.data import alphabet
from bioattn.data.weighted import interval
from bioattn.errors import DataError
from bioattn.explain.head_ablation import Ablation
from bioattn.explain.path_patching import Head, require_heads
from bioattn.explain.predict import predict
from bioattn.models import SequenceModel

Array = NDArray[np.float64]
#: Draws of the bootstrap over backgrounds.
_BOOTSTRAP = 500
#: A word or a PPM.
Word = str | NDArray[Any]


class MotifResponses:
    """Responses of a model to motifs in the same backgrounds.

    What the backgrounds give without a motif is computed once.

    Parameters
    ----------
    backgrounds : ndarray, uint8, shape (N, L)
    readout : int
        Readout, before its link.
    """

    def __init__(
        self, model: SequenceModel, backgrounds: NDArray[np.uint8], *, readout: int = 0, seed: int = 0
    ) -> None:
        self.model, self.backgrounds, self.readout, self.seed = model, backgrounds, readout, seed
        #: By the number of backgrounds that are long enough.
        self._plain: dict[int, _Plain] = {}

    def of(self, word: Word, heads: Sequence[Head], *, start: int | None = None) -> pd.DataFrame:
        """Change of the readout when a motif is put into backgrounds, and what part of it is lost without each head.

        The motif replaces letters, so length is unchanged. A head is taken away by
        replacing its output by its mean over the tokens of the backgrounds, with and
        without the motif.

        Parameters
        ----------
        word : str, ndarray of codes (W,), or PPM (A, W)
            The consensus; of a PPM a site is drawn for each background. Backgrounds too
            short for it are left out.
        heads : sequence of (layer, head)
        start : int, optional
            First base of the motif; by default it lies in the middle of each background.

        Returns
        -------
        DataFrame
            One row per head: layer, head; response, mean change in the intact model;
            response_without; lost = 1 - response_without / response; each with a 95 %
            interval of a bootstrap over backgrounds, with the same draws for all; n
            backgrounds; note.

        Raises
        ------
        DataError
            If the motif is neither a word nor a PPM, does not fit at `start`, or a head does not exist.
        """
        require_heads(self.model, heads)
        rows, letters = _usable(self.backgrounds, word, start)
        if not len(rows):
            return _no_response(heads, letters.shape[-1])
        if len(rows) not in self._plain:
            self._plain[len(rows)] = _Plain(self.model, self.backgrounds[rows], self.seed)
        plain = self._plain[len(rows)]
        placed = _placed(plain.codes, letters, start, rng.stream(self.seed, "heads", "response", "sites"))
        intact = self._changes(plain.readouts, predict(self.model, placed))
        response = float(intact.mean())
        low, high = interval(plain.weights @ intact)
        note = "" if low > 0 or high < 0 else "no clear response to the motif: lost says nothing"
        table = []
        for head in heads:
            change = self._changes(plain.without(head), plain.ablation.readouts(placed, [head]).numpy())
            without = float(change.mean())
            with np.errstate(invalid="ignore", divide="ignore"):
                lost = float(1 - np.divide(without, response))
                lost_draws = 1 - (plain.weights @ change) / (plain.weights @ intact)
            row = {"layer": head[0], "head": head[1]} | _columns("response", response, plain.weights @ intact)
            row |= _columns("response_without", without, plain.weights @ change) | _columns("lost", lost, lost_draws)
            table.append(row | {"n": len(rows), "note": note})
        return pd.DataFrame(table)

    def _changes(self, before: NDArray[np.float32], after: NDArray[np.float32]) -> Array:
        return after[:, self.readout].astype(np.float64) - before[:, self.readout]


class _Plain:
    """Backgrounds without a motif."""

    def __init__(self, model: SequenceModel, codes: NDArray[np.uint8], seed: int) -> None:
        self.codes, self.readouts, self.ablation = codes, predict(model, codes), Ablation(model, codes, seed=seed)
        draw = rng.stream(seed, "heads", "response", "bootstrap")
        n = len(codes)
        self.weights = draw.multinomial(n, np.full(n, 1 / n), _BOOTSTRAP) / n
        self._without: dict[Head, NDArray[np.float32]] = {}

    def without(self, head: Head) -> NDArray[np.float32]:
        """Readouts (N, T) with a head's output replaced by its mean."""
        if head not in self._without:
            self._without[head] = self.ablation.readouts(self.codes, [head]).numpy()
        return self._without[head]


def _columns(name: str, value: float, draws: Array) -> dict[str, float]:
    low, high = interval(draws)
    return {name: value, f"{name}_ci_low": low, f"{name}_ci_high": high}


def _usable(backgrounds: NDArray[np.uint8], word: Word, start: int | None) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Backgrounds that are long enough, and the word as codes or PPM."""
    word = alphabet.encode(word) if isinstance(word, str) else np.asarray(word)
    is_ppm = word.ndim == 2 and len(word) == alphabet.N_LETTERS
    if not word.size or not (is_ppm or word.ndim == 1):
        raise DataError(f"a motif is a word of codes (n,) or a PPM ({alphabet.N_LETTERS}, n), got shape {word.shape}")
    if not is_ppm and int(word.max()) >= alphabet.PAD:
        raise DataError(f"a motif's letters have codes 0 to {alphabet.UNKNOWN}, got {int(word.max())}")
    if is_ppm and not np.allclose(word.sum(0), 1, atol=1e-3):
        raise DataError("the columns of a PPM must sum to 1")
    if start is not None and not 0 <= start <= backgrounds.shape[1] - word.shape[-1]:
        raise DataError(
            f"a motif of {word.shape[-1]} bp does not fit at {start} into sequences of {backgrounds.shape[1]} bp"
        )
    length = (backgrounds != alphabet.PAD).sum(1)
    return np.flatnonzero(length >= word.shape[-1] + (start or 0)), word


def _placed(
    backgrounds: NDArray[np.uint8], word: NDArray[Any], start: int | None, draw: np.random.Generator
) -> NDArray[np.uint8]:
    """Backgrounds with a word, or a site drawn from a PPM, at a base or in their middle."""
    n, width = len(backgrounds), word.shape[-1]
    length = (backgrounds != alphabet.PAD).sum(1)
    first = (length - width) // 2 if start is None else np.full(n, start)
    if word.ndim == 2:
        upto = np.cumsum(word / word.sum(0), axis=0)[:-1]
        word = (draw.random((n, width, 1)) > upto.T).sum(2)
    placed = backgrounds.copy()
    placed[np.arange(n)[:, None], first[:, None] + np.arange(width)] = word
    return placed


def _no_response(heads: Sequence[Head], width: int) -> pd.DataFrame:
    names = [f"{name}{end}" for name in ("response", "response_without", "lost") for end in ("", "_ci_low", "_ci_high")]
    note = f"no background holds a motif of {width} bp"
    return pd.DataFrame(
        [{"layer": a, "head": b, **dict.fromkeys(names, np.nan), "n": 0, "note": note} for a, b in heads]
    )
