"""Whether heads matter, against heads of models with random weights, and which of them do the same."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bioattn.config import TaskConfig
from bioattn.explain.head_ablation import Scored, ablate_heads, head_name, heads_of
from bioattn.explain.head_similarity import effective_heads, head_similarity
from bioattn.explain.path_patching import Head
from bioattn.explain.random_models import p_random, random_model_losses
from bioattn.models import SequenceModel

#: Patterns of two heads that overlap as much are one.
_SAME_PATTERN = 0.8
#: Heads of random models may be worth as much with this probability.
_MATTERS_P = 0.05


@dataclass(frozen=True)
class Worth:
    """Whether heads matter, and which do the same.

    Attributes
    ----------
    heads : list of (layer, head)
    ablation : DataFrame
        See `bioattn.explain.head_ablation.ablate_heads`; empty without targets.
    similarity : ndarray, shape (C, C)
    null : ndarray
        Loss that taking away each head of random models costs.
    without_doubles : dict of (layer, head) to float
        Loss that taking away a head costs once all heads of the same pattern are gone.
    summary : dict
    """

    heads: list[Head]
    ablation: pd.DataFrame
    similarity: NDArray[np.float64]
    null: NDArray[np.float64]
    without_doubles: dict[Head, float]
    summary: dict[str, Any]

    @classmethod
    def of(
        cls, model: SequenceModel, scored: Scored | None, task: TaskConfig | None, codes: NDArray[np.uint8], seed: int
    ) -> "Worth":
        similarity = head_similarity(model, codes, seed=seed)
        summary: dict[str, Any] = {"n_heads": len(similarity), "effective_heads": effective_heads(similarity)}
        if scored is None or task is None:
            return cls(heads_of(model), pd.DataFrame(), similarity, np.zeros(0), {}, summary)
        ablation = ablate_heads(model, scored.codes, scored.targets, task, readout=task.readout, seed=seed)
        null = random_model_losses(model, scored, task, seed=seed)
        known = null[np.isfinite(null)]
        summary |= {
            "metric": ablation["metric"].iloc[0],
            "n_scored": len(scored.codes),
            "n_random_heads": len(known),
            "random_loss_q95": float(np.quantile(known, 0.95)) if len(known) else None,
        }
        without_doubles = cls._without_doubles(model, scored, task, similarity, seed)
        return cls(heads_of(model), ablation, similarity, null, without_doubles, summary)

    @staticmethod
    def _without_doubles(
        model: SequenceModel, scored: Scored, task: TaskConfig, similarity: NDArray[np.float64], seed: int
    ) -> dict[Head, float]:
        """What each head with doubles costs once these are gone: cost of all of them less that of the others."""
        heads = heads_of(model)
        alike = {heads[c]: [heads[i] for i in np.flatnonzero(row >= _SAME_PATTERN)] for c, row in enumerate(similarity)}
        doubles = {head: (tuple(all_), tuple(h for h in all_ if h != head)) for head, all_ in alike.items()}
        doubles = {head: sets for head, sets in doubles.items() if sets[1]}
        if not doubles:
            return {}
        sets = list(dict.fromkeys(one for both in doubles.values() for one in both))
        table = ablate_heads(
            model, scored.codes, scored.targets, task,
            readout=task.readout, sets=sets, kinds=["mean"], draws=0, seed=seed,
        )  # fmt: skip
        loss = dict(zip(sets, table["loss"].astype(float), strict=True))
        return {head: loss[together] - loss[others] for head, (together, others) in doubles.items()}

    def columns(self, layer: int, head: int, c: int) -> dict[str, Any]:
        """What the table says of the worth of a head."""
        row: dict[str, Any] = {"p_random": float("nan")}
        if len(self.similarity) > 1:
            other = _nearest(self.similarity, c)
            row |= {"similar_head": head_name(self.heads[other]), "similarity": self.similarity[c, other]}
        if len(self.ablation):
            here = self.ablation[(self.ablation["layer"] == layer) & (self.ablation["head"] == head)]
            mean = here[here["kind"] == "mean"].iloc[0]
            for name in ("loss", "drop", "effect"):
                row |= {f"ablation_{name}{end}": mean[f"{name}{end}"] for end in ("", "_ci_low", "_ci_high")}
            row["p_random"] = p_random(float(mean["loss"]), self.null)
        return row

    def matters(self, row: dict[str, Any]) -> bool | None:
        """Whether a head is worth more than heads of random models; None if nothing is known."""
        return None if np.isnan(row["p_random"]) else bool(row["p_random"] <= _MATTERS_P)

    def redundant(self, head: Head) -> bool:
        """Whether a head has doubles, without which it is worth more than heads of random models."""
        return head in self.without_doubles and p_random(self.without_doubles[head], self.null) <= _MATTERS_P


def _nearest(similarity: NDArray[np.float64], c: int) -> int:
    others = similarity[c].copy()
    others[c] = -1
    return int(others.argmax())
