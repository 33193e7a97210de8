"""Taps: named places in a model where an activation can be read or replaced.

A tap is an identity module. Reading and replacing are forward hooks on it, set
and removed by context managers, so the caller's model is never changed. An
attention layer whose scores or pattern are tapped computes them explicitly for
that layer only; the numbers stay equal.

    with taps.record(model, ["layer.0.attn.pattern"]) as store:
        model(tokens)
    with taps.edit(model, {"layer.0.attn.head_output": taps.zero(np.s_[:, 3])}):
        model(tokens)  # without head 3

Edits compose from the functions below; any function from activation to
activation of the same shape is one.
"""

import difflib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from bioattn.errors import DataError

Change = Callable[[Tensor], Tensor]


class Tap(nn.Module):
    """Identity with a name that hooks can find."""

    @property
    def active(self) -> bool:
        """Whether something reads or replaces here now."""
        return bool(self._forward_hooks)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return x


def find_taps(model: nn.Module) -> dict[str, Tap]:
    """All taps of a model by name, e.g. "layer.0.attn.pattern"."""
    return {name.removeprefix("encoder."): m for name, m in model.named_modules() if isinstance(m, Tap)}


def tapped(model: nn.Module) -> bool:
    """Whether any tap of a model is read or replaced now."""
    return any(tap.active for tap in find_taps(model).values())


def _tap(model: nn.Module, name: str) -> Tap:
    taps = find_taps(model)
    if not taps:
        raise DataError(f"'{name}' cannot be tapped: this model has no taps")
    if name not in taps:
        near = difflib.get_close_matches(name, taps, n=3) or sorted(taps)[:8]
        raise DataError(f"'{name}' is not a tap of this model; near names: {', '.join(near)}")
    return taps[name]


@contextmanager
def record(model: nn.Module, names: Iterable[str]) -> Iterator[dict[str, Tensor]]:
    """Dictionary that holds, after each forward pass, what passed through the named taps.

    Raises
    ------
    DataError
        If a name is not a tap of the model; near names are listed.
    """
    store: dict[str, Tensor] = {}
    with ExitStack() as stack:
        for name in names:

            def keep(_module: nn.Module, _inputs: object, output: Tensor, name: str = name) -> None:
                store[name] = output

            stack.callback(_tap(model, name).register_forward_hook(keep).remove)
        yield store


@contextmanager
def edit(model: nn.Module, edits: Mapping[str, Change]) -> Iterator[None]:
    """While open, each named tap passes on `edits[name](activation)` instead of the activation.

    Raises
    ------
    DataError
        If a name is not a tap of the model, or (in the forward pass) an edit changes the shape.
    """
    with ExitStack() as stack:
        for name, change in edits.items():

            def replace(
                _module: nn.Module, _inputs: object, output: Tensor, name: str = name, change: Change = change
            ) -> Tensor:
                changed = change(output)
                if changed.shape != output.shape:
                    raise DataError(
                        f"the edit of '{name}' must keep the shape {tuple(output.shape)}, got {tuple(changed.shape)}"
                    )
                return changed

            stack.callback(_tap(model, name).register_forward_hook(replace).remove)
        yield


def replace(value: Tensor | float, at: Any = ...) -> Change:
    """Edit: `value` in the place of the activation, or of its entries at an index such as `np.s_[:, 3]` (head 3)."""

    def change(x: Tensor) -> Tensor:
        x = x.clone()
        x[at] = value
        return x

    return change


def zero(at: Any = ...) -> Change:
    """Edit: zeros, everywhere or at an index."""
    return replace(0.0, at)


def mean_replace(mean: Tensor, at: Any = ...) -> Change:
    """Edit: a mean over examples and positions, broadcast to the activation, everywhere or at an index.

    `mean` as `mean_over` gives it, from reference sequences.
    """

    def change(x: Tensor) -> Tensor:
        x = x.clone()
        x[at] = mean.to(x.dtype).expand_as(x)[at]
        return x

    return change


def mean_over(x: Tensor, keep: Tensor | None = None) -> Tensor:
    """Mean of an activation over examples and real positions, with these axes kept as ones.

    `x` is (B, L, D), or (B, H, L, C); `keep` (B, L) is True for real tokens.
    """
    axes = (0, x.ndim - 2)
    if keep is None:
        return x.mean(axes, keepdim=True)
    weight = keep.view(keep.shape[0], *[1] * (x.ndim - 3), keep.shape[1], 1)
    return (x * weight).sum(axes, keepdim=True) / keep.sum().clamp(min=1)


def patch(value: Tensor, at: Any = ...) -> Change:
    """Edit: what another run recorded at the same tap, everywhere or at an index."""

    def change(x: Tensor) -> Tensor:
        x = x.clone()
        x[at] = value.to(x.dtype)[at]
        return x

    return change


def add(value: Tensor | float, at: Any = ...) -> Change:
    """Edit: `value` added, e.g. to scores, everywhere or at an index."""

    def change(x: Tensor) -> Tensor:
        x = x.clone()
        x[at] += value
        return x

    return change


def cut(edges: Tensor) -> Change:
    """Edit of scores: no query reads the keys marked True in `edges`, bool, broadcastable to (B, H, Q, K).

    The remaining attention of a query is renormalised (Geva et al. 2023, attention knock-out).
    """

    def change(scores_BHQK: Tensor) -> Tensor:
        return scores_BHQK.masked_fill(edges, -math.inf)

    return change
