"""Baselines: their features by hand, and what each can and cannot learn."""

import itertools

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from toy_training import small_run, toy_tables

from bioattn.config import MaskConfig, ModelConfig
from bioattn.data.motif import Motif
from bioattn.errors import BioattnWarning, ConfigError
from bioattn.models import build_model
from bioattn.nn import taps
from bioattn.nn.convnet import channels_for
from bioattn.nn.recurrent import RecurrentEncoder
from bioattn.tokens.bpe import train_bpe
from bioattn.tokens.nucleotide import encode
from bioattn.train.baselines import (
    build_convnet,
    build_recurrent,
    build_uniform,
    composition_features,
    fit_baseline,
    kmer_features,
    onehot_features,
)
from bioattn.train.checkpoint_io import read_checkpoint
from bioattn.train.data import Examples, load_examples
from bioattn.train.evaluate import TrainedModel, evaluate


def examples(sequences: list[str]) -> Examples:
    n = len(sequences)
    return Examples(
        np.array([str(i) for i in range(n)], object), encode(sequences).to(torch.uint8), torch.zeros(n, 1), np.arange(n)
    )


def fitted(name: str, sequences, split, tmp_path, **run):
    settings = small_run(**run)
    parts = load_examples(sequences, split, settings.task, fold=0)
    return parts, fit_baseline(name, settings, parts, fold=0, n_parameters=2000, work_dir=tmp_path)


def n_parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def auroc(parts, result, subset="test") -> float:
    return roc_auc_score(parts[subset].targets[:, 0], result.scores[subset][:, 0])


def test_kmers_are_counted_as_a_slow_loop_counts_them():
    """Counts of all k-mers equal those of a loop over the text; k-mers with an unknown base are left out."""
    texts = ["ACGTACGGT", "AAN", "GGGGG", "T", "NNN", "ACACACNACA"]
    counted = kmer_features(examples(texts), 3).toarray()
    words = ["".join(w) for k in (1, 2, 3) for w in itertools.product("ACGT", repeat=k)]
    for row, text in zip(counted, texts, strict=True):
        expected = [sum(text[i : i + len(w)] == w for i in range(len(text))) for w in words]
        assert row.tolist() == expected


def test_kmers_longer_than_all_sequences_do_not_fail():
    """k-mers that fit into no sequence are simply not there."""
    assert kmer_features(examples(["AC", "GT"]), 5).shape == (2, 20)


def test_onehot_marks_letter_and_position():
    """Column 4 * position + letter is one, and an unknown base has none."""
    dense = onehot_features(examples(["ACN", "TTG"])).toarray()
    assert dense.nonzero()[1].reshape(-1).tolist() == [0, 5, 3, 7, 10]


def test_composition_by_hand():
    """Length, letter fractions, G + C, CpG rate and CpG observed over expected."""
    row = composition_features(examples(["CGCGAATN", "A"]))[0]
    assert row == pytest.approx([8, 2 / 7, 2 / 7, 2 / 7, 1 / 7, 4 / 7, 2 / 7, 2 * 7 / (2 * 2)])


def test_composition_sees_gc_and_no_order(tmp_path):
    """Composition learns a GC difference, and stays at chance where only the order differs."""
    rng = np.random.default_rng(0)
    sequences, split = toy_tables(400)
    labels = sequences["label"] > 0.5
    sequences["sequence"] = ["".join(rng.choice(list("ACGT" + "GC" * y), 23)) for y in labels]
    parts, result = fitted("composition", sequences, split, tmp_path)
    assert auroc(parts, result) > 0.75
    half = "ACGTTGCAACT"
    sequences["sequence"] = ["".join(rng.permutation(list(half))) + ("A" if y else "A") for y in labels]
    parts, result = fitted("composition", sequences, split, tmp_path)
    assert 0.3 < auroc(parts, result) < 0.7


def test_kmer_learns_a_planted_motif(tmp_path):
    """The k-mer baseline finds a planted six-mer wherever it is."""
    parts, result = fitted("kmer", *toy_tables(700, 30), tmp_path)
    assert auroc(parts, result) > 0.9


def test_onehot_needs_one_length(tmp_path):
    """The one-hot baseline is left out with a warning where lengths differ."""
    sequences, split = toy_tables(200)
    sequences.loc[0, "sequence"] = "ACGT"
    with pytest.warns(BioattnWarning, match="found 4 to 23 bp"):
        assert fitted("onehot", sequences, split, tmp_path)[1] is None


def test_onehot_learns_a_position(tmp_path):
    """The one-hot baseline learns a base at a fixed place."""
    sequences, split = toy_tables(400)
    sequences["label"] = (sequences["sequence"].str[7] == "A").astype(float)
    parts, result = fitted("onehot", sequences, split, tmp_path)
    assert auroc(parts, result) > 0.99


@pytest.mark.parametrize("kind", ["regression", "count"])
def test_values_are_predicted_on_their_scale(kind, tmp_path):
    """Ridge predicts in units of the target, Poisson regression its log rate."""
    sequences, split = toy_tables(700, 30, kind=kind)
    parts, result = fitted("kmer", sequences, split, tmp_path, task={"kind": kind})
    score, target = result.scores["test"][:, 0], parts["test"].targets[:, 0].numpy()
    mean = np.exp(score).mean() if kind == "count" else score.mean()
    assert mean == pytest.approx(target.mean(), rel=0.25)
    assert np.corrcoef(score, target)[0, 1] > 0.6


def test_each_target_has_its_own_rows(tmp_path):
    """With several labels and holes, each label is learned from its own present values."""
    sequences, split = toy_tables(700, 30)
    sequences["opposite"] = 1 - sequences["label"]
    sequences.loc[::2, "opposite"] = np.nan
    parts, result = fitted(
        "kmer", sequences, split, tmp_path, task={"kind": "multilabel", "targets": ["label", "opposite"]}
    )
    scores = result.scores["test"]
    assert np.corrcoef(scores.T)[0, 1] < -0.6
    assert len(result.record["penalty"]) == 2


def test_classes_absent_from_training_have_low_scores(tmp_path):
    """A class that training never shows is scored far below the others and fails nothing."""
    sequences, split = toy_tables(400)
    task = {"kind": "multiclass", "classes": ["no", "never", "yes"]}
    sequences["label"] *= 2
    _, result = fitted("kmer", sequences, split, tmp_path, task=task)
    scores = result.scores["test"]
    assert scores.shape[1] == 3
    assert (scores[:, 1] == -30).all()
    assert np.exp(scores).sum(1) == pytest.approx(np.ones(len(scores)), abs=1e-6)


@pytest.mark.parametrize("n", [300, 2000, 50_000, 400_000])
@pytest.mark.parametrize("n_readouts", [1, 7])
def test_convnet_has_the_size_asked_for(n, n_readouts):
    """The CNN's parameter count is within 8 % of the one asked for (a channel more or less is a step)."""
    network = build_convnet(n, n_readouts=n_readouts, seed=1)
    found = n_parameters(network)
    step = 20 * channels_for(n, n_letters=4, n_readouts=n_readouts) + 80
    assert abs(found - n) < max(0.08 * n, step)


def test_convnet_batch_mates_do_not_matter():
    """The readout of a sequence is the same alone, in company, and under longer padding."""
    network = build_convnet(2000, n_readouts=2, seed=1).eval()
    tokens = encode(["ACGTACGTTGCA", "GGATTAC", "T"])
    together = network(tokens)
    for i, length in enumerate((12, 7, 1)):
        torch.testing.assert_close(network(tokens[i : i + 1, :length])[0], together[i])


def test_cnn_learns_a_planted_motif(tmp_path):
    """The CNN baseline is trained by the same machinery and finds a planted motif."""
    parts, result = fitted("cnn", *toy_tables(700, 30), tmp_path, epochs=10)
    assert auroc(parts, result) > 0.9
    assert (tmp_path / "cnn_fold0" / "last.ckpt").exists()


# ---------------------------------------------------------------------- recurrent

MOTIF = Motif("TATAAT", "M1", np.full((4, 6), 0.02) + 0.92 * np.eye(4)[[3, 0, 3, 0, 0, 3]].T)
MODELS = {
    "default": {},
    "cls": {"pooling": "cls", "n_layers": 3, "reverse_complement": "average"},
    "gated": {"feedforward": "swiglu", "d_feedforward": 200, "positions": "learned", "pooling": "attention"},
    "local": {"mask": {"window": 3, "causal": True}, "backend": "local", "checkpointing": True},
    "recurrent": {"encoder": "lstm"},
    "pwm": {"stem": {"kind": "pwm", "n_filters": 5, "width": 7}},
}


@pytest.mark.parametrize("name", MODELS)
def test_rnn_has_the_size_and_the_parts_of_the_model(name):
    """The RNN has, within 2 %, the parameters of the model, and all parts but the encoder in the same shape."""
    config = ModelConfig.model_validate(MODELS[name])
    model = build_model(config, n_readouts=3, motifs=[MOTIF], seed=1)
    network = build_recurrent(config, n_parameters(model), n_readouts=3, motifs=[MOTIF], seed=1)
    assert n_parameters(network) == pytest.approx(n_parameters(model), rel=0.02)
    assert isinstance(network.encoder, RecurrentEncoder) and network.encoder.layer[0].rightward.mode == "GRU"
    assert network.n_layers == model.n_layers and network.average_strands == model.average_strands
    shapes, expected = (
        {k: (type(m), [p.shape for p in m.parameters()]) for k, m in each.named_modules() if k and "encoder" not in k}
        for each in (network, model)
    )
    assert shapes == expected
    assert network(encode(["ACGTACGTTGCA", "GGATTAC"])).shape == (2, 3)


def test_rnn_starts_from_its_seed():
    """Two networks of one seed are equal, those of another seed are not, and the caller's random state stays."""
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    config = small_run().model
    first, same, other = (build_recurrent(config, 3000, n_readouts=1, seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)
    name = "encoder.layer.0.leftward.weight_hh_l0"
    assert all(torch.equal(first[k], same[k]) for k in first)
    assert not torch.equal(first[name], other[name])


def test_rnn_batch_mates_do_not_matter():
    """The readout of a sequence is the same alone, in company, and under longer padding."""
    network = build_recurrent(small_run().model, 3000, n_readouts=2, seed=1).eval()
    tokens = encode(["ACGTACGTTGCA", "GGATTAC", "T"])
    together = network(tokens)
    for i, length in enumerate((12, 7, 1)):
        torch.testing.assert_close(network(tokens[i : i + 1, :length])[0], together[i])


def test_rnn_learns_a_planted_motif(tmp_path):
    """The RNN baseline is trained by the same machinery and finds a planted motif."""
    parts, result = fitted("rnn", *toy_tables(700, 30), tmp_path, epochs=10)
    assert auroc(parts, result) > 0.9
    assert (tmp_path / "rnn_fold0" / "last.ckpt").exists()
    assert abs(result.record["n_parameters"] - 2000) < 100


def test_rnn_starts_with_the_motifs_of_the_run(tmp_path):
    """With a stem of motif filters, the baseline's filters are the motifs it is given: another motif, other scores."""
    sequences, split = toy_tables(300)
    scores = []
    for motif in (MOTIF, Motif("GATAAG", "M2", np.full((4, 6), 0.02) + 0.92 * np.eye(4)[[2, 0, 3, 0, 0, 2]].T)):
        run = small_run(epochs=1)
        stem = run.model.stem.model_copy(update={"kind": "pwm"})
        run = run.model_copy(update={"model": run.model.model_copy(update={"stem": stem})})
        parts = load_examples(sequences, split, run.task, fold=0)
        work_dir = tmp_path / motif.motif_id
        result = fit_baseline("rnn", run, parts, fold=0, n_parameters=2000, work_dir=work_dir, motifs=[motif])
        scores.append(result.scores["test"])
    assert not np.allclose(*scores)


def test_rnn_is_built_like_the_models_beside_it(tmp_path):
    """Settings of another model than those evaluated are refused, with what differs; equal ones are not."""
    run = small_run(epochs=1, evaluate={"bootstrap": 0, "baselines": ["rnn"]})
    sequences, split = toy_tables(200)
    for config, message in (
        (run.model, ""),
        (run.model.model_copy(update={"n_layers": 2}), "seed 3 .* model.n_layers:"),
    ):
        models = [TrainedModel(0, 3, build_model(config, n_readouts=1, seed=1), 2000, config)]
        if message:
            with pytest.raises(ConfigError, match=message):
                evaluate(run, sequences, split, models, work_dir=tmp_path)
        else:
            result = evaluate(run, sequences, split, models, work_dir=tmp_path)
            assert set(result.metrics["model"]) == {"transformer", "rnn"}
            assert abs(result.baselines["rnn"]["fold_0"]["n_parameters"] - 2000) < 100


def test_uniform_attention_reads_all_alike(tmp_path):
    """The pattern of every layer is uniform over real tokens, whatever they hold; padding changes nothing."""
    config = ModelConfig(
        stem={"n_filters": 5, "width": 5, "pool": 4}, d_model=12, n_layers=2, n_heads=3, d_feedforward=8, dropout=0.0
    )
    network = build_uniform(config, n_readouts=1, seed=1).eval()
    tokens = encode(["ACGTTGCATGCAACGT", "TTGCATGCA"])
    with torch.inference_mode(), taps.record(network, ["layer.1.attn.value", "layer.1.attn.head_output"]) as store:
        together = network(tokens)
    value, output = store["layer.1.attn.value"], store["layer.1.attn.head_output"]
    for row, n in ((0, 4), (1, 3)):
        expected = value[row, :, :n].mean(1, keepdim=True).expand(-1, n, -1)
        torch.testing.assert_close(output[row, :, :n], expected)
    with torch.inference_mode():
        torch.testing.assert_close(network(tokens[1:, :9])[0], together[1])
    windowed = build_uniform(config.model_copy(update={"mask": MaskConfig(window=1)}), n_readouts=1, seed=1).eval()
    with torch.inference_mode():
        assert not torch.allclose(windowed(tokens), together)


def test_uniform_attention_is_a_baseline_of_models_with_attention(tmp_path):
    """It is trained like the others, with the model's own size; a recurrent model has none."""
    run = small_run(epochs=1, evaluate={"bootstrap": 0, "baselines": ["uniform"]})
    sequences, split = toy_tables(200)
    model = build_model(run.model, n_readouts=1, seed=1)
    result = evaluate(run, sequences, split, [TrainedModel(0, 3, model, 2000, run.model)], work_dir=tmp_path)
    assert set(result.metrics["model"]) == {"transformer", "uniform"}
    recurrent = run.model.model_copy(update={"encoder": "gru"})
    run = run.model_copy(update={"model": recurrent})
    model = build_model(recurrent, n_readouts=1, seed=1)
    result = evaluate(run, sequences, split, [TrainedModel(0, 3, model, 2000, recurrent)], work_dir=tmp_path)
    assert set(result.metrics["model"]) == {"transformer"}


def test_rnn_reads_the_words_that_the_model_learned(tmp_path):
    """Beside a model of byte pairs the recurrent network looks up the same vocabulary."""
    run = small_run(epochs=1, evaluate={"bootstrap": 0, "baselines": ["rnn"]})
    words = {"tokenizer": {"kind": "bpe", "vocabulary": 32}, "stem": {"kind": "none", "pool": 1}}
    run = run.model_copy(update={"model": ModelConfig.model_validate(run.model.model_dump() | words)})
    sequences, split = toy_tables(200)
    tokenizer = train_bpe(sequences["sequence"], vocabulary=32)
    network = build_model(run.model, n_readouts=1, seed=1, tokenizer=tokenizer)
    models = [TrainedModel(0, 3, network, 2000, run.model)]
    result = evaluate(run, sequences, split, models, work_dir=tmp_path)
    assert set(result.metrics["model"]) == {"transformer", "rnn"}
    weights = read_checkpoint(tmp_path / "rnn_fold0" / "best.ckpt")["state_dict"]
    assert weights["network.stem.table.weight"].shape == (tokenizer.n_tokens, run.model.d_model)
