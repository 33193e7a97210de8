"""The workflow with the real package on little data: from nothing to a report, and through kills."""

import pytest

from bioattn.io.tables import read_tsv

pytestmark = pytest.mark.slow

#: Results that must not depend on how often a run was interrupted.
FINAL = [
    "evaluation/metrics.tsv",
    "heads/seed1/heads.tsv",
    "heads/seed2/heads.tsv",
    "interactions/table/interactions.tsv",
    "models/fold0/seed1/weights.safetensors",
    "models/fold0/seed2/weights.safetensors",
]


def two_seeds(make_config, **train):
    """Configuration of the small run with two replicates."""
    document = make_config(train={"seeds": [1, 2], **train})
    document["runs"]["tiny"]["interactions"]["min_replicates"] = 2
    return document


def test_a_small_run_is_complete_and_done(real_clone, make_config):
    """Every step works on 400 sequences; afterwards there is nothing to do; the tables have rows."""
    real_clone.write_config(two_seeds(make_config))
    real_clone.run("--configfile", "config.yaml")
    results = real_clone.work / "results" / "tiny"
    assert "Nothing to be done" in real_clone.run("--configfile", "config.yaml")
    assert len(read_tsv(results / "evaluation" / "metrics.tsv"))
    assert len(read_tsv(results / "heads" / "seed1" / "heads.tsv"))
    # Every pair of the twelve motifs has a row and a verdict.
    assert len(read_tsv(results / "interactions" / "table" / "interactions.tsv")) == 12 * 11 // 2
    page = (results / "report.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "") and "<script src" not in page
    real_clone.run("--configfile", "config.yaml", "--report", "all.html")
    assert (real_clone.work / "all.html").stat().st_size > 100_000


def test_killed_runs_end_with_the_same_numbers(real_clone, make_config):
    """SIGKILL in the middle of training and of explanation: the rerun gives what an undisturbed run gives."""
    document = two_seeds(make_config, epochs=12)
    document["runs"]["tiny"]["data"]["simulate"]["n_sequences"] = 1500
    real_clone.write_config(document)
    calm = type(real_clone)(real_clone.root, real_clone.work.with_name("calm"))
    calm.work.mkdir()
    calm.write_config(document)
    calm.run("--configfile", "config.yaml")

    results = real_clone.work / "results" / "tiny"
    models = results / "models" / "fold0"
    real_clone.kill_when(lambda: any(models.glob("seed*.work/last.ckpt")), "--configfile", "config.yaml")
    assert not any(models.glob("seed*/weights.safetensors")), "killed too late to show anything"

    again = ["--configfile", "config.yaml", "--rerun-incomplete"]
    real_clone.run("--unlock", "--configfile", "config.yaml")
    real_clone.kill_when(lambda: any(results.glob("logs/heads/*.log")), *again, seconds=4)
    assert not any(results.glob("heads/seed*/heads.tsv")), "killed too late to show anything"

    real_clone.run("--unlock", "--configfile", "config.yaml")
    real_clone.run(*again)
    for name in FINAL:
        assert (results / name).read_bytes() == (calm.work / "results" / "tiny" / name).read_bytes(), name


def test_bad_input_leaves_a_message_and_no_data(real_clone, make_config):
    """A protein FASTA stops the workflow; the log names file, line and letter; nothing half-made is left."""
    work = real_clone.work
    (work / "bad.fa").write_text(">p1\nMKVLAAGIVPLLEAEAFFWKQRRTE\n")
    (work / "samples.tsv").write_text("sample\tpath\tlabel\nbad\tbad.fa\t1\n")
    document = make_config(task={"kind": "binary", "targets": ["label"]})
    document["runs"]["tiny"]["data"] = {"samples": "samples.tsv"}
    real_clone.write_config(document)
    output = real_clone.run("--configfile", "config.yaml", "--show-failed-logs", check=False)
    assert "bioattn ingest: error: " in output
    assert "bad.fa line 1: record 'p1': found 'L' at position 4: it looks like a protein" in output
    assert not (work / "results" / "tiny" / "data").exists() or not any((work / "results" / "tiny" / "data").iterdir())
