"""Attention along edges is a random walk.

With the logarithm of the adjacency matrix as scores, softmax gives every node one over its degree to each neighbour
and nothing to the rest: the pattern is the transition matrix of a random walk, k layers are k steps, and after many
the walk is where degrees say, whatever it began with. Nothing crosses to a part of the graph that no edge reaches.
Weights on edges learned from the features of both ends make it a graph attention network.

Source: Velickovic et al. 2018, eq. 1 to 4; Zachary 1977 for the karate club; Lovasz 1993 for walks.
"""

import sys

import networkx as nx
import numpy as np
import pandas as pd
import torch
from torch import Tensor

from bioattn.config import PrinciplesConfig
from bioattn.nn import attention
from bioattn.nn.graph import GraphAttention
from bioattn.principles.finding import Drawing, Finding, Verdict, finding_of


def run(settings: PrinciplesConfig) -> Finding:
    """Patterns, powers and their limit on the karate club, a walk on two parts, and a learned layer against a loop."""
    graph = nx.karate_club_graph()
    adjacency = torch.from_numpy(nx.to_numpy_array(graph, weight=None))
    degree = adjacency.sum(1)
    pattern = walk(adjacency)
    transition = adjacency / degree[:, None]
    steps = 200 if settings.size == "fast" else 1000
    state = torch.eye(len(degree), dtype=torch.float64)[:1]
    limit = degree / degree.sum()
    rows = []
    for step in range(steps + 1):
        if step in (0, 1, 2, 3, 5, 8, 13, 20, 30, 50, 80, 120, 200, 500, 1000):
            rows.append([step, "karate club", float(0.5 * (state - limit).abs().sum())])
        state = state @ pattern
    power = torch.linalg.matrix_power(pattern, 5)
    five = torch.eye(len(degree), dtype=torch.float64)
    for _ in range(5):
        five = five @ transition
    apart = torch.block_diag(adjacency, torch.ones(5, 5, dtype=torch.float64) - torch.eye(5, dtype=torch.float64))
    crossing = torch.linalg.matrix_power(walk(apart), 20)[: len(degree), len(degree) :].abs().max()
    cycle = torch.from_numpy(nx.to_numpy_array(nx.cycle_graph(8)))
    two = torch.linalg.matrix_power(walk(cycle), 101)[0]
    verdicts = [
        Verdict(
            "The pattern is one over the degree along edges: largest difference.", "constructed", 0.0,
            (float((pattern - transition).abs().max()),), 1e-15,
        ),
        Verdict(
            "Five layers are five steps: largest difference.", "constructed", 0.0,
            (float((power - five).abs().max()),), 1e-14,
        ),
        Verdict(
            f"After {steps} steps the walk is where degrees say: total variation.", "constructed", 0.0,
            (float(0.5 * (state - limit).abs().sum()),), 1e-6,
        ),
        Verdict(
            "A learned layer is the formula of graph attention, by a loop over edges: largest difference.",
            "constructed", 0.0, (_layer_error(adjacency, settings.seeds[0]),), 1e-6,
        ),
        Verdict("Nothing crosses to another part of the graph.", "control", 0.0, (float(crossing),), 0.0),
        Verdict(
            "On a graph of two colours the walk never settles: total variation to what degrees say.", "control", 0.4,
            (float(0.5 * (two - 1 / 8).abs().sum()),), rule="at least",
        ),
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["layers", "graph", "distance"])
    table["distance"] = table["distance"].clip(lower=1e-16)
    drawing = Drawing("lines", "layers", "distance", "graph", "layers", "total variation to the limit", log_y=True)
    return finding_of(sys.modules[__name__], verdicts, table, drawing)


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
