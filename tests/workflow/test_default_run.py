"""The default configuration, whole, with the numbers that README promises."""

import json
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
    clones.Clone(root, root).run()
    return root / "results"


def held_out(results: Path, run: str, metric: str, model: str = "transformer") -> pd.Series:
    """Held-out values of a metric, one for each fold and seed."""
    table = read_tsv(results / run / "evaluation" / "metrics.tsv")
    chosen = table[(table["model"] == model) & (table["metric"] == metric) & (table["subset"] == "test")]
    return chosen[chosen["fold"].astype(str) != "all"].set_index("seed")["value"]


def verdicts(results: Path, run: str) -> pd.DataFrame:
    """Interaction table, by unordered pair."""
    table = read_tsv(results / run / "interactions" / "table" / "interactions.tsv")
    pairs = [frozenset(pair) for pair in zip(table["motif_a"], table["motif_b"], strict=True)]
    return table.assign(pair=pairs).set_index("pair")


def test_every_replicate_of_planted_reaches_the_ceiling(results):
    """On simulated promoters each seed reaches 95 % of what a perfect reader of the sequence reaches."""
    ceiling = json.loads((results / "planted" / "input" / "truth.json").read_text())["ceiling"]
    values = held_out(results, "planted", "pearson")
    assert len(values) >= 3
    assert values.min() >= 0.95 * ceiling


def test_only_the_planted_interaction_is_called_causal(results):
    """Of all pairs, the AND pair and no other is 'causal in model'."""
    truth = read_tsv(results / "planted" / "input" / "truth_pairs.tsv")
    table = verdicts(results, "planted")
    causal = set(table.index[table["verdict"] == "causal in model"])
    interacting = truth[truth["interaction"] != 0]
    assert causal == {frozenset(pair) for pair in zip(interacting["motif_a"], interacting["motif_b"], strict=True)}
    assert len(causal) == 1
    assert len(table) == 12 * 11 // 2


def test_lac_is_predicted_on_held_out_variants(results):
    """On the real lac promoter the held-out Pearson r is at least 0.60, above the additive baseline."""
    values = held_out(results, "lac", "pearson")
    assert values.mean() >= 0.60
    assert values.mean() > held_out(results, "lac", "pearson", model="onehot").mean()


def test_lac_importance_lies_in_the_known_sites(results):
    """Mutations matter most in the CRP site, the -35 box and the -10 box."""
    sites = yaml.safe_load((results / "lac" / "config.yaml").read_text())["runs"]["lac"]["motifs"]["sites"]
    effect = mean_effect_by_position(results / "lac" / "heads" / "seed1" / "ism.parquet")
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
