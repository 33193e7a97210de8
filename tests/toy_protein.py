"""Made-up chains, and small networks over them, that tests of the protein track share."""

from pathlib import Path

import numpy as np
import torch

from bioattn.config import TrunkConfig
from bioattn.data.residues import AMINO_ACIDS
from bioattn.data.structure import Chain
from bioattn.nn.pair.network import DistanceNetwork
from bioattn.protein.batches import Protein, protein_of
from bioattn.protein.network import EDGES_ANGSTROM

#: Smallest settings that still have every part.
TINY = TrunkConfig(
    variants=["trunk", "told", "no_triangles", "window"], d_model=8, d_pair=6, n_blocks=2, n_heads=2, n_pair_heads=3,
    d_pair_head=2, d_hidden=5, dropout=0.1, crop=13, epochs=2, batch_size=4, inside_chains=5, probe_chains=4,
)  # fmt: skip


def sequence(length: int, seed: int) -> str:
    return "".join(np.random.default_rng(seed).choice(list(AMINO_ACIDS), length))


def places(length: int, seed: int) -> np.ndarray:
    """A random walk of steps of 3.8 angstrom that is drawn back to its middle, (L, 3)."""
    draw = np.random.default_rng(seed)
    here, made = np.zeros(3), []
    for _ in range(length):
        step = draw.normal(size=3) - 0.06 * here
        here = here + 3.8 * step / np.linalg.norm(step)
        made.append(here)
    return np.array(made)


def chain(length: int, seed: int, name: str | None = None) -> Chain:
    numbers = [str(i + 1) for i in range(length)]
    return Chain(name or f"chain{seed}", sequence(length, seed), numbers, places(length, seed))


def proteins(*lengths: int) -> list[Protein]:
    return [protein_of(chain(length, seed)) for seed, length in enumerate(lengths)]


def network(seed: int = 0, **more) -> DistanceNetwork:
    """A trunk in double precision none of whose updates is zero."""
    options = {
        "d_model": 8,
        "d_pair": 6,
        "n_blocks": 2,
        "n_heads": 2,
        "n_pair_heads": 3,
        "d_pair_head": 2,
        "d_hidden": 5,
    }
    torch.manual_seed(seed)
    made = DistanceNetwork(20, 0, EDGES_ANGSTROM, **(options | more))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made.eval()


def write_pdb(path: Path, made: Chain) -> None:
    """A chain as a PDB file with a backbone around each C-beta."""
    from Bio.SeqUtils import seq3

    shifts = {"N": (1.99, 0.77, -1.21), "CA": (0.53, 0.77, -1.21), "C": (-0.02, 2.19, -1.21), "CB": (0.0, 0.0, 0.0)}
    lines, n = [], 0
    for letter, number, cb in zip(made.sequence, made.numbers, made.cb_angstrom, strict=True):
        for name, shift in shifts.items():
            if letter == "G" and name == "CB":
                continue
            n += 1
            x, y, z = cb + shift
            lines.append(
                f"ATOM  {n:5d}  {name:<3s} {seq3(letter).upper():>3s} A{int(number):4d}    {x:8.3f}{y:8.3f}{z:8.3f}"
                f"{1.0:6.2f}{10.0:6.2f}          {name[0]:>2s}"
            )
    path.write_text("\n".join(lines) + "\nEND\n")
