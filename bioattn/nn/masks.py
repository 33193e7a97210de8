"""Which query may read which key, as objects that combine with | and &.

A mask answers two questions: elementwise, may this query read that key
(`allows`), and cheaply, which keys can a run of queries need at all (`reach`).
The second lets sparse masks be computed without looking at all pairs.
Every mask is a function of positions alone, so that it does not change with the
padding of a batch; only `Padding` looks at the examples.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bioattn.errors import ConfigError, DataError


class Mask(ABC):
    """Pairs of positions where attention is allowed."""

    @property
    def looks_at_examples(self) -> bool:
        """Whether the answer differs between the examples of a batch."""
        return False

    @abstractmethod
    def allows(self, query: Tensor, key: Tensor) -> Tensor:
        """Whether queries may read keys, bool, from positions (int64) that broadcast against each other."""

    def reach(self, first: int, last: int, length: int) -> NDArray[np.int64]:
        """Ascending positions of all keys that the queries [first, last) may read; more are harmless, fewer are not."""
        return np.arange(length)

    def check_length(self, length: int) -> None:  # noqa: B027 - most masks have nothing to check
        """Raise `DataError` if the mask is not defined for sequences of this many tokens."""

    def dense(self, n_query: int, n_key: int | None = None, *, device: torch.device | str = "cpu") -> Tensor:
        """Boolean matrix (Q, K); with `Padding`, (B, 1, Q, K)."""
        n_key = n_query if n_key is None else n_key
        self.check_length(max(n_query, n_key))
        query = torch.arange(n_query, device=device)[:, None]
        return self.allows(query, torch.arange(n_key, device=device)[None])

    def __or__(self, other: "Mask") -> "Mask":
        """Allowed by either."""
        return Union(self, other)

    def __and__(self, other: "Mask") -> "Mask":
        """Allowed by both."""
        return Intersection(self, other)


@dataclass(frozen=True, eq=False)
class Causal(Mask):
    """A query reads itself and what comes before it."""

    def allows(self, query: Tensor, key: Tensor) -> Tensor:  # noqa: D102
        return key <= query

    def reach(self, first: int, last: int, length: int) -> NDArray[np.int64]:  # noqa: D102
        return np.arange(min(last, length))


@dataclass(frozen=True, eq=False)
class Window(Mask):
    """A query reads keys at most `radius` positions away, on both sides."""

    radius: int

    def __post_init__(self) -> None:
        _check_positive("a window", radius=self.radius)

    def allows(self, query: Tensor, key: Tensor) -> Tensor:  # noqa: D102
        return (query - key).abs() <= self.radius

    def reach(self, first: int, last: int, length: int) -> NDArray[np.int64]:  # noqa: D102
        return np.arange(max(first - self.radius, 0), min(last + self.radius, length))


@dataclass(frozen=True, eq=False)
class Dilated(Mask):
    """A query reads itself and every `step`-th key, up to `steps` of them on either side.

    Source: Beltagy et al. 2020 (Longformer), section 3.1.
    """

    step: int
    steps: int

    def __post_init__(self) -> None:
        _check_positive("a dilated window", step=self.step, steps=self.steps)

    def allows(self, query: Tensor, key: Tensor) -> Tensor:  # noqa: D102
        distance = (query - key).abs()
        return (distance % self.step == 0) & (distance <= self.step * self.steps)

    def reach(self, first: int, last: int, length: int) -> NDArray[np.int64]:  # noqa: D102
        offset = np.arange(-self.steps, self.steps + 1) * self.step
        keys = np.unique(np.arange(first, last)[:, None] + offset)
        return keys[(keys >= 0) & (keys < length)]


@dataclass(frozen=True, eq=False)
class Global(Mask):
    """The first `tokens` positions read all and are read by all."""

    tokens: int

    def __post_init__(self) -> None:
        _check_positive("a global mask", tokens=self.tokens)

    def allows(self, query: Tensor, key: Tensor) -> Tensor:  # noqa: D102
        return (query < self.tokens) | (key < self.tokens)

    def reach(self, first: int, last: int, length: int) -> NDArray[np.int64]:  # noqa: D102
        return np.arange(length if first < self.tokens else min(self.tokens, length))


@dataclass(frozen=True, eq=False)
class BlockSparse(Mask):
    """Queries of block i read keys of block j where `layout[i, j]` is True.

    Parameters
    ----------
    layout : bool ndarray (or Tensor), shape (n, n)
        For sequences of up to n * block tokens.
    block : int
        Tokens per block.
    """

    layout: NDArray[np.bool_]
    block: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "layout", np.asarray(self.layout))
        if self.layout.ndim != 2 or self.layout.shape[0] != self.layout.shape[1] or self.layout.dtype != np.bool_:
            raise ConfigError(
                f"a block layout must be a square boolean matrix, got {self.layout.dtype} {self.layout.shape}"
            )
        _check_positive("a block layout", block=self.block)

    @classmethod
    def random(cls, max_length: int, *, block: int, per_block: int, seed: int) -> "BlockSparse":
        """Each block of queries reads itself and `per_block` random blocks (Zaheer et al. 2020, BigBird).

        Blocks are drawn once among all of `max_length` tokens, so that the layout
        of a sequence does not depend on how far it is padded.
        """
        n = -(-max_length // max(block, 1))  # a block of nothing is refused below
        generator = np.random.default_rng(seed)
        layout = np.eye(n, dtype=bool)
        for row in layout:
            row[generator.permutation(n)[:per_block]] = True
        return cls(layout, block)

    def check_length(self, length: int) -> None:  # noqa: D102
        most = len(self.layout) * self.block
        if length > most:
            raise DataError(
                f"the block layout is for up to {most} tokens, got {length}: raise model.max_length, or use a window"
            )

    def allows(self, query: Tensor, key: Tensor) -> Tensor:  # noqa: D102
        return torch.from_numpy(self.layout).to(query.device)[query // self.block, key // self.block]

    def reach(self, first: int, last: int, length: int) -> NDArray[np.int64]:  # noqa: D102
        rows = self.layout[first // self.block : (last - 1) // self.block + 1]
        keys = np.flatnonzero(rows.any(0))[:, None] * self.block + np.arange(self.block)
        return keys[keys < length]


@dataclass(frozen=True, eq=False)
class Padding(Mask):
    """Real keys only: `real`, bool (B, L), is True for real tokens."""

    real: Tensor

    @property
    def looks_at_examples(self) -> bool:  # noqa: D102
        return True

    def allows(self, query: Tensor, key: Tensor) -> Tensor:
        """As `Mask.allows`, with axes for batch and head in front of the broadcast positions."""
        readable = self.real.to(key.device)[:, key][:, None]
        return readable & torch.ones_like(query, dtype=torch.bool)


@dataclass(frozen=True, eq=False)
class _Combination(Mask):
    first: Mask
    second: Mask

    @property
    def looks_at_examples(self) -> bool:  # noqa: D102
        return self.first.looks_at_examples or self.second.looks_at_examples

    def check_length(self, length: int) -> None:  # noqa: D102
        self.first.check_length(length)
        self.second.check_length(length)


class Union(_Combination):
    """Allowed by either mask."""

    def allows(self, query: Tensor, key: Tensor) -> Tensor:  # noqa: D102
        return self.first.allows(query, key) | self.second.allows(query, key)

    def reach(self, first: int, last: int, length: int) -> NDArray[np.int64]:  # noqa: D102
        return np.union1d(self.first.reach(first, last, length), self.second.reach(first, last, length))


class Intersection(_Combination):
    """Allowed by both masks."""

    def allows(self, query: Tensor, key: Tensor) -> Tensor:  # noqa: D102
        return self.first.allows(query, key) & self.second.allows(query, key)

    def reach(self, first: int, last: int, length: int) -> NDArray[np.int64]:  # noqa: D102
        return np.intersect1d(self.first.reach(first, last, length), self.second.reach(first, last, length))


def _check_positive(what: str, **numbers: int) -> None:
    for name, number in numbers.items():
        if not isinstance(number, int) or isinstance(number, bool) or number < 1:
            raise ConfigError(f"{what} needs a whole number of at least 1 as {name}, got {number!r}")
