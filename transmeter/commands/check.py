"""The command check: how files are read, before anything is ranked."""

import click

from transmeter.commands.options import check_compared, configure_libraries, json_option, reading
from transmeter.util.to_json import to_json


@click.command()
@reading
@json_option
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
def check(files, as_json, encoder, **options) -> None:
    """Say what FILES are read as, what of them matches, and what is missing or odd, one line each.

    The first file is the target, the others are its sources: [NAME=]PATH[::LABEL_COLUMN], as in rank. Nothing is
    trained or written. rank prints the same lines with: transmeter -v rank.

    Example: transmeter check mine.csv a.csv b=other/b.csv::diagnosis
    """
    configure_libraries()
    check_compared(files[0], files[1:], encoder)

    from transmeter import checks

    result = checks.check(files[0], files[1:], encoder=encoder, **options)
    click.echo(to_json(result) if as_json else "\n".join(result.lines) + "\n", nl=False)
