"""Images as tokens: patches side by side, each a vector."""

import torch.nn.functional as F
from torch import Tensor, nn

from bioattn.errors import DataError


class PatchEmbedding(nn.Module):
    """Tokens (B, patches, D) of images (B, channels, height, width), row by row.

    Every patch is flattened and goes through one linear layer, which is a convolution whose stride is its width.

    Source: Dosovitskiy et al. 2021, section 3.1.
    """

    def __init__(self, n_channels: int, patch: int, d_model: int) -> None:
        super().__init__()
        self.patch = patch
        self.project = nn.Linear(n_channels * patch**2, d_model)

    def forward(self, images: Tensor) -> Tensor:
        """Tokens of images whose sides are multiples of the patch.

        Raises
        ------
        DataError
            If they are not.
        """
        if images.ndim != 4 or any(side % self.patch for side in images.shape[2:]):
            raise DataError(
                f"sides of images must be multiples of the patch ({self.patch}), got shape {tuple(images.shape)}"
            )
        return self.project(F.unfold(images, self.patch, stride=self.patch).transpose(1, 2))
