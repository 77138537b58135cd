"""The command line: the group, and the commands of both packages. Results go to stdout, everything else to stderr."""

from pathlib import Path

import click

from compress.commands.calibrate import calibrate
from compress.commands.compress import compress, methods, run
from compress.commands.evaluate import evaluate
from compress.commands.export import export
from compress.commands.report import report
from compress.commands.sweep import sweep
from transmeter.commands import config as defaults
from transmeter.commands.batch import batch, results, status
from transmeter.commands.check import check
from transmeter.commands.options import Group, limit_threads, listen
from transmeter.commands.rank import rank, scorers, transfer, validate

COMMANDS = (check, rank, validate, transfer, scorers, batch, results, status)
COMMANDS += (calibrate, compress, run, sweep, evaluate, export, report, methods)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="transmeter")
@click.option("-q", "--quiet", "silent", is_flag=True, help="Write nothing to stderr but errors.")
@click.option("-v", "--verbose", is_flag=True, help="Write to stderr what is decided, and why.")
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    metavar="N",
    help="Threads of one process. [default: OMP_NUM_THREADS, or the processors that it may use]",
)
@click.option(
    "--config", type=click.Path(path_type=Path), help="File with defaults of options. [default: ./transmeter.toml]"
)
@click.pass_context
def main(ctx, silent, verbose, threads, config) -> None:
    """Which data should I use? Rank source data sets, choose calibration data, and compress models with it.

    Example: transmeter rank mine.csv a.csv b.csv --shots 5

    \b
    transmeter.toml sets defaults, a section a command:
      [rank]
      shots = 5

    \b
    To complete words by Tab (bash; zsh and fish likewise), in ~/.bashrc:
      eval "$(_TRANSMETER_COMPLETE=bash_source transmeter)"
    """
    listen(silent, verbose)
    limit_threads(threads)
    ctx.default_map = defaults.read(config, main)


for command in COMMANDS:
    main.add_command(command)


if __name__ == "__main__":
    main()
