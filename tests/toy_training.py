"""Small tables for training tests, and a script that trains and may kill itself (run as a file)."""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

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


#: Training settings of runs that are killed: the plain one, and one with all changes of sequences and two workers.
KILLED: dict[str, dict[str, Any]] = {
    "plain": {"epochs": 5, "resample": "bootstrap", "augment": {"reverse_complement": True}},
    "workers": {
        "epochs": 5,
        "resample": "bootstrap",
        "workers": 2,
        "augment": {
            "reverse_complement": True,
            "shift_bp": 3,
            "mutation_rate": 0.1,
            "deletion_bp": 2,
            "insertion_bp": 2,
            "clean_epochs": 1,
        },
    },
}


def toy_genome(path: Path, *, n_bases: int = 9000, seed: int = 0) -> str:
    """Write a FASTA file with a contig rich in some words and a short record, and return the contig."""
    rng = np.random.default_rng(seed)
    words = rng.choice(["AAAAAA", "TATAAT", "A", "C", "G", "T"], n_bases, p=[0.3, 0.2, 0.125, 0.125, 0.125, 0.125])
    contig = "".join(words)[:n_bases]
    path.write_text(f">contig of words\n{contig}\n>short\nACGTAC\n")
    return contig


def pretrain_run(fasta: Path, *, model: dict[str, Any] | None = None, **pretrain: Any) -> RunConfig:
    """Run with a tiny model and a section `pretrain`; further keyword arguments are its settings."""
    settings = {"fasta": [str(fasta)], "epochs": 3, "batch_size": 32, "learning_rate": 0.01, **pretrain}
    train = {"epochs": 3, "batch_size": 32, "learning_rate": 0.01, "device": "cpu"}
    return parse_run({"model": {**SMALL_MODEL, **(model or {})}, "train": train, "pretrain": settings})


def stop_at(step: int, patch: pytest.MonkeyPatch) -> None:
    """Raise in a step of training: the fast cousin of a kill."""
    from bioattn.train.module import StepModule

    training_step = StepModule.training_step

    def failing(self: StepModule, batch: Any, batch_idx: int) -> Any:
        if self.global_step == step:
            raise RuntimeError("stop")
        return training_step(self, batch, batch_idx)

    patch.setattr(StepModule, "training_step", failing)


def _die_at(kill: str) -> None:
    """Make this process die: with "step:7" in step 7, with "last:2" between best and last checkpoint of epoch 2."""
    from bioattn.train import checkpoint_io
    from bioattn.train.module import StepModule

    where, _, number = kill.partition(":")

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    if where == "step":
        training_step = StepModule.training_step

        def deadly_step(self: StepModule, batch: Any, batch_idx: int) -> Any:
            if self.global_step == int(number):
                die()
            return training_step(self, batch, batch_idx)

        StepModule.training_step = deadly_step  # type: ignore[method-assign]
    if where == "last":
        write = checkpoint_io.write_checkpoint

        def deadly_write(path: Any, state: dict[str, Any]) -> None:
            if Path(path).name == "last.ckpt" and state["epoch"] == int(number):
                (Path(path).parent / ".last.ckpt.half.ckpt").write_bytes(b"half")
                die()
            write(path, state)

        checkpoint_io.write_checkpoint = deadly_write


def _train_and_die(work_dir: Path, kill: str, what: str) -> None:
    """Train one of `KILLED`, or pretrain with `what` the path of a FASTA file, and die."""
    from bioattn.train.fit import fit
    from bioattn.train.pretrain import pretrain

    _die_at(kill)
    sequences, split = toy_tables()
    if what in KILLED:
        fit(small_run(**KILLED[what]), sequences, split, work_dir=work_dir)
    else:
        pretrain(pretrain_run(Path(what)), sequences, split, work_dir=work_dir)


if __name__ == "__main__":
    _train_and_die(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
