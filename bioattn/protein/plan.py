"""Memory of a network over chains, asked for before it is spent."""

import math
from collections.abc import Sequence

import torch
from torch import nn

from bioattn.config import TrunkConfig
from bioattn.errors import ConfigError
from bioattn.protein.batches import Protein, collate
from bioattn.train.memory import (
    CUDA_BYTES,
    GIB,
    HEAP_GAPS,
    PROCESS_BYTES,
    memory_limit,
    track_memory,
)

#: Residues of the protein that is tried; memory grows with their square.
_TRIED = 48


def bytes_per_square(network: nn.Module, protein: Protein, *, gradients: bool) -> float:
    """Bytes of live tensors at the peak of a step, for each pair of residues of a protein: measured on a stretch of it.

    Parameters
    ----------
    gradients : bool
        Of training, or of a forward pass alone.
    """
    stretch = collate([protein], [0], min(_TRIED, len(protein.single)))
    held = [*network.parameters(), *(x for x in stretch if x is not None)]
    before_training = network.training
    network.train(gradients)
    try:
        with torch.random.fork_rng(), torch.set_grad_enabled(gradients), track_memory(held) as memory:
            before = memory.live_bytes
            made = network(*stretch.inputs)
            if gradients:
                made.float().square().mean().backward()
    finally:
        network.train(before_training)
        network.zero_grad(set_to_none=True)
    return (memory.peak_bytes - before) / stretch.single.shape[1] ** 2


def check_memory(
    network: nn.Module,
    config: TrunkConfig,
    train: Sequence[Protein],
    validation: Sequence[Protein],
    *,
    accelerator: str,
    limit_bytes: int | None = None,
) -> None:
    """See that a batch of the longest stretches, and one of the longest whole chains, fit into memory.

    Parameters
    ----------
    limit_bytes : int, optional
        By default what the device, job or container has.

    Raises
    ------
    ConfigError
        If they do not: what is needed, what there is, and settings that fit.
    """
    limit = memory_limit(accelerator) if limit_bytes is None else limit_bytes
    on_cuda = accelerator == "cuda"
    room = limit - (CUDA_BYTES if on_cuda else PROCESS_BYTES)
    gaps = 1.0 if on_cuda else HEAP_GAPS
    longest = max(train, key=lambda p: len(p.single))
    each = gaps * bytes_per_square(network, longest, gradients=True)
    length = min(config.crop, len(longest.single))
    needed = each * length**2 * config.batch_size
    if needed > room:
        crop = int(math.sqrt(max(room, 0) / each / config.batch_size))
        batch = max(int(room / each / length**2), 0)
        raise ConfigError(
            f"protein.trunk: a batch of {config.batch_size} stretches of {length} residues takes about "
            f"{needed / GIB:.1f} GiB, and there are {max(room, 0) / GIB:.1f}: set protein.trunk.crop to at most "
            f"{crop}, or batch_size to at most {batch}, or checkpointing to true, or take narrower pairs"
        )
    whole = max(len(p.single) for p in validation)
    needed = gaps * bytes_per_square(network, longest, gradients=False) * whole**2 * config.batch_size
    if needed > room:
        raise ConfigError(
            f"protein.trunk: {config.batch_size} whole chains of {whole} residues take about {needed / GIB:.1f} GiB "
            f"without gradients, and there are {max(room, 0) / GIB:.1f}: set protein.chains.most_residues or "
            "protein.trunk.batch_size lower"
        )
