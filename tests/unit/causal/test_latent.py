"""The latent scale: global nonlinearities are taken out, interactions of single pairs stay."""

from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from bioattn.causal.latent import LatentScale, latent_scale

CELLS = ["y11", "y10", "y01", "y00"]


def cells_of(curve, *, n_motifs: int = 10, n: int = 40, interacting: int = 0, seed: int = 0) -> pd.DataFrame:
    """Cells of all pairs of motifs whose effects add up before a curve; the first pairs have 1 more together."""
    draw = np.random.default_rng(seed)
    effect, base = draw.normal(0.6, 0.5, n_motifs), draw.normal(0, 0.4, n)
    tables = []
    for i, (a, b) in enumerate(combinations(range(n_motifs), 2)):
        of_a, of_b = (effect[m] * (1 + 0.2 * np.sin(np.arange(n) + m)) for m in (a, b))
        together = base + of_a + of_b + (1.0 if i < interacting else 0.0)
        values = [curve(each) for each in (together, base + of_a, base + of_b, base)]
        tables.append(pd.DataFrame(dict(zip(CELLS, values, strict=True))).assign(motif_a=a, motif_b=b))
    return pd.concat(tables, ignore_index=True)


def epistasis(cells: pd.DataFrame, scale: LatentScale | None = None) -> np.ndarray:
    """Mean double difference of each pair."""
    y = cells[CELLS].to_numpy() if scale is None else scale(cells[CELLS].to_numpy())
    difference = pd.Series(y @ [1, -1, -1, 1])
    return difference.groupby([cells["motif_a"], cells["motif_b"]], sort=False).mean().to_numpy()


def test_additive_readouts_are_left_as_they_are():
    """Where nothing bends, the transform is a straight line and pairs that interact keep their epistasis."""
    cells = cells_of(lambda x: 3 + 2 * x, interacting=3)
    scale = latent_scale(cells)
    assert scale.correlation(cells[CELLS].to_numpy()) > 0.9999
    np.testing.assert_allclose(epistasis(cells, scale)[:3], 2.0, rtol=0.02)
    assert np.abs(epistasis(cells, scale)[3:]).max() < 0.02


@pytest.mark.parametrize(
    ("name", "curve", "left"),
    [("plateau", lambda x: 4 / (1 + np.exp(-1.5 * (x - 1))), 0.4), ("exponential", np.exp, 0.05)],
)
def test_a_bent_readout_is_made_straight(name: str, curve, left: float):
    """The epistasis that the curve gives to all pairs is gone for the most part; what pairs have of their own stays."""
    cells = cells_of(curve, interacting=3)
    scale = latent_scale(cells)
    before, after = epistasis(cells), epistasis(cells, scale)
    assert np.abs(after[3:]).mean() < left * np.abs(before[3:]).mean()
    assert after[:3].min() > 3 * np.abs(after[3:]).mean()
    assert scale.correlation(cells[CELLS].to_numpy()) < 0.998
    y = np.sort(cells[CELLS].to_numpy().ravel())
    assert (np.diff(scale(y)) >= 0).all()


def test_a_few_strong_interactions_are_no_global_nonlinearity():
    """Motifs that do little alone, and five pairs that do much together: the scale is not called bent."""
    cells = cells_of(lambda x: 0.1 * x)
    strong = (cells["motif_a"] == 0) & (cells["motif_b"] < 6)
    cells.loc[strong, "y11"] += 1.0
    draw = np.random.default_rng(0)
    cells = cells.assign(**{name: cells[name] + draw.normal(0, 0.01, len(cells)) for name in CELLS})
    scale = latent_scale(cells)
    assert not scale.straightens(cells)
    assert epistasis(cells, scale)[:5].min() > 10 * np.median(np.abs(epistasis(cells, scale)[5:]))
    bent = cells_of(np.exp)
    assert latent_scale(bent).straightens(bent)


def test_main_effects_keep_their_size():
    """The transform cannot shrink everything: the mean size of main effects is that of the readout."""
    cells = cells_of(np.exp)
    scale = latent_scale(cells)
    sizes = []
    for y in (cells[CELLS].to_numpy(), scale(cells[CELLS].to_numpy())):
        means = pd.DataFrame(y[:, 1:3] - y[:, 3:]).groupby([cells["motif_a"], cells["motif_b"]]).mean()
        sizes.append(means.abs().to_numpy().mean())
    assert sizes[1] == pytest.approx(sizes[0], rel=0.05)


def test_a_constant_readout_has_no_scale():
    """A model that says the same always is left alone, and its correlation is unknown."""
    cells = cells_of(lambda x: np.full_like(x, 2.0))
    scale = latent_scale(cells)
    assert np.abs(epistasis(cells, scale)).max() < 1e-9 and np.isnan(scale.correlation(cells[CELLS].to_numpy()))
