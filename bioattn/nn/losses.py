"""Losses of readouts, by the kind of task."""

import torch
import torch.nn.functional as F
from torch import Tensor


def losses(kind: str, readouts: Tensor, targets: Tensor, sd: Tensor | None = None) -> Tensor:
    """Loss of every example and target (B, T), or (B, 1) for multiclass; zero where the target is missing.

    Parameters
    ----------
    kind : {"binary", "multilabel", "multiclass", "regression", "count"}
    readouts : Tensor, shape (B, T)
        Pre-link readouts: logits, log rates, or values.
    targets : Tensor, float32, shape (B, T), or (B, 1) for multiclass
        NaN is missing.
    sd : Tensor, shape (T,), optional
        Regression: errors are measured in units of it.
    """
    # At least float32: halves come from mixed precision, doubles from comparisons.
    readouts = readouts.to(torch.promote_types(readouts.dtype, torch.float32))
    # Zero instead of NaN: a masked NaN would still make the gradient NaN.
    filled = targets.nan_to_num(0.0).to(readouts.dtype)
    if kind == "multiclass":
        found = F.cross_entropy(readouts, filled[:, 0].long(), reduction="none")[:, None]
    elif kind in ("binary", "multilabel"):
        found = F.binary_cross_entropy_with_logits(readouts, filled, reduction="none")
    elif kind == "count":
        found = F.poisson_nll_loss(readouts, filled, log_input=True, reduction="none")
    else:
        error = readouts - filled
        found = (error if sd is None else error / sd) ** 2
    return torch.where(targets.isnan(), torch.zeros_like(found), found)
