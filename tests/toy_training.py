"""Small tables for training tests, and a script that trains and may kill itself (run as a file)."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bioattn.config import RunConfig, parse_run

SMALL_MODEL = {
    "d_model": 16,
    "n_layers": 1,
    "n_heads": 2,
    "d_feedforward": 16,
    "stem": {"n_filters": 8, "width": 7, "pool": 2},
}


def small_run(*, task: dict[str, Any] | None = None, evaluate: dict[str, Any] | None = None, **train: Any) -> RunConfig:
    """Run with a tiny model; keyword arguments are training settings."""
    settings = {"epochs": 3, "batch_size": 32, "learning_rate": 0.01, "device": "cpu", **train}
    document = {"model": SMALL_MODEL, "task": task or {}, "train": settings, "evaluate": evaluate or {}}
    return parse_run(document)


def toy_tables(
    n: int = 300, length: int = 23, *, motif: str = "TATAAT", kind: str = "binary", seed: int = 0, n_folds: int = 1
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Sequences whose target says whether (or how strongly) a motif was planted, and a split in groups of two."""
    rng = np.random.default_rng(seed)
    letters = rng.choice(list("ACGT"), size=(n, length))
    planted = rng.random(n) < 0.5
    for row in np.flatnonzero(planted):
        start = rng.integers(0, length - len(motif) + 1)
        letters[row, start : start + len(motif)] = list(motif)
    target = planted.astype(float)
    if kind == "regression":
        target = 100 + 10 * planted + rng.normal(size=n)
    if kind == "count":
        target = rng.poisson(np.where(planted, 20.0, 2.0)).astype(float)
    sequences = pd.DataFrame(
        {"name": [f"s{i}" for i in range(n)], "sequence": ["".join(row) for row in letters], "label": target}
    )
    split = pd.DataFrame({"name": sequences["name"], "group": np.arange(n) // 2})
    for fold in range(n_folds):
        part = (split["group"].to_numpy() + fold) % 10
        split[f"fold_{fold}"] = np.where(part < 7, "train", np.where(part < 8, "validation", "test"))
    return sequences, split


def _train_and_die(work_dir: Path, kill: str) -> None:
    """Train; with `kill` "step:7" die in step 7, with "last:2" between best and last checkpoint of epoch 2."""
    from bioattn.train import checkpoint_io
    from bioattn.train.fit import fit
    from bioattn.train.module import TrainingModule

    where, _, number = kill.partition(":")

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if where == "step":
        training_step = TrainingModule.training_step

        def deadly_step(self: TrainingModule, batch: Any, batch_idx: int) -> Any:
            if self.global_step == int(number):
                die()
            return training_step(self, batch, batch_idx)

        TrainingModule.training_step = deadly_step  # type: ignore[method-assign]
    if where == "last":
        write = checkpoint_io.write_checkpoint

        def deadly_write(path: Any, state: dict[str, Any]) -> None:
            if Path(path).name == "last.ckpt" and state["epoch"] == int(number):
                (Path(path).parent / ".last.ckpt.half.ckpt").write_bytes(b"half")
                die()
            write(path, state)

        checkpoint_io.write_checkpoint = deadly_write
    sequences, split = toy_tables()
    fit(
        small_run(epochs=5, resample="bootstrap", augment={"reverse_complement": True}),
        sequences,
        split,
        work_dir=work_dir,
    )


if __name__ == "__main__":
    _train_and_die(Path(sys.argv[1]), sys.argv[2])
