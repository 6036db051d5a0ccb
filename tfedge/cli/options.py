"""Options that several commands take, and files that they read."""

from __future__ import annotations

from pathlib import Path

import click

from tfedge.errors import UserError

PATH = click.Path(path_type=Path)
BUILD_DIR = click.option(
    "--build-dir", type=PATH, default="build", show_default=True, help="Folder for all results."
)
STORE = click.option(
    "--store",
    default="",
    metavar="URL",
    help="Share stages with other machines there: s3://BUCKET/..., gs://BUCKET/..., file:///...",
)
SET = click.option(
    "--set",
    "changes",
    multiple=True,
    metavar="STAGE.SETTING=VALUE",
    help="Take this in place of what the file says; may be repeated.",
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def is_given(name: str) -> bool:
    """Whether the user wrote the option of a parameter, which may have a default."""
    source = click.get_current_context().get_parameter_source(name)
    return source is not click.core.ParameterSource.DEFAULT


def read(file: Path) -> bytes:
    """Return a file's bytes."""
    try:
        return file.read_bytes()
    except OSError as error:
        fix = "give a .tflite, such as build/NAME/NAME.tflite"
        raise UserError(file, error.strerror or str(error), fix) from None
