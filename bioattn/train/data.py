"""Training, validation and test examples in memory, and batches whose order depends on (seed, epoch) only."""

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from bioattn.config import TaskConfig, TrainConfig
from bioattn.data import alphabet
from bioattn.errors import BioattnWarning, ConfigError, DataError
from bioattn.rng import stream
from bioattn.train.memory import CUDA_BYTES, HEAP_GAPS, PROCESS_BYTES, memory_limit, track_memory

SUBSETS = ("train", "validation", "test")
#: Batches without gradients can be larger: nothing is kept for a backward pass.
EVALUATION_BATCH = 1024


@dataclass(frozen=True)
class Examples:
    """Examples of one subset, in memory.

    Attributes
    ----------
    names : ndarray of str, shape (N,)
    tokens : Tensor, uint8, shape (N, L)
        Padded on the right with `alphabet.PAD`.
    targets : Tensor, float32, shape (N, T)
        NaN where missing. Multiclass: one column, the class index.
    groups : ndarray of int64, shape (N,)
        Split group; examples of one group are not independent.
    """

    names: NDArray[np.object_]
    tokens: Tensor
    targets: Tensor
    groups: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def lengths(self) -> Tensor:
        """Sequence lengths in bp, int64, shape (N,)."""
        return (self.tokens != alphabet.PAD).sum(1)

    def take(self, index: NDArray[np.int64]) -> "Examples":
        """The examples at `index`, in that order, repeats allowed."""
        rows = torch.from_numpy(np.asarray(index))
        return Examples(self.names[index], self.tokens[rows], self.targets[rows], self.groups[index])

    def fingerprint(self) -> str:
        """Twelve hex digits that change when any sequence, target or group does."""
        digest = hashlib.sha256(np.ascontiguousarray(self.tokens.numpy()).tobytes())
        digest.update(np.ascontiguousarray(self.targets.numpy()).tobytes())
        digest.update(np.ascontiguousarray(self.groups).tobytes())
        return digest.hexdigest()[:12]


def load_examples(
    sequences: pd.DataFrame, split: pd.DataFrame, task: TaskConfig, *, fold: int, subsets: Sequence[str] = SUBSETS
) -> dict[str, Examples]:
    """Examples of each subset of one fold.

    Parameters
    ----------
    sequences : DataFrame
        Columns name, sequence and the targets of the task.
    split : DataFrame
        Columns name, group and fold_0, fold_1, ... ("train", "validation" or "test").
    fold : int
        Which fold column to use.

    Raises
    ------
    DataError
        If a column or a record is missing, a target cannot be one of this task, or
        the training or validation part is empty or shows a single class.
    """
    column = f"fold_{fold}"
    if column not in split.columns:
        found = [c for c in split.columns if c.startswith("fold_")]
        raise DataError(f"the split has no column '{column}', found {found}: choose one of these folds")
    missing = [c for c in ("name", "sequence", *task.targets) if c not in sequences.columns]
    if missing:
        raise DataError(
            f"the sequence table has no column {missing}, found {list(sequences.columns)}: check task.targets"
        )
    for what, names in (("sequence table", sequences["name"]), ("split", split["name"])):
        if names.duplicated().any():
            first = names[names.duplicated()].iloc[0]
            raise DataError(f"the {what} holds '{first}' more than once: names must be unique")
    # Only what is needed: the sequence table may have a `group` of its own, from the input.
    wanted = sequences[["name", "sequence", *task.targets]]
    table = wanted.merge(split[["name", "group", column]], on="name", how="left", validate="one_to_one")
    unknown = table["name"][table[column].isna()]
    if len(unknown):
        raise DataError(f"{len(unknown)} sequences have no row in the split, first '{unknown.iloc[0]}': split again")
    targets = table[task.targets].to_numpy(np.float64, copy=True)
    _check_targets(targets, table["name"].to_numpy(), task)
    # Encoded together, so that all subsets have one width.
    tokens = torch.from_numpy(alphabet.encode_batch(table["sequence"].tolist()))
    whole = Examples(
        table["name"].to_numpy(object),
        tokens,
        torch.from_numpy(targets).float(),
        table["group"].to_numpy(np.int64),
    )
    parts = {subset: whole.take(np.flatnonzero(table[column].to_numpy() == subset)) for subset in subsets}
    for subset in ("train", "validation"):
        if subset in parts:
            _check_part(parts[subset], subset, task)
    return parts


def _check_targets(targets: NDArray[np.float64], names: NDArray[np.object_], task: TaskConfig) -> None:
    present = ~np.isnan(targets)
    allowed, wrong = "", np.zeros_like(present)
    if task.kind in ("binary", "multilabel"):
        allowed, wrong = "0 or 1", ~np.isin(targets, (0, 1))
    elif task.kind == "multiclass":
        allowed, wrong = f"a class index 0 to {len(task.classes) - 1}", ~np.isin(targets, range(len(task.classes)))
    elif task.kind == "count":
        allowed, wrong = "a count >= 0", ~((targets >= 0) & (targets == np.floor(targets)) & np.isfinite(targets))
    else:
        allowed, wrong = "a finite number", ~np.isfinite(targets)
    if task.kind in ("multilabel", "regression"):
        wrong &= present
        allowed += " or missing"
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise DataError(
            f"target '{task.targets[column]}' of '{names[row]}' is {targets[row, column]:g}, "
            f"but task.kind '{task.kind}' takes {allowed} ({wrong.sum()} such values): correct the data or the kind"
        )


def _check_part(part: Examples, subset: str, task: TaskConfig) -> None:
    if not len(part):
        raise DataError(f"the split has no {subset} examples: change the split settings or add data")
    for i, name in enumerate(task.targets):
        values = part.targets[:, i]
        distinct = values[~values.isnan()].unique()
        if not len(distinct):
            raise DataError(f"target '{name}' is missing for all {subset} examples: remove it from task.targets")
        if subset == "train" and len(distinct) == 1:
            raise DataError(
                f"target '{name}' is {float(distinct[0]):g} for all {len(part)} training examples, "
                "nothing can be learned from one value: add examples with another"
            )


def training_parts(
    parts: dict[str, Examples], config: TrainConfig, *, seed: int, batch_size: int | None = None
) -> tuple[Examples, Examples]:
    """Training and validation examples as the optimiser sees them: permuted and resampled if so configured.

    Labels are permuted within each part, in validation too, because the choice of
    the best epoch is part of training.

    Raises
    ------
    ConfigError
        If there are fewer training examples than `train.batch_size`.
    """
    train, validation = parts["train"], parts["validation"]
    batch_size = batch_size or config.batch_size
    if len(train) < batch_size:
        raise ConfigError(
            f"train.batch_size is {batch_size} but there are {len(train)} training examples: "
            f"set train.batch_size to at most {len(train)}"
        )
    if config.permute_labels:
        train = _permuted(train, seed, "train")
        validation = _permuted(validation, seed, "validation")
    if config.resample == "bootstrap":
        train = train.take(bootstrap_groups(train.groups, seed))
    return train, validation


def _permuted(part: Examples, seed: int, name: str) -> Examples:
    order = stream(seed, "permute_labels", name).permutation(len(part))
    return replace(part, targets=part.targets[torch.from_numpy(order)])


def bootstrap_groups(groups: NDArray[np.int64], seed: int) -> NDArray[np.int64]:
    """Index of a bootstrap sample: whole groups drawn with replacement until there are as many examples as before.

    The last group drawn may be cut, so that the number of steps does not depend on the draw.
    """
    order = np.argsort(groups, kind="stable")
    distinct, start, size = np.unique(groups[order], return_index=True, return_counts=True)
    if len(distinct) < 10:
        warnings.warn(
            f"train.resample 'bootstrap' draws from only {len(distinct)} split groups: replicates will hardly differ",
            BioattnWarning,
            stacklevel=2,
        )
    generator = stream(seed, "bootstrap")
    drawn: list[NDArray[np.int64]] = []
    total = 0
    while total < len(groups):
        for group in generator.integers(len(distinct), size=len(distinct)):
            drawn.append(order[start[group] : start[group] + size[group]])
            total += int(size[group])
            if total >= len(groups):
                break
    return np.concatenate(drawn)[: len(groups)]


def target_scale(targets: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each target over its present values, shapes (T,)."""
    present = ~targets.isnan()
    n = present.sum(0)
    values = targets.double().nan_to_num(0.0)
    mean = values.sum(0) / n
    sd = ((((values - mean) ** 2) * present).sum(0) / n).sqrt()
    return mean.float(), sd.float()


class EpochBatchSampler:
    """Shuffled batches of indices; the order depends on (seed, epoch) only, so a resumed run sees the same."""

    def __init__(self, n: int, batch_size: int, *, seed: int) -> None:
        self.n, self.batch_size, self.seed, self.epoch = n, batch_size, seed, 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order is given next."""
        self.epoch = epoch

    def __len__(self) -> int:
        return -(-self.n // self.batch_size)

    def __iter__(self) -> Iterator[Tensor]:
        order = stream(self.seed, "order", self.epoch).permutation(self.n)
        yield from torch.from_numpy(order).split(self.batch_size)


class Batches:
    """Batches (tokens int64 (B, L), targets float32 (B, T)), cut to the longest sequence of each batch.

    Whole batches are indexed at once: with models this small, collating single
    items would cost more than the model.

    Batches that are too large for the memory come in parts, one after the other:
    (tokens, targets, present targets of the whole batch int64 ()). Their order and
    strands are those of the whole batches.

    Parameters
    ----------
    examples : Examples
    batch_size : int
    seed : int or None
        Seed of the order; None keeps the given order.
    augment_reverse_complement : bool
        Turn each sequence to its other strand with probability 1/2.
    micro_batch : int, optional
        Most examples of a part. By default batches are not split.
    """

    def __init__(
        self,
        examples: Examples,
        batch_size: int,
        *,
        seed: int | None = None,
        augment_reverse_complement: bool = False,
        micro_batch: int | None = None,
    ) -> None:
        self.examples = examples
        self.batch_size = batch_size
        self.micro_batch = micro_batch or batch_size
        self.order = None if seed is None else EpochBatchSampler(len(examples), batch_size, seed=seed)
        self.augment = augment_reverse_complement
        self.lengths = examples.lengths

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order and strands are given next."""
        if self.order is not None:
            self.order.set_epoch(epoch)

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
        tokens, targets, lengths = self.examples.tokens, self.examples.targets, self.lengths
        in_order = torch.arange(len(self.examples)).split(self.batch_size)
        generator = None
        if self.augment and self.order is not None:
            generator = stream(self.order.seed, "strands", self.order.epoch)
        for index in in_order if self.order is None else self.order:
            batch_BL = tokens[index, : int(lengths[index].max())]
            if generator is not None:
                turned_B = torch.from_numpy(generator.random(len(index)) < 0.5)
                batch_BL = torch.where(turned_B[:, None], reverse_complement_padded(batch_BL, lengths[index]), batch_BL)
            if self.n_parts == 1:
                yield batch_BL.long(), targets[index]
            else:
                yield from self._parts(batch_BL, targets[index], lengths[index])

    def _parts(self, batch_BL: Tensor, targets_BT: Tensor, lengths_B: Tensor) -> Iterator[tuple[Tensor, ...]]:
        n_present = (~targets_BT.isnan()).sum()
        split = (x.split(self.micro_batch) for x in (batch_BL, targets_BT, lengths_B))
        for tokens, targets, lengths in zip(*split, strict=True):
            yield tokens[:, : int(lengths.max())].long(), targets, n_present


_COMPLEMENT = torch.tensor([3, 2, 1, 0, alphabet.UNKNOWN, alphabet.PAD], dtype=torch.uint8)


def reverse_complement_padded(tokens_BL: Tensor, lengths_B: Tensor) -> Tensor:
    """Other strand of padded tokens, shape (B, L) uint8; the padding stays on the right."""
    from_BL = lengths_B[:, None] - 1 - torch.arange(tokens_BL.shape[1])
    turned_BL = _COMPLEMENT[tokens_BL.gather(1, from_BL.clamp(min=0)).long()]
    return torch.where(from_BL >= 0, turned_BL, torch.full_like(turned_BL, alphabet.PAD))


class ExampleModule(pl.LightningDataModule):
    """Lightning data module over a training and a validation part in memory.

    `micro_batch` and `evaluation_batch` are the most examples that are computed together, see `Plan`.
    """

    def __init__(
        self,
        train: Examples,
        validation: Examples,
        config: TrainConfig,
        *,
        seed: int,
        micro_batch: int | None = None,
        evaluation_batch: int | None = None,
    ) -> None:
        super().__init__()
        self.train_batches = Batches(
            train,
            config.batch_size,
            seed=seed,
            augment_reverse_complement=config.augment.reverse_complement,
            micro_batch=micro_batch,
        )
        self.validation_batches = Batches(validation, evaluation_batch or max(config.batch_size, EVALUATION_BATCH))

    def train_dataloader(self) -> Batches:
        """Shuffled training batches."""
        return self.train_batches

    def val_dataloader(self) -> Batches:
        """Validation batches in the given order."""
        return self.validation_batches


@torch.no_grad()
def predict(model: torch.nn.Module, tokens: Tensor, *, batch_size: int | None = None) -> NDArray[np.float64]:
    """Pre-link readouts (N, T) of tokens (N, L), on the model's device; the model's mode is left as it was.

    By default as many examples are taken at a time as fit into the memory of the
    machine, at most `EVALUATION_BATCH`.
    """
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    try:
        lengths = (tokens != alphabet.PAD).sum(1)
        # By length, so that a batch holds little padding.
        order = torch.argsort(lengths, stable=True)
        batch_size = batch_size or _fitting_batch(model, tokens[order[-2:], : int(lengths.max())].to(device), tokens)
        out = [
            model(tokens[index, : int(lengths[index].max())].long().to(device)).double().cpu()
            for index in order.split(batch_size)
        ]
        stacked = torch.cat(out)
        result = torch.empty_like(stacked)
        result[order] = stacked
        return result.numpy()
    finally:
        model.train(training)


def _fitting_batch(model: torch.nn.Module, longest: Tensor, tokens: Tensor) -> int:
    """Examples that fit into memory at a time, from what the longest two take."""
    with track_memory([*model.parameters(), longest]) as memory:
        before = memory.live_bytes
        model(longest.long())
    on_cuda = longest.is_cuda
    taken = before + (CUDA_BYTES if on_cuda else PROCESS_BYTES + tokens.nbytes)
    room = memory_limit("cuda" if on_cuda else "cpu") - taken
    each = (memory.peak_bytes - before) / len(longest) * (1 if on_cuda else HEAP_GAPS)
    return max(min(int(room / max(each, 1)), EVALUATION_BATCH), 1)
