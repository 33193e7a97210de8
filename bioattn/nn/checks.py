"""Checks of what a caller passes in, with messages that say what was found and what is allowed."""

import torch
from torch import Tensor

from bioattn.errors import ConfigError, DataError


def values_known(x: Tensor) -> bool:
    """Whether `x` holds numbers that may be looked at: not while a step is compiled, nor in a dry run on shapes."""
    return type(x) in (Tensor, torch.nn.Parameter) and x.device.type != "meta" and not torch.compiler.is_compiling()


def check_heads(d_model: int, n_heads: int) -> None:
    """Raise `ConfigError` unless the width divides into heads."""
    if n_heads < 1 or d_model % n_heads:
        raise ConfigError(f"d_model must be a multiple of n_heads, got {d_model} and {n_heads}")


def check_attention(
    query: Tensor, key: Tensor, value: Tensor | None, *, bias: Tensor | None = None, keep: Tensor | None = None
) -> None:
    """Raise `DataError` unless the shapes and types are those of one attention."""
    shapes = {"query": query, "key": key} | ({} if value is None else {"value": value})
    for name, x in shapes.items():
        if x.ndim != 4:
            raise DataError(f"{name} must have the axes (batch, head, position, channel), got shape {tuple(x.shape)}")
    if query.shape[:2] != key.shape[:2] or query.shape[-1] != key.shape[-1]:
        raise DataError(
            "query and key must agree in batch, heads and channels, "
            f"got shapes {tuple(query.shape)} and {tuple(key.shape)}"
        )
    if value is not None and key.shape[:3] != value.shape[:3]:
        raise DataError(
            "key and value must agree in batch, heads and positions, "
            f"got shapes {tuple(key.shape)} and {tuple(value.shape)}"
        )
    target = (*query.shape[:3], key.shape[2])
    for name, term in {"bias": bias, "keep": keep}.items():
        if term is not None and not _fits(term, target):
            raise DataError(
                f"{name} must broadcast to (batch, head, query, key) = {target}, got shape {tuple(term.shape)}"
            )
    if keep is not None and keep.dtype != torch.bool:
        raise DataError(f"keep must be boolean, True = may attend, got {keep.dtype}")


def check_tokens(x_BLD: Tensor, keep: Tensor | None, d_model: int) -> None:
    """Raise `DataError` unless tokens (B, L, D) and their padding mask (B, L) can be encoded.

    An example without any real token and a real token that is not finite are refused;
    what padded tokens hold does not matter.
    """
    if x_BLD.ndim != 3 or x_BLD.shape[-1] != d_model:
        raise DataError(f"tokens must have shape (batch, length, {d_model}), got {tuple(x_BLD.shape)}")
    if x_BLD.shape[1] == 0:
        raise DataError(f"there is no token to encode: tokens have shape {tuple(x_BLD.shape)}")
    if keep is not None:
        if keep.shape != x_BLD.shape[:2]:
            raise DataError(f"keep must have shape (batch, length) = {tuple(x_BLD.shape[:2])}, got {tuple(keep.shape)}")
        if keep.dtype != torch.bool:
            raise DataError(f"keep must be boolean, True = real token, got {keep.dtype}")
        if values_known(keep) and not bool(keep.any(1).all()):
            rows = (~keep.any(1)).nonzero().flatten().tolist()
            raise DataError(f"examples {_few(rows)} of the batch hold padding only: leave them out")
    # One reduction: the sum is finite unless a token is not (or values near the largest float, looked at below).
    if values_known(x_BLD):
        real = x_BLD if keep is None else x_BLD.masked_fill(~keep[..., None], 0.0)
        if not bool(real.detach().sum(dtype=torch.float32).isfinite()):
            bad = (~real.isfinite().all(-1)).nonzero().tolist()
            if bad:
                raise DataError(
                    f"tokens hold NaN or infinity at (example, position) {_few([tuple(b) for b in bad])}: "
                    "check the input, or the training for divergence"
                )


def _fits(x: Tensor, target: tuple[int, ...]) -> bool:
    sizes = zip(reversed(x.shape), reversed(target), strict=False)
    return x.ndim <= len(target) and all(ours in (1, theirs) for ours, theirs in sizes)


def _few(items: list) -> str:
    return ", ".join(map(str, items[:5])) + (f" and {len(items) - 5} more" if len(items) > 5 else "")
