"""What heads of models with random weights are worth: how these are drawn, fitted and counted."""

import numpy as np
import pytest
import torch
import toy_heads
import toy_tokens
from scipy import optimize, stats
from sklearn.linear_model import LogisticRegression

from bioattn import rng
from bioattn.config import ModelConfig, StemConfig, TaskConfig, TokenizerConfig
from bioattn.data import alphabet
from bioattn.data.motif import Motif
from bioattn.explain import random_models as module
from bioattn.explain.head_ablation import Scored, ablate_heads
from bioattn.explain.predict import predict
from bioattn.explain.random_models import p_random, random_model_losses, reinitialised
from bioattn.models import SequenceModel, build_model

SIZES = {"d_model": 12, "n_layers": 2, "n_heads": 3, "d_feedforward": 17, "dropout": 0.0}
BASES = StemConfig(kind="none", pool=1)
MODELS = {
    "stem, both strands": {
        "stem": StemConfig(kind="conv", n_filters=5, width=5, pool=3), "reverse_complement": "average",
    },
    "bases, cls": {"stem": BASES, "pooling": "cls"},
    "3-mers": {"stem": BASES, "tokenizer": TokenizerConfig(kind="kmer", k=3, stride=1), "pooling": "attention"},
    "bpe": {"stem": BASES, "tokenizer": TokenizerConfig(kind="bpe", vocabulary=40), "pooling": "sum"},
}  # fmt: skip
REGRESSION = TaskConfig(kind="regression", targets=["y"])


def model_of(name: str, *, n_readouts: int = 1, seed: int = 1, **more) -> SequenceModel:
    config = ModelConfig(**(SIZES | MODELS[name] | more))
    tokenizer = toy_tokens.BPE if name == "bpe" else None
    return build_model(config, n_readouts=n_readouts, seed=seed, tokenizer=tokenizer).eval()


def random_codes(n: int, length: int, seed: int = 0) -> np.ndarray:
    """Random sequences, every third one shorter."""
    codes = np.random.default_rng(seed).integers(0, 4, (n, length)).astype(np.uint8)
    codes[::3, length - 8 :] = alphabet.PAD
    return codes


def few_copies(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    """No more copies than are needed."""
    monkeypatch.setattr(module, "_FEWEST_COPIES", n)


# ------------------------------------------------------------- how copies are drawn


@pytest.mark.parametrize("name", list(MODELS))
@pytest.mark.parametrize("positions", ["learned", "relative", "alibi", "none"])
def test_random_copies_are_drawn_as_new_models_are(name: str, positions: str):
    """Every weight is new and as spread as in a new model; the copied model and the random state stay as they are."""
    settings = {"n_readouts": 2, "positions": positions, "feedforward": "swiglu"}
    fresh, model = model_of(name, seed=5, **settings), model_of(name, **settings)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    model.set_readout_scale(torch.tensor([3.0, 4.0]), torch.tensor([5.0, 6.0]))
    kept, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.random.get_rng_state()
    other, again, third = (reinitialised(model.train(), seed=s) for s in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), state) and model.training and not other.training
    assert all(torch.equal(v, kept[k]) for k, v in model.state_dict().items())
    assert torch.equal(other.readout_mean, model.readout_mean) and torch.equal(other.readout_sd, model.readout_sd)
    for key, p in other.named_parameters():
        new = fresh.get_parameter(key).detach()
        if not p.numel():  # no motif filters
            continue
        assert not torch.equal(p, kept[key]) and torch.equal(p, again.get_parameter(key))
        spread = float(p.detach().std()) if p.numel() > 1 else 0.0
        if p.numel() >= 48:
            assert spread == pytest.approx(float(new.std()), rel=0.5, abs=1e-6), key
        elif p.numel() >= 12:
            assert float(new.std()) / 3 <= spread <= 3 * float(new.std()), key
        if p.numel() > 1 and new.std() > 0:
            assert not torch.equal(p, third.get_parameter(key))


def test_motif_filters_stay_in_random_copies():
    """Filters that the user gave, their gain and threshold are kept; learned filters beside them are not."""
    motif = Motif("m", "m", np.full((4, 7), 0.1) + 0.6 * np.eye(4)[:, [0, 1, 2, 3, 0, 1, 2]])
    config = ModelConfig(**SIZES, stem=StemConfig(kind="pwm", n_filters=3, pool=2))
    model = build_model(config, n_readouts=1, motifs=[motif], seed=0)
    other = reinitialised(model, seed=1)
    for name in ("pwm_weight", "pwm_gain", "pwm_shift"):
        assert torch.equal(getattr(other.stem, name), getattr(model.stem, name))
    assert not torch.equal(other.stem.filters.weight, model.stem.filters.weight)


# ------------------------------------------------------------- what their heads are worth


def test_copies_are_as_many_as_heads_need_and_never_few():
    """There are enough copies for the heads asked for, and twenty of them however many heads each has."""
    model = model_of("bases, cls", d_model=6, d_feedforward=3)
    scored = Scored(random_codes(13, 11), np.random.default_rng(0).normal(size=(13, 1)).astype(np.float32))
    few, many = (random_model_losses(model, scored, REGRESSION, at_least=n) for n in (1, 121))
    assert few.shape == (20 * 6,) and many.shape == (21 * 6,) and np.isfinite(many).all()
    assert np.array_equal(many[:120], few) and len(np.unique(few)) == 120
    other_seed = random_model_losses(model, scored, REGRESSION, at_least=1, seed=1)
    assert not np.isin(other_seed, few).any()


def test_of_many_heads_some_are_drawn_in_each_copy(monkeypatch: pytest.MonkeyPatch):
    """Eight heads of a copy count, each once and in its order, and they are others in the next copy."""
    few_copies(monkeypatch, 2)
    model, codes = model_of("bases, cls", d_model=22, n_layers=1, n_heads=11, d_feedforward=3), random_codes(23, 11)
    targets = np.random.default_rng(0).normal(size=(23, 1)).astype(np.float32)
    losses = random_model_losses(model, Scored(codes, targets), REGRESSION, at_least=16)
    assert losses.shape == (16,)
    chosen = []
    for number, some in enumerate(losses.reshape(2, 8)):
        other = reinitialised(model, seed=rng.stream_seed(0, "heads", "random", number))
        factor, constant = best_by_hand("regression", predict(other, codes).astype(np.float64), targets)
        other.set_readout_scale(torch.tensor(constant), torch.tensor([factor]))
        every = ablate_heads(other, codes, targets, REGRESSION, kinds=["mean"], draws=0)["loss"].to_numpy()
        nearest = np.abs(every - some[:, None]).argmin(1)
        np.testing.assert_allclose(some, every[nearest], rtol=1e-3, atol=1e-6)
        assert (np.diff(nearest) > 0).all()
        chosen.append(nearest.tolist())
    assert chosen[0] != chosen[1]
    more = random_model_losses(model, Scored(codes, targets), REGRESSION, at_least=17)
    assert more.shape == (24,) and np.array_equal(more[:16], losses)


def test_random_models_know_no_sign_and_no_size(monkeypatch: pytest.MonkeyPatch):
    """Targets turned around, moved or on another scale, and readouts on another one, give the same relative losses."""
    few_copies(monkeypatch, 4)
    model, codes = model_of("bases, cls"), random_codes(37, 19)
    targets = np.random.default_rng(0).normal(size=(37, 1)).astype(np.float32)

    def found(y: np.ndarray) -> np.ndarray:
        return random_model_losses(model, Scored(codes, y), REGRESSION, at_least=1)

    losses = found(targets)
    assert losses.shape == (24,) and np.abs(losses).max() > 1e-3
    np.testing.assert_allclose(found(-targets), losses, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(found(11 * targets + 70) / 121, losses, rtol=1e-2, atol=1e-5)
    for mean, sd in ((3.0, -7.0), (0.0, 1e-7)):
        model.set_readout_scale(torch.tensor([mean]), torch.tensor([sd]))
        np.testing.assert_allclose(found(targets), losses, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_random_models_know_no_order_of_the_classes(pooling: str, monkeypatch: pytest.MonkeyPatch):
    """Two classes that change names, and readouts on another scale, give the same losses, penalty or not."""
    few_copies(monkeypatch, 4)
    model, codes = model_of("bases, cls", pooling=pooling), random_codes(37, 19)
    targets = (np.random.default_rng(0).random((37, 1)) > 0.4).astype(np.float32)
    losses = random_model_losses(model, Scored(codes, targets), TaskConfig(), at_least=1)
    assert losses.shape == (24,) and np.abs(losses).max() > 1e-3
    other_names = random_model_losses(model, Scored(codes, 1 - targets), TaskConfig(), at_least=1)
    np.testing.assert_allclose(other_names, losses, rtol=1e-2, atol=2e-6)
    for mean, sd in ((3.0, -7.0), (0.0, 1e-5)):
        model.set_readout_scale(torch.tensor([mean]), torch.tensor([sd]))
        found = random_model_losses(model, Scored(codes, targets), TaskConfig(), at_least=1)
        np.testing.assert_allclose(found, losses, rtol=1e-2, atol=2e-6)


#: The source standardises by the spread of all readouts, their distance from each other included.


def test_distance_between_readouts_takes_no_part(monkeypatch: pytest.MonkeyPatch):
    """What a constant adds to one of several readouts is fitted anyway: the null is the same without it."""
    few_copies(monkeypatch, 3)
    task = TASKS["multiclass"]
    model, codes = model_of("bases, cls", n_readouts=3), random_codes(37, 19)
    targets = np.random.default_rng(0).integers(0, 3, (37, 1)).astype(np.float32)
    losses = []
    for constants in ([0.0, 0.0, 0.0], [0.0, 5.0, -3.0]):
        model.set_readout_scale(torch.tensor(constants), torch.ones(3))
        losses.append(random_model_losses(model, Scored(codes, targets), task, at_least=1))
    assert np.abs(losses[0]).max() > 1e-3
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-2, atol=2e-5)


def best_by_hand(kind: str, readouts: np.ndarray, targets: np.ndarray) -> tuple[float, np.ndarray]:
    """Factor that all readouts share, and constants, of the best fit.

    By least squares, scikit-learn's logistic regression (C = 1) of the standardised readout,
    or a simplex search with the same penalty.
    """
    if kind == "regression":
        centred = readouts - readouts.mean(0)
        factor = (centred * (targets - targets.mean(0))).sum() / (centred**2).sum()
        return factor, targets.mean(0) - factor * readouts.mean(0)

    sd = (readouts - readouts.mean(0)).std(ddof=1)
    if kind == "binary":
        fit = LogisticRegression(C=1.0, tol=1e-8).fit((readouts - readouts.mean(0)) / sd, targets[:, 0])
        factor = fit.coef_[0, 0] / sd
        return factor, fit.intercept_ - factor * readouts.mean(0)

    def loss(at: np.ndarray) -> float:
        z = at[0] * (readouts - readouts.mean(0)) / sd + at[1:]
        penalty = 0.5 / len(z) * at[0] ** 2
        if kind == "count":
            return (np.exp(z) - targets * z).mean() + penalty
        p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
        return -np.log(p[np.arange(len(z)), targets[:, 0].astype(int)]).mean() + penalty

    start = np.zeros(1 + readouts.shape[1])
    options = {"xatol": 1e-7, "fatol": 1e-12, "maxfev": 5000}
    at = optimize.minimize(loss, start, method="Nelder-Mead", options=options).x
    factor = at[0] / sd
    return factor, at[1:] - factor * readouts.mean(0)


TASKS = {
    "binary": TaskConfig(),
    "multiclass": TaskConfig(kind="multiclass", classes=["a", "b", "c"], readout=2),
    "regression": TaskConfig(kind="regression", targets=["a", "b"], readout=1),
    "count": TaskConfig(kind="count", targets=["y"]),
}


@pytest.mark.parametrize("kind", list(TASKS))
def test_random_losses_are_those_of_ablation(kind: str, monkeypatch: pytest.MonkeyPatch):
    """A copy's losses are what `ablate_heads` says of it, once its readouts are fitted to the targets by hand."""
    few_copies(monkeypatch, 2)
    task = TASKS[kind]
    model, codes = model_of("3-mers", n_readouts=task.n_readouts), random_codes(41, 23)
    if kind == "regression":
        model.set_readout_scale(torch.tensor([1.0, 9.0]), torch.tensor([2.0, 5.0]))
    draw = np.random.default_rng(1)
    targets = {
        "binary": draw.random((41, 1)) > 0.4,
        "multiclass": draw.integers(0, 3, (41, 1)),
        "regression": draw.normal([0, 9], [2, 5], size=(41, 2)),
        "count": draw.poisson(3, (41, 1)),
    }[kind].astype(np.float32)
    losses = random_model_losses(model, Scored(codes, targets), task, at_least=1, seed=7)
    expected = []
    for number in range(2):
        other = reinitialised(model, seed=rng.stream_seed(7, "heads", "random", number))
        factor, constants = best_by_hand(kind, predict(other, codes).astype(np.float64), targets.astype(np.float64))
        other.set_readout_scale(
            factor * other.readout_mean + torch.tensor(constants, dtype=torch.float32), factor * other.readout_sd
        )
        table = ablate_heads(other, codes, targets, task, readout=task.readout, kinds=["mean"], draws=0)
        expected += table["loss"].tolist()
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(losses, expected, rtol=1e-2, atol=2e-5)


def labels_that_fit(kind: str, readouts: np.ndarray) -> np.ndarray:
    """Targets that these readouts tell apart without a mistake."""
    centred = readouts - readouts.mean(0)
    return (centred.argmax(1)[:, None] if kind == "multiclass" else centred > 0).astype(np.float32)


@pytest.mark.parametrize(("kind", "n_classes", "n"), [("binary", 2, 11), ("multilabel", 2, 31), ("multiclass", 3, 43)])
def test_the_factor_is_bounded_where_a_readout_separates_classes(kind: str, n_classes: int, n: int):
    """A fit is not worse than factor 0 with even odds, of loss log K; so factor^2 / 2NT is log K at most."""
    n_readouts = {"binary": 1, "multilabel": 2, "multiclass": 3}[kind]
    readouts = torch.from_numpy(np.random.default_rng(0).normal(0, 1e-3, (n, n_readouts)))
    targets = torch.from_numpy(labels_that_fit(kind, readouts.numpy()))
    factor, constant = module._fitted(readouts, targets, kind)
    fitted = factor * readouts.float() + constant
    size = float(factor * (readouts - readouts.mean(0)).std())
    assert 1 < size < np.sqrt(2 * targets.numel() * np.log(n_classes))
    # A constant has no penalty, so fitted rates of each class are those that are seen.
    rates = fitted.softmax(1) if kind == "multiclass" else fitted.sigmoid()
    seen = torch.nn.functional.one_hot(targets[:, 0].long(), 3).float() if kind == "multiclass" else targets
    np.testing.assert_allclose(rates.mean(0), seen.mean(0), atol=1e-3)


def test_the_null_is_bounded_where_a_random_readout_separates_classes(monkeypatch: pytest.MonkeyPatch):
    """A copy that happens to tell all classes apart has the losses of its penalised fit, and no factor beyond bounds.

    The loss of a logit changes by no more than the logit, which is the factor times the raw change.
    """
    few_copies(monkeypatch, 2)
    model, codes = model_of("bases, cls"), random_codes(23, 19)
    copies = [reinitialised(model, seed=rng.stream_seed(0, "heads", "random", number)) for number in range(2)]
    readouts = [predict(copy, codes).astype(np.float64) for copy in copies]
    targets = labels_that_fit("binary", readouts[0])
    losses = random_model_losses(model, Scored(codes, targets), TaskConfig(), at_least=1).reshape(2, 6)
    for found, other, x in zip(losses, copies, readouts, strict=True):
        raw = ablate_heads(other, codes, targets, TaskConfig(), kinds=["mean"], draws=0)["effect"].to_numpy()
        assert (np.abs(found) <= np.sqrt(2 * 23 * np.log(2)) / x.std() * raw).all()
        factor, constant = best_by_hand("binary", x, targets)
        other.set_readout_scale(torch.tensor(constant, dtype=torch.float32), torch.tensor([factor]).float())
        expected = ablate_heads(other, codes, targets, TaskConfig(), kinds=["mean"], draws=0)["loss"]
        np.testing.assert_allclose(found, expected, rtol=1e-2, atol=2e-5)
    fitted = predict(copies[0], codes)
    assert fitted[targets == 1].min() > fitted[targets == 0].max() and np.abs(losses[0]).max() > 1e-2


def test_a_readout_of_one_token_does_not_inflate_the_null():
    """With a readout that hangs on the token before the sequence random heads cost about what they do with a mean.

    A quarter of the labels of either class is turned around, so that no readout is sure of
    them: what a model knows is worth less than log 2, and a head costs more by a shift of all logits alone.
    """
    motif, n = toy_heads.USF1, 64
    codes = np.concatenate([toy_heads.with_sites(motif, n // 2, 40, 0), toy_heads.random_codes(n // 2, 40, 7)])
    targets = np.repeat([1, 0], n // 2).astype(np.float32)[:, None]
    targets[::4] = 1 - targets[::4]
    assert targets.mean() == 0.5
    upper = {}
    for pooling in ("cls", "mean"):
        model = toy_heads.reading_model(motif, pooling=pooling)
        losses = random_model_losses(model, Scored(codes, targets), TaskConfig())
        assert len(losses) == 20 * 6
        upper[pooling] = np.quantile(losses, 0.95)
    assert 0.01 < upper["mean"] < np.log(2) and 0.01 < upper["cls"] < np.log(2)
    assert upper["cls"] < 5 * upper["mean"]


def test_missing_targets_take_no_part(monkeypatch: pytest.MonkeyPatch):
    """Sequences without a target are left out of fit and loss, and so is a readout that has none."""
    few_copies(monkeypatch, 3)
    codes = random_codes(31, 19)
    targets = np.random.default_rng(2).normal(3, 2, size=(31, 2)).astype(np.float32)
    targets[4:9, 0] = targets[:, 1] = np.nan
    model, known = model_of("bases, cls", n_readouts=2), np.isfinite(targets[:, 0])
    task = TaskConfig(kind="regression", targets=["a", "b"])
    losses = random_model_losses(model, Scored(codes, targets), task, at_least=1)
    expected = []
    for number in range(3):
        other = reinitialised(model, seed=rng.stream_seed(0, "heads", "random", number))
        readouts = predict(other, codes)[known, :1].astype(np.float64)
        factor, constant = best_by_hand("regression", readouts, targets[known, :1])
        other.set_readout_scale(torch.full((2,), float(constant[0])), torch.full((2,), float(factor)))
        expected += ablate_heads(other, codes, targets[:, 0], task, kinds=["mean"], draws=0)["loss"].tolist()
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(losses, expected, rtol=1e-2, atol=2e-5)


def test_targets_that_say_nothing_leave_nothing_to_lose(monkeypatch: pytest.MonkeyPatch):
    """Where all targets are missing losses are NaN, and where they do not vary no head is worth anything."""
    few_copies(monkeypatch, 2)
    model, codes = model_of("bases, cls"), random_codes(17, 13)
    for task in (REGRESSION, TaskConfig()):
        missing = random_model_losses(model, Scored(codes, np.full((17, 1), np.nan, np.float32)), task, at_least=1)
        assert missing.shape == (12,) and np.isnan(missing).all()
    constant = random_model_losses(model, Scored(codes, np.full((17, 1), 2.5, np.float32)), REGRESSION, at_least=1)
    np.testing.assert_allclose(constant, 0, atol=1e-9)


# ------------------------------------------------------------- p against them


def test_p_random_counts_itself():
    """p is (1 + heads that cost as much) / (1 + heads): never zero, one at most, NaN where nothing is known."""
    null = np.array([0.1, 0.2, 0.2, np.nan, 0.4])
    assert p_random(0.2, null) == 4 / 5 and p_random(0.5, null) == 1 / 5 and p_random(0.0, null) == 1.0
    assert np.isnan(p_random(np.nan, null)) and np.isnan(p_random(0.2, np.array([np.nan])))


def test_one_random_model_in_twenty_passes_against_random_models():
    """By exchangeability a random copy beats 20 others in 1 of 21 cases, and its rank among them is uniform."""
    model = model_of("bases, cls", n_layers=1, n_heads=1, d_model=4, d_feedforward=3)
    codes, n_trials = random_codes(30, 11), 20
    targets = np.random.default_rng(3).normal(size=(30, 1)).astype(np.float32)
    losses = random_model_losses(model, Scored(codes, targets), REGRESSION, at_least=420, seed=2)
    p = np.array([p_random(trial[0], trial[1:]) for trial in losses.reshape(n_trials, 21)])
    # 99.9 % of binomial counts lie in these bounds; one in 21 is what 1 / (1 + 20) <= 0.05 allows.
    low, high = stats.binom.ppf([0.0005, 0.9995], n_trials, 1 / 21)
    assert low <= (p <= 0.05).sum() <= high
    thirds = np.histogram(p, [0, 7.5 / 21, 14.5 / 21, 1.01])[0]
    assert stats.chisquare(thirds).pvalue > 0.001
