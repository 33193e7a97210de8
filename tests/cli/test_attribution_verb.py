"""The verb attribution: a whole folder or none, from step settings to tables about held-out sequences."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import toy_tokens
from toy_training import SMALL_MODEL, toy_tables

from bioattn.cli.attribution import attribution
from bioattn.config import parse_run, step_settings
from bioattn.errors import DataError
from bioattn.explain import attribution as explain
from bioattn.explain.attribution import KINDS
from bioattn.io.tables import read_parquet, read_record, read_tsv, write_parquet
from bioattn.models import build_model, save_model

N_SEQUENCES = 7
FILES = [
    "attributions.parquet", "curves.json", "curves.tsv", "edges.json", "edges.tsv", "faithfulness.json",
    "faithfulness.tsv",
    "head_tracks.parquet", "ism.parquet",
]  # fmt: skip


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Function that runs the verb on a random model and toy tables, and returns its folder."""
    monkeypatch.setattr(explain, "integrated_gradients", partial(explain.integrated_gradients, steps=2, draws=1))

    def run(out: str = "out", **model: object) -> Path:
        document = {"model": SMALL_MODEL | model, "explain": {"ism_sequences": N_SEQUENCES}}
        settings = parse_run(document)
        sequences, split = toy_tables()
        write_parquet(tmp_path / "sequences.parquet", sequences, {})
        write_parquet(tmp_path / "split.parquet", split, {})
        words = toy_tokens.BPE if settings.model.tokenizer.kind == "bpe" else None
        network = build_model(settings.model, n_readouts=1, seed=1, tokenizer=words)
        record = {"digest": "untrained", "seed": 3, "fold": 0}
        save_model(tmp_path / "model", network, config=settings.model, motifs=[], record=record)
        (tmp_path / "attribution.json").write_text(json.dumps(step_settings(settings, "attribution")))
        inputs = (tmp_path / name for name in ("attribution.json", "sequences.parquet", "split.parquet", "model"))
        attribution(*inputs, tmp_path / out)
        return tmp_path / out

    return run


def test_tables_agree_and_say_what_they_come_from(call, capsys: pytest.CaptureFixture[str]):
    """Four tables about the same held-out positives, every base a row, with digest, seeds and fold."""
    out = call()
    assert sorted(path.name for path in out.iterdir()) == FILES
    ism, tracks = read_parquet(out / "ism.parquet"), read_parquet(out / "attributions.parquet")
    where = ["name", "position", "reference"]
    assert list(ism) == [*where, *"ACGT"] and list(tracks) == [*where, *KINDS]
    assert ism[where].equals(tracks[where]) and ism.groupby("name").size().tolist() == [23] * N_SEQUENCES
    sequences, split = toy_tables()
    held_out = split.set_index("name")["fold_0"].eq("test") & sequences.set_index("name")["label"].eq(1)
    assert held_out[ism["name"].unique()].all()
    read = ism.groupby("name")["reference"].agg("".join)
    assert (read == sequences.set_index("name")["sequence"][read.index]).all()
    letters = ism[list("ACGT")].to_numpy()
    own = letters[np.arange(len(ism)), ["ACGT".index(r) for r in ism["reference"]]]
    assert (own == 0).all()
    np.testing.assert_allclose(tracks["ism"], -letters.mean(1), atol=1e-6)
    curves, summary = read_tsv(out / "curves.tsv"), read_tsv(out / "faithfulness.tsv")
    assert list(curves) == ["kind", "direction", "fraction", "mean", "ci_low", "ci_high", "n"]
    assert list(summary) == [
        "kind", "direction", "area", "area_ci_low", "area_ci_high", "spearman_ism", "spearman_ci_low",
        "spearman_ci_high", "n", "note",
    ]  # fmt: skip
    assert set(summary["kind"]) == set(curves["kind"]) == {*KINDS, "random"} and (summary["n"] == N_SEQUENCES).all()
    edges = read_tsv(out / "edges.tsv")
    whole = edges[edges["kept"] == 1]
    assert set(edges["ranking"]) == {"pattern", "gradient", "random"} and (edges["n"] == N_SEQUENCES).all()
    np.testing.assert_allclose(whole["explained"], 1, atol=1e-6)
    for name in ("ism.parquet", "attributions.parquet", "curves.tsv", "edges.tsv", "faithfulness.tsv"):
        record = read_record(out / name)
        assert record["step"] == "attribution" and record["model_digest"] == "untrained" and record["digest"]
        assert record["model_seed"] == 3 and record["fold"] == 0
    assert f"5 attributions of {N_SEQUENCES} held-out sequences" in capsys.readouterr().out


def test_every_head_has_its_tracks_token_by_token(call):
    """Each token of each sequence is a row for every head, and attention received is 1 on average over them."""
    out = call()
    tracks = read_parquet(out / "head_tracks.parquet")
    assert list(tracks) == ["name", "layer", "head", "start", "end", "received", "gradient", "output"]
    n_heads = SMALL_MODEL["n_layers"] * SMALL_MODEL["n_heads"]
    assert len(tracks[["layer", "head"]].drop_duplicates()) == n_heads
    by_head = tracks.groupby(["name", "layer", "head"])
    assert len(by_head) == n_heads * N_SEQUENCES
    np.testing.assert_allclose(by_head["received"].mean(), 1, atol=1e-5)
    for _, rows in by_head:
        assert rows["start"].tolist() == [0, *rows["end"][:-1]] and rows["end"].max() == 23
    assert tracks[["gradient", "output"]].notna().all().all() and (tracks["gradient"] != 0).any()


def test_words_have_no_gradients(call, capsys: pytest.CaptureFixture[str]):
    """A model of learned words gets all tables; kinds that need gradients are rows with the reason."""
    out = call(tokenizer={"kind": "bpe", "vocabulary": 40}, stem={"kind": "none", "pool": 1})
    summary = read_tsv(out / "faithfulness.tsv").set_index("kind")
    for kind in ("input_x_gradient", "integrated_gradients"):
        assert summary.loc[kind, "note"].str.contains("no gradient with respect to bases").all()
        assert summary.loc[kind, "area"].isna().all() and kind not in read_parquet(out / "attributions.parquet")
    assert summary.loc[["ism", "received_sum", "gradient_sum"], "area"].notna().all()
    assert "left out: input_x_gradient, integrated_gradients" in capsys.readouterr().out


def test_the_same_inputs_give_the_same_bytes(call):
    """Nothing but inputs and seed decides the tables."""
    first, second = call("first"), call("second")
    for name in FILES:
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_a_failure_leaves_the_earlier_folder(call, monkeypatch: pytest.MonkeyPatch):
    """A mistake on the way ends in an error, with the earlier result as it was."""
    out = call()
    before = (out / "curves.tsv").read_bytes()
    monkeypatch.setattr("bioattn.cli.attribution.faithfulness", lambda *_, **__: (_ for _ in ()).throw(DataError("no")))
    with pytest.raises(DataError, match="no"):
        call()
    assert (out / "curves.tsv").read_bytes() == before
