"""The default configuration, whole, with the numbers that README promises."""

import shutil
from itertools import combinations
from pathlib import Path

import pandas as pd
import pytest
import yaml

from bioattn.io.tables import read_parquet, read_tsv

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of `snakemake --cores 2` from the root of a clone."""
    import importlib.util

    # The helpers of conftest.py, for a fixture of module scope.
    spec = importlib.util.spec_from_file_location("workflow_clones", Path(__file__).with_name("conftest.py"))
    assert spec and spec.loader
    clones = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(clones)
    root = tmp_path_factory.mktemp("default") / "clone"
    clones.copy_workflow(root)
    clone = clones.Clone(root, root)
    clone.run()
    # Two further structural models of the same kind: other pairs, other sequences.
    document = yaml.safe_load((root / "config" / "config.yaml").read_text())
    planted = document["runs"]["planted"]
    document["runs"] = {f"planted_{seed}": planted | {"seed": seed, "evaluate": {"baselines": []}} for seed in (2, 3)}
    clone.write_config(document)
    files = ("evaluation/metrics.tsv", "interactions/table/interactions.tsv")
    clone.run(*(f"results/{run}/{file}" for run in document["runs"] for file in files), "--configfile", "config.yaml")
    return root / "results"


def held_out(results: Path, run: str, metric: str, model: str = "transformer") -> pd.Series:
    """Held-out values of a metric, one for each fold and seed."""
    table = read_tsv(results / run / "evaluation" / "metrics.tsv")
    chosen = table[(table["model"] == model) & (table["metric"] == metric) & (table["subset"] == "test")]
    return chosen[chosen["fold"].astype(str) != "all"].set_index("seed")["value"]


def verdicts(results: Path, run: str) -> pd.DataFrame:
    """Interaction table, by unordered pair."""
    table = read_tsv(results / run / "interactions" / "table" / "interactions.tsv")
    pairs = [frozenset(pair) for pair in zip(table["tf_a"], table["tf_b"], strict=True)]
    return table.assign(pair=pairs).set_index("pair")


def ceiling(results: Path, run: str) -> float:
    """Pearson r of the true structural equation, all that the sequence holds given, on the test sequences."""
    truth = read_tsv(results / run / "input" / "truth_sequences.tsv").set_index("name")
    parts = read_parquet(results / run / "split" / "split.parquet").set_index("name")["fold_0"]
    test = truth.loc[parts.index[parts == "test"]]
    return float(test["expected"].corr(test["y"]))


PLANTED = ["planted", "planted_2", "planted_3"]


@pytest.mark.parametrize("run", PLANTED)
def test_planted_reaches_the_ceiling(results, run):
    """On simulated promoters the replicates reach 95 % of what a perfect reader of the same sequences reaches."""
    values = held_out(results, run, "pearson")
    assert len(values) == 5
    assert values.mean() >= 0.95 * ceiling(results, run)


@pytest.mark.parametrize("run", PLANTED)
def test_only_the_planted_interaction_is_called_causal(results, run):
    """Of all 66 pairs, the AND pair and no other is 'causal in model', for every structural model."""
    truth = read_tsv(results / run / "input" / "truth_pairs.tsv")
    table = verdicts(results, run)
    causal = set(table.index[table["verdict"] == "causal in model"])
    interacting = truth[truth["interaction"] != 0]
    assert causal == {frozenset(pair) for pair in zip(interacting["motif_a"], interacting["motif_b"], strict=True)}
    assert len(causal) == 1
    assert len(table) == 12 * 11 // 2


@pytest.mark.parametrize("run", PLANTED)
def test_hidden_cause_and_inert_company_are_not_called_causal(results, run):
    """Knock-outs do find an interaction for the hidden-cause pair; its co-occurrence keeps it from being called one."""
    truth = read_tsv(results / run / "input" / "truth_pairs.tsv").set_index("class")
    rows = verdicts(results, run).to_dict("index")
    found = {name: rows[frozenset(truth.loc[name, ["motif_a", "motif_b"]])] for name in ("HIDDEN", "INERT")}
    assert found["HIDDEN"]["verdict"] == "co-occurrence confounded" and found["HIDDEN"]["epistasis_effect"] > 0.3
    assert found["INERT"]["verdict"] in ("not supported", "co-occurrence confounded", "not tested")
    assert abs(found["INERT"]["epistasis_effect"]) < 0.1 and found["INERT"]["cooccurrence_logodds"] > 1


def test_heads_read_planted_motifs_by_name(results):
    """A head of each replicate is named after a motif of the AND pair, on held-out sequences."""
    truth = read_tsv(results / "planted" / "input" / "truth_motifs.tsv")
    wanted = set(truth.loc[truth["class"].isin(["AND", "ADDITIVE", "HIDDEN"]), "motif"])
    for seed in range(1, 6):
        heads = read_tsv(results / "planted" / "heads" / f"seed{seed}" / "heads.tsv")
        named = " ".join(heads.loc[heads["motif"] >= 0, "matches"].dropna())
        assert sum(name in named for name in wanted) >= 3


def test_lac_is_predicted_on_held_out_variants(results):
    """On the real lac promoter the held-out Pearson r is at least 0.60, above the additive baseline."""
    values = held_out(results, "lac", "pearson")
    assert values.mean() >= 0.60
    assert values.mean() > held_out(results, "lac", "pearson", model="onehot").mean()


def test_lac_importance_lies_in_the_known_sites(results):
    """Mutations matter most in the CRP site, the -35 box and the -10 box."""
    sites = yaml.safe_load((results / "lac" / "config.yaml").read_text())["runs"]["lac"]["motifs"]["sites"]
    effect = mean_effect_by_position(results / "lac" / "attribution" / "seed1" / "ism.parquet")
    mean = {site["name"]: effect.loc[site["start"] : site["end"] - 1].mean() for site in sites}
    known = [mean[site["name"]] for site in sites if not site["control"]]
    controls = [mean[site["name"]] for site in sites if site["control"]]
    assert min(known) > max(controls)


def mean_effect_by_position(path: Path) -> pd.Series:
    """Root mean square effect of the substitutions at each position."""
    table = read_parquet(path)
    return ((table[list("ACGT")] ** 2).sum(axis=1) / 3).groupby(table["position"]).mean() ** 0.5


def test_lac_site_pairs_rank_above_spacer_pairs(results):
    """Pairs of binding sites interact more strongly than any pair with a control spacer."""
    sites = yaml.safe_load((results / "lac" / "config.yaml").read_text())["runs"]["lac"]["motifs"]["sites"]
    table = verdicts(results, "lac")["epistasis_effect"].abs()
    known = {frozenset(pair) for pair in combinations([s["name"] for s in sites if not s["control"]], 2)}
    assert (
        table[[pair in known for pair in table.index]].min() > table[[pair not in known for pair in table.index]].max()
    )


def test_reports_stand_alone(results):
    """Each run has a report that loads nothing from the network."""
    for run in ("planted", "lac"):
        page = (results / run / "report.html").read_text()
        assert "<script src" not in page and "<link " not in page


def test_the_disk_size_is_moderate(results):
    """The results of the default take less than 500 MB."""
    assert shutil.disk_usage(results).free > 0
    assert sum(path.stat().st_size for path in results.rglob("*") if path.is_file()) < 500e6
