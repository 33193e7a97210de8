"""Batches whose order and content depend on seed, epoch and number only, whether made here or in other processes."""

import multiprocessing
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from bioattn.config import AugmentConfig
from bioattn.data import alphabet
from bioattn.rng import stream
from bioattn.train.augment import augmented, reverse_complement_padded
from bioattn.train.store import Codes, Examples

#: Batches that each process prepares ahead.
_AHEAD = 4


@dataclass(frozen=True)
class BatchKey:
    """Which examples a batch holds, and all that decides how they are changed."""

    epoch: int
    number: int
    index: NDArray[np.int64]
    turned: NDArray[np.bool_] | None


@dataclass(frozen=True)
class BatchMaker:
    """Makes a batch of what its key says; goes to other processes as it is.

    `letters_until` is the first epoch whose letters are left alone.
    """

    codes: Codes
    targets: NDArray[np.float32]
    augment: AugmentConfig
    seed: int
    letters_until: int

    def __getitem__(self, key: BatchKey) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Codes (B, L), cut to the longest sequence, and targets (B, T)."""
        codes_BL, targets_BT = self.codes.rows(key.index), self.targets[key.index]
        lengths_B = self.codes.lengths[key.index]
        if self.augment.changes_letters or self.augment.shift_bp:
            codes_BL = augmented(
                codes_BL,
                lengths_B,
                targets_BT[:, 0],
                self.augment,
                seed=self.seed,
                epoch=key.epoch,
                batch=key.number,
                change_letters=key.epoch < self.letters_until,
            )
        if key.turned is not None:
            other_BL = reverse_complement_padded(codes_BL, lengths_B)
            codes_BL = np.where(key.turned[:, None], other_BL, codes_BL)
        return codes_BL, targets_BT


class Batches:
    """Batches (tokens int64 (B, L), targets float32 (B, T)), cut to the longest sequence of each batch.

    Whole batches are indexed at once: with models this small, collating single
    items would cost more than the model.

    Batches that are too large for the memory come in parts, one after the other:
    (tokens, targets, present targets of the whole batch int64 ()). Their order and
    changes are those of the whole batches.

    Parameters
    ----------
    examples : Examples
    batch_size : int
    seed : int or None
        Seed of the order and of all changes; None keeps the given order, and changes nothing.
    augment : AugmentConfig, optional
        How sequences are changed.
    n_epochs : int, optional
        Epochs of the whole training, from whose end `augment.clean_epochs` counts.
    micro_batch : int, optional
        Most examples of a part. By default batches are not split.
    workers : int
        Other processes that prepare batches. They share the sequences if these lie in a file (`Codes.saved`), and
        run until `close`. With 0 the same batches are made here.
    """

    def __init__(
        self,
        examples: Examples,
        batch_size: int,
        *,
        seed: int | None = None,
        augment: AugmentConfig | None = None,
        n_epochs: int | None = None,
        micro_batch: int | None = None,
        workers: int = 0,
    ) -> None:
        self.examples = examples
        self.batch_size = batch_size
        self.micro_batch = micro_batch or batch_size
        self.seed = seed
        self.epoch = 0
        self.workers = workers
        rules = AugmentConfig() if augment is None or seed is None else augment
        assert n_epochs is not None or not rules.clean_epochs
        self._maker = BatchMaker(
            examples.codes,
            examples.targets.numpy(),
            rules,
            seed or 0,
            letters_until=2**63 if n_epochs is None else n_epochs - rules.clean_epochs,
        )
        self._loader: DataLoader[Any] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order and changes are given next."""
        self.epoch = epoch

    @property
    def n_batches(self) -> int:
        """Whole batches of an epoch."""
        return -(-len(self.examples) // self.batch_size)

    @property
    def n_parts(self) -> int:
        """Parts of a whole batch; a smaller last batch may have fewer."""
        return -(-self.batch_size // self.micro_batch)

    def __len__(self) -> int:
        whole, rest = divmod(len(self.examples), self.batch_size)
        return whole * self.n_parts - (-rest // self.micro_batch)

    def __iter__(self) -> Iterator[tuple[Tensor, ...]]:
        if self.workers and self._loader is None:
            self._loader = _loader(self._maker, _Keys(self), self.workers)
        made = map(self._maker.__getitem__, _Keys(self)) if self._loader is None else self._loader
        for batch in made:
            codes_BL, targets_BT = map(torch.from_numpy, batch)
            if self.n_parts == 1:
                yield codes_BL.long(), targets_BT
            else:
                yield from self._parts(codes_BL, targets_BT)

    def close(self) -> None:
        """End the processes that prepare batches."""
        self._loader = None

    def _parts(self, codes_BL: Tensor, targets_BT: Tensor) -> Iterator[tuple[Tensor, ...]]:
        n_present = (~targets_BT.isnan()).sum()
        for codes, targets in zip(codes_BL.split(self.micro_batch), targets_BT.split(self.micro_batch), strict=True):
            longest = int((codes != alphabet.PAD).sum(1).max())
            yield codes[:, :longest].long(), targets, n_present


class _Keys:
    """Keys of the batches of the epoch that is chosen when they are asked for."""

    def __init__(self, batches: Batches) -> None:
        self.batches = batches

    def __len__(self) -> int:
        return self.batches.n_batches

    def __iter__(self) -> Iterator[BatchKey]:
        n, size = len(self.batches.examples), self.batches.batch_size
        seed, epoch = self.batches.seed, self.batches.epoch
        order, turned = np.arange(n), None
        if seed is not None:
            order = stream(seed, "order", epoch).permutation(n)
            if self.batches._maker.augment.reverse_complement:
                turned = stream(seed, "strands", epoch).random(n) < 0.5
        for number, start in enumerate(range(0, n, size)):
            part = slice(start, start + size)
            yield BatchKey(epoch, number, order[part], None if turned is None else turned[part])


def _loader(maker: BatchMaker, keys: _Keys, workers: int) -> DataLoader[Any]:
    # A fork of this process could hang, because torch has threads here; a fork server has none, and imports torch once.
    served = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if served else "spawn")
    if served:
        context.set_forkserver_preload([__name__])
    return DataLoader(
        maker,  # type: ignore[arg-type]
        batch_size=None,
        sampler=keys,
        collate_fn=_as_it_is,
        num_workers=workers,
        prefetch_factor=_AHEAD,
        persistent_workers=True,
        worker_init_fn=_end_with_parent,
        multiprocessing_context=context,
        # Its own: the loader would else draw from the stream that dropout draws from.
        generator=torch.Generator(),
    )


def _as_it_is(batch: Any) -> Any:
    return batch


def _end_with_parent(_worker: int) -> None:
    """End this process when the one that asked for it is gone, killed perhaps: the fork server would keep both."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
