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
from bioattn.protein.batches import Protein
from bioattn.protein.evaluate import calibration, differences, distances_of_logits, mean_scores, score_protein
from bioattn.protein.inside import (
    audit_blocks,
    audit_heads,
    knock_out_thirds,
    probe_heads,
    third_residue_effects,
    true_contacts_predicted,
)
from bioattn.protein.network import build_network, predict_logits
from bioattn.rng import stream, stream_seed

#: The network that is looked into, and compared with the others.
BASE = "trunk"
#: Example proteins in figures.
_EXAMPLES = 3


class Study(NamedTuple):
    """Tables by name, arrays of example proteins, and a summary that JSON can hold.

    Tables: `proteins` (network, name, scores of each), `scores`, `differences` (network, score, ...), `calibration`;
    of the trunk `blocks`, `heads`, `thirds`, `thirds_summary`, `probe_heads`, `probe`.
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
    summary: dict[str, Any] = {"n_test": len(test), "n_groups": int(len(np.unique(groups)))}
    arrays: dict[str, NDArray[Any]] = {}
    trunk = networks.get(BASE)
    if trunk is not None:
        assert isinstance(trunk, DistanceNetwork)
        tables["differences"] = differences(proteins, groups, base=BASE, **options)
        inside = _inside(trunk, test, groups, probe_train, config, progress)
        tables |= inside.tables
        summary |= inside.summary
        arrays = _examples(trunk, test, logits[BASE], proteins[proteins["network"] == BASE], tables["thirds"])
    return Study(tables, arrays, summary)


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
    thirds = knock_out_thirds(network, some, tick=None if bar is None else lambda row: bar(row + 1, n))
    options: dict[str, Any] = {"draws": config.bootstrap, "seed": config.seed}
    effect = thirds.assign(network=BASE).drop(columns="n")
    thirds_summary = mean_scores(effect, groups[chosen], by="network", **options).drop(columns="network")
    blocks = audit_blocks(network, some)
    heads = audit_heads(network, some)
    first = test[0]
    few = probe_heads(network, probe_train, some)
    random = build_network(
        BASE, config.trunk, n_single=first.single.shape[1], n_pair=0 if first.pair is None else first.pair.shape[-1],
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
            "thirds": thirds,
            "thirds_summary": thirds_summary,
            "probe_heads": few.heads,
            "probe": mean_scores(probed, groups[chosen], by="network", **options),
        },
        {},
        {"n_inside": n, "n_probe_train": len(probe_train)},
    )


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
    thirds: pd.DataFrame,
) -> dict[str, NDArray[Any]]:
    """Arrays of a few proteins at the median and the upper quartile of precision, and one's third residues.

    Proteins are not the best ones: the longest within each of three quantiles of precision.
    """
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
    if thirds["n"].max() > 0:
        name = thirds.sort_values("n", ascending=False)["name"].iloc[0]
        row = next(i for i, protein in enumerate(test) if protein.name == name)
        arrays["thirds_name"] = np.array([name])
        true, contact = test[row].distances_angstrom, distances_of_logits(logits[row], network.distogram).contact
        pairs = true_contacts_predicted(contact, true.astype(np.float64))
        arrays["thirds_pairs"], arrays["thirds_true"] = pairs, true
        arrays["thirds_effects"] = third_residue_effects(network, test[row], pairs).astype(np.float32)
    return arrays


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = np.exp(logits - logits.max(-1, keepdims=True))
    return found / found.sum(-1, keepdims=True)
