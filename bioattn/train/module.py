"""Lightning modules: the loss of each kind of task, AdamW, warm-up and cosine, one validation loss and metric."""

import math
import re
from collections.abc import Collection
from typing import Required, TypedDict, Unpack

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

from bioattn.config import TrainConfig
from bioattn.errors import BioattnError, DataError
from bioattn.nn.losses import losses
from bioattn.rng import stream_seed
from bioattn.train.metrics import validation_metric

#: Parameters that are tables of positions: decaying them would pull all positions together.
_POSITIONAL = re.compile(r"position|relative|embed")


def loss_sum(kind: str, readouts: Tensor, targets: Tensor, sd: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Summed loss over present targets, and their number.

    The sum and the count, not the mean, so that parts add up exactly whatever
    their size and whatever is missing.

    Parameters as for `bioattn.nn.losses.losses`.

    Returns
    -------
    Tensor, at least float32, scalar
    Tensor, int64, scalar
    """
    return losses(kind, readouts, targets, sd).sum(), (~targets.isnan()).sum()


def decay_groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """AdamW parameter groups: matrices decay; biases, norms, embeddings and positional tables do not."""
    exempt_modules = (nn.Embedding, nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, nn.modules.batchnorm._BatchNorm)
    exempt = {id(p) for m in model.modules() if isinstance(m, exempt_modules) for p in m.parameters(recurse=False)}
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            free = parameter.ndim < 2 or id(parameter) in exempt or _POSITIONAL.search(name)
            (kept if free else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def warmup_cosine(step: int, *, n_steps: int, n_warmup: int) -> float:
    """Factor of the learning rate at a step: a linear rise over `n_warmup` steps, then half a cosine to zero."""
    if step < n_warmup:
        return (step + 1) / n_warmup
    return 0.5 * (1 + math.cos(math.pi * min((step - n_warmup) / max(n_steps - n_warmup, 1), 1.0)))


class StepOptions(TypedDict, total=False):
    """Options of every `StepModule`."""

    config: Required[TrainConfig]
    steps_per_epoch: Required[int]
    seed: Required[int]
    n_parts: int
    identity: dict[str, object] | None
    frozen: Collection[str]
    freeze_epochs: int


class StepModule(pl.LightningModule):
    """What every training of ours shares: optimiser and schedule, random streams, losses that add up.

    A subclass says what the loss is (`_loss`) and sums an epoch up in `epoch_values`,
    of which "validation_loss" decides which epoch is the best.

    Parameters
    ----------
    network : nn.Module
    config : TrainConfig
    steps_per_epoch : int
        Optimisation steps.
    n_parts : int
        Parts that each batch comes in, whose gradients are added up before a step.
    seed : int
        Seed of the random streams of training (dropout).
    identity : dict, optional
        Stored in every checkpoint; says which training the checkpoint belongs to.
    frozen : collection of str
        Parameters of the network that the first `freeze_epochs` epochs leave alone.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        config: TrainConfig,
        steps_per_epoch: int,
        seed: int,
        n_parts: int = 1,
        identity: dict[str, object] | None = None,
        frozen: Collection[str] = (),
        freeze_epochs: int = 0,
    ) -> None:
        super().__init__()
        self.network = network
        self.config = config
        self.steps_per_epoch = steps_per_epoch
        self.n_parts = n_parts
        self.seed = seed
        self.identity = identity or {}
        self.freeze_epochs = freeze_epochs
        self._frozen = [p for name, p in network.named_parameters() if name in frozen and p.requires_grad]
        self._train: list[tuple[Tensor, Tensor]] = []
        #: Numbers of the epoch that just ended; the run keeper reads them.
        self.epoch_values: dict[str, float] = {}

    def start_epoch(self) -> None:
        """Set all random numbers of this epoch from (seed, epoch), so that it repeats after a resume."""
        torch.manual_seed(stream_seed(self.seed, "epoch", self.current_epoch))

    def on_train_epoch_start(self) -> None:
        """Start the epoch's random streams, and freeze or free what is frozen at first."""
        self.start_epoch()
        self._free(self.current_epoch >= self.freeze_epochs)

    def on_fit_end(self) -> None:
        """Leave all parameters trainable that were."""
        self._free(True)

    def _free(self, free: bool) -> None:
        # The optimiser holds all of them from the start, and skips those without a gradient.
        for parameter in self._frozen:
            parameter.requires_grad_(free)

    def training_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> Tensor:
        """Mean loss of a batch, or what a part of a batch adds to it, times the number of parts."""
        try:
            total, n = self._loss(batch)
        except DataError:
            self._mean_train_loss()  # says so if the NaN comes from training itself
            raise
        # Kept as tensors and read once per epoch: reading each would stall a GPU.
        self._train.append((total.detach(), n))
        if self.n_parts == 1:
            return total / n.clamp(min=1)
        # Divided by the present targets of the whole batch, which its parts do not share evenly. Lightning divides
        # by the number of parts, also where the last batch of an epoch has fewer.
        return total * self.n_parts / batch[2].clamp(min=1)

    def on_train_epoch_end(self) -> None:
        """Forget the epoch's losses."""
        self._train.clear()

    def configure_optimizers(self):  # type: ignore[no-untyped-def]  # noqa: ANN201 - Lightning's type is a union of nine
        """AdamW with warm-up and cosine by step."""
        groups = decay_groups(self.network, self.config.weight_decay)
        optimizer = torch.optim.AdamW(groups, lr=self.config.learning_rate)
        n_steps = self.config.epochs * self.steps_per_epoch
        n_warmup = round(self.config.warmup_fraction * n_steps)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: warmup_cosine(step, n_steps=n_steps, n_warmup=n_warmup)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        """Mark the checkpoint with the identity of this training."""
        checkpoint["identity"] = dict(self.identity)

    def _loss(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        """Summed loss of a batch, and the number of its terms."""
        raise NotImplementedError

    def _learning_rate(self) -> float:
        return float(self.optimizers().param_groups[0]["lr"])  # type: ignore[union-attr]

    def _mean_train_loss(self) -> float:
        if not self._train:
            return math.nan
        totals, counts = (torch.stack(x).double() for x in zip(*self._train, strict=True))
        bad = (~totals.isfinite()).nonzero()
        if len(bad):
            step = self.current_epoch * self.steps_per_epoch + int(bad[0]) // self.n_parts
            raise _diverged(f"training loss is {float(totals[bad[0]])}", self.current_epoch, step)
        return float(totals.sum() / counts.sum().clamp(min=1))

    def _checked(self, validation_loss: float) -> float:
        """The validation loss. Raises `BioattnError` if it is not finite."""
        if not math.isfinite(validation_loss):
            raise _diverged(f"validation loss is {validation_loss}", self.current_epoch, self.global_step)
        return validation_loss


class TrainingModule(StepModule):
    """A network with the loss of a task.

    Parameters
    ----------
    network : nn.Module
        Tokens (B, L) to pre-link readouts (B, T).
    kind : str
        Task kind, see `loss_sum`.
    target_sd : Tensor, shape (T,), optional
        Regression: unit of the error.
    further
        See `StepModule`.
    """

    def __init__(
        self, network: nn.Module, *, kind: str, target_sd: Tensor | None = None, **further: Unpack[StepOptions]
    ) -> None:
        super().__init__(network, **further)
        self.target_sd: Tensor | None
        self.kind = kind
        self.register_buffer("target_sd", target_sd, persistent=False)
        self._validation: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Collect loss and predictions of a batch."""
        tokens, targets = batch
        readouts = self.network(tokens)
        total, n = loss_sum(self.kind, readouts, targets, self.target_sd)
        self._validation.append((total, n, readouts.float(), targets))

    def on_validation_epoch_end(self) -> None:
        """Sum the epoch up: training loss, validation loss, validation metric."""
        totals, counts, readouts, targets = zip(*self._validation, strict=True)
        self._validation.clear()
        validation_loss = float(torch.stack(totals).sum() / torch.stack(counts).sum().clamp(min=1))
        train_loss = self._mean_train_loss()
        self._checked(validation_loss)
        all_targets, all_readouts = (torch.cat(x).double().cpu().numpy() for x in (targets, readouts))
        metric = validation_metric(self.kind, all_targets, all_readouts)
        self.epoch_values = {
            "learning_rate": self._learning_rate(),
            "train_loss": train_loss,
            "validation_loss": validation_loss,
            "validation_metric": metric,
        }
        self.log_dict(self.epoch_values)

    def _loss(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        tokens, targets = batch[:2]
        return loss_sum(self.kind, self.network(tokens), targets, self.target_sd)


def _diverged(what: str, epoch: int, step: int) -> BioattnError:
    return BioattnError(
        f"training diverged: {what} at epoch {epoch}, step {step}, it must be finite: "
        "lower train.learning_rate or train.gradient_clip, or check the targets for extreme values"
    )
