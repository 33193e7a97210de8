"""A short training loop for experiments, and the scores they share."""

from collections.abc import Callable
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bioattn.errors import BioattnError

Inputs = TypeVar("Inputs")


def train_steps(
    network: nn.Module,
    batch: Callable[[], tuple[Inputs, Tensor]],
    *,
    steps: int,
    learning_rate: float,
    loss: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
    weight_decay: float = 0.0,
) -> nn.Module:
    """The network after so many steps of AdamW on batches drawn one after the other, in evaluation mode.

    The learning rate rises over a tenth of the steps, then falls as half a cosine.

    Raises
    ------
    BioattnError
        If the loss stops being finite.
    """
    optimiser = torch.optim.AdamW(network.parameters(), lr=learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=steps, pct_start=0.1)
    network.train()
    for step in range(steps):
        inputs, target = batch()
        value = loss(network(inputs), target)
        if not bool(value.isfinite()):
            raise BioattnError(f"training diverged at step {step}: the loss is {float(value)}")
        optimiser.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
    return network.eval()


@torch.no_grad()
def accuracy(network: nn.Module, inputs: Tensor, target: Tensor) -> float:
    """Share of examples whose largest logit is that of the target."""
    return float((network(inputs).argmax(-1) == target).float().mean())
