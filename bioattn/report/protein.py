"""The page of the protein track: families, many chains, what is inside the trunk, and third residues."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import bioattn
from bioattn.config import ProteinConfig, digest, protein_step_settings
from bioattn.errors import DataError
from bioattn.io.tables import read_parquet, read_tsv
from bioattn.plot.protein import (
    block_violations,
    contact_calibration,
    contact_halves,
    distogram_lines,
    family_precision,
    head_atlas,
    network_scores,
    third_effects,
    third_map,
    told_precision,
)
from bioattn.plot.training import training_curves
from bioattn.report.blocks import Block, Code, Fact, Facts, Heading, Pictures, Points, Section, Text, picture
from bioattn.report.build import render
from bioattn.report.numbers import count, number, percent, with_interval
from bioattn.report.tables import plain_table

#: What networks are, in words.
NETWORKS = {
    "trunk": "pair trunk",
    "told": "pair trunk, told contacts in training",
    "told_nothing": "the same network, told none",
    "no_triangles": "without triangle updates",
    "no_multiplication": "without triangle multiplication",
    "no_attention": "without triangle attention",
    "no_single": "without attention between residues",
    "window": "window network (no attention)",
}
SCORES = {
    "precision_all_L5": "precision, best L/5",
    "precision_long_L5": "long range, best L/5",
    "precision_medium_L5": "medium range, best L/5",
    "precision_short_L5": "short range, best L/5",
    "lddt": "lDDT of distances",
}
_TITLES = {
    **SCORES,
    "log_loss": "loss (nats)",
    "violation_rate": "violated triangles (share)",
    "violation_angstrom": "size of violations (Å)",
}
#: Steps whose mean loss is shown.
_LAST_STEPS = 50
LIMITS = (
    "A predicted distance is what a network learned from other proteins, or from an alignment; it is no measurement.",
    "A third residue that is cut out of a pair's triangles may still reach it through other pairs, so small effects "
    "say little. Effects are those in the model.",
    "The window network sees residues around both ends and their separation. What the trunk does better, it "
    "does by attention or triangles, at equal training data but unequal numbers of weights.",
    "Permuted columns remove all covariation; the tree keeps what descent alone brings. A method that finds contacts "
    "in either finds something else than couplings.",
)


def build_protein_report(results: str | Path, config: ProteinConfig) -> str:
    """One self-contained HTML page.

    Parameters
    ----------
    results : path
        Folder results/protein.

    Raises
    ------
    DataError
        If a result is missing, or there is nothing but families that could not be used.
    """
    root = Path(results)
    rejected = _rejected_families(root, config)
    used = [name for name in config.families if name not in rejected]
    if not used and config.chains is None:
        name, reason = next(iter(rejected.items()))
        raise DataError(f"no family can be used, first '{name}': {reason}")
    sections = [Section("summary", "Summary", _summary(root, config, used, rejected))]
    sections += [Section(f"family-{name}", f"Family {name}", _family(root / "families" / name)) for name in used]
    if config.chains is not None:
        folder = root / "distances"
        sections += [
            Section("chains", "Many chains", _chains(root, config)),
            Section("scores", "Distances of held-out chains", _scores(folder)),
            Section("training", "Training", _training(root, config)),
        ]
        variants = config.trunk.variants
        if "trunk" in variants:
            sections.append(Section("triangles", "What each part is needed for", _necessity(folder)))
        if "told" in variants:
            sections.append(Section("told", "Told some contacts", _told(folder)))
        if "trunk" in variants or "told" in variants:
            sections.append(Section("thirds", "Third residues", _thirds(folder)))
        if "trunk" in variants:
            sections += [
                Section("probe", "Heads that carry contacts", _probe(folder)),
                Section("examples", "Examples", _examples(folder)),
            ]
    sections += [
        Section("methods", "Methods", [Text(text) for text in _methods(config)]),
        Section("limits", "What this cannot say", [Points(LIMITS)]),
        Section("record", "Versions and settings", _record(config)),
    ]
    return render("bioattn protein track", "protein", "Contacts and distances of proteins.", sections)


def rejected_proteins(results: str | Path, config: ProteinConfig) -> pd.DataFrame:
    """Families and chains that could not be used: name, source, reason."""
    root = Path(results)
    rows = [
        {"name": name, "source": f"protein.families.{name}", "reason": reason}
        for name, reason in _rejected_families(root, config).items()
    ]
    found = pd.DataFrame(rows, columns=["name", "source", "reason"])
    if config.chains is None:
        return found
    chains = read_tsv(root / "chains" / "rejected.tsv")
    return pd.concat([found, chains], ignore_index=True) if len(found) else chains


def _rejected_families(root: Path, config: ProteinConfig) -> dict[str, str]:
    summaries = {name: _document(root / "families" / name / "summary.json") for name in config.families}
    return {name: str(each["rejected"]) for name, each in summaries.items() if "rejected" in each}


def _summary(root: Path, config: ProteinConfig, used: Sequence[str], rejected: Mapping[str, str]) -> list[Block]:
    told = []
    for name in used:
        best = _best(read_tsv(root / "families" / name / "precision.tsv"))
        told.append(
            f"Family {name}: of the best L/5 long-range pairs, {percent(best['factored attention', 'mean'])} are "
            f"contacts by factored attention, {percent(best['mean-field couplings', 'NA'])} by mean-field couplings."
        )
    if config.chains is not None:
        scores = read_tsv(root / "distances" / "scores.tsv")
        for row in scores[scores["score"] == "precision_all_L5"].to_dict("records"):
            told.append(
                f"{NETWORKS[str(row['network'])]}: precision of the best L/5 pairs "
                f"{with_interval(row['mean'], row['ci_low'], row['ci_high'])} on "
                f"{count(int(row['n']), 'held-out chain')}."
            )
    told += [f"Family {name} could not be used: {reason}" for name, reason in rejected.items()]
    return [Text(told[0], "lead"), *map(Text, told[1:])]


def _best(table: pd.DataFrame) -> dict[tuple[str, str], float]:
    chosen = table[(table["range"] == "long") & (table["top"] == "L/5") & (table["control"] == "alignment")]
    return {
        (str(row["method"]), "NA" if pd.isna(row["seed"]) else str(row["seed"])): float(row["precision"])
        for row in chosen.to_dict("records")
    }


def _family(folder: Path) -> list[Block]:
    summary = _document(folder / "summary.json")
    precision, pairs = read_tsv(folder / "precision.tsv"), read_parquet(folder / "pairs.parquet")
    heads, losses = read_tsv(folder / "heads.tsv"), read_parquet(folder / "losses.parquet")
    n = int(summary["n_residues"])
    maps = {name: _square(pairs, name, n) for name in ("couplings", "attention", "distance_angstrom")}
    np.fill_diagonal(maps["distance_angstrom"], 0.0)
    first = heads[heads["seed"] == heads["seed"].iloc[0]]
    atlas = head_atlas(
        _arrays(folder / "patterns.npz")["patterns"], first["precision"].tolist(), maps["distance_angstrom"]
    )
    final = float(losses.groupby("seed")["loss"].apply(lambda each: each.tail(_LAST_STEPS).mean()).mean())
    return [
        Facts(
            [
                Fact("residues", f"{n} ({summary['n_resolved']} in the structure)"),
                Fact("sequences", f"{summary['n_sequences']:,}"),
                Fact("effective", f"{summary['n_effective']:.0f}"),
            ]
        ),
        Pictures(
            [
                picture(
                    contact_halves(
                        maps["couplings"], maps["attention"], maps["distance_angstrom"],
                        names=("couplings", "attention"),
                    ),
                    alt="Contact map: best pairs of couplings above, of attention below the diagonal",
                    caption="As many pairs as residues, six or more apart.",
                ),  # fmt: skip
                picture(
                    family_precision(precision),
                    alt="Bars: long-range precision of each method on the alignment and its nulls",
                    caption="Dots: single seeds. Permuted columns keep conservation alone; phylogeny alone: columns "
                    "that evolve by themselves along the tree of the family.",
                ),
                picture(
                    atlas,
                    alt="Small maps of heads",
                    caption="Heads of the first seed with most contacts among their best L/5 long-range pairs "
                    "(number); below the diagonal: contacts.",
                ),
            ]
        ),
        plain_table("precision", "Precision of the best pairs, by range and number", _wide(precision)),
        plain_table(
            "pairs", "Best pairs by attention, six or more residues apart", _best_pairs(pairs),
            note="Residues are numbered from 1, as in the query.",
        ),
        Text(f"Loss of the last steps: {number(final)} nats per residue."),
    ]  # fmt: skip


def _wide(precision: pd.DataFrame) -> pd.DataFrame:
    """One row for each method, alignment and seed; columns by range and number of pairs."""
    shown = precision[precision["top"].isin(["L", "L/5"])]
    columns = (shown["range"] + ", " + shown["top"]).rename("best")
    rows = shown.assign(best=columns, seed=shown["seed"].fillna("").astype(str))
    wide = rows.pivot(index=["method", "control", "seed"], columns="best", values="precision")
    order = rows[["method", "control", "seed"]].drop_duplicates()
    return wide.reindex(pd.MultiIndex.from_frame(order), columns=list(dict.fromkeys(columns))).reset_index()


def _best_pairs(pairs: pd.DataFrame, *, n: int = 25) -> pd.DataFrame:
    """The first pairs that are no neighbours in the chain, their residues numbered from one."""
    best = pairs[pairs["j"] - pairs["i"] >= 6].head(n)
    return best.assign(i=best["i"] + 1, j=best["j"] + 1)


def _square(pairs: pd.DataFrame, column: str, n: int) -> np.ndarray:
    made = np.full((n, n), np.nan)
    i, j = pairs["i"].to_numpy(int), pairs["j"].to_numpy(int)
    made[i, j] = made[j, i] = pairs[column].to_numpy(float)
    return made


def _chains(root: Path, config: ProteinConfig) -> list[Block]:
    assert config.chains is not None
    leakage, rejected = read_tsv(root / "chains" / "leakage.tsv"), read_tsv(root / "chains" / "rejected.tsv")
    text = (
        f"Chains of {config.chains.source}. Two are related if their best local alignment has an E-value of at most "
        f"{config.chains.most_e_value:g} among all of them; related ones are never parted, also where only a third "
        "chain links them."
    )
    blocks: list[Block] = [
        Text(text),
        plain_table("leakage", "Held-out chains with a relative in training", leakage),
    ]
    if len(rejected):
        blocks.append(plain_table("rejected", "Chains that were not used", rejected))
    return blocks


def _scores(folder: Path) -> list[Block]:
    scores, curves = read_tsv(folder / "scores.tsv"), read_tsv(folder / "calibration.tsv")
    wide = _by_network(scores, "mean")
    kept = list(_TITLES)
    order = [NETWORKS[name] for name in dict.fromkeys(scores["network"])]
    return [
        Pictures(
            [
                picture(
                    network_scores(scores, scores=SCORES, names=NETWORKS),
                    alt="Markers: scores of each network",
                    caption="Bars: 95 % bootstrap intervals over groups of related chains.",
                ),
                picture(
                    contact_calibration(curves, names=NETWORKS),
                    alt="Lines: observed against predicted share of contacts",
                    caption="Pairs six or more apart; bins with at least 20.",
                ),
            ]
        ),
        plain_table("scores", "Means over held-out chains", wide.loc[order, kept].reset_index(), titles=_TITLES),
    ]


def _by_network(table: pd.DataFrame, value: str) -> pd.DataFrame:
    """A row for each network and a column for each score, values with their intervals."""
    return table.assign(
        value=[with_interval(r[value], r["ci_low"], r["ci_high"]) for r in table.to_dict("records")],
        network=[NETWORKS[str(name)] for name in table["network"]],
    ).pivot(index="network", columns="score", values="value")


def _training(root: Path, config: ProteinConfig) -> list[Block]:
    history = pd.concat(
        [
            read_tsv(root / "trunks" / name / "history.tsv").assign(network=NETWORKS[name])
            for name in config.trunk.variants
        ],
        ignore_index=True,
    )
    rows = []
    for name in config.trunk.variants:
        record = _document(root / "trunks" / name / "run_record.json")
        rows.append(
            {
                "network": NETWORKS[name], "weights": record["n_parameters"], "best epoch": record["best_epoch"] + 1,
                "validation loss": record["best_validation_loss"], "minutes": record["seconds"] / 60,
                "device": record["device"],
            }
        )  # fmt: skip
    drawn = picture(
        training_curves(history),
        alt="Lines: loss by epoch",
        caption="Cross-entropy of distance bins, and of contacts with its weight.",
    )
    return [Pictures([drawn]), plain_table("training", "Trained networks", pd.DataFrame(rows))]


def _told(folder: Path) -> list[Block]:
    table, compared = read_tsv(folder / "told.tsv"), read_tsv(folder / "told_differences.tsv")
    shown = compared[compared["told_share"] > 0].to_dict("records")
    rows = pd.DataFrame(
        {
            "contacts told": [percent(row["told_share"]) for row in shown],
            "less": [NETWORKS[str(row["network"])] for row in shown],
            "score": [_TITLES[str(row["score"])] for row in shown],
            "difference": [with_interval(row["difference"], row["ci_low"], row["ci_high"]) for row in shown],
        }
    )
    return [
        Text(
            "What the trunk makes of contacts that it is told, as cross-linking or the structure of a relative gives "
            "them. Here they are drawn from the true ones. Judged are the pairs away from these: a pair whose two "
            "residues are each within two of a told pair's does not count. The networks beside it are told none, and "
            "judged on the same pairs. From one pair to another there is no way but triangles."
        ),
        Pictures(
            [
                picture(
                    told_precision(table, names=NETWORKS),
                    alt="Lines: precision by the share of contacts that are told",
                    caption="Best L/5 of the pairs that count; the more are told, the fewer contacts are left to find. "
                    "Bars: 95 %, over groups of related chains.",
                )
            ]
        ),
        plain_table("told", "The trunk that is told contacts, less the other", rows),
    ]


def _necessity(folder: Path) -> list[Block]:
    table, blocks, heads = (read_tsv(folder / f"{name}.tsv") for name in ("differences", "blocks", "heads"))
    kept = list(_TITLES)
    # A trunk that is told contacts lacks no part.
    wide = _by_network(table[table["network"] != "told"], "difference")
    return [
        Text(
            "The trunk less the network without the part, paired over held-out chains. Precision and lDDT: above zero "
            "the part helps. Loss and violations: below zero it does."
        ),
        plain_table("differences", "Trunk less the other", wide[kept].reset_index(), titles=_TITLES),
        Pictures(
            [
                picture(
                    block_violations(blocks),
                    alt="Line: share of violated triangles after each block",
                    caption="Most probable distances that the readout gives after each block: triangles that no three "
                    "points in space have, beyond the width of bins.",
                )
            ]
        ),
        plain_table(
            "heads", "What is lost without one head, or one update that has none", _with_intervals(heads),
            sortable=True, note="Intervals: 95 %, over groups of related chains.",
        ),
    ]  # fmt: skip


_HEADS = {
    "rise_log_loss": "rise of loss",
    "rise_violation_rate": "rise of violations",
    "fall_precision_all_L5": "fall of precision",
}


def _with_intervals(heads: pd.DataFrame) -> pd.DataFrame:
    shown = heads[["block", "part"]].assign(head=heads["head"].astype(object).where(heads["head"] >= 0, ""))
    for name, title in _HEADS.items():
        shown[title] = [
            with_interval(row[name], row[f"{name}_ci_low"], row[f"{name}_ci_high"]) for row in heads.to_dict("records")
        ]
    return shown


def _thirds(folder: Path) -> list[Block]:
    thirds, summary = read_tsv(folder / "thirds.tsv"), read_tsv(folder / "thirds_summary.tsv")
    arrays = _arrays(folder / "examples.npz")
    texts, pictures = [], []
    told = ""
    cases = summary[["network", "told_share"]].drop_duplicates().to_dict("records")
    for name, share in ((str(case["network"]), float(case["told_share"])) for case in cases):
        part, each = (t[(t["network"] == name) & (t["told_share"] == share)] for t in (summary, thirds))
        told = NETWORKS[name].capitalize() + (f"; told {percent(share)} of contacts" if share > 0 else "; told none")
        if each["n"].sum() == 0:
            texts.append(
                f"{told}: no predicted contact has a residue that touches both ends and others to compare with."
            )
            continue
        rows = part.set_index("score")
        found = {score: with_interval(*rows.loc[score, ["mean", "ci_low", "ci_high"]]) for score in rows.index}
        texts.append(
            f"{told}: the log odds of a predicted contact fall by {found['bridging']} without its triangles through a "
            f"residue that touches both ends; by {found['matched']} without those through one that is as near in the "
            f"chain and does not. Difference: {found['difference']} over {int(part['n'].max())} held-out chains, "
            f"{int(each['n'].sum()):,} pairs of contact and residue."
        )
        pictures.append(
            picture(
                third_effects(each),
                alt="Dots: fall of log odds without bridging against matched residues",
                caption=f"{told}. A dot for each chain. Above the line: residues that bridge a contact matter more.",
            )
        )
    if "thirds_effects" in arrays:
        pictures.append(
            picture(
                third_map(arrays["thirds_effects"], arrays["thirds_pairs"], arrays["thirds_true"]),
                alt="Map: fall of the log odds of contacts without each third residue",
                caption=f"{arrays['thirds_name'][0]}, the chain with most such pairs. {told}.",
            )
        )
    return [*map(Text, texts), Pictures(pictures)]


def _probe(folder: Path) -> list[Block]:
    heads, precision = read_tsv(folder / "probe_heads.tsv"), read_tsv(folder / "probe.tsv")
    named = {"trunk": "heads of the trunk", "untrained": "heads of an untrained trunk"}
    shown = precision.assign(
        network=[named[str(n)] for n in precision["network"]],
        precision=[with_interval(r["mean"], r["ci_low"], r["ci_high"]) for r in precision.to_dict("records")],
    )[["network", "precision", "n"]]
    order = heads["weight"].abs().sort_values(ascending=False).index
    return [
        Text(
            "A sparse logistic regression from head patterns alone, symmetrised and corrected for their average "
            "products, to contacts. Heads with a weight carry contacts; the untrained trunk shows what patterns say "
            "that nobody trained."
        ),
        plain_table("probe", "Precision of the best L/5 pairs, held-out chains", shown),
        plain_table("probe-heads", "Weights of heads, largest first", heads.loc[order]),
    ]


def _examples(folder: Path) -> list[Block]:
    arrays = _arrays(folder / "examples.npz")
    blocks: list[Block] = []
    for place, name in enumerate(arrays.get("names", [])):
        contact, true = arrays[f"contact_{place}"].astype(float), arrays[f"true_{place}"].astype(float)
        blocks += [
            Heading(f"{name}"),
            Pictures(
                [
                    picture(
                        contact_halves(contact, -arrays[f"distance_{place}"], true, names=("probability", "distance")),
                        alt="Contact map of best predicted pairs",
                        caption="Best pairs by contact probability and by expected distance.",
                    ),
                    picture(
                        distogram_lines(arrays[f"probabilities_{place}"], true, arrays["edges_angstrom"]),
                        alt="Bars: predicted distribution of the distance of four pairs",
                        caption="Line: true distance. Pairs from the nearest to the farthest within 20 angstrom.",
                    ),
                ]
            ),
        ]
    return [Text("At the lower quartile, the median and the upper quartile of precision."), *blocks]


def _methods(config: ProteinConfig) -> list[str]:
    couplings, trunk = config.couplings, config.trunk
    families = (
        f"Families: sequences that lack more than {percent(couplings.most_gaps)} of the query's columns are left out; "
        f"those that agree in {percent(couplings.identity)} of the columns count as one. Mean-field couplings: "
        f"pseudocount {couplings.pseudocount:g}, zero-sum gauge, Frobenius norm without gaps, average product "
        "correction (Morcos et al. 2011; Ekeberg et al. 2013). Factored attention: one layer whose queries and keys "
        "belong to columns, trained by pseudo-likelihood (Bhattacharya et al. 2022); its couplings are scored in the "
        "same way, and averaged over seeds. A contact is a distance of C-beta below 8 angstrom; long range is a "
        "separation of 24 or more, medium 12 to 23, short 6 to 11; L is the number of residues in the structure."
    )
    networks = (
        f"Trunk: {trunk.n_blocks} blocks of pair-biased attention between residues, triangle multiplication, triangle "
        f"attention and transitions (Jumper et al. 2021, algorithms 7 and 11 to 15), residues {trunk.d_model} and "
        f"pairs {trunk.d_pair} wide; every network sees 7 residues on either side of each. Training: "
        f"cross-entropy of distance bins of one angstrom and {trunk.contact_weight:g} times that of contact or none of "
        f"pairs six or more apart, stretches of at most {trunk.crop} residues, at most "
        f"{trunk.epochs} epochs; the epoch with the lowest validation loss is kept."
    )
    judged = (
        "Intervals are bootstraps over groups of related chains. lDDT: share of pairs truly within 15 angstrom whose "
        "expected distance is right to 0.5, 1, 2 and 4 angstrom (mean). Violations: triangles of most probable "
        "distances that no three points in space have, beyond 1.5 widths of a bin, which rounding may add up to. Third "
        "residues: one at a time is cut out of the triangles of one pair, all else as it was; contacts are the true "
        "ones among the L best predicted; a residue bridges one if it touches both ends and is three or more from both "
        "in the chain; matched are residues as far from the nearer end in the chain that do not."
    )
    if "told" in trunk.variants:
        networks += (
            f" One trunk is told contacts: in each epoch, of half of the chains, up to {percent(trunk.most_told)}, as "
            "a feature of the pair."
        )
    return [*([families] if config.families else []), *([networks, judged] if config.chains else [])]


def _record(config: ProteinConfig) -> list[Block]:
    settings = protein_step_settings(config, "protein")
    facts = [Fact("bioattn", bioattn.__version__), Fact("settings digest", digest(settings))]
    return [Facts(facts), Code("Settings", json.dumps(settings, indent=1), folded=True)]


def _document(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}): run the workflow again") from None


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as found:
            return {name: found[name] for name in found.files}
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}): run the workflow again") from None
