"""One call from tables to a trained model: what it returns, writes, shows and leaves alone."""

import itertools
import json
import logging
import sys

import pytest
import torch
from toy_training import small_run, toy_tables

from bioattn.config import digest, parse_run, step_settings
from bioattn.errors import ConfigError, DataError
from bioattn.io.tables import write_parquet
from bioattn.models import load_model, save_model
from bioattn.tokens.bpe import train_bpe
from bioattn.train.data import load_examples, predict
from bioattn.train.fit import HISTORY, fit
from bioattn.train.module import TrainingModule


def test_result_holds_history_and_record(tmp_path):
    """History has one row per epoch and the agreed columns; the record says digest, device, seed, fold, versions."""
    run = small_run()
    result = fit(run, *toy_tables(), fold=0, seed=4, work_dir=tmp_path)
    assert list(result.history.columns) == list(HISTORY)
    assert result.history["epoch"].tolist() == [0, 1, 2]
    assert result.history["step"].is_monotonic_increasing
    assert not result.history.isna().any().any()
    record = json.loads(json.dumps(result.record))
    assert record["digest"] == digest(step_settings(run, "train"))
    assert (record["fold"], record["seed"]) == (0, 4)
    assert (record["accelerator"], record["precision"], record["threads"]) == ("cpu", "32-true", 1)
    assert record["n_parameters"] == sum(p.numel() for p in result.model.parameters())
    assert record["n_examples"] == {"train": 210, "validation": 30}
    assert {"python", "bioattn", "torch", "lightning", "numpy"} <= set(record["versions"])
    assert record["seconds"] > 0
    assert not result.model.training


def test_each_epoch_has_its_own_order(monkeypatch):
    """The first training batch differs from epoch to epoch, and again from seed to seed."""
    firsts = []
    step = TrainingModule.training_step

    def spy(self, batch, batch_idx):
        if batch_idx == 0:
            firsts.append(batch[0])
        return step(self, batch, batch_idx)

    monkeypatch.setattr(TrainingModule, "training_step", spy)
    for seed in (1, 2):
        fit(small_run(epochs=2), *toy_tables(), seed=seed)
    assert all(not torch.equal(a, b) for a, b in itertools.combinations(firsts, 2))
    assert len(firsts) == 4


def test_bf16_trains_on_a_cpu():
    """Mixed precision bf16, the precision of GPUs, trains to finite float32 weights and says so in the record."""
    result = fit(small_run(epochs=1, precision="bf16-mixed"), *toy_tables())
    assert result.record["precision"] == "bf16-mixed"
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in result.model.parameters())


def test_seeds_differ_and_repeat():
    """The same seed gives the same weights, another seed others."""
    run = small_run(epochs=1)
    weights = [fit(run, *toy_tables(), seed=seed).model.readout.weight for seed in (1, 1, 2)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_callers_random_state_and_threads_are_left_alone():
    """Training changes neither the caller's random numbers, nor threads, nor determinism."""
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    fit(small_run(epochs=1), *toy_tables())
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before
    assert torch.equal(torch.rand(3), expected)


def test_the_seeds_of_the_run_play_no_part():
    """`train.seeds` lists other jobs: it changes neither weights nor digest."""
    a, b = (fit(small_run(epochs=1, seeds=seeds), *toy_tables(), seed=1) for seeds in ([1, 2, 3], [1]))
    assert torch.equal(a.model.readout.weight, b.model.readout.weight)
    assert a.record["digest"] == b.record["digest"]


def test_logs_are_written_and_nothing_is_pickled(tmp_path):
    """CSV and TensorBoard logs and two checkpoints appear, and no pickle or zip file."""
    fit(small_run(), *toy_tables(), work_dir=tmp_path)
    names = [p.name for p in tmp_path.rglob("*") if p.is_file()]
    assert {"best.ckpt", "last.ckpt", "metrics.csv"} <= set(names)
    assert any(name.startswith("events.out.tfevents") for name in names)
    lines = next(tmp_path.rglob("metrics.csv")).read_text().splitlines()
    assert len(lines) == 4 and "validation_loss" in lines[0]
    assert not any(p.read_bytes()[:2] in (b"PK", b"\x80\x02") for p in tmp_path.rglob("*") if p.is_file())


def test_lightning_is_quiet(capfd, recwarn, caplog):
    """Without a terminal nothing is printed and no warning is raised; epochs go to our logger."""
    with caplog.at_level(logging.INFO, logger="bioattn.train"):
        fit(small_run(), *toy_tables())
    out, err = capfd.readouterr()
    assert out == ""
    assert err == ""
    assert [str(w.message) for w in recwarn if "lightning" in str(w.filename)] == []
    assert sum("epoch" in r.message for r in caplog.records if r.name.startswith("bioattn")) == 3


def test_progress_bar_on_a_terminal_only(monkeypatch, capfd):
    """A terminal gets a progress bar, unless it is refused."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    fit(small_run(epochs=1), *toy_tables(), progress=False)
    assert "Epoch" not in "".join(capfd.readouterr())
    fit(small_run(epochs=1), *toy_tables(), progress=True)
    assert "Epoch" in "".join(capfd.readouterr())


def test_fewer_examples_than_a_batch_are_refused(tmp_path):
    """Fewer training examples than a batch end with the numbers and the way out, before anything is written."""
    with pytest.raises(ConfigError, match="train.batch_size is 500 but there are 210"):
        fit(small_run(batch_size=500), *toy_tables(), work_dir=tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_unwritable_work_folder_is_named(tmp_path):
    """A work folder that cannot be made is named."""
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    with pytest.raises(DataError, match="file/work: cannot be made"):
        fit(small_run(), *toy_tables(), work_dir=blocked / "work")


def test_a_path_trains_as_its_table(tmp_path):
    """Sequences given as a parquet file, read piece by piece, give the weights of the table bit for bit."""
    sequences, split = toy_tables()
    write_parquet(tmp_path / "sequences.parquet", sequences, {})
    table = fit(small_run(epochs=1), sequences, split)
    path = fit(small_run(epochs=1), tmp_path / "sequences.parquet", split)
    assert torch.equal(table.model.readout.weight, path.model.readout.weight)
    assert table.record["data"] == path.record["data"]


WORDS = {"tokenizer": {"kind": "bpe", "vocabulary": 40}, "stem": {"kind": "none", "pool": 1}}


def words_run(**train):
    run = small_run(**train)
    document = run.model_dump(mode="json")
    document["model"] |= WORDS
    return parse_run(document)


def test_replicates_share_words_of_the_whole_training_part(tmp_path):
    """Learned words are those of all training sequences of the fold, for every seed and resample, and are recorded."""
    sequences, split = toy_tables()
    run = words_run(epochs=1, resample="bootstrap")
    results = [fit(run, sequences, split, seed=seed) for seed in (1, 2)]
    of_training = sequences["sequence"][split["fold_0"] == "train"]
    expected = train_bpe(of_training, vocabulary=40)
    assert [r.model.tokenizer for r in results] == [expected, expected]
    assert results[0].record["tokenizer"] == results[1].record["tokenizer"]
    assert results[0].record["tokenizer"]["n_tokens"] == expected.n_tokens <= 40
    assert not torch.equal(results[0].model.readout.weight, results[1].model.readout.weight)
    save_model(tmp_path, results[0].model, config=run.model, motifs=[], record=results[0].record)
    tokens = load_examples(sequences, split, run.task, fold=0)["test"].tokens
    assert (predict(load_model(tmp_path)[0], tokens) == predict(results[0].model, tokens)).all()


def test_held_out_sequences_add_no_words():
    """Other test sequences give the same words; other training sequences give others."""
    sequences, split = toy_tables()
    test, train = split["fold_0"] == "test", split["fold_0"] == "train"
    kept = fit(words_run(epochs=1), sequences, split).model.tokenizer
    for where, same in ((test, True), (train, False)):
        changed = sequences.copy()
        changed.loc[where, "sequence"] = "GATTACA" * 3 + "GG"
        assert (fit(words_run(epochs=1), changed, split).model.tokenizer == kept) is same


def test_both_strands_are_learned_from_where_models_see_them():
    """With random strands the words are those of both strands."""
    sequences, split = toy_tables()
    found = fit(words_run(epochs=1, augment={"reverse_complement": True}), sequences, split).model.tokenizer
    of_training = sequences["sequence"][split["fold_0"] == "train"]
    assert found == train_bpe(of_training, vocabulary=40, both_strands=True)


def test_short_sequences_train():
    """Sequences of unequal length, down to one base, train to finite weights."""
    sequences, split = toy_tables(200)
    sequences["sequence"] = [s[: 1 + i % 23] for i, s in enumerate(sequences["sequence"])]
    result = fit(small_run(epochs=1), sequences, split)
    assert all(p.isfinite().all() for p in result.model.parameters())


@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
def test_several_readouts_train(kind):
    """Multiclass and multilabel tasks train and have one readout per class or label."""
    sequences, split = toy_tables(200)
    task = {"kind": "multiclass", "classes": ["no", "yes", "never"]}
    if kind == "multilabel":
        sequences["gc"] = (sequences["sequence"].str.count("[GC]") > 9).astype(float)
        sequences.loc[::5, "gc"] = float("nan")
        task = {"kind": "multilabel", "targets": ["label", "gc"]}
    result = fit(small_run(task=task), sequences, split)
    assert result.model.readout.out_features == (3 if kind == "multiclass" else 2)
    assert result.history["train_loss"].iloc[-1] < result.history["train_loss"].iloc[0]
