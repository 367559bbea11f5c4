"""The two long steps of a collection, with the files they leave: training an encoder, filling the store."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aesearch.collection.extract import Extraction, extract_features
from aesearch.collection.manifest import CHECKPOINT, ENCODER, FEATURES, PORTABLE, Manifest, file_fingerprint, plain
from aesearch.collection.update import Update, update_features
from aesearch.errors import AesearchError
from aesearch.files.arrays import read_arrays, write_arrays
from aesearch.files.atomic import check_room
from aesearch.files.csv import write_csv
from aesearch.files.naming import command_for
from aesearch.images.batches import (
    Images,
    LoadedImages,
    StreamedImages,
    in_order,
    keep_only,
    load,
    load_readable,
    read_batches,
)
from aesearch.images.decode import ImageFacts, Preprocessing, choose_preprocessing, describe_choice
from aesearch.images.grouping import MOST_COMPARED as MOST_GROUPED
from aesearch.images.grouping import NONE, near_duplicates, say_leaks, signatures, units_of
from aesearch.images.orientation import measure_orientations, to_average, without_meaning
from aesearch.images.sources.base import Source
from aesearch.images.sources.opening import open_again
from aesearch.images.tiles import TileSource
from aesearch.network.architectures import FIELDS, AutoencoderSpec, build_autoencoder, count_parameters
from aesearch.network.augmentation import choose_invariance, shares_a_ground
from aesearch.network.autoencoder import Autoencoder, save_autoencoder
from aesearch.network.diagnostics import examine
from aesearch.network.history import HISTORY, Epoch, write_history
from aesearch.network.options import TrainingOptions, loss_name
from aesearch.network.training import split_held_out, train_autoencoder
from aesearch.progress import step
from aesearch.store.reader import Store

if TYPE_CHECKING:
    from torch import nn

logger = logging.getLogger(__name__)

CURVE, SKIPPED = "history.png", "skipped.csv"
DIVISION = "division.h5"  # which images were trained on, and which belong together
COMPARED_AT_ONCE = 1024
Loaded = tuple[NDArray[np.uint8], NDArray[np.int64]]  # images in memory and their positions
IMAGE_MEMORY = 2 * 2**30  # bytes of uint8 training images kept in memory; more are streamed
SAMPLE_MEMORY = 256 * 2**20  # bytes of held-out images, and of the sample that PCA learns from
SAMPLE_IMAGES = 5000
WITHOUT_TOP = {"flipped", "upside down"}  # orientations of which one means nothing where images have no top
SAID = {"mirrored": "its mirror image", "flipped": "its image flipped top to bottom", "both": "its three mirror images"}
STATES = 4  # of every number in a checkpoint: now, at its best, Adam's two moments
MOST_COMPARED, FEWEST_COMPARED = 500, 5  # images looked at to tell whether most are alike: …
SAME_LEVELS = 8  # … no pixel is farther from the median image
TEXT_BYTES = 128  # of a row in the store, about: id, label, split, content, stamp


def train_encoder(
    manifest: Manifest,
    source: Source,
    options: TrainingOptions,
    *,
    resume: bool = False,
    device: str = "auto",
    progress: bool = False,
    encoded_next: int = 0,
) -> None:
    """Train an autoencoder on a source; it takes the place of the one there may be when it is finished.

    If the source has a split ``train``, only that is trained on; ``val``, else a tenth of the training
    images, is held out to choose the best epoch.

    Parameters
    ----------
    manifest : Manifest
        Gets the artifact ``encoder``; its folder the weights, the history, the curve and a checkpoint.
    resume : bool
        Go on from the last finished epoch.
    encoded_next : int
        Images that are to be encoded and indexed after the training: there must be room for them too.

    Raises
    ------
    AesearchError
        There is no room on the disk, or training failed.
    """
    folder = manifest.folder
    if resume and _begun_on(manifest) not in (None, source.fingerprint):
        raise AesearchError("the images have changed since that training began: train without --resume")
    preprocessing, native, facts = _choose_input(source, options)
    groups, read = _find_groups(source, preprocessing, progress)
    positions, held_out_positions = _divide(source, options.seed, groups)
    trained = np.isin(np.arange(len(source)), positions)
    if read is None and isinstance(source, TileSource):
        positions = _fitting(positions, preprocessing, options.seed)
    if leaks := say_leaks(groups, source.splits, source.ids):
        logger.warning("%s", leaks)
    if 0 < (in_train := len(source.positions_of(["train"]))) < len(source):
        logger.info("training on the %s images of split train", f"{in_train:,}")
    most = max(1, min(SAMPLE_IMAGES, SAMPLE_MEMORY // preprocessing.pixels))
    held_out, images = _parted(source, preprocessing, read, positions, held_out_positions[:most])
    drawn = np.sort(np.random.default_rng(options.seed).permutation(len(images))[:most])
    in_memory = images.array[drawn] if isinstance(images, LoadedImages) else None
    sample = load(source, positions[drawn], preprocessing) if in_memory is None else in_memory
    if alike := _why_alike(sample, facts, preprocessing):
        logger.warning("%s", alike)
    settled, ratios = _settle_invariance(options, preprocessing, sample, held_out)
    orientations = _free_orientations(sample)
    free = orientations["free_orientations"]
    fields, mirror = 0, ""
    if settled.invariance == "pictures":
        has_top = not WITHOUT_TOP & set(free)
        fields = FIELDS if has_top else 1
        mirror = to_average(orientations["orientation_shares"], has_top=has_top)
        if mirror:
            logger.info("features are averaged over each image and %s", SAID[mirror])
    spec = settled.spec(preprocessing, len(images), fields, mirror)
    recipe = settled.recipe(len(images))
    check_room(folder / ENCODER, _bytes_needed(spec, encoded_next))
    described = (f"{len(images):,}", preprocessing, spec.latent_dim, recipe.invariance)
    logger.info("training on %s images as %s, %d latent numbers, invariance %s", *described)
    manifest.training = {
        "source": source.opening,
        "fingerprint": source.fingerprint,
        "options": plain(options.to_json()),
    }
    manifest.save()
    keep_history = partial(write_history, folder / HISTORY)
    training = train_autoencoder(
        images,
        held_out,
        spec,
        settled,
        checkpoint=folder / CHECKPOINT,
        resume=resume,
        device=device,
        progress=progress,
        on_epoch=keep_history,
        sample=sample,
        orientations=free if settled.arch == "pooled" else (),
    )
    keep_history(training.history)  # a kill may have come between the checkpoint and it
    _draw_curve(folder / CURVE, training.history, loss_name(spec, recipe))
    figures = training.figures | examine(training, sample, held_out) | {"invariance_ratios": ratios, **orientations}
    _save_encoder(folder, training.model, training.spec)
    write_arrays(folder / DIVISION, {"trained": trained, "unit": units_of(groups)}, {"source": source.fingerprint})
    manifest.training = None
    manifest.source = source.opening
    manifest.record(
        "encoder",
        ENCODER,
        PORTABLE,
        HISTORY,
        DIVISION,
        made_from={"source": source.fingerprint},
        parameters={
            "options": plain(options.to_json()),
            "spec": plain(training.spec.to_json()),
            "recipe": plain(dataclasses.asdict(training.recipe)),
        },
        figures=figures,
        source=source.opening,
        native_size=list(native),
        fingerprint=file_fingerprint(folder / ENCODER),
    )


def _bytes_needed(spec: AutoencoderSpec, encoded_next: int) -> int:
    """Of a training's files, and of the store and the index of so many images after it."""
    numbers = count_parameters(build_autoencoder(spec))
    row = 4 * (spec.latent_dim + spec.feature_dim) + TEXT_BYTES
    return 4 * numbers * (2 * STATES + 2) + encoded_next * row  # a checkpoint beside the last; two files of the encoder


def _save_encoder(folder: Path, model: nn.ModuleDict, spec: AutoencoderSpec) -> None:
    """Both files of the encoder, in place of those there may be, when both are written."""
    with tempfile.TemporaryDirectory(prefix=".encoder-", dir=folder) as name:
        save_autoencoder(Path(name) / ENCODER, model, spec)
        Autoencoder.load(Path(name) / ENCODER, device="cpu").save_portable(Path(name) / PORTABLE)
        for file in (ENCODER, PORTABLE):
            (Path(name) / file).replace(folder / file)


def _begun_on(manifest: Manifest) -> str | None:
    """Fingerprint of the images that the training to resume began on."""
    begun, encoder = manifest.training, manifest.artifacts.get("encoder")
    if begun is not None:
        return str(begun.get("fingerprint"))
    return None if encoder is None else str(encoder["made_from"]["source"])


def resumable(manifest: Manifest, given: dict[str, Any]) -> tuple[Source, TrainingOptions]:
    """Source and settings of the training that can go on, changed by what was given.

    Raises
    ------
    AesearchError
        No training was begun here.
    """
    encoder = manifest.artifacts.get("encoder")
    begun = manifest.training or (encoder and {"source": encoder["source"], **encoder["parameters"]})
    if not begun:
        begin = command_for("train SOURCE", manifest.folder)
        raise AesearchError(f"there is no training to resume: run {begin} without --resume")
    options = begun["options"] | ({"epochs": None} if "effort" in given else {}) | given
    return open_again(begun["source"], manifest.folder), TrainingOptions.from_json(options)


def fill_store(
    manifest: Manifest,
    source: Source,
    autoencoder: Autoencoder,
    *,
    encoder_fingerprint: str,
    progress: bool = False,
) -> Extraction:
    """Encode every image of a source into the collection's store, and list what gave no image."""
    folder = manifest.folder
    trained_on, groups = _division(manifest, source)
    extraction = extract_features(
        source,
        autoencoder,
        folder / FEATURES,
        encoder_fingerprint=encoder_fingerprint,
        trained_on=trained_on,
        groups=groups,
        progress=progress,
    )
    _record_features(manifest, source, encoder_fingerprint, dataclasses.asdict(extraction))
    if extraction.skipped:
        counts = (f"{extraction.skipped:,}", f"{extraction.skipped + extraction.rows:,}", SKIPPED)
        logger.warning("%s of %s files gave no image; the collection's %s has the reasons", *counts)
    for line in extraction.tally.lines(autoencoder.spec.preprocessing):
        logger.warning("%s", line)
    return extraction


def update_store(
    manifest: Manifest,
    source: Source,
    autoencoder: Autoencoder,
    before: Store,
    *,
    encoder_fingerprint: str,
    vanished: Store | None = None,
    progress: bool = False,
) -> Update:
    """Make a store as another would be, were it up to date with its source, and list what gave no image."""
    update = update_features(
        source,
        autoencoder,
        before,
        manifest.folder / FEATURES,
        encoder_fingerprint=encoder_fingerprint,
        vanished=vanished,
        progress=progress,
    )
    for line in update.tally.lines(autoencoder.spec.preprocessing):
        logger.warning("%s", line)
    _record_features(manifest, source, encoder_fingerprint, {"rows": len(update.came_from), **update.to_json()})
    return update


def _record_features(manifest: Manifest, source: Source, encoder_fingerprint: str, figures: dict[str, Any]) -> None:
    """Note the store in the manifest, and write what gave no image beside it."""
    store = Store(manifest.folder / FEATURES)
    write_csv(manifest.folder / SKIPPED, ["path", "reason"], store.skipped())
    manifest.source = source.opening
    manifest.record(
        "features",
        FEATURES,
        made_from={"encoder": encoder_fingerprint, "source": source.fingerprint},
        parameters={},
        figures=figures,
        source=source.opening,
        fingerprint=store.fingerprint,
    )


def _settle_invariance(
    options: TrainingOptions, preprocessing: Preprocessing, sample: NDArray[np.uint8], held_out: NDArray[np.uint8]
) -> tuple[TrainingOptions, dict[str, float]]:
    """Choose by the images what to undo, unless it is given or the network's source undoes nothing; say so."""
    if options.invariance is not None or options.recipe(len(sample)).invariance == "none":
        return options, {}
    if options.arch == "pooled":
        drawn = shares_a_ground(sample) and options.effort != "quick"
        found = "shapes on a common background" if drawn else "pictures that fill the frame"
        logger.info("the images are %s", found)
        return dataclasses.replace(options, invariance="drawn" if drawn else "pictures"), {}
    if options.style_dim is None and not options.spec(preprocessing).style_dim:
        logger.info("invariance none: the latent is too small for a style part")
        return dataclasses.replace(options, invariance="none"), {}
    with step("choose"):
        chosen, ratios = choose_invariance(sample, held_out)
    if ratios:
        found = ", ".join(f"{name} {ratio:.2f}" for name, ratio in ratios.items())
        logger.info("invariance %s: augmented images lie at %s times the usual distance from others", chosen, found)
    return dataclasses.replace(options, invariance=chosen), ratios


def _free_orientations(sample: NDArray[np.uint8]) -> dict[str, Any]:
    """Measure which orientations mean nothing in the collection, so that a query looks for them too; say so."""
    farther = measure_orientations(sample)
    free = without_meaning(farther, len(sample))
    if free:
        logger.info("orientation: %s images look as normal here as others, so queries find them too", "; ".join(free))
    return {"orientation_shares": farther, "free_orientations": free}


def _choose_input(
    source: Source, options: TrainingOptions
) -> tuple[Preprocessing, tuple[int, int], Sequence[ImageFacts]]:
    """Choose the encoder's input, and say so where it is not the images' own; also their median size, and facts."""
    facts = source.sample_facts()
    chosen = choose_preprocessing(facts, image_size=options.image_size, channels=options.channels)
    native = choose_preprocessing(facts, channels=options.channels, largest=None)
    if options.image_size is None and chosen != native:
        sizes = (native.height, native.width, chosen.height, chosen.width)
        logger.info("images are %dx%d (median), encoded at %dx%d: --image-size sets another size", *sizes)
    for line in describe_choice(facts, chosen):
        logger.info("%s", line)
    return chosen, (native.height, native.width), facts


def _why_alike(sample: NDArray[np.uint8], facts: Sequence[ImageFacts], preprocessing: Preprocessing) -> str:
    """A line for when most images are alike once decoded, with the reason; empty where they are not."""
    looked_at = sample[np.unique(np.linspace(0, len(sample) - 1, MOST_COMPARED).astype(np.int64))]
    usual = np.median(looked_at, axis=0)
    alike = np.array([np.abs(image - usual).max() <= SAME_LEVELS for image in looked_at])
    if len(looked_at) < FEWEST_COMPARED or alike.mean() <= 0.5:
        return ""
    blank = float(usual.max() - usual.min()) <= SAME_LEVELS
    if any(f.contrasts for f in facts):
        why = f"what is visible in them has about the level of what is transparent, {preprocessing.paper} of 255"
    elif any(f.levels for f in facts):
        why = f"their values lie close together on the scale of the collection, {preprocessing.scales()}"
    else:
        why = "the files themselves are blank" if blank else "the files themselves hardly differ at that size"
    what = f"blank, level {np.median(usual):.0f} of 255" if blank else f"the same picture at {preprocessing}"
    counts = f"{np.count_nonzero(alike):,} of {len(looked_at):,} images looked at"
    return f"{counts} are alike once decoded ({what}): {why}; search, clusters and anomalies can say little about them"


def _find_groups(source: Source, preprocessing: Preprocessing, progress: bool) -> tuple[list[str], Loaded | None]:
    """Which images belong together: as the source says, else as they look; and all images, if these fit into memory."""
    everything, read = np.arange(len(source)), None
    if len(source) * preprocessing.pixels <= IMAGE_MEMORY:
        read = load_readable(source, everything, preprocessing, progress=progress)
    if any(source.groups) or source.opening.get("group") == NONE:
        return source.groups, read
    if len(source) > MOST_GROUPED:
        most = f"{MOST_GROUPED:,}"
        logger.info("over %s images are not checked for near-duplicates: --group says what belongs together", most)
        return source.groups, read
    with step("compare", len(source), progress=progress) as bar:
        places, found = [], []
        for positions, images in _in_parts(source, preprocessing, read):
            places.append(positions)
            found.append(signatures(images))
            bar.update(len(positions))
        alike = near_duplicates(np.concatenate(found))
    groups = [""] * len(source)
    for position, name in zip(np.concatenate(places).tolist(), alike, strict=True):
        groups[position] = name
    if count := sum(map(bool, alike)):
        known = f"{count:,} images in {len(set(alike) - {''}):,} groups"
        logger.info("near-duplicates stay together when images are held out: %s; --group none separates them", known)
    return groups, read


def _in_parts(
    source: Source, preprocessing: Preprocessing, read: Loaded | None
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint8]]]:
    """Positions and images, some at a time, from memory where they are there."""
    if read is not None:
        yield from ((read[1][group], read[0][group]) for group in in_order(0, len(read[1]), COMPARED_AT_ONCE))
        return
    for batch in read_batches(source, preprocessing, in_order(0, len(source), COMPARED_AT_ONCE)):
        yield batch.positions, batch.images


def _parted(
    source: Source,
    preprocessing: Preprocessing,
    read: Loaded | None,
    train: NDArray[np.int64],
    held_out: NDArray[np.int64],
) -> tuple[NDArray[np.uint8], Images]:
    """Images held out, in that order, and those to train on, from memory where they are there."""
    if read is None:
        kept = load(source, np.sort(held_out), preprocessing)
        if len(train) * preprocessing.pixels <= IMAGE_MEMORY:
            return kept, LoadedImages(load(source, train, preprocessing))
        return kept, StreamedImages(source, train, preprocessing)
    images, readable = read
    row_of = np.full(len(source), -1)
    row_of[readable] = np.arange(len(readable))
    rows, trained = row_of[held_out], np.isin(readable, train)
    if not trained.any() or not (rows >= 0).any():
        raise AesearchError(f"no training image, or no held-out image, of {source.name} is readable")
    return images[rows[rows >= 0]], LoadedImages(keep_only(images, trained))


def _fitting(tiles: NDArray[np.int64], preprocessing: Preprocessing, seed: int) -> NDArray[np.int64]:
    """As many tiles as fit into memory, at random: read at random from the disk, each would decode its picture."""
    count = min(len(tiles), IMAGE_MEMORY // preprocessing.pixels)
    logger.info("training on %s of %s tiles, drawn at random: more do not fit into memory", *(
        f"{number:,}" for number in (count, len(tiles))))  # fmt: skip
    return np.sort(np.random.default_rng(seed).permutation(tiles)[:count])


def _divide(source: Source, seed: int, groups: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions to train on and to hold out, by the source's splits where it has them; groups stay together."""
    train, held_out = source.positions_of(["train"]), source.positions_of(["val"])
    if len(train) == 0:
        train, held_out = np.arange(len(source)), held_out[:0]
    if len(held_out) == 0:
        kept, out = split_held_out(len(train), seed, units_of(groups)[train])
        if not len(out):
            raise AesearchError("all images belong to one group, so none can be held out: another --group, or none")
        train, held_out = train[kept], train[out]
    return train, np.random.default_rng(seed).permutation(held_out)


def _division(manifest: Manifest, source: Source) -> tuple[NDArray[np.bool_], list[str]]:
    """Which images of a source the collection's encoder was trained on, and their groups, as they were divided.

    Where the source has changed since, that cannot be told: all but those that the store knows to be held out.
    """
    encoder = manifest.artifacts["encoder"]
    trained, groups = np.zeros(len(source), dtype=bool), source.groups
    if encoder["made_from"]["source"] == source.fingerprint:
        known = read_arrays(manifest.path("encoder", DIVISION)) if manifest.holds("encoder", DIVISION) else {}
        if known and len(known["trained"]) == len(known["unit"]) == len(source):
            _, of, sizes = np.unique(known["unit"], return_inverse=True, return_counts=True)
            alike = [f"alike {unit}" if sizes[unit] > 1 else "" for unit in of.tolist()]
            return known["trained"].astype(bool), groups if any(groups) else alike
        trained[_divide(source, encoder["parameters"]["options"]["seed"], groups)[0]] = True
    elif encoder["source"]["name"] == source.name:
        held_out = _known_held_out(manifest, source.name)
        trained[:] = [id not in held_out for id in source.ids]
    return trained, groups


def _known_held_out(manifest: Manifest, name: str) -> set[str]:
    """Ids held out of training, as the store of that source, if it is still there, has them."""
    features = manifest.artifacts.get("features")
    if features is None or features["source"]["name"] != name:
        return set()
    with contextlib.suppress(AesearchError):  # gone, damaged, of an older version: it is about to be made anew
        store = Store(manifest.folder / FEATURES)
        if store.encoder_fingerprint == manifest.artifacts["encoder"]["fingerprint"]:
            return {id for id, out in zip(store.texts("id"), store.held_out(), strict=True) if out}
    return set()


def _draw_curve(path: Path, history: list[Epoch], loss: str) -> None:
    from aesearch.drawing.figures import save_picture
    from aesearch.drawing.plots import draw_history

    train, held_out = [e.train_loss for e in history], [e.held_out_loss for e in history]
    save_picture(draw_history([e.epoch for e in history], train, held_out, loss), path)
