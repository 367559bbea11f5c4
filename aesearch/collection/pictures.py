"""Images to look at: of rows, of files, rebuilt, and decoded from latents."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from aesearch.anomalies.error_maps import error_map
from aesearch.collection.artifacts import LEARNED, Artifacts, Part
from aesearch.collection.encoding import Encoding
from aesearch.collection.results import Anomalies
from aesearch.errors import AesearchError, SourceError, check_count
from aesearch.images.single import ImageLike, blank, look_at, read_image, read_pictures, several
from aesearch.images.tiles import TileSource

if TYPE_CHECKING:  # imported where they are used: a query is answered in less time than all of them take
    from aesearch.images.sources.base import Source

logger = logging.getLogger(__name__)
HEAT_IMAGES, HEAT_SHARE = 100, 0.995  # images that tell how large errors are, and share of their pixels below the scale
LEAST_HEAT = (1 / 255) ** 2  # an error of one grey level
USUAL_HEAT = 10  # times the mean error of an image
PICTURE_SIDE = 448  # pixels of the longer side of pictures in tiles, to look at
DISPLAY_SIDE = 224  # pixels of the longer side of pictures to look at, at most


class Pictures(Part):
    """Images to look at: of rows, of files, rebuilt, and decoded from latents."""

    def __init__(self, files: Artifacts) -> None:
        super().__init__(files)
        self._encoding = Encoding(files)

    def pictures(self, rows: Sequence[int]) -> list[NDArray[np.uint8]]:
        """Images of those rows to look at, each in its own shape, (channels, height, width) uint8.

        Those of more than 224 pixels are reduced; one whose file is gone is a blank.
        """
        return self._thumbnails(self._files.source, self._files.places(rows))

    def pictures_of(self, found: Anomalies, source: Source | None = None) -> list[NDArray[np.uint8]]:
        """Anomalies to look at, as `pictures`; ``source`` is what was scored, if not the collection.

        Of pictures in tiles the whole of each, its longer side at most 448 pixels.
        """
        if found.tiles:
            places = self._files.places(found.rows.tolist()) if source is None else found.rows.tolist()
            return [picture for picture, _ in self._whole_pictures(source or self._files.source, places)]
        return self.pictures(found.rows.tolist()) if source is None else self._thumbnails(source, found.rows.tolist())

    def oddest_tiles(
        self, found: Anomalies, source: Source | None = None
    ) -> tuple[list[NDArray[np.uint8]], list[tuple[float, float, float, float]]]:
        """Of pictures in tiles the oddest tile of each, as `pictures`, and where it lies; see `in_place`."""
        places = self._files.places(found.rows.tolist()) if source is None else found.rows.tolist()
        tiled = source or self._files.source
        return self._thumbnails(tiled, places), [box for _, box in self._whole_pictures(tiled, places)]

    def in_place(self, rows: Sequence[int]) -> list[tuple[NDArray[np.uint8], tuple[float, float, float, float]]]:
        """Of tiles the whole picture of each, as `pictures`, of 448 pixels at most, and where in it the tile lies.

        That is left, top, right and bottom in shares of width and height. `AesearchError` where there are no tiles.
        """
        self._files.check_rows(rows)
        if self._files.tiling is None:
            raise AesearchError(f"the images of {self._files.folder} are no tiles of larger pictures")
        return self._whole_pictures(self._files.source, self._files.places(rows))

    def _whole_pictures(
        self, source: Source, positions: Sequence[int]
    ) -> list[tuple[NDArray[np.uint8], tuple[float, float, float, float]]]:
        assert isinstance(source, TileSource)
        like, known = self._files.spec.preprocessing, [p for p in positions if p >= 0]
        of = {position: int(source.picture_of[position]) for position in known}
        wanted = sorted(set(of.values()))
        found = dict(zip(wanted, source.pictures.thumbnails(wanted, PICTURE_SIDE, like), strict=True))
        gone = blank((like.channels, PICTURE_SIDE // 2, PICTURE_SIDE))
        shown = []
        for position in positions:
            picture = found.get(of.get(position, -1))
            box = (0.0, 0.0, 1.0, 1.0) if picture is None else source.in_picture(position)
            shown.append((gone if picture is None else picture, box))
        return shown

    def look_at(self, images: Sequence[ImageLike]) -> list[NDArray[np.uint8]]:
        """Images from anywhere, as `pictures` gives those of rows."""
        return [look_at(image, DISPLAY_SIDE, self._files.spec.preprocessing) for image in several(images)]

    def _thumbnails(self, source: Source, positions: Sequence[int]) -> list[NDArray[np.uint8]]:
        known = [position for position in positions if position >= 0]
        like = self._files.spec.preprocessing
        found = dict(zip(known, source.thumbnails(known, DISPLAY_SIDE, like) if known else [], strict=True))
        height, width = self._files.native_size
        scale = min(1.0, DISPLAY_SIDE / max(height, width))
        gone = blank((like.channels, max(1, round(height * scale)), max(1, round(width * scale))))
        return [gone if (picture := found.get(position)) is None else picture for position in positions]

    def reconstruct(
        self, images: Sequence[ImageLike] = (), rows: Sequence[int] = ()
    ) -> tuple[list[NDArray[np.uint8]], NDArray[np.float32]]:
        """Images from anywhere, then rows, as the encoder sees them and as the decoder rebuilds them.

        Returns
        -------
        list of (channels, height, width) uint8, and (n, channels, height, width) float32 in [0, 1]
        """
        self._files.check_rows(rows)
        preprocessing = self._files.spec.preprocessing
        originals = [read_image(image, preprocessing) for image in images]
        ids = self._files.store.texts("id", rows) if len(rows) else []
        found = read_pictures(self._files.source, self._files.places(rows), preprocessing) if len(rows) else []
        for row, id, picture in zip(rows, ids, found, strict=True):
            if picture is None:
                raise SourceError(f"the image of row {row}, {id}, cannot be read any more")
            originals.append(picture)
        return originals, self.rebuild(originals)

    def reconstruct_anomalies(
        self, found: Anomalies, source: Source | None = None
    ) -> tuple[list[NDArray[np.uint8]], NDArray[np.float32]]:
        """As `reconstruct`, of anomalies; what can no longer be read is a blank, and rebuilt as one.

        ``source`` is what was scored, if not the collection.
        """
        preprocessing = self._files.spec.preprocessing
        places = self._files.places(found.rows.tolist()) if source is None else found.rows.tolist()
        pictures = read_pictures(source or self._files.source, places, preprocessing)
        gone_one = blank(preprocessing.shape)
        originals = [gone_one if picture is None else picture for picture in pictures]
        rebuilt = self.rebuild(originals)
        gone = [n for n, picture in enumerate(pictures) if picture is None]
        rebuilt[gone] = gone_one / np.float32(255)
        if gone:
            logger.warning("%d images cannot be read any more, the first: %s", len(gone), found.ids[gone[0]])
        return originals, rebuilt

    @property
    def heat_scale(self) -> float:
        """The squared error that heat-maps draw brightest: what 1 in 200 pixels of the collection's images exceeds.

        One scale for all of them, in commands, pictures and pages alike, learned from 100 images spread over the rows;
        where these cannot be read any more, a multiple of the usual error of an image.
        """
        return self._files.keep("heat_scale", self._heat_scale)

    def _heat_scale(self) -> float:
        rows = np.unique(
            np.linspace(0, self._files.store.rows - 1, min(HEAT_IMAGES, self._files.store.rows)).astype(int)
        )
        found: list[NDArray[np.uint8]] = []
        with contextlib.suppress(SourceError):
            pictures = read_pictures(
                self._files.source, self._files.places(rows.tolist()), self._files.spec.preprocessing
            )
            found = [picture for picture in pictures if picture is not None]
        if not found:
            return max(LEAST_HEAT, USUAL_HEAT * float(np.median(self._files.store.reconstruction_errors())))
        pairs = zip(found, self.rebuild(found), strict=True)
        errors = np.stack([error_map(original, rebuilt) for original, rebuilt in pairs])
        return max(LEAST_HEAT, float(np.quantile(errors, HEAT_SHARE)))

    def heat_told(self, score: str) -> str:
        """What the brightest colour of a score's heat-maps stands for."""
        if LEARNED.get(score) == "combined":
            return "a place that looks faulty, far beyond those of 19 in 20 normal images"
        return f"a squared error of {self.heat_scale:.2g} or more, which 1 in 200 pixels of the collection has"

    def rebuild(self, originals: list[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Reconstructions of images as the encoder takes them: (n, channels, height, width) float32 in [0, 1]."""
        if not originals:
            return np.empty((0, *self._files.spec.preprocessing.shape), np.float32)
        return self._files.autoencoder.decode(self._files.autoencoder.encode_latents(np.stack(originals)))

    def decode(self, latents: NDArray[np.float32]) -> NDArray[np.float32]:
        """Images (n, channels, height, width) float32 in [0, 1] of latents, or of features alone."""
        return self._files.autoencoder.decode(latents)

    def choose_latents(
        self,
        points: str | NDArray[np.float32] | None = None,
        *,
        sample: int | None = None,
        between: Sequence[ImageLike] | None = None,
        steps: int = 8,
        plane: int | None = None,
        seed: int = 0,
    ) -> NDArray[np.float32]:
        """Points of the latent space, (n, latent_dim) float32; see `generate`."""
        from aesearch.network import latents as generation

        if sum(choice is not None for choice in (points, sample, between, plane)) != 1:
            raise AesearchError("give one of: points, sample, between, plane")
        if points is not None:
            return generation.read_points(points, self._files.spec.latent_dim)
        if sample is not None:
            check_count("sample", sample)
            return generation.sample(self._files.latents(), sample, seed)
        if plane is not None:
            check_count("plane", plane)
            return generation.plane(self._files.latents(), plane)
        ends = several(between)
        if len(ends) != 2:
            raise AesearchError(f"between takes two images, not {len(ends)}")
        start, end = self._encoding.encode_latents(ends)
        return generation.between(start, end, steps)

    def generate(
        self,
        points: str | NDArray[np.float32] | None = None,
        *,
        sample: int | None = None,
        between: Sequence[ImageLike] | None = None,
        steps: int = 8,
        plane: int | None = None,
        seed: int = 0,
    ) -> NDArray[np.float32]:
        """Decoded points of the latent space, (n, channels, height, width) float32 in [0, 1]; one of these is given.

        Parameters
        ----------
        points : (n, latent_dim) array, a ``.npy`` or ``.csv`` file, or a text like ``"0.5,1;-1,2"``
        sample : int
            So many random ones, of the data's mean and spread.
        between : two images
            So many ``steps`` on the straight path from one to the other, both ends included.
        plane : int
            The plane of two latent numbers, so many images a side.
        """
        chosen = self.choose_latents(points, sample=sample, between=between, steps=steps, plane=plane, seed=seed)
        return self.decode(chosen)
