"""Baselines on the same split: what composition, positions, k-mers, convolutions or recurrence can predict."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, PoissonRegressor, Ridge
from torch import nn

from bioattn.config import MaskConfig, ModelConfig, RunConfig
from bioattn.data import alphabet
from bioattn.data.motif import Motif
from bioattn.errors import BioattnWarning
from bioattn.models import SequenceModel, build_model
from bioattn.nn.backends import Uniform
from bioattn.nn.convnet import ConvNet, channels_for
from bioattn.nn.observe import attention_layers
from bioattn.nn.recurrent import RecurrentEncoder, hidden_for
from bioattn.rng import stream_seed
from bioattn.tokens import BpeTokenizer
from bioattn.train.data import Examples, predict, training_parts
from bioattn.train.fit import fit_network

Array = NDArray[np.float64]

#: Strengths of the L2 penalty from strong to weak, chosen on validation examples. Features have unit variance.
LOGISTIC_C = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
RIDGE_ALPHA = (1e5, 1e4, 1e3, 1e2, 1e1, 1.0)
POISSON_ALPHA = (1.0, 1e-1, 1e-2, 1e-3, 1e-4)
#: Stop weakening the penalty after this many steps without a better validation loss.
_PATIENCE = 1


class BaselineFit(NamedTuple):
    """Pre-link scores (N, T) of a baseline for each subset, and what it consists of."""

    scores: dict[str, Array]
    record: dict[str, Any]


def fit_baseline(
    name: str,
    run: RunConfig,
    parts: dict[str, Examples],
    *,
    fold: int,
    n_parameters: int,
    work_dir: Path,
    motifs: Sequence[Motif] = (),
    tokenizer: BpeTokenizer | None = None,
    progress: bool = True,
) -> BaselineFit | None:
    """Train one baseline on the training part and score every part.

    Parameters
    ----------
    name : {"composition", "onehot", "kmer", "cnn", "rnn", "uniform"}
    n_parameters : int
        Size of the model that the networks "cnn" and "rnn" are compared with.
    work_dir : path
        Checkpoints of the networks, which resume like any training.
    motifs : sequence of Motif
        For "rnn" and "uniform", whose stem is that of the model: what a stem of kind "pwm" starts with.
    tokenizer : BpeTokenizer, optional
        For these as well: the words that the model learned.

    Returns
    -------
    BaselineFit or None
        None if the baseline does not exist: "onehot", with a warning, for sequences of different
        lengths, "uniform" for a model without attention.
    """
    # One baseline per fold, so it gets all training examples, also where replicates are bootstrapped.
    whole = run.model_copy(update={"train": run.train.model_copy(update={"resample": "none"})})
    if name == "uniform" and not run.model.has_attention:
        return None
    if name in ("cnn", "rnn", "uniform"):
        n_readouts, seed = run.task.n_readouts, stream_seed(run.seed, "baseline", name, fold)
        network: nn.Module
        if name == "cnn":
            network = build_convnet(n_parameters, n_readouts=n_readouts, seed=seed)
        elif name == "uniform":
            network = build_uniform(run.model, n_readouts=n_readouts, seed=seed, motifs=motifs, tokenizer=tokenizer)
        else:
            network = build_recurrent(
                run.model, n_parameters, n_readouts=n_readouts, seed=seed, motifs=motifs, tokenizer=tokenizer
            )
        return _fit_network(name, network, whole, parts, fold=fold, work_dir=work_dir, progress=progress)
    lengths = torch.cat([part.lengths for part in parts.values()])
    if name == "onehot" and lengths.min() != lengths.max():
        warnings.warn(
            f"baseline 'onehot' needs sequences of one length, found {lengths.min()} to {lengths.max()} bp: "
            "it is left out",
            BioattnWarning,
            stacklevel=2,
        )
        return None
    features = {
        "composition": composition_features,
        "onehot": onehot_features,
        "kmer": lambda part: kmer_features(part, run.evaluate.kmer_max),
    }[name]
    stream = stream_seed(run.seed, "baseline", name, fold)
    train, validation = training_parts(parts, whole.train, seed=stream, batch_size=1)
    return _fit_linear(run, {subset: features(part) for subset, part in parts.items()}, train, validation)


# -------------------------------------------------------------------- features


def composition_features(part: Examples) -> Array:
    """Order-free features (N, 8): length, fractions of A, C, G, T, G + C and CpG, CpG observed over expected."""
    codes = part.tokens.numpy()
    counts = np.stack([(codes == letter).sum(1) for letter in range(alphabet.N_LETTERS)], axis=1).astype(float)
    known = np.maximum(counts.sum(1), 1.0)
    cpg = ((codes[:, :-1] == 1) & (codes[:, 1:] == 2)).sum(1).astype(float)
    expected = np.maximum(counts[:, 1] * counts[:, 2] / known, 1e-9)
    ratio = np.where(counts[:, 1] * counts[:, 2] > 0, cpg / expected, 0.0)
    fractions = counts / known[:, None]
    gc = fractions[:, 1] + fractions[:, 2]
    return np.column_stack([part.lengths.numpy(), fractions, gc, cpg / known, ratio])


def onehot_features(part: Examples) -> sparse.csr_matrix:
    """Letter at each position, sparse (N, L * A); sequences of one length."""
    codes = part.tokens.numpy()
    row, column = np.nonzero(codes < alphabet.N_LETTERS)
    index = column * alphabet.N_LETTERS + codes[row, column]
    shape = (len(codes), codes.shape[1] * alphabet.N_LETTERS)
    return sparse.csr_matrix((np.ones(len(row), np.float32), (row, index)), shape=shape)


def kmer_features(part: Examples, kmer_max: int) -> sparse.csr_matrix:
    """Counts of all k-mers of the given strand, k = 1 .. kmer_max, sparse (N, 4 + 16 + ... + 4^kmer_max).

    A k-mer that holds an unknown base is not counted.
    """
    codes = part.tokens.numpy().astype(np.int64)
    blocks = []
    code, known = np.zeros_like(codes), np.ones_like(codes, dtype=bool)
    for k in range(1, min(kmer_max, codes.shape[1]) + 1):
        last = codes[:, k - 1 :]
        width = last.shape[1]
        code = code[:, :width] * alphabet.N_LETTERS + last
        known = known[:, :width] & (last < alphabet.N_LETTERS)
        row, column = np.nonzero(known)
        entries = (np.ones(len(row), np.float32), (row, code[row, column]))
        # csr from coordinates adds repeats up, which is the counting.
        blocks.append(sparse.csr_matrix(entries, shape=(len(codes), alphabet.N_LETTERS**k)))
    return sparse.hstack(blocks, format="csr")


# ------------------------------------------------------------------ linear models


def _fit_linear(run: RunConfig, features: dict[str, Any], train: Examples, validation: Examples) -> BaselineFit:
    features = _standardised(features)
    kind = run.task.kind
    targets, held_out = train.targets.numpy().astype(float), validation.targets.numpy().astype(float)
    columns: dict[str, list[Array]] = {subset: [] for subset in features}
    penalties = []
    for t in range(targets.shape[1]):
        rows, held_rows = (np.flatnonzero(~np.isnan(y[:, t])) for y in (targets, held_out))
        best = _best_penalty(
            kind,
            features["train"][rows],
            targets[rows, t],
            features["validation"][held_rows],
            held_out[held_rows, t],
        )
        penalties.append(best.penalty)
        for subset, x in features.items():
            columns[subset].append(_pre_link(kind, best.model, x, run.task.n_readouts))
    scores = {subset: np.concatenate(each, axis=1) for subset, each in columns.items()}
    n_features = features["train"].shape[1]
    record = {"n_features": n_features, "penalty": penalties, "n_parameters": (n_features + 1) * run.task.n_readouts}
    return BaselineFit(scores, record)


def _standardised(features: dict[str, Any]) -> dict[str, Any]:
    """Features divided by their training standard deviation (dense ones also centred); constant ones become zero."""
    x = features["train"]
    if not sparse.issparse(x):
        mean, sd = x.mean(0), x.std(0)
        factor = np.divide(1.0, sd, out=np.zeros_like(sd), where=sd > 1e-9)
        return {subset: (part - mean) * factor for subset, part in features.items()}
    mean = np.asarray(x.mean(0)).ravel().astype(np.float64)
    square = np.asarray(x.multiply(x).mean(0)).ravel().astype(np.float64)
    sd = np.sqrt(np.maximum(square - mean**2, 0))
    factor = np.divide(1.0, sd, out=np.zeros_like(sd), where=sd > 1e-6)
    # Not centred: that would fill the zeros. The intercept takes the mean.
    scale = sparse.diags(factor.astype(np.float32))
    return {subset: (part @ scale).tocsr() for subset, part in features.items()}


class _Chosen(NamedTuple):
    model: Any
    penalty: float


def _best_penalty(kind: str, x: Any, y: Array, x_held: Any, y_held: Array) -> _Chosen:
    if len(np.unique(y)) < 2:
        return _Chosen(_Constant(y[0] if len(y) else 0.0), float("nan"))
    best, best_loss, worse = None, np.inf, 0
    with warnings.catch_warnings():
        # A path that has not fully converged is still a baseline; its validation loss judges it.
        warnings.simplefilter("ignore", ConvergenceWarning)
        for penalty, model in _path(kind):
            model.fit(x, y)
            loss = _LOSSES[kind](model, x_held, y_held) if len(y_held) else 0.0
            if loss < best_loss:
                best, best_loss, worse = _Chosen(_frozen(model), penalty), loss, 0
            else:
                worse += 1
                if worse > _PATIENCE:
                    break
    assert best is not None
    return best


def _path(kind: str) -> Iterator[tuple[float, Any]]:
    if kind in ("binary", "multilabel", "multiclass"):
        model = LogisticRegression(solver="lbfgs", max_iter=300, tol=1e-4, warm_start=True)
        for c in LOGISTIC_C:
            yield c, model.set_params(C=c)
    elif kind == "count":
        model = PoissonRegressor(max_iter=100, warm_start=True)
        for alpha in POISSON_ALPHA:
            yield alpha, model.set_params(alpha=alpha)
    else:
        for alpha in RIDGE_ALPHA:
            yield alpha, Ridge(alpha=alpha, solver="auto", tol=1e-3)


def _frozen(model: Any) -> Any:
    """The model with its present coefficients: a warm-started path goes on changing the original."""
    copy = type(model)(**model.get_params())
    copy.__dict__.update({k: v.copy() if isinstance(v, np.ndarray) else v for k, v in model.__dict__.items()})
    return copy


class _Constant:
    """Predicts one value: the target takes no other."""

    def __init__(self, value: float) -> None:
        self.value = value

    def scores(self, kind: str, n: int) -> Array:
        if kind in ("binary", "multilabel"):
            return np.full(n, 10.0 if self.value > 0.5 else -10.0)
        return np.full(n, np.log(max(self.value, 1e-9)) if kind == "count" else self.value)


def _pre_link(kind: str, model: Any, x: Any, n_readouts: int) -> Array:
    if isinstance(model, _Constant):
        return model.scores(kind, x.shape[0])[:, None]
    if kind == "regression":
        return np.asarray(model.predict(x), float)[:, None]
    if kind == "count":
        return np.log(np.maximum(model.predict(x), 1e-9))[:, None]
    if kind != "multiclass":
        return np.asarray(model.decision_function(x), float)[:, None]
    # Classes that do not occur in training get a score far below the others.
    scores = np.full((x.shape[0], n_readouts), -30.0)
    with np.errstate(divide="ignore"):
        scores[:, model.classes_.astype(int)] = model.predict_log_proba(x).clip(min=-30)
    return scores


def _log_loss(model: Any, x: Any, y: Array) -> float:
    score = model.decision_function(x)
    return float(np.mean(np.logaddexp(0, score) - y * score))


def _class_loss(model: Any, x: Any, y: Array) -> float:
    scores = _pre_link("multiclass", model, x, int(max(model.classes_.max(), y.max())) + 1)
    return float(-scores[np.arange(len(y)), y.astype(int)].mean())


def _squared_loss(model: Any, x: Any, y: Array) -> float:
    return float(np.mean((model.predict(x) - y) ** 2))


def _poisson_loss(model: Any, x: Any, y: Array) -> float:
    rate = np.maximum(model.predict(x), 1e-9)
    return float(np.mean(rate - y * np.log(rate)))


_LOSSES: dict[str, Callable[[Any, Any, Array], float]] = {
    "binary": _log_loss,
    "multilabel": _log_loss,
    "multiclass": _class_loss,
    "regression": _squared_loss,
    "count": _poisson_loss,
}


# ---------------------------------------------------------------------- networks


def build_convnet(n_parameters: int, *, n_readouts: int, seed: int) -> ConvNet:
    """Convolutional network of about `n_parameters` parameters with weights drawn from `seed`."""
    n_channels = channels_for(n_parameters, n_letters=alphabet.N_LETTERS, n_readouts=n_readouts)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ConvNet(n_letters=alphabet.N_LETTERS, pad=alphabet.PAD, n_readouts=n_readouts, n_channels=n_channels)


def build_recurrent(
    config: ModelConfig,
    n_parameters: int,
    *,
    n_readouts: int,
    seed: int,
    motifs: Sequence[Motif] = (),
    tokenizer: BpeTokenizer | None = None,
) -> SequenceModel:
    """The model of a configuration with a GRU in the place of attention, of about `n_parameters` parameters in all.

    Stem, pooling, readouts, width and number of layers are those of the configuration;
    the hidden units make up for the difference in size.
    """
    recurrent = config.model_copy(
        update={"encoder": "gru", "mask": MaskConfig(), "checkpointing": False, "backend": "sdpa"}
    )
    network = build_model(recurrent, n_readouts=n_readouts, motifs=motifs, seed=seed, tokenizer=tokenizer)
    others = sum(p.numel() for name, p in network.named_parameters() if not name.startswith("encoder."))
    d_hidden = hidden_for(n_parameters - others, config.d_model, config.n_layers, kind="gru")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "encoder"))
        network.encoder = RecurrentEncoder(
            config.d_model, config.n_layers, kind="gru", d_hidden=d_hidden, dropout=config.dropout
        )
    return network


def build_uniform(
    config: ModelConfig,
    *,
    n_readouts: int,
    seed: int,
    motifs: Sequence[Motif] = (),
    tokenizer: BpeTokenizer | None = None,
) -> SequenceModel:
    """The model of a configuration with uniform attention: every token reads all that it may read alike.

    What such a model predicts as well, attention patterns are not needed for. Positions
    enter where they are added to tokens; those that act on scores have none to act on.

    Source: Wiegreffe & Pinter 2019, the uniform-weights baseline.
    """
    plain = config.model_copy(update={"backend": "sdpa"})
    network = build_model(plain, n_readouts=n_readouts, motifs=motifs, seed=seed, tokenizer=tokenizer)
    for layer in attention_layers(network):
        layer.backend = Uniform(layer.backend.mask)
        layer.rotary = layer.relative = None
    return network


def _fit_network(
    name: str,
    network: nn.Module,
    run: RunConfig,
    parts: dict[str, Examples],
    *,
    fold: int,
    work_dir: Path,
    progress: bool,
) -> BaselineFit:
    result = fit_network(
        network,
        run,
        parts,
        fold=fold,
        seed=0,
        work_dir=work_dir / f"{name}_fold{fold}",
        step="evaluate",
        name=name,
        progress=progress,
    )
    kept = ("n_parameters", "n_epochs", "best_epoch", "seconds", "device", "precision")
    record = {key: result.record[key] for key in kept}
    return BaselineFit({subset: predict(network, part) for subset, part in parts.items()}, record)
