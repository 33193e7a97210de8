"""Co-attention of motif pairs: how much more two motifs attend to each other than expected.

Expected means: from how attentive the one motif is, how attended the other is,
how far apart they are, and which sequence they are in (double centring, as the
average product correction of contact prediction). The null permutes the
identities of the motifs within each sequence: positions, attention and the number
of hits stay, only which motif is where is lost. A motif with two hits keeps both under
its new identity, so that pairs of a motif with itself are compared with such pairs.

Co-attention is correlation. A pair that passes is a candidate, nothing more.
"""

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from scipy.stats import false_discovery_control
from torch import Tensor

from bioattn import rng
from bioattn.errors import DataError
from bioattn.explain.predict import batches
from bioattn.io.files import replacing
from bioattn.models import SequenceModel
from bioattn.nn import taps
from bioattn.nn.observe import attention_blocks
from bioattn.nn.pair.encoder import PairEncoder

#: Sweeps of alternating means; the centred table changes by less than 1e-3 bits after four.
_SWEEPS = 4
#: Sequences per forward pass.
_BATCH = 128


#: What is read between two sites: see `pair_attention`.
Flavour = Literal["raw", "norm", "attr"]
#: All of them; the first is the one that is tested.
FLAVOURS: tuple[Flavour, ...] = ("raw", "norm", "attr")
#: Name of what the pair track holds of two sites, where there is one: see `pair_states`.
PAIR_FLAVOUR = "pair"


@dataclass(frozen=True)
class CoAttention:
    """Co-attention of all pairs in one model.

    Attributes
    ----------
    effect : ndarray, shape (C, M, M)
        Bits above expectation, for each head C = layer * n_heads + head, query
        motif and key motif; NaN where a pair never occurs.
    null : ndarray, shape (R, M, M)
        Largest effect over heads and both directions, for R permutations of identities.
    n_heads : int
        Heads per layer.
    flavours : mapping of str to ndarray, shape (C, M, M)
        Effect of other flavours ("norm", "attr"; of the latter's sizes), see `pair_attention`; of a pair track
        ("pair", with layers for C), see `pair_states`.
    """

    effect: NDArray[np.float64]
    null: NDArray[np.float64]
    n_heads: int
    flavours: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    def head_name(self, index: int) -> str:
        """Layer and head of an index C, e.g. "0.3"."""
        return f"{index // self.n_heads}.{index % self.n_heads}"

    @property
    def strongest(self) -> NDArray[np.float64]:
        """Largest effect over heads and both directions, shape (M, M), symmetric."""
        return strongest(self.effect)


def footprint_tokens(start: NDArray, end: NDArray, token_bp: int) -> tuple[NDArray, NDArray]:
    """First and last token that a footprint of bases [start, end) touches."""
    return np.asarray(start) // token_bp, (np.asarray(end) - 1) // token_bp


def pair_attention(
    model: SequenceModel,
    codes: NDArray[np.uint8],
    hits: pd.DataFrame,
    instances: pd.DataFrame,
    *,
    flavour: Flavour = "raw",
    readout: int = 0,
) -> NDArray[np.float32]:
    """Attention between the two footprints of every pair instance, for every head.

    Only the entries between footprints are computed and kept, never whole patterns.

    Parameters
    ----------
    codes : ndarray, uint8, shape (N, L)
    hits, instances
        As `find_hits` and `pair_instances` give them, on the rows of `codes`.
    flavour : {"raw", "norm", "attr"}
        raw: the pattern's entries. norm: times the length of what the key's value adds to the
        stream (Kobayashi et al. 2020). attr: times their gradient: what the entries do to the
        readout, to first order.
    readout : int
        For "attr".

    Returns
    -------
    ndarray, float32, shape (P, C, 2)
        Largest entry between the tokens of the two sites (of "attr" their sum), for each head
        C = layer * n_heads + head; [..., 0] with a as query and b as key, [..., 1] the other way.
    """
    used = np.unique(instances[["hit_a", "hit_b"]].to_numpy())
    token_UW = _token_index(hits, used, model.token_bp) + model.n_prefix
    owner_U = hits.loc[used, "sequence"].to_numpy()
    # Each hit gets W places in the list of tokens of its sequence; hits are sorted by row, not by sequence.
    rank_U = pd.Series(owner_U).groupby(owner_U).cumcount().to_numpy()
    place_UW = rank_U[:, None] * token_UW.shape[1] + np.arange(token_UW.shape[1])
    position_NS = np.full((len(codes), int(place_UW.max(initial=-1)) + 1), -1)
    position_NS[owner_U[:, None], place_UW] = token_UW
    index_a, index_b = (np.searchsorted(used, instances[c].to_numpy()) for c in ("hit_a", "hit_b"))
    # A footprint of fewer tokens than the widest repeats its last one, which must not count twice in a sum.
    own_UW = torch.from_numpy(np.diff(token_UW, axis=1, prepend=-1) > 0)
    own_a, own_b = own_UW[index_a], own_UW[index_b]
    place_a, place_b = (torch.from_numpy(place_UW[index]) for index in (index_a, index_b))
    owner = instances["sequence"].to_numpy()
    result = np.zeros((len(instances), model.n_layers * model.n_heads, 2), dtype=np.float32)
    first = 0
    for batch in batches(codes, _BATCH):
        rows = np.flatnonzero((owner >= first) & (owner < first + len(batch)))
        position = torch.from_numpy(position_NS[first : first + len(batch)])
        block_BCSS = attention_blocks(model, batch, None, None, position, position, batch_size=_BATCH).flatten(1, 2)
        if flavour != "raw":
            block_BCSS = block_BCSS * _entry_weights(model, batch, position, flavour, readout)
        n = torch.from_numpy(owner[rows] - first)[:, None, None]
        i, j = place_a[rows][:, :, None], place_b[rows][:, None, :]
        both = torch.stack([block_BCSS[n, :, i, j], block_BCSS[n, :, j, i]], dim=-1)
        if flavour == "attr":
            counts = own_a[rows][:, :, None] & own_b[rows][:, None, :]
            result[rows] = (both * counts[..., None, None]).sum(dim=(1, 2)).numpy()
        else:
            result[rows] = both.amax(dim=(1, 2)).numpy()
        first += len(batch)
    return result


@torch.inference_mode()
def pair_states(
    model: SequenceModel, codes: NDArray[np.uint8], hits: pd.DataFrame, instances: pd.DataFrame
) -> NDArray[np.float32]:
    """Size of what the pair track holds of the two footprints of every pair instance, in every layer.

    Parameters as for `pair_attention`, of a model with a pair track.

    Returns
    -------
    ndarray, float32, shape (P, layers, 2)
        Largest length of the pair vectors between the bins of the two sites; [..., 0] of (a, b), [..., 1] of (b, a).
    """
    encoder = model.encoder
    assert isinstance(encoder, PairEncoder)
    used = np.unique(instances[["hit_a", "hit_b"]].to_numpy())
    bins_UW = torch.from_numpy(_token_index(hits, used, model.token_bp) // encoder.bin_tokens)
    index_a, index_b = (np.searchsorted(used, instances[c].to_numpy()) for c in ("hit_a", "hit_b"))
    names = [f"pair.{layer}.state" for layer in range(model.n_layers)]
    device, owner = next(model.parameters()).device, instances["sequence"].to_numpy()
    result = np.zeros((len(instances), model.n_layers, 2), dtype=np.float32)
    first = 0
    for batch in batches(codes, _BATCH):
        rows = np.flatnonzero((owner >= first) & (owner < first + len(batch)))
        with taps.record(model, names) as store:
            model.one_strand(batch.to(device))
        size_BNII = torch.stack([store[name].norm(dim=-1) for name in names], 1).float().cpu()
        n = torch.from_numpy(owner[rows] - first)[:, None, None]
        i, j = bins_UW[index_a[rows]][:, :, None], bins_UW[index_b[rows]][:, None, :]
        both = torch.stack([size_BNII[n, :, i, j], size_BNII[n, :, j, i]], dim=-1)
        result[rows] = both.amax(dim=(1, 2)).numpy()
        first += len(batch)
    return result


def _entry_weights(model: SequenceModel, batch: Tensor, position: Tensor, flavour: Flavour, readout: int) -> Tensor:
    """What each pattern entry between positions (B, S) is multiplied with, (B, C, S, S), queries first."""
    device = next(model.parameters()).device
    names = [f"layer.{layer}.attn.{tap}" for layer in range(model.n_layers) for tap in ("value", "head_output")]
    with torch.enable_grad(), taps.record(model, names) as store:
        readouts = model.one_strand(batch.to(device))
        outputs = [store[name] for name in names[1::2]]
        gradients = torch.autograd.grad(readouts[:, readout].sum(), outputs) if flavour == "attr" else outputs
    at = position.clamp(min=0).to(device)
    weights = []
    for layer, (value_BHLC, gradient_BHLC) in enumerate(zip(map(store.get, names[::2]), gradients, strict=True)):
        assert value_BHLC is not None
        value, gradient = (_taken(x, at).detach() for x in (value_BHLC, gradient_BHLC))
        if flavour == "attr":
            weights.append(gradient @ value.transpose(-1, -2))
            continue
        project = model.encoder.layer[layer].attn.project_out  # type: ignore[union-attr]
        out_HCD = project.weight.detach().T.unflatten(0, (model.n_heads, -1))  # type: ignore[union-attr, operator]
        length = (value @ out_HCD).norm(dim=-1)
        weights.append(length[:, :, None].expand(-1, -1, at.shape[1], -1))
    return torch.stack(weights, 1).flatten(1, 2).float().cpu()


def _taken(x_BHLC: Tensor, at_BS: Tensor) -> Tensor:
    """Rows of chosen positions, (B, H, S, C)."""
    return x_BHLC.gather(2, at_BS[:, None, :, None].expand(-1, x_BHLC.shape[1], -1, x_BHLC.shape[3]))


def _token_index(hits: pd.DataFrame, rows: NDArray[np.int64], token_bp: int) -> NDArray[np.int64]:
    """Token indices (U, widest) of footprints; short ones repeat their last token."""
    chosen = hits.loc[rows]
    first, last = footprint_tokens(chosen["start"].to_numpy(), chosen["end"].to_numpy(), token_bp)
    widest = int((last - first).max(initial=0)) + 1
    return np.minimum(first[:, None] + np.arange(widest), last[:, None]).astype(np.int64)


def coattention(
    attention: NDArray[np.floating],
    hits: pd.DataFrame,
    instances: pd.DataFrame,
    *,
    n_motifs: int,
    n_heads: int,
    n_tokens: int,
    token_bp: int,
    permutations: int,
    seed: int,
    flavours: Mapping[str, NDArray[np.floating]] | None = None,
) -> CoAttention:
    """Double-centred co-attention of motif pairs with its permutation null.

    Parameters
    ----------
    attention : ndarray, shape (P, C, 2)
        From `pair_attention`.
    n_motifs, n_heads, n_tokens, token_bp : int
        Size of the library; heads per layer; tokens of the longest sequence; bases per token.
    permutations : int
        Permutations of the identities of the motifs within sequences. The same
        seed gives the same permutations for every model, so that replicates can
        be averaged under the null too.
    flavours : mapping of str to ndarray, shape (P, C, 2), optional
        The same of other flavours, which get an effect, of their sizes, and no null.

    Returns
    -------
    CoAttention
    """
    factors = [
        np.tile((instances["gap_bp"].to_numpy() // token_bp).astype(np.intp), 2),
        np.tile(instances["sequence"].to_numpy().astype(np.intp), 2),
    ]
    bits = _centred_bits(attention, 0.01 / n_tokens, factors)
    hit_a, hit_b = instances["hit_a"].to_numpy(), instances["hit_b"].to_numpy()
    query, key = np.concatenate([hit_a, hit_b]), np.concatenate([hit_b, hit_a])

    label = hits["motif"].to_numpy().astype(np.intp)
    effect = _pair_effects(bits, label[query], label[key], n_motifs)
    draw = rng.stream(seed, "nulls", "identity")
    best = hits[hits["copy"] == 0]
    owner, known = best["sequence"].to_numpy(), best["motif"].to_numpy().astype(np.intp)
    by_owner = np.argsort(owner, kind="stable")
    # Whose identity each hit has: that of the best hit of its motif in its sequence.
    of = _place_of_best(hits, best)
    null = np.empty((permutations, n_motifs, n_motifs))
    for r in range(permutations):
        shuffled = np.empty_like(known)
        shuffled[by_owner] = known[np.lexsort((draw.random(len(known)), owner))]
        given = shuffled[of]
        null[r] = strongest(_pair_effects(bits, given[query], given[key], n_motifs))
    others = {
        name: _pair_effects(
            _centred_bits(np.abs(values), 0.01 * float(np.abs(values).mean()), factors),
            label[query], label[key], n_motifs,
        )
        for name, values in (flavours or {}).items()
    }  # fmt: skip
    return CoAttention(effect, null, n_heads, others)


def _centred_bits(values: NDArray[np.floating], floor: float, factors: list[NDArray[np.intp]]) -> NDArray[np.float64]:
    """log2 of values (P, C, 2) above a floor, less distance and sequence; one row per direction, (2 P, C).

    The first half reads a <- b, the second b <- a.
    """
    stacked = np.concatenate([values[..., 0], values[..., 1]]).astype(np.float64)
    return _centre(np.log2(stacked + max(floor, np.finfo(np.float64).tiny)), factors)


def _place_of_best(hits: pd.DataFrame, best: pd.DataFrame) -> NDArray[np.intp]:
    """Place in `best` of the best hit of each hit's motif in its sequence, (H,)."""
    keys = ["sequence", "motif"]
    place = best[keys].assign(place=np.arange(len(best)))
    found: NDArray[np.intp] = hits[keys].merge(place, how="left", on=keys)["place"].to_numpy(dtype=np.intp)
    return found


def candidate_table(replicates: Sequence[CoAttention], *, floor_bits: float, q_value: float) -> pd.DataFrame:
    """Candidate pairs over replicates of a model.

    The statistic of a pair is its strongest effect over heads and directions,
    averaged over replicates; its null is the same statistic under permuted
    identities. Null statistics are standardised per pair and pooled, so that the
    smallest p-value is not limited by the number of permutations of one pair.

    Returns
    -------
    DataFrame
        motif_a, motif_b (indices, a <= b), attention_effect_bits, attention_p, attention_q,
        attention_maxt_p (of the largest statistic over all pairs: it holds for all at once),
        candidate. Pairs that never occur have NaN.
    """
    observed = np.mean([r.strongest for r in replicates], axis=0)
    null = np.mean([r.null for r in replicates], axis=0)
    a, b = np.triu_indices(observed.shape[0])
    observed, null = observed[a, b], null[:, a, b]
    p, q, p_max = np.full((3, len(a)), np.nan)
    # A pair that never occurs has no statistic; one that rarely does may vanish under some permutations.
    usable = np.flatnonzero(np.isfinite(observed) & (np.isfinite(null).sum(axis=0) > 1))
    if len(usable):
        centre, spread = np.nanmean(null[:, usable], axis=0), np.nanstd(null[:, usable], axis=0)
        spread = np.maximum(spread, np.finfo(float).tiny)
        z, z_null = (observed[usable] - centre) / spread, (null[:, usable] - centre) / spread
        largest = np.sort(np.nanmax(z_null, axis=1))
        p_max[usable] = (1 + len(largest) - np.searchsorted(largest, z, side="left")) / (1 + len(largest))
        z_null = np.sort(z_null[np.isfinite(z_null)])
        p[usable] = (1 + len(z_null) - np.searchsorted(z_null, z, side="left")) / (1 + len(z_null))
        q[usable] = false_discovery_control(p[usable])
    table = pd.DataFrame(
        {"motif_a": a, "motif_b": b, "attention_effect_bits": observed, "attention_p": p, "attention_q": q}
    )
    table["attention_maxt_p"] = p_max
    table["candidate"] = (table["attention_q"] < q_value) & (table["attention_effect_bits"] >= floor_bits)
    return table


def _centre(values: NDArray[np.float64], factors: list[NDArray[np.intp]]) -> NDArray[np.float64]:
    """Values (P, C) with the additive effect of each factor (P,) removed, by alternating means."""
    values = values.copy()
    for _ in range(_SWEEPS):
        for factor in factors:
            count = np.maximum(np.bincount(factor), 1)
            for c in range(values.shape[1]):
                values[:, c] -= (np.bincount(factor, values[:, c]) / count)[factor]
    return values


def _pair_effects(
    bits: NDArray[np.float64], query: NDArray[np.intp], key: NDArray[np.intp], n_motifs: int
) -> NDArray[np.float64]:
    """Mean (C, M, M) of centred bits for each ordered pair, less what query and key motif explain."""
    cell = query * n_motifs + key
    shape = (n_motifs, n_motifs)
    count = np.bincount(cell, minlength=n_motifs**2).reshape(shape)
    effects = []
    for column in bits.T:
        mean = np.bincount(cell, column, minlength=n_motifs**2).reshape(shape) / np.maximum(count, 1)
        for _ in range(_SWEEPS):
            for axis in (1, 0):
                weight = np.maximum(count.sum(axis, keepdims=True), 1)
                mean = np.where(count > 0, mean - (mean * count).sum(axis, keepdims=True) / weight, 0.0)
        effects.append(np.where(count > 0, mean, np.nan))
    return np.stack(effects)


def strongest(effect: NDArray[np.float64]) -> NDArray[np.float64]:
    """Largest effect over heads and both directions, shape (M, M)."""
    both = np.maximum(effect, effect.transpose(0, 2, 1))
    return both.max(axis=0)


def save_coattention(path: str | Path, result: CoAttention, record: Mapping[str, Any]) -> None:
    """Write a co-attention result with its provenance record as npz, whole or not at all."""
    with replacing(path) as temporary, temporary.open("wb") as file:
        note = np.frombuffer(json.dumps(dict(record)).encode(), dtype=np.uint8)
        more: dict[str, Any] = {f"effect_{name}": values for name, values in result.flavours.items()}
        np.savez_compressed(file, effect=result.effect, null=result.null, n_heads=result.n_heads, record=note, **more)


def load_coattention(path: str | Path) -> tuple[CoAttention, dict[str, Any]]:
    """Co-attention result and record that `save_coattention` wrote. Raises `DataError` if it is not whole."""
    try:
        with np.load(path, allow_pickle=False) as file:
            prefix = "effect_"
            others = {name.removeprefix(prefix): file[name] for name in file.files if name.startswith(prefix)}
            result = CoAttention(file["effect"], file["null"], int(file["n_heads"]), others)
            return result, json.loads(file["record"].tobytes())
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (ValueError, KeyError, OSError, zipfile.BadZipFile) as error:
        raise DataError(f"{path}: not a whole co-attention file ({error}): make it anew") from None
