"""Readouts of many sequences in batches, on the model's own device, without gradients."""

import torch
from numpy.typing import NDArray
from torch import Tensor

from bioattn.errors import DataError
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


def require_readout(model: SequenceModel, codes: NDArray, readout: int) -> None:
    """Raise DataError if there is no sequence to explain, or no such readout."""
    if not len(codes):
        raise DataError("there is no sequence to look at")
    if not 0 <= readout < model.readout.out_features:
        raise DataError(
            f"readout {readout} does not exist: this model has {model.readout.out_features}, "
            f"numbered 0 to {model.readout.out_features - 1}"
        )
