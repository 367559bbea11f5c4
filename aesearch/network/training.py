"""The training loop."""

from __future__ import annotations

import copy
import ctypes
import dataclasses
import itertools
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aesearch import machine
from aesearch.errors import AesearchError
from aesearch.images.batches import Images, LoadedImages
from aesearch.images.grouping import whole_units
from aesearch.images.worker_processes import cores
from aesearch.network.architectures import TINY, AutoencoderSpec, Recipe, build_autoencoder, count_parameters
from aesearch.network.augmentation import UNTOUCHED_SHARE, changed_versions, held_out_batches
from aesearch.network.autoencoder import on_device, pick_device, to_float
from aesearch.network.checkpoint import State, identity_of
from aesearch.network.history import Epoch
from aesearch.network.losses import PROJECTION, RECONSTRUCTION_WEIGHT, losses_of
from aesearch.network.options import TrainingOptions
from aesearch.network.patches import choose_patches, fit_components, numbers_of_trunk, settle_trunk, silence, style_part
from aesearch.progress import Step, settled
from aesearch.progress import step as told

if TYPE_CHECKING:
    import torch
    from torch import nn


logger = logging.getLogger(__name__)
WEIGHT_DECAY = 1e-5  # of adamw
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # as malloc.h names them
TIMED_STEPS, TRIED_STEPS = 8, 4  # that tell how long an epoch takes, and before them
MOST_TIMES = 20  # the usual epochs, however many minutes there are
HELD_OUT_SHARE, HELD_OUT_MOST = 0.1, 5000
FEWEST_HELD_OUT = 50  # images that tell the loss of the mean image
WARM_UP_SHARE = 0.1
JUDGED_AFTER = 300  # steps, or the warm-up: a network that is no better than the mean image then never will be
STARTED, MOST_RESTARTS = 0.98, 3
SLOWED = 0.4  # of the quickest epoch's speed
CROWDED = 3  # processes that want each core
ALL_ALIKE = 1e-8  # of images whose mean one is this near to each there is nothing to learn
SIDE_OF_VIEWS, LONGEST_OF_VIEWS = 0.75, 100  # times the images' sides; how much longer than wide


@dataclass(frozen=True, eq=False)
class Training:
    """A finished training: the network of the best epoch and how it went."""

    model: nn.ModuleDict
    spec: AutoencoderSpec
    recipe: Recipe
    history: list[Epoch]
    figures: dict[str, Any] = field(default_factory=dict)


def split_held_out(
    rows: int, seed: int, units: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions to train on and positions to hold out; with fewer than 10 images both are all of them.

    Images of the same of ``units`` (rows,) int64 are on one side.
    """
    order = np.random.default_rng(seed).permutation(rows)
    if rows < 10:
        return np.arange(rows), np.arange(rows)
    units = np.arange(rows) if units is None else units
    held_out = np.isin(units, whole_units(units[order], min(HELD_OUT_MOST, math.ceil(rows * HELD_OUT_SHARE))))
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def train_autoencoder(
    images: Images,
    held_out: NDArray[np.uint8],
    spec: AutoencoderSpec,
    options: TrainingOptions,
    *,
    checkpoint: Path | None = None,
    resume: bool = False,
    device: str = "auto",
    progress: bool = False,
    on_epoch: Callable[[list[Epoch]], None] | None = None,
    sample: NDArray[np.uint8] | None = None,
    orientations: Sequence[str] = (),
) -> Training:
    """Train an autoencoder and keep its best epoch.

    Parameters
    ----------
    images : LoadedImages or StreamedImages
    held_out : (m, channels, height, width) uint8
        Images the loop never trains on; they choose the best epoch.
    spec, options : AutoencoderSpec, TrainingOptions
        What to train, and how.
    checkpoint : Path, optional
        Written after every epoch; ``resume`` goes on from it.
    on_epoch : callable, optional
        Gets the history after every epoch.
    sample : (n, channels, height, width) uint8, optional
        Images trained on that what ``pooled`` finds in closed form is learned from; else the held-out ones.
    orientations : sequence of str
        Which orientations mean nothing, so that features may ignore them; see `aesearch.images.orientation`.

    Raises
    ------
    AesearchError
        The loss is no longer a number, or the checkpoint is of another training.
    """
    _keep_freed_memory()
    recipe = dataclasses.replace(options.recipe(len(images)), orientations=tuple(orientations))
    _check(spec, recipe)
    sample = held_out if sample is None else sample
    chosen = pick_device(device)
    state = _begin(spec, recipe, options.seed, 0, chosen, sample)
    identity = identity_of(spec, recipe, options.seed)
    begun_for = state.load(checkpoint, identity) if resume else {}
    few = len(held_out) < FEWEST_HELD_OUT
    judged_on = images.array if few and isinstance(images, LoadedImages) else held_out
    scale, least = _loss_of_the_mean(judged_on, recipe.loss), _loss_at_best(judged_on, recipe.loss)
    weight = 1 + RECONSTRUCTION_WEIGHT if spec.style_dim else 1
    learned_nothing = math.inf if spec.arch == "pooled" else weight * (least + STARTED * (scale - least))
    resident = _resident(images, chosen)
    if options.minutes is not None:
        epochs = begun_for["epochs"] if begun_for.get("minutes") == options.minutes else 0
        if not epochs:
            began = time.perf_counter()
            of_an_epoch = _seconds_an_epoch(state, images, resident, held_out, spec, recipe, scale, chosen)
            left = 60 * options.minutes - state.seconds - (time.perf_counter() - began)
            more = round(min(max(1, left / of_an_epoch), MOST_TIMES * recipe.epochs))
            epochs = len(state.history) + (more if left > 0 or not state.history else 0)
            logger.info("%g minutes are %d epochs here", options.minutes, epochs)
        recipe = dataclasses.replace(recipe, epochs=epochs)
        settled("train", recipe.epochs * len(images))
    steps = math.ceil(len(images) / recipe.batch_size)
    judged_after = max(JUDGED_AFTER, WARM_UP_SHARE * steps * recipe.epochs)
    started = time.perf_counter()
    begun = len(state.history) * len(images)
    with told("train", recipe.epochs * len(images), done=begun, progress=progress) as bar:
        while (epoch := len(state.history) + 1) <= recipe.epochs and not state.has_settled(recipe.epochs):
            seed = options.seed * 1_000_003 + epoch  # by epoch alone: a resumed run sees what an undisturbed one would
            batches = _batches(images, resident, spec, recipe, seed, chosen)
            train_loss, rate, speed = _run_epoch(state, spec, recipe, scale, batches, (epoch - 1) * steps, steps, bar)
            error, contrast = _evaluate(state.model, spec, held_out, recipe, scale, chosen)
            held_out_loss = error + contrast
            judged = (epoch - 1) * steps < judged_after <= epoch * steps
            if judged and error > learned_nothing and scale - least > ALL_ALIKE:
                if state.attempt < MOST_RESTARTS:
                    logger.warning("the loss stays at that of the mean image: training starts again with other weights")
                    spent, state = state.seconds, _begin(spec, recipe, options.seed, state.attempt + 1, chosen, sample)
                    state.seconds = spent
                    bar.reset()
                    continue
                logger.warning("%d restarts did not help, nothing is learned", MOST_RESTARTS)
            _say_if_slow(state.history, speed, machine.load() / cores())
            state.add(Epoch(epoch, train_loss, held_out_loss, rate, speed))
            state.seconds, started = state.seconds + time.perf_counter() - started, time.perf_counter()
            bar.say(epoch=f"{epoch}/{recipe.epochs}", loss=f"{train_loss:.5f}", held_out=f"{held_out_loss:.5f}")
            if checkpoint is not None:
                state.save(checkpoint, identity, {"epochs": recipe.epochs, "minutes": options.minutes})
            if on_epoch is not None:
                on_epoch(state.history)
    spec = _finish(state, spec, recipe, sample, held_out, options.seed, chosen)
    figures = {
        "parameters": count_parameters(state.model),
        "restarts": state.attempt,
        "best_epoch": state.best_epoch,
        "held_out_images": len(held_out),
        "held_out_loss": state.best_loss if state.history else None,
        "seconds": round(state.seconds, 1),
        "images_per_second": round(float(np.median([e.images_per_second for e in state.history] or [0])), 1),
        "device": chosen.type,
    }
    return Training(state.model, spec, recipe, state.history, figures)


def _check(spec: AutoencoderSpec, recipe: Recipe) -> None:
    """`AesearchError` where these do not go together."""
    if recipe.invariance == "none" and spec.arch == "pooled" and spec.widths:
        raise AesearchError("pooled needs augmentation: --invariance pictures, drawn, light or strong, or --arch conv")
    if recipe.invariance == "none" and spec.arch != "pooled" and spec.style_dim:
        raise AesearchError("--style-dim needs something to undo: --invariance light or strong")
    if recipe.loss == "bce" and spec.output in ("identity", "clamp"):
        raise AesearchError(f"--loss bce needs an output between 0 and 1, {spec.arch} gives any number: --loss mse")


def _finish(
    state: State,
    spec: AutoencoderSpec,
    recipe: Recipe,
    sample: NDArray[np.uint8],
    held_out: NDArray[np.uint8],
    seed: int,
    device: torch.device,
) -> AutoencoderSpec:
    """Take the network of the best epoch, without what only training needs, and set what needs none."""
    state.model.load_state_dict(state.best)
    state.model.eval()
    if "projection" in state.model:
        del state.model["projection"]
    if spec.arch != "pooled":
        return spec
    able = pick_device("cpu") if device.type == "mps" else device  # that has no float64
    state.model.to(able)
    with told("fit"):
        if spec.widths:
            settle_trunk(state.model, sample)
            _keep_if_better(state.model, held_out, recipe, able)
        spec = choose_patches(state.model, spec, sample, seed)
    state.model.to(device)
    return spec


def _keep_if_better(model: nn.ModuleDict, held_out: NDArray[np.uint8], recipe: Recipe, device: torch.device) -> None:
    """Silence what the decoder adds to the principal components where held-out images are rebuilt worse with it."""
    learned = copy.deepcopy(model["decoder"].state_dict())
    with_it = _rebuilding_error(model, held_out, recipe, device)
    silence(model)
    if with_it < _rebuilding_error(model, held_out, recipe, device):
        model["decoder"].load_state_dict(learned)


def _rebuilding_error(model: nn.ModuleDict, images: NDArray[np.uint8], recipe: Recipe, device: torch.device) -> float:
    import torch

    with torch.inference_mode():
        batches = held_out_batches(images, "none", recipe.batch_size, device)
        return sum(float((model["decoder"](style_part(model)(x)) - x).square().sum()) for x, _ in batches)


def _say_if_slow(history: list[Epoch], speed: float, load: float) -> None:
    """Note an epoch far slower than another before, or a first one at a high load, in processes a core; once each."""
    speeds = [epoch.images_per_second for epoch in history]
    if not speeds and load > CROWDED:
        logger.info("the machine is busy with other work: training runs at %s images/s", f"{speed:,.0f}")
    quickest = max(speeds, default=0.0)
    if speed < SLOWED * quickest <= min(speeds):
        told = "training has slowed from %s to %s images/s: the machine has other work; --threads 1 leaves more to it"
        logger.info(told, f"{quickest:,.0f}", f"{speed:,.0f}")


def _keep_freed_memory() -> None:
    """Have the C library keep blocks of up to 32 MiB that are freed, as each step asks for the same ones again.

    By itself glibc returns them to the system, which then hands out, and empties, every page anew.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(M_MMAP_THRESHOLD, 2**25)  # larger ones are given back as before
        libc.mallopt(M_TRIM_THRESHOLD, 2**30)


def _run_epoch(
    state: State,
    spec: AutoencoderSpec,
    recipe: Recipe,
    scale: float,
    batches: Iterator[tuple[torch.Tensor, torch.Tensor]],
    done: int,
    steps: int,
    bar: Step,
) -> tuple[float, float, float]:
    """Train on every batch once; return mean loss, last learning rate, images a second.

    ``scale`` is the loss of the mean image, ``done`` are the steps of earlier epochs, ``steps`` those of one.
    """
    seen, started, rate = 0, time.perf_counter(), 0.0
    total: torch.Tensor | float = 0.0
    state.model.train()
    for step, (inputs, targets) in enumerate(batches, done):
        rate = _rate(recipe, step / (recipe.epochs * steps))
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        error, contrast = losses_of(state.model, spec, inputs, targets, recipe.loss, scale)
        loss = error + contrast
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        state.optimizer.step()
        total = total + loss.detach() * len(targets)
        seen += len(targets)
        bar.update(len(targets))
    train_loss = float(total) / max(seen, 1)  # the epoch's only wait for the device
    if not math.isfinite(train_loss):
        raise AesearchError(
            f"the loss became NaN or infinite in epoch {done // steps + 1}: "
            f"train again with a lower --learning-rate (now {recipe.learning_rate:g})"
        )
    return train_loss, rate, seen / (time.perf_counter() - started)


def _seconds_an_epoch(
    state: State,
    images: Images,
    resident: torch.Tensor | None,
    held_out: NDArray[np.uint8],
    spec: AutoencoderSpec,
    recipe: Recipe,
    scale: float,
    device: torch.device,
) -> float:
    """How long an epoch takes, by a few steps of a copy of the network."""
    trial, steps, seconds = copy.deepcopy(state), math.ceil(len(images) / recipe.batch_size), 0.0
    batches = itertools.chain.from_iterable(
        _batches(images, resident, spec, recipe, epoch, device) for epoch in itertools.count()
    )
    for many in (TRIED_STEPS, TIMED_STEPS):  # the first ones are slower
        started = time.perf_counter()
        _run_epoch(trial, spec, recipe, scale, itertools.islice(batches, many), 0, steps, Step("try", None, "img", 0))
        seconds = (time.perf_counter() - started) / many * steps
    started = time.perf_counter()
    _evaluate(trial.model, spec, held_out, recipe, scale, device)
    return seconds + time.perf_counter() - started


def _begin(
    spec: AutoencoderSpec, recipe: Recipe, seed: int, attempt: int, device: torch.device, sample: NDArray[np.uint8]
) -> State:
    """Fresh weights, and nothing learned yet."""
    import torch
    from torch import nn

    torch.manual_seed(seed + 1_000_003 * attempt)
    model, (hidden, size) = build_autoencoder(spec), PROJECTION
    if spec.arch == "pooled":
        with told("components"):
            fit_components(model, spec, sample, seed)
        if spec.widths:
            first = nn.Linear(numbers_of_trunk(model), hidden, bias=False)
            model["projection"] = nn.Sequential(first, nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, size))
    elif spec.style_dim:
        model["projection"] = nn.Sequential(nn.Linear(spec.feature_dim, hidden), nn.ReLU(), nn.Linear(hidden, size))
    model = on_device(model, device)
    return State(model, _optimizer(model, recipe.optimizer, device), attempt)


def _loss_of_the_mean(images: NDArray[np.uint8], loss: str) -> float:
    """Loss of answering every image with the mean one: what a network has that learned nothing."""
    mean = images.mean(axis=0) / 255
    if loss == "bce":
        return float(-(mean * np.log(mean + 1e-12) + (1 - mean) * np.log(1 - mean + 1e-12)).mean())
    mean_square = float(np.einsum("i,i->", images.ravel(), images.ravel(), dtype=np.float64)) / images.size / 255**2
    return mean_square - float(np.square(mean).mean())


def _loss_at_best(images: NDArray[np.uint8], loss: str) -> float:
    """Loss of rebuilding every image exactly: cross-entropy has what is grey left of it."""
    if loss != "bce":
        return 0.0
    grey = np.arange(256) / 255
    of_each = -(grey * np.log(grey + 1e-12) + (1 - grey) * np.log(1 - grey + 1e-12))
    return float(np.bincount(images.ravel(), minlength=256) @ of_each / images.size)


def _optimizer(model: nn.ModuleDict, name: str, device: torch.device) -> torch.optim.Adam:
    import torch

    fused = device.type != "mps"
    if name == "adamw":
        return torch.optim.AdamW(model.parameters(), weight_decay=WEIGHT_DECAY, fused=fused)
    return torch.optim.Adam(model.parameters(), fused=fused)


def _rate(recipe: Recipe, done: float) -> float:
    """Learning rate after a share of the steps; one-cycle: cosine up from 1/25, cosine down to 0."""
    if recipe.schedule == "constant":
        return recipe.learning_rate
    if done < WARM_UP_SHARE:
        return recipe.learning_rate * (0.04 + 0.96 * (1 - math.cos(math.pi * done / WARM_UP_SHARE)) / 2)
    return recipe.learning_rate * (1 + math.cos(math.pi * (done - WARM_UP_SHARE) / (1 - WARM_UP_SHARE))) / 2


def _batches(
    images: Images,
    resident: torch.Tensor | None,
    spec: AutoencoderSpec,
    recipe: Recipe,
    seed: int,
    device: torch.device,
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield the shuffled (inputs, targets) of one epoch."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(images), generator=generator).numpy()
    groups = [order[s : s + recipe.batch_size] for s in range(0, len(order), recipe.batch_size)]
    # One image alone has no spread for batch norm, if its maps are of one pixel.
    groups = [group if len(group) > 1 else group.repeat(2) for group in groups]
    for batch in _read(images, resident, groups, device):
        targets = to_float(batch)
        untouched = 0.0 if spec.style_dim else UNTOUCHED_SHARE
        views = _views(spec, recipe)
        yield changed_versions(targets, recipe.invariance, generator, untouched, recipe.orientations, *views), targets


def _views(spec: AutoencoderSpec, recipe: Recipe) -> tuple[int, float]:
    """How many changed versions of an image are compared, one if the untouched one is too, and their sides.

    Stretched to full size, what is cut out of a picture would be larger than in the whole pictures that features are of
    (Touvron et al. 2019, "Fixing the train-test resolution discrepancy"); at three quarters it is about as large.
    """
    shorter, longer = sorted(spec.preprocessing.shape[1:])
    if spec.arch != "pooled":
        return 1, 1.0
    may_be_smaller = recipe.invariance == "pictures" and shorter > TINY and longer < LONGEST_OF_VIEWS * shorter
    return 2, SIDE_OF_VIEWS if may_be_smaller else 1.0


def _resident(images: Images, device: torch.device) -> torch.Tensor | None:
    """Images in memory as one tensor: in place on a CPU, on a GPU where they fill less than half of it."""
    import torch

    if not isinstance(images, LoadedImages):
        return None
    fits = device.type != "cuda" or images.array.nbytes < torch.cuda.mem_get_info(device)[0] // 2
    return torch.from_numpy(images.array).to(device if fits else "cpu")


def _read(
    images: Images, resident: torch.Tensor | None, groups: list[NDArray[np.int64]], device: torch.device
) -> Iterator[torch.Tensor]:
    """Batches as uint8 tensors on the device."""
    import torch

    if resident is not None:
        for group in groups:
            yield resident[torch.from_numpy(group).to(resident.device)].to(device)
    else:
        for batch in images.batches(groups):
            if len(batch):
                yield torch.from_numpy(batch).to(device)


def _evaluate(
    model: nn.ModuleDict,
    spec: AutoencoderSpec,
    held_out: NDArray[np.uint8],
    recipe: Recipe,
    scale: float,
    device: torch.device,
) -> tuple[float, float]:
    """`losses_of` of the held-out images."""
    import torch

    model.eval()
    totals = np.zeros(2)
    with torch.inference_mode():
        batches = held_out_batches(
            held_out, recipe.invariance, recipe.batch_size, device, recipe.orientations, *_views(spec, recipe)
        )
        for inputs, targets in batches:
            losses = losses_of(model, spec, inputs, targets, recipe.loss, scale)
            totals += [float(loss) * len(targets) for loss in losses]
    error, contrast = totals / len(held_out)
    return float(error), float(contrast)
