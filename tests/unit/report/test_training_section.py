"""The part of the report about training: which replicates it names."""

import pandas as pd
import pytest

from bioattn.io.tables import write_tsv
from bioattn.report.blocks import Notice
from bioattn.report.files import ResultFiles
from bioattn.report.model import training_section


def notices(root, losses: list[float]) -> list[str]:
    """What is said of replicates whose lowest validation losses are these."""
    for seed, loss in enumerate(losses, start=1):
        folder = root / "models" / "fold0" / f"seed{seed}"
        folder.mkdir(parents=True)
        history = pd.DataFrame(
            {"epoch": [0, 1, 2], "train_loss": 1.0, "validation_loss": [loss + 0.2, loss, loss + 0.1]}
        )
        write_tsv(folder / "history.tsv", history, {"seed": seed})
    return [block.text for block in training_section(ResultFiles(root)).blocks if isinstance(block, Notice)]


def test_a_replicate_that_learned_less_is_named(tmp_path):
    """One whose loss is far above the median of its fold, with both numbers."""
    (said,) = notices(tmp_path, [0.24, 0.25, 0.55])
    assert said.startswith("Seed 3 of fold 0 learned much less") and "0.55" in said and "0.25" in said


@pytest.mark.parametrize("losses", [[0.24, 0.25, 0.27], [0.25, 0.55]])
def test_like_replicates_are_not_named(losses, tmp_path):
    """None where all are alike, and none of two, of which neither is the usual one."""
    assert notices(tmp_path, losses) == []
