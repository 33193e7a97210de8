"""Training: one call from tables to a trained model, able to go on after a kill as if nothing had happened."""

import logging
import math
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import pandas as pd
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.plugins.environments import LightningEnvironment
from torch import nn

from bioattn.config import RunConfig, digest, step_settings
from bioattn.data.motif import Motif
from bioattn.errors import BioattnWarning, DataError
from bioattn.models import SequenceModel, build_model
from bioattn.rng import stream_seed
from bioattn.train.checkpoint_io import SafeCheckpointIO, find_checkpoint, read_checkpoint
from bioattn.train.data import Batches, ExampleModule, Examples, load_examples, target_scale, training_parts
from bioattn.train.devices import resolve_device
from bioattn.train.memory import GIB, freed_memory_returned
from bioattn.train.module import TrainingModule
from bioattn.train.plan import Plan, plan
from bioattn.train.provenance import run_record

_LOG = logging.getLogger(__name__)

#: Columns of `FitResult.history`, one row per epoch.
HISTORY = ("epoch", "step", "learning_rate", "train_loss", "validation_loss", "validation_metric", "seconds")

#: Remarks of Lightning that do not concern us: batches come from memory, and devices are reported by us.
_CHATTER = (
    ".*does not have many workers.*",
    ".*GPU available but not used.*",
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
    ".*in eval mode.*",
    ".*exists and is not empty.*",
    ".*srun.*",
)


class FitResult(NamedTuple):
    """A trained model in evaluation mode with its best weights, its epochs, and where it came from."""

    model: SequenceModel
    history: pd.DataFrame
    record: dict[str, Any]


class NetworkFit(NamedTuple):
    """As `FitResult`, for any network."""

    network: nn.Module
    history: pd.DataFrame
    record: dict[str, Any]


class RunKeeper(Checkpoint):
    """Keeps history, best weights, last state and the decision to stop, all written at one point of the epoch.

    Lightning's own callbacks write these at different moments and do not store that
    training had stopped, so a kill in between could change the result.
    """

    def __init__(self, folder: Path, *, patience: int) -> None:
        super().__init__()
        self.folder = folder
        self.patience = patience
        self.history: list[dict[str, Any]] = []
        self.best_loss = math.inf
        self.best_epoch = -1
        self.stopped = False
        self._began = 0.0

    @property
    def best(self) -> Path:
        """File of the best weights."""
        return self.folder / "best.ckpt"

    @property
    def last(self) -> Path:
        """File of the last complete epoch."""
        return self.folder / "last.ckpt"

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Start the clock and the epoch's order of examples."""
        self._began = time.perf_counter()
        trainer.datamodule.train_batches.set_epoch(trainer.current_epoch)  # type: ignore[attr-defined]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the epoch, keep it if it is the best, stop if none has been for long, write the state."""
        values = pl_module.epoch_values
        epoch = trainer.current_epoch
        seconds = time.perf_counter() - self._began
        row = {"epoch": epoch, "step": trainer.global_step, **values, "seconds": seconds}  # type: ignore[dict-item]
        self.history.append(row)
        if row["validation_loss"] < self.best_loss:
            self.best_loss, self.best_epoch = row["validation_loss"], epoch
            trainer.save_checkpoint(self.best, weights_only=True)
        if epoch - self.best_epoch >= self.patience:
            self.stopped = True
            trainer.should_stop = True
        trainer.save_checkpoint(self.last)
        _LOG.info(
            "epoch %d of %d: train loss %.4f, validation loss %.4f, validation metric %.4f (%.1f s)",
            epoch + 1, trainer.max_epochs, row["train_loss"], row["validation_loss"], row["validation_metric"], seconds,
        )  # fmt: skip

    def state_dict(self) -> dict[str, Any]:
        """All that decides how training goes on."""
        return {
            "history": [dict(row) for row in self.history],
            "best_loss": self.best_loss,
            "best_epoch": self.best_epoch,
            "stopped": self.stopped,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the state of an earlier process."""
        self.history = list(state_dict["history"])
        self.best_loss, self.best_epoch = state_dict["best_loss"], state_dict["best_epoch"]
        self.stopped = state_dict["stopped"]


def fit(
    run: RunConfig,
    sequences: pd.DataFrame,
    split: pd.DataFrame,
    *,
    fold: int = 0,
    seed: int = 1,
    work_dir: str | Path | None = None,
    motifs: Sequence[Motif] = (),
    progress: bool = True,
) -> FitResult:
    """Train the model of a run on one fold, and return it with its best weights.

    Killed at any moment and called again with the same arguments, it goes on from
    the last complete epoch and ends with the same weights, bit for bit on a CPU.

    Memory is planned beforehand: where a batch does not fit, its gradient is added
    up from parts, which changes it by rounding (and dropout draws other units).

    Parameters
    ----------
    run : RunConfig
    sequences, split : DataFrame
        As written by the `ingest` and `split` steps, see `load_examples`.
    fold : int
    seed : int
        Replicate: initial weights, order of examples, dropout, resampling. (`run.train.seeds` plays no part.)
    work_dir : path, optional
        Folder for checkpoints and logs; one folder per fold and seed. Without it
        nothing is kept and nothing can be resumed.
    motifs : sequence of Motif
        For a stem of kind "pwm".
    progress : bool
        Show a progress bar if standard error is a terminal.

    Raises
    ------
    ConfigError
        If there are fewer training examples than a batch, no such device, or not enough memory for one example.
    DataError
        If tables, columns or targets do not fit the task.
    BioattnError
        If the loss stops being finite.
    """
    parts = load_examples(sequences, split, run.task, fold=fold)
    planned = _plan(run, parts, motifs)
    model = build_model(
        run.model, n_readouts=run.task.n_readouts, motifs=motifs, seed=stream_seed(run.seed, "init", fold, seed)
    )
    with _folder(work_dir) as folder:
        result = fit_network(
            model, run, parts, fold=fold, seed=seed, work_dir=folder, planned=planned, progress=progress
        )
    return FitResult(model, result.history, result.record)


def _plan(run: RunConfig, parts: dict[str, Examples], motifs: Sequence[Motif]) -> Plan:
    train, validation = parts["train"], parts["validation"]
    lengths = torch.cat([train.lengths, validation.lengths])
    longest = int(lengths.max())
    with warnings.catch_warnings():  # which `fit_network` gives
        warnings.simplefilter("ignore", BioattnWarning)
        device = resolve_device(run.train.device, run.train.precision).accelerator
    planned = plan(
        len(train),
        longest,
        run,
        device,
        motifs=motifs,
        padded=bool((lengths < longest).any()),
        n_validation=len(validation),
    )
    _LOG.info("plan: %s", planned)
    return planned


def fit_network(
    network: nn.Module,
    run: RunConfig,
    parts: dict[str, Examples],
    *,
    fold: int,
    seed: int,
    work_dir: Path,
    step: str = "train",
    name: str = "transformer",
    planned: Plan | None = None,
    progress: bool = True,
) -> NetworkFit:
    """Train any network from tokens (B, L) to readouts (B, T); see `fit`. `network` itself is trained.

    Without a plan whole batches are computed at once. Baselines have none: a plan is
    made from the configuration of a model, and they are convolutions or recurrent
    networks of the model's size, which hold nothing per pair of tokens.
    """
    config, task = run.train, run.task
    device = resolve_device(config.device, config.precision)
    stream = stream_seed(run.seed, "train", name, fold, seed)
    train, validation = training_parts(parts, config, seed=stream)
    sd = None
    if task.kind == "regression":
        mean, sd = target_scale(parts["train"].targets)
        network.set_readout_scale(mean, sd)  # type: ignore[operator]
    data = ExampleModule(
        train,
        validation,
        config,
        seed=stream,
        micro_batch=None if planned is None else planned.micro_batch,
        evaluation_batch=None if planned is None else planned.evaluation_batch,
    )
    batches = data.train_batches
    identity: dict[str, object] = {
        "name": name,
        "digest": digest(_without_memory(step_settings(run, step))),
        "fold": fold,
        "seed": seed,
        "data": f"{train.fingerprint()}-{validation.fingerprint()}",
    }
    module = TrainingModule(
        network,
        kind=task.kind,
        config=config,
        steps_per_epoch=batches.n_batches,
        n_parts=batches.n_parts,
        seed=stream,
        target_sd=sd,
        identity=identity,
    )
    _make_folder(work_dir)
    keeper = RunKeeper(work_dir, patience=config.patience)
    with _torch_settings(config.threads), _quiet_lightning():
        resume = _resumable(keeper, identity)
        if resume is not None:
            keeper.load_state_dict(resume["callbacks"][keeper.state_key])
        if not (keeper.stopped or len(keeper.history) >= config.epochs):
            trainer = _trainer(
                run,
                keeper,
                device.accelerator,
                device.precision,
                batches=batches,
                progress=progress,
            )
            with freed_memory_returned() if planned is not None and planned.tight else nullcontext():
                trainer.fit(module, datamodule=data, ckpt_path=None if resume is None else keeper.last)
    best = read_checkpoint(keeper.best)["state_dict"]
    network.load_state_dict({k.removeprefix("network."): v for k, v in best.items()})
    network.to("cpu").eval()
    history = pd.DataFrame(keeper.history, columns=list(HISTORY))
    record = run_record(
        run,
        step=step,
        fold=fold,
        seed=seed,
        device=device,
        examples={"train": len(train), "validation": len(validation)},
        n_parameters=sum(p.numel() for p in network.parameters()),
        name=name,
        data=identity["data"],
        n_epochs=len(history),
        best_epoch=keeper.best_epoch,
        best_validation_loss=keeper.best_loss,
        stopped_early=keeper.stopped,
        seconds=round(float(history["seconds"].sum()), 3),
        resumed=resume is not None,
        **({} if planned is None else {"plan": _plan_record(planned)}),
    )
    return NetworkFit(network, history, record)


def _plan_record(planned: Plan) -> dict[str, Any]:
    return {
        "peak_gib": round(planned.peak_bytes / GIB, 3),
        "limit_gib": round(planned.limit_bytes / GIB, 3),
        "micro_batch": planned.micro_batch,
        "evaluation_batch": planned.evaluation_batch,
        "flops_per_step": planned.flops_per_step,
        "flops_total": planned.flops_total,
    }


def _without_memory(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a step less the memory it may take: in how many parts a batch is computed makes no other training."""
    return settings | {"train": {key: value for key, value in settings["train"].items() if key != "memory_gb"}}


def _trainer(
    run: RunConfig, keeper: RunKeeper, accelerator: str, precision: str, *, batches: Batches, progress: bool
) -> pl.Trainer:
    logs = keeper.folder / "logs"
    logger: list[Logger] = [CSVLogger(logs, name="csv", flush_logs_every_n_steps=1)]
    if find_spec("tensorboard"):
        logger.append(TensorBoardLogger(logs, name="tensorboard"))
    callbacks: list[Callback] = [keeper]
    bar = progress and sys.stderr.isatty()
    if bar:
        callbacks.append(TQDMProgressBar(refresh_rate=10))
    return pl.Trainer(
        accelerator=accelerator,
        devices=1,
        precision=precision,  # type: ignore[arg-type]
        max_epochs=run.train.epochs,
        accumulate_grad_batches=batches.n_parts,
        gradient_clip_val=run.train.gradient_clip,
        deterministic="warn",
        logger=logger,
        callbacks=callbacks,
        # LightningEnvironment: one process, also inside a cluster job, whose scheduler Lightning would else follow.
        plugins=[SafeCheckpointIO(), LightningEnvironment()],
        default_root_dir=keeper.folder,
        num_sanity_val_steps=0,
        log_every_n_steps=batches.n_batches,
        enable_progress_bar=bar,
        enable_model_summary=False,
    )


def _resumable(keeper: RunKeeper, identity: dict[str, object]) -> dict[str, Any] | None:
    """Last state of this very training, or None."""
    last = find_checkpoint(keeper.last)
    if last is None:
        return None
    found = last.get("identity", {})
    if found != identity:
        changed = sorted(k for k in identity if found.get(k) != identity[k])
        warnings.warn(
            f"{keeper.last} belongs to another training (differs in: {', '.join(changed)}); training starts anew",
            BioattnWarning,
            stacklevel=4,
        )
        return None
    # The best weights are written first, so a last state without them means that someone removed or broke them.
    if find_checkpoint(keeper.best) is None:
        warnings.warn(f"{keeper.best} is missing or damaged; training starts anew", BioattnWarning, stacklevel=4)
        return None
    return last


@contextmanager
def _folder(work_dir: str | Path | None) -> Iterator[Path]:
    if work_dir is not None:
        yield Path(work_dir)
        return
    with tempfile.TemporaryDirectory(prefix="bioattn-") as name:
        yield Path(name)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Left by a process that was killed while it wrote.
        for half in [*folder.glob(".best.ckpt.*"), *folder.glob(".last.ckpt.*")]:
            half.unlink(missing_ok=True)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be made ({error.strerror or error}): check the folder's permissions and free space"
        ) from None


@contextmanager
def _torch_settings(threads: int) -> Iterator[None]:
    """Threads, random state and determinism of training; the caller's come back afterwards."""
    before = torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    benchmark = torch.backends.cudnn.benchmark
    cublas = os.environ.get("CUBLAS_WORKSPACE_CONFIG")
    with torch.random.fork_rng():
        torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)
            torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
            torch.backends.cudnn.benchmark = benchmark
            if cublas is None:
                os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)


@contextmanager
def _quiet_lightning() -> Iterator[None]:
    """Lightning without its tips and device notices; warnings that may matter pass."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in _CHATTER:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
