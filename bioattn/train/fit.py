"""Training: one call from tables to a trained model, able to go on after a kill as if nothing had happened."""

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import torch
from torch import nn

from bioattn.config import RunConfig, digest, step_settings
from bioattn.data.motif import Motif
from bioattn.errors import BioattnWarning, ConfigError
from bioattn.models import SequenceModel, build_model
from bioattn.rng import stream_seed
from bioattn.tokens.bpe import BpeTokenizer, train_bpe
from bioattn.train.data import ExampleModule, Examples, load_examples, target_scale, training_parts
from bioattn.train.devices import resolve_device
from bioattn.train.loop import CODES, best_weights, make_folder, train_module, work_folder
from bioattn.train.memory import GIB
from bioattn.train.module import TrainingModule
from bioattn.train.plan import Plan, plan
from bioattn.train.pretrain import Pretrained, read_pretrained
from bioattn.train.provenance import run_record

_LOG = logging.getLogger(__name__)

#: Columns of `FitResult.history`, one row per epoch.
HISTORY = ("epoch", "step", "learning_rate", "train_loss", "validation_loss", "validation_metric", "seconds")
#: Settings of `train` that make no other training: in how many parts a batch is computed, and who prepares it.
_IMMATERIAL = ("memory_gb", "workers")


class FitResult(NamedTuple):
    """A trained model in evaluation mode with its best weights, its epochs, and where it came from."""

    model: SequenceModel
    history: pd.DataFrame
    record: dict[str, Any]


class NetworkFit(NamedTuple):
    """As `FitResult`, for any network."""

    network: nn.Module
    history: pd.DataFrame
    record: dict[str, Any]


def fit(
    run: RunConfig,
    sequences: pd.DataFrame | str | Path,
    split: pd.DataFrame,
    *,
    fold: int = 0,
    seed: int = 1,
    work_dir: str | Path | None = None,
    motifs: Sequence[Motif] = (),
    pretrained: str | Path | None = None,
    progress: bool = True,
) -> FitResult:
    """Train the model of a run on one fold, and return it with its best weights.

    Killed at any moment and called again with the same arguments, it goes on from
    the last complete epoch and ends with the same weights, bit for bit on a CPU.

    Memory is planned beforehand: where a batch does not fit, its gradient is added
    up from parts, which changes it by rounding (and dropout draws other units).

    Parameters
    ----------
    run : RunConfig
    sequences : DataFrame or path
        As written by the `ingest` step, see `load_examples`. A path costs less memory.
    split : DataFrame
        As written by the `split` step.
    fold : int
    seed : int
        Replicate: initial weights, order of examples, dropout, resampling. (`run.train.seeds` plays no part.)
    work_dir : path, optional
        Folder for checkpoints and logs; one folder per fold and seed. Without it
        nothing is kept and nothing can be resumed.
    motifs : sequence of Motif
        For a stem of kind "pwm".
    pretrained : path, optional
        Folder that the verb `pretrain` wrote, for a run with a section `pretrain`: stem and encoder start from its
        weights, and its learned tokenizer, if it has one, is taken.
    progress : bool
        Show a progress bar if standard error is a terminal.

    Raises
    ------
    ConfigError
        If there are fewer training examples than a batch, no such device, or not enough memory for one example; if
        the run is to be pretrained and there are no pretrained weights, or those of another model.
    DataError
        If tables, columns or targets do not fit the task, or weights were pretrained for another split.
    BioattnError
        If the loss stops being finite.
    """
    start = _start(run, split, pretrained)
    parts = load_examples(sequences, split, run.task, fold=fold)
    tokenizer = _tokenizer(run, parts["train"], start)
    planned = _plan(run, parts, motifs, tokenizer)
    model = build_model(
        run.model,
        n_readouts=run.task.n_readouts,
        motifs=motifs,
        seed=stream_seed(run.seed, "init", fold, seed),
        tokenizer=tokenizer,
    )
    loaded = [] if start is None else start.load_into(model)
    with work_folder(work_dir) as folder:
        result = fit_network(
            model,
            run,
            parts,
            fold=fold,
            seed=seed,
            work_dir=folder,
            planned=planned,
            frozen=loaded,
            origin=_origin(model, start),
            progress=progress,
        )
    return FitResult(model, result.history, result.record)


def _start(run: RunConfig, split: pd.DataFrame, folder: str | Path | None) -> Pretrained | None:
    if folder is not None:
        return read_pretrained(folder, run.model, split)
    if run.pretrain is not None:
        raise ConfigError(
            "the run has a section 'pretrain' but there are no pretrained weights: make them with the verb pretrain "
            "and give the folder (--pretrained), or remove the section"
        )
    return None


def _tokenizer(run: RunConfig, train: Examples, start: Pretrained | None) -> BpeTokenizer | None:
    """Words for a model that looks up learned ones: those it was pretrained with, or those of all training examples.

    Not of the resample, so that all replicates of a fold share them.
    """
    if run.model.tokenizer.kind != "bpe":
        return None
    if start is not None:
        return start.tokenizer
    both_strands = run.train.augment.reverse_complement or run.model.reverse_complement == "average"
    return train_bpe(train.codes.texts(), vocabulary=run.model.tokenizer.vocabulary, both_strands=both_strands)


def _origin(model: SequenceModel, start: Pretrained | None) -> dict[str, Any]:
    """What else than settings and data a training starts from, for its identity and its record."""
    found: dict[str, Any] = {}
    if isinstance(model.tokenizer, BpeTokenizer):
        found["tokenizer"] = {
            "n_tokens": model.tokenizer.n_tokens,
            "bases_per_token": round(model.tokenizer.bases_per_token, 3),
            "digest": digest(model.tokenizer.describe()),
        }
    if start is not None:
        found["pretrained"] = start.summary
    return found


def _plan(run: RunConfig, parts: dict[str, Examples], motifs: Sequence[Motif], tokenizer: BpeTokenizer | None) -> Plan:
    train, validation = parts["train"], parts["validation"]
    lengths = torch.cat([train.lengths, validation.lengths])
    longest = int(lengths.max())
    with warnings.catch_warnings():  # which `fit_network` gives
        warnings.simplefilter("ignore", BioattnWarning)
        device = resolve_device(run.train.device, run.train.precision).accelerator
    planned = plan(
        len(train),
        longest,
        run,
        device,
        motifs=motifs,
        padded=bool((lengths < longest).any()),
        n_validation=len(validation),
        n_test=len(parts["test"]),
        tokenizer=tokenizer,
    )
    _LOG.info("plan: %s", planned)
    return planned


def fit_network(
    network: nn.Module,
    run: RunConfig,
    parts: dict[str, Examples],
    *,
    fold: int,
    seed: int,
    work_dir: Path,
    step: str = "train",
    name: str = "transformer",
    planned: Plan | None = None,
    frozen: Sequence[str] = (),
    origin: dict[str, Any] | None = None,
    progress: bool = True,
) -> NetworkFit:
    """Train any network from tokens (B, L) to readouts (B, T); see `fit`. `network` itself is trained.

    Without a plan whole batches are computed at once. Baselines have none: a plan is
    made from the configuration of a model, and they are convolutions or recurrent
    networks of the model's size, which hold nothing per pair of tokens.

    Parameters
    ----------
    frozen : sequence of str
        Parameters that the first `run.pretrain.freeze_epochs` epochs leave as they are.
    origin : dict, optional
        JSON-ready: what the network starts from, if that is more than its settings say. Training that started from
        anything else is not resumed.
    """
    config, task = run.train, run.task
    device = resolve_device(config.device, config.precision)
    stream = stream_seed(run.seed, "train", name, fold, seed)
    train, validation = training_parts(parts, config, seed=stream)
    sd = None
    if task.kind == "regression":
        mean, sd = target_scale(parts["train"].targets)
        network.set_readout_scale(mean, sd)  # type: ignore[operator]
    data_digest = f"{train.fingerprint()}-{validation.fingerprint()}"
    make_folder(work_dir)
    with (
        _for_workers(train, work_dir, config.workers) as shared,
        closing(
            ExampleModule(
                shared,
                validation,
                config,
                seed=stream,
                micro_batch=None if planned is None else planned.micro_batch,
                evaluation_batch=None if planned is None else planned.evaluation_batch,
            )
        ) as data,
    ):
        module = TrainingModule(
            network,
            kind=task.kind,
            target_sd=sd,
            config=config,
            steps_per_epoch=data.train_batches.n_batches,
            n_parts=data.train_batches.n_parts,
            seed=stream,
            identity={
                "name": name,
                "digest": digest(_material(step_settings(run, step))),
                "fold": fold,
                "seed": seed,
                "data": data_digest,
                **(origin or {}),
            },
            frozen=frozen,
            freeze_epochs=run.pretrain.freeze_epochs if run.pretrain else 0,
        )
        tight = planned is not None and planned.tight
        course = train_module(module, data, config, device=device, work_dir=work_dir, progress=progress, tight=tight)
    network.load_state_dict(best_weights(course))
    network.to("cpu").eval()
    history = pd.DataFrame(course.history, columns=list(HISTORY))
    record = run_record(
        run,
        step=step,
        fold=fold,
        seed=seed,
        device=device,
        examples={"train": len(train), "validation": len(validation)},
        n_parameters=sum(p.numel() for p in network.parameters()),
        name=name,
        data=data_digest,
        n_epochs=len(history),
        best_epoch=course.best_epoch,
        best_validation_loss=course.best_loss,
        stopped_early=course.stopped,
        seconds=round(float(history["seconds"].sum()), 3),
        resumed=course.resumed,
        **(origin or {}),
        **({} if planned is None else {"plan": _plan_record(planned)}),
    )
    return NetworkFit(network, history, record)


@contextmanager
def _for_workers(train: Examples, work_dir: Path, workers: int) -> Iterator[Examples]:
    """The examples with their sequences in a file for a while, so that other processes need no copy of them."""
    if not workers:
        yield train
        return
    path = work_dir / CODES
    try:
        yield replace(train, codes=train.codes.saved(path))
    finally:
        path.unlink(missing_ok=True)


def _plan_record(planned: Plan) -> dict[str, Any]:
    return {
        "peak_gib": round(planned.peak_bytes / GIB, 3),
        "limit_gib": round(planned.limit_bytes / GIB, 3),
        "micro_batch": planned.micro_batch,
        "evaluation_batch": planned.evaluation_batch,
        "flops_per_step": planned.flops_per_step,
        "flops_total": planned.flops_total,
    }


def _material(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a step less those that make no other training."""
    return settings | {"train": {key: value for key, value in settings["train"].items() if key not in _IMMATERIAL}}
