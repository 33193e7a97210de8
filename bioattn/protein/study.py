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
from bioattn.protein.batches import Protein, told_contacts, told_nothing
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
from bioattn.protein.network import TOLD, build_network, predict_logits
from bioattn.rng import stream, stream_seed

#: The network that is looked into, and compared with the others.
BASE = "trunk"
#: The network that can be told contacts, where it is told none.
TOLD_NOTHING = "told_nothing"
#: What test chains are told, in parts of the most that training told.
_TOLD_PARTS = (0.0, 1 / 3, 2 / 3, 1.0)
#: Example proteins in figures.
_EXAMPLES = 3


class Study(NamedTuple):
    """Tables by name, arrays of example proteins, and a summary that JSON can hold.

    Tables: `proteins` (network, name, scores of each), `scores`, `differences` (network, score, ...), `calibration`; of
    the trunk `blocks`, `heads`, `probe_heads`, `probe`; of the trunk that is told contacts `told` and
    `told_differences` (told_share, network, score, ...), over pairs away from these; of both `thirds` and
    `thirds_summary`.
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
        logits[name] = predict_logits(network, [told_nothing(p) for p in test] if name == TOLD else test)
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
    draw = stream(config.seed, "protein", "inside")
    n = min(config.trunk.inside_chains, len(test))
    chosen = np.sort(draw.choice(len(test), n, replace=False))
    some = [test[i] for i in chosen]
    trunk, told = networks.get(BASE), networks.get(TOLD)
    if told is not None:
        tables |= _told(told, logits, test, groups, config, options)
    if trunk is not None or told is not None:
        tables |= _thirds(networks, some, groups[chosen], config, progress)
        arrays |= _thirds_example(networks, some, tables["thirds"], config.seed)
    if trunk is not None:
        assert isinstance(trunk, DistanceNetwork)
        tables["differences"] = differences(proteins, groups, base=BASE, **options)
        tables |= _inside(trunk, some, groups[chosen], probe_train, config)
        summary |= {"n_inside": n, "n_probe_train": len(probe_train)}
        arrays |= _examples(trunk, test, logits[BASE], proteins[proteins["network"] == BASE])
    return Study(tables, arrays, summary)


def _told(
    network: nn.Module,
    logits: Mapping[str, list[NDArray[np.float32]]],
    test: Sequence[Protein],
    groups: NDArray[np.int64],
    config: ProteinConfig,
    options: dict[str, Any],
) -> dict[str, pd.DataFrame]:
    """Scores of the network that is told shares of contacts, of itself and of others that are told none; differences.

    All of them on the same pairs.
    """
    distogram = network.distogram
    assert isinstance(distogram, Distogram)
    scores, compared = [], []
    for part in _TOLD_PARTS:
        share = round(part * config.trunk.most_told, 6)
        draw = stream(config.seed, "protein", "told", str(share))
        told = [told_contacts(protein, share, draw) for protein in test]
        made = {TOLD: predict_logits(network, told), TOLD_NOTHING: logits[TOLD]}
        made |= {name: found for name, found in logits.items() if name != TOLD}
        table = pd.DataFrame(
            {"network": name, "name": protein.name, **score_untold(found, protein, distogram)}
            for name, each in made.items()
            for protein, found in zip(told, each, strict=True)
        )
        scores.append(mean_scores(table, groups, **options).assign(told_share=share))
        compared.append(differences(table, groups, base=TOLD, **options).assign(told_share=share))
    return {
        "told": pd.concat(scores, ignore_index=True),
        "told_differences": pd.concat(compared, ignore_index=True),
    }


def _thirds(
    networks: Mapping[str, nn.Module],
    some: Sequence[Protein],
    groups: NDArray[np.int64],
    config: ProteinConfig,
    progress: Callable[[str], Callable[[int, int], None] | None],
) -> dict[str, pd.DataFrame]:
    """Third residues in the trunk, and in that which is told contacts, with and without any."""
    cases = [(name, share) for name, share in ((BASE, 0.0), (TOLD, 0.0), (TOLD, config.trunk.most_told))]
    cases = [case for case in cases if case[0] in networks]
    bar = progress("third residues")
    tables, summaries = [], []
    for place, (name, share) in enumerate(cases):
        network = networks[name]
        assert isinstance(network, DistanceNetwork)
        given = [_given(name, protein, share, config.seed) for protein in some]
        before, total = place * len(some), len(cases) * len(some)
        table = knock_out_thirds(network, given, tick=None if bar is None else _ticking(bar, before, total))
        means = mean_scores(
            table.drop(columns="n").assign(network=name), groups, by="network", draws=config.bootstrap, seed=config.seed
        )
        tables.append(table.assign(network=name, told_share=share))
        summaries.append(means.assign(told_share=share))
    return {
        "thirds": pd.concat(tables, ignore_index=True),
        "thirds_summary": pd.concat(summaries, ignore_index=True),
    }


def _ticking(bar: Callable[[int, int], None], before: int, total: int) -> Callable[[int], None]:
    return lambda row: bar(before + row + 1, total)


def _given(name: str, protein: Protein, share: float, seed: int) -> Protein:
    # A stream of its own for each protein: any of them can be drawn again.
    draw = stream(seed, "protein", "thirds", protein.name)
    return told_contacts(protein, share, draw) if name == TOLD else protein


def _inside(
    network: DistanceNetwork,
    some: Sequence[Protein],
    groups: NDArray[np.int64],
    probe_train: Sequence[Protein],
    config: ProteinConfig,
) -> dict[str, pd.DataFrame]:
    options: dict[str, Any] = {"draws": config.bootstrap, "seed": config.seed}
    blocks = audit_blocks(network, some)
    heads = audit_heads(network, some)
    few = probe_heads(network, probe_train, some)
    random = build_network(
        BASE, config.trunk, n_single=some[0].single.shape[1], n_pair=some[0].n_pair_features,
        seed=stream_seed(config.seed, "protein", "random"),
    ).eval()  # fmt: skip
    assert isinstance(random, DistanceNetwork)
    null = probe_heads(random, probe_train, some)
    probed = pd.concat(
        [few.precision.assign(network=BASE), null.precision.assign(network="untrained")], ignore_index=True
    )
    return {
        "blocks": blocks,
        "heads": _mean_heads(heads, groups, options),
        "probe_heads": few.heads,
        "probe": mean_scores(probed, groups, by="network", **options),
    }


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
    networks: Mapping[str, nn.Module], some: Sequence[Protein], thirds: pd.DataFrame, seed: int
) -> dict[str, NDArray[Any]]:
    """Third residues of the protein with most pairs of contact and bridging residue, in the last case of the table."""
    last = thirds.iloc[-1]
    case = thirds[(thirds["network"] == last["network"]) & (thirds["told_share"] == last["told_share"])]
    most = case.sort_values("n", ascending=False).iloc[0]
    if most["n"] == 0:
        return {}
    protein = next(each for each in some if each.name == most["name"])
    network = networks[most["network"]]
    assert isinstance(network, DistanceNetwork)
    pairs, effects = found_contacts(network, _given(most["network"], protein, most["told_share"], seed))
    return {
        "thirds_name": np.array([protein.name]),
        "thirds_pairs": pairs,
        "thirds_true": protein.distances_angstrom,
        "thirds_effects": effects.astype(np.float32),
    }


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = np.exp(logits - logits.max(-1, keepdims=True))
    return found / found.sum(-1, keepdims=True)
