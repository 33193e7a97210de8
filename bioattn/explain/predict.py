"""Readouts of many sequences in batches, on the model's own device, without gradients."""

import torch
from numpy.typing import NDArray
from torch import Tensor

from bioattn.models import SequenceModel

#: Sequences per forward pass: large enough to keep a GPU busy, small enough for a laptop.
BATCH = 512


@torch.inference_mode()
def predict(model: SequenceModel, codes: NDArray, *, batch_size: int = BATCH) -> NDArray:
    """Readouts on the pre-link scale, float32, shape (N, T), of codes (N, L)."""
    device = next(model.parameters()).device
    parts = [model(batch.to(device)).cpu() for batch in batches(codes, batch_size)]
    return torch.cat(parts).numpy()


def batches(codes: NDArray, batch_size: int = BATCH) -> list[Tensor]:
    """Token batches, int64, of codes (N, L)."""
    return list(torch.from_numpy(codes.astype("int64")).split(batch_size))
