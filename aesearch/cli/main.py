"""The command line: what all commands share, and which there are."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from aesearch.cli import anomalies, build, decode, groups, labels, overview, search, share
from aesearch.cli.console import Notes, fail, note
from aesearch.cli.options import threads_option
from aesearch.errors import AesearchError
from aesearch.progress import AS_JSON, BAR, form
from aesearch.signals import MESSAGE
from aesearch.version import __version__

LIGHT = ("info", "export")  # commands that compute nothing


class Command(TyperCommand):
    """With ``--json-progress``, which every command takes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        told = "Report progress as lines of JSON on standard error."
        self.params.append(
            TyperOption(
                param_decls=["--json-progress"], is_flag=True, default=False, expose_value=False, help=told,
                callback=lambda context, option, given: form.set(AS_JSON if given else BAR),
            )
        )  # fmt: skip


class Group(TyperGroup):
    """Turns what a user can cause into one line on standard error and exit code 1."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for name, command in self.commands.items():
            if name not in LIGHT:
                command.params.append(threads_option())

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except AesearchError as error:
            fail(str(error))
        except KeyboardInterrupt as stopped:
            note(MESSAGE)
            raise typer.Exit(getattr(stopped, "code", 130)) from None
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader has seen enough
            raise typer.Exit(0) from None
        except MemoryError as error:
            fail(f"not enough memory: {str(error).splitlines()[0] if str(error) else 'take fewer or smaller images'}")
        except OSError as error:
            fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")


app = typer.Typer(
    cls=Group,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Search, group, map and check unlabelled images with an autoencoder trained on those very images.\n\n"
    "Start with:  aesearch build-index FOLDER  and then  aesearch query img.png -k 10",
)


@app.callback(invoke_without_command=True)
def main(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    """Set up what all commands share."""
    if version:
        print(f"aesearch {__version__}")
        raise typer.Exit
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Notes())
    logger = logging.getLogger("aesearch")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # that it keeps no list of fonts in a read-only home
    logging.getLogger("PIL").setLevel(logging.CRITICAL)  # what it says of broken files is in skipped.csv


COMMANDS: dict[str, Callable[..., None]] = {
    "train": build.train,
    "sweep": build.sweep,
    "extract": build.extract,
    "build-index": build.build_index,
    "update": build.update,
    "query": search.query,
    "anomalies": anomalies.anomalies,
    "duplicates": search.duplicates,
    "reconstruct": decode.reconstruct,
    "generate": decode.generate,
    "cluster": groups.cluster,
    "map": groups.draw_map,
    "probe": labels.probe,
    "classify": labels.classify,
    "info": overview.info,
    "list": overview.list_collections,
    "report": share.report,
    "serve": share.serve,
    "export": share.export,
}  # in the order of the help
for _name, _command in COMMANDS.items():
    app.command(_name, cls=Command)(_command)
