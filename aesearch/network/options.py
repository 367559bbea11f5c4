"""What training is asked to do."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from aesearch.errors import AesearchError, check_choice, did_you_mean
from aesearch.images.decode import Preprocessing
from aesearch.machine import LARGEST_SEED
from aesearch.network.architectures import OUTPUTS, AutoencoderSpec, Recipe, architecture
from aesearch.network.augmentation import INVARIANCES

MOST_OF_ANYTHING = 10**6  # latent numbers, epochs, images a step
LOSSES, OPTIMIZERS = ("mse", "bce"), ("adam", "adamw")
TARGET_STEPS = 4000  # enough for a collection to settle, within these bounds
FEWEST_EPOCHS, MOST_EPOCHS = 32, 100
# Of pooled: epochs, if one for each so many images is not more; steps at least, and at most.
POOLED = {"pictures": (48, 3000), "drawn": (72, 2500)}
IMAGES_AN_EPOCH, LEAST_STEPS = 30, 110
LEAST_BATCH, BATCH, BATCH_OF_PICTURES = 16, 128, 256  # a sixteenth of the images in between
EFFORTS = {"quick": 0.25, "normal": 1.0, "thorough": 4.0}  # times the usual epochs; of pooled quick trains nothing


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
