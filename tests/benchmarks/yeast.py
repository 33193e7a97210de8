"""Motifs of yeast put into backgrounds of models trained on native promoters, against what is known of their factors.

    python tests/benchmarks/yeast.py TABLE.tsv[.gz] [--replicates 3] [--backgrounds 200] [--out FILE.tsv]

TABLE has the columns `id`, `sequence` (80 bp) and `expression`: the native fragments of de Boer et al. 2020. Exits with
1 if a motif that is known to act is found to act the other way, or one that does nothing is found to act.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import pandas as pd

from bioattn.causal.marginalize import KnockIn, backgrounds_of, lowest
from bioattn.causal.motif_effects import motif_effects
from bioattn.causal.sites import drawn_sites
from bioattn.config import RunConfig
from bioattn.data import alphabet
from bioattn.data.splits import split, subset_of
from bioattn.explain.library import scan_library
from bioattn.explain.pairs import Geometry, pair_data
from bioattn.explain.predict import predict
from bioattn.io.motifs import jaspar_group
from bioattn.train.fit import fit

#: What is known of these fragments in rich medium: general regulatory factors and activators raise expression, and
#: Gcn4 does nothing.
KNOWN = {
    "REB1": "raises", "ABF1": "raises", "RAP1": "raises", "CBF1": "raises", "RPN4": "raises", "GCN4": "nothing",
}  # fmt: skip
#: An effect below a tenth of the readout's spread over sequences does not count, as for pairs.
LEAST = 0.1
Q_VALUE = 0.05


def settings(replicates: int) -> RunConfig:
    """The settings of config/examples/yeast.yaml, with these motifs and independent replicates."""
    named = {motif.name.upper(): motif.motif_id for motif in jaspar_group("fungi")}
    return RunConfig.model_validate(
        {
            "task": {"kind": "regression", "targets": ["expression"]},
            "split": {"kind": "random", "group_by": ["shared_kmer"]},
            "motifs": {"jaspar_ids": [named[name] for name in KNOWN]},
            "model": {
                "stem": {"kind": "conv", "n_filters": 96, "width": 15, "pool": 4}, "d_model": 48, "n_layers": 1,
                "n_heads": 4, "d_feedforward": 96, "positions": "relative", "dropout": 0.1,
            },
            "train": {
                "seeds": list(range(1, replicates + 1)), "epochs": 8, "batch_size": 256, "learning_rate": 0.003,
                "resample": "bootstrap",
            },
            "interactions": {"similar_motifs": 1.0},
        }
    )  # fmt: skip


def insertions(table: pd.DataFrame, replicates: int, n_backgrounds: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Effects of motifs in shuffled and in quiet natural sequences, and scores of the models."""
    run = settings(replicates)
    parts = split(table, run.split, run.task, seed=run.seed)
    library = scan_library(run, table, parts, fold=0)
    test = (subset_of(table, parts, fold=0) == "test").nonzero()[0]
    codes = alphabet.encode_batch(table["sequence"].iloc[test].tolist())
    measured = table["expression"].iloc[test].to_numpy()
    cells: dict[str, list[pd.DataFrame]] = {"shuffled": [], "natural": []}
    scores = []
    for seed in run.train.seeds:
        model = fit(run, table, parts, seed=seed, progress=False).model
        scores.append(
            {"seed": seed, "n_test": len(test), "pearson": np.corrcoef(predict(model, codes)[:, 0], measured)[0, 1]}
        )
        data = pair_data(run, table, parts, library, fold=0, geometry=Geometry.of(model))
        sites = drawn_sites(
            data.codes, data.best_hits, data.motifs, n=n_backgrounds, hit_p_value=run.interactions.hit_p_value, seed=1
        )
        widest = max(motif.width for motif in data.motifs)
        held = table["expression"].to_numpy()[data.rows]
        for kind in cells:
            shuffle = kind == "shuffled"
            backgrounds = backgrounds_of(
                data.codes if shuffle else lowest(data.codes, held),
                n=n_backgrounds, widest=widest, model=model, seed=1, shuffle=shuffle,
            )  # fmt: skip
            made = KnockIn(model, backgrounds, data.motifs, sites, readout=0, seed=1)
            n = data.n_motifs
            # Every motif once, and every decoy.
            cells[kind].append(made.pairs([(m, (m + 1) % n + n) for m in range(n)]))
    spread = float(table["expression"].std())
    n_hits = data.best_hits["motif"].value_counts()
    rows = []
    for kind, each in cells.items():
        found = motif_effects(each, n_motifs=data.n_motifs, permutations=999, seed=1)
        names = [data.motifs[m].name.upper() for m in found["motif"]]
        rows.append(
            found.assign(
                motif=names,
                backgrounds=kind,
                known=[KNOWN[name] for name in names],
                n_hits=[int(n_hits.get(m, 0)) for m in found["motif"]],
                beyond_decoy=found["effect"] - found["decoy_effect"],
                found=[_word(row, LEAST * spread) for row in found.to_dict("records")],
            )
        )
    columns = ["motif", "backgrounds", "known", "found", "n_hits", "effect", "effect_ci_low", "effect_ci_high"]
    columns += ["decoy_effect", "beyond_decoy", "q_value", "seeds_supporting", "n_replicates", "n_backgrounds"]
    return pd.concat(rows, ignore_index=True)[columns], pd.DataFrame(scores)


def _word(row: dict[str, float], least: float) -> str:
    """What a motif is found to do.

    Its effect, and what that is beyond its decoy, have one sign; the latter is significant, of a size that counts, and
    of that sign in all models.
    """
    beyond = row["effect"] - row["decoy_effect"]
    counts = row["q_value"] < Q_VALUE and abs(beyond) >= least and row["seeds_supporting"] == row["n_replicates"]
    if not counts or np.sign(beyond) != np.sign(row["effect"]):
        return "nothing"
    return "raises" if beyond > 0 else "lowers"


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 1 if something is found that is known to be otherwise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("--replicates", type=int, default=3)
    parser.add_argument("--backgrounds", type=int, default=200)
    parser.add_argument("--most", type=int, help="random fragments of the table, for a quick look")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    table = pd.read_csv(options.table, sep="\t").rename(columns={"id": "name"})
    if options.most and options.most < len(table):
        table = table.sample(options.most, random_state=1, ignore_index=True)
    found, scores = insertions(table, options.replicates, options.backgrounds)
    print(scores.round(3).to_string(index=False))
    print(found.round(3).to_string(index=False))
    missed = found[(found["known"] == "raises") & (found["found"] == "nothing")]
    wrong = found[(found["found"] != "nothing") & (found["found"] != found["known"])]
    print(f"missed: {', '.join(missed['motif'] + ' (' + missed['backgrounds'] + ')') or 'none'}")
    print(f"otherwise than known: {', '.join(wrong['motif'] + ' (' + wrong['backgrounds'] + ')') or 'none'}")
    if options.out:
        found.to_csv(options.out, sep="\t", index=False)
    return int(len(wrong) > 0)


if __name__ == "__main__":
    sys.exit(main())
