"""The verbs train and evaluate: whole folders or none, resume after a kill, one-line errors."""

import json

import pytest
from toy_training import pretrain_run, small_run, toy_genome, toy_tables

from bioattn.cli.app import main
from bioattn.config import step_settings
from bioattn.io.tables import read_parquet, read_record, read_tsv, write_parquet
from bioattn.models import load_model

RUN = small_run(epochs=2, evaluate={"bootstrap": 10, "baselines": ["composition", "kmer"]})


@pytest.fixture
def folder(tmp_path):
    """Folder with sequences, a split and step settings."""
    sequences, split = toy_tables(200)
    write_parquet(tmp_path / "sequences.parquet", sequences, {})
    write_parquet(tmp_path / "split.parquet", split, {})
    for step in ("train", "evaluate"):
        (tmp_path / f"{step}.json").write_text(json.dumps(step_settings(RUN, step)))
    return tmp_path


def call(folder, verb: str, *more: str) -> int:
    """Exit status of a verb on the tables of the folder."""
    common = ["--settings", f"{folder}/{verb}.json", "--sequences", f"{folder}/sequences.parquet"]
    with pytest.raises(SystemExit) as ended:
        main([verb, *common, "--split", f"{folder}/split.parquet", *more])
    return int(ended.value.code or 0)


def test_train_then_evaluate(folder):
    """Two seeds are trained and evaluated; every file of the contract is there, with digest and seed."""
    for seed in ("1", "2"):
        assert call(folder, "train", "--seed", seed, "--out", f"{folder}/fold0/seed{seed}") == 0
    out = folder / "fold0" / "seed2"
    assert {p.name for p in out.iterdir()} == {
        "weights.safetensors", "model.json", "history.tsv", "history.json", "run_record.json",
    }  # fmt: skip
    record = json.loads((out / "run_record.json").read_text())
    assert (record["fold"], record["seed"]) == (0, 2)
    assert load_model(out)[1]["digest"] == record["digest"]
    assert len(read_tsv(out / "history.tsv")) == 2
    work = out.with_name("seed2.work")
    assert (work / "logs").is_dir() and not list(work.glob("*.ckpt"))
    models = [f"--model={folder}/fold0/seed{seed}" for seed in (1, 2)]
    assert call(folder, "evaluate", *models, "--out", f"{folder}/evaluation") == 0
    metrics = read_tsv(folder / "evaluation" / "metrics.tsv")
    assert set(metrics["model"]) == {"transformer", "ensemble", "composition", "kmer"}
    assert read_record(folder / "evaluation" / "metrics.tsv")["seed"] == RUN.seed
    assert len(read_parquet(folder / "evaluation" / "predictions.parquet"))
    assert len(read_parquet(folder / "evaluation" / "curves.parquet"))
    assert not (folder / "evaluation.work").exists()


def test_pretrain_then_train(folder, capsys):
    """Pretraining writes a folder that train starts from; the line it prints tells windows and bits."""
    toy_genome(folder / "g.fa")
    run = pretrain_run(folder / "g.fa", epochs=1)
    for step in ("pretrain", "train"):
        (folder / f"{step}.json").write_text(json.dumps(step_settings(run, step)))
    out = folder / "pretrain"
    assert call(folder, "pretrain", "--out", str(out)) == 0
    assert {p.name for p in out.iterdir()} == {
        "weights.safetensors", "model.json", "history.tsv", "history.json", "run_record.json",
    }  # fmt: skip
    record = json.loads((out / "run_record.json").read_text())
    said = capsys.readouterr().out
    assert f"{record['windows']['train']} windows" in said and f"{record['validation_bits_per_base']:.4f} bits" in said
    assert len(read_tsv(out / "history.tsv")) == 1
    assert not list(folder.glob("pretrain.work/*.ckpt"))
    assert call(folder, "train", "--pretrained", str(out), "--out", f"{folder}/seed1") == 0
    trained = json.loads((folder / "seed1" / "run_record.json").read_text())
    assert trained["pretrained"]["validation_bits_per_base"] == record["validation_bits_per_base"]
    capsys.readouterr()
    assert call(folder, "train", "--out", f"{folder}/seed2") == 2
    assert "there are no pretrained weights" in capsys.readouterr().err


def test_pretrain_names_a_missing_file(folder, capsys):
    """Unlabelled sequences that are not there are named, and those of the option are read in the place of others."""
    (folder / "pretrain.json").write_text(json.dumps(step_settings(pretrain_run(folder / "absent.fa"), "pretrain")))
    assert call(folder, "pretrain", "--out", f"{folder}/pretrain") == 2
    assert "absent.fa" in capsys.readouterr().err
    toy_genome(folder / "g.fa")
    assert call(folder, "pretrain", "--fasta", f"{folder}/g.fa", "--out", f"{folder}/pretrain") == 0


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda f: (f / "sequences.parquet").unlink(), "no such file"),
        (lambda f: (f / "split.parquet").write_bytes(b"PAR1"), "not a complete parquet file"),
        (lambda f: (f / "train.json").write_text('{"train": {"batch_size": 999}}'), "train.batch_size is 999"),
        (lambda f: (f / "train.json").write_text('{"train": {"batchsize": 9}}'), "did you mean 'batch_size'"),
    ],
)
def test_bad_input_is_one_line_and_leaves_earlier_results(folder, capsys, break_it, message):
    """Bad input exits with 2 and one line, and the folder of an earlier training stays as it was."""
    out = folder / "seed1"
    out.mkdir()
    (out / "model.json").write_text("earlier")
    break_it(folder)
    assert call(folder, "train", "--out", str(out)) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and error[0].startswith("bioattn train: error: ") and message in error[0]
    assert (out / "model.json").read_text() == "earlier"


def test_evaluate_names_a_missing_model(folder, capsys):
    """A model folder that is not there is named."""
    assert call(folder, "evaluate", f"--model={folder}/absent", "--out", f"{folder}/evaluation") == 2
    assert "absent" in capsys.readouterr().err
    assert not (folder / "evaluation").exists()
