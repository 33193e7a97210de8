"""Changed copies of sequences: rates, places, ends, labels, and what is never touched."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from toy_training import small_run, toy_tables

from bioattn.config import AugmentConfig, parse_run
from bioattn.data import alphabet
from bioattn.data.alphabet import PAD, UNKNOWN
from bioattn.errors import ConfigError
from bioattn.rng import stream
from bioattn.train.augment import deleted, inserted, mutated, shifted
from bioattn.train.batches import Batches
from bioattn.train.data import load_examples, training_parts
from bioattn.train.store import Examples, codes_of_texts

EVERYTHING = AugmentConfig(reverse_complement=True, shift_bp=3, mutation_rate=0.2, deletion_bp=4, insertion_bp=4)
Array = NDArray[np.uint8]

RAGGED = st.lists(st.text(alphabet="ACGTN", min_size=1, max_size=12), min_size=1, max_size=8)


def examples(texts: list[str], labels: list[float] | None = None) -> Examples:
    n = len(texts)
    targets = torch.tensor(labels or [float(i) for i in range(n)])[:, None]
    return Examples(np.array([f"s{i}" for i in range(n)], object), codes_of_texts(texts), targets, np.arange(n))


def epoch(part: Examples, rules: AugmentConfig, *, number: int = 0, size: int = 5, **more) -> list[tuple]:
    batches = Batches(part, size, seed=3, augment=rules, n_epochs=10, **more)
    batches.set_epoch(number)
    return list(batches)


def words(codes: Array) -> list[str]:
    return [alphabet.decode(row) for row in codes]


@pytest.fixture
def many() -> tuple[Array, NDArray[np.int64], NDArray[np.bool_]]:
    """4,000 sequences, all of them 31 bases of A."""
    return np.zeros((4000, 31), np.uint8), np.full(4000, 31), np.ones(4000, bool)


def test_mutation_rate_converges(many):
    """The share of changed bases is the rate, and the three other bases are equally likely."""
    found = mutated(many[0], many[2], 0.13, np.random.default_rng(1))
    shares = np.bincount(found.ravel(), minlength=5) / found.size
    assert shares[0] == pytest.approx(0.87, abs=0.004)
    assert shares[1:4] == pytest.approx([0.13 / 3] * 3, abs=0.003)
    assert shares[4] == 0


def test_numbers_and_places_are_drawn_evenly(many):
    """Deletions of 0 to 4 bases are equally likely, and so are the places of an insertion of one base."""
    codes, lengths, chosen = many
    found = deleted(codes, lengths, chosen, 4, np.random.default_rng(1))
    n_deleted = (found == UNKNOWN).sum(1)
    assert np.bincount(n_deleted, minlength=5) / 4000 == pytest.approx([0.2] * 5, abs=0.03)
    place = []
    for start in range(10):  # 3 of 4 inserted bases show between A's
        found = inserted(codes, lengths, chosen, 1, np.random.default_rng(start))
        place += [np.flatnonzero(row)[0] for row in found if row.any()]
    assert np.bincount(place, minlength=31) / len(place) == pytest.approx([1 / 31] * 31, abs=0.006)


def test_shifts_are_drawn_evenly(many):
    """Shifts of -3 to 3 are equally likely; the sign says which end is free."""
    found = shifted(many[0], many[1], 3, np.random.default_rng(1))
    step = (found[:, :5] == UNKNOWN).sum(1) - (found[:, -5:] == UNKNOWN).sum(1)
    assert np.bincount(step + 3) / 4000 == pytest.approx([1 / 7] * 7, abs=0.025)


@given(RAGGED, st.integers(1, 15), st.integers(0, 99))
def test_a_deletion_is_one_cut_in_the_text(texts: list[str], most: int, seed: int):
    """What remains is the text without one interval of at most `most` bases, filled up with N, and never empty."""
    codes = codes_of_texts(texts)
    found = deleted(codes.matrix, codes.lengths, np.ones(len(texts), bool), most, np.random.default_rng(seed))
    for text, new in zip(texts, words(found), strict=True):
        cuts = {
            text[:i] + text[i + n :] + "N" * n
            for n in range(min(most, len(text) - 1) + 1)
            for i in range(len(text) - n + 1)
        }
        assert new in cuts


@given(RAGGED, st.integers(1, 15), st.integers(0, 99))
def test_an_insertion_is_one_piece_in_the_text(texts: list[str], most: int, seed: int):
    """The new text is the old one with one piece of at most `most` bases put in, cut to its length."""
    codes = codes_of_texts(texts)
    found = inserted(codes.matrix, codes.lengths, np.ones(len(texts), bool), most, np.random.default_rng(seed))
    for text, new in zip(texts, words(found), strict=True):
        assert len(new) == len(text)
        assert any(
            new[:i] == text[:i] and new[i + n :] == text[i : len(text) - n] and "N" not in new[i : i + n]
            for n in range(min(most, len(text)) + 1)
            for i in range(len(text) - n + 1)
        )


@given(RAGGED, st.integers(1, 15), st.integers(0, 99))
def test_a_shift_is_one_of_the_text(texts: list[str], most: int, seed: int):
    """A shifted text is the old one with N before it and as much cut behind, or the other way round."""
    codes = codes_of_texts(texts)
    found = shifted(codes.matrix, codes.lengths, most, np.random.default_rng(seed))
    for text, new in zip(texts, words(found), strict=True):
        steps = range(min(most, len(text) - 1) + 1)
        right = {"N" * n + text[: len(text) - n] for n in steps}
        assert new in right | {text[n:] + "N" * n for n in steps}


@given(RAGGED, st.integers(0, 9))
def test_padding_and_unknown_bases_are_never_touched(texts: list[str], number: int):
    """Whatever is asked for, each sequence keeps its length, and mutations leave N alone."""
    part = examples(texts)
    for tokens, targets in epoch(part, EVERYTHING, number=number):
        lengths = part.codes.lengths[targets[:, 0].long().numpy()]
        assert ((tokens != PAD).sum(1).numpy() == lengths).all()
        assert ((tokens == PAD).numpy() == (np.arange(tokens.shape[1]) >= lengths[:, None])).all()
    for tokens, targets in epoch(part, AugmentConfig(mutation_rate=0.9), number=number):
        for row, target in zip(tokens.numpy(), targets[:, 0], strict=True):
            before = texts[int(target)]
            assert [a == "N" for a in alphabet.decode(row)] == [a == "N" for a in before]


TEXTS = ["ACGTTACGGATTA", "GGGTACA", "TTTTTTAGCA", "CATCATCATCATCAT"] * 6


def test_nothing_asked_for_changes_nothing():
    """With everything off, batches equal those without rules; the order of examples never depends on the rules."""
    part = examples(TEXTS)
    plain = list(Batches(part, 5, seed=3))
    for (x, y), (u, v) in zip(plain, epoch(part, AugmentConfig()), strict=True):
        assert torch.equal(x, u) and torch.equal(y, v)
    for (_, y), (_, v) in zip(plain, epoch(part, EVERYTHING), strict=True):
        assert torch.equal(y, v)


@pytest.mark.parametrize("kind", ["shift_bp", "mutation_rate", "deletion_bp", "insertion_bp"])
def test_changes_depend_on_seed_epoch_and_batch_only(kind: str):
    """The same epoch gives the same changes in a new object and after others; another epoch or batch gives others."""
    rules = AugmentConfig.model_validate({kind: 0.3 if kind == "mutation_rate" else 3})
    part = examples(["ACGTTACGGATTA"] * 10)
    old = Batches(part, 5, seed=3, augment=rules)
    for number in range(7):
        old.set_epoch(number)
        list(old)
    np.random.seed(99)
    torch.manual_seed(99)
    new = epoch(part, rules, number=6)
    for (x, _), (u, _) in zip(old, new, strict=True):
        assert torch.equal(x, u)
    other = epoch(part, rules, number=5)
    assert not torch.equal(new[0][0], other[0][0])
    assert not torch.equal(new[0][0], new[1][0])


def test_strands_are_drawn_as_before():
    """Which sequences are turned follows one stream of the epoch, drawn from in the order of the batches."""
    part = examples(TEXTS)
    draw = stream(3, "strands", 2)
    for tokens, targets in epoch(part, AugmentConfig(reverse_complement=True), number=2):
        for row, target, turn in zip(tokens.numpy(), targets[:, 0], draw.random(len(tokens)) < 0.5, strict=True):
            text = TEXTS[int(target)]
            assert alphabet.decode(row) == (alphabet.reverse_complement(text) if turn else text)


@pytest.mark.parametrize("kind", ["mutation_rate", "deletion_bp", "insertion_bp"])
def test_labels_that_are_not_listed_stay_as_they_are(kind: str):
    """With only_labels, examples of other labels (or none) keep every letter; those listed do change."""
    rules = AugmentConfig.model_validate({kind: 0.5 if kind == "mutation_rate" else 4, "only_labels": [0.1]})
    labels = [0.1, 0.0, float("nan"), 1.0]
    part = examples(["ACGTTACGGATTA"] * 40, labels * 10)
    changed: dict[float, int] = {}
    for tokens, targets in epoch(part, rules):
        for row, target in zip(tokens.numpy(), targets[:, 0].tolist(), strict=True):
            key = -1.0 if np.isnan(target) else round(target, 3)
            changed[key] = changed.get(key, 0) + (alphabet.decode(row) != "ACGTTACGGATTA")
    assert changed.pop(0.1) > 5
    assert set(changed.values()) == {0}


def test_last_epochs_are_clean():
    """In the last clean_epochs letters are left alone; shifts and strands go on."""
    part = examples(TEXTS)
    rules = AugmentConfig(mutation_rate=0.3, deletion_bp=3, insertion_bp=3, clean_epochs=2)
    as_given = [x for x, _ in epoch(part, AugmentConfig(), number=8)]
    assert all(torch.equal(x, u) for (x, _), u in zip(epoch(part, rules, number=8), as_given, strict=True))
    assert not torch.equal(epoch(part, rules, number=7)[0][0], epoch(part, AugmentConfig(), number=7)[0][0])
    moved = rules.model_copy(update={"shift_bp": 3})
    only_moved = AugmentConfig(shift_bp=3)
    for (x, _), (u, _) in zip(epoch(part, moved, number=8), epoch(part, only_moved, number=8), strict=True):
        assert torch.equal(x, u)


def test_parts_of_batches_hold_what_whole_batches_do():
    """A batch that comes in parts has the same changes as in one."""
    part = examples(TEXTS)
    whole, parts = epoch(part, EVERYTHING), epoch(part, EVERYTHING, micro_batch=2)
    for i, (tokens, _) in enumerate(whole):
        together = [alphabet.decode(row) for x, *_ in parts[3 * i : 3 * i + 3] for row in x.numpy()]
        assert together == words(tokens.numpy())


@pytest.mark.parametrize(
    "rules",
    [AugmentConfig(), EVERYTHING, EVERYTHING.model_copy(update={"clean_epochs": 9})],
    ids=["off", "on", "clean"],
)
def test_other_processes_make_the_same_batches(tmp_path, rules: AugmentConfig):
    """Batches of two processes, with the sequences in a file, equal those made here, in several epochs."""
    part = examples(TEXTS)
    saved = Examples(part.names, part.codes.saved(tmp_path / "codes.bin"), part.targets, part.groups)
    served = Batches(saved, 5, seed=3, augment=rules, n_epochs=10, workers=2)
    state = torch.get_rng_state()
    for number in (0, 1):
        served.set_epoch(number)
        for (x, y), (u, v) in zip(served, epoch(part, rules, number=number), strict=True):
            assert torch.equal(x, u) and torch.equal(y, v)
    served.close()
    assert torch.equal(torch.get_rng_state(), state), "the stream of dropout was drawn from"


@pytest.mark.parametrize(
    ("augment", "message"),
    [
        ({"shift_bp": 23}, "train.augment.shift_bp must be below the longest training sequence \\(23 bp\\).*got 23"),
        ({"deletion_bp": 30}, "train.augment.deletion_bp must be below"),
        ({"mutation_rate": 0.1, "only_labels": [3.0, 7.0]}, "only_labels is \\[3.0, 7.0\\], which no .*found 0, 1"),
    ],
)
def test_rules_that_cannot_be_followed_are_refused(augment: dict, message: str):
    """A shift as long as the sequences, or labels that do not occur, are errors with the numbers."""
    run = small_run(augment=augment)
    parts = load_examples(*toy_tables(60), run.task, fold=0)
    with pytest.raises(ConfigError, match=message):
        training_parts(parts, run.train, seed=1)


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"augment": {"only_labels": [1.0]}}, "only_labels and clean_epochs have no meaning without mutation_rate"),
        ({"epochs": 5, "augment": {"deletion_bp": 2, "clean_epochs": 5}}, "clean_epochs must be below train.epochs"),
    ],
)
def test_rules_without_effect_are_refused(train: dict, message: str):
    """Settings that could never change a sequence are errors."""
    with pytest.raises(ConfigError, match=message):
        parse_run({"train": train})
