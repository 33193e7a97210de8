"""Looking into a trained trunk: where distances become consistent, which heads carry contacts, which third residues.

A pair (i, j) is updated through third residues k. Cutting its triangle through one k says whether a predicted contact
rests on the edges from i to k and from k to j, as removing an attention edge does for two motifs.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from bioattn.data.structure import CONTACT_ANGSTROM
from bioattn.nn import taps
from bioattn.nn.pair.distogram import contact_log_probabilities
from bioattn.nn.pair.network import DistanceNetwork
from bioattn.protein.batches import Protein, ProteinBatch, collate
from bioattn.protein.coevolution import average_product_corrected
from bioattn.protein.contacts import LEAST_SEPARATION, known_pairs
from bioattn.protein.evaluate import (
    distances_of_logits,
    precision_all,
    predicted_violations,
    score_protein,
    untold_distances,
)

#: A third residue within so many of either residue of a pair is its neighbour in the chain.
NEIGHBOUR = 3

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


# ------------------------------------------------------------------ triangle audit


@torch.no_grad()
def audit_blocks(network: DistanceNetwork, proteins: Sequence[Protein]) -> pd.DataFrame:
    """Violations of the triangle inequality by the distances that the pairs after each block would give.

    The distogram reads the pairs before the trunk ("embedding") and after each block.

    Returns
    -------
    DataFrame
        A row for each protein and stage: name, stage, violation_rate, violation_angstrom, precision_all_L5.
    """
    names = [f"trunk.block.{i}.pair" for i in range(len(network.trunk.block))]
    rows = []
    for protein in proteins:
        batch = collate([protein])
        with taps.record(network, names) as store:
            network(*batch.inputs)
        _, embedding = network.embedded(*batch.inputs)
        stages = {"embedding": embedding, **{f"block {i}": store[name] for i, name in enumerate(names)}}
        for stage, pair in stages.items():
            read = distances_of_logits(network.distogram(pair)[0].numpy(), network.distogram)
            found = predicted_violations(read.likeliest_angstrom, network.distogram)
            precision = precision_all(read.contact, protein.distances_angstrom.astype(np.float64))
            rows.append([protein.name, stage, found.rate, found.size_angstrom, precision])
    return pd.DataFrame(rows, columns=["name", "stage", "violation_rate", "violation_angstrom", "precision_all_L5"])


def _removable(network: DistanceNetwork) -> Iterator[tuple[int, str, int, str, taps.Change]]:
    """Block, part, head (-1: no heads), tap and edit of all that can be taken out of a trunk by itself."""
    for i, block in enumerate(network.trunk.block):
        for part in ("outgoing", "incoming"):
            if getattr(block, part) is not None:
                yield i, part, -1, f"trunk.block.{i}.{part}.output", taps.zero()
        for part in ("starting", "ending"):
            if getattr(block, part) is not None:
                for head in range(getattr(block, part).n_heads):
                    # Axes of a triangle head's output: batch, row, head, column, channel.
                    edit = taps.zero(np.s_[:, :, head])
                    yield i, part, head, f"trunk.block.{i}.{part}.head_output", edit
        if block.attn is not None:
            for head in range(int(block.attn.n_heads)):  # type: ignore[union-attr, arg-type]
                yield i, "single", head, f"trunk.block.{i}.attn.head_output", taps.zero(np.s_[:, head])


@torch.no_grad()
def audit_heads(network: DistanceNetwork, proteins: Sequence[Protein]) -> pd.DataFrame:
    """What distances lose without one head, or one update that has no heads, of one block.

    Returns
    -------
    DataFrame
        A row for each protein and part: name, block, part, head (-1 without heads), and what it does: rise_log_loss
        (without it less with it), rise_violation_rate, fall_precision_all_L5.
    """
    rows = []
    for protein in proteins:
        batch = collate([protein])

        whole = _scores(network, protein, batch)
        for block, part, head, tap, edit in _removable(network):
            with taps.edit(network, {tap: edit}):
                without = _scores(network, protein, batch)
            rows.append(
                [
                    protein.name, block, part, head, without["log_loss"] - whole["log_loss"],
                    without["violation_rate"] - whole["violation_rate"],
                    whole["precision_all_L5"] - without["precision_all_L5"],
                ]
            )  # fmt: skip
    return pd.DataFrame(
        rows,
        columns=[
            "name", "block", "part", "head", "rise_log_loss", "rise_violation_rate", "fall_precision_all_L5",
        ],
    )  # fmt: skip


def _scores(network: DistanceNetwork, protein: Protein, batch: ProteinBatch) -> dict[str, float]:
    logits = network(*batch.inputs)[0].numpy()
    return score_protein(logits, protein, network.distogram)


# --------------------------------------------------------------- knock-out through k


def true_contacts_predicted(contact: Floats, true: Floats) -> Indices:
    """Residues i < j, (N, 2), of the true contacts among the L best predicted pairs, best first.

    Pairs are `LEAST_SEPARATION` or more apart in the sequence, and their true distance is known.

    Parameters
    ----------
    contact, true : ndarray (L, L)
        Predicted probabilities; distances in angstrom.
    """
    i, j = known_pairs(true, least_separation=LEAST_SEPARATION)
    best = np.argsort(-contact[i, j], kind="stable")[: len(true)]
    pairs = np.stack([i[best], j[best]], 1)
    return pairs[true[pairs[:, 0], pairs[:, 1]] < CONTACT_ANGSTROM]


@torch.no_grad()
def third_residue_effects(network: DistanceNetwork, protein: Protein, pairs: Indices) -> Floats:
    """How much log odds of contacts fall when their own triangle through a third residue is cut, (K, N).

    Positive: the contact rests on the edges i to k and k to j. All other pairs are as in the whole run, so this is what
    k does directly, in all blocks.

    Parameters
    ----------
    pairs : ndarray, int64, shape (N, 2)
        Residues of each contact.
    """
    batch = collate([protein])
    n = len(protein.single)
    # The last version lacks nothing.
    third = torch.cat([~torch.eye(n, dtype=torch.bool), torch.ones(1, n, dtype=torch.bool)])
    rows, columns = torch.from_numpy(pairs).unbind(1)
    log_odds = _log_odds(network.without_thirds(*batch.inputs, rows=rows, columns=columns, third=third), network)
    return log_odds[-1] - log_odds[:-1]


def _log_odds(logits: Tensor, network: DistanceNetwork) -> Floats:
    # From logits, not probabilities, which round to one.
    near, far = contact_log_probabilities(
        logits.double(), network.distogram.edges_angstrom, below_angstrom=CONTACT_ANGSTROM
    )
    found: Floats = (near - far).numpy()
    return found


@torch.no_grad()
def found_contacts(network: DistanceNetwork, protein: Protein) -> tuple[Indices, Floats]:
    """Contacts (N, 2) that a network finds, best first, and `third_residue_effects` (K, N) on them.

    Contacts that it is told, and pairs next to them, are no findings; see `untold_distances`.
    """
    logits = network(*collate([protein]).inputs)[0].numpy()
    contact = distances_of_logits(logits, network.distogram).contact
    pairs = true_contacts_predicted(contact, untold_distances(protein))
    return pairs, third_residue_effects(network, protein, pairs)


class ThirdResidues(NamedTuple):
    """Mean fall of log odds of a protein's contacts without third residues that bridge them, and without matched ones.

    `n` is the number of pairs of a contact and a bridging residue that have a match.
    """

    bridging: float
    matched: float
    n: int


def bridging_effect(effects: Floats, pairs: Indices, true: Floats) -> ThirdResidues:
    """Third residues that bridge a contact against others as near in the chain.

    Residue k bridges (i, j) if it touches both and is no neighbour of either in the chain. Its match is the mean over
    the residues that are as far from the nearer of i and j in the chain as k is, and do not touch both.

    Parameters
    ----------
    effects : ndarray (K, N)
        See `third_residue_effects`.
    pairs : ndarray, int64, shape (N, 2)
        Contacts.
    true : ndarray (L, L)
        Distances in angstrom.
    """
    touch = true < CONTACT_ANGSTROM  # NaN is false
    everyone = np.arange(len(true))
    bridging, matched = [], []
    for place, (one, other) in enumerate(pairs):
        apart = np.minimum(np.abs(everyone - one), np.abs(everyone - other))
        both = touch[one] & touch[other]
        for k in np.flatnonzero(both & (apart >= NEIGHBOUR)):
            like = np.isfinite(true[one]) & ~both & (apart == apart[k])
            if like.any():
                bridging.append(effects[k, place])
                matched.append(effects[like, place].mean())
    if not bridging:
        return ThirdResidues(float("nan"), float("nan"), 0)
    return ThirdResidues(float(np.mean(bridging)), float(np.mean(matched)), len(bridging))


def knock_out_thirds(
    network: DistanceNetwork, proteins: Sequence[Protein], *, tick: Callable[[int], None] | None = None
) -> pd.DataFrame:
    """Bridging and matched third residues of each protein's found contacts: name, bridging, matched, difference, n."""
    rows = []
    for row, protein in enumerate(proteins):
        pairs, effects = found_contacts(network, protein)
        found = bridging_effect(effects, pairs, protein.distances_angstrom.astype(np.float64))
        rows.append([protein.name, found.bridging, found.matched, found.bridging - found.matched, found.n])
        if tick is not None:
            tick(row)
    return pd.DataFrame(rows, columns=["name", "bridging", "matched", "difference", "n"])


# -------------------------------------------------------------------- probe of heads


class Probe(NamedTuple):
    """A logistic probe on head patterns: the weight of each head (block, part, head, weight), and its precision.

    `precision` has a row for each protein: name, precision_all_L5.
    """

    heads: pd.DataFrame
    precision: pd.DataFrame


@torch.no_grad()
def head_features(network: DistanceNetwork, protein: Protein) -> tuple[list[tuple[int, str, int]], Floats]:
    """Names (block, part, head) and maps (heads, L, L) of all heads, symmetrised and average product corrected.

    A head between residues is its pattern; a triangle head, which has a pattern for every row, is the mean over rows
    of how much (i, j) is read: pairs of i through j for the starting node, pairs of j through i for the ending node.

    Source: Rao et al. 2021 (regression on attention maps).
    """
    names: list[tuple[int, str, int]] = []
    where: list[tuple[int, str, str]] = []
    for i, block in enumerate(network.trunk.block):
        for part, attribute in (("single", "attn"), ("starting", "starting"), ("ending", "ending")):
            if getattr(block, attribute) is not None:
                where.append((i, part, f"trunk.block.{i}.{attribute}.pattern"))
    batch = collate([protein])
    with taps.record(network, [tap for _, _, tap in where]) as store:
        network(*batch.inputs)
    maps = []
    for i, part, tap in where:
        pattern = store[tap][0].double()
        # Triangle: (row, head, column, third); averaged over columns, it is row by third.
        each = pattern if part == "single" else pattern.mean(2).transpose(0, 1)
        for head, found in enumerate(each.numpy()):
            names.append((i, part, head))
            maps.append(average_product_corrected(found))
    return names, np.stack(maps)


def probe_heads(
    network: DistanceNetwork, train: Sequence[Protein], test: Sequence[Protein], *, penalty: float = 0.15
) -> Probe:
    """Logistic regression from heads to contacts, L1-penalised, on pairs `LEAST_SEPARATION` or more apart.

    Features are in units of their standard deviation over training pairs, so weights compare.

    Parameters
    ----------
    train, test : sequence of Protein
        The regression is fitted on the former, and its precision is that on the latter.
    penalty : float
        Inverse strength, `C` of scikit-learn.
    """
    names: list[tuple[int, str, int]] = []
    x, y = [], []
    for protein in train:
        names, maps = head_features(network, protein)
        i, j = known_pairs(protein.distances_angstrom, least_separation=LEAST_SEPARATION)
        x.append(maps[:, i, j].T)
        y.append(protein.distances_angstrom[i, j] < CONTACT_ANGSTROM)
    features, target = np.concatenate(x), np.concatenate(y)
    scale = features.std(0) + 1e-12
    model = LogisticRegression(l1_ratio=1.0, C=penalty, solver="liblinear", random_state=0)
    model.fit(features / scale, target)
    weights = model.coef_[0]
    rows = []
    for protein in test:
        _, maps = head_features(network, protein)
        scores = np.tensordot(weights / scale, maps, axes=1)
        rows.append([protein.name, precision_all(scores, protein.distances_angstrom.astype(np.float64))])
    heads = pd.DataFrame(names, columns=["block", "part", "head"]).assign(weight=weights)
    return Probe(heads, pd.DataFrame(rows, columns=["name", "precision_all_L5"]))
