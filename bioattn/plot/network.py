"""Interaction network: motifs as nodes, verdicts as edge colours."""

import math

import networkx as nx
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from bioattn.plot.style import INK, MUTED, TELLING, VERDICTS, new_axes, require_columns, styled, verdict_style

#: More names than this on one circle overlap.
_MOST_NODES = 30
_COLUMNS = ["tf_a", "tf_b", "verdict", "epistasis_effect"]


def interaction_graph(table: pd.DataFrame, *, most_nodes: int = _MOST_NODES) -> nx.Graph:
    """Graph of the tested pairs, strongest pairs first until the nodes run out.

    Edge attributes: verdict, effect. Pairs whose verdict says that something
    happened come before the others.
    """
    require_columns(table, _COLUMNS, "an interaction network")
    tested = table[table["verdict"].isin([v for v in VERDICTS if v != "not tested"])].copy()
    tested["_rank"] = [0 if verdict in TELLING else 1 for verdict in tested["verdict"]]
    tested["_size"] = tested["epistasis_effect"].abs().fillna(0.0)
    graph = nx.Graph()
    for row in tested.sort_values(["_rank", "_size"], ascending=[True, False], kind="stable").to_dict("records"):
        ends = {str(row["tf_a"]), str(row["tf_b"])}
        if len(ends | set(graph)) > most_nodes:
            continue
        graph.add_edge(str(row["tf_a"]), str(row["tf_b"]), verdict=row["verdict"], effect=row["epistasis_effect"])
    return graph


@styled
def interaction_network(table: pd.DataFrame, *, most_nodes: int = _MOST_NODES, ax: Axes | None = None) -> Axes:
    """Motifs on a circle; edge colour and line style = verdict, width = |epistasis|.

    Parameters
    ----------
    table : DataFrame
        Columns tf_a, tf_b, verdict, epistasis_effect.
    most_nodes : int
        Motifs drawn at most, those of the strongest pairs.
    """
    graph = interaction_graph(table, most_nodes=most_nodes)
    ax = new_axes(4.9, 4.6) if ax is None else ax
    ax.set_axis_off()
    if not graph:
        ax.text(0.5, 0.5, "no tested pair", transform=ax.transAxes, ha="center", color=MUTED)
        return ax
    places = _circle(graph)
    strongest = max((abs(d["effect"]) for *_, d in graph.edges(data=True) if pd.notna(d["effect"])), default=0.0) or 1.0
    for a, b, edge in sorted(graph.edges(data=True), key=lambda item: item[2]["verdict"] in TELLING):
        _edge(ax, places[a], places[b], edge, strongest)
    for name, (x, y) in places.items():
        _node(ax, name, x, y)
    present = [v for v in VERDICTS if any(d["verdict"] == v for *_, d in graph.edges(data=True))]
    handles = [Line2D([], [], color=VERDICTS[v].color, linestyle=VERDICTS[v].line, linewidth=2.2) for v in present]
    labels = [VERDICTS[v].short for v in present]
    ax.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=3, handlelength=2.6)
    ax.set(xlim=(-1.5, 1.5), ylim=(-1.2, 1.2), aspect="equal")
    return ax


def _circle(graph: nx.Graph) -> dict[str, tuple[float, float]]:
    """Circular layout in which the partners of telling pairs stand side by side."""
    telling = nx.Graph((a, b) for a, b, d in graph.edges(data=True) if d["verdict"] in TELLING)
    order = [node for part in nx.connected_components(telling) for node in nx.dfs_preorder_nodes(telling, min(part))]
    rest = [node for node in graph if node not in telling]
    n = len(order) + len(rest)
    turns = [math.pi / 2 - 2 * math.pi * i / n for i in range(n)]
    return {node: (math.cos(t), math.sin(t)) for node, t in zip(order + rest, turns, strict=True)}


def _edge(ax: Axes, a: tuple[float, float], b: tuple[float, float], edge: dict, strongest: float) -> None:
    style = verdict_style(edge["verdict"])
    telling = edge["verdict"] in TELLING
    size = 0.0 if pd.isna(edge["effect"]) else abs(edge["effect"]) / strongest
    width = 1.6 + 4.4 * size if telling else 0.5 + 0.9 * size
    ax.plot(
        [a[0], b[0]], [a[1], b[1]], color=style.color, linestyle=style.line, linewidth=width,
        zorder=2 if telling else 1, alpha=0.95 if telling else 0.3, solid_capstyle="round",
    )  # fmt: skip


def _node(ax: Axes, name: str, x: float, y: float) -> None:
    ax.plot([x], [y], "o", color="white", markersize=11, markeredgecolor=INK, markeredgewidth=1.1, zorder=3)
    side = "left" if x > 0.25 else "right" if x < -0.25 else "center"
    up = "bottom" if y > 0.85 else "top" if y < -0.85 else "center"
    ax.text(x * 1.11, y * 1.11, name, ha=side, va=up, fontsize=9, fontweight="bold", zorder=4)
