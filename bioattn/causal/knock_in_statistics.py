"""Statistics of pairs that were put into backgrounds, over replicates, on the readout's scale and on the latent one."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bioattn import rng
from bioattn.causal.epistasis import instance_effects, minimum_effect, pair_statistics
from bioattn.causal.latent import LatentScale, latent_scale
from bioattn.causal.nulls import benjamini_hochberg, decoy_q, max_statistic_p
from bioattn.config import InteractionsConfig

_PAIR = ["motif_a", "motif_b"]
_CELLS = ("y11", "y10", "y01", "y00")
_SHARES = ("mediated_fraction", "third_party_fraction", "readout_fraction")
#: Readouts that follow the latent scale more closely than this need no transform.
_LINEAR = 0.98


def knock_in_statistics(
    screens: Sequence[pd.DataFrame],
    knock_ins: Sequence[pd.DataFrame],
    *,
    n_motifs: int,
    spread: float,
    config: InteractionsConfig,
    seed: int,
) -> pd.DataFrame:
    """Statistics of all pairs: those that were tested at full depth, the others from the screen.

    Parameters
    ----------
    screens, knock_ins : sequence of DataFrame
        `bioattn.causal.marginalize.KnockIn.pairs` of each replicate: of all pairs in few
        backgrounds, of the tested ones in many; both with pairs of decoys.
    n_motifs : int
        Motifs of this index or above are decoys.
    spread : float
        Of readouts over real sequences: see `bioattn.causal.epistasis.readout_spread`.

    Returns
    -------
    DataFrame
        `bioattn.causal.epistasis.pair_statistics`, with n_backgrounds, minimum_effect,
        epistasis_maxt_p and epistasis_decoy_q (full depth only); the same effect on the
        latent scale as epistasis_latent, _latent_q, _latent_permutation_p,
        _latent_supporting, _latent_minimum; latent_correlation (of readouts with themselves
        on it) and scale, "latent" where that is below 0.98 and most models' transforms halve the
        epistasis of most pairs, else "readout": the shares of the epistasis are those on that scale.
    """
    real = [_of_motifs(screen, n_motifs) for screen in screens]
    scales = [latent_scale(cells) for cells in real]
    straight = np.mean(
        [scale.correlation(cells[list(_CELLS)].to_numpy()) for scale, cells in zip(scales, real, strict=True)]
    )
    straightens = np.mean([scale.straightens(cells) for scale, cells in zip(scales, real, strict=True)])
    table = _statistics(screens, knock_ins, n_motifs=n_motifs, spread=spread, config=config, seed=seed)
    screens, knock_ins = (
        [_transformed(cells, scale) for cells, scale in zip(tables, scales, strict=True)]
        for tables in (screens, knock_ins)
    )
    latent = _statistics(screens, knock_ins, n_motifs=n_motifs, spread=spread, config=config, seed=seed)
    latent["epistasis_latent_q"] = benjamini_hochberg(latent["epistasis_p"])
    names = {
        "epistasis_effect": "epistasis_latent",
        "permutation_p": "epistasis_latent_permutation_p",
        "seeds_supporting": "epistasis_latent_supporting",
        "minimum_effect": "epistasis_latent_minimum",
    }
    scale = "latent" if straight < _LINEAR and straightens > 0.5 else "readout"
    kept = [*_PAIR, *names.values(), "epistasis_latent_q"]
    if scale == "latent":
        table, kept = table.drop(columns=list(_SHARES)), [*kept, *_SHARES]
    latent = latent.rename(columns=names)[kept]
    return table.merge(latent, on=_PAIR).assign(latent_correlation=straight, scale=scale)


def screened(screens: Sequence[pd.DataFrame], *, n_motifs: int, config: InteractionsConfig) -> pd.DataFrame:
    """Epistasis of all pairs in the screen, and the smallest that counts.

    Returns
    -------
    DataFrame
        motif_a, motif_b, screen_epistasis (mean over replicates and backgrounds), minimum_effect.
    """
    effects = [instance_effects(cells, inserted=True) for cells in screens]
    mean = pd.concat(effects).groupby(_PAIR, as_index=False)[["epistasis"]].mean()
    table = _of_motifs(mean, n_motifs).rename(columns={"epistasis": "screen_epistasis"})
    return table.assign(minimum_effect=_minimum(effects, n_motifs, config)).reset_index(drop=True)


def _statistics(
    screens: Sequence[pd.DataFrame],
    knock_ins: Sequence[pd.DataFrame],
    *,
    n_motifs: int,
    spread: float,
    config: InteractionsConfig,
    seed: int,
) -> pd.DataFrame:
    full = [instance_effects(cells, inserted=True) for cells in knock_ins]
    minimum = _minimum(full, n_motifs, config, spread)
    tested = [_of_motifs(effects, n_motifs) for effects in full]
    decoys = np.mean([_means(effects[~_real(effects, n_motifs)]) for effects in full], axis=0)
    others = [_of_motifs(instance_effects(cells, inserted=True), n_motifs) for cells in screens]
    known = pd.MultiIndex.from_frame(tested[0][_PAIR].drop_duplicates())
    others = [effects[~pd.MultiIndex.from_frame(effects[_PAIR]).isin(known)] for effects in others]
    table, rest = (
        pair_statistics(effects, minimum=minimum, permutations=config.permutations, seed=seed)
        for effects in (tested, others)
    )
    if len(table):
        draw = rng.stream(seed, "nulls", "max")
        beyond = np.mean([_beyond_decoy(effects) for effects in tested], axis=0)
        table["epistasis_maxt_p"] = max_statistic_p(beyond, permutations=config.permutations, rng=draw)
        table["epistasis_decoy_q"] = decoy_q(table["epistasis_effect"].abs().to_numpy(), np.abs(decoys))
    table = pd.concat([part for part in (table, rest) if len(part)], ignore_index=True)
    return table.rename(columns={"n_instances": "n_backgrounds"}).assign(minimum_effect=minimum)


def _minimum(effects: Sequence[pd.DataFrame], n_motifs: int, config: InteractionsConfig, spread: float = 0.0) -> float:
    """Smallest epistasis that counts: the user's, or what pairs with a decoy say."""
    if config.minimum_effect is not None:
        return config.minimum_effect
    return minimum_effect(effects, controls=[False] * n_motifs + [True] * n_motifs, spread=spread)


def _real(table: pd.DataFrame, n_motifs: int) -> NDArray[np.bool_]:
    found: NDArray[np.bool_] = (table[_PAIR] < n_motifs).all(axis=1).to_numpy()
    return found


def _of_motifs(table: pd.DataFrame, n_motifs: int) -> pd.DataFrame:
    """Rows of pairs without a decoy."""
    return table[_real(table, n_motifs)]


def _means(effects: pd.DataFrame) -> NDArray[np.float64]:
    """Epistasis of each pair, in the order of pairs."""
    return effects.groupby(_PAIR)["epistasis"].mean().to_numpy()


def _beyond_decoy(effects: pd.DataFrame) -> NDArray[np.float64]:
    """Epistasis less that with the decoy, (pairs, backgrounds), in the order of pairs."""
    beyond = effects.assign(beyond=effects["epistasis"] - effects["control"])
    return beyond.pivot_table(index=_PAIR, columns="instance", values="beyond").to_numpy()


def _transformed(cells: pd.DataFrame, scale: LatentScale) -> pd.DataFrame:
    """Cells on the latent scale."""
    readouts = [name for name in cells if str(name).startswith("y")]
    return cells.assign(**{str(name): scale(cells[name].to_numpy()) for name in readouts})
