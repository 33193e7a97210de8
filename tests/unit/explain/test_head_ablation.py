"""Costs of ablated heads against slow loops, textbook scores and hand-made models."""

import numpy as np
import pytest
import torch
import toy_heads
import toy_tokens
from scipy import stats
from sklearn import metrics as sk
from torch import nn

from bioattn import rng
from bioattn.config import ModelConfig, StemConfig, TaskConfig, TokenizerConfig
from bioattn.data import alphabet
from bioattn.errors import DataError
from bioattn.explain.head_ablation import KINDS, Ablation, Judge, ablate_heads, head_name, heads_of
from bioattn.explain.path_patching import Head
from bioattn.models import SequenceModel, build_model
from bioattn.nn import taps

SIZES = {"d_model": 12, "n_layers": 2, "n_heads": 3, "d_feedforward": 17, "dropout": 0.0}
BASES = StemConfig(kind="none", pool=1)
MODELS = {
    "stem, both strands": {
        "stem": StemConfig(kind="conv", n_filters=5, width=5, pool=3), "reverse_complement": "average",
        "positions": "rope",
    },
    "bases, cls": {"stem": BASES, "positions": "learned", "pooling": "cls"},
    "3-mers": {
        "stem": BASES, "tokenizer": TokenizerConfig(kind="kmer", k=3, stride=1), "positions": "relative",
        "pooling": "attention",
    },
    "bpe": {
        "stem": BASES, "tokenizer": TokenizerConfig(kind="bpe", vocabulary=40), "positions": "sinusoidal",
        "pooling": "sum", "reverse_complement": "average",
    },
}  # fmt: skip
TASKS = {
    "binary": TaskConfig(),
    "multilabel": TaskConfig(kind="multilabel", targets=["a", "b"], readout=1),
    "multiclass": TaskConfig(kind="multiclass", classes=["a", "b", "c"], readout=2),
    "regression": TaskConfig(kind="regression", targets=["a", "b"], readout=1),
    "count": TaskConfig(kind="count", targets=["a", "b"], readout=1),
}


def model_of(name: str, *, n_readouts: int = 2, **more) -> SequenceModel:
    """Model with random weights of a size at which every head matters."""
    config = ModelConfig(**(SIZES | MODELS[name] | more))
    model = build_model(config, n_readouts=n_readouts, seed=1, tokenizer=toy_tokens.BPE if name == "bpe" else None)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return model.eval()


def random_codes(n: int, length: int, seed: int = 0) -> np.ndarray:
    """Random sequences, every third one shorter."""
    codes = np.random.default_rng(seed).integers(0, 4, (n, length)).astype(np.uint8)
    codes[::3, length - 8 :] = alphabet.PAD
    return codes


def tokens_of(codes: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(codes.astype(np.int64))


def readouts_of(model: nn.Module, codes: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        return model(tokens_of(codes)).double().numpy()


def targets_of(task: TaskConfig, readouts: np.ndarray, seed: int = 0) -> np.ndarray:
    """Targets (N,) of the task's readout that depend on it."""
    draw = np.random.default_rng(seed)
    value = readouts[:, task.readout]
    z = (value - value.mean()) / value.std() + draw.normal(size=len(value))
    if task.kind == "multiclass":
        return np.digitize(z, [-0.5, 0.5]).astype(np.float32)
    found = {"regression": z, "count": np.floor(np.exp(z))}.get(task.kind, z > 0)
    return found.astype(np.float32)


# ------------------------------------------------------------- what is ablated


def slow_readouts(
    model: SequenceModel, codes: np.ndarray, reference: np.ndarray, group: list[Head], kind: str
) -> np.ndarray:
    """Readouts with some heads ablated, from whole runs of both strands and plain means."""
    edits, n_prefix = {}, model.n_prefix
    for layer in {layer for layer, _ in group}:
        name = f"layer.{layer}.attn.head_output"
        before, outputs = [], []
        with torch.inference_mode(), taps.record(model, [name]) as store:
            for row in reference:
                for strand in model.strands(tokens_of(row[None])):
                    model.one_strand(strand)
                    before.append(store[name][0, :, :n_prefix])
                    outputs.append(store[name][0, :, n_prefix:][:, model.real_tokens(strand)[0]])
        heads = [head for at, head in group if at == layer]
        # Each token before the sequence has a mean of its own.
        first_HQC = torch.stack(before).mean(0)[heads] * (kind == "mean")
        rest_HC = torch.cat(outputs, dim=1).mean(1)[heads] * (kind == "mean")

        def change(x, heads=heads, first=first_HQC, rest=rest_HC):
            x = taps.replace(rest[:, None], np.s_[:, heads])(x)
            x[:, heads, :n_prefix] = first
            return x

        edits[name] = change
    with torch.inference_mode(), taps.edit(model, edits):
        return model(tokens_of(codes)).double().numpy()


def root_mean_square(x: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(x))))


@pytest.mark.parametrize("name", list(MODELS))
def test_zero_and_mean_ablation_equal_whole_runs(name: str, monkeypatch: pytest.MonkeyPatch):
    """The effect of every head is that of edits of the whole model, on both strands, in batches of any size."""
    model, codes, reference = model_of(name), random_codes(11, 29), random_codes(5, 23, seed=1)
    before = readouts_of(model, codes)[:, 1]
    settings = {"readout": 1, "kinds": ("zero", "mean"), "draws": 100}
    for given in (None, reference):
        table = ablate_heads(model, codes, None, TaskConfig(), reference=given, **settings)
        assert len(table) == 12
        for row in table.itertuples():
            seen = codes if given is None else given
            after = slow_readouts(model, codes, seen, [(row.layer, row.head)], row.kind)[:, 1]
            assert row.effect == pytest.approx(root_mean_square(after - before), rel=1e-4, abs=1e-6)
        assert (table["effect"] > 1e-3).all()
    monkeypatch.setattr("bioattn.explain.path_patching._BASES", 4 * 29)
    parts = ablate_heads(model, codes, None, TaskConfig(), reference=reference, **settings)
    np.testing.assert_allclose(parts["effect"], table["effect"], rtol=1e-4)


@pytest.mark.parametrize("name", list(MODELS))
def test_readouts_of_an_ablation_are_those_of_whole_runs(name: str):
    """Readouts without some heads, and those of the intact reference, are what the whole model gives."""
    model, codes, reference = model_of(name), random_codes(7, 29), random_codes(5, 23, seed=1)
    ablation, group = Ablation(model, reference, own=False), [(0, 2), (1, 0), (1, 1)]
    np.testing.assert_allclose(ablation.intact, readouts_of(model, reference), rtol=1e-4, atol=1e-5)
    found, expected = ablation.readouts(codes, group), slow_readouts(model, codes, reference, group, "mean")
    assert found.shape == (7, 2) and not np.allclose(expected, readouts_of(model, codes), atol=1e-2)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("own", [True, False])
def test_resampled_outputs_are_those_of_other_sequences(name: str, own: bool):
    """A token gets what the same token of the other sequence has, on the same strand, and the mean beyond its end."""
    model, codes = model_of(name), random_codes(7, 29)
    reference = codes if own else random_codes(5, 23, seed=1)
    ablation = Ablation(model, reference, own=own)
    others = ablation._others(7)
    before = readouts_of(model, codes)[:, 0]
    squares = []
    for draw in others:
        for i, other in enumerate(draw):
            assert not own or other != i
            after = []
            pairs = zip(*(model.strands(tokens_of(c[None])) for c in (codes[i], reference[other])), strict=True)
            for strand, donor in pairs:
                tap = "layer.1.attn.head_output"
                with torch.inference_mode(), taps.record(model, [tap]) as store:
                    model.one_strand(donor)
                given, n_given = store[tap][0, 2], model.n_prefix + int(model.real_tokens(donor).sum())

                def change(x, given=given, n=n_given):
                    x = x.clone()
                    x[:, 2] = ablation.means[1][2, -1]
                    n = min(n, x.shape[2])
                    x[0, 2, :n] = given[:n]
                    return x

                with torch.inference_mode(), taps.edit(model, {tap: change}):
                    after.append(float(model.one_strand(strand)[0, 0]))
            squares.append((np.mean(after) - before[i]) ** 2)
    table = ablate_heads(
        model, codes, None, TaskConfig(), sets=[[(1, 2)]], kinds=["resample"], reference=None if own else reference
    )
    assert table["effect"][0] == pytest.approx(np.sqrt(np.mean(squares)), rel=1e-3) and table["effect"][0] > 1e-3


PLACE, G = 2, 2


def place_to_first_token(reverse_complement: str) -> SequenceModel:
    """Model whose first head tells the token before the sequence, and no other, whether the third base is G.

    All weights are by hand: the readout is twice what that token has been told, and where no
    other base is G the head tells all other tokens zero.
    """
    config = ModelConfig(
        stem=BASES, positions="learned", pooling="cls", reverse_complement=reverse_complement, d_model=4, n_layers=1,
        n_heads=2, d_feedforward=3, dropout=0.0,
    )  # fmt: skip
    model = build_model(config, n_readouts=1, seed=0).eval()
    block = model.encoder.layer[0]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        block.norm_attn, model.encoder.norm = nn.Identity(), nn.Identity()
        model.stem.project.weight[0, G] = 1.0
        # Marks of the token before the sequence and of the third base: the first asks for the second, others shun it.
        model.encoder.positions.table[0, 2] = model.encoder.positions.table[model.n_prefix + PLACE, 3] = 1.0
        block.attn.project_in.bias[0], block.attn.project_in.weight[0, 2] = -60.0, 120.0
        block.attn.project_in.weight[4, 3] = block.attn.project_in.weight[8, 0] = 1.0
        block.attn.project_out.weight[1, 0] = 1.0
        model.readout.weight[0, 1] = 2.0
    return model


@pytest.mark.parametrize("reverse_complement", ["none", "average"])
def test_the_token_before_the_sequence_has_a_mean_of_its_own(reverse_complement: str, monkeypatch: pytest.MonkeyPatch):
    """Where that token alone is told anything, its mean over sequences and strands leaves the mean readout in place."""
    draw, n, length = np.random.default_rng(0), 29, 13
    codes = draw.choice([0, 3], (n, length)).astype(np.uint8)
    codes[::3, length - 6 :] = alphabet.PAD
    last = (codes != alphabet.PAD).sum(1) - 1
    # Short sequences have it more often: every sequence counts as one, however many tokens it has.
    forward, reverse = draw.random(n) < np.where(last < length - 1, 0.9, 0.2), draw.random(n) < 0.4
    codes[forward, PLACE] = G
    codes[np.flatnonzero(reverse), last[reverse] - PLACE] = 1  # C, which is G on the other strand
    told = forward.astype(float) if reverse_complement == "none" else (forward + reverse.astype(float)) / 2
    model = place_to_first_token(reverse_complement)
    np.testing.assert_allclose(readouts_of(model, codes)[:, 0], 2 * told, atol=1e-6)
    monkeypatch.setattr("bioattn.explain.path_patching._BASES", 4 * length)  # several batches
    ablation = Ablation(model, codes)
    assert [tuple(mean.shape) for mean in ablation.means] == [(2, 2, 2)]
    np.testing.assert_allclose(ablation.means[0][0, :, 0], [told.mean(), 0], atol=1e-6)
    after = ablation.readouts(codes, [(0, 0)])
    np.testing.assert_allclose(after, np.full((n, 1), 2 * told.mean()), atol=1e-6)
    task, targets = TaskConfig(kind="regression", targets=["y"]), (2 * told).astype(np.float32)
    row = ablate_heads(model, codes, targets, task, kinds=["mean"]).iloc[0]
    # What is lost is the variance alone, and no shift.
    assert row["loss"] == pytest.approx(4 * told.var(), rel=1e-5) and row["loss"] > 0.3
    assert row["effect"] == pytest.approx(2 * told.std(), rel=1e-5)


def test_a_lone_sequence_is_not_resampled_from_itself():
    """With one sequence there is no other: resampling is mean ablation."""
    table = ablate_heads(model_of("bases, cls"), random_codes(1, 13), None, TaskConfig(), kinds=("mean", "resample"))
    mean, resample = (table.loc[table["kind"] == kind, "effect"].to_numpy() for kind in ("mean", "resample"))
    np.testing.assert_allclose(resample, mean, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_that_writes_nothing_costs_nothing(kind: str):
    """With a zero output projection loss, drop and effect are zero with intervals of no width; others cost."""
    model, codes = model_of("stem, both strands"), random_codes(61, 29)
    with torch.no_grad():
        model.encoder.layer[1].attn.project_out.weight[:, 4:8] = 0
    targets = targets_of(TASKS["binary"], readouts_of(model, codes))
    table = ablate_heads(model, codes, targets, TASKS["binary"], kinds=[kind]).set_index("heads")
    columns = [f"{name}{end}" for name in ("loss", "drop", "effect") for end in ("", "_ci_low", "_ci_high")]
    np.testing.assert_allclose(table.loc["L1H1", columns].astype(float), 0, atol=1e-6)
    assert table.drop("L1H1")["effect"].min() > 1e-3


# ------------------------------------------------------------- what it costs


def metric_by_hand(task: TaskConfig, target: np.ndarray, readouts: np.ndarray) -> float:
    value = readouts[:, task.readout]
    if task.kind == "multiclass":
        p = torch.from_numpy(readouts).softmax(1)[:, task.readout].numpy()
        return sk.roc_auc_score(target == task.readout, p)
    if task.kind == "regression":
        return stats.pearsonr(target, value).statistic
    return (
        stats.pearsonr(np.log1p(target), value).statistic if task.kind == "count" else sk.roc_auc_score(target, value)
    )


def loss_by_hand(task: TaskConfig, target: np.ndarray, readouts: np.ndarray) -> float:
    value = readouts[:, task.readout]
    if task.kind == "multiclass":
        return sk.log_loss(target, torch.from_numpy(readouts).softmax(1).numpy(), labels=[0, 1, 2])
    if task.kind == "regression":
        return float(np.mean((value - target) ** 2))
    return (
        float(np.mean(np.exp(value) - target * value))
        if task.kind == "count"
        else sk.log_loss(target, 1 / (1 + np.exp(-value)))
    )


@pytest.mark.parametrize("kind", list(TASKS))
def test_costs_are_the_textbook_ones(kind: str):
    """Loss and drop equal scikit-learn's and SciPy's on the ablated readouts; missing targets take no part."""
    task = TASKS[kind]
    model, codes = model_of("bases, cls", n_readouts=task.n_readouts), random_codes(67, 19)
    before = readouts_of(model, codes)
    targets = targets_of(task, before)
    targets[5:9] = np.nan
    known = np.isfinite(targets)
    after = slow_readouts(model, codes, codes, [(1, 2)], "mean")
    table = ablate_heads(model, codes, targets, task, readout=task.readout, kinds=["mean"]).set_index("heads")
    row = table.loc["L1H2"]
    by_hand = [[f(task, targets[known], r[known]) for r in (before, after)] for f in (loss_by_hand, metric_by_hand)]
    assert row["loss"] == pytest.approx(by_hand[0][1] - by_hand[0][0], rel=1e-4, abs=1e-6)
    assert row["drop"] == pytest.approx(by_hand[1][0] - by_hand[1][1], abs=1e-5)
    assert row["metric"] == ("pearson" if kind in ("regression", "count") else "auroc") and row["note"] == ""
    assert abs(row["loss"]) > 1e-3 < abs(row["drop"])


def test_losses_of_all_targets_are_added():
    """With targets of all readouts their losses are summed, while score and effect are those of one readout."""
    task = TASKS["regression"]
    model, codes = model_of("bases, cls"), random_codes(31, 19)
    targets = np.random.default_rng(0).normal(size=(31, 2)).astype(np.float32)
    settings = {"kinds": ("zero", "mean"), "draws": 100}
    table = ablate_heads(model, codes, targets, task, readout=1, **settings)
    each = [ablate_heads(model, codes, targets[:, t], task, readout=t, **settings) for t in range(2)]
    np.testing.assert_allclose(table["loss"], each[0]["loss"] + each[1]["loss"], rtol=1e-6)
    np.testing.assert_allclose(table[["drop", "effect"]], each[1][["drop", "effect"]])
    assert (each[0]["drop"] - each[1]["drop"]).abs().max() > 1e-3


def test_intervals_are_quantiles_of_resampled_sequences():
    """Drawing the sequences again and scoring them from scratch gives the intervals of loss, drop and effect."""
    task = TASKS["binary"]
    model, codes = model_of("bases, cls"), random_codes(43, 19)
    before, after = readouts_of(model, codes), slow_readouts(model, codes, codes, [(1, 0)], "zero")
    targets = targets_of(task, before)
    weights = rng.stream(4, "heads", "ablation").multinomial(43, np.full(43, 1 / 43), 101)
    found: dict[str, list[float]] = {"loss": [], "drop": [], "effect": []}
    for w in weights:
        rows = np.repeat(np.arange(43), w)
        y, old, new = targets[rows], before[rows], after[rows]
        found["loss"].append(loss_by_hand(task, y, new) - loss_by_hand(task, y, old))
        found["drop"].append(metric_by_hand(task, y, old) - metric_by_hand(task, y, new))
        found["effect"].append(root_mean_square(new[:, 0] - old[:, 0]))
    settings = {"sets": [[(1, 0)]], "kinds": ["zero"], "seed": 4}
    row = ablate_heads(model, codes, targets, task, draws=101, **settings).iloc[0]
    none = ablate_heads(model, codes, targets, task, draws=0, **settings).iloc[0]
    for name, draws in found.items():
        expected = np.quantile(draws, [0.025, 0.975])
        np.testing.assert_allclose([row[f"{name}_ci_low"], row[f"{name}_ci_high"]], expected, atol=1e-5)
        assert expected[0] < row[name] < expected[1]
        assert none[name] == row[name] and np.isnan(none[f"{name}_ci_low"]) and np.isnan(none[f"{name}_ci_high"])


def test_excess_is_against_the_other_heads_by_the_same_draws():
    """Of two heads one's excess is minus the other's, with its interval mirrored; ranks order the drops of a kind."""
    model, codes = model_of("bases, cls", n_layers=1, n_heads=2), random_codes(71, 19)
    targets = targets_of(TASKS["binary"], readouts_of(model, codes))
    table = ablate_heads(model, codes, targets, TASKS["binary"], kinds=["mean"])
    a, b = table.to_dict("records")
    assert a["excess"] == pytest.approx(a["drop"] - b["drop"]) and a["excess"] == pytest.approx(-b["excess"])
    assert (a["excess_ci_low"], a["excess_ci_high"]) == pytest.approx((-b["excess_ci_high"], -b["excess_ci_low"]))
    assert [a["rank"], b["rank"]] == ([1, 2] if a["drop"] > b["drop"] else [2, 1])
    more = ablate_heads(model_of("bases, cls"), codes, targets, TASKS["binary"])
    for _, part in more.groupby("kind"):
        assert sorted(part["rank"]) == [1, 2, 3, 4, 5, 6] and part.sort_values("rank")["drop"].is_monotonic_decreasing
        np.testing.assert_allclose(part["excess"], (part["drop"] - part["drop"].mean()) * 6 / 5, atol=1e-9)
    alone = ablate_heads(model, codes, targets, TASKS["binary"], sets=[[(0, 0)]], kinds=["mean"])
    assert np.isnan(alone["excess"][0])


@pytest.mark.parametrize(
    ("kind", "targets", "note"),
    [
        ("binary", None, "no targets"),
        ("binary", np.full(17, np.nan), "all targets are missing"),
        ("binary", np.ones(17), "all targets are of one class"),
        ("regression", np.full(17, 2.5), "targets do not vary"),
        ("count", np.zeros(17), "targets do not vary"),
        ("multiclass", np.ones(17), "all targets are of one class"),
    ],
)
def test_targets_that_say_nothing_give_a_note(kind: str, targets: np.ndarray | None, note: str):
    """The frame is complete: effects are there, drop is NaN and never zero, and the note says why."""
    task = TASKS[kind]
    model = model_of("bases, cls", n_readouts=task.n_readouts)
    table = ablate_heads(model, random_codes(17, 19), targets, task, readout=task.readout)
    assert len(table) == 18 and table["note"].str.startswith(note).all()
    assert table[["drop", "drop_ci_low", "drop_ci_high", "excess", "excess_ci_low", "rank"]].isna().all().all()
    assert (table["effect_ci_low"] > 0).all() and (table["effect"] < table["effect_ci_high"]).all()
    known = targets is not None and bool(np.isfinite(targets).all())
    assert (table["loss"].notna() == known).all() and (table["loss_ci_high"].notna() == known).all()


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_a_readout_that_no_longer_varies_scores_as_chance(kind: str):
    """Without its only head a model that reads by a token of its own is constant: the drop is all of its score."""
    model, codes = model_of("bases, cls", n_layers=1, n_heads=1), random_codes(53, 19)
    before = readouts_of(model, codes)
    targets = targets_of(TASKS[kind], before[:, [0, 0]])
    full = (
        stats.pearsonr(targets, before[:, 0]).statistic
        if kind == "regression"
        else (sk.roc_auc_score(targets, before[:, 0]) - 0.5)
    )
    table = ablate_heads(model, codes, targets, TASKS[kind], kinds=("zero", "mean"))
    np.testing.assert_allclose(table["drop"], full, atol=1e-6)
    assert full > 0.1 and table["drop_ci_low"].notna().all()


def test_float_noise_of_a_constant_readout_is_not_scored():
    """Values that differ by rounding alone, next to what they were, score as chance; small real ones as they are."""
    value = np.random.default_rng(0).normal(size=40)
    target = (value > 0).astype(np.float32)
    judge = Judge(target, 40, TaskConfig(), 0, n_draws=3, seed=0)
    assert judge.score(3 + 1e-7 * value, value).value == 0.5 and judge.score(3 + 1e-3 * value, value).value == 1.0
    assert judge.score(3 + 1e-7 * value, value).draws.tolist() == [0.5] * 3


def test_what_does_not_fit_is_refused():
    """Kinds, heads, targets and empty input that make no sense are named in the error."""
    classes = np.eye(3)[[0, 1, 2, 0, 1]]
    model, codes = model_of("bases, cls"), random_codes(5, 13)
    with pytest.raises(DataError, match="'median' is not a kind"):
        ablate_heads(model, codes, None, TaskConfig(), kinds=["median"])
    with pytest.raises(DataError, match="head L2H0 does not exist"):
        ablate_heads(model, codes, None, TaskConfig(), sets=[[(2, 0)]])
    with pytest.raises(DataError, match="at least one"):
        ablate_heads(model, codes, None, TaskConfig(), sets=[[]])
    with pytest.raises(DataError, match="there must be a set"):
        ablate_heads(model, codes, None, TaskConfig(), sets=[])
    with pytest.raises(DataError, match="no kind of ablation; allowed: zero, mean, resample"):
        ablate_heads(model, codes, None, TaskConfig(), kinds=[])
    with pytest.raises(DataError, match=r"shape \(5,\)"):
        ablate_heads(model, codes, np.zeros(4), TaskConfig())
    with pytest.raises(DataError, match="whole numbers from 0 to 1"):
        ablate_heads(model, codes, np.arange(5), TaskConfig())
    with pytest.raises(DataError, match=r"shape \(5,\) or \(5, 1\), got \(5, 3\)"):
        ablate_heads(model_of("bases, cls", n_readouts=3), codes, classes, TASKS["multiclass"])
    with pytest.raises(DataError, match="no sequence"):
        ablate_heads(model, codes[:0], None, TaskConfig())
    with pytest.raises(DataError, match="no reference"):
        ablate_heads(model, codes, None, TaskConfig(), reference=codes[:0])


def test_a_recurrent_model_has_no_heads_to_ablate():
    """The error says that the encoder is recurrent, not that the user asked for an empty set."""
    recurrent = build_model(ModelConfig(encoder="gru", d_model=8, n_layers=1), n_readouts=1)
    with pytest.raises(DataError, match="recurrent"):
        ablate_heads(recurrent, random_codes(5, 13), None, TaskConfig())


# ------------------------------------------------------------- sets of heads


@pytest.mark.parametrize("name", list(MODELS))
def test_a_set_costs_what_its_heads_cost_together(name: str):
    """The heads of a set, of one layer or several, are ablated in one run; a set of one is that head's own row."""
    model, codes = model_of(name), random_codes(31, 23)
    before = readouts_of(model, codes)
    targets = targets_of(TASKS["binary"], before)
    sets = [[(0, 0), (0, 2)], [(1, 1), (0, 2), (1, 2)], [(0, 1)]]
    table = ablate_heads(model, codes, targets, TASKS["binary"], sets=sets, kinds=("zero", "mean"), draws=100)
    for row, (kind, group) in zip(table.itertuples(), ((k, g) for k in ("zero", "mean") for g in sets), strict=True):
        after = slow_readouts(model, codes, codes, group, kind)
        loss = loss_by_hand(TASKS["binary"], targets, after) - loss_by_hand(TASKS["binary"], targets, before)
        assert row.loss == pytest.approx(loss, rel=1e-3, abs=1e-6) and row.kind == kind
        assert row.effect == pytest.approx(root_mean_square((after - before)[:, 0]), rel=1e-4)
    assert table["heads"].tolist() == ["L0H0+L0H2", "L1H1+L0H2+L1H2", "L0H1"] * 2
    assert table["layer"].tolist() == [-1, -1, 0] * 2 and table["head"].tolist() == [-1, -1, 1] * 2
    alone = ablate_heads(model, codes, targets, TASKS["binary"], kinds=["mean"], draws=100).iloc[1]
    same = ["heads", "layer", "head", "loss", "loss_ci_low", "drop", "drop_ci_high", "effect", "metric"]
    assert table.iloc[-1][same].tolist() == alone[same].tolist()


def test_redundant_heads_show_by_what_they_cost_together():
    """Two equal heads whose sum is read by its rank score alike without either, and not at all without both."""
    model = toy_heads.reading_model(toy_heads.USF1)
    attn, twin = model.encoder.layer[1].attn, (1, 2)
    with torch.no_grad():
        for part in range(3):  # queries, keys and values
            own, other = (slice(6 * part + 2 * head, 6 * part + 2 * head + 2) for _, head in (toy_heads.READER, twin))
            attn.project_in.weight[other], attn.project_in.bias[other] = (
                attn.project_in.weight[own].clone(),
                attn.project_in.bias[own].clone(),
            )
        attn.project_out.weight[:, 4:6] = attn.project_out.weight[:, 2:4].clone()
    codes = toy_heads.with_sites(toy_heads.USF1, 60, 40, 0)
    value = readouts_of(model, codes)[:, 0]
    targets = (value > np.median(value)).astype(np.float32)
    sets = [[toy_heads.READER], [twin], [toy_heads.READER, twin], [toy_heads.READER, (0, 1)]]
    table = ablate_heads(model, codes, targets, TaskConfig(), sets=sets, kinds=("zero", "mean"))
    for _, part in table.groupby("kind"):
        np.testing.assert_allclose(part["drop"], [0, 0, 0.5, 0], atol=1e-9)
        assert part["drop_ci_low"].iloc[2] == pytest.approx(0.5) and (part["effect"].iloc[:2] > 1e-2).all()


def test_a_set_given_twice_is_one():
    """Every set has one row in each kind, in the order given."""
    table = ablate_heads(
        model_of("bases, cls"), random_codes(5, 13), None, TaskConfig(),
        sets=[[(1, 0)], [(0, 1)], [(1, 0)]], kinds=("mean", "zero"), draws=0,
    )  # fmt: skip
    assert table["heads"].tolist() == ["L1H0", "L0H1"] * 2 and table["kind"].tolist() == ["mean"] * 2 + ["zero"] * 2


def test_heads_are_numbered_layer_by_layer():
    """Column C of per-head arrays is layer * n_heads + head, and a head's name says both."""
    heads = heads_of(model_of("bpe"))
    assert heads == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert list(map(head_name, heads)) == ["L0H0", "L0H1", "L0H2", "L1H0", "L1H1", "L1H2"]
