"""What training minimises."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aesearch.network.architectures import AutoencoderSpec
from aesearch.network.patches import style_part, trunk

if TYPE_CHECKING:
    import torch
    from torch import nn


# With a style: weight of rebuilding untouched images, and of telling images apart, as a share of the mean image's loss.
RECONSTRUCTION_WEIGHT, CONTRAST_WEIGHT = 3.5, 0.6
TEMPERATURE, PROJECTION = 0.2, (256, 64)
ONE_REBUILT_OF = 8  # pictures: convolutions can add little to what principal components give back of them


def losses_of(
    model: nn.ModuleDict, spec: AutoencoderSpec, inputs: torch.Tensor, targets: torch.Tensor, loss: str, scale: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Error of giving back the untouched images, and a contrast.

    Of ``pooled`` the error is that of untouched images from their style, in training of some of the pictures, and the
    contrast that of telling which two changed images come from the same one. Of others with a style the error is that
    of half of the images from the features of their changed selves alone, and that of the others, untouched, from both;
    the contrast is that of telling by the features which changed image is which untouched one, else 0.
    """
    import torch
    from torch.nn import functional

    criterion = functional.binary_cross_entropy if loss == "bce" else functional.mse_loss
    if spec.arch == "pooled":
        rebuilt = targets[::ONE_REBUILT_OF] if model.training and spec.patch_dim else targets
        error = criterion(model["decoder"](style_part(model)(rebuilt)), rebuilt)
        return error, CONTRAST_WEIGHT * scale * _contrast(*model["projection"](trunk(model)(inputs)).chunk(2))
    if not spec.style_dim:
        error = criterion(model["decoder"](model["encoder"](inputs)), targets)
        return error, torch.zeros_like(error)
    half = max(1, len(targets) // 2)
    latents = model["encoder"](torch.cat([inputs, targets]))
    features, style = latents[:, : spec.feature_dim], latents[:, spec.feature_dim :]
    upright = torch.cat([features[:half], torch.zeros_like(style[:half])], dim=1)
    rebuilt = model["decoder"](torch.cat([upright, latents[-half:]]))
    error = criterion(rebuilt[:half], targets[:half])
    error = error + RECONSTRUCTION_WEIGHT * criterion(rebuilt[half:], targets[-half:])
    return error, CONTRAST_WEIGHT * scale * _contrast(*model["projection"](features).chunk(2))


def _contrast(changed: torch.Tensor, untouched: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of finding an image's other version among those of a batch by cosine (Chen et al. 2020)."""
    import torch
    from torch.nn import functional

    likeness = functional.normalize(changed, dim=1) @ functional.normalize(untouched, dim=1).T / TEMPERATURE
    own = torch.arange(len(changed), device=changed.device)
    return (functional.cross_entropy(likeness, own) + functional.cross_entropy(likeness.T, own)) / 2
