"""Networks from residues to a distogram: the pair trunk, and a window network without attention to compare with."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bioattn.errors import ConfigError
from bioattn.nn.pair.distogram import Distogram
from bioattn.nn.pair.inputs import RelativePositions
from bioattn.nn.pair.trunk import PairTrunk


class WindowFeatures(nn.Module):
    """Features of the residues around each residue, (B, L, (2 reach + 1) (features + 1)).

    Whether there is a residue is a feature of its own: the ends of a chain are not padding.
    """

    def __init__(self, n_single: int, reach: int) -> None:
        super().__init__()
        self.reach = reach
        self.n_features = (2 * reach + 1) * (n_single + 1)

    def forward(self, single: Tensor, keep: Tensor) -> Tensor:  # noqa: D102
        known = keep[..., None].to(single.dtype)
        x = torch.cat([single * known, known], dim=-1)
        return F.pad(x, (0, 0, self.reach, self.reach)).unfold(1, 2 * self.reach + 1, 1).flatten(2)


class PairFeatures(nn.Module):
    """What two residues, those around them and their separation say of a pair, (B, I, J, d_hidden): no third residue.

    Parameters
    ----------
    n_single, n_pair : int
        Features of a residue; features of a pair, or 0.
    reach : int
        Residues on either side that are seen.
    d_hidden : int
    furthest : int
        Larger separations in the sequence are alike.
    """

    def __init__(self, n_single: int, n_pair: int, *, reach: int, d_hidden: int, furthest: int) -> None:
        super().__init__()
        self.around = WindowFeatures(n_single, reach)
        width = self.around.n_features
        self.left, self.right = nn.Linear(width, d_hidden), nn.Linear(width, d_hidden)
        self.positions = RelativePositions(d_hidden, furthest)
        self.n_pair = n_pair
        self.embed_pair = nn.Linear(n_pair, d_hidden, bias=False) if n_pair else None
        self.middle = nn.Linear(d_hidden, d_hidden)

    def forward(self, single: Tensor, index: Tensor, keep: Tensor, pair: Tensor | None = None) -> Tensor:
        """Features of pairs.

        Parameters
        ----------
        single : Tensor (B, L, features)
        index : int Tensor (B, L)
            Numbers of the residues in their chain.
        keep : bool Tensor (B, L)
            True for residues, False for padding.
        pair : Tensor (B, I, J, features), optional
            Needed if the network was built for some.
        """
        around = self.around(single, keep)
        z = self.left(around)[:, :, None] + self.right(around)[:, None] + self.positions(index)
        found = 0 if pair is None else pair.shape[-1]
        if found != self.n_pair:
            raise ConfigError(f"this network was built for {self.n_pair} features of pairs, and was given {found}")
        if self.embed_pair is not None:
            z = z + self.embed_pair(pair)
        return F.gelu(self.middle(F.gelu(z)))


class WindowNetwork(nn.Module):
    """Distogram of each pair from `PairFeatures` alone. Parameters as there."""

    def __init__(
        self,
        n_single: int,
        n_pair: int,
        edges_angstrom: Tensor,
        *,
        reach: int = 7,
        d_hidden: int = 128,
        furthest: int = 64,
    ) -> None:
        super().__init__()
        self.features = PairFeatures(n_single, n_pair, reach=reach, d_hidden=d_hidden, furthest=furthest)
        self.distogram = Distogram(d_hidden, edges_angstrom)

    def forward(self, single: Tensor, index: Tensor, keep: Tensor, pair: Tensor | None = None) -> Tensor:
        """Logits (B, I, J, bins); parameters as of `PairFeatures.forward`."""
        return self.distogram(self.features(single, index, keep, pair))


class DistanceNetwork(nn.Module):
    """Distogram of a protein by a pair trunk, which begins where `WindowNetwork` ends.

    So what the two differ in is what attention and triangles add.

    Parameters
    ----------
    n_single, n_pair : int
        Features of a residue; features of a pair, or 0.
    edges_angstrom : Tensor (bins - 1,)
        Borders of the distance bins.
    d_model, d_pair, n_blocks : int
    reach, d_features, furthest : int
        Of `PairFeatures`.
    recycles : int
        Most further rounds. Training draws from 0 to that many for each batch, evaluation takes all.
    trunk
        Options of `PairTrunk`.
    """

    def __init__(
        self,
        n_single: int,
        n_pair: int,
        edges_angstrom: Tensor,
        *,
        d_model: int = 64,
        d_pair: int = 32,
        n_blocks: int = 2,
        reach: int = 7,
        d_features: int = 128,
        furthest: int = 64,
        recycles: int = 0,
        **trunk: object,
    ) -> None:
        super().__init__()
        self.recycles = recycles
        self.features = PairFeatures(n_single, n_pair, reach=reach, d_hidden=d_features, furthest=furthest)
        self.embed = nn.Linear(self.features.around.n_features, d_model)
        self.narrow = nn.Linear(d_features, d_pair)
        self.trunk = PairTrunk(d_model, d_pair, n_blocks, **trunk)  # type: ignore[arg-type]
        self.distogram = Distogram(d_pair, edges_angstrom)

    def forward(self, single: Tensor, index: Tensor, keep: Tensor, pair: Tensor | None = None) -> Tensor:
        """Logits (B, I, J, bins); parameters as of `PairFeatures.forward`."""
        s, z = self.embedded(single, index, keep, pair)
        rounds = self.recycles
        if self.training and rounds:
            rounds = int(torch.randint(rounds + 1, ()))
        s, z = self.trunk(s, z, keep=keep, recycles=rounds)
        return self.distogram(z)

    def embedded(
        self, single: Tensor, index: Tensor, keep: Tensor, pair: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Single and pair representations before the trunk."""
        s = self.embed(self.features.around(single, keep))
        return s, self.narrow(self.features(single, index, keep, pair))

    def without_thirds(
        self,
        single: Tensor,
        index: Tensor,
        keep: Tensor,
        pair: Tensor | None = None,
        *,
        rows: Tensor,
        columns: Tensor,
        third: Tensor,
    ) -> Tensor:
        """Logits (V, N, bins) of chosen pairs of one protein, through some third residues only.

        Parameters
        ----------
        single, index, keep, pair
            As of `forward`, of one protein without padding.
        rows, columns : int Tensor (N,)
            Residues of each pair.
        third : bool Tensor (V, K)
            True for residues that may be the third one of a pair's triangles; a row for each version. All else is as in
            the whole run; see `PairTrunk.apart`.
        """
        _, z = self.embedded(single, index, keep, pair)
        both_ways = torch.cat([rows, columns]), torch.cat([columns, rows])
        own = self.trunk.apart(z[0], *both_ways, third, recycles=self.recycles)
        return self.distogram.one_way(own).unflatten(1, (2, -1)).mean(1)
