"""A genome in memory."""

import numpy as np
from numpy.typing import NDArray

from bioattn.errors import DataError


class ToyGenome:
    """Contigs given as text, with what is asked of a genome."""

    def __init__(self, texts: dict[str, str]) -> None:
        self.texts = texts
        self.lengths = {contig: len(text) for contig, text in texts.items()}

    def letters(self, contig: str) -> NDArray[np.uint8]:
        """Bytes of a contig."""
        return np.frombuffer(self.texts[contig].encode(), dtype=np.uint8)

    def resolve(self, name: str, contig_names: str = "exact") -> str:
        """The name, or the name without 'chr'."""
        for candidate in (name, name.removeprefix("chr")) if contig_names == "chr_prefix" else (name,):
            if candidate in self.lengths:
                return candidate
        raise DataError(f"found no contig '{name}'")
