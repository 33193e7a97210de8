"""Interaction of two sites in the model: a double difference of interventions, over replicates.

    epistasis = f(both) - f(a only) - f(b only) + f(neither)

on the model's pre-link scale. Replicates are independently trained models, each
on its own resample of the data: they carry the uncertainty of the effect.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bioattn import rng
from bioattn.causal.nulls import crossed_interval, directed_sign_flip_p, minimum_effect_p, sign_flip_p


def instance_effects(cells: pd.DataFrame, *, inserted: bool = False) -> pd.DataFrame:
    """Effects of each instance, averaged over draws.

    Parameters
    ----------
    cells : DataFrame
        `bioattn.causal.motif_ablation.knock_out`, or `bioattn.causal.marginalize.KnockIn.pairs`.
    inserted : bool
        The latter: the control y1c, y0c holds a decoy of b in place of b, not a site of b without another locus.

    Returns
    -------
    DataFrame
        instance, motif_a, motif_b, epistasis, epistasis_cut (edge cut in all
        four cells), epistasis_isolated (no other token reads them either), control
        (epistasis of a with the control), main_a and main_b (effect of a site
        without the other), edge (effect of cutting the edge where both sites
        are), edge_moved (of the moved edge), patch (of patching its messages), neither (readout
        without both sites).
        NaN where cells were not evaluated.
    """
    missing = pd.Series(np.nan, index=cells.index)
    control = (
        cells["y1c"] - cells["y10"] - cells["y0c"] + cells["y00"]
        if inserted
        else cells["y11"] - cells["y1c"] - cells["y01"] + cells["y0c"]
    )
    effects = cells[["instance", "motif_a", "motif_b"]].assign(
        epistasis=_double_difference(cells, ""),
        epistasis_cut=_double_difference(cells, "_cut") if "y11_cut" in cells else missing,
        epistasis_isolated=_double_difference(cells, "_isolated") if "y11_isolated" in cells else missing,
        control=control,
        main_a=cells["y10"] - cells["y00"],
        main_b=cells["y01"] - cells["y00"],
        neither=cells["y00"],
        edge=cells["y11"] - cells["y11_cut"] if "y11_cut" in cells else missing,
        edge_moved=cells["y11"] - cells["y11_moved"] if "y11_moved" in cells else missing,
        patch=cells["y11"] - cells["y11_patched"] if "y11_patched" in cells else missing,
    )
    return effects.groupby(["motif_a", "motif_b", "instance"], as_index=False).mean()


def _double_difference(cells: pd.DataFrame, suffix: str) -> pd.Series:
    y11, y10, y01, y00 = (cells[name + suffix] for name in ("y11", "y10", "y01", "y00"))
    return y11 - y10 - y01 + y00


def readout_spread(knockouts: Sequence[pd.DataFrame]) -> float:
    """Standard deviation of the readout over intact real sequences (`knock_out`, y11), mean over replicates."""
    spreads = [cells.drop_duplicates("sequence")["y11"].std() for cells in knockouts]
    return float(np.nan_to_num(np.mean(spreads))) if spreads else 0.0


def minimum_effect(replicates: Sequence[pd.DataFrame], *, controls: Sequence[bool] = (), spread: float = 0.0) -> float:
    """Smallest epistasis that counts: the largest of what main effects, readouts and decoys say.

    That is a tenth of the median main effect, a tenth of the readout's spread over real
    sequences (less is nothing that predictions turn on), and the 95 % quantile of decoys.

    Decoys are pairs with a control motif (a spacer that holds nothing) where the
    run names some, else the epistasis of motifs with random control loci.

    Parameters
    ----------
    controls : sequence of bool
        Which motif indices are controls.
    spread : float
        See `readout_spread`.
    """
    pooled = pd.concat(replicates).groupby(["motif_a", "motif_b"], as_index=False).mean()
    control_motifs = np.flatnonzero(controls)
    is_decoy = (pooled["motif_a"].isin(control_motifs) | pooled["motif_b"].isin(control_motifs)).to_numpy()
    decoys = pooled.loc[is_decoy, "epistasis"] if is_decoy.any() else pooled["control"]
    mains = pooled.loc[~is_decoy, ["main_a", "main_b"]].abs().to_numpy()
    main = 0.1 * np.median(mains) if mains.size else 0.0
    return float(max(main, 0.1 * spread, np.quantile(decoys.abs(), 0.95)))


def pair_statistics(
    replicates: Sequence[pd.DataFrame], *, minimum: float, permutations: int, seed: int
) -> pd.DataFrame:
    """Effects and tests of every pair over replicates.

    Parameters
    ----------
    replicates : sequence of DataFrame
        `instance_effects` of each trained model, on the same instances.
    minimum : float
        Smallest epistasis that counts, on the pre-link scale.

    Returns
    -------
    DataFrame
        One row per pair: n_instances, the mean effects, epistasis_ci_low and
        _high (over replicates and instances, t), epistasis_p (minimum-effect
        test over replicates), permutation_p (against the control), edge_knockout_p
        (against the moved edge), mediated_fraction, third_party_fraction and
        readout_fraction (of the epistasis: gone with the edge cut; gone only when no other
        token reads the sites either; left then), seeds_supporting, and the mean
        readout of the four cells. Empty without pairs.
    """
    rows = []
    grouped = [dict(list(r.groupby(["motif_a", "motif_b"]))) for r in replicates]
    for pair in sorted(grouped[0]):
        tables = [g[pair].set_index("instance") for g in grouped]
        effect = {name: np.stack([t[name].to_numpy() for t in tables]) for name in _EFFECTS}
        draw = rng.stream(seed, "nulls", "pairs", *pair)
        rows.append({"motif_a": pair[0], "motif_b": pair[1]} | _one_pair(effect, minimum, permutations, draw))
    return pd.DataFrame(rows)


_EFFECTS = (
    "epistasis", "epistasis_cut", "epistasis_isolated", "control", "main_a", "main_b", "neither", "edge", "edge_moved",
    "patch",
)  # fmt: skip


def _one_pair(
    effect: dict[str, NDArray[np.float64]], minimum: float, permutations: int, draw: np.random.Generator
) -> dict[str, Any]:
    """Statistics of one pair from effects (R, I)."""
    by_replicate = effect["epistasis"].mean(1)
    mean = float(by_replicate.mean())
    low, high = crossed_interval(effect["epistasis"])
    beyond_control = (effect["epistasis"] - effect["control"]).mean(0)
    beyond_moved = (np.abs(effect["edge"]) - np.abs(effect["edge_moved"])).mean(0)
    supporting = int(((np.sign(by_replicate) == np.sign(mean)) & (np.abs(by_replicate) > minimum)).sum())
    # Shares of an effect that does not count say nothing.
    whole = mean if abs(mean) > minimum else np.nan
    cut, isolated = effect["epistasis_cut"].mean(), effect["epistasis_isolated"].mean()
    return {
        "n_instances": effect["epistasis"].shape[1],
        "main_a": effect["main_a"].mean(),
        "main_b": effect["main_b"].mean(),
        "epistasis_effect": mean,
        "epistasis_ci_low": low,
        "epistasis_ci_high": high,
        "epistasis_p": minimum_effect_p(by_replicate, minimum),
        "permutation_p": directed_sign_flip_p(beyond_control, mean, permutations=permutations, rng=draw),
        "control_epistasis": effect["control"].mean(),
        "edge_knockout_effect": effect["edge"].mean(),
        "edge_patch_effect": effect["patch"].mean(),
        "edge_knockout_p": sign_flip_p(beyond_moved, permutations=permutations, rng=draw),
        "mediated_fraction": 1 - cut / whole,
        "third_party_fraction": (cut - isolated) / whole,
        "readout_fraction": isolated / whole,
        "seeds_supporting": supporting,
        "cell_neither": effect["neither"].mean(),
        "cell_a": (effect["neither"] + effect["main_a"]).mean(),
        "cell_b": (effect["neither"] + effect["main_b"]).mean(),
        "cell_both": (effect["neither"] + effect["main_a"] + effect["main_b"] + effect["epistasis"]).mean(),
    }
