"""Plans: predicted memory against memory that was taken, arithmetic against formulas, and steps that fit."""

import json
import logging
import os
import re
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from toy_tokens import codes_of
from toy_training import SMALL_MODEL, small_run, toy_tables

from bioattn.config import AugmentConfig, RunConfig, parse_run
from bioattn.data import alphabet
from bioattn.errors import BioattnError, ConfigError
from bioattn.models import build_model
from bioattn.tokens.bpe import BpeTokenizer, train_bpe
from bioattn.train import data as train_data
from bioattn.train import fit as fit_module
from bioattn.train import memory as train_memory
from bioattn.train import module as train_module
from bioattn.train.data import Batches, Examples, predict
from bioattn.train.memory import (
    EXAMPLE_BYTES,
    FIRST_WORKER_BYTES,
    GIB,
    MIB,
    SAFETY_SHARE,
    WORKER_BYTES,
    freed_memory_returned,
    memory_limit,
    track_memory,
)
from bioattn.train.module import TrainingModule
from bioattn.train.plan import plan

ROOT = Path(__file__).parents[3]

#: Models whose steps need memory for different reasons.
MODELS: dict[str, dict[str, Any]] = {
    "rope": {"positions": "rope"},
    "relative": {"positions": "relative"},
    "alibi": {"positions": "alibi"},
    "reference": {"positions": "rope", "backend": "reference"},
    "checkpointing": {"positions": "rope", "backend": "reference", "checkpointing": True, "n_layers": 3},
    "local": {"positions": "rope", "backend": "local", "mask": {"window": 32}},
    "local_relative": {"positions": "relative", "backend": "local", "mask": {"window": 32}},
    "random_blocks": {"positions": "rope", "backend": "local", "mask": {"random_blocks": 2}},
    "cls_both_strands": {"positions": "rope", "pooling": "cls", "reverse_complement": "average"},
    "gru": {"encoder": "gru"},
    "lstm": {"encoder": "lstm"},
}


def a_run(model: dict[str, Any], **train: Any) -> RunConfig:
    stem = {"n_filters": 8, "width": 7, "pool": 2}
    small = {"d_model": 24, "n_heads": 3, "n_layers": 1, "d_feedforward": 32, "stem": stem}
    return parse_run({"model": small | model, "train": {"batch_size": 16, "device": "cpu", **train}})


class RealStep:
    """A model with gradients and optimiser state, as they are before any step but the first."""

    def __init__(
        self, run: RunConfig, n: int, length: int, *, padded: bool, tokenizer: BpeTokenizer | None = None
    ) -> None:
        network = build_model(run.model, n_readouts=1, tokenizer=tokenizer)
        self.module = TrainingModule(network, kind="binary", config=run.train, steps_per_epoch=1, seed=1)
        self.optimizer = self.module.configure_optimizers()["optimizer"]
        self.bf16 = run.train.precision == "bf16-mixed"
        # Few bases, so that what this first step leaves in the allocator is small.
        self.take(*self.batch(2, 8, padded=False))
        self.n, self.length, self.padded = n, length, padded

    def batch(self, n: int, length: int, *, padded: bool) -> tuple[torch.Tensor, torch.Tensor]:
        tokens = torch.randint(0, 4, (n, length))
        if padded:
            tokens[1::2, -4:] = alphabet.PAD
        return tokens, torch.ones(n, 1)

    def held(self) -> list[torch.Tensor]:
        parameters = list(self.module.parameters())
        states = [x for state in self.optimizer.state.values() for x in state.values()]
        return [*parameters, *(p.grad for p in parameters if p.grad is not None), *states]

    def take(self, tokens: torch.Tensor, targets: torch.Tensor) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            loss = self.module.training_step((tokens, targets), 0)
        loss.backward()
        self.optimizer.step()

    def __call__(self) -> None:
        self.take(*self.batch(self.n, self.length, padded=self.padded))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in ("alibi", "lstm") else []) for name in MODELS]
)
def test_prediction_is_what_a_real_step_takes(name):
    """What is predicted for a batch of 16, fixed + n * bytes_per_example, is the peak of live tensors for 16 and 6."""
    run, length = a_run(MODELS[name]), 301
    planned = plan(100, length, run)
    for n in (16, 6):
        step = RealStep(run, n, length, padded=True)
        with track_memory(step.held()) as memory:
            step()
        predicted = planned.fixed_bytes + n * planned.bytes_per_example
        assert predicted == pytest.approx(memory.peak_bytes, rel=0.1)
        # Checkpointed chunks end a product earlier where values are looked at and no query is without a key.
        tolerance = 0.1 if name == "local_relative" else 0.01
        assert memory.flops == pytest.approx(planned.flops_per_step * n / 16, rel=tolerance)


WORDS: dict[str, dict[str, Any]] = {
    "tiling": {"tokenizer": {"kind": "kmer", "k": 4, "stride": 4}, "positions": "rope"},
    "overlapping": {"tokenizer": {"kind": "kmer", "k": 3, "stride": 1}, "positions": "relative", "pooling": "cls"},
    "gru": {"tokenizer": {"kind": "kmer", "k": 3, "stride": 2}, "encoder": "gru"},
}
NO_STEM = {"stem": {"kind": "none", "pool": 1}}


@pytest.mark.parametrize("name", list(WORDS))
def test_prediction_for_kmers_is_what_a_real_step_takes(name: str):
    """The tokens of k-mers follow from the length, so a plan is as near to a real step as with a stem."""
    run, length = a_run(WORDS[name] | NO_STEM), 401
    planned = plan(100, length, run)
    for n in (16, 6):
        step = RealStep(run, n, length, padded=True)
        with track_memory(step.held()) as memory:
            step()
        assert planned.fixed_bytes + n * planned.bytes_per_example == pytest.approx(memory.peak_bytes, rel=0.1)
        assert memory.flops == pytest.approx(planned.flops_per_step * n / 16, rel=0.01)


def words_of(run: RunConfig, length: int) -> tuple[BpeTokenizer, torch.Tensor]:
    """Tokenizer learned from sequences that are rich in some words, and codes of further ones of the same kind."""
    generator = np.random.default_rng(1)
    words = ["TATAAT", "CACGTG", "GC", "A", "C", "G", "T"]
    texts = ["".join(generator.choice(words, length))[:length] for _ in range(300)]
    return train_bpe(texts[:200], vocabulary=run.model.tokenizer.vocabulary), codes_of(texts[200:])


@pytest.mark.parametrize(
    "more", [{"positions": "rope"}, {"positions": "relative", "pooling": "cls"}, {"encoder": "gru"}]
)
def test_prediction_for_learned_words_is_enough_and_no_waste(more: dict[str, Any]):
    """A plan for learned words is no less than what steps on sequences like those of training take, at most 1.4 x."""
    run, length = a_run({"tokenizer": {"kind": "bpe", "vocabulary": 200}, **more} | NO_STEM), 401
    tokenizer, codes = words_of(run, length)
    planned = plan(100, length, run, tokenizer=tokenizer)
    for n in (16, 6):
        step = RealStep(run, n, length, padded=True, tokenizer=tokenizer)
        batch = codes[:n].clone(), torch.ones(n, 1)
        with track_memory(step.held()) as memory:
            step.take(*batch)
        predicted = planned.fixed_bytes + n * planned.bytes_per_example
        assert memory.peak_bytes <= predicted <= 1.4 * memory.peak_bytes
    # Sequences of one length have words of different lengths: not planning for padding changes nothing.
    assert plan(100, length, run, tokenizer=tokenizer, padded=False) == planned


@pytest.mark.parametrize(
    "tokenizer",
    [
        {"kind": "kmer", "k": 4, "stride": 2},
        pytest.param({"kind": "bpe", "vocabulary": 200}, marks=pytest.mark.slow),
    ],
)
def test_refusals_for_words_name_a_length_that_fits(tokenizer: dict[str, Any]):
    """Where not one example fits, the length that a refusal offers for k-mers and learned words does, to a tenth."""
    model = {"tokenizer": tokenizer, "positions": "rope", "checkpointing": True, "backend": "reference"}
    run = a_run(model | NO_STEM, memory_gb=0.62)
    learned = words_of(run, 401)[0] if tokenizer["kind"] == "bpe" else None
    with pytest.raises(ConfigError) as refusal:
        plan(50, 9000, run, tokenizer=learned)
    shorter = int(re.search(r"cut sequences to (\d+) bp", str(refusal.value))[1])
    assert plan(50, shorter, run, tokenizer=learned).micro_batch >= 1
    with pytest.raises(ConfigError):
        plan(50, round(shorter * 1.3), run, tokenizer=learned)


def test_prediction_in_mixed_precision():
    """Predictions hold in bf16-mixed as well, which stores other tensors than float32."""
    run, length = a_run({"positions": "rope", "backend": "reference"}, precision="bf16-mixed"), 301
    step = RealStep(run, 6, length, padded=True)
    with track_memory(step.held()) as memory:
        step()
    planned = plan(100, length, run)
    assert planned.fixed_bytes + 6 * planned.bytes_per_example == pytest.approx(memory.peak_bytes, rel=0.1)
    assert (
        planned.bytes_per_example
        != plan(100, length, a_run({"positions": "rope", "backend": "reference"})).bytes_per_example
    )


def test_sequences_of_one_length_take_less():
    """Without padding no mask is written out, and that is what is predicted."""
    run, length = a_run(MODELS["relative"]), 300
    step = RealStep(run, 16, length, padded=False)
    with track_memory(step.held()) as memory:
        step()
    planned = plan(100, length, run, padded=False)
    predicted = planned.fixed_bytes + 16 * planned.bytes_per_example
    assert predicted == pytest.approx(memory.peak_bytes, rel=0.1)
    assert planned.bytes_per_example < plan(100, length, run).bytes_per_example


def test_large_model_on_short_sequences():
    """Where weights outweigh activations, the prediction still is the peak, at any number of examples."""
    run = a_run({"positions": "rope", "d_model": 120, "d_feedforward": 2000, "n_heads": 3}, batch_size=64)
    planned = plan(100, 20, run)
    for n in (1, 64):
        step = RealStep(run, n, 20, padded=True)
        with track_memory(step.held()) as memory:
            step()
        predicted = planned.peak_bytes - planned.process_bytes - planned.data_bytes
        assert planned.fixed_bytes + n * planned.bytes_per_example == pytest.approx(memory.peak_bytes, rel=0.3)
    assert predicted >= memory.peak_bytes * 0.95


def test_prediction_is_what_the_process_takes():
    """The predicted memory of steps of some hundred MiB is, within 10 %, what the process grows by."""
    length, cases, predicted = 1200, [], []
    for name in ("rope", "relative", "local"):
        model = MODELS[name] | {"d_model": 60, "d_feedforward": 120, "n_heads": 5}
        planned = plan(100, length, a_run(model))
        n = round(250 * MIB / planned.bytes_per_example)
        cases.append({"model": model, "n": n, "length": length})
        predicted.append(planned.fixed_bytes + n * planned.bytes_per_example)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, __file__, json.dumps(cases)]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert json.loads(done.stdout.splitlines()[-1]) == pytest.approx(predicted, rel=0.1)


def _status(field: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def _grown_by_a_step(model: dict[str, Any], n: int, length: int) -> int:
    torch.set_num_threads(1)
    step = RealStep(a_run(model), n, length, padded=True)
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the highest level so far is forgotten
    with freed_memory_returned():
        step()
    return _status("VmHWM") - before


def test_a_dry_run_takes_no_memory():
    """Planning a step of more than a TiB leaves the memory of this process as it is."""
    plan(10, 50, a_run(MODELS["reference"]))  # imports
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    planned = plan(10, 40_000, a_run(MODELS["reference"], memory_gb=100_000.0, batch_size=128))
    assert planned.peak_bytes > 1024 * GIB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before < 64 * MIB


def test_planning_leaves_random_numbers_alone():
    """A plan draws from no random stream of the caller, a recurrent network's neither, whose steps are really run."""
    torch.manual_seed(4)
    expected = torch.rand(2)
    torch.manual_seed(4)
    for model in (MODELS["rope"], MODELS["gru"]):
        plan(10, 30, a_run(model))
    assert torch.equal(torch.rand(2), expected)


def test_views_count_once():
    """A tracker counts each storage once, whatever views it, and forgets it when it is freed."""
    with track_memory() as memory:
        x = torch.zeros(1000)
        y = x.view(10, 100).T[2:]
        assert memory.live_bytes == 4000
        z = y + 1
        assert memory.live_bytes == 4000 + 4 * 98 * 10
        del x, z
        assert memory.live_bytes == 4000  # y still holds it
        del y
        assert memory.live_bytes == 0
    assert memory.peak_bytes == 4000 + 4 * 98 * 10


@pytest.mark.parametrize(("backend", "factor"), [("reference", 4), ("local", 2)])
def test_growth_with_length(backend, factor):
    """Where attention dominates, twice the length takes four times the memory with all pairs, twice with a window."""
    model = MODELS[backend] | {"d_model": 6, "n_heads": 3, "d_feedforward": 6}
    short, long = (plan(10, length, a_run(model, memory_gb=1e5)).bytes_per_example for length in (8192, 16384))
    assert long / short == pytest.approx(factor, rel=0.05)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_flops_of_an_encoder(checkpointing):
    """The count is that of the matrix products: two per weight forward, four backward, and attention's own."""
    length, width, wide, n_layers, n = 50, 24, 36, 3, 16
    model = {
        "stem": {"kind": "none", "pool": 1}, "positions": "rope", "n_layers": n_layers, "d_feedforward": wide,
        "checkpointing": checkpointing,
    }  # fmt: skip
    planned = plan(70, length, a_run(model, epochs=5))
    weights = 4 * width**2 + 2 * width * wide
    attention = 2 * 2 * length**2 * width  # two products of queries or patterns with all positions
    passes = 2 if checkpointing else 1  # blocks run forward once more
    blocks = n_layers * (length * weights * (2 * passes + 4) + attention * passes + attention * 5 // 2)
    stem = length * 4 * width * 4  # no gradient for the bases
    readout = width * 1 * 6
    assert planned.flops_per_step == n * (blocks + stem + readout)
    assert planned.flops_total == 70 * 5 * (blocks + stem + readout)


@pytest.mark.parametrize(("encoder", "gates"), [("gru", 3), ("lstm", 4)])
def test_flops_of_a_recurrent_network(encoder, gates):
    """Each direction of a layer has one product per gate with tokens and one with states, by any kernel."""
    length, n_layers, width = 400, 2, 24
    run = a_run({"encoder": encoder, "n_layers": n_layers, "stem": {"kind": "none", "pool": 1}})
    hidden = build_model(run.model, n_readouts=1).encoder.layer[0].rightward.hidden_size
    weights = 2 * (gates * hidden * (width + hidden) + hidden * width)
    expected = length * (n_layers * weights * 6 + 4 * width * 4) + width * 6
    assert plan(70, length, run).flops_per_step == pytest.approx(16 * expected, rel=0.02)


def test_all_that_lies_in_memory_is_counted():
    """Test examples count as data, processes that prepare batches beside the process."""
    run, more = a_run(MODELS["rope"]), a_run(MODELS["rope"], workers=2)
    base = plan(100, 30, run, n_validation=10)
    tested = plan(100, 30, run, n_validation=10, n_test=100_000)
    assert tested.data_bytes - base.data_bytes == 100_000 * (30 + 4 + EXAMPLE_BYTES)
    assert tested.peak_bytes - base.peak_bytes == tested.data_bytes - base.data_bytes
    prepared = plan(100, 30, more, n_validation=10)
    assert prepared.peak_bytes - base.peak_bytes == FIRST_WORKER_BYTES + 2 * WORKER_BYTES


def test_everything_fits():
    """Where a batch fits, nothing is split."""
    planned = plan(100, 30, a_run(MODELS["rope"], batch_size=50))
    assert (planned.micro_batch, planned.n_parts, planned.evaluation_batch) == (50, 1, 1024)
    assert planned.peak_bytes <= planned.limit_bytes
    assert "\n" not in str(planned) and "50 examples per step" in str(planned)


def test_fewest_equal_parts_are_taken():
    """Less memory splits a batch into the fewest equal parts that fit, and what predicts into parts that fit too."""
    run = a_run(MODELS["reference"], batch_size=100)
    whole = plan(50, 400, run)
    base = whole.process_bytes + whole.data_bytes
    room = whole.fixed_bytes + 41 * whole.bytes_per_example
    small = run.model_copy(
        update={"train": run.train.model_copy(update={"memory_gb": (base + room) / SAFETY_SHARE / GIB})}
    )
    planned = plan(50, 400, small)
    assert (planned.n_parts, planned.micro_batch) == (3, 34)
    assert whole.evaluation_batch > planned.evaluation_batch >= 41
    assert planned.peak_bytes <= planned.limit_bytes
    assert planned.flops_per_step == whole.flops_per_step


def test_too_little_memory_is_refused_with_ways_that_work():
    """A refusal names need and limit, and of all ways out those that work, and no others."""
    model, length, memory_gb = MODELS["relative"], 8000, 0.65
    with pytest.raises(ConfigError) as refusal:
        plan(50, length, a_run(model, memory_gb=memory_gb))
    message = str(refusal.value)
    assert "one sequence of 8000 bp" in message and "90% of train.memory_gb 0.65" in message

    def works(length=length, memory_gb=memory_gb, **changed):
        ample = plan(50, length, a_run(model | changed, memory_gb=1000.0, batch_size=2))
        need = ample.process_bytes + ample.data_bytes + ample.fixed_bytes + ample.bytes_per_example
        return need <= memory_limit("cpu", memory_gb)

    assert "set model.positions 'rope' (" in message
    assert plan(50, length, a_run(model | {"positions": "rope"}, memory_gb=memory_gb)).micro_batch >= 1
    assert "checkpointing" not in message and not works(checkpointing=True)
    assert "'local'" not in message and not works(backend="local", mask={"window": 128})
    shorter = int(re.search(r"cut sequences to (\d+) bp", message)[1])
    assert works(length=shorter) and not works(length=round(shorter * 1.2))
    more = float(re.search(r"raise train.memory_gb to ([\d.]+)", message)[1])
    assert works(memory_gb=more) and not works(memory_gb=more - 0.2)


@pytest.mark.slow
def test_settings_that_only_help_together_are_named_together():
    """Where no single setting makes it fit but two do, the two are named as one way."""
    run, length = a_run(MODELS["relative"] | {"backend": "reference"}, memory_gb=0.61), 8000
    with pytest.raises(ConfigError, match="model.positions 'rope' and model.backend 'sdpa'") as refusal:
        plan(50, length, run)
    assert "set model.positions 'rope' (" not in str(refusal.value)
    assert plan(50, length, a_run({"positions": "rope"}, memory_gb=0.61)).micro_batch >= 1


# --------------------------------------------------------------------- the limit


def test_limit_is_the_least_that_is_known(monkeypatch, tmp_path):
    """The limit is a share of the least of physical memory, cgroups, process and Slurm; memory_gb overrides."""
    monkeypatch.setattr(train_memory, "_CGROUP_OF_PROCESS", tmp_path / "cgroup")
    monkeypatch.setattr(train_memory, "_CGROUPS", tmp_path)
    monkeypatch.setattr(train_memory, "_address_limits", list)
    for name in ("SLURM_MEM_PER_NODE", "SLURM_MEM_PER_CPU"):
        monkeypatch.delenv(name, raising=False)
    physical = memory_limit("cpu")
    assert physical == int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") * SAFETY_SHARE)

    def share(n_bytes):
        return int(n_bytes * SAFETY_SHARE)

    (tmp_path / "cgroup").write_text("9:memory:/job/step\n0::/unified/inner\n")
    (tmp_path / "memory/job/step").mkdir(parents=True)
    (tmp_path / "memory/job/step/memory.limit_in_bytes").write_text(str(2**63 - 4096))
    (tmp_path / "unified/inner").mkdir(parents=True)
    (tmp_path / "unified/inner/memory.max").write_text("max\n")
    assert memory_limit("cpu") == physical
    (tmp_path / "memory/job/memory.limit_in_bytes").write_text(str(700 * MIB))
    assert memory_limit("cpu") == share(700 * MIB)
    (tmp_path / "unified/memory.max").write_text(str(600 * MIB))
    assert memory_limit("cpu") == share(600 * MIB)
    monkeypatch.setenv("SLURM_MEM_PER_NODE", "500")
    assert memory_limit("cpu") == share(500 * MIB)
    monkeypatch.setattr(train_memory, "_address_limits", lambda: [400 * MIB])
    assert memory_limit("cpu") == share(400 * MIB)
    assert memory_limit("cpu", 3.0) == share(3 * GIB)


# ----------------------------------------------------------------------- parts


def some_examples(n: int, n_targets: int) -> Examples:
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(0, 4, (n, 23), generator=generator).to(torch.uint8)
    for i in range(n):
        tokens[i, 5 + i % 19 :] = alphabet.PAD
    targets = torch.rand(n, n_targets, generator=generator).round()
    targets[torch.rand(n, n_targets, generator=generator) < 0.4] = float("nan")
    names = toy_tables(n)[0]["name"].to_numpy(object)
    return Examples(names, tokens, targets, torch.arange(n).numpy())


def epoch_gradients(examples: Examples, micro_batch: int) -> list[list[torch.Tensor]]:
    """Gradient of each optimisation step of an epoch, in float64, added up from parts as Lightning does."""
    run = parse_run(
        {"model": {**SMALL_MODEL, "dropout": 0.0}, "task": {"kind": "multilabel", "targets": ["a", "b", "c"]}}
    )
    network = build_model(run.model, n_readouts=3, seed=2).double()
    augment = AugmentConfig(reverse_complement=True)
    batches = Batches(examples, 10, seed=5, augment=augment, micro_batch=micro_batch)
    module = TrainingModule(
        network, kind="multilabel", config=run.train, steps_per_epoch=batches.n_batches, n_parts=batches.n_parts, seed=1
    )
    taken = []
    for i, batch in enumerate(batches, start=1):
        (module.training_step(batch, i) / batches.n_parts).backward()
        if i % batches.n_parts == 0 or i == len(batches):
            taken.append([p.grad.clone() for p in network.parameters() if p.grad is not None])
            network.zero_grad()
    assert len(taken) == batches.n_batches
    return taken


@pytest.mark.parametrize("micro_batch", [5, 4, 1])
def test_parts_give_the_gradient_of_the_whole_batch(micro_batch):
    """Parts add up to the gradient of the whole batch, with missing targets, and in a last batch that is smaller."""
    examples = some_examples(27, 3)
    for whole, parts in zip(epoch_gradients(examples, 10), epoch_gradients(examples, micro_batch), strict=True):
        for a, b in zip(whole, parts, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def in_parts(monkeypatch, micro_batch: int) -> None:
    def smaller(*args, **kwargs):
        return replace(plan(*args, **kwargs), micro_batch=micro_batch, evaluation_batch=7)

    monkeypatch.setattr(fit_module, "plan", smaller)


#: No dropout, whose units depend on the parts; targets missing, and 210 examples in batches of 32.
PARTS_RUN = parse_run(
    {
        "model": {**SMALL_MODEL, "dropout": 0.0},
        "task": {"kind": "multilabel", "targets": ["label", "gc"]},
        "train": {"epochs": 3, "batch_size": 32, "learning_rate": 0.01, "device": "cpu", "gradient_clip": 0.2},
    }
)


def tables_with_gaps():
    sequences, split = toy_tables()
    sequences["gc"] = (sequences["sequence"].str.count("[GC]") > 9).astype(float)
    sequences.loc[::5, "gc"] = float("nan")
    return sequences, split


def assert_same_course(a, b) -> None:
    assert a["step"].tolist() == b["step"].tolist()
    for column in ("learning_rate", "train_loss", "validation_loss"):
        assert b[column].tolist() == pytest.approx(a[column].tolist(), rel=1e-5)


def test_training_in_parts_takes_the_same_course(monkeypatch, caplog):
    """Same steps, learning rates and losses whether batches fit or come in parts; record and log tell the plan."""
    whole = fit_module.fit(PARTS_RUN, *tables_with_gaps())
    in_parts(monkeypatch, 11)
    with caplog.at_level(logging.INFO, logger="bioattn.train"):
        parts = fit_module.fit(PARTS_RUN, *tables_with_gaps())
    assert_same_course(whole.history, parts.history)
    assert whole.history["step"].tolist() == [7, 14, 21]
    assert whole.record["plan"]["micro_batch"] == 32
    assert parts.record["plan"]["micro_batch"] == 11 and parts.record["plan"]["flops_total"] > 0
    assert [r.message for r in caplog.records if "in 3 parts of at most 11" in r.message]
    assert parts.record["digest"] == whole.record["digest"]


def test_a_run_resumes_in_other_parts(tmp_path, monkeypatch):
    """Training that was stopped goes on with another number of parts, as on a machine with less memory."""
    whole = fit_module.fit(PARTS_RUN, *tables_with_gaps())
    step = TrainingModule.training_step

    def failing(self, batch, batch_idx):
        if self.global_step == 10:
            raise RuntimeError("stop")
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="stop"):
        patch.setattr(TrainingModule, "training_step", failing)
        fit_module.fit(PARTS_RUN, *tables_with_gaps(), work_dir=tmp_path)
    in_parts(monkeypatch, 8)
    resumed = fit_module.fit(PARTS_RUN, *tables_with_gaps(), work_dir=tmp_path)
    assert resumed.record["resumed"]
    assert_same_course(whole.history, resumed.history)


def test_memory_is_no_part_of_a_trainings_identity(tmp_path):
    """A finished training is taken as it is when it is asked for with another limit of memory."""
    first = fit_module.fit(small_run(epochs=1, memory_gb=4.0), *toy_tables(), work_dir=tmp_path)
    again = fit_module.fit(small_run(epochs=1, memory_gb=5.0), *toy_tables(), work_dir=tmp_path)
    assert again.record["resumed"] and not first.record["resumed"]


def test_too_little_memory_ends_before_anything_is_written(tmp_path):
    """A job that cannot hold even one example is refused before it makes its folder."""
    with pytest.raises(ConfigError, match="training needs .* raise train.memory_gb to"):
        fit_module.fit(small_run(memory_gb=0.5), *toy_tables(), work_dir=tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_divergence_in_a_part_names_the_step():
    """With three parts per step, a loss that is not finite in the eighth part is reported at step 2."""
    module = TrainingModule(
        torch.nn.Linear(1, 1), kind="binary", config=small_run().train, steps_per_epoch=9, n_parts=3, seed=1
    )
    one = torch.tensor(1)
    module._train = [(torch.tensor(float("nan") if i == 7 else 0.5), one) for i in range(12)]
    with pytest.raises(BioattnError, match="training loss is nan at epoch 0, step 2,"):
        module._mean_train_loss()


def test_losses_keep_their_precision():
    """Losses of halves are computed in float32, those of float32 and float64 in their own type."""
    for dtype, expected in {
        torch.bfloat16: torch.float32,
        torch.float32: torch.float32,
        torch.float64: torch.float64,
    }.items():
        for kind in ("binary", "multiclass", "regression", "count"):
            total, _n = train_module.loss_sum(
                kind, torch.zeros(2, 2, dtype=dtype), torch.ones(2, 1 if kind == "multiclass" else 2)
            )
            assert total.dtype == expected, kind


def test_predictions_take_what_fits(monkeypatch):
    """Predicting with little memory takes fewer examples at a time, and predicts the same."""
    tokens = some_examples(40, 1).tokens
    model = build_model(small_run().model, n_readouts=1).eval()
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda _module, inputs: sizes.append(len(inputs[0])))
    expected = predict(model, tokens)
    assert max(sizes) == 40
    sizes.clear()
    monkeypatch.setattr(train_data, "memory_limit", lambda device: train_memory.PROCESS_BYTES + 150_000)
    assert predict(model, tokens) == pytest.approx(expected, abs=1e-6)
    assert 1 < max(sizes) < 40


if __name__ == "__main__":
    print([_grown_by_a_step(**case) for case in json.loads(sys.argv[1])])
