"""Images from anywhere to features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aesearch.collection.artifacts import Part
from aesearch.errors import AesearchError, can_train
from aesearch.images.orientation import ORIENTATIONS, UPRIGHT, apart
from aesearch.images.single import ImageLike, Read, crop, name_of, read, read_image, read_oriented, several
from aesearch.images.tiles import Box

if TYPE_CHECKING:  # imported where they are used: a query is answered in less time than all of them take
    pass

FEW = 32  # images that are encoded without torch


class Encoding(Part):
    """Images from anywhere to features."""

    def encode(self, images: Sequence[ImageLike]) -> NDArray[np.float32]:
        """Features (n, dim) float32 of images from anywhere; see `query` for what an image may be."""
        images = several(images)
        return self.encode_pixels(self._decode(images))

    def encode_oriented(self, images: Sequence[ImageLike], orientations: Sequence[str]) -> NDArray[np.float32]:
        """Features (n, orientations, dim) float32 of images from anywhere, each in several orientations."""
        if not images:
            raise AesearchError("give one image or more: paths, bytes, Pillow images or arrays")
        pixels = [np.stack(read_oriented(image, self._files.spec.preprocessing, orientations)) for image in images]
        return self.encode_pixels(np.concatenate(pixels)).reshape(len(images), len(orientations), -1)

    def encode_pixels(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Features (n, dim) float32 of images as the encoder takes them, (n, channels, height, width) uint8."""
        encoder = self._files.single_encoder if len(pixels) <= FEW or not can_train() else self._files.autoencoder
        return encoder.encode(pixels)

    @property
    def orientations(self) -> list[str]:
        """In which orientations a query looks for an image: as it is, and those that mean nothing here.

        Of those that have the same features, as the encoder averages over mirror images, the first alone.
        """
        figures = self._files.manifest.artifacts.get("encoder", {}).get("figures", {})
        free = (o for o in figures.get("free_orientations", []) if o in ORIENTATIONS)
        return apart([UPRIGHT, *free], self._files.spec.mirror)

    def encode_latents(self, images: Sequence[ImageLike]) -> NDArray[np.float32]:
        """As `encode`, with the style beside the features: all that the decoder rebuilds an image from."""
        return self._files.autoencoder.encode_latents(self._decode(images))

    def read_images(
        self, images: Sequence[ImageLike], box: Box | None = None
    ) -> tuple[list[Read], list[dict[str, str]]]:
        """Images, or a box of each, read before they are asked about; ``image`` and ``reason`` of those that fail."""
        good: list[Read] = []
        failed: list[dict[str, str]] = []
        if not images:
            return good, failed
        preprocessing = self._files.spec.preprocessing
        for image in images:
            try:
                good.append(read(image, preprocessing) if box is None else crop(image, box, preprocessing))
            except AesearchError as error:
                name = name_of(image)
                failed.append({"image": name, "reason": str(error).removeprefix(f"{name}: ")})
        return good, failed

    def _decode(self, images: Sequence[ImageLike]) -> NDArray[np.uint8]:
        read = [read_image(image, self._files.spec.preprocessing) for image in several(images)]
        if not read:
            raise AesearchError("give one image or more")
        return np.stack(read)
