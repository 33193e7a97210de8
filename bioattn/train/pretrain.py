"""Pretraining: the stem and the encoder of a model learn from unlabelled sequences to predict bases that are hidden."""

import hashlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import lightning.pytorch as pl
import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bioattn.config import (
    PRETRAIN_FROM_TRAIN,
    AugmentConfig,
    ModelConfig,
    PretrainConfig,
    RunConfig,
    TrainConfig,
    digest,
    step_settings,
)
from bioattn.data import alphabet
from bioattn.data.motif import Motif
from bioattn.errors import ConfigError, DataError
from bioattn.io.weights import WEIGHTS
from bioattn.models import SequenceModel, build_model, load_model
from bioattn.rng import stream, stream_seed
from bioattn.tokens.base import N_SPECIAL, touched
from bioattn.tokens.bpe import BpeTokenizer, train_bpe
from bioattn.train.batches import Batches
from bioattn.train.devices import resolve_device
from bioattn.train.loop import best_weights, make_folder, train_module, work_folder
from bioattn.train.module import StepModule, StepOptions
from bioattn.train.plan import plan
from bioattn.train.provenance import run_record
from bioattn.train.store import Codes, Examples
from bioattn.train.windows import Windows, held_out_digest, longest_and_held_out, markov_bits, read_windows

#: Columns of the history of a pretraining, one row per epoch. Losses are bits per hidden base, or per hidden token
#: where tokens are looked up; validation_accuracy is the share of these that are guessed right. The last two are
#: what Markov models of the training windows need for the held-out ones. They see all bases before the one that they
#: predict, so `isolated_bits` is what compares with them; a whole span is harder to predict. Where tokens overlap,
#: every base is predicted several times, and bits per base add up; of learned words the borders are seen.
PRETRAIN_HISTORY = (
    "epoch", "step", "learning_rate", "train_loss", "validation_loss", "validation_accuracy",
    "validation_bits_per_base", "seconds", "order0_bits", "order3_bits",
)  # fmt: skip
#: Settings of the model that pretrained weights depend on: others, such as pooling or dropout, may differ.
_SHARED = (
    "tokenizer", "stem", "encoder", "d_model", "n_layers", "n_heads", "d_feedforward", "feedforward", "positions",
)  # fmt: skip
#: Share of single bases that are hidden for `isolated_bits`: so few that their neighbours are seen.
_ISOLATED = 0.02
#: Windows without gradients at a time.
_EVALUATION_BATCH = 256
_BITS = 1 / math.log(2)


class Pretraining(NamedTuple):
    """A pretrained model in evaluation mode, whose readout is untrained, its epochs, and where it came from."""

    model: SequenceModel
    history: pd.DataFrame
    record: dict[str, Any]


# ------------------------------------------------------------------- hidden bases


def hidden_bases(n: int, length: int, *, fraction: float, span: int, draw: np.random.Generator) -> NDArray[np.bool_]:
    """Which bases (B, L) to hide: spans side by side at a random offset, each hidden with probability `fraction`.

    So every base is hidden with that very probability. Neighbouring spans may be
    hidden together; those at the ends may be shorter.
    """
    offset_B1 = draw.integers(span, size=(n, 1))
    hidden_Bs = draw.random((n, -(-(length + span - 1) // span))) < fraction
    return np.take_along_axis(hidden_Bs, (np.arange(length) + offset_B1) // span, axis=1)


class HiddenBatches:
    """Batches (codes int64 (B, L), hidden bool (B, L)) of windows.

    Training windows come in another order, on other strands and with other bases
    hidden in each epoch, all drawn from (seed, epoch, number of the batch) only.
    Validation windows are the same in every epoch.
    """

    def __init__(self, windows: Codes, batch_size: int, rules: PretrainConfig, *, seed: int, train: bool) -> None:
        n = len(windows)
        examples = Examples(np.full(n, None), windows, torch.zeros(n, 1), np.arange(n))
        augment = AugmentConfig(reverse_complement=rules.both_strands)
        self._batches = Batches(examples, batch_size, seed=seed if train else None, augment=augment)
        self._rules, self._seed, self._train = rules, seed, train
        self.n_batches, self.n_parts = self._batches.n_batches, 1

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches are given next."""
        self._batches.set_epoch(epoch)

    def __len__(self) -> int:
        return self.n_batches

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        which = self._batches.epoch if self._train else "validation"
        for number, (codes_BL, _) in enumerate(self._batches):
            draw = stream(self._seed, "hidden", which, number)
            n, length = codes_BL.shape
            hidden = hidden_bases(n, length, fraction=self._rules.masked_fraction, span=self._rules.span_bp, draw=draw)
            yield codes_BL, torch.from_numpy(hidden)


class HiddenData(pl.LightningDataModule):
    """Lightning data module over training and validation windows."""

    def __init__(self, windows: Windows, rules: PretrainConfig, *, seed: int) -> None:
        super().__init__()
        self.train_batches = HiddenBatches(windows.train, rules.batch_size, rules, seed=seed, train=True)
        self.validation_batches = HiddenBatches(windows.validation, _EVALUATION_BATCH, rules, seed=seed, train=False)

    def train_dataloader(self) -> HiddenBatches:
        """Shuffled training batches."""
        return self.train_batches

    def val_dataloader(self) -> HiddenBatches:
        """Validation batches, always the same."""
        return self.validation_batches


# -------------------------------------------------------------------------- model


class Guesses(NamedTuple):
    """Losses in nats and hits of what was hidden, each (n,), and how many different bases that is."""

    losses: Tensor
    right: Tensor
    n_bases: Tensor


class MaskedModel(nn.Module):
    """A model with a head that predicts what is hidden: the bases, or the tokens where these are looked up.

    Where a stem computes tokens, each predicts its `token_bp` bases from four logits
    each; where they are looked up, each predicts its id.
    """

    def __init__(self, network: SequenceModel) -> None:
        super().__init__()
        self.network = network
        d_model = network.encoder.norm.normalized_shape[0]
        words = network.tokenizer
        n_logits = network.token_bp * alphabet.N_LETTERS if words is None else words.n_tokens
        self.head = nn.Linear(d_model, n_logits)

    def forward(self, codes_BL: Tensor, hidden_BL: Tensor) -> Guesses:
        """Guesses of the known bases among the hidden ones, or of the known tokens that hold a hidden base."""
        context_BtD = self._context(codes_BL, hidden_BL)
        words = self.network.tokenizer
        if words is None:
            chosen = hidden_BL & (codes_BL < alphabet.N_LETTERS)
            by_base = self.head(context_BtD).unflatten(-1, (-1, alphabet.N_LETTERS)).flatten(1, 2)
            logits, wanted = by_base[:, : codes_BL.shape[1]][chosen], codes_BL[chosen]
            n_bases = chosen.sum()
        else:
            found = words.encode(codes_BL)
            chosen = touched(hidden_BL, found.start, found.end) & (found.ids >= N_SPECIAL)
            logits, wanted = self.head(context_BtD[chosen]), found.ids[chosen]
            n_bases = _covered(found.start, found.end, chosen)
        losses = F.cross_entropy(logits.float(), wanted, reduction="none")
        return Guesses(losses, logits.argmax(-1) == wanted, n_bases)

    def _context(self, codes_BL: Tensor, hidden_BL: Tensor) -> Tensor:
        """Tokens (B, t, D) after the encoder, where hidden bases are not seen."""
        # With the token before the sequence, so that every token has the position it will have in training.
        encoded_BtD, _ = self.network.encode(*self.network.embed(codes_BL, hidden_BL))
        return encoded_BtD[:, self.network.n_prefix :]


def _covered(start: Tensor, end: Tensor, chosen: Tensor) -> Tensor:
    """Number of bases that the chosen of the tokens (B, t) cover, each counted once however many cover it."""
    ends = torch.where(chosen, end, 0)
    before = F.pad(ends.cummax(1).values[:, :-1], (1, 0))
    return torch.where(chosen, end - torch.maximum(start, before), 0).sum()


class PretrainModule(StepModule):
    """A masked model with its loss: mean negative log likelihood of what is hidden."""

    network: MaskedModel

    def __init__(self, network: MaskedModel, **further: Unpack[StepOptions]) -> None:
        super().__init__(network, **further)
        self._validation: list[Guesses] = []

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Collect the guesses of a batch."""
        found = self.network(*batch)
        self._validation.append(Guesses(found.losses.double().sum(), found.right, found.n_bases))

    def on_validation_epoch_end(self) -> None:
        """Sum the epoch up, in bits."""
        nats, right, n_bases = zip(*self._validation, strict=True)
        self._validation.clear()
        total, hits = torch.stack(nats).sum() * _BITS, torch.cat(right)
        train_loss = self._mean_train_loss() * _BITS
        self.epoch_values = {
            "learning_rate": self._learning_rate(),
            "train_loss": train_loss,
            "validation_loss": self._checked(float(total / max(len(hits), 1))),
            "validation_accuracy": float(hits.float().mean()),
            "validation_bits_per_base": float(total / torch.stack(n_bases).sum().clamp(min=1)),
        }
        self.log_dict(self.epoch_values)

    def _loss(self, batch: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
        losses = self.network(*batch).losses
        return losses.sum(), torch.tensor(len(losses), device=losses.device)


# -------------------------------------------------------------------- pretraining


def pretrain(
    run: RunConfig,
    sequences: pd.DataFrame | str | Path,
    split: pd.DataFrame,
    *,
    fasta: Sequence[str | Path] = (),
    work_dir: str | Path | None = None,
    motifs: Sequence[Motif] = (),
    progress: bool = True,
) -> Pretraining:
    """Train stem and encoder of a run's model to predict hidden bases of unlabelled sequences.

    Windows that share `windows.LEAK_BP` bases in a row with a sequence that any fold
    holds out are left out first. Killed and called again with the same arguments it
    goes on from the last complete epoch, as `fit` does. The weights are those of the
    epoch with the smallest loss on held-out windows.

    Parameters
    ----------
    run : RunConfig
        With a section `pretrain`.
    sequences : DataFrame or path
        Sequences of the run: their length is that of the windows by default, and the held-out ones must not be seen.
    split : DataFrame
    fasta : sequence of path
        Read instead of `run.pretrain.fasta`.
    work_dir : path, optional
        Folder for checkpoints and logs.
    motifs : sequence of Motif
        For a stem of kind "pwm".

    Raises
    ------
    ConfigError
        If the run has no section `pretrain`, or a batch does not fit into memory.
    DataError
        If a file cannot be read or too few windows are left.
    BioattnError
        If the loss stops being finite.
    """
    rules = run.pretrain
    if rules is None:
        raise ConfigError("the run has no section 'pretrain': add one with pretrain.fasta")
    config = _train_config(run, rules)
    longest, held_out = longest_and_held_out(sequences, split)
    seed = stream_seed(run.seed, "pretrain")
    windows = read_windows(fasta or rules.fasta, rules.window_bp or longest, rules, held_out, seed=seed)
    tokenizer = None
    if run.model.tokenizer.kind == "bpe":
        words = run.model.tokenizer.vocabulary
        tokenizer = train_bpe(windows.train.texts(), vocabulary=words, both_strands=rules.both_strands)
    _check_memory(run, config, windows, motifs, tokenizer)
    device = resolve_device(config.device, config.precision)
    model = build_model(run.model, n_readouts=1, motifs=motifs, seed=stream_seed(seed, "init"), tokenizer=tokenizer)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "head"))
        network = MaskedModel(model)
    data = HiddenData(windows, rules, seed=seed)
    data_digest = f"{data_fingerprint(windows.train)}-{data_fingerprint(windows.validation)}"
    module = PretrainModule(
        network,
        config=config,
        steps_per_epoch=data.train_batches.n_batches,
        seed=seed,
        identity={"name": "pretrain", "digest": _digest(run, rules, config), "data": data_digest},
    )
    with work_folder(work_dir) as folder:
        make_folder(folder)
        course = train_module(module, data, config, device=device, work_dir=folder, progress=progress)
    network.load_state_dict(best_weights(course))
    network.to(device.accelerator).eval()
    alone = isolated_bits(network, windows.validation, rules, seed=seed)
    network.to("cpu")
    strands = rules.both_strands
    bars = {
        f"order{order}_bits": markov_bits(windows.train, windows.validation, order=order, both_strands=strands)
        for order in (0, 3)
    }
    history = pd.DataFrame([row | bars for row in course.history], columns=list(PRETRAIN_HISTORY))
    best = course.history[course.best_epoch]
    record = run_record(
        run,
        step="pretrain",
        fold=None,
        seed=None,
        device=device,
        examples={kind: windows.counts[kind] for kind in ("train", "validation")},
        n_parameters=sum(p.numel() for p in model.parameters()),
        windows=windows.counts,
        window_bp=windows.train.width,
        held_out=held_out_digest(split),
        data=data_digest,
        n_epochs=len(history),
        best_epoch=course.best_epoch,
        best_validation_loss=course.best_loss,
        validation_bits_per_base=best["validation_bits_per_base"],
        validation_accuracy=best["validation_accuracy"],
        isolated_bits=alone,
        **bars,
        seconds=round(float(history["seconds"].sum()), 3),
        resumed=course.resumed,
        **({} if tokenizer is None else {"n_tokens": tokenizer.n_tokens}),
    )
    return Pretraining(model, history, record)


@torch.no_grad()
def isolated_bits(network: MaskedModel, windows: Codes, rules: PretrainConfig, *, seed: int) -> float | None:
    """Bits per base for single hidden bases whose neighbours are seen; None where tokens are looked up.

    A Markov model too sees the bases next to the one that it predicts.
    """
    if network.network.tokenizer is not None:
        return None
    single = rules.model_copy(update={"span_bp": 1, "masked_fraction": _ISOLATED})
    place = network.head.weight.device
    nats, n = 0.0, 0
    for codes_BL, hidden_BL in HiddenBatches(windows, _EVALUATION_BATCH, single, seed=seed, train=False):
        losses = network(codes_BL.to(place), hidden_BL.to(place)).losses
        nats, n = nats + float(losses.double().sum()), n + len(losses)
    return nats * _BITS / max(n, 1)


def _train_config(run: RunConfig, rules: PretrainConfig) -> TrainConfig:
    """Settings of the training loop: those of `pretrain`, and of `train` what it leaves open. It never stops early."""
    shared = {name: getattr(run.train, name) for name in PRETRAIN_FROM_TRAIN}
    own = {name: getattr(rules, name) for name in ("epochs", "batch_size", "learning_rate")}
    return TrainConfig(**shared, **own, patience=rules.epochs)


def _digest(run: RunConfig, rules: PretrainConfig, config: TrainConfig) -> str:
    """Digest of the settings that make another pretraining."""
    settings = step_settings(run, "pretrain")
    kept = {"seed": run.seed, "motifs": settings["motifs"], "model": settings["model"]}
    own = rules.model_dump(mode="json", exclude={"freeze_epochs", "fasta"})
    return digest(kept | {"pretrain": own, "train": config.model_dump(mode="json", exclude={"memory_gb"})})


def _check_memory(
    run: RunConfig, config: TrainConfig, windows: Windows, motifs: Sequence[Motif], tokenizer: BpeTokenizer | None
) -> None:
    """Raise `ConfigError` if a batch does not fit: there are no parts of batches here."""
    lengths = windows.train.lengths
    planned = plan(
        len(windows.train),
        windows.train.width,
        run.model_copy(update={"train": config}),
        n_readouts=1,
        motifs=motifs,
        padded=bool((lengths < windows.train.width).any()),
        n_validation=_EVALUATION_BATCH,
        tokenizer=tokenizer,
    )
    if planned.micro_batch < config.batch_size:
        raise ConfigError(
            f"pretrain.batch_size is {config.batch_size}, but of windows of {windows.train.width} bp only "
            f"{planned.micro_batch} at a time fit into memory: set pretrain.batch_size to at most that, or lower "
            "pretrain.window_bp"
        )


def data_fingerprint(windows: Codes) -> str:
    """Twelve hex digits that change when any base of the windows, or their order, does."""
    found = hashlib.sha256()
    for codes in windows.chunks():
        found.update(codes.data)
    return found.hexdigest()[:12]


# -------------------------------------------------------------- pretrained weights


class Pretrained(NamedTuple):
    """Weights of stem and encoder, the learned tokenizer if there is one, and a JSON-ready summary of their origin."""

    tensors: dict[str, Tensor]
    tokenizer: BpeTokenizer | None
    summary: dict[str, Any]

    def load_into(self, model: SequenceModel) -> list[str]:
        """Give a model these weights, and return the names of its parameters that have them.

        Raises
        ------
        ConfigError
            If stem or encoder of the model have other parameters, or of other shapes.
        """
        state = model.state_dict()
        wanted = {name: value for name, value in state.items() if _is_shared(name)}
        for name, value in wanted.items():
            found = self.tensors.get(name)
            if name != "prefix" and (found is None or found.shape != value.shape):
                what = "none" if found is None else tuple(found.shape)
                raise ConfigError(
                    f"pretrained weights do not fit the model: '{name}' has the shape {tuple(value.shape)}, the "
                    f"pretrained one {what}: pretrain with the same settings and motifs"
                )
        loaded = {name: self.tensors[name] for name in wanted if name in self.tensors}
        model.load_state_dict(state | loaded)
        return [name for name, _ in model.named_parameters() if name in loaded]


def read_pretrained(folder: str | Path, config: ModelConfig, split: pd.DataFrame) -> Pretrained:
    """Weights that the verb `pretrain` wrote, for a model of this configuration.

    Raises
    ------
    ConfigError
        If the model was pretrained with settings that change what its weights mean.
    DataError
        If the folder holds no whole model, not a pretrained one, or one that may have seen sequences that this split
        holds out.
    """
    model, record = load_model(folder)
    if record.get("step") != "pretrain":
        raise DataError(f"{folder}: holds a model of the step '{record.get('step')}', expected one of 'pretrain'")
    before = ModelConfig.model_validate(record["architecture"]["model"])
    differ = [f"model.{name}" for name in _SHARED if getattr(before, name) != getattr(config, name)]
    if differ:
        raise ConfigError(f"{folder}: was pretrained with other settings of {', '.join(differ)}: pretrain again")
    if record["held_out"] != held_out_digest(split):
        raise DataError(
            f"{folder}: was pretrained for a split that holds out other sequences, so it may have seen those of this "
            "one: pretrain again with this split"
        )
    weights = (Path(folder) / WEIGHTS).read_bytes()
    kept = (
        "windows", "window_bp", "best_epoch", "validation_bits_per_base", "isolated_bits", "order0_bits", "order3_bits",
    )  # fmt: skip
    summary = {"digest": hashlib.sha256(weights).hexdigest()[:12], **{key: record[key] for key in kept}}
    tokenizer = model.tokenizer if isinstance(model.tokenizer, BpeTokenizer) else None
    return Pretrained({k: v for k, v in model.state_dict().items() if _is_shared(k)}, tokenizer, summary)


def _is_shared(name: str) -> bool:
    return name.startswith(("stem.", "encoder.")) or name == "prefix"
