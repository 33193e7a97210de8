"""From settings to networks over chains, their training, and their files."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from bioattn.config import TrainConfig, TrunkConfig, digest
from bioattn.data.structure import CONTACT_ANGSTROM
from bioattn.errors import ConfigError, DataError
from bioattn.io.weights import load_weights, save_weights
from bioattn.nn.pair.distogram import contact_log_probabilities
from bioattn.nn.pair.network import DistanceNetwork, WindowNetwork
from bioattn.protein.batches import Protein, ProteinBatch, ProteinData, collate, told_nothing
from bioattn.protein.contacts import LEAST_SEPARATION
from bioattn.protein.plan import check_memory
from bioattn.rng import stream_seed
from bioattn.train.devices import resolve_device
from bioattn.train.loop import best_weights, make_folder, train_module
from bioattn.train.module import StepModule
from bioattn.train.provenance import versions

#: Borders of the distance bins: one angstrom each between 4 and 20.
EDGES_ANGSTROM = torch.arange(4.0, 21.0)
#: Parts of a block that a variant leaves out; None: no trunk at all.
LEFT_OUT: dict[str, tuple[str, ...] | None] = {
    "trunk": (),
    "told": (),
    "no_triangles": ("outgoing", "incoming", "starting", "ending"),
    "no_multiplication": ("outgoing", "incoming"),
    "no_attention": ("starting", "ending"),
    "no_single": ("single",),
    "window": None,
}
#: The trunk that training tells some contacts.
TOLD = "told"
#: Columns of the history of a training, one row per epoch.
HISTORY = ("epoch", "step", "learning_rate", "train_loss", "validation_loss", "seconds")
#: Settings that a network is built from.
_SHAPE = (
    "d_model", "d_pair", "n_blocks", "n_heads", "n_pair_heads", "d_pair_head", "d_hidden", "dropout", "recycles",
    "backend", "checkpointing",
)  # fmt: skip
#: Settings of the training loop; the rest of `TrainConfig` is about sequences of DNA.
_LOOP = (
    "epochs", "batch_size", "learning_rate", "weight_decay", "warmup_fraction", "gradient_clip", "patience", "device",
    "precision", "threads",
)  # fmt: skip
#: Chains without gradients at a time.
_EVALUATION_BATCH = 8


def build_network(variant: str, config: TrunkConfig, *, n_single: int, n_pair: int, seed: int) -> nn.Module:
    """Network of a variant with initial weights of a seed; the caller's random state is left alone.

    Raises
    ------
    ConfigError
        If there is no such variant.
    """
    if variant not in LEFT_OUT:
        raise ConfigError(f"no network '{variant}'; there are {', '.join(LEFT_OUT)}")
    without = LEFT_OUT[variant]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if without is None:
            return WindowNetwork(n_single, n_pair, EDGES_ANGSTROM)
        shape = {name: getattr(config, name) for name in _SHAPE}
        return DistanceNetwork(n_single, n_pair, EDGES_ANGSTROM, without=without, **shape)


def distogram_loss(logits: Tensor, distances_angstrom: Tensor, edges_angstrom: Tensor) -> tuple[Tensor, Tensor]:
    """Summed cross-entropy of the bins over pairs of different residues with known distance, and their number."""
    known = distances_angstrom.isfinite() & ~torch.eye(logits.shape[1], dtype=torch.bool, device=logits.device)
    bins = torch.bucketize(distances_angstrom.nan_to_num(0.0), edges_angstrom, right=True)
    # One place for what is left out, not a masked copy: shapes stay those of the batch.
    bins = torch.where(known, bins, -1)
    loss = F.cross_entropy(logits.float().permute(0, 3, 1, 2), bins, ignore_index=-1, reduction="sum")
    return loss, known.sum()


def contact_loss(logits: Tensor, distances_angstrom: Tensor, edges_angstrom: Tensor, residue_index: Tensor) -> Tensor:
    """Summed cross-entropy of contact or none, as the bins have it, over pairs of known distance.

    Pairs are counted twice, and those nearer than `LEAST_SEPARATION` in the sequence are left out.
    """
    apart = (residue_index[:, :, None] - residue_index[:, None, :]).abs() >= LEAST_SEPARATION
    log_contact, log_none = contact_log_probabilities(logits.float(), edges_angstrom, below_angstrom=CONTACT_ANGSTROM)
    log_likelihood = torch.where(distances_angstrom < CONTACT_ANGSTROM, log_contact, log_none)
    return -torch.where(distances_angstrom.isfinite() & apart, log_likelihood, 0.0).sum()


class DistanceModule(StepModule):
    """A network with the loss of its distogram, and of the contacts that follow from it.

    Both are proper scores, so that their sum favours true probabilities; of all pairs few are near contacts, to which
    the second gives weight.
    """

    def __init__(self, network: nn.Module, *, contact_weight: float, **further: Any) -> None:
        super().__init__(network, **further)
        self.contact_weight = contact_weight
        self._validation: list[tuple[Tensor, Tensor]] = []

    def _loss(self, batch: Any) -> tuple[Tensor, Tensor]:
        batch = ProteinBatch(*batch)
        logits, edges = self.network(*batch.inputs), self.network.distogram.edges_angstrom  # type: ignore[union-attr]
        loss, n = distogram_loss(logits, batch.distances_angstrom, edges)  # type: ignore[arg-type]
        contacts = contact_loss(logits, batch.distances_angstrom, edges, batch.residue_index)  # type: ignore[arg-type]
        return loss + self.contact_weight * contacts, n

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Collect the loss of a batch."""
        self._validation.append(self._loss(batch))

    def on_validation_epoch_end(self) -> None:
        """Sum the epoch up: training loss, validation loss."""
        totals, counts = zip(*self._validation, strict=True)
        self._validation.clear()
        validation_loss = float(torch.stack(totals).sum() / torch.stack(counts).sum().clamp(min=1))
        train_loss = self._mean_train_loss()
        self._checked(validation_loss)
        self.epoch_values = {
            "learning_rate": self._learning_rate(),
            "train_loss": train_loss,
            "validation_loss": validation_loss,
        }
        self.log_dict(self.epoch_values)


class DistanceFit(NamedTuple):
    """A trained network in evaluation mode with its best weights, its epochs, and where it came from."""

    network: nn.Module
    history: pd.DataFrame
    record: dict[str, Any]


def fit_distances(
    variant: str,
    config: TrunkConfig,
    train: Sequence[Protein],
    validation: Sequence[Protein],
    *,
    work_dir: Path,
    progress: bool = True,
) -> DistanceFit:
    """Train one network over many chains; killed and called again, it goes on from the last complete epoch.

    Parameters
    ----------
    work_dir : path
        Folder for checkpoints and logs, one for each variant.

    Raises
    ------
    ConfigError
        If there are fewer training chains than a batch, or a batch does not fit into memory.
    BioattnError
        If the loss stops being finite.
    """
    if len(train) < config.batch_size:
        raise ConfigError(
            f"protein.trunk.batch_size is {config.batch_size} but there are {len(train)} training chains: set it to at "
            f"most {len(train)}"
        )
    most_told = config.most_told if variant == TOLD else None
    if most_told is not None:
        train, validation = ([told_nothing(protein) for protein in part] for part in (train, validation))
    first = train[0]
    sizes = {"n_single": first.single.shape[1], "n_pair": first.n_pair_features}
    network = build_network(variant, config, seed=stream_seed(config.seed, "protein", "init"), **sizes)
    stream = stream_seed(config.seed, "protein", "train")
    loop = TrainConfig(**{name: getattr(config, name) for name in _LOOP})
    device = resolve_device(config.device, config.precision)
    check_memory(network, config, train, validation, accelerator=device.accelerator)
    data = ProteinData(
        train,
        validation,
        batch_size=config.batch_size,
        crop=config.crop,
        seed=stream,
        substitutions=config.substitutions,
        most_told=most_told,
    )
    settings = config.model_dump(mode="json", exclude={"variants", "threads", "inside_chains", "probe_chains"})
    module = DistanceModule(
        network,
        contact_weight=config.contact_weight,
        config=loop,
        steps_per_epoch=data.train_batches.n_batches,
        seed=stream,
        identity={"name": variant, "digest": digest(settings), "data": fingerprint([*train, *validation])},
    )
    make_folder(work_dir)
    course = train_module(module, data, loop, device=device, work_dir=work_dir, progress=progress)
    network.load_state_dict(best_weights(course))
    network.to("cpu").eval()
    history = pd.DataFrame(course.history, columns=list(HISTORY))
    record = {
        "variant": variant,
        **sizes,
        "digest": digest(settings),
        "settings": settings,
        "n_parameters": sum(p.numel() for p in network.parameters()),
        "n_chains": {"train": len(train), "validation": len(validation)},
        "device": device.name,
        "precision": device.precision,
        "best_epoch": course.best_epoch,
        "best_validation_loss": course.best_loss,
        "seconds": round(float(history["seconds"].sum()), 3),
        "resumed": course.resumed,
        "versions": versions(),
    }
    return DistanceFit(network, history, record)


def fingerprint(proteins: Sequence[Protein]) -> str:
    """First 12 hex digits of the SHA-256 of what networks learn from."""
    found = hashlib.sha256()
    for protein in proteins:
        for array in (protein.single, protein.distances_angstrom, protein.pair):
            if array is not None:
                found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:12]


def save_network(folder: str | Path, network: nn.Module, record: dict[str, Any]) -> None:
    """Write the weights and the record of a trained network."""
    save_weights(folder, network.state_dict(), record)


def load_network(folder: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """A network that `save_network` wrote, in evaluation mode, and its record.

    Raises
    ------
    DataError
        If it is missing, cut short, or of another kind.
    """
    tensors, record = load_weights(folder)
    try:
        config = TrunkConfig.model_validate(record["settings"])
        network = build_network(record["variant"], config, n_single=record["n_single"], n_pair=record["n_pair"], seed=0)
        network.load_state_dict(tensors)
    except (KeyError, ValueError, RuntimeError) as error:
        raise DataError(f"{folder}: not a network over chains ({error}): train it again") from None
    return network.eval(), record


@torch.no_grad()
def predict_logits(network: nn.Module, proteins: Sequence[Protein]) -> list[NDArray[np.float32]]:
    """Logits (L, L, bins) of each protein, in the given order."""
    device = next(network.parameters()).device
    order = np.argsort([len(p.single) for p in proteins], kind="stable")
    made: list[NDArray[np.float32]] = [np.empty(0, dtype=np.float32)] * len(proteins)
    for start in range(0, len(order), _EVALUATION_BATCH):
        rows = order[start : start + _EVALUATION_BATCH]
        batch = collate([proteins[row] for row in rows])
        logits = network(*(None if x is None else x.to(device) for x in batch.inputs))
        for row, found in zip(rows, logits.float().cpu().numpy(), strict=True):
            n = len(proteins[row].single)
            made[row] = found[:n, :n]
    return made
