"""Taps: named places in a model where an activation can be read or replaced.

A tap is an identity module. Reading and replacing are forward hooks on it, set
and removed by context managers, so the caller's model is never changed. An
attention layer whose scores or pattern are tapped computes them explicitly for
that layer only; the numbers stay equal.
"""

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

from bioattn.errors import DataError


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


def _tap(model: nn.Module, name: str) -> Tap:
    taps = find_taps(model)
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
def edit(model: nn.Module, edits: Mapping[str, Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """While open, each named tap passes on `edits[name](activation)` instead of the activation."""
    with ExitStack() as stack:
        for name, change in edits.items():

            def replace(
                _module: nn.Module, _inputs: object, output: Tensor, change: Callable[[Tensor], Tensor] = change
            ) -> Tensor:
                return change(output)

            stack.callback(_tap(model, name).register_forward_hook(replace).remove)
        yield
