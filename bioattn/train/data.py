"""Training, validation and test examples from tables, what the optimiser sees of them, and predictions."""

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from bioattn.config import AugmentConfig, TaskConfig, TrainConfig
from bioattn.data.splits import fold_columns
from bioattn.errors import BioattnWarning, ConfigError, DataError
from bioattn.rng import stream
from bioattn.train.batches import Batches
from bioattn.train.memory import CUDA_BYTES, HEAP_GAPS, PROCESS_BYTES, memory_limit, track_memory
from bioattn.train.store import Codes, Examples, codes_of_matrix, codes_of_texts, columns_of, read_sequences

SUBSETS = ("train", "validation", "test")
#: Batches without gradients can be larger: nothing is kept for a backward pass.
EVALUATION_BATCH = 1024


def load_examples(
    sequences: pd.DataFrame | str | Path,
    split: pd.DataFrame,
    task: TaskConfig,
    *,
    fold: int,
    subsets: Sequence[str] = SUBSETS,
) -> dict[str, Examples]:
    """Examples of each subset of one fold; all of them share the memory of one set of codes.

    Parameters
    ----------
    sequences : DataFrame or path of a parquet file
        Columns name, sequence and the targets of the task. From a file the text of the
        sequences is read piece by piece and never held whole.
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
        found = fold_columns(split)
        raise DataError(f"the split has no column '{column}', found {found}: choose one of these folds")
    # Only what is needed: the sequence table may have a `group` of its own, from the input.
    wanted = ["name", *task.targets]
    if isinstance(sequences, pd.DataFrame):
        _check_columns(list(sequences.columns), task)
        table, codes = sequences[wanted], _codes_of_column(sequences)
    else:
        _check_columns(columns_of(sequences), task)
        table, codes = read_sequences(sequences, wanted)
    for what, column_of in (("sequence table", table["name"]), ("split", split["name"])):
        if column_of.duplicated().any():
            first = column_of[column_of.duplicated()].iloc[0]
            raise DataError(f"the {what} holds '{first}' more than once: names must be unique")
    table = table.merge(split[["name", "group", column]], on="name", how="left", validate="one_to_one")
    unknown = table["name"][table[column].isna()]
    if len(unknown):
        raise DataError(f"{len(unknown)} sequences have no row in the split, first '{unknown.iloc[0]}': split again")
    targets = table[task.targets].to_numpy(np.float64, copy=True)
    names = table["name"].to_numpy(object)
    _check_targets(targets, names, task)
    whole = Examples(names, codes, torch.from_numpy(targets).float(), table["group"].to_numpy(np.int64))
    subset_of_row = table[column].to_numpy(object)
    parts = {subset: whole.take(np.flatnonzero(subset_of_row == subset)) for subset in subsets}
    for subset in ("train", "validation"):
        if subset in parts:
            _check_part(parts[subset], subset, task)
    return parts


def _check_columns(found: list[str], task: TaskConfig) -> None:
    missing = [c for c in ("name", "sequence", *task.targets) if c not in found]
    if missing:
        raise DataError(f"the sequence table has no column {missing}, found {found}: check task.targets")


def _codes_of_column(sequences: pd.DataFrame) -> Codes:
    missing = sequences["name"][sequences["sequence"].isna()]
    if len(missing):
        raise DataError(f"{len(missing)} sequences are missing, first that of '{missing.iloc[0]}': remove these rows")
    return codes_of_texts(sequences["sequence"])


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
        If there are fewer training examples than `train.batch_size`, or `train.augment` cannot be followed.
    """
    train, validation = parts["train"], parts["validation"]
    batch_size = batch_size or config.batch_size
    if len(train) < batch_size:
        raise ConfigError(
            f"train.batch_size is {batch_size} but there are {len(train)} training examples: "
            f"set train.batch_size to at most {len(train)}"
        )
    _check_augment(train, config.augment)
    if config.permute_labels:
        train = _permuted(train, seed, "train")
        validation = _permuted(validation, seed, "validation")
    if config.resample == "bootstrap":
        train = train.take(bootstrap_groups(train.groups, seed))
    return train, validation


def _check_augment(train: Examples, rules: AugmentConfig) -> None:
    longest = int(train.codes.lengths.max())
    for name in ("shift_bp", "deletion_bp", "insertion_bp"):
        if getattr(rules, name) >= longest:
            raise ConfigError(
                f"train.augment.{name} must be below the longest training sequence ({longest} bp), or nothing of a "
                f"sequence might be left, got {getattr(rules, name)}"
            )
    found = train.targets[:, 0].unique()
    if rules.only_labels and not torch.isin(torch.tensor(rules.only_labels, dtype=found.dtype), found).any():
        some = ", ".join(f"{value:g}" for value in found[:5].tolist())
        raise ConfigError(
            f"train.augment.only_labels is {rules.only_labels}, which no training example has, found {some}"
            f"{', ...' if len(found) > 5 else ''}: no sequence would ever be changed"
        )


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
            augment=config.augment,
            n_epochs=config.epochs,
            micro_batch=micro_batch,
            workers=config.workers,
        )
        self.validation_batches = Batches(validation, evaluation_batch or max(config.batch_size, EVALUATION_BATCH))

    def train_dataloader(self) -> Batches:
        """Shuffled training batches."""
        return self.train_batches

    def val_dataloader(self) -> Batches:
        """Validation batches in the given order."""
        return self.validation_batches

    def close(self) -> None:
        """End the processes that prepare batches."""
        self.train_batches.close()


@torch.no_grad()
def predict(
    model: torch.nn.Module, tokens: Tensor | Codes | Examples, *, batch_size: int | None = None
) -> NDArray[np.float64]:
    """Pre-link readouts (N, T) of sequences, on the model's device; the model's mode is left as it was.

    By default as many examples are taken at a time as fit into the memory of the
    machine, at most `EVALUATION_BATCH`.

    Parameters
    ----------
    tokens : Tensor (N, L), Codes or Examples
        Of the latter two only what is computed at a time is unpacked.
    """
    codes = tokens.codes if isinstance(tokens, Examples) else tokens
    if isinstance(codes, Tensor):
        codes = codes_of_matrix(codes.numpy().astype(np.uint8, copy=False))
    device = next(model.parameters()).device
    training = model.training
    model.eval()
    try:
        # By length, so that a batch holds little padding.
        order = np.argsort(codes.lengths, kind="stable")
        batch_size = batch_size or _fitting_batch(model, torch.from_numpy(codes.rows(order[-2:])).to(device), codes)
        out = [
            model(torch.from_numpy(codes.rows(order[start : start + batch_size])).to(device).long()).double().cpu()
            for start in range(0, len(order), batch_size)
        ]
        stacked = torch.cat(out).numpy()
        result = np.empty_like(stacked)
        result[order] = stacked
        return result
    finally:
        model.train(training)


def _fitting_batch(model: torch.nn.Module, longest: Tensor, codes: Codes) -> int:
    """Examples that fit into memory at a time, from what the longest two take."""
    with track_memory([*model.parameters(), longest]) as memory:
        before = memory.live_bytes
        model(longest.long())
    on_cuda = longest.is_cuda
    taken = before + (CUDA_BYTES if on_cuda else PROCESS_BYTES + codes.flat.nbytes)
    room = memory_limit("cuda" if on_cuda else "cpu") - taken
    each = (memory.peak_bytes - before) / len(longest) * (1 if on_cuda else HEAP_GAPS)
    return max(min(int(room / max(each, 1)), EVALUATION_BATCH), 1)
