"""Models with random weights: what their heads are worth is what chance gives a head."""

import copy
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bioattn import rng
from bioattn.config import TaskConfig
from bioattn.explain.head_ablation import Ablation, Judge, Scored, heads_of, jobs_of
from bioattn.models import SequenceModel
from bioattn.nn.embedding import TokenEmbedding
from bioattn.nn.losses import losses
from bioattn.nn.positions import LearnedPositions, RelativeBias

#: Copies of the model with random weights, however many heads each has: heads of one copy are
#: alike in what they cost, so ten copies of 8 heads let 6 % of random heads pass at 5 %, and twenty 5 %.
_FEWEST_COPIES = 20
#: Heads of one copy that are looked at: for the same reason more of them say little, and each is a run of the model.
_HEADS_OF_COPY = 8


def random_model_losses(
    model: SequenceModel, scored: Scored, task: TaskConfig, *, at_least: int = 40, seed: int = 0
) -> NDArray[np.float64]:
    """What heads of models with random weights are worth: `loss` of mean ablation, of at least so many heads.

    The copies have the same architecture, see `reinitialised`. A random readout has no
    sensible size or sign, so it is first fitted to the targets, by one factor and a
    constant: the best that such a model can do. Except for regression the factor has the
    penalty that is usual in logistic regression (C = 1), without which it grows without
    bound where a random readout happens to tell all classes apart. Of a copy with many heads some are drawn.

    Returns
    -------
    ndarray, float64, shape (copies * min(C, 8),)
        Heads of one copy stand together. NaN where the targets are all missing.
    """
    heads = heads_of(model)
    n_each = min(len(heads), _HEADS_OF_COPY)
    draw = rng.stream(seed, "heads", "random", "chosen")
    judge = Judge(scored.targets, len(scored.codes), task, task.readout, n_draws=0, seed=seed)
    found: list[float] = []
    for other in _random_copies(model, -(-at_least // max(n_each, 1)), seed):
        chosen = np.sort(draw.permutation(len(heads))[:n_each])
        jobs = jobs_of([[heads[c]] for c in chosen], ["mean"])
        ablation = Ablation(other, scored.codes, seed=seed)
        assert judge.targets is not None
        factor, constant = _fitted(ablation.intact, judge.targets, task.kind)
        other.set_readout_scale(other.readout_mean.cpu() * factor + constant, other.readout_sd.cpu() * factor)
        before, after = ablation.looks(scored.codes, jobs, judge)
        found += [judge.costs(before, after[job]).loss.value for job in jobs]
    return np.array(found)


def _random_copies(model: SequenceModel, at_least: int, seed: int) -> Iterator[SequenceModel]:
    """Copies of a model with new random weights, at least so many."""
    for number in range(max(_FEWEST_COPIES, at_least)):
        yield reinitialised(model, seed=rng.stream_seed(seed, "heads", "random", number))


def _fitted(readouts: Tensor, targets: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """Factor and constants (T,) with which readouts have the lowest loss, penalty of the factor included."""
    x = readouts.double()
    centre = x.mean(0)
    sd = (x - centre).std().clamp(min=1e-12)
    factor = torch.zeros((), dtype=torch.float64, requires_grad=True)
    constant = torch.zeros(x.shape[1], dtype=torch.float64, requires_grad=True)
    known = targets.double()
    # Zero where a target is missing throughout: a masked NaN would still make the gradient NaN.
    middle = known.nanmean(0).nan_to_num(0.0) if kind == "regression" else torch.zeros(x.shape[1], dtype=torch.float64)
    spread = (known - middle).square().nanmean().sqrt().clamp(min=1e-12) if kind == "regression" else torch.ones(())
    # Losses are means over examples, and over targets where there are several.
    penalty = 0.0 if kind == "regression" else 0.5 / known.numel()
    solver = torch.optim.LBFGS([factor, constant], max_iter=100, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        solver.zero_grad()
        fit = losses(kind, ((x - centre) / sd * factor + constant) * spread + middle, known).mean() / spread**2
        found = fit + penalty * factor**2
        found.backward()
        return found

    solver.step(loss)
    slope = (factor.detach() * spread / sd).float()
    return slope, ((constant.detach() * spread + middle) - slope * centre).float()


def reinitialised(model: SequenceModel, *, seed: int) -> SequenceModel:
    """A copy with weights as `build_model` draws them; motif filters of the stem and the scale of the readouts stay.

    The filters are what the user put in, not what the model learned; so are their gain and threshold.
    """
    device = next(model.parameters()).device
    # On the CPU, whose random state alone is kept and put back.
    other = copy.deepcopy(model).cpu()
    done = {id(p) for name, p in other.stem.named_parameters() if name.startswith("pwm_")}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        for module in other.modules():
            done |= {id(p) for p in _reset(module)}
    left = [name for name, p in other.named_parameters() if id(p) not in done]
    assert not left, f"nothing says how these weights are drawn: {', '.join(left)}"
    return other.to(device).eval()


def _reset(module: nn.Module) -> Iterable[Tensor]:
    """Draw a module's own weights anew, as its constructor does; those that were drawn."""
    reset = getattr(module, "reset_parameters", None)
    if isinstance(module, TokenEmbedding):
        # Its table is drawn here, and not as a bare table would be: the model's modules come before their parts.
        module.table.weight.normal_(std=module.table.embedding_dim**-0.5)
        return [module.table.weight]
    if isinstance(module, LearnedPositions):
        return [module.table.normal_(std=0.02)]
    if isinstance(module, RelativeBias):
        return [module.table.zero_()]
    if isinstance(module, SequenceModel):
        return [] if module.prefix is None else [module.prefix.normal_(std=0.02)]
    if callable(reset) and not isinstance(module, nn.Embedding):
        reset()
        return module.parameters(recurse=False)
    return []


def p_random(loss: float, null: NDArray[np.float64]) -> float:
    """Share of random models' heads that are worth at least as much, with one added to both counts; NaN for NaN."""
    known = null[np.isfinite(null)]
    return float("nan") if np.isnan(loss) or not len(known) else float((1 + (known >= loss).sum()) / (1 + len(known)))
