"""The training loop: any module over any batches, able to go on after a kill as if nothing had happened."""

import logging
import math
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import Callback, Checkpoint, TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger
from lightning.pytorch.plugins.environments import LightningEnvironment
from torch import Tensor

from bioattn.config import TrainConfig
from bioattn.errors import BioattnWarning, DataError
from bioattn.train.checkpoint_io import SafeCheckpointIO, find_checkpoint, read_checkpoint
from bioattn.train.devices import Device
from bioattn.train.memory import freed_memory_returned
from bioattn.train.module import StepModule

_LOG = logging.getLogger(__name__)

#: File in the folder of a training from which processes that prepare batches read the sequences.
CODES = "codes.bin"
#: Remarks of Lightning that do not concern us: batches come from memory, and devices are reported by us.
_CHATTER = (
    ".*does not have many workers.*",
    ".*GPU available but not used.*",
    ".*`isinstance\\(treespec, LeafSpec\\)` is deprecated.*",
    ".*in eval mode.*",
    ".*exists and is not empty.*",
    ".*srun.*",
)


class RunKeeper(Checkpoint):
    """Keeps history, best weights, last state and the decision to stop, all written at one point of the epoch.

    Lightning's own callbacks write these at different moments and do not store that
    training had stopped, so a kill in between could change the result.
    """

    def __init__(self, folder: Path, *, patience: int, n_epochs: int) -> None:
        super().__init__()
        self.folder = folder
        self.patience = patience
        # At high learning rates the loss often rises for many epochs before it falls again.
        self.waits_from = (n_epochs - 1) // 2
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
        assert isinstance(pl_module, StepModule)
        values = pl_module.epoch_values
        epoch = trainer.current_epoch
        seconds = time.perf_counter() - self._began
        row = {"epoch": epoch, "step": trainer.global_step, **values, "seconds": seconds}
        self.history.append(row)
        if row["validation_loss"] < self.best_loss:
            self.best_loss, self.best_epoch = row["validation_loss"], epoch
            trainer.save_checkpoint(self.best, weights_only=True)
        if epoch - max(self.best_epoch, self.waits_from) >= self.patience:
            self.stopped = True
            trainer.should_stop = True
        trainer.save_checkpoint(self.last)
        shown = [f"{key.replace('_', ' ')} {value:.4f}" for key, value in values.items() if key != "learning_rate"]
        _LOG.info("epoch %d of %d: %s (%.1f s)", epoch + 1, trainer.max_epochs, ", ".join(shown), seconds)

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


class Course(NamedTuple):
    """How a training went: its epochs, the module's state in the best one, and whether it had been cut off before."""

    history: list[dict[str, Any]]
    best: dict[str, Tensor]
    best_epoch: int
    best_loss: float
    stopped: bool
    resumed: bool


class EpochBatches(Protocol):
    """Training batches that a module's data hold as `train_batches`."""

    @property
    def n_batches(self) -> int:
        """Whole batches of an epoch."""

    @property
    def n_parts(self) -> int:
        """Parts of a whole batch."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches are given next."""


class EpochData(Protocol):
    """Data of a training: a Lightning data module with these batches."""

    @property
    def train_batches(self) -> EpochBatches:
        """Training batches."""


def train_module(
    module: StepModule,
    data: EpochData,
    config: TrainConfig,
    *,
    device: Device,
    work_dir: Path,
    progress: bool = True,
    tight: bool = False,
) -> Course:
    """Train a module; goes on from the last complete epoch of the same training (`module.identity`) in `work_dir`.

    Parameters
    ----------
    config : TrainConfig
        Its epochs, patience, gradient_clip and threads count here.
    work_dir : path
        Folder for checkpoints and logs, see `make_folder`.
    tight : bool
        Give freed memory back at once, see `freed_memory_returned`.
    """
    keeper = RunKeeper(work_dir, patience=config.patience, n_epochs=config.epochs)
    with _torch_settings(config.threads), _quiet_lightning():
        resume = _resumable(keeper, module.identity)
        if resume is not None:
            keeper.load_state_dict(resume["callbacks"][keeper.state_key])
        if not (keeper.stopped or len(keeper.history) >= config.epochs):
            trainer = _trainer(config, keeper, device, batches=data.train_batches, progress=progress)
            with freed_memory_returned() if tight else nullcontext():
                trainer.fit(
                    module,
                    datamodule=data,  # type: ignore[arg-type]
                    ckpt_path=None if resume is None else keeper.last,
                )
    best = read_checkpoint(keeper.best)["state_dict"]
    return Course(keeper.history, best, keeper.best_epoch, keeper.best_loss, keeper.stopped, resume is not None)


def best_weights(course: Course) -> dict[str, Tensor]:
    """State of the network of a module in the best epoch."""
    return {key.removeprefix("network."): value for key, value in course.best.items()}


def _trainer(
    config: TrainConfig, keeper: RunKeeper, device: Device, *, batches: EpochBatches, progress: bool
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
        accelerator=device.accelerator,
        devices=1,
        precision=device.precision,  # type: ignore[arg-type]
        max_epochs=config.epochs,
        accumulate_grad_batches=batches.n_parts,
        gradient_clip_val=config.gradient_clip,
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
def work_folder(work_dir: str | Path | None) -> Iterator[Path]:
    """The folder that was named, or a temporary one."""
    if work_dir is not None:
        yield Path(work_dir)
        return
    with tempfile.TemporaryDirectory(prefix="bioattn-") as name:
        yield Path(name)


def make_folder(folder: Path) -> None:
    """Make the folder of a training, and remove what a process left there that was killed while it wrote.

    Raises
    ------
    DataError
        If it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for pattern in (".best.ckpt.*", ".last.ckpt.*", f"*{CODES}*"):
            for half in folder.glob(pattern):
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
