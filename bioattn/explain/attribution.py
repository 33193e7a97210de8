"""Attribution of a readout to single bases: by gradients, by substitution, and by attention.

Gradients with respect to one-hot bases have a part that all four letters of a
position share. Steps from one letter to another never leave the simplex of the four
letters, so that part says nothing about sequences and is noise in an attribution;
every gradient here is taken without it (Majdandzic et al. 2023).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from bioattn.data import alphabet
from bioattn.errors import DataError
from bioattn.explain.ism import contribution
from bioattn.explain.predict import batches, require_readout
from bioattn.explain.tracks import by_place, head_tracks, shuffled, token_places
from bioattn.models import SequenceModel, one_hot, reverse_complement
from bioattn.nn.observe import BATCH

BASELINES = ("shuffled", "uniform", "zero")
#: What `attributions` gives, in order of cost.
KINDS = ("received_sum", "gradient_sum", "input_x_gradient", "integrated_gradients", "ism")
#: Kinds that say how much a base counts, but not whether it raises or lowers the readout.
UNSIGNED = frozenset({"received_sum"})


def input_x_gradient(model: SequenceModel, codes: NDArray[np.uint8], *, readout: int = 0) -> NDArray[np.float32]:
    """Slope of the readout for every letter at every position, less the mean over letters.

    Times the one-hot sequence it is the contribution of each base. Both strands, if
    the model averages them.

    Parameters
    ----------
    codes : ndarray, uint8, shape (N, L)
    readout : int
        Readout, before its link.

    Returns
    -------
    ndarray, float32, shape (N, A, L)
        NaN at padding.

    Raises
    ------
    DataError
        If the model looks words up: there is no slope along a word. If there is no
        sequence, or no such readout.

    Source: Shrikumar et al. 2016; correction of Majdandzic et al. 2023.
    """
    require_readout(model, codes, readout)
    found = []
    for batch in batches(codes, BATCH):
        x_BAL, real_BL = _inputs(model, batch)
        slope_BAL = _slopes(model, x_BAL, real_BL, readout)
        found.append(_masked(slope_BAL - slope_BAL.mean(1, keepdim=True), real_BL))
    return torch.cat(found).numpy()


def integrated_gradients(
    model: SequenceModel,
    codes: NDArray[np.uint8],
    *,
    readout: int = 0,
    steps: int = 32,
    baseline: str | NDArray[np.floating] = "shuffled",
    draws: int = 4,
    seed: int = 0,
) -> NDArray[np.float32]:
    """Contribution of every letter at every position: its mean slope on the way from a baseline, against the baseline.

    With mean slope g and baseline b, letter a contributes g_a - sum over letters of
    b g. A baseline of letters or of their mixture stays on the simplex, and so the part
    of g that all letters share drops out. Times the one-hot sequence it is the
    contribution of each base, and these sum up to f(sequence) - f(baseline) but for
    the error of integration, which falls with `steps`.

    Parameters
    ----------
    codes : ndarray, uint8, shape (N, L)
    readout : int
        Readout, before its link.
    steps : int
        Points on the straight way, of Gauss-Legendre quadrature.
    baseline : {"shuffled", "uniform", "zero"} or ndarray, shape (N, A, L)
        "shuffled": each sequence with its dinucleotides shuffled, the mean of `draws`
        of them. "uniform": 1/4 of each letter. "zero": no letter, which leaves the
        simplex: sums are still complete, but the shared part of the slope, which is noise, stays.
        Unknown bases are unknown in every baseline, and contribute nothing.
    draws, seed : int
        For "shuffled".

    Returns
    -------
    ndarray, float32, shape (N, A, L)
        NaN at padding.

    Raises
    ------
    DataError
        As `input_x_gradient`; for a baseline of another name or shape; for fewer than one step or draw.

    Source: Sundararajan et al. 2017; hypothetical contributions of Shrikumar et al. 2018.
    """
    require_readout(model, codes, readout)
    if steps < 1 or draws < 1:
        raise DataError(f"integrated gradients need at least 1 step and 1 draw, got {steps} and {draws}")
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    ways = _baselines(codes, baseline, draws, seed)
    found = []
    for first, batch in zip(range(0, len(codes), BATCH), batches(codes, BATCH), strict=True):
        x_BAL, real_BL = _inputs(model, batch)
        known_B1L = x_BAL.sum(1, keepdim=True) > 0
        total_BAL = torch.zeros_like(x_BAL)
        for way in ways:
            start_BAL = torch.from_numpy(way[first : first + BATCH]).to(x_BAL) * known_B1L
            slope_BAL = torch.zeros_like(x_BAL)
            # From [-1, 1], where nodes lie and weights sum to 2, to [0, 1].
            for place, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
                between = torch.lerp(start_BAL, x_BAL, float(place))
                slope_BAL += float(weight) * _slopes(model, between, real_BL, readout)
            against = start_BAL.where(known_B1L, 1 / alphabet.N_LETTERS)
            total_BAL += slope_BAL - (against * slope_BAL).sum(1, keepdim=True)
        found.append(_masked(total_BAL / len(ways), real_BL))
    return torch.cat(found).numpy()


def _inputs(model: SequenceModel, batch: Tensor) -> tuple[Tensor, Tensor]:
    """One-hot bases (B, A, L) and real positions (B, L), where the model is."""
    batch = batch.to(next(model.parameters()).device)
    return one_hot(batch).to(model.readout.weight.dtype), batch != alphabet.PAD


def _slopes(model: SequenceModel, x_BAL: Tensor, real_BL: Tensor, readout: int) -> Tensor:
    """Gradient (B, A, L) of the readout, the mean over strands if the model takes it."""
    x_BAL = x_BAL.detach().requires_grad_()
    with torch.enable_grad():
        strands = [x_BAL, _other_strand(x_BAL, real_BL)] if model.average_strands else [x_BAL]
        values = [model.tail(*model.embed_one_hot(strand, real_BL))[:, readout].sum() for strand in strands]
        return torch.autograd.grad(torch.stack(values).mean(), x_BAL)[0]


def _other_strand(x_BAL: Tensor, real_BL: Tensor) -> Tensor:
    """One-hot reverse complement, padding on the right again."""
    return _turned(x_BAL.flip(1), real_BL)


def _turned(values: Tensor, real_BL: Tensor) -> Tensor:
    """Values (B, ..., L) of real bases from last to first; zero at padding."""
    length_B1 = real_BL.sum(1, keepdim=True)
    index_BL = (length_B1 - 1 - torch.arange(real_BL.shape[1], device=real_BL.device)).clamp(min=0)
    between = [1] * (values.ndim - 2)
    index, real = (each.view(len(each), *between, -1).expand_as(values) for each in (index_BL, real_BL))
    return values.gather(-1, index) * real


def _masked(values_BAL: Tensor, real_BL: Tensor) -> Tensor:
    return values_BAL.masked_fill(~real_BL[:, None], float("nan")).float().cpu()


def _baselines(
    codes: NDArray[np.uint8], baseline: str | NDArray[np.floating], draws: int, seed: int
) -> list[NDArray[np.floating]]:
    """Where ways start, each (N, A, L)."""
    shape = (len(codes), alphabet.N_LETTERS, codes.shape[1])
    if not isinstance(baseline, str):
        baseline = np.asarray(baseline)
        if baseline.shape != shape:
            raise DataError(f"a baseline must have the shape of the one-hot sequences {shape}, got {baseline.shape}")
        return [baseline]
    if baseline == "zero":
        return [np.zeros(shape, dtype=np.float32)]
    if baseline == "uniform":
        return [np.full(shape, 1 / alphabet.N_LETTERS, dtype=np.float32)]
    if baseline == "shuffled":
        return [_letters_of(shuffled(codes, seed, "attribution", "baseline", i)) for i in range(draws)]
    raise DataError(f"baseline must be one of {', '.join(BASELINES)}, or an array, got '{baseline}'")


def _letters_of(codes: NDArray[np.uint8]) -> NDArray[np.float32]:
    """One-hot (N, A, L) with all four letters alike where the base is unknown, as shuffling moves unknown bases."""
    letters = alphabet.one_hot(codes)
    letters[np.broadcast_to((codes == alphabet.UNKNOWN)[:, None], letters.shape)] = 1 / alphabet.N_LETTERS
    return letters


# ------------------------------------------------------------------ all kinds at once


class Attributions(NamedTuple):
    """What each kind of attribution gives to each base.

    Attributes
    ----------
    values : dict of ndarray, float32, shape (N, L)
        By kind, in the order of `KINDS`; NaN at padding.
    left_out : dict of str
        Kinds that this model does not have, and why.
    """

    values: dict[str, NDArray[np.float32]]
    left_out: dict[str, str]


def attributions(
    model: SequenceModel, codes: NDArray[np.uint8], effect: NDArray[np.float32], *, readout: int = 0, seed: int = 0
) -> Attributions:
    """Every kind of attribution of the same sequences: by heads, by gradients and by substitution.

    "received_sum" is the attention that a base receives and "gradient_sum" that
    weighted by its gradient, summed over all heads; a token's value is divided among
    its bases. "ism" is the base's own effect less the mean over letters. Both
    strands, if the model averages them.

    Parameters
    ----------
    codes : ndarray, uint8, shape (N, L)
    effect : ndarray, float32, shape (N, A, L)
        Of these sequences, from `ism`.
    seed : int
        Of the baselines of integrated gradients.

    Raises
    ------
    DataError
        If there is no sequence, or no such readout.
    """
    require_readout(model, codes, readout)
    letters = alphabet.one_hot(codes)
    ways = {
        "heads": lambda: head_importance(model, codes, readout=readout),
        "input_x_gradient": lambda: _own(input_x_gradient(model, codes, readout=readout), letters),
        "integrated_gradients": lambda: _own(integrated_gradients(model, codes, readout=readout, seed=seed), letters),
        "ism": lambda: _own(contribution(effect), letters),
    }
    values: dict[str, NDArray[np.float32]] = {}
    left_out: dict[str, str] = {}
    for name, compute in ways.items():
        kinds = ("received_sum", "gradient_sum") if name == "heads" else (name,)
        try:
            found = compute()
        except DataError as error:
            left_out |= dict.fromkeys(kinds, str(error))
        else:
            values |= zip(kinds, found if isinstance(found, tuple) else (found,), strict=True)
    return Attributions(values, left_out)


def _own(hypothetical: NDArray[np.float32], letters: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the base that is there contributes (N, L): zero for an unknown one, NaN at padding."""
    return (hypothetical * letters).sum(1)


def head_importance(
    model: SequenceModel, codes: NDArray[np.uint8], *, readout: int = 0
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Attention received and gradient-weighted attention of each base (N, L), summed over heads; NaN at padding.

    Raises
    ------
    DataError
        If the model has no attention.
    """
    tokens = torch.from_numpy(codes.astype(np.int64))
    real = tokens != alphabet.PAD
    strands = [_strand_importance(model, codes, readout)]
    if model.average_strands:
        other = reverse_complement(tokens).numpy().astype(np.uint8)
        strands += [tuple(_turned(x, real) for x in _strand_importance(model, other, readout))]
    means = [torch.stack(each).mean(0).masked_fill(~real, float("nan")) for each in zip(*strands, strict=True)]
    return means[0].numpy(), means[1].numpy()


def _strand_importance(model: SequenceModel, codes: NDArray[np.uint8], readout: int) -> tuple[Tensor, ...]:
    """Both tracks (N, L) of the given strand by base, zero at padding."""
    tracks = head_tracks(model, codes, readout=readout)
    assert tracks.gradient is not None
    places = token_places(model, codes)._replace(on_grid=False)  # tokens of several bases give each its share
    sums = (track.sum(1, keepdims=True) for track in (tracks.received, tracks.gradient))
    return tuple(torch.from_numpy(np.nan_to_num(by_place(track, places)[:, 0])) for track in sums)


def attribution_table(found: Attributions, codes: NDArray[np.uint8], names: Sequence[str]) -> pd.DataFrame:
    """One row per base: name, position, reference letter, and a column for each kind."""
    real = codes != alphabet.PAD
    sequence, position = np.nonzero(real)
    table = pd.DataFrame({"name": np.asarray(names)[sequence], "position": position})
    table["reference"] = np.array(list(alphabet.LETTERS + "N"))[codes[real]]
    return table.assign(**{kind: values[real] for kind, values in found.values.items()})
