"""From images to an autoencoder: the loop, its checkpoint, and what it says of the result."""

from __future__ import annotations

import copy
import ctypes
import dataclasses
import hashlib
import itertools
import json
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
from aesearch.errors import AesearchError, StaleArtifactError, check_choice, did_you_mean
from aesearch.files.atomic import replacing
from aesearch.files.naming import command_for
from aesearch.images.batches import Images, LoadedImages
from aesearch.images.decode import Preprocessing
from aesearch.images.grouping import whole_units
from aesearch.images.worker_processes import cores
from aesearch.network.architectures import (
    OUTPUTS,
    TINY,
    AutoencoderSpec,
    Recipe,
    architecture,
    build_autoencoder,
    count_parameters,
)
from aesearch.network.augmentation import INVARIANCES, UNTOUCHED_SHARE, changed_versions, held_out_batches
from aesearch.network.autoencoder import (
    FORMAT_VERSION,
    on_device,
    pick_device,
    to_float,
)
from aesearch.network.patches import (
    choose_patches,
    fit_components,
    numbers_of_trunk,
    settle_trunk,
    silence,
    style_part,
    trunk,
)
from aesearch.progress import Step, settled
from aesearch.progress import step as told

if TYPE_CHECKING:
    import torch
    from torch import nn

logger = logging.getLogger(__name__)

MOST_OF_ANYTHING = 10**6  # latent numbers, epochs, images a step
LARGEST_SEED = 2**32 - 1
LOSSES, OPTIMIZERS = ("mse", "bce"), ("adam", "adamw")
WEIGHT_DECAY = 1e-5  # of adamw
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # as malloc.h names them

TARGET_STEPS = 4000  # enough for a collection to settle, within these bounds
FEWEST_EPOCHS, MOST_EPOCHS = 32, 100
# Of pooled: epochs, if one for each so many images is not more; steps at least, and at most.
POOLED = {"pictures": (48, 3000), "drawn": (72, 2500)}
IMAGES_AN_EPOCH, LEAST_STEPS = 30, 110
LEAST_BATCH, BATCH, BATCH_OF_PICTURES = 16, 128, 256  # a sixteenth of the images in between
EFFORTS = {"quick": 0.25, "normal": 1.0, "thorough": 4.0}  # times the usual epochs; of pooled quick trains nothing
TIMED_STEPS, TRIED_STEPS = 8, 4  # that tell how long an epoch takes, and before them
MOST_TIMES = 20  # the usual epochs, however many minutes there are
PATIENCE = 0.25  # of all epochs may pass without a better one, once the learning rate is half-way down
HELD_OUT_SHARE, HELD_OUT_MOST = 0.1, 5000
FEWEST_HELD_OUT = 50  # images that tell the loss of the mean image
WARM_UP_SHARE = 0.1
JUDGED_AFTER = 300  # steps, or the warm-up: a network that is no better than the mean image then never will be
STARTED, MOST_RESTARTS = 0.98, 3
SLOWED = 0.4  # of the quickest epoch's speed
CROWDED = 3  # processes that want each core
ALL_ALIKE = 1e-8  # of images whose mean one is this near to each there is nothing to learn
# With a style: weight of rebuilding untouched images, and of telling images apart, as a share of the mean image's loss.
RECONSTRUCTION_WEIGHT, CONTRAST_WEIGHT = 3.5, 0.6
TEMPERATURE, PROJECTION = 0.2, (256, 64)
SIDE_OF_VIEWS, LONGEST_OF_VIEWS = 0.75, 100  # times the images' sides; how much longer than wide
ONE_REBUILT_OF = 8  # pictures: convolutions can add little to what principal components give back of them


@dataclass(frozen=True)
class TrainingOptions:
    """How an autoencoder is trained. ``None`` means as the architecture's source does, or chosen from the data.

    Attributes
    ----------
    arch : str
        Architecture by name.
    latent_dim, widths : int, tuple of int
        Numbers an image is encoded to; channels after each halving.
    style_dim : int
        How many of those numbers keep how the image lies. The others are the features: from them alone the
        network gives back the untouched image when it was given a changed one, and tells it from others; from
        both it rebuilds an untouched one.
    image_size, channels : tuple of int, int
        (longer side,) or (height, width) in pixels; 1 or 3.
    invariance : {"none", "light", "strong", "drawn", "pictures"}
        Which random changes the network learns to undo, see `aesearch.network.augmentation.Changes`. ``none`` trains
        it, where it is not ``pooled``, to reconstruct what it is given.
    output : {"sigmoid", "tanh", "identity"}
        What the decoder ends with; with ``tanh`` the network works on [-1, 1].
    loss : {"mse", "bce"}
        Mean squared error, or binary cross-entropy on [0, 1] pixels.
    optimizer : {"adam", "adamw"}
        ``adamw``: with a weight decay of 1e-5.
    epochs, batch_size : int
        Passes over the images; images a step.
    learning_rate : float
        With ``conv`` the peak of a one-cycle schedule (Smith & Topin 2019), else constant.
    seed : int
        Same seed, machine and number of threads: same weights, bit for bit, on a CPU.
    effort : {"quick", "normal", "thorough"} or a number
        How long it may take. ``quick``: of pictures nothing is trained, what is found in closed form is all. A number:
        minutes for the epochs; their number, and so the result, depends on the machine's speed then. ``epochs`` count
        more.
    """

    arch: str = "pooled"
    latent_dim: int | None = None
    style_dim: int | None = None
    widths: tuple[int, ...] | None = None
    image_size: tuple[int, ...] | None = None
    channels: int | None = None
    output: str | None = None
    invariance: str | None = None
    loss: str | None = None
    optimizer: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    seed: int = 0
    effort: str | float = "normal"

    def __post_init__(self) -> None:
        architecture(self.arch)
        if not isinstance(self.effort, str) or self.effort not in EFFORTS:
            object.__setattr__(self, "effort", _minutes(self.effort))  # "5", 5 and 5.0 are the same
        choices = {"loss": LOSSES, "invariance": tuple(INVARIANCES), "optimizer": OPTIMIZERS, "output": OUTPUTS}
        for name, allowed in choices.items():
            if getattr(self, name) is not None:
                check_choice(name, getattr(self, name), allowed)
        if self.channels not in (None, 1, 3):
            raise AesearchError(f"channels must be 1 or 3, not {self.channels}")
        for name in ("latent_dim", "epochs", "batch_size"):
            if (value := getattr(self, name)) is not None and not 1 <= value <= MOST_OF_ANYTHING:
                raise AesearchError(f"{name.replace('_', '-')} must be 1 to {MOST_OF_ANYTHING:,}, not {value}")
        if not 0 <= self.seed <= LARGEST_SEED:
            raise AesearchError(f"seed must be 0 to {LARGEST_SEED}, not {self.seed}")
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise AesearchError(f"learning rate must be above 0, not {self.learning_rate}")

    @property
    def minutes(self) -> float | None:
        """How long the epochs may take, if that is given, and not their number."""
        return None if self.epochs or isinstance(self.effort, str) else self.effort

    def to_json(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> TrainingOptions:
        """Read back what `to_json` wrote."""
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in document.items()}
        return cls(**values)

    def spec(
        self, preprocessing: Preprocessing, rows: int = 1_000_000, fields: int = 1, mirror: str = ""
    ) -> AutoencoderSpec:
        """Settle the network for so many images, so prepared; ``fields`` and ``mirror`` as in `AutoencoderSpec`."""
        style = 0 if self.style_dim is None and self.invariance == "none" else self.style_dim
        widths = self.widths
        if self.arch == "pooled":
            style, widths = self.style_dim, () if self.effort == "quick" else widths
        return AutoencoderSpec.choose(
            self.arch, preprocessing, self.latent_dim, widths, self.output, style, rows, fields, mirror
        )

    def recipe(self, rows: int) -> Recipe:
        """Settle everything, for that many training images; what minutes come to is known later."""
        own = architecture(self.arch).recipe
        given = {f.name: getattr(self, f.name, None) for f in dataclasses.fields(Recipe)}
        recipe = dataclasses.replace(own, **{name: value for name, value in given.items() if value is not None})
        pictures = self.arch == "pooled" and recipe.invariance == "pictures"
        batch = recipe.batch_size or min(BATCH_OF_PICTURES if pictures else BATCH, max(LEAST_BATCH, rows // 16))
        steps = math.ceil(rows / batch)
        if self.arch == "pooled":
            fewest, most = POOLED.get(recipe.invariance, POOLED["drawn"])
            enough = max(fewest, rows // IMAGES_AN_EPOCH) * steps
            usual = math.ceil(min(most, max(LEAST_STEPS, enough)) / steps)
            usual = 0 if self.effort == "quick" else usual
        else:
            usual = own.epochs or min(MOST_EPOCHS, max(FEWEST_EPOCHS, math.ceil(TARGET_STEPS / steps)))
        epochs = recipe.epochs if self.epochs and usual else math.ceil(usual * EFFORTS.get(str(self.effort), 1.0))
        return dataclasses.replace(recipe, batch_size=batch, epochs=epochs)


def _minutes(given: Any) -> float:
    """A number of minutes; `AesearchError` if it is none."""
    try:
        minutes = math.nan if isinstance(given, bool) else float(given)
    except (TypeError, ValueError):
        minutes = math.nan
    if not 0 < minutes < math.inf:
        near = did_you_mean(str(given), list(EFFORTS))
        raise AesearchError(f"effort {given!r} is not one of {', '.join(EFFORTS)}, or minutes above 0{near}")
    return minutes


def loss_name(spec: AutoencoderSpec, recipe: Recipe) -> str:
    """What the losses in a history add up."""
    if spec.arch == "pooled":
        return f"{recipe.loss} and contrast"
    return f"{recipe.loss}, weighted, and contrast" if spec.style_dim else recipe.loss


@dataclass(frozen=True)
class Epoch:
    """One line of ``history.csv``; errors are means over pixels, with a style weighted and with the contrast added."""

    epoch: int
    train_loss: float
    held_out_loss: float
    learning_rate: float
    images_per_second: float


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
    identity = _identity(spec, recipe, options.seed)
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
        raise AesearchError("pooled learns from changes: --invariance pictures, drawn, light or strong, or --arch conv")
    if recipe.invariance == "none" and spec.arch != "pooled" and spec.style_dim:
        raise AesearchError("--style-dim needs something to undo: --invariance light or strong")
    if recipe.loss == "bce" and spec.output in ("identity", "clamp"):
        raise AesearchError(f"--loss bce needs an output between 0 and 1, {spec.arch} gives any number: --loss mse")


def _finish(
    state: _State,
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
        logger.info("the machine has much other work: training goes at %s images/s", f"{speed:,.0f}")
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
    state: _State,
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
        error, contrast = _losses(state.model, spec, inputs, targets, recipe.loss, scale)
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
            f"the loss is no longer a number in epoch {done // steps + 1}: "
            f"train again with a lower --learning-rate (now {recipe.learning_rate:g})"
        )
    return train_loss, rate, seen / (time.perf_counter() - started)


def _seconds_an_epoch(
    state: _State,
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
) -> _State:
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
    return _State(model, _optimizer(model, recipe.optimizer, device), attempt)


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


def _losses(
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


def _evaluate(
    model: nn.ModuleDict,
    spec: AutoencoderSpec,
    held_out: NDArray[np.uint8],
    recipe: Recipe,
    scale: float,
    device: torch.device,
) -> tuple[float, float]:
    """`_losses` of the held-out images."""
    import torch

    model.eval()
    totals = np.zeros(2)
    with torch.inference_mode():
        batches = held_out_batches(
            held_out, recipe.invariance, recipe.batch_size, device, recipe.orientations, *_views(spec, recipe)
        )
        for inputs, targets in batches:
            losses = _losses(model, spec, inputs, targets, recipe.loss, scale)
            totals += [float(loss) * len(targets) for loss in losses]
    error, contrast = totals / len(held_out)
    return float(error), float(contrast)


class _State:
    """What a checkpoint holds: the network now and at its best, Adam's moments, the history."""

    def __init__(self, model: nn.ModuleDict, optimizer: torch.optim.Adam, attempt: int) -> None:
        self.model, self.optimizer, self.attempt = model, optimizer, attempt
        self.history: list[Epoch] = []
        self.best = copy.deepcopy(model.state_dict())
        self.best_loss, self.best_epoch, self.seconds = math.inf, 0, 0.0

    def add(self, epoch: Epoch) -> None:
        self.history.append(epoch)
        if epoch.held_out_loss < self.best_loss:
            self.best_loss, self.best_epoch = epoch.held_out_loss, epoch.epoch
            self.best = copy.deepcopy(self.model.state_dict())

    def has_settled(self, epochs: int) -> bool:
        """Whether no epoch has been better for so long that none will be."""
        since = max(self.best_epoch, epochs // 2)  # at high rates the loss may stand still, and fall when they do
        return len(self.history) - since > max(5, PATIENCE * epochs)

    def save(self, path: Path, identity: dict[str, Any], begun_for: dict[str, Any]) -> None:
        from safetensors.torch import save_file

        moments = {
            f"adam.{index}.{name}": tensor
            for index, values in self.optimizer.state_dict()["state"].items()
            for name, tensor in values.items()
        }
        tensors = {f"now.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"best.{name}": tensor for name, tensor in self.best.items()} | moments
        document = {
            "identity": identity,
            "begun_for": begun_for,
            "attempt": self.attempt,
            "history": [dataclasses.asdict(e) for e in self.history],
            "best_loss": self.best_loss,
            "best_epoch": self.best_epoch,
            "seconds": self.seconds,
        }
        tensors, written = {n: t.detach().cpu().contiguous() for n, t in tensors.items()}, json.dumps(document)
        with replacing(path, sum(t.nbytes for t in tensors.values())) as temporary:
            save_file(tensors, temporary, metadata={"aesearch": written, "sha256": _digest(tensors, written)})

    def load(self, path: Path | None, identity: dict[str, Any]) -> dict[str, Any]:
        """Go on from a checkpoint; for how many epochs, and in how many minutes, it was begun."""
        import torch
        from safetensors import SafetensorError, safe_open

        if path is None or not path.is_file():
            begin = command_for("train SOURCE", path.parent) if path else "aesearch train SOURCE"
            raise AesearchError(f"there is no training to resume: run {begin} without --resume")
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
                document = json.loads(metadata["aesearch"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}
            if metadata["sha256"] != _digest(tensors, metadata["aesearch"]):
                raise ValueError("not as it was written")
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            begin = command_for("train SOURCE", path.parent)
            raise StaleArtifactError(f"{path} is damaged: run {begin} without --resume") from error
        differing = [k for k, v in identity.items() if document["identity"].get(k) != v]
        if differing:
            raise StaleArtifactError(
                f"the training to resume had other settings ({', '.join(differing)}): "
                "give the same ones, or train without --resume"
            )
        self.model.load_state_dict(_part(tensors, "now."))
        self.best = _part(tensors, "best.")
        moments: dict[int, dict[str, torch.Tensor]] = {}
        parameters = list(self.model.parameters())
        for name, tensor in _part(tensors, "adam.").items():
            index, moment = int(name.split(".")[0]), name.split(".")[1]
            if tensor.ndim:  # the fused optimizer walks memory: moments must lie as their parameter does
                tensor = torch.empty_like(parameters[index]).copy_(tensor)
            moments.setdefault(index, {})[moment] = tensor
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.history = [Epoch(**e) for e in document["history"]]
        self.best_loss, self.best_epoch = document["best_loss"], document["best_epoch"]
        self.attempt, self.seconds = document["attempt"], document.get("seconds", 0.0)
        begun_for: dict[str, Any] = document.get("begun_for", {})
        return begun_for


def _digest(tensors: dict[str, torch.Tensor], document: str) -> str:
    """Of all that a checkpoint holds: no manifest knows its hash."""
    digest = hashlib.sha256(document.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _part(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _identity(spec: AutoencoderSpec, recipe: Recipe, seed: int) -> dict[str, Any]:
    """What must be the same for a training to go on; the number of epochs may grow."""
    document = dataclasses.asdict(recipe) | spec.to_json() | {"seed": seed, "format_version": FORMAT_VERSION}
    del document["epochs"]
    if not spec.mirror:
        del document["mirror"]  # trainings begun before there were any do not have it
    identity: dict[str, Any] = json.loads(json.dumps(document))
    return identity
