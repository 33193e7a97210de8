"""Tokens of a vocabulary to vectors."""

from torch import Tensor, nn


class TokenEmbedding(nn.Module):
    """A learned vector for each token of a vocabulary.

    Vectors start with a length of about one, so that two tokens are as far apart at
    any width.
    """

    def __init__(self, n_tokens: int, d_model: int) -> None:
        super().__init__()
        self.table = nn.Embedding(n_tokens, d_model)
        nn.init.normal_(self.table.weight, std=d_model**-0.5)

    def forward(self, ids_BL: Tensor) -> Tensor:
        """Vectors (B, L, D) of ids (B, L), int64."""
        return self.table(ids_BL)
