"""How few edges of attention are enough: the strongest are kept as they are, all others made uniform."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.integrate import trapezoid
from torch import Tensor

from bioattn import rng
from bioattn.data.weighted import interval
from bioattn.errors import DataError
from bioattn.explain.path_patching import rows_at_once
from bioattn.models import SequenceModel
from bioattn.nn import taps

#: Shares of the edges that are kept: close to each other where a few strong edges are found.
KEPT = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
#: What edges are ranked by: the pattern itself, its product with the gradient of the readout (its size), and chance.
RANKINGS = ("pattern", "gradient", "random")
#: Draws of the bootstrap over sequences.
_BOOTSTRAP = 1000
#: Edges that are looked at together: about 3 GiB. A sequence with more is too long for this.
_MOST_EDGES = 2**26


def edge_sufficiency(
    model: SequenceModel,
    codes: NDArray[np.uint8],
    *,
    readout: int = 0,
    kept: Sequence[float] = KEPT,
    seed: int = 0,
) -> pd.DataFrame:
    """Share of the variance of the readout that a model explains when only its first edges are its own.

    An edge is an entry of a pattern that is not zero: a query, a key it may read, a head, a layer. All edges of a
    sequence are ranked together. Those that are kept have the weight that the intact model gives them, in every
    layer; what is left of a query's attention is spread evenly over its other edges. So with none kept attention
    is uniform, and with all it is the model's own.

    Only the given strand is looked at.

    Parameters
    ----------
    codes : ndarray, uint8, shape (N, L)
    kept : sequence of float
        Shares of the edges, 0 to 1.
    seed : int
        Of the random order and the bootstrap.

    Returns
    -------
    DataFrame
        ranking ("pattern", "gradient", "random"), kept, explained: one minus the squared difference from the intact
        readout over its squared deviation from the mean, over sequences (below 0: worse than the mean); ci_low,
        ci_high of a bootstrap over sequences; area, area_ci_low, area_ci_high under the ranking's curve beyond that of
        random edges, over shares kept, the same in all rows of a ranking; n sequences; note, why something is NaN.

    Raises
    ------
    DataError
        If the model has no attention, there is no sequence, or shares do not increase inside 0 to 1.

    Source: comprehensiveness and sufficiency of DeYoung et al. 2020, here for edges.
    """
    if model.n_heads == 0:
        raise DataError("this model has no attention, so it has no edges to keep")
    if not len(codes):
        raise DataError("there is no sequence to look at")
    if not len(kept) or not 0 <= kept[0] <= kept[-1] <= 1 or list(kept) != sorted(kept):
        raise DataError(f"shares of edges must lie between 0 and 1, in increasing order, got {list(kept)}")
    n = len(codes)
    device = next(model.parameters()).device
    tokens = torch.from_numpy(codes.astype(np.int64)).to(device)
    n_edges = model.n_layers * model.n_heads * (model.real_tokens(tokens).shape[1] + model.n_prefix) ** 2
    if n_edges > _MOST_EDGES:
        unknown = np.full((2, len(RANKINGS), len(kept)), np.nan)
        return _table(unknown, kept, n, f"left out: {n_edges} edges of a sequence, more than {_MOST_EDGES}")
    draw = torch.Generator().manual_seed(rng.stream_seed(seed, "edges", "random"))
    step = max(1, min(rows_at_once(codes.shape[1]), _MOST_EDGES // n_edges))
    parts = [_readouts(model, tokens[start : start + step], readout, kept, draw) for start in range(0, n, step)]
    intact = np.concatenate([part[0] for part in parts])
    reduced = np.concatenate([part[1] for part in parts], axis=2)  # (rankings, shares, N)
    weights = rng.stream(seed, "edges", "bootstrap").multinomial(n, np.full(n, 1 / n), _BOOTSTRAP)
    weights = np.concatenate([np.ones((1, n), dtype=np.int64), weights])  # the first is all sequences once
    note = "all readouts are the same: there is no variance to explain" if np.ptp(intact) == 0 else ""
    return _table(_explained(intact, reduced, weights), kept, n, note)


def _readouts(
    model: SequenceModel, tokens: Tensor, readout: int, kept: Sequence[float], draw: torch.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Readouts (B,) of the intact model, and (rankings, shares, B) with edges made uniform."""
    names = [f"layer.{layer}.attn.pattern" for layer in range(model.n_layers)]
    with torch.enable_grad(), taps.record(model, names) as store:
        whole = model.one_strand(tokens)[:, readout]
    patterns = [store[name] for name in names]
    slopes = torch.autograd.grad(whole.sum(), patterns)
    weights = [pattern.detach() for pattern in patterns]
    orders = {
        "pattern": weights,
        "gradient": [(w * slope).abs() for w, slope in zip(weights, slopes, strict=True)],
        "random": [torch.rand(w.shape, generator=draw).to(w.device) for w in weights],
    }
    found = np.empty((len(RANKINGS), len(kept), len(tokens)))
    for i, ranking in enumerate(RANKINGS):
        rank = _ranks(weights, orders[ranking])
        for j, share in enumerate(kept):
            edits = {
                name: taps.patch(_reduced(weight, own < torch.round(share * total)))
                for name, weight, (own, total) in zip(names, weights, rank, strict=True)
            }
            with torch.no_grad(), taps.edit(model, edits):
                found[i, j] = model.one_strand(tokens)[:, readout].double().cpu().numpy()
    return whole.detach().double().cpu().numpy(), found


def _ranks(weights: Sequence[Tensor], values: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    """For each layer the rank (B, H, Q, K) of its edges among those of all layers, 0 the first, and their number."""
    flat = torch.cat([v.masked_fill(w == 0, -1.0).flatten(1) for w, v in zip(weights, values, strict=True)], dim=1)
    order = flat.argsort(dim=1, descending=True, stable=True)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(flat.shape[1], device=flat.device).expand_as(order))
    total = sum((w > 0).flatten(1).sum(1) for w in weights)
    assert isinstance(total, Tensor)
    sizes = [w[0].numel() for w in weights]
    return [
        (part.unflatten(1, w.shape[1:]), total.view(-1, 1, 1, 1))
        for part, w in zip(rank.split(sizes, dim=1), weights, strict=True)
    ]


def _reduced(weight: Tensor, first: Tensor) -> Tensor:
    """Patterns whose first edges are kept, and whose other edges share the rest of each query's attention evenly."""
    own = weight * first
    others = (weight > 0) & ~first
    rest = (weight.sum(-1, keepdim=True) - own.sum(-1, keepdim=True)) / others.sum(-1, keepdim=True).clamp(min=1)
    return torch.where(others, rest.to(weight.dtype), own)


def _explained(
    intact: NDArray[np.float64], reduced: NDArray[np.float64], weights: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Share of variance explained (draws, rankings, shares)."""
    n = weights.sum(1)
    mean = weights @ intact / n
    total = weights @ intact**2 - n * mean**2
    left = np.tensordot(weights, (reduced - intact) ** 2, axes=(1, 2))
    with np.errstate(divide="ignore", invalid="ignore"):
        found: NDArray[np.float64] = 1 - left / np.where(total > 0, total, np.nan)[:, None, None]
    return found


def _table(explained: NDArray[np.float64], kept: Sequence[float], n: int, note: str) -> pd.DataFrame:
    beyond = trapezoid(explained - explained[:, [RANKINGS.index("random")]], kept, axis=-1)
    rows = []
    for i, ranking in enumerate(RANKINGS):
        low, high = interval(beyond[1:, i])
        area = {"area": float(beyond[0, i]), "area_ci_low": low, "area_ci_high": high}
        for j, share in enumerate(kept):
            low, high = interval(explained[1:, i, j])
            row = {"ranking": ranking, "kept": share, "explained": float(explained[0, i, j])}
            rows.append(row | {"ci_low": low, "ci_high": high} | area | {"n": n, "note": note})
    return pd.DataFrame(rows)
