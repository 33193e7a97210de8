"""What a model loses without a head: loss, score and readout on held-out sequences, against the other heads."""

from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bioattn import rng
from bioattn.config import TaskConfig
from bioattn.data.weighted import interval, weighted_auroc, weighted_pearson
from bioattn.errors import DataError
from bioattn.explain.path_patching import Head, Pass, output_tap, record_pass, require_heads, rerun, rows_at_once
from bioattn.explain.predict import batches
from bioattn.models import SequenceModel
from bioattn.nn import taps
from bioattn.nn.losses import losses

Array = NDArray[np.float64]
Kind = Literal["zero", "mean", "resample"]
KINDS: tuple[Kind, ...] = get_args(Kind)
#: A set of heads that are ablated together, and how.
Job = tuple[tuple[Head, ...], Kind]
#: Draws of the bootstrap over sequences; no more of them at once than fit so many numbers.
_BOOTSTRAP = 500
_MOST_NUMBERS = 2**22
#: Other sequences whose head outputs are taken, one after the other, for "resample".
_RESAMPLES = 3
#: Readouts that spread by less than this share of what they did are one value and float noise.
_NOISE = 1e-5


class Scored(NamedTuple):
    """Held-out sequences with what was measured of them.

    Attributes
    ----------
    codes : ndarray, uint8, shape (N, L)
    targets : ndarray, float32, shape (N, T), or (N, 1) for multiclass
        NaN is missing.
    """

    codes: NDArray[np.uint8]
    targets: NDArray[np.float32]


def heads_of(model: SequenceModel) -> list[Head]:
    """All heads as (layer, head), in the order of C = layer * n_heads + head."""
    return [(layer, head) for layer in range(model.n_layers) for head in range(model.n_heads)]


def metric_of(task: TaskConfig) -> str:
    """Name of the score that heads are judged by."""
    return "pearson" if task.kind in ("regression", "count") else "auroc"


def ablate_heads(
    model: SequenceModel,
    codes: NDArray[np.uint8],
    targets: NDArray[np.float32] | None,
    task: TaskConfig,
    *,
    readout: int = 0,
    sets: Sequence[Sequence[Head]] | None = None,
    kinds: Sequence[Kind] = KINDS,
    reference: NDArray[np.uint8] | None = None,
    draws: int = _BOOTSTRAP,
    seed: int = 0,
) -> pd.DataFrame:
    """What is lost without each head, or each set of heads, on held-out sequences.

    The head's output becomes zero ("zero"), its mean over all real tokens of the
    reference ("mean"), or that of the same token of another sequence of the reference
    ("resample": the mean of a few such draws' losses and scores; a token that the other sequence
    does not have gets the mean). A token before the sequence, on which the readout may
    hang, has a mean of its own. Where the model averages strands, the head is ablated on both.

    Parameters
    ----------
    codes : ndarray, uint8, shape (N, L)
    targets : ndarray, float32, shape (N,), (N, T) or None
        Of the readout, or of all readouts, whose losses are then added; a class index for
        multiclass. NaN is missing. None: loss and drop are NaN.
    sets : sequence of sequence of (layer, head), optional
        By default each head alone.
    kinds : sequence of {"zero", "mean", "resample"}
    reference : ndarray, uint8, shape (M, L), optional
        By default the given sequences.
    draws : int
        Of the bootstrap; without any, intervals are NaN.

    Returns
    -------
    DataFrame
        One row per set and kind. heads ("L0H1+L0H3"), layer and head (-1 in a set of several), kind.
        loss: increase of the mean loss (cross-entropy over the readout or the classes;
        squared error in the target's units; Poisson loss of the log rate). metric ("auroc" of
        the readout, of a class against all others; or "pearson", of counts as log(1 + y)) and
        drop: its decrease. A readout that no longer varies scores 0.5 and 0. effect: root mean
        square change of the readout. excess: drop minus the mean drop of the other sets of the
        same kind; rank 1 has the largest drop of its kind. loss, drop, effect and excess have
        95 % percentile intervals (_ci_low, _ci_high) of a bootstrap over sequences, with
        the same draws for all rows. note says why something is NaN.

    Raises
    ------
    DataError
        If the model has no such heads, a kind is unknown, or targets do not fit the sequences or the task.
    """
    require_heads(model, [])
    jobs = jobs_of([[head] for head in heads_of(model)] if sets is None else sets, kinds)
    judge = Judge(targets, len(codes), task, readout, n_draws=draws, seed=seed)
    costs = _costs(model, codes, jobs, judge, reference, seed)
    rows = []
    for (group, kind), cost in costs.items():
        alone = len(group) == 1
        row: dict[str, Any] = {"heads": "+".join(map(head_name, group)), "layer": group[0][0] if alone else -1}
        row |= {"head": group[0][1] if alone else -1, "kind": kind}
        row |= _columns("loss", cost.loss) | {"metric": metric_of(task)}
        rows.append(row | _columns("drop", cost.drop) | _columns("effect", cost.effect))
    table = pd.DataFrame(rows)
    table["rank"] = table.groupby("kind")["drop"].rank(ascending=False, method="min").astype("Int64")
    excess = [_columns("excess", _excess(costs, job)) for job in costs]
    return table.join(pd.DataFrame(excess)).assign(note=judge.note)


class _Cost(NamedTuple):
    """A number and its bootstrap draws."""

    value: float
    draws: Array


class _Costs(NamedTuple):
    loss: _Cost
    drop: _Cost
    effect: _Cost


def _columns(name: str, cost: _Cost) -> dict[str, float]:
    low, high = interval(cost.draws)
    return {name: cost.value, f"{name}_ci_low": low, f"{name}_ci_high": high}


def _excess(costs: dict[Job, _Costs], job: Job) -> _Cost:
    """Drop of one set beyond the mean drop of the others of its kind, draw by draw; NaN if there is no other."""
    own = costs[job].drop
    others = [cost.drop for other, cost in costs.items() if other != job and other[1] == job[1]]
    if not others:
        return _Cost(float("nan"), np.full_like(own.draws, np.nan))
    mean = np.mean([cost.draws for cost in others], axis=0)
    return _Cost(own.value - float(np.mean([cost.value for cost in others])), own.draws - mean)


def head_name(head: Head) -> str:
    """Name of a head in tables, which no reader takes for a number."""
    return f"L{head[0]}H{head[1]}"


def jobs_of(sets: Sequence[Sequence[Head]], kinds: Sequence[Kind]) -> list[Job]:
    """Every set in every kind of ablation, each once."""
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise DataError(f"'{unknown[0]}' is not a kind of ablation; allowed: {', '.join(KINDS)}")
    if not sets or not all(map(len, sets)):
        raise DataError("there is no head to ablate: every set must hold at least one, and there must be a set")
    if not kinds:
        raise DataError(f"there is no kind of ablation; allowed: {', '.join(KINDS)}")
    groups = [tuple((int(layer), int(head)) for layer, head in group) for group in sets]
    return list(dict.fromkeys((group, kind) for kind in kinds for group in groups))


def _costs(
    model: SequenceModel,
    codes: NDArray[np.uint8],
    jobs: Sequence[Job],
    judge: "Judge",
    reference: NDArray[np.uint8] | None,
    seed: int,
) -> dict[Job, _Costs]:
    """Cost of every job, each once."""
    ablation = Ablation(model, codes if reference is None else reference, own=reference is None, seed=seed)
    before, after = ablation.looks(codes, jobs, judge)
    return {job: judge.costs(before, after[job]) for job in jobs}


class Ablation:
    """Runs a model with ablated heads; means and other sequences' outputs are those of the reference.

    Attributes
    ----------
    means : list of Tensor, shape (H, n_prefix + 1, C)
        Mean output of the heads of each layer: at each token that stands before the
        sequence, and over all real tokens of the sequences.
    intact : Tensor, shape (M, T)
        Readouts of the reference with all heads.

    Parameters
    ----------
    own : bool
        Whether the sequences that are run are the reference: no sequence then gets its own output.
    """

    def __init__(self, model: SequenceModel, reference: NDArray[np.uint8], *, own: bool = True, seed: int = 0) -> None:
        if not len(reference):
            raise DataError("there is no reference sequence to take outputs of heads from")
        require_heads(model, heads_of(model))
        self.model, self.reference, self.own, self.seed = model, reference, own, seed
        self.device = next(model.parameters()).device
        self.means, self.intact = self._means()

    @torch.inference_mode()
    def _means(self) -> tuple[list[Tensor], Tensor]:
        """Mean outputs (H, n_prefix + 1, C) of the heads of each layer over all strands read, and readouts (N, T)."""
        names = [output_tap(layer) for layer in range(self.model.n_layers)]
        n_prefix = self.model.n_prefix
        before: list[Tensor | float] = [0.0] * len(names)
        inside: list[Tensor | float] = [0.0] * len(names)
        n_strands = n_tokens = 0
        readouts = []
        with taps.record(self.model, names) as store:
            for batch in self._batches(self.reference):
                strands = self.model.strands(batch)
                read = []
                for strand in strands:
                    read.append(self.model.one_strand(strand))
                    real = self.model.real_tokens(strand)
                    for i, name in enumerate(names):
                        output_BHQC = store[name].double()
                        before[i] = before[i] + output_BHQC[:, :, :n_prefix].sum(0).cpu()
                        in_sequence = output_BHQC[:, :, n_prefix:]
                        inside[i] = inside[i] + torch.einsum("bhqc,bq->hc", in_sequence, real.double()).cpu()
                    n_strands += len(strand)
                    n_tokens += int(real.sum())
                readouts.append(torch.stack(read).mean(0).cpu())
        dtype = self.model.readout.weight.dtype
        means = [
            torch.cat([torch.as_tensor(b) / n_strands, torch.as_tensor(i)[:, None] / max(n_tokens, 1)], dim=1)
            for b, i in zip(before, inside, strict=True)
        ]
        return [each.to(self.device, dtype) for each in means], torch.cat(readouts)

    def _mean(self, layer: int, length: int) -> Tensor:
        """Mean output (H, Q, C) of the heads of a layer for so many tokens."""
        return self.means[layer][:, torch.arange(length, device=self.device).clamp(max=self.model.n_prefix)]

    def _batches(self, codes: NDArray[np.uint8]) -> Iterator[Tensor]:
        for batch in batches(codes, rows_at_once(codes.shape[1])):
            yield batch.to(self.device)

    @torch.inference_mode()
    def readouts(self, codes: NDArray[np.uint8], group: Sequence[Head]) -> Tensor:
        """Readouts (N, T) on the CPU with some heads replaced by their means."""
        found = []
        for batch in self._batches(codes):
            strands = [record_pass(self.model, strand) for strand in self.model.strands(batch)]
            found.append(self._rerun(strands, (tuple(group), "mean"), None).cpu())
        return torch.cat(found)

    @torch.inference_mode()
    def looks(
        self, codes: NDArray[np.uint8], jobs: Sequence[Job], judge: "Judge"
    ) -> tuple[Array, dict[Job, list[Array]]]:
        """What the judge sees of the intact model (3, N), and for each job of every draw."""
        require_heads(self.model, [head for group, _ in jobs for head in group])
        others = self._others(len(codes))
        before: list[Array] = []
        parts: dict[tuple[Job, int], list[Array]] = {}
        first = 0
        for batch in self._batches(codes):
            rows = slice(first, first + len(batch))
            first += len(batch)
            strands = [record_pass(self.model, strand) for strand in self.model.strands(batch)]
            before.append(judge.look(torch.stack([seen.readouts for seen in strands]).mean(0), rows))
            for draw in range(_RESAMPLES):
                wanted = [job for job in jobs if job[1] == "resample" or draw == 0]
                resampled = any(kind == "resample" for _, kind in jobs)
                given = self._outputs(others[draw, rows], strands) if resampled else None
                for job in wanted:
                    parts.setdefault((job, draw), []).append(judge.look(self._rerun(strands, job, given), rows))
        after: dict[Job, list[Array]] = {}
        for (job, _), pieces in parts.items():
            after.setdefault(job, []).append(np.concatenate(pieces, axis=1))
        return np.concatenate(before, axis=1), after

    def _others(self, n: int) -> NDArray[np.int64]:
        """Reference sequence (draws, N) that each sequence gets outputs from; -1 where there is none but itself."""
        draw, m = rng.stream(self.seed, "heads", "ablation", "resample"), len(self.reference)
        if not self.own:
            return draw.integers(0, m, (_RESAMPLES, n))
        if m == 1:
            return np.full((_RESAMPLES, n), -1)
        return (np.arange(n) + draw.integers(1, m, (_RESAMPLES, n))) % m

    def _outputs(self, others: NDArray[np.int64], strands: Sequence[Pass]) -> list[list[Tensor]]:
        """Outputs of other sequences for each strand and layer; the mean where they have no such token."""
        tokens = torch.from_numpy(self.reference[others.clip(min=0)].astype(np.int64)).to(self.device)
        there = torch.from_numpy(others >= 0).to(self.device)
        names = [output_tap(layer) for layer in range(self.model.n_layers)]
        given = []
        for strand, seen in zip(self.model.strands(tokens), strands, strict=True):
            with taps.record(self.model, names) as store:
                self.model.one_strand(strand)
            has_BQ = nn.functional.pad(self.model.real_tokens(strand), (self.model.n_prefix, 0), value=True)
            has_BQ = has_BQ & there[:, None]
            length = seen.streams[0].shape[1]
            has_BQ = _to_length(has_BQ, length, 1)[:, None, :, None]
            outputs = enumerate(_to_length(store[name], length, 2) for name in names)
            given.append([torch.where(has_BQ, output, self._mean(layer, length)) for layer, output in outputs])
        return given

    def _rerun(self, strands: Sequence[Pass], job: Job, given: list[list[Tensor]] | None) -> Tensor:
        """Readouts (B, T) with a job's heads replaced, on every strand."""
        found = []
        for number, seen in enumerate(strands):
            changes = {}
            for layer in {layer for layer, _ in job[0]}:
                length = seen.outputs[layer].shape[2]
                value = self._value(layer, length, job[1], None if given is None else given[number])
                heads = [head for at, head in job[0] if at == layer]
                changes[layer] = taps.patch(value.expand_as(seen.outputs[layer]), np.s_[:, heads])
            found.append(rerun(self.model, seen, changes))
        return torch.stack(found).mean(0)

    def _value(self, layer: int, length: int, kind: Kind, given: list[Tensor] | None) -> Tensor:
        if kind == "resample":
            assert given is not None
            return given[layer]
        mean = self._mean(layer, length)
        return torch.zeros_like(mean) if kind == "zero" else mean


def _to_length(x: Tensor, length: int, axis: int) -> Tensor:
    """Cut, or filled up with zeros, along an axis."""
    x = x.narrow(axis, 0, min(length, x.shape[axis]))
    shape = list(x.shape)
    shape[axis] = length - shape[axis]
    return torch.cat([x, x.new_zeros(shape)], dim=axis)


class Judge:
    """Loss and score of changed readouts beside those of the unchanged ones.

    What it looks at is, for each sequence, the loss, the value that is scored, and the readout.
    """

    def __init__(
        self,
        targets: NDArray[np.float32] | None,
        n: int,
        task: TaskConfig,
        readout: int,
        *,
        n_draws: int,
        seed: int,
    ) -> None:
        if n == 0:
            raise DataError("there is no sequence on which heads could be ablated")
        self.task, self.readout = task, readout
        self.targets = None if targets is None else _as_table(targets, n, task)
        self.target = self._target(n)
        self.known = np.isfinite(self.target)
        self.note = self._note()
        draw = rng.stream(seed, "heads", "ablation")
        self.weights = draw.multinomial(n, np.full(n, 1 / n), n_draws).astype(np.float64)

    @property
    def scoring(self) -> str:
        """Name of the score."""
        return metric_of(self.task)

    @property
    def chance(self) -> float:
        """Score of a readout that says nothing."""
        return 0.5 if self.scoring == "auroc" else 0.0

    def _target(self, n: int) -> Array:
        """What the score compares readouts with (N,): one class against the others, counts as logarithms."""
        if self.targets is None:
            return np.full(n, np.nan)
        targets = self.targets.double().numpy()
        if self.task.kind == "multiclass":
            return np.where(np.isfinite(targets[:, 0]), (targets[:, 0] == self.readout) * 1.0, np.nan)
        target = targets[:, self.readout] if targets.shape[1] > 1 else targets[:, 0]
        return np.log1p(np.maximum(target, 0)) if self.task.kind == "count" else target

    def _note(self) -> str:
        if self.targets is None:
            return "no targets: loss and drop are unknown"
        values = np.unique(self.target[self.known])
        if len(values) == 0:
            return "all targets are missing: loss and drop are unknown"
        if len(values) == 1:
            what = "all targets are of one class" if self.scoring == "auroc" else "targets do not vary"
            return f"{what}: drop is undefined"
        return ""

    def look(self, readouts: Tensor, rows: slice) -> Array:
        """Loss, scored value and readout (3, B) of readouts (B, T) of some of the sequences."""
        readouts = readouts.double().cpu()
        value = own = readouts[:, self.readout]
        if self.task.kind == "multiclass":
            # A logit alone says nothing: classes compete.
            value = torch.log_softmax(readouts, 1)[:, self.readout]
        loss = torch.full_like(own, torch.nan)
        if self.targets is not None:
            targets = self.targets[rows]
            one = self.task.kind != "multiclass" and targets.shape[1] == 1
            each = losses(self.task.kind, readouts[:, [self.readout]] if one else readouts, targets)
            loss = each.sum(1).where(~targets.isnan().all(1), loss)
        return torch.stack([loss, value, own]).numpy()

    def costs(self, before: Array, after: Sequence[Array]) -> _Costs:
        """Increase of the loss, decrease of the score, change of the readout; means over several draws of `after`."""
        added = np.mean([each[0] for each in after], axis=0) - before[0]
        old, new = self.score(before[1]), [self.score(each[1], before[1]) for each in after]
        drop = _Cost(
            old.value - float(np.mean([each.value for each in new])),
            old.draws - np.mean([each.draws for each in new], axis=0),
        )
        squared = self._mean(np.mean([(each[2] - before[2]) ** 2 for each in after], axis=0))
        return _Costs(self._mean(added), drop, _Cost(float(np.sqrt(squared.value)), np.sqrt(squared.draws)))

    def _mean(self, values: Array) -> _Cost:
        """Mean over the sequences whose value is known."""
        known = np.isfinite(values)
        if not known.any():
            return _Cost(float("nan"), np.full(len(self.weights), np.nan))
        w = self.weights[:, known]
        with np.errstate(invalid="ignore", divide="ignore"):
            return _Cost(float(values[known].mean()), w @ values[known] / w.sum(1))

    def score(self, values: Array, before: Array | None = None) -> _Cost:
        """Score of values (N,); chance if they do not vary, next to what they did before."""
        target, values, w = self.target[self.known], values[self.known], self.weights[:, self.known]
        if self.note:
            return _Cost(float("nan"), np.full(len(w), np.nan))
        spread = np.ptp(values if before is None else before[self.known])
        flat = np.ptp(values) <= _NOISE * spread
        values = np.zeros_like(values) if flat else values
        size = max(1, _MOST_NUMBERS // max(len(target), 1))
        draws = [self._scores(target, values, w[i : i + size]) for i in range(0, len(w), size)]
        value = self._scores(target, values, np.ones((1, len(target))))[0]
        return _Cost(float(value), np.concatenate([np.zeros(0), *draws]))

    def _scores(self, target: Array, values: Array, w: Array) -> Array:
        if self.scoring == "auroc":
            return weighted_auroc(target, values, w)
        if np.ptp(values) > 0:
            return weighted_pearson(target, values, w)
        return np.where(np.isfinite(weighted_pearson(target, target, w)), 0.0, np.nan)


def _as_table(targets: NDArray[np.float32], n: int, task: TaskConfig) -> Tensor:
    """Targets (N, T) or (N, 1)."""
    table = torch.tensor(np.asarray(targets, dtype=np.float32))
    table = table[:, None] if table.ndim == 1 else table
    # A class index says all of a multiclass task; one column for each class would be read as something else.
    n_columns = 1 if task.kind == "multiclass" else task.n_readouts
    if table.ndim != 2 or len(table) != n or table.shape[1] not in (1, n_columns):
        raise DataError(f"targets must have shape ({n},) or ({n}, {n_columns}), got {np.shape(targets)}")
    known = table[~table.isnan()]
    allowed = {"binary": 2, "multilabel": 2, "multiclass": task.n_readouts}.get(task.kind)
    if allowed is not None and len(known) and not bool(((known >= 0) & (known < allowed) & (known % 1 == 0)).all()):
        raise DataError(
            f"targets of a {task.kind} task must be whole numbers from 0 to {allowed - 1}, or NaN where missing, "
            f"got {float(known.min())} to {float(known.max())}"
        )
    return table
