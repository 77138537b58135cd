"""The command report."""

import click

from compress.commands.options import FILE, PATH
from transmeter.commands.options import reserve, typed
from transmeter.util import writing
from transmeter.util.suggestions import absent


@click.command()
@click.argument("inputs", nargs=-1, required=True, type=PATH)
@click.option("--out", required=True, type=FILE, help="File to write the page to, as HTML.")
def report(inputs, out) -> None:
    """One HTML page from INPUT...: ranking.json, result.json, sweep.json, a store of batch, folders of calibrate,
    compress and sweep. It loads nothing, and reads on a phone, on paper, and in the dark.

    Example: transmeter report ranking.json small result.json --out report.html
    """
    reserve(out, writing.check_file)
    for path in inputs:
        if not path.exists():
            raise ValueError(absent(path))

    from compress.report import page

    page.report(inputs, out, typed())
    click.echo(str(out))
