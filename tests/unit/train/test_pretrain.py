"""Learning from unlabelled sequences: what is hidden, what must not be seen, what is to beat, what is taken over."""

import itertools
import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from toy_training import pretrain_run, small_run, stop_at, toy_genome, toy_tables

from bioattn.config import PretrainConfig, RunConfig
from bioattn.data import alphabet
from bioattn.data.alphabet import reverse_complement
from bioattn.errors import BioattnWarning, ConfigError, DataError
from bioattn.models import build_model, save_model
from bioattn.tokens.bpe import train_bpe
from bioattn.tokens.nucleotide import encode
from bioattn.train.checkpoint_io import read_checkpoint
from bioattn.train.fit import fit
from bioattn.train.pretrain import (
    PRETRAIN_HISTORY,
    HiddenBatches,
    MaskedModel,
    Pretraining,
    hidden_bases,
    isolated_bits,
    pretrain,
    read_pretrained,
)
from bioattn.train.store import codes_of_texts
from bioattn.train.windows import longest_and_held_out, markov_bits, read_windows

NO_STEM = {"stem": {"kind": "none", "pool": 1}}
MODELS = {
    "conv": {},
    "bases": NO_STEM,
    "cls": {"pooling": "cls", "positions": "learned"},
    "gru": {"encoder": "gru"},
    "tiling": {"tokenizer": {"kind": "kmer", "k": 3, "stride": 3}, **NO_STEM},
    "overlapping": {"tokenizer": {"kind": "kmer", "k": 3, "stride": 1}, **NO_STEM},
    "words": {"tokenizer": {"kind": "bpe", "vocabulary": 40}, **NO_STEM},
}


def rules(**settings) -> PretrainConfig:
    return PretrainConfig(**{"fasta": ["x"], "batch_size": 4, **settings})


def masked_model(name: str) -> MaskedModel:
    run = pretrain_run(Path("x"), model=MODELS[name])
    tokenizer = train_bpe(["ACGTATAATGCATATAAT"] * 9, vocabulary=12) if name == "words" else None
    model = build_model(run.model, n_readouts=1, seed=1, tokenizer=tokenizer)
    torch.manual_seed(2)
    return MaskedModel(model).eval()


# ------------------------------------------------------------------- hidden bases


def test_every_base_is_hidden_at_the_same_rate():
    """Each position is hidden with the asked-for probability, the ends too, and spans end anywhere equally often."""
    hidden = hidden_bases(20_000, 17, fraction=0.15, span=6, draw=np.random.default_rng(1))
    assert hidden.mean(0) == pytest.approx([0.15] * 17, abs=0.01)
    ends = hidden[:, :-1] & ~hidden[:, 1:]
    assert ends.mean(0) == pytest.approx([0.15 * 0.85 / 6] * 16, abs=0.004)


@given(st.integers(1, 9), st.integers(1, 30), st.integers(0, 50))
def test_hidden_bases_come_in_spans(span: int, length: int, seed: int):
    """Runs of hidden bases are whole spans, unless they touch an end."""
    for row in hidden_bases(5, length, fraction=0.3, span=span, draw=np.random.default_rng(seed)):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row.astype(int), [0]])))
        for start, end in edges.reshape(-1, 2):
            assert start == 0 or end == length or (end - start) % span == 0


def same_borders(model: MaskedModel, a: torch.Tensor, b: torch.Tensor) -> bool:
    pairs = zip(model.network.token_spans(a), model.network.token_spans(b), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.mark.parametrize("name", list(MODELS))
def test_what_is_hidden_is_not_seen(name: str):
    """Changing hidden bases changes no prediction of a model, whatever it reads; of visible ones it does."""
    model = masked_model(name)
    codes = encode(["ACGTGGCCGGCATTTGACG", "GGATTACCATA"])
    hidden = torch.zeros(codes.shape, dtype=torch.bool)
    hidden[:, 4:9] = True

    def context(changed: torch.Tensor) -> torch.Tensor:
        return model._context(changed, hidden)

    others = [codes.clone() for _ in range(4**5)]
    for other, bases in zip(others, itertools.product(range(4), repeat=5), strict=True):
        other[0, 4:9] = torch.tensor(bases)
    if name == "words":  # their borders follow the bases, and these are seen
        others = [other for other in others if same_borders(model, other, codes)]
    assert len(others) > 4
    for other in others[:: max(len(others) // 10, 1)]:
        assert torch.equal(context(codes), context(other))
    visible = codes.clone()
    visible[:, 0] = (visible[:, 0] + 1) % 4
    assert not torch.equal(context(codes), context(visible))


@pytest.mark.parametrize("name", list(MODELS))
def test_context_is_what_the_model_itself_computes(name: str):
    """With nothing hidden, the tokens that the head sees are those that the model pools, without its own first one."""
    model, seen = masked_model(name), []
    codes = encode(["ACGTATAATGCATTTGACG", "GGATTACCATA"])
    model.network.encoder.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    model.network(codes)
    context = model._context(codes, torch.zeros(codes.shape, dtype=torch.bool))
    assert torch.equal(context, seen[0][:, model.network.n_prefix :])
    assert context.shape[1] == model.network.token_spans(codes)[0].shape[1]


@pytest.mark.parametrize("name", ["conv", "bases", "cls"])
def test_losses_are_those_of_each_hidden_base(name: str):
    """The loss is the cross-entropy of every known hidden base under the four logits at its place, taken one by one."""
    model = masked_model(name)
    codes = encode(["ACGTATNATGCATTTGACG", "GGATTACCATA"])
    hidden = torch.zeros(codes.shape, dtype=torch.bool)
    hidden[0, 3:9] = hidden[0, 18] = hidden[1, 9:] = True
    found = model(codes, hidden)
    context, expected = model._context(codes, hidden), []
    for row, place in zip(*torch.nonzero(hidden, as_tuple=True), strict=True):
        if codes[row, place] < 4:
            token, within = divmod(int(place), model.network.token_bp)
            logits = model.head(context[row, token])[4 * within : 4 * within + 4]
            expected.append(F.cross_entropy(logits, codes[row, place]))
    assert torch.allclose(found.losses, torch.stack(expected), atol=1e-6)
    assert len(expected) == int(found.n_bases) == 5 + 1 + 2


@pytest.mark.parametrize("name", ["tiling", "overlapping", "words"])
def test_losses_are_those_of_each_hidden_token(name: str):
    """The loss is the cross-entropy of every known token that holds a hidden base; each base they cover counts once."""
    model = masked_model(name)
    codes = encode(["ACGTATNATGCATTTGACG", "GGATTACCATA"])
    hidden = torch.zeros(codes.shape, dtype=torch.bool)
    hidden[0, 3:9] = hidden[0, 18] = hidden[1, 10] = True
    found, tokens = model(codes, hidden), model.network.tokenizer.encode(codes)
    context, expected, covered = model._context(codes, hidden), [], set()
    for row, token in itertools.product(range(2), range(tokens.ids.shape[1])):
        start, end = int(tokens.start[row, token]), int(tokens.end[row, token])
        if hidden[row, start:end].any() and "N" not in alphabet.decode(codes[row, start:end].numpy()):
            expected.append(F.cross_entropy(model.head(context[row, token]), tokens.ids[row, token]))
            covered |= {(row, base) for base in range(start, end)}
    assert torch.allclose(found.losses, torch.stack(expected), atol=1e-6)
    assert int(found.n_bases) == len(covered)


def test_hidden_bases_of_an_epoch_repeat_and_differ_between_epochs():
    """Training windows and what is hidden depend on seed and epoch only; validation windows are always the same."""
    windows = codes_of_texts(["ACGTATAATGCATTTGACG", "GGATTACCATAGGATTACC"] * 6)
    for train, same in ((True, False), (False, True)):
        epochs = []
        for number in (0, 1, 0):
            batches = HiddenBatches(windows, 4, rules(masked_fraction=0.3), seed=5, train=train)
            batches.set_epoch(number)
            epochs.append([x for batch in batches for x in batch])
            assert len(batches) == len(epochs[-1]) // 2 == 3
        assert all(torch.equal(a, b) for a, b in zip(epochs[0], epochs[2], strict=True))
        assert all(torch.equal(a, b) for a, b in zip(epochs[0], epochs[1], strict=True)) is same


# ------------------------------------------------------------------------ windows


def write(path: Path, *records: str) -> Path:
    path.write_text("".join(f">r{i}\n{record}\n" for i, record in enumerate(records)))
    return path


def random_text(n: int, seed: int = 0) -> str:
    return "".join(np.random.default_rng(seed).choice(list("ACGT"), n))


def test_windows_tile_long_records_and_take_short_ones_whole(tmp_path: Path):
    """Every window of a record comes once, rests at ends and tiny records are left out, all in a random order."""
    text, short = random_text(230), random_text(29, seed=1)
    path = write(tmp_path / "g.fa", text, short, "ACGTACGT")
    found = read_windows([path], 50, rules(batch_size=1), [], seed=1)
    expected = [text[i : i + 50] for i in (0, 50, 100, 150)] + [short]
    windows = [*found.train.texts(), *found.validation.texts()]
    assert sorted(windows) == sorted(expected) and windows != expected
    assert found.counts == {"found": 5, "judged": 5, "unknown": 0, "leaking": 0, "train": 4, "validation": 1}
    assert read_windows([path], 50, rules(batch_size=1), [], seed=1).counts == found.counts


def test_windows_of_unknown_bases_are_left_out(tmp_path: Path):
    """More than a tenth of unknown bases is too much, a tenth is not; the number left out is told."""
    text = random_text(50)
    path = write(tmp_path / "g.fa", text[:45] + "N" * 5, text[:44] + "N" * 6, text, text[::-1])
    found = read_windows([path], 50, rules(batch_size=1), [], seed=1)
    assert found.counts["unknown"] == 1 and found.counts["train"] + found.counts["validation"] == 3


def test_more_windows_than_wanted_are_a_random_sample(tmp_path: Path):
    """With max_windows, so many windows of all over the file are kept, others for another seed."""
    path = write(tmp_path / "g.fa", random_text(50 * 400))
    place = {window: i for i, window in enumerate(_tiles(random_text(50 * 400), 50))}
    drawn = []
    for seed in (1, 2):
        found = read_windows([path], 50, rules(max_windows=100), [], seed=seed)
        assert found.counts["train"] + found.counts["validation"] == 100
        drawn.append(sorted(place[w] for w in [*found.train.texts(), *found.validation.texts()]))
    assert drawn[0] != drawn[1]
    assert min(drawn[0]) < 40 and max(drawn[0]) > 360


def _tiles(text: str, length: int) -> list[str]:
    return [text[i : i + length] for i in range(0, len(text) - length + 1, length)]


def test_windows_that_share_bases_with_held_out_sequences_are_left_out(tmp_path: Path):
    """A slow search for shared 20-mers on both strands leaves out the same windows; 19 shared bases are no leak."""
    tiles = _tiles(random_text(60 * 40, seed=3), 60)
    other = random_text(30, seed=4)
    held_out = [
        tiles[0],  # equal
        reverse_complement(tiles[1]),  # the other strand
        "A" * 10 + tiles[2][10:30] + "C" * 10,  # 20 bases
        "A" * 10 + tiles[3][10:29] + other,  # 19 bases
        reverse_complement(tiles[4][3:18]),  # a short one, contained whole
        tiles[5][3:18].lower(),
        tiles[6][3:17] + ("A" if tiles[6][17] != "A" else "C"),  # a short one, all but its last base
    ]
    path = write(tmp_path / "g.fa", "".join(tiles))
    found = read_windows([path], 60, rules(), held_out, seed=1)
    assert found.counts["leaking"] == 5
    kept = {*found.train.texts(), *found.validation.texts()}
    assert set(tiles) - kept == {tiles[i] for i in (0, 1, 2, 4, 5)}


def test_too_few_windows_are_told_with_reasons(tmp_path: Path):
    """Where nothing is left, the error says how many windows were left out and why, and what to change."""
    tiles = _tiles(random_text(600), 60)
    path = write(tmp_path / "g.fa", *tiles, "N" * 60)
    with pytest.raises(DataError, match="found 0 windows of 60 bp.*1 have too many unknown.*10 share 20 bp.*add FASTA"):
        read_windows([path], 60, rules(), tiles, seed=1)


def test_held_out_is_what_any_fold_holds_out(tmp_path: Path):
    """Validation and test sequences of all folds must not be seen, given as a table or as a file."""
    sequences, split = toy_tables(40, n_folds=2)
    held = (split[["fold_0", "fold_1"]] != "train").any(axis=1)
    sequences.to_parquet(tmp_path / "s.parquet")
    shuffled = split.sample(frac=1, random_state=1)
    for source in (sequences, tmp_path / "s.parquet"):
        longest, texts = longest_and_held_out(source, shuffled)
        assert longest == 23
        assert texts == list(sequences["sequence"][held])


# ------------------------------------------------------------------- what is to beat


def test_markov_bits_are_those_of_a_slow_count():
    """Bits per base equal those of a loop over the text that counts words, with one count added to each."""
    train, held_out = ["ACGTACGNTACG", "GGGTT"], ["ACGNACGT", "TACGA"]
    for order in (0, 1, 3):
        counts = {w: 1 for w in map("".join, itertools.product("ACGT", repeat=order + 1))}
        for text in [*train, *map(reverse_complement, train)]:
            for i in range(len(text) - order):
                counts[text[i : i + order + 1]] = counts.get(text[i : i + order + 1], 0) + 1
        bits = []
        for text in held_out:
            for i in range(len(text) - order):
                word = text[i : i + order + 1]
                if "N" not in word:
                    total = sum(counts[word[:-1] + letter] for letter in "ACGT")
                    bits.append(-math.log2(counts[word] / total))
        found = markov_bits(codes_of_texts(train), codes_of_texts(held_out), order=order, both_strands=True)
        assert found == pytest.approx(np.mean(bits))


def test_random_text_cannot_be_predicted():
    """Text of random letters has two bits per base under any order."""
    windows = codes_of_texts(_tiles(random_text(200_000), 50))
    for order in (0, 3):
        assert markov_bits(windows, windows, order=order, both_strands=False) == pytest.approx(2, abs=0.01)


@pytest.mark.parametrize(("name", "expected"), [("conv", 2.0), ("bases", 2.0), ("words", None)])
def test_single_bases_without_an_idea_take_two_bits(name: str, expected: float | None):
    """A head of zeros guesses all four bases evenly: two bits for each; words are not guessed base by base."""
    model = masked_model(name)
    torch.nn.init.zeros_(model.head.weight)
    torch.nn.init.zeros_(model.head.bias)
    windows = codes_of_texts(["ACGTATAATGCATTTGACG", "GGATTACCATA"] * 40)
    assert isolated_bits(model, windows, rules(), seed=1) == (expected and pytest.approx(expected))


# -------------------------------------------------------------------- pretraining


@pytest.fixture(scope="module")
def genome(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("genome") / "g.fa"
    toy_genome(path)
    return path


@pytest.fixture(scope="module")
def pretrained(genome, tmp_path_factory) -> tuple[Path, RunConfig, Pretraining]:
    """Folder of a pretrained model, its run, and the result."""
    run = pretrain_run(genome)
    result = pretrain(run, *toy_tables())
    folder = tmp_path_factory.mktemp("pretrained")
    save_model(folder, result.model, config=run.model, motifs=[], record=result.record)
    return folder, run, result


def test_result_holds_history_and_record(pretrained):
    """History has a row per epoch with bits and the bars to beat; the record tells windows, bits and digests."""
    _, run, result = pretrained
    assert tuple(result.history.columns) == PRETRAIN_HISTORY
    assert len(result.history) == 3 and not result.history.isna().any().any()
    record = result.record
    assert record["step"] == "pretrain" and record["fold"] is None and record["seed"] is None
    assert record["windows"]["train"] == record["n_examples"]["train"]
    best = result.history["validation_loss"].idxmin()
    assert record["best_epoch"] == best
    assert record["validation_bits_per_base"] == result.history["validation_bits_per_base"][best]
    assert record["order3_bits"] < record["order0_bits"] < 2
    assert record["isolated_bits"] > 0
    assert not result.model.training


@pytest.mark.parametrize(
    "name",
    [
        "cls",
        "overlapping",
        "words",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("bases", "gru", "tiling")),
    ],
)
def test_every_kind_of_model_learns(genome: Path, name: str):
    """Held-out loss is below that of an even guess, whatever a token is; where it is a base, so are the bits."""
    result = pretrain(pretrain_run(genome, model=MODELS[name], epochs=2, both_strands=False), *toy_tables())
    history = result.history
    n_choices = 4 if result.model.tokenizer is None else result.model.tokenizer.n_tokens
    assert history["validation_loss"].iloc[-1] < 0.98 * math.log2(n_choices)
    if "tokenizer" not in MODELS[name]:
        assert (history["validation_loss"] == history["validation_bits_per_base"]).all()
    else:
        assert (history["validation_loss"] > history["validation_bits_per_base"]).all()


@pytest.mark.slow
def test_a_rule_of_the_text_is_learned(tmp_path: Path):
    """Text whose second half repeats its first is predicted far below order 3; random text stays at two bits."""
    rng = np.random.default_rng(0)
    halves = ["".join(rng.choice(list("ACGT"), 10)) for _ in range(4000)]
    repeated = write(tmp_path / "repeated.fa", *(half + half for half in halves))
    random = write(tmp_path / "random.fa", *(random_text(20, seed=i) for i in range(4000)))
    model = {"stem": {"kind": "none", "pool": 1}, "positions": "learned", "d_model": 32, "dropout": 0.0}
    settings = {"window_bp": 20, "span_bp": 2, "both_strands": False, "epochs": 30, "learning_rate": 0.005}
    bits = {}
    for path in (repeated, random):
        record = pretrain(pretrain_run(path, model=model, **settings), *toy_tables()).record
        bits[path.stem] = record["validation_bits_per_base"]
        assert record["order3_bits"] == pytest.approx(2, abs=0.05)
    assert bits["repeated"] < 1 and bits["random"] > 1.97


def assert_same(a: torch.nn.Module, b: torch.nn.Module) -> None:
    for (name, x), y in zip(a.state_dict().items(), b.state_dict().values(), strict=True):
        assert torch.equal(x, y), name


def test_interrupted_pretraining_repeats_exactly(tmp_path, pretrained, monkeypatch):
    """Stopped in an epoch and called again, the weights are those of an uninterrupted call, bit for bit."""
    _, run, whole = pretrained
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="stop"):
        stop_at(17, patch)
        pretrain(run, *toy_tables(), work_dir=tmp_path)
    resumed = pretrain(run, *toy_tables(), work_dir=tmp_path)
    assert resumed.record["resumed"] and not whole.record["resumed"]
    assert_same(resumed.model, whole.model)


@pytest.mark.slow
def test_killed_pretraining_ends_with_the_same_weights(tmp_path, genome, pretrained):
    """SIGKILL in the middle of an epoch, then a second call, changes no bit."""
    import os
    import subprocess
    import sys

    root = Path(__file__).parents[3]
    command = [sys.executable, str(root / "tests" / "toy_training.py"), str(tmp_path), "step:17", str(genome)]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    assert subprocess.run(command, env=environment, check=False).returncode == -9
    resumed = pretrain(pretrained[1], *toy_tables(), work_dir=tmp_path)
    assert resumed.record["resumed"]
    assert_same(resumed.model, pretrained[2].model)


def test_other_windows_start_anew(tmp_path: Path):
    """A checkpoint of pretraining on other sequences is refused."""
    toy_genome(tmp_path / "g.fa")
    run = pretrain_run(tmp_path / "g.fa", epochs=1)
    pretrain(run, *toy_tables(), work_dir=tmp_path / "work")
    toy_genome(tmp_path / "g.fa", seed=1)
    with pytest.warns(BioattnWarning, match=r"differs in: data"):
        pretrain(run, *toy_tables(), work_dir=tmp_path / "work")


# -------------------------------------------------------------- pretrained weights


def test_training_starts_from_pretrained_weights(pretrained, monkeypatch):
    """With frozen epochs to its end, stem and encoder are the pretrained ones and the readout is its own."""
    folder, run, before = pretrained
    frozen = run.model_copy(update={"pretrain": run.pretrain.model_copy(update={"freeze_epochs": 3})})
    result = fit(frozen, *toy_tables(), pretrained=folder)
    expected = dict(before.model.named_parameters())
    for name, value in result.model.named_parameters():
        assert torch.equal(value, expected[name]) is not name.startswith("readout."), name
        assert value.requires_grad is expected[name].requires_grad
    assert result.history["train_loss"].iloc[-1] < result.history["train_loss"].iloc[0]
    assert result.record["pretrained"]["windows"] == before.record["windows"]


def test_frozen_weights_are_freed_in_time(pretrained, tmp_path):
    """After freeze_epochs the pretrained weights train; without, they do from the first epoch on."""
    folder, run, before = pretrained
    for freeze, epochs, moved in ((1, 1, False), (1, 2, True), (0, 1, True)):
        settings = {
            "pretrain": run.pretrain.model_copy(update={"freeze_epochs": freeze}),
            "train": run.train.model_copy(update={"epochs": epochs}),
        }
        work_dir = tmp_path / f"{freeze}-{epochs}"
        fit(run.model_copy(update=settings), *toy_tables(), pretrained=folder, work_dir=work_dir)
        last = read_checkpoint(work_dir / "last.ckpt")["state_dict"]["network.stem.project.weight"]
        assert torch.equal(last, before.model.stem.project.weight) is not moved


def test_interrupted_training_with_frozen_epochs_repeats_exactly(tmp_path, pretrained, monkeypatch):
    """Stopped among the frozen epochs, and then after them, training ends as if it had not been stopped."""
    folder, run, _ = pretrained
    run = run.model_copy(update={"pretrain": run.pretrain.model_copy(update={"freeze_epochs": 2})})
    whole = fit(run, *toy_tables(), pretrained=folder)
    for step in (10, 17):
        with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="stop"):
            stop_at(step, patch)
            fit(run, *toy_tables(), pretrained=folder, work_dir=tmp_path)
    resumed = fit(run, *toy_tables(), pretrained=folder, work_dir=tmp_path)
    assert resumed.record["resumed"]
    assert_same(resumed.model, whole.model)


def test_other_pretrained_weights_start_anew(tmp_path, pretrained, genome):
    """A checkpoint of training from other pretrained weights is refused."""
    folder, run, _ = pretrained
    fit(run, *toy_tables(), pretrained=folder, work_dir=tmp_path / "work")
    other = pretrain(pretrain_run(genome, epochs=1), *toy_tables())
    save_model(tmp_path / "other", other.model, config=run.model, motifs=[], record=other.record)
    with pytest.warns(BioattnWarning, match=r"differs in: pretrained"):
        fit(run, *toy_tables(), pretrained=tmp_path / "other", work_dir=tmp_path / "work")


def test_learned_words_are_taken_over(tmp_path, genome):
    """A model of learned words trains with the words that it was pretrained with, not with those of its sequences."""
    run = pretrain_run(genome, model=MODELS["words"], epochs=1)
    before = pretrain(run, *toy_tables())
    save_model(tmp_path, before.model, config=run.model, motifs=[], record=before.record)
    after = fit(run, *toy_tables(), pretrained=tmp_path)
    assert after.model.tokenizer == before.model.tokenizer
    assert after.model.tokenizer != train_bpe(toy_tables()[0]["sequence"], vocabulary=40)
    assert before.record["n_tokens"] == after.record["tokenizer"]["n_tokens"]


def test_a_run_to_be_pretrained_needs_the_weights(pretrained):
    """A run with a section pretrain does not train from scratch in silence."""
    with pytest.raises(ConfigError, match="no pretrained weights.*verb pretrain"):
        fit(pretrained[1], *toy_tables())


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"d_model": 32}, "other settings of model.d_model"),
        ({"n_heads": 4}, "other settings of model.n_heads"),
        ({"stem": {"n_filters": 8, "width": 7, "pool": 4}}, "other settings of model.stem"),
    ],
)
def test_weights_of_another_model_are_refused(pretrained, genome, model, message):
    """Pretrained weights of another shape, or of the same shape and another meaning, are refused by name."""
    with pytest.raises(ConfigError, match=message):
        fit(pretrain_run(genome, model=model), *toy_tables(), pretrained=pretrained[0])


def test_weights_of_the_same_encoder_fit_another_pooling(pretrained, genome):
    """Pooling, dropout and readouts may differ; a CLS token that was not pretrained keeps its first weights."""
    config = pretrain_run(genome, model={"pooling": "cls", "dropout": 0.3}).model
    model = build_model(config, n_readouts=2, seed=1)
    prefix = model.prefix.detach().clone()
    loaded = read_pretrained(pretrained[0], config, toy_tables()[1]).load_into(model)
    assert torch.equal(model.prefix, prefix)
    assert torch.equal(model.stem.project.weight, pretrained[2].model.stem.project.weight)
    assert "prefix" not in loaded and "stem.project.weight" in loaded


def test_weights_that_may_have_seen_held_out_sequences_are_refused(pretrained):
    """A split that holds out other sequences than that of pretraining is a leak, and refused."""
    sequences, split = toy_tables(n_folds=2)
    with pytest.raises(DataError, match="holds out other sequences.*pretrain again"):
        fit(pretrained[1], sequences, split, pretrained=pretrained[0])


def test_weights_of_another_step_are_refused(tmp_path):
    """A model that was trained on labels is not taken for a pretrained one."""
    run = small_run(epochs=1)
    result = fit(run, *toy_tables())
    save_model(tmp_path, result.model, config=run.model, motifs=[], record=result.record)
    with pytest.raises(DataError, match="of the step 'train', expected one of 'pretrain'"):
        fit(run, *toy_tables(), pretrained=tmp_path)


def test_pretraining_needs_its_section():
    """Without a section pretrain there is nothing to do, and the error says so."""
    with pytest.raises(ConfigError, match="no section 'pretrain'"):
        pretrain(small_run(), *toy_tables())


def test_a_batch_that_does_not_fit_is_refused(genome):
    """Pretraining computes whole batches: one too large for the memory is refused with a size that fits."""
    run = pretrain_run(genome, model={**NO_STEM, "backend": "reference"}, window_bp=1000, batch_size=8)
    run = run.model_copy(update={"train": run.train.model_copy(update={"memory_gb": 0.7})})
    with pytest.raises(ConfigError, match=r"pretrain.batch_size is 8, but of windows of 1000 bp only \d+ at a time"):
        pretrain(run, *toy_tables())
