"""Examples, batches, resampling and controls."""

import numpy as np
import pandas as pd
import pytest
import torch
from toy_training import small_run, toy_tables

from bioattn.config import AugmentConfig, TaskConfig, TrainConfig
from bioattn.data import alphabet
from bioattn.data.alphabet import PAD, reverse_complement
from bioattn.errors import BioattnWarning, ConfigError, DataError
from bioattn.io.tables import write_parquet
from bioattn.models import build_model
from bioattn.tokens.nucleotide import decode
from bioattn.train.augment import reverse_complement_padded
from bioattn.train.data import (
    Batches,
    Examples,
    bootstrap_groups,
    load_examples,
    predict,
    target_scale,
    training_parts,
)

TASK = TaskConfig()


def examples(sequences: list[str], groups=None) -> Examples:
    from bioattn.tokens.nucleotide import encode

    n = len(sequences)
    return Examples(
        np.array([f"s{i}" for i in range(n)], object),
        encode(sequences).to(torch.uint8),
        torch.arange(n).float()[:, None],
        np.arange(n) if groups is None else np.asarray(groups),
    )


def test_subsets_follow_the_fold_column():
    """Each example is in the subset that its fold column names, whatever the order of the two tables."""
    sequences, split = toy_tables(40, n_folds=2)
    parts = load_examples(sequences, split.sample(frac=1, random_state=1), TASK, fold=1)
    for subset, part in parts.items():
        assert list(part.names) == list(split["name"][split["fold_1"] == subset])
        assert decode(part.tokens.long()) == list(sequences["sequence"][split["fold_1"] == subset])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, p: (s.drop(columns="label"), p), "no column \\['label'\\]"),
        (lambda s, p: (s, p.drop(columns="fold_0")), "no column 'fold_0'"),
        (lambda s, p: (s, p.iloc[1:]), "no row in the split, first 's0'"),
        (lambda s, p: (s.assign(label=s["label"] * 2), p), "target 'label' of 's\\d+' is 2.*takes 0 or 1"),
        (lambda s, p: (s.assign(label=1.0), p), "is 1 for all .* training examples"),
        (lambda s, p: (s.assign(label=np.nan), p), "is nan.*takes 0 or 1"),
        (lambda s, p: (s, p.assign(fold_0="train")), "no validation examples"),
        (lambda s, p: (s, p.assign(fold_0="test")), "no train examples"),
    ],
)
def test_bad_tables_are_named(change, message):
    """A table that does not fit the task raises and names column, record, value and what is allowed."""
    with pytest.raises(DataError, match=message):
        load_examples(*change(*toy_tables(40)), TASK, fold=0)


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        ("count", -1.0, "a count >= 0"),
        ("count", 0.5, "a count >= 0"),
        ("regression", np.inf, "a finite number or missing"),
        ("multiclass", 3.0, "a class index 0 to 2"),
    ],
)
def test_impossible_targets_are_named(kind, value, message):
    """A target that the task cannot have raises and says what it may be."""
    sequences, split = toy_tables(40)
    sequences.loc[3, "label"] = value
    task = TaskConfig(kind=kind, classes=["a", "b", "c"] if kind == "multiclass" else [])
    with pytest.raises(DataError, match=f"of 's3' is .*{message}"):
        load_examples(sequences, split, task, fold=0)


def test_fewer_examples_than_a_batch():
    """Fewer training examples than a batch is an error with both numbers and the way out."""
    parts = load_examples(*toy_tables(40), TASK, fold=0)
    n = len(parts["train"])
    with pytest.raises(ConfigError, match=f"train.batch_size is 64 but there are {n} .* at most {n}"):
        training_parts(parts, TrainConfig(batch_size=64), seed=1)


def test_every_epoch_shows_each_example_once():
    """The batches of one epoch are a permutation of the examples, another one in the next epoch."""
    part = examples(["ACGT"] * 23)
    batches = Batches(part, 5, seed=3)
    orders = []
    for epoch in range(2):
        batches.set_epoch(epoch)
        orders.append(torch.cat([y for _, y in batches])[:, 0].tolist())
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(23))
    assert orders[0] != orders[1]
    assert len(batches) == len(list(batches)) == 5


def test_order_depends_on_seed_and_epoch_only():
    """A new object at epoch 7 gives what an old one gives after running through other epochs, strands included."""
    part = examples(["ACGTTAC", "GGGTA", "TTTTTTA", "CAT"] * 3)
    old = Batches(part, 5, seed=3, augment=AugmentConfig(reverse_complement=True))
    for epoch in range(7):
        old.set_epoch(epoch)
        list(old)
    torch.manual_seed(99)
    new = Batches(part, 5, seed=3, augment=AugmentConfig(reverse_complement=True))
    for batches in (old, new):
        batches.set_epoch(7)
    for (x, y), (u, v) in zip(old, new, strict=True):
        assert torch.equal(x, u) and torch.equal(y, v)


def test_batches_are_cut_to_their_longest():
    """A batch is as wide as its longest sequence, and loses no base."""
    part = examples(["ACG", "AC", "ACGTACGTACG"])
    widths = [x.shape[1] for x, _ in Batches(part, 2)]
    assert widths == [3, 11]
    assert decode(next(iter(Batches(part, 2)))[0]) == ["ACG", "AC"]


def test_reverse_complement_keeps_padding_right():
    """Turning padded tokens equals turning the text, and doing so twice changes nothing."""
    texts = ["ACGTN", "GGATTCA", "T"]
    part = examples(texts)
    turned = reverse_complement_padded(part.codes.matrix, part.codes.lengths)
    assert [alphabet.decode(row) for row in turned] == [reverse_complement(t) for t in texts]
    assert (reverse_complement_padded(turned, part.codes.lengths) == part.codes.matrix).all()
    assert (turned[2, 1:] == PAD).all()


def test_augmentation_turns_about_half():
    """Random strands turn about half of the sequences and change nothing else."""
    part = examples(["AAAAACCCCC"] * 1000)
    x = torch.cat([x for x, _ in Batches(part, 100, seed=1, augment=AugmentConfig(reverse_complement=True))])
    forward = sum(t == "AAAAACCCCC" for t in decode(x))
    backward = sum(t == "GGGGGTTTTT" for t in decode(x))
    assert forward + backward == 1000
    assert 420 < forward < 580


def test_bootstrap_draws_whole_groups():
    """A bootstrap sample has as many examples as before, and all of a group or none of it per draw (but the last)."""
    groups = np.repeat(np.arange(40), [1, 2, 3, 4] * 10)
    np.random.default_rng(0).shuffle(groups)
    index = bootstrap_groups(groups, seed=5)
    assert len(index) == len(groups)
    drawn = np.bincount(index, minlength=len(groups))
    uneven = [g for g in range(40) if len(set(drawn[groups == g])) > 1]
    assert len(uneven) <= 1
    missing = np.mean([drawn[groups == g].max() == 0 for g in range(40)])
    assert 0.15 < missing < 0.6
    assert not np.array_equal(index, bootstrap_groups(groups, seed=6))


def test_bootstrap_of_few_groups_warns():
    """Bootstrapping a handful of groups warns, because the replicates will hardly differ."""
    with pytest.warns(BioattnWarning, match="only 2 split groups"):
        bootstrap_groups(np.array([0, 0, 0, 1]), seed=1)


def test_permuted_labels_keep_counts_and_sequences():
    """The label control moves targets within training and within validation, and leaves sequences and test alone."""
    parts = load_examples(*toy_tables(200), TASK, fold=0)
    train, validation = training_parts(parts, TrainConfig(permute_labels=True), seed=1)
    for part, name in ((train, "train"), (validation, "validation")):
        assert torch.equal(part.tokens, parts[name].tokens)
        assert part.targets.sum() == parts[name].targets.sum()
        assert not torch.equal(part.targets, parts[name].targets)


def test_target_scale_ignores_missing_values():
    """Mean and sd are those of the present values of each column."""
    targets = torch.tensor([[1.0, 5.0], [3.0, float("nan")], [5.0, 9.0], [float("nan"), 7.0]])
    mean, sd = target_scale(targets)
    assert torch.allclose(mean, torch.tensor([3.0, 7.0]))
    assert torch.allclose(sd, torch.tensor([np.std([1, 3, 5]), np.std([5, 9, 7])]).float())


def test_prediction_keeps_order_and_mode():
    """Predicting in batches sorted by length returns rows in the given order and leaves the model's mode alone."""
    model = build_model(small_run().model, n_readouts=2, seed=1)
    part = examples(["ACGTACG", "AC", "GGATTACAGG", "T" * 9, "CAT"])
    for mode in (True, False):
        model.train(mode)
        predicted = predict(model, part.tokens, batch_size=2)
        assert model.training is mode
    model.eval()
    single = np.concatenate([predict(model, part.tokens[i : i + 1]) for i in range(5)])
    np.testing.assert_allclose(predicted, single, atol=1e-6)


def test_predictions_of_examples_are_those_of_their_matrix():
    """Given as examples or as codes, of which only a batch is unpacked at a time, sequences have the same readouts."""
    model = build_model(small_run().model, n_readouts=2, seed=1)
    part = examples(["ACGTACG", "AC", "GGATTACAGG", "T" * 9, "CAT"]).take(np.array([3, 1, 1, 0]))
    expected = predict(model, part.tokens, batch_size=3)
    assert (predict(model, part, batch_size=3) == expected).all()
    assert (predict(model, part.codes, batch_size=3) == expected).all()


def test_subsets_and_resamples_share_one_block(tmp_path):
    """Training, validation, test and a bootstrap of them copy no base, from a table as from a file."""
    sequences, split = toy_tables(200)
    write_parquet(tmp_path / "sequences.parquet", sequences, {})
    for source in (sequences, tmp_path / "sequences.parquet"):
        parts = load_examples(source, split, TASK, fold=0)
        seen = training_parts(parts, TrainConfig(resample="bootstrap", permute_labels=True, batch_size=8), seed=1)
        blocks = [part.codes.flat for part in [*parts.values(), *seen]]
        assert all(np.shares_memory(blocks[0], block) for block in blocks)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.drop(columns="label"), "no column \\['label'\\]"),
        (lambda s: s.drop(columns="sequence"), "no column \\['sequence'\\]"),
        (lambda s: s.assign(sequence=s["sequence"].where(s["name"] != "s3", None)), "missing"),
    ],
)
def test_bad_files_are_named_as_bad_tables(tmp_path, change, message):
    """A file that lacks a column or a sequence raises as the table does."""
    sequences, split = toy_tables(40)
    write_parquet(tmp_path / "sequences.parquet", change(sequences), {})
    for source in (change(sequences), tmp_path / "sequences.parquet"):
        with pytest.raises(DataError, match=message):
            load_examples(source, split, TASK, fold=0)


def test_fingerprint_sees_targets_and_sequences():
    """The fingerprint changes with one base or one target."""
    part = examples(["ACGT", "AACC"])
    other = examples(["ACGT", "AACG"])
    assert part.fingerprint() != other.fingerprint()
    relabelled = Examples(part.names, part.tokens, part.targets + 1, part.groups)
    assert part.fingerprint() != relabelled.fingerprint()


def test_duplicate_names_are_refused():
    """Two rows of one name cannot be joined with the split."""
    sequences, split = toy_tables(40)
    doubled = pd.concat([sequences, sequences.iloc[:1]])
    with pytest.raises(DataError, match="sequence table holds 's0' more than once"):
        load_examples(doubled, split, TASK, fold=0)
