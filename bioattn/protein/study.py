"""Networks over many chains judged on those that were held out: scores, necessity, consistency, third residues."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import nn

from bioattn.config import ProteinConfig
from bioattn.errors import DataError
from bioattn.nn.pair.distogram import Distogram
from bioattn.nn.pair.network import DistanceNetwork
from bioattn.protein.batches import Protein, told_contacts
from bioattn.protein.evaluate import (
    calibration,
    differences,
    distances_of_logits,
    mean_scores,
    score_protein,
    score_untold,
)
from bioattn.protein.inside import (
    audit_blocks,
    audit_heads,
    found_contacts,
    knock_out_thirds,
    probe_heads,
)
from bioattn.protein.network import build_network, predict_logits
from bioattn.rng import stream, stream_seed

#: The network that is looked into, and compared with the others.
BASE = "trunk"
#: What test chains are told, in parts of the most that training told.
_TOLD_PARTS = (0.0, 1 / 3, 2 / 3, 1.0)
#: Example proteins in figures.
_EXAMPLES = 3


class Study(NamedTuple):
    """Tables by name, arrays of example proteins, and a summary that JSON can hold.

    Tables: `proteins` (network, name, scores of each), `scores`, `differences` (network, score, ...), `calibration`;
    `told` and `told_differences` (told_share, network, score, ...) of networks that are told some contacts, over pairs
    away from these; of the trunk `blocks`, `heads`, `thirds`, `thirds_summary`, `probe_heads`, `probe`.
    """

    tables: dict[str, pd.DataFrame]
    arrays: dict[str, NDArray[Any]]
    summary: dict[str, Any]


def study(
    networks: Mapping[str, nn.Module],
    test: Sequence[Protein],
    groups: NDArray[np.int64],
    probe_train: Sequence[Protein],
    config: ProteinConfig,
    *,
    progress: Callable[[str], Callable[[int, int], None] | None] = lambda _label: None,
) -> Study:
    """Judge networks on test proteins, and look into the trunk if it is among them.

    Parameters
    ----------
    networks : mapping of str to Module
        By the name of the variant.
    groups : ndarray, int64, shape (N,)
        Group of related chains of each test protein.
    probe_train : sequence of Protein
        Training proteins that the probe of heads is fitted on.
    progress : callable
        Gives, for a label, a callback (done, total) or None.

    Raises
    ------
    DataError
        If there is no test protein.
    """
    if not test:
        raise DataError("there are no test chains to judge networks on")
    rows, curves = [], []
    logits: dict[str, list[NDArray[np.float32]]] = {}
    for name, network in networks.items():
        logits[name] = predict_logits(network, test)
        contacts = []
        distogram = network.distogram
        assert isinstance(distogram, Distogram)
        for protein, found in zip(test, logits[name], strict=True):
            rows.append({"network": name, "name": protein.name, **score_protein(found, protein, distogram)})
            contacts.append(distances_of_logits(found, distogram).contact)
        true = [p.distances_angstrom.astype(np.float64) for p in test]
        curves.append(calibration(contacts, true).assign(network=name))
    proteins = pd.DataFrame(rows)
    options: dict[str, Any] = {"by": "network", "draws": config.bootstrap, "seed": config.seed}
    tables = {
        "proteins": proteins,
        "scores": mean_scores(proteins, groups, **options),
        "calibration": pd.concat(curves, ignore_index=True),
    }
    told = _told(networks, test, groups, config, options)
    if told is not None:
        tables["told"], tables["told_differences"] = told
    summary: dict[str, Any] = {"n_test": len(test), "n_groups": int(len(np.unique(groups)))}
    arrays: dict[str, NDArray[Any]] = {}
    trunk = networks.get(BASE)
    if trunk is not None:
        assert isinstance(trunk, DistanceNetwork)
        tables["differences"] = differences(proteins, groups, base=BASE, **options)
        inside = _inside(trunk, test, groups, probe_train, config, progress)
        tables |= inside.tables
        summary |= inside.summary
        arrays = _examples(trunk, test, logits[BASE], proteins[proteins["network"] == BASE])
        arrays |= _thirds_example(trunk, test, tables["thirds"], config.seed)
    return Study(tables, arrays, summary)


def _told(
    networks: Mapping[str, nn.Module],
    test: Sequence[Protein],
    groups: NDArray[np.int64],
    config: ProteinConfig,
    options: dict[str, Any],
) -> tuple[pd.DataFrame, pd.DataFrame] | None:
    """Scores and differences of networks that are told shares of contacts; None if training tells none."""
    if config.trunk.most_told == 0:
        return None
    scores, compared = [], []
    for part in _TOLD_PARTS:
        share = round(part * config.trunk.most_told, 6)
        draw = stream(config.seed, "protein", "told", str(share))
        told = [told_contacts(protein, share, draw) for protein in test]
        rows = []
        for name, network in networks.items():
            distogram = network.distogram
            assert isinstance(distogram, Distogram)
            for protein, found in zip(told, predict_logits(network, told), strict=True):
                rows.append({"network": name, "name": protein.name, **score_untold(found, protein, distogram)})
        table = pd.DataFrame(rows)
        scores.append(mean_scores(table, groups, **options).assign(told_share=share))
        if BASE in networks:
            compared.append(differences(table, groups, base=BASE, **options).assign(told_share=share))
    return pd.concat(scores, ignore_index=True), pd.concat(compared, ignore_index=True) if compared else pd.DataFrame()


def _inside(
    network: DistanceNetwork,
    test: Sequence[Protein],
    groups: NDArray[np.int64],
    probe_train: Sequence[Protein],
    config: ProteinConfig,
    progress: Callable[[str], Callable[[int, int], None] | None],
) -> Study:
    draw = stream(config.seed, "protein", "inside")
    n = min(config.trunk.inside_chains, len(test))
    chosen = np.sort(draw.choice(len(test), n, replace=False))
    some = [test[i] for i in chosen]
    bar = progress("third residues")
    options: dict[str, Any] = {"draws": config.bootstrap, "seed": config.seed}
    shares = sorted({0.0, config.trunk.most_told})
    thirds = []
    for place, share in enumerate(shares):
        told = [_told_for_thirds(protein, share, config.seed) for protein in some]
        made = knock_out_thirds(network, told, tick=None if bar is None else _ticking(bar, place * n, len(shares) * n))
        thirds.append(made.assign(told_share=share))
    effect = pd.concat(thirds, ignore_index=True)
    thirds_summary = mean_scores(effect.drop(columns="n"), groups[chosen], by="told_share", **options)
    blocks = audit_blocks(network, some)
    heads = audit_heads(network, some)
    first = test[0]
    few = probe_heads(network, probe_train, some)
    random = build_network(
        BASE, config.trunk, n_single=first.single.shape[1], n_pair=first.n_pair_features,
        seed=stream_seed(config.seed, "protein", "random"),
    ).eval()  # fmt: skip
    assert isinstance(random, DistanceNetwork)
    null = probe_heads(random, probe_train, some)
    probed = pd.concat(
        [few.precision.assign(network=BASE), null.precision.assign(network="untrained")], ignore_index=True
    )
    return Study(
        {
            "blocks": blocks,
            "heads": _mean_heads(heads, groups[chosen], options),
            "thirds": effect,
            "thirds_summary": thirds_summary,
            "probe_heads": few.heads,
            "probe": mean_scores(probed, groups[chosen], by="network", **options),
        },
        {},
        {"n_inside": n, "n_probe_train": len(probe_train)},
    )


def _ticking(bar: Callable[[int, int], None], before: int, total: int) -> Callable[[int], None]:
    return lambda row: bar(before + row + 1, total)


def _mean_heads(heads: pd.DataFrame, groups: NDArray[np.int64], options: dict[str, Any]) -> pd.DataFrame:
    """Mean of what each head does over proteins, with intervals, in wide form."""
    keys = ["block", "part", "head"]
    number = heads.groupby(keys, sort=False).ngroup()
    means = mean_scores(heads.drop(columns=keys).assign(number=number), groups, by="number", **options)
    made = heads[keys].drop_duplicates(ignore_index=True)
    for score, each in means.groupby("score", sort=False):
        each = each.set_index("number")
        made[score] = each["mean"]
        made[f"{score}_ci_low"], made[f"{score}_ci_high"] = each["ci_low"], each["ci_high"]
    return made


def _examples(
    network: DistanceNetwork,
    test: Sequence[Protein],
    logits: Sequence[NDArray[np.float32]],
    scores: pd.DataFrame,
) -> dict[str, NDArray[Any]]:
    """Arrays of a few proteins, not of the best ones: the longest at each of three quantiles of precision."""
    known = scores.reset_index(drop=True).dropna(subset=["precision_all_L5"])
    chosen = []
    for quantile in np.linspace(0.25, 0.75, _EXAMPLES):
        level = known["precision_all_L5"].quantile(quantile)
        near = known.assign(off=(known["precision_all_L5"] - level).abs()).sort_values(
            ["off", "n_residues"], ascending=[True, False]
        )
        chosen.append(next(int(i) for i in near.index if int(i) not in chosen))
    arrays: dict[str, NDArray[Any]] = {"names": np.array([test[i].name for i in chosen])}
    for place, i in enumerate(chosen):
        predicted = distances_of_logits(logits[i], network.distogram)
        arrays[f"contact_{place}"] = predicted.contact.astype(np.float32)
        arrays[f"distance_{place}"] = predicted.expected_angstrom.astype(np.float32)
        arrays[f"true_{place}"] = test[i].distances_angstrom
        arrays[f"probabilities_{place}"] = _softmax(logits[i]).astype(np.float16)
    arrays["edges_angstrom"] = network.distogram.edges_angstrom.numpy()
    return arrays


def _thirds_example(
    network: DistanceNetwork, test: Sequence[Protein], thirds: pd.DataFrame, seed: int
) -> dict[str, NDArray[Any]]:
    """Third residues of the protein with most pairs of contact and bridging residue, as much told as any was."""
    most = thirds[thirds["told_share"] == thirds["told_share"].max()].sort_values("n", ascending=False).iloc[0]
    if most["n"] == 0:
        return {}
    protein = next(each for each in test if each.name == most["name"])
    pairs, effects = found_contacts(network, _told_for_thirds(protein, most["told_share"], seed))
    return {
        "thirds_name": np.array([protein.name]),
        "thirds_pairs": pairs,
        "thirds_true": protein.distances_angstrom,
        "thirds_effects": effects.astype(np.float32),
    }


def _told_for_thirds(protein: Protein, share: float, seed: int) -> Protein:
    # A stream of its own for each protein: any of them can be drawn again.
    return told_contacts(protein, share, stream(seed, "protein", "thirds", protein.name))


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = np.exp(logits - logits.max(-1, keepdims=True))
    return found / found.sum(-1, keepdims=True)
