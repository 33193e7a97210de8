"""A model with a pair track from training to the table of interactions, through the command line."""

from pathlib import Path

import numpy as np
import pytest
import yaml
from toy_verbs import call

from bioattn.explain.coattention import PAIR_FLAVOUR, load_coattention
from bioattn.io.tables import read_parquet, read_tsv
from bioattn.models import load_model

SEEDS = (1, 2)


@pytest.fixture(scope="module")
def work(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every verb from simulation to the table of interactions, on 600 promoters and two models of one epoch."""
    folder = tmp_path_factory.mktemp("pairs")
    document = yaml.safe_load((root / "config" / "config.yaml").read_text())
    run = document["runs"]["planted"]
    run["data"]["simulate"] = {"n_sequences": 600, "pairs": ["AND", "INERT", "ADDITIVE"]}
    run["motifs"] = {"jaspar_ids": run["motifs"]["jaspar_ids"][:6]}
    run["model"] |= {"trunk": "pair", "interaction_bottleneck": False, "pair": {"d_pair": 8, "bin_tokens": 2}}
    run["train"] = {"seeds": list(SEEDS), "epochs": 1}
    run["interactions"] = {
        "instances_per_pair": 10, "draws": 1, "permutations": 99, "min_instances": 5, "n_noncandidates": 8,
        "backgrounds": 16, "screen_backgrounds": 8, "syntax_backgrounds": 8, "spacing_step_bp": 30, "min_replicates": 2,
        "minimum_effect": 0.0,
    }  # fmt: skip
    (folder / "config.yaml").write_text(yaml.safe_dump({"runs": {"planted": run}}))
    settings = ["--settings", folder / "config.yaml"]
    data = ["--sequences", folder / "data" / "sequences.parquet", "--split", folder / "split" / "split.parquet"]
    call("simulate", *settings, "--out", folder / "input")
    call("ingest", *settings, "--samples", folder / "input" / "samples.tsv", "--out", folder / "data")
    call("split", *settings, *data[:2], "--out", folder / "split")
    call("hits", *settings, *data, "--out", folder / "hits")
    for seed in SEEDS:
        call("train", *settings, *data, "--seed", seed, "--out", folder / f"model{seed}")
    data += ["--hits", folder / "hits"]
    for seed in SEEDS:
        inputs = [*settings, *data, "--model", folder / f"model{seed}"]
        call("coattention", *inputs, "--out", folder / f"coattention{seed}.npz")
        call("screen", *inputs, "--out", folder / f"screen{seed}.parquet")
    call(
        "candidates", *settings, *data, *_tables(folder, coattention="npz", screen="parquet"), "--out", folder / "c.tsv"
    )
    for seed in SEEDS:
        inputs = [*settings, *data, "--model", folder / f"model{seed}", "--candidates", folder / "c.tsv"]
        call("knockout", *inputs, "--out", folder / f"knockout{seed}.parquet")
        out = ["--out", folder / f"knockin{seed}.parquet", "--syntax", folder / f"syntax{seed}.parquet"]
        call("knockin", *inputs, *out)
    every = _tables(folder, coattention="npz", **dict.fromkeys(("knockout", "screen", "knockin", "syntax"), "parquet"))
    call("interactions", *settings, *data, "--candidates", folder / "c.tsv", *every, "--out", folder / "table")
    return folder


def _tables(folder: Path, **endings: str) -> list[object]:
    return [
        word for name, ending in endings.items() for seed in SEEDS
        for word in (f"--{name}", folder / f"{name}{seed}.{ending}")
    ]  # fmt: skip


@pytest.mark.slow
def test_the_track_is_trained_and_has_its_columns(work: Path):
    """The saved model has pairs; co-attention has a flavour for each layer; knock-ins cut pairs of each layer."""
    model, _ = load_model(work / "model1")
    assert model.has_pairs and model.encoder.bin_tokens == 2
    found, _ = load_coattention(work / "coattention1.npz")
    assert found.flavours[PAIR_FLAVOUR].shape[0] == model.n_layers
    cells = read_parquet(work / "knockin1.parquet")
    cut = cells["epistasis_cut_0.pair"]
    whole = cells["y11"] - cells["y10"] - cells["y01"] + cells["y00"]
    assert cut.notna().any() and not np.allclose(cut[cut.notna()], whole[cut.notna()])


@pytest.mark.slow
def test_the_table_tells_what_pairs_hold_and_what_they_carry(work: Path):
    """Sizes of pair states as co-attention; heads and track are named; shares are not exact, and why is said."""
    table = read_tsv(work / "table" / "interactions.tsv")
    assert table["attention_pair_bits"].notna().all() and table["attention_pair_bits"].abs().max() > 0
    carried = table["carrying_head"].dropna()
    assert len(carried) and carried.str.contains(r"^\d\.(?:\d|pair), \d\.(?:\d|pair)$").all()
    assert table["decomposition"].dropna().str.contains("trunk 'pair'").all()
