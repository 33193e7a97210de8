"""Training against answers known beforehand: losses by hand, planted signals, and controls that must stay at chance."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from toy_training import SMALL_MODEL, small_run, toy_tables

from bioattn.config import parse_run
from bioattn.data.alphabet import PAD
from bioattn.errors import BioattnError
from bioattn.models import build_model
from bioattn.tokens.nucleotide import encode
from bioattn.train.baselines import build_convnet
from bioattn.train.data import load_examples, predict
from bioattn.train.fit import fit
from bioattn.train.metrics import score_readout
from bioattn.train.module import TrainingModule, decay_groups, loss_sum, warmup_cosine

KINDS = ("binary", "multilabel", "regression", "count")


def batch(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    readouts = torch.randn(11, 3, generator=generator)
    targets = torch.randint(0, 2, (11, 3), generator=generator).float()
    return readouts, targets * 3.7 if kind == "regression" else targets


@pytest.mark.parametrize("kind", KINDS)
def test_masked_loss_equals_loss_of_the_subset(kind):
    """The loss with missing targets is that of the present ones alone, and missing ones get no gradient."""
    readouts, targets = batch(kind)
    missing = torch.rand(11, 3, generator=torch.Generator().manual_seed(1)) < 0.4
    holes = targets.masked_fill(missing, float("nan"))
    readouts.requires_grad_()
    total, n = loss_sum(kind, readouts, holes)
    total.backward()
    alone, n_alone = loss_sum(kind, readouts.detach()[~missing][:, None], targets[~missing][:, None])
    assert total.item() == pytest.approx(alone.item(), rel=1e-6)
    assert n == n_alone == (~missing).sum()
    assert (readouts.grad[missing] == 0).all() and readouts.grad.isfinite().all()


@pytest.mark.parametrize("kind", KINDS)
def test_losses_are_those_of_torch(kind):
    """Each kind of task has its textbook loss."""
    readouts, targets = batch(kind)
    total, n = loss_sum(kind, readouts, targets)
    expected = {
        "binary": F.binary_cross_entropy_with_logits,
        "multilabel": F.binary_cross_entropy_with_logits,
        "regression": F.mse_loss,
        "count": F.poisson_nll_loss,
    }[kind](readouts, targets)
    assert (total / n).item() == pytest.approx(expected.item(), rel=1e-6)


def test_class_loss_is_cross_entropy():
    """The multiclass loss is cross-entropy of the class index."""
    readouts, _ = batch("binary")
    index = torch.arange(11) % 3
    total, n = loss_sum("multiclass", readouts, index[:, None].float())
    assert n == 11
    assert (total / n).item() == pytest.approx(F.cross_entropy(readouts, index).item(), rel=1e-6)


def test_regression_loss_is_in_units_of_the_sd():
    """Scaling targets, readouts and sd together leaves the regression loss as it is."""
    readouts, targets = batch("regression")
    one, _ = loss_sum("regression", readouts, targets, torch.ones(3))
    thousand, _ = loss_sum("regression", readouts * 1000, targets * 1000, torch.full((3,), 1000.0))
    assert thousand.item() == pytest.approx(one.item(), rel=1e-6)


@pytest.mark.parametrize("network", ["transformer", "cnn"])
@pytest.mark.parametrize("more", [1, 2, 3, 17])
def test_padding_length_changes_no_loss(network, more):
    """Loss and gradients are the same however long the padding is."""
    tokens = encode(["ACGTACGTTGCA", "GGATTAC", "TTTACGTAG"])
    targets = torch.tensor([[1.0], [0.0], [1.0]])
    if network == "transformer":
        model = build_model(small_run().model, n_readouts=1, seed=1)
    else:
        model = build_convnet(2000, n_readouts=1, seed=1)
    model.eval()
    results = []
    for padding in (0, more):
        model.zero_grad()
        total, _ = loss_sum("binary", model(F.pad(tokens, (0, padding), value=PAD)), targets)
        total.backward()
        results.append([total.detach(), *[p.grad.clone() for p in model.parameters() if p.grad is not None]])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_decay_spares_biases_norms_and_positions():
    """Weight decay acts on matrices only: not on biases, norms, embeddings or tables of positions."""
    for positions, table in (("relative", "relative.table"), ("learned", "positions.table")):
        model = build_model(parse_run({"model": {**SMALL_MODEL, "positions": positions}}).model, n_readouts=1, seed=1)
        names = {id(p): name for name, p in model.named_parameters()}
        decayed, kept = ([names[id(p)] for p in group["params"]] for group in decay_groups(model, 0.1))
        assert sorted(decayed + kept) == sorted(n for n, p in model.named_parameters() if p.requires_grad)
        assert all(name.endswith("weight") for name in decayed)
        assert any(name.endswith(table) for name in kept)
        assert all("norm" not in name and not name.endswith("bias") for name in decayed)


def test_frozen_parameters_are_not_optimised():
    """A parameter that needs no gradient is in no group, so decay cannot move it."""
    model = torch.nn.Linear(3, 2)
    model.weight.requires_grad_(False)
    groups = decay_groups(model, 0.1)
    assert [p is model.bias for g in groups for p in g["params"]] == [True]


def test_schedule_rises_linearly_and_falls_to_zero():
    """The rate rises in equal steps to its peak, is at half of it half-way down, and ends at zero."""
    rates = [warmup_cosine(step, n_steps=110, n_warmup=10) for step in range(111)]
    assert np.diff(rates[:10]) == pytest.approx(np.full(9, 0.1))
    assert rates[10] == 1
    assert rates[60] == pytest.approx(0.5)
    assert rates[110] == pytest.approx(0)
    assert warmup_cosine(0, n_steps=5, n_warmup=0) == 1


def held_out_score(kind: str, result, sequences, split, metric: str) -> float:
    test = load_examples(sequences, split, result_task(kind), fold=0)["test"]
    scores = score_readout(kind, test.targets[:, 0].numpy().astype(float), predict(result.model, test.tokens)[:, 0])
    return {s.metric: s.value for s in scores}[metric]


def result_task(kind: str):
    return small_run(task={"kind": kind}).task


def test_planted_motif_is_learned():
    """A motif that decides the label is learned: held-out AUROC above 0.95."""
    sequences, split = toy_tables(700, 30)
    result = fit(small_run(epochs=12), sequences, split)
    assert held_out_score("binary", result, sequences, split, "auroc") > 0.95


def test_permuted_labels_give_chance():
    """With permuted training labels the same data give a held-out AUROC near one half (mean of three seeds)."""
    sequences, split = toy_tables(700, 30)
    run = small_run(epochs=4, permute_labels=True)
    scores = [held_out_score("binary", fit(run, sequences, split, seed=s), sequences, split, "auroc") for s in range(3)]
    assert abs(np.mean(scores) - 0.5) < 0.2


def test_regression_predicts_in_units_of_the_target():
    """Targets around 100 with two levels 10 apart are predicted at those levels, though trained on a standard scale."""
    sequences, split = toy_tables(700, 30, kind="regression")
    result = fit(small_run(task={"kind": "regression"}, epochs=12), sequences, split)
    assert held_out_score("regression", result, sequences, split, "rmse") < 3
    assert held_out_score("regression", result, sequences, split, "pearson") > 0.85


def test_count_readout_is_a_log_rate():
    """Counts with rates 2 and 20 are predicted on the log scale."""
    sequences, split = toy_tables(700, 30, kind="count")
    result = fit(small_run(task={"kind": "count"}, epochs=12), sequences, split)
    test = load_examples(sequences, split, result_task("count"), fold=0)["test"]
    rate = np.exp(predict(result.model, test.tokens)[:, 0])
    high = test.targets[:, 0].numpy() > 9
    assert rate[high].mean() == pytest.approx(20, rel=0.3)
    assert rate[~high].mean() == pytest.approx(2, rel=0.6)


def test_missing_and_constant_targets_train():
    """Two regression targets with different holes train to finite weights, and each in its own units."""
    sequences, split = toy_tables(300, kind="regression")
    sequences["other"] = -1000 * sequences["label"]
    sequences.loc[::3, "label"] = np.nan
    run = small_run(task={"kind": "regression", "targets": ["label", "other"]}, epochs=2)
    result = fit(run, sequences, split)
    assert all(p.isfinite().all() for p in result.model.parameters())
    assert float(result.model.readout_mean[1]) == pytest.approx(-1000 * 105, rel=0.05)


def test_diverged_training_names_epoch_step_and_way_out(monkeypatch):
    """A loss that stops being finite ends training with epoch, step and what to change."""
    step = TrainingModule._loss

    def broken(self, batch):
        total, n = step(self, batch)
        return (total * float("nan") if self.training and self.global_step == 9 else total), n

    monkeypatch.setattr(TrainingModule, "_loss", broken)
    sequences, split = toy_tables()
    with pytest.raises(BioattnError, match=r"is nan at epoch 1, step 9.*lower train.learning_rate"):
        fit(small_run(), sequences, split)
