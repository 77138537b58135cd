"""Options of the commands that work on a language model."""

from collections.abc import Callable

import click

from transmeter.commands.options import BYTES

tokens_option = click.option(
    "--tokens", default=20_000, show_default=True, type=click.IntRange(1), help="Of calibration."
)
resume_option = click.option("--resume", is_flag=True, help="Go on with a run of the same options that was stopped.")
push_option = click.option(
    "--push-to-hub", "repo", metavar="REPO", help="Upload the folder too, as [USER/]REPO; what is new there is private."
)


def machine_options(command: Callable) -> Callable:
    """What a compression runs on."""
    for option in (
        click.option(
            "--memory", type=BYTES, help="What may be used, such as 2GB; beyond it the model streams. Default: all."
        ),
        click.option(
            "--batch-size", default=32, show_default=True, type=click.IntRange(1), help="Sequences run at once."
        ),
        click.option(
            "--dtype",
            default="float32",
            show_default=True,
            type=click.Choice(["float32", "bfloat16"]),
            help="That it computes in.",
        ),
        click.option(
            "--device", default="cpu", show_default=True, help="cpu, cuda, cuda:1, or auto: all GPUs and the memory."
        ),
    ):
        command = option(command)
    return command
