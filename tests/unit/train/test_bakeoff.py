"""The comparison of tokenizers: every tokenizer and seed on one split, resumable, with numbers that can be checked."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from toy_training import SMALL_MODEL, toy_tables

from bioattn.config import TokenizerConfig, parse_run
from bioattn.errors import ConfigError, DataError
from bioattn.train import bakeoff as bakeoff_module
from bioattn.train.bakeoff import MEASURED, SEEDS, TABLE, bakeoff, label, slug
from bioattn.train.data import load_examples, predict
from bioattn.train.fit import fit
from bioattn.train.metrics import validation_metric

TOKENIZERS = [
    {"kind": "nucleotide"},
    {"kind": "kmer", "k": 3, "stride": 3},
    {"kind": "kmer", "k": 3, "stride": 1},
    {"kind": "bpe", "vocabulary": 30},
]


def a_run(tokenizers=None, seeds=(1, 2), language_epochs=1, **train):
    settings = {"epochs": 1, "batch_size": 32, "device": "cpu", **train}
    compared = {"tokenizers": tokenizers or TOKENIZERS, "seeds": list(seeds), "language_epochs": language_epochs}
    return parse_run({"model": SMALL_MODEL, "train": settings, "bakeoff": compared})


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    """A comparison of four tokenizers with two seeds, its working folder, and the models that were looked at."""
    folder = tmp_path_factory.mktemp("bakeoff")
    seen = []

    def recovery(model: torch.nn.Module) -> float:
        seen.append(model)
        return len(seen) / 10

    result = bakeoff(a_run(), *toy_tables(), work_dir=folder, recovery=recovery, progress=False)
    return result, folder, seen


def test_every_tokenizer_and_seed_is_measured(compared):
    """One row per tokenizer and seed, one per tokenizer with mean and standard deviation, nothing missing."""
    result, folder, seen = compared
    assert list(result.seeds.columns) == list(SEEDS) and list(result.table.columns) == list(TABLE)
    assert len(result.seeds) == len(seen) == 8 and len(result.table) == 4
    assert result.table["tokenizer"].tolist() == [
        "nucleotides",
        "3-mers, stride 3",
        "3-mers, stride 1",
        "BPE, 30 words",
    ]
    assert result.seeds[list(MEASURED)].notna().all().all() and (result.table["n_seeds"] == 2).all()
    for name in MEASURED:
        for row in result.table.to_dict("records"):
            values = result.seeds.loc[result.seeds["tokenizer"] == row["tokenizer"], name]
            assert row[name] == pytest.approx(values.mean()) and row[f"{name}_sd"] == pytest.approx(values.std())
    assert len(list((folder / "units").glob("*.json"))) == 8 and not list(folder.glob("*/*.ckpt"))


def test_what_a_tokenizer_is(compared):
    """Nucleotides keep the run's stem and have no vocabulary; tokens per sequence follow from length and stride."""
    result, _, seen = compared
    table = result.table.set_index("tokenizer")
    assert table.loc["nucleotides", "tokens_per_sequence"] == 12  # 23 bases, two per token
    assert table.loc["3-mers, stride 3", "tokens_per_sequence"] == 8
    assert table.loc["3-mers, stride 1", "tokens_per_sequence"] == 21
    assert 23 / 6 < table.loc["BPE, 30 words", "tokens_per_sequence"] < 23
    assert np.isnan(table.loc["nucleotides", "n_words"]) and table.loc["3-mers, stride 3", "n_words"] == 87
    assert (table["n_train"] == 210).all() and (table["n_test"] == table["n_bits"]).all()
    assert table["markov3_bits_per_base"].nunique() == 1
    assert [model.tokenizer is None for model in seen] == [True, True, *[False] * 6]
    for model, n in zip(seen, result.seeds["n_parameters"], strict=True):
        assert sum(p.numel() for p in model.parameters()) == n


def test_the_score_is_that_of_a_model_trained_alone(compared):
    """The metric is the one of `fit` with that tokenizer, predicted on the test part."""
    result, _, _ = compared
    run = a_run()
    stem = {"kind": "none", "pool": 1}
    document = run.model_dump(mode="json") | {
        "model": run.model.model_dump(mode="json") | {"tokenizer": TOKENIZERS[1], "stem": stem}
    }
    tables = toy_tables()
    model = fit(parse_run(document), *tables, seed=2, progress=False).model
    test = load_examples(*tables, run.task, fold=0)["test"]
    expected = validation_metric("binary", test.targets.numpy(), predict(model, test))
    row = result.seeds[(result.seeds["tokenizer"] == "3-mers, stride 3") & (result.seeds["seed"] == 2)]
    assert row["metric"].item() == pytest.approx(expected) and row["metric_name"].item() == "auroc"


def test_finished_units_are_not_done_again(compared, monkeypatch: pytest.MonkeyPatch):
    """A second call takes all numbers from files; a changed one, or half a file, is done again, and no other."""
    result, folder, _ = compared
    trained = []

    def noted(run, *tables, seed, **more):
        trained.append((slug(run.model.tokenizer), seed))
        return fit(run, *tables, seed=seed, **more)

    monkeypatch.setattr(bakeoff_module, "fit", noted)

    def again(run=None, tables=None):
        trained.clear()
        return bakeoff(
            run or a_run(), *(tables or toy_tables()), work_dir=folder, recovery=lambda model: 0.0, progress=False
        )

    pd.testing.assert_frame_equal(again().seeds, result.seeds)
    assert trained == []
    unit = folder / "units" / "kmer3-1-seed2.json"
    unit.write_text(unit.read_text()[:50])
    again()
    assert trained == [("kmer3-1", 2)]
    assert json.loads(unit.read_text())["values"]["motif_recovery"] == 0.0
    again(a_run(seeds=(2, 3), tokenizers=TOKENIZERS[1:3]))
    assert trained == [("kmer3-3", 3), ("kmer3-1", 3)]
    again(a_run(seeds=(1,), tokenizers=TOKENIZERS[:2], learning_rate=0.002))
    assert trained == [("nucleotide", 1), ("kmer3-3", 1)]
    again(a_run(seeds=(1,), tokenizers=TOKENIZERS[1:3], learning_rate=0.002), toy_tables(seed=1))
    assert trained == [("kmer3-3", 1), ("kmer3-1", 1)]


def test_left_out_numbers_are_missing(tmp_path):
    """Without a next-token model, known motifs, and several seeds, those columns are missing, and nothing fails."""
    run = a_run(seeds=(1,), language_epochs=0, tokenizers=TOKENIZERS[1:3])
    table = bakeoff(run, *toy_tables(kind="binary"), work_dir=tmp_path, progress=False).table
    assert table[["bits_per_base", "motif_recovery", "metric_sd"]].isna().all().all()
    assert table["metric"].notna().all() and (table["n_bits"] == 0).all()


def test_what_is_refused(tmp_path):
    """The same tokenizer or seed twice, and a fold without test sequences."""
    for compared, message in (
        ({"seeds": [1, 1]}, "bakeoff.seeds must differ, got"),
        ({"tokenizers": [TOKENIZERS[1]] * 2}, "bakeoff.tokenizers must differ, got one of them twice"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse_run({"bakeoff": compared})
    sequences, split = toy_tables()
    split["fold_0"] = split["fold_0"].replace("test", "train")
    with pytest.raises(DataError, match="fold 0 has no test sequences to compare tokenizers on"):
        bakeoff(a_run(), sequences, split, work_dir=tmp_path)


def test_names_of_tokenizers_differ():
    """In tables and in file names."""
    more = [{"kind": "bpe", "vocabulary": 31}, {"kind": "kmer", "k": 4, "stride": 3}]
    configs = [TokenizerConfig(**settings) for settings in (*TOKENIZERS, *more)]
    assert len({label(c) for c in configs}) == len({slug(c) for c in configs}) == len(configs)
