"""Heat-equation trajectories between walls and on rings, and networks of equal size that learn one step of them.

Every network takes fields (B, L), r (B, 1), diffusivity times time step over the square of the grid's, and whether the
ends meet (B, 1), 1.0 on a ring and 0.0 between walls that are held at zero; it returns fields one step later.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bioattn.nn.encoder import Encoder

State = tuple[Tensor, Tensor, Tensor]
#: Points of a patch, and of the halo on each side of a field.
PATCH = 4


def euler(state: State) -> Tensor:
    """One explicit step: each point moves by r times the second difference."""
    field, r, ring = state
    left = torch.cat([field[:, -1:] * ring, field[:, :-1]], dim=1)
    right = torch.cat([field[:, 1:], field[:, :1] * ring], dim=1)
    return field + r * (left - 2 * field + right)


def with_halo(field: Tensor, ring: Tensor, width: int) -> Tensor:
    """Fields with what lies beyond their ends, as solvers keep it: the other end of a ring, zeros behind a wall."""
    ring = ring.reshape(-1, *[1] * (field.ndim - 1))
    return torch.cat([field[..., -width:] * ring, field, field[..., :width] * ring], dim=-1)


class Scaled(nn.Module):
    """A network of fields whose mean square is one, for fields of any size: the equation is linear."""

    def __init__(self, change: nn.Module) -> None:
        super().__init__()
        self.change = change

    def forward(self, state: State) -> Tensor:  # noqa: D102
        field, r, ring = state
        size = field.square().mean(1, keepdim=True).sqrt().clamp(min=1e-20)
        return field + size * self.change((field / size, r, ring))


class PatchTransformer(nn.Module):
    """Change of a field: patches as tokens behind one that holds r and the kind of ends, and an encoder.

    Parameters
    ----------
    positions : str
        As of `bioattn.nn.encoder.Encoder`.
    """

    def __init__(self, width: int = 48, *, positions: str = "rope") -> None:
        super().__init__()
        self.embed = nn.Linear(PATCH, width)
        self.condition = nn.Sequential(nn.Linear(2, width), nn.GELU(), nn.Linear(width, width))
        self.encoder = Encoder(width, 2, 4, 2 * width, positions=positions, backend="reference")
        self.readout = nn.Linear(width, PATCH)

    def forward(self, state: State) -> Tensor:  # noqa: D102
        field, r, ring = state
        tokens = self.embed(with_halo(field, ring, PATCH).unflatten(1, (-1, PATCH)))
        told = self.condition(torch.cat([4 * r, ring], dim=1))[:, None]
        return self.readout(self.encoder(torch.cat([told, tokens], dim=1))[:, 2:-1]).flatten(1)


class Convolutions(nn.Module):
    """The same by four convolutions, whose reach is eight points."""

    def __init__(self, width: int = 62, kernel: int = 5) -> None:
        super().__init__()
        self.reach = kernel // 2
        sizes = (1, width, width, width, 1)
        self.layers = nn.ModuleList(nn.Conv1d(a + 2, b, kernel) for a, b in zip(sizes, sizes[1:], strict=False))

    def forward(self, state: State) -> Tensor:  # noqa: D102
        field, r, ring = state
        condition = torch.cat([4 * r, ring], dim=1)[..., None]
        x = field[:, None]
        for number, layer in enumerate(self.layers):
            x = with_halo(F.gelu(x) if number else x, ring, self.reach)
            x = layer(torch.cat([x, condition.expand(-1, -1, x.shape[-1])], dim=1))
        return x[:, 0]


class FourierLayers(nn.Module):
    """The same by three Fourier layers: a matrix for each of the longest waves, beside one for each point.

    Source: Li et al. 2021, Fourier neural operator.
    """

    def __init__(self, width: int = 20, modes: int = 16) -> None:
        super().__init__()
        self.modes = modes
        self.lift = nn.Conv1d(4, width, 1)
        self.waves = nn.ParameterList(torch.randn(modes, width, width, 2) / width for _ in range(3))
        self.points = nn.ModuleList(nn.Conv1d(width, width, 1) for _ in range(3))
        self.readout = nn.Sequential(nn.Conv1d(width, 64, 1), nn.GELU(), nn.Conv1d(64, 1, 1))

    def forward(self, state: State) -> Tensor:  # noqa: D102
        field, r, ring = state
        n, length = field.shape
        # Waves cannot tell where a wall is, so places are given.
        place = torch.linspace(-1, 1, length).expand(n, 1, -1) * (1 - ring)[..., None]
        condition = torch.cat([4 * r, ring], dim=1)[..., None].expand(-1, -1, length)
        x = self.lift(torch.cat([field[:, None], condition, place], dim=1))
        for number, (waves, points) in enumerate(zip(self.waves, self.points, strict=True)):
            x = F.gelu(x) if number else x
            seen = torch.fft.rfft(x, norm="forward")[..., : self.modes]
            mixed = torch.einsum("bim,mio->bom", seen, torch.view_as_complex(waves)[: seen.shape[-1]])
            x = torch.fft.irfft(mixed, n=length, norm="forward") + points(x)
        return self.readout(x)[:, 0]


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "attention, rotary positions": PatchTransformer,
    "attention, added positions": lambda: PatchTransformer(positions="sinusoidal"),
    "convolutions": Convolutions,
    "Fourier layers": FourierLayers,
}


def trajectories(n: int, length: int, generator: torch.Generator, *, times: int = 24, longest: int = 200) -> State:
    """States along n trajectories from white noise at each of some times, the first n at the very start."""
    field = torch.randn(n, length, generator=generator)
    r = 0.05 + 0.4 * torch.rand(n, 1, generator=generator)
    ring = (torch.rand(n, 1, generator=generator) < 0.5).float()
    wanted = {round(longest ** (i / (times - 1))) - 1 for i in range(times)}
    kept = []
    for time in range(longest):
        if time in wanted:
            kept.append(field / field.square().mean(1, keepdim=True).sqrt())
        field = euler((field, r, ring))
    return torch.cat(kept), r.repeat(len(kept), 1), ring.repeat(len(kept), 1)


def waves(n: int, length: int, generator: torch.Generator, *, ring: bool, r: float, most: int = 4) -> State:
    """Random sums of the longest waves that the ends allow."""
    k = torch.arange(1, most + 1)[:, None]
    a, b = torch.randn(2, n, most, generator=generator)
    if ring:
        x = 2 * math.pi * torch.arange(length) / length
        field = a @ torch.sin(k * x) + b @ torch.cos(k * x)
    else:
        field = a @ torch.sin(k * math.pi * torch.arange(1, length + 1) / (length + 1))
    return field, torch.full((n, 1), r), torch.full((n, 1), float(ring))
