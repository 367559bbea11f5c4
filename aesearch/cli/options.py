"""Options that several commands share, with their help; defaults not said are chosen from the data."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperOption

from aesearch.files.naming import HOME, VARIABLE, collections_in, name_of
from aesearch.machine import LARGEST_SEED, use_threads

SOURCE_HELP = (
    "Where the images come from: a folder, digits, mnist[:train|:test] and other torchvision datasets, "
    "an .npy/.npz/.h5 array, or a .csv/.parquet table with a column 'path'."
)
SourceArgument = Annotated[str | None, typer.Argument(help=SOURCE_HELP, show_default=False)]
CollectionOption = Annotated[
    str,
    typer.Option(
        "--collection",
        "-c",
        envvar=VARIABLE,
        help="Name of a collection under indexes/, or a folder.",
        autocompletion=lambda incomplete: [n for n in map(name_of, collections_in(HOME)) if n.startswith(incomplete)],
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")]
LabelsOption = Annotated[
    str | None,
    typer.Option(help="folder: a file's sub-folder is its label; none.", show_default="as before, else none"),
]
GroupOption = Annotated[
    str | None,
    typer.Option(
        help="Which images belong together and stay in the same split: a regular expression for their ids, like "
        "'wafer[0-9]+', a table's column, or none.",
        show_default="near-duplicates, found",
    ),
]
TilesOption = Annotated[
    str | None,
    typer.Option(
        help="Cut large pictures: 256 makes each square of 256 pixels a row, 256,128 one every 128 pixels.",
        show_default="each picture is a row",
    ),
]
DataDirOption = Annotated[
    str | None,
    typer.Option(
        envvar="AESEARCH_DATA", help="Where torchvision's datasets lie, or are downloaded to.", show_default="data"
    ),
]
SeedOption = Annotated[int, typer.Option(min=0, max=LARGEST_SEED, help="Same seed, same machine: same result.")]
SaveOption = Annotated[Path | None, typer.Option(help="Also draw the answer as a picture: sheet.png.")]
ShowOption = Annotated[bool, typer.Option("--show", help="Draw the answer right in the terminal.")]
MemoryOption = Annotated[
    str | None,
    typer.Option(
        help="Memory that an index chosen by auto may take, like 500MB or 2GB.", show_default="half of the machine's"
    ),
]
PictureOption = Annotated[Path, typer.Option("--save", help="The picture to write.")]

# Options of training are None unless given: what is not said is chosen from the data.
ArchOption = Annotated[
    str | None,
    typer.Option(
        help="pooled: patches and a small network, averaged over the image; conv: features that keep positions; or a "
        "well-known one, trained as in its original: conv-pool, conv-stride, conv-spatial, mlp, linear.",
        show_default="pooled",
    ),
]
LatentOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Numbers an image is encoded to.",
        show_default="224 for pictures, 192 for shapes and --effort quick, 64 for other networks; fewer for few images",
    ),
]
EffortOption = Annotated[
    str | None,
    typer.Option(
        help="How long training may take: quick, normal, thorough, or minutes. quick trains no network: it uses "
        "patches alone.",
        show_default="normal",
    ),
]
StyleOption = Annotated[
    int | None,
    typer.Option(
        min=0,
        help="How many latent numbers store position, rotation and the like, and are left out of the features: sharper "
        "reconstructions, while the features stay invariant.",
        show_default="64, 96 for shapes; at most a quarter of a given --latent-dim",
    ),
]
SizeOption = Annotated[
    str | None,
    typer.Option(
        help="Pixels the encoder sees: longer side (64), or HEIGHTxWIDTH (48x64).",
        show_default="median of the images, at most 64",
    ),
]
WidthsOption = Annotated[
    str | None,
    typer.Option(
        help="Channels (mlp: units) of the encoder's stages, like 16,32,96.",
        show_default="32,64,128 for pictures, 32,64,96 for shapes; 16,32,64,… of conv",
    ),
]
ChannelsOption = Annotated[int | None, typer.Option(help="1 grey, 3 colour.", show_default="from the images")]
InvarianceOption = Annotated[
    str | None,
    typer.Option(
        help="Which random changes the encoder learns to undo. light, strong: rotation, shift, scale, shear, elastic "
        "deformation, dilation; pictures: crop, light, colour, blur, noise; drawn: both. none: plain reconstruction.",
        show_default="chosen by the images",
    ),
]
OutputOption = Annotated[
    str | None,
    typer.Option(
        help="Output activation of the decoder: clamp, sigmoid, tanh (the network works on [-1, 1]), identity.",
        show_default="sigmoid; clamp for pooled",
    ),
]
OptimizerOption = Annotated[str | None, typer.Option(help="adam or adamw.", show_default="adamw, or adam for conv")]
LossOption = Annotated[str | None, typer.Option(help="mse or bce.", show_default="mse")]
EpochsOption = Annotated[
    int | None,
    typer.Option(
        min=1, help="Passes over the images.", show_default="48; depends on the network and the number of images"
    ),
]
BatchOption = Annotated[
    int | None,
    typer.Option(min=1, help="Images per training step.", show_default="128, 256 for pictures, fewer for few images"),
]
RateOption = Annotated[float | None, typer.Option(help="Peak learning rate.", show_default="0.003")]
TrainSeedOption = Annotated[
    int | None,
    typer.Option(min=0, max=LARGEST_SEED, help="Same seed, same machine: same weights.", show_default="0"),
]

MOST_DIGITS = 9  # of a number in a list
UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}


def threads_option() -> TyperOption:
    """``--threads``, for every command that computes; the command itself need not know of it."""

    def use(context: Any, parameter: Any, count: int | None) -> None:
        if count is not None:
            if count < 1:
                raise typer.BadParameter("1 or more", param_hint="--threads")
            use_threads(count)

    shown = "as many as cores"
    told = "Number of threads: fewer leave more CPU to other work; results can differ in the last bits."
    return TyperOption(
        param_decls=["--threads"], type=int, expose_value=False, callback=use, help=told, show_default=shown
    )


def numbers_in(text: str, option: str) -> list[int]:
    """``16,32,96`` to whole numbers."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdecimal() and len(part) <= MOST_DIGITS for part in parts):
        raise typer.BadParameter(f"{text!r} is not like 16 or 16,32,96", param_hint=option)
    return [int(part) for part in parts]


def parse_bytes(text: str, option: str) -> int:
    """``2GB``, ``1.5 GiB``, ``500m`` to bytes."""
    found = re.fullmatch(r"([0-9]{1,18}(?:\.[0-9]{1,9})?)\s*([kmgt]i?|)b?", text.strip().lower())
    if not found or not float(found[1]):
        raise typer.BadParameter(f"{text!r} is not like 500MB or 2GB", param_hint=option)
    return int(float(found[1]) * UNITS[found[2]])


Training = dict[str, Any] | None
TRAINING_OPTIONS = {
    "arch": ArchOption,
    "latent_dim": LatentOption,
    "style_dim": StyleOption,
    "widths": WidthsOption,
    "image_size": SizeOption,
    "channels": ChannelsOption,
    "invariance": InvarianceOption,
    "output": OutputOption,
    "loss": LossOption,
    "optimizer": OptimizerOption,
    "epochs": EpochsOption,
    "batch_size": BatchOption,
    "learning_rate": RateOption,
    "effort": EffortOption,
    "seed": TrainSeedOption,
}


def with_training_options(*left_out: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of training, but those; what was said reaches it as ``training``."""
    options = {name: option for name, option in TRAINING_OPTIONS.items() if name not in left_out}
    keyword = inspect.Parameter.POSITIONAL_OR_KEYWORD
    added = [inspect.Parameter(name, keyword, default=None, annotation=option) for name, option in options.items()]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        signature = inspect.signature(command, eval_str=True)
        parameters: list[inspect.Parameter] = []
        for parameter in signature.parameters.values():
            parameters += added if parameter.name == "training" else [parameter]

        @functools.wraps(command)
        def run(**given: Any) -> None:
            command(training=_training(**{name: given.pop(name) for name in options}), **given)

        run.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        return run

    return decorate


def _training(*, image_size: str | None, widths: str | None, **given: Any) -> dict[str, Any]:
    """Only what was said."""
    from aesearch.images.decode import parse_image_size

    if image_size is not None:
        given["image_size"] = parse_image_size(image_size)
    if widths is not None:
        given["widths"] = tuple(numbers_in(widths, "--widths"))
    return {name: value for name, value in given.items() if value is not None}
