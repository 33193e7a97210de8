"""Chains as batches for the pair trunk: alike in length, cropped, padded, in an order that seed and epoch decide.

Beside what it finds in a sequence, a network can be told some contacts, as cross-linking or a relative's structure
give them. In training they are drawn from the true ones, for half of the chains; so it learns to do with and without.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import lightning.pytorch as pl
import numpy as np
import torch
from Bio.Align import substitution_matrices
from numpy.typing import NDArray
from torch import Tensor

from bioattn.data.residues import AMINO_ACIDS, N_AMINO_ACIDS, encode_residues, one_hot_residues
from bioattn.data.structure import CONTACT_ANGSTROM, Chain
from bioattn.protein.contacts import LEAST_SEPARATION, known_pairs
from bioattn.rng import stream

#: Batches whose chains are sorted by length together, so that little of a batch is padding.
_POOL = 16


class Protein(NamedTuple):
    """One chain as a network sees it.

    Attributes
    ----------
    name : str
    single : ndarray, float32, shape (L, features)
        One-hot residues; with an alignment its profile too.
    distances_angstrom : ndarray, float32, shape (L, L)
        NaN where a residue is not resolved.
    pair : ndarray, float32, shape (L, L, features) or None
        Couplings of an alignment.
    told : ndarray, bool, shape (L, L) or None
        Pairs that the network is told to be contacts, in both orders; None: for networks that are told none.
    """

    name: str
    single: NDArray[np.float32]
    distances_angstrom: NDArray[np.float32]
    pair: NDArray[np.float32] | None = None
    told: NDArray[np.bool_] | None = None

    @property
    def n_pair_features(self) -> int:
        """Features of a pair as networks see it: couplings, and whether it is told to be a contact."""
        return (0 if self.pair is None else self.pair.shape[-1]) + (self.told is not None)


def protein_of(chain: Chain) -> Protein:
    """A chain by its sequence alone."""
    single = one_hot_residues(encode_residues(chain.sequence), n=N_AMINO_ACIDS)
    return Protein(chain.name, single, chain.distances().astype(np.float32))


def told_contacts(protein: Protein, share: float, draw: np.random.Generator) -> Protein:
    """The protein, of whose contacts `LEAST_SEPARATION` or more apart each is told with a probability `share`."""
    i, j = known_pairs(protein.distances_angstrom, least_separation=LEAST_SEPARATION)
    chosen = (protein.distances_angstrom[i, j] < CONTACT_ANGSTROM) & (draw.random(len(i)) < share)
    told = np.zeros(protein.distances_angstrom.shape, dtype=np.bool_)
    told[i[chosen], j[chosen]] = told[j[chosen], i[chosen]] = True
    return protein._replace(told=told)


def told_nothing(protein: Protein) -> Protein:
    """The protein for a network that can be told contacts, and is told none."""
    return protein._replace(told=np.zeros(protein.distances_angstrom.shape, dtype=np.bool_))


def _some_told(protein: Protein, most_told: float | None, draw: np.random.Generator) -> Protein:
    """Of half of the proteins a share of contacts is told, any up to the most."""
    if most_told is None:
        return protein
    half, share = draw.random(2)
    return told_contacts(protein, most_told * share, draw) if half < 0.5 else told_nothing(protein)


class ProteinBatch(NamedTuple):
    """Padded chains; shapes as `DistanceNetwork.forward` has them. Distances are NaN beyond a chain."""

    single: Tensor
    residue_index: Tensor
    keep: Tensor
    distances_angstrom: Tensor
    pair: Tensor | None

    @property
    def inputs(self) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """What networks take, in their order."""
        return self.single, self.residue_index, self.keep, self.pair


def collate(proteins: Sequence[Protein], starts: Sequence[int] | None = None, crop: int | None = None) -> ProteinBatch:
    """Chains, or a stretch of `crop` residues of each, padded to the longest. What is told is the last pair feature."""
    starts = [0] * len(proteins) if starts is None else starts
    parts = [slice(start, start + (crop or len(p.single))) for p, start in zip(proteins, starts, strict=True)]
    lengths = [len(p.single[part]) for p, part in zip(proteins, parts, strict=True)]
    n, longest = len(proteins), max(lengths)
    single = np.zeros((n, longest, proteins[0].single.shape[1]), dtype=np.float32)
    distances = np.full((n, longest, longest), np.nan, dtype=np.float32)
    features = proteins[0].n_pair_features
    pair = np.zeros((n, longest, longest, features), dtype=np.float32)
    for row, (protein, part, length) in enumerate(zip(proteins, parts, lengths, strict=True)):
        single[row, :length] = protein.single[part]
        distances[row, :length, :length] = protein.distances_angstrom[part, part]
        if protein.pair is not None:
            pair[row, :length, :length, : protein.pair.shape[-1]] = protein.pair[part, part]
        if protein.told is not None:
            pair[row, :length, :length, -1] = protein.told[part, part]
    return ProteinBatch(
        torch.from_numpy(single),
        torch.arange(longest).expand(n, longest) + torch.tensor(starts)[:, None],
        torch.arange(longest) < torch.tensor(lengths)[:, None],
        torch.from_numpy(distances),
        torch.from_numpy(pair) if features else None,
    )


def substitution_table() -> NDArray[np.float64]:
    """Probability (20, 20) that one residue stands where an ancestor had another: rows sum to one, diagonal zero.

    From the log odds of BLOSUM62 and the frequencies of residues that they imply.

    Source: Henikoff and Henikoff 1992.
    """
    matrix = substitution_matrices.load("BLOSUM62")
    odds = np.array([[2.0 ** (matrix[a][b] / 2) for b in AMINO_ACIDS] for a in AMINO_ACIDS])
    # Frequencies p with odds @ p = 1: joint probabilities p_a p_b odds_ab have p as their margins.
    frequencies = np.clip(np.linalg.solve(odds, np.ones(N_AMINO_ACIDS)), 1e-3, None)
    joint = odds * frequencies
    np.fill_diagonal(joint, 0.0)
    found: NDArray[np.float64] = joint / joint.sum(1, keepdims=True)
    return found


class ProteinBatches:
    """Batches of chains.

    Parameters
    ----------
    proteins : sequence of Protein
    batch_size : int
    crop : int or None
        Longest stretch of residues; where it begins is drawn for each chain and epoch.
    seed : int or None
        Of order, crops, substitutions and what is told; None gives whole chains by length, as they are.
    substitutions : float
        Share of residues that are replaced by similar ones.
    most_told : float or None
        Largest share of contacts that is told, of half of the chains; None for networks that are told none.
    """

    def __init__(
        self,
        proteins: Sequence[Protein],
        batch_size: int,
        *,
        crop: int | None = None,
        seed: int | None = None,
        substitutions: float = 0.0,
        most_told: float | None = None,
    ) -> None:
        self.proteins, self.batch_size, self.crop, self.seed = proteins, batch_size, crop, seed
        self.substitutions, self.most_told = substitutions, most_told
        self.epoch = 0
        self._table = substitution_table().cumsum(1)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose order and crops are given next."""
        self.epoch = epoch

    @property
    def n_batches(self) -> int:
        """Batches of an epoch."""
        return -(-len(self.proteins) // self.batch_size)

    @property
    def n_parts(self) -> int:
        """Parts of a batch."""
        return 1

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[ProteinBatch]:
        lengths = np.array([len(p.single) for p in self.proteins])
        if self.seed is None:
            order = np.argsort(lengths, kind="stable")
            batches = [order[i : i + self.batch_size] for i in range(0, len(order), self.batch_size)]
        else:
            batches = self._shuffled(np.minimum(lengths, self.crop or lengths.max()))
        for number, rows in enumerate(batches):
            proteins = [self.proteins[row] for row in rows]
            if self.seed is None:
                yield collate(proteins)
                continue
            # Of each batch its own stream: one draw more in a batch changes no other.
            draw = stream(self.seed, "changes", self.epoch, number)
            proteins = [_some_told(self._substituted(protein, draw), self.most_told, draw) for protein in proteins]
            crop = self.crop or int(lengths.max())
            spare = [max(len(p.single) - crop, 0) for p in proteins]
            yield collate(proteins, [int(draw.integers(n + 1)) for n in spare], crop)

    def _substituted(self, protein: Protein, draw: np.random.Generator) -> Protein:
        """The protein with some of its residues replaced; an alignment's profile stays."""
        single = protein.single
        residue = single[:, :N_AMINO_ACIDS].argmax(1)
        known = single[:, :N_AMINO_ACIDS].any(1)
        chosen = np.flatnonzero(known & (draw.random(len(single)) < self.substitutions))
        if not len(chosen):
            return protein
        new = (draw.random((len(chosen), 1)) > self._table[residue[chosen]]).sum(1)
        single = single.copy()
        single[chosen, :N_AMINO_ACIDS] = 0.0
        single[chosen, np.minimum(new, N_AMINO_ACIDS - 1)] = 1.0
        return protein._replace(single=single)

    def _shuffled(self, lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        assert self.seed is not None
        draw = stream(self.seed, "order", self.epoch)
        order = draw.permutation(len(lengths))
        size = self.batch_size * _POOL
        pools = [order[i : i + size] for i in range(0, len(order), size)]
        sorted_ = [pool[np.argsort(lengths[pool], kind="stable")] for pool in pools]
        batches = [pool[i : i + self.batch_size] for pool in sorted_ for i in range(0, len(pool), self.batch_size)]
        return [batches[i] for i in draw.permutation(len(batches))]


class ProteinData(pl.LightningDataModule):
    """Lightning data module over training and validation chains in memory.

    What validation chains are told is drawn once.
    """

    def __init__(
        self,
        train: Sequence[Protein],
        validation: Sequence[Protein],
        *,
        batch_size: int,
        crop: int | None,
        seed: int,
        substitutions: float = 0.0,
        most_told: float | None = None,
    ) -> None:
        super().__init__()
        self.train_batches = ProteinBatches(
            train, batch_size, crop=crop, seed=seed, substitutions=substitutions, most_told=most_told
        )
        draw = stream(seed, "told")
        self.validation_batches = ProteinBatches([_some_told(p, most_told, draw) for p in validation], batch_size)

    def train_dataloader(self) -> ProteinBatches:
        """Shuffled, cropped training batches."""
        return self.train_batches

    def val_dataloader(self) -> ProteinBatches:
        """Whole validation chains by length."""
        return self.validation_batches
