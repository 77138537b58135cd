"""Arguments and options of the command line, and the errors that bad ones give."""

import contextlib
import logging
import os
import re
import shlex
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click

from transmeter.tables.specs import DECIMALS, Dialect
from transmeter.util import writing
from transmeter.util.arguments import LARGEST_SEED
from transmeter.util.signatures import keyword_options
from transmeter.util.suggestions import did_you_mean
from transmeter.util.to_json import to_json

INTERRUPTED = 130  # exit code after Ctrl-C
LOOKS, PAUSE = 7, 0.01  # at how many threads run on the machine, and the seconds between two
NOTHING = "nothing was written; the same command begins anew"
PACKAGES = ("transmeter", "compress")  # whose loggers --quiet and --verbose set


class Seconds(click.ParamType):
    """A time such as 90, 90s, 2m or 1h, in seconds."""

    name = "TIME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds of the text."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smh]?)", str(value).strip())
        if not found or not float(found[1]):
            self.fail(f"'{value}' is not a time: give seconds, or a number with s, m or h, such as 60s", param, ctx)
        return float(found[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[found[2]]


class Bytes(click.ParamType):
    """A size such as 800MB, 2GB or 1.5g, in bytes."""

    name = "SIZE"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes of the text."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)b?", str(value).strip().lower())
        size = round(float(found[1]) * 1000 ** " kmgt".index(found[2] or " ")) if found else 0
        if not size:  # also of 0.5, which may have been meant in GB
            self.fail(f"'{value}' is not a size: give bytes, or a number with MB or GB, such as 2GB", param, ctx)
        return size


class Echo(logging.Handler):
    """Log records as lines on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        click.echo(self.format(record), err=True)


def limit_threads(threads: int | None) -> None:
    """Let libraries that are imported later use so many threads; None: as many as the process may use."""
    if threads is not None:
        os.environ["OMP_NUM_THREADS"] = str(threads)


def listen(quiet: bool, verbose: bool) -> None:
    """Log what is decided and why to stderr (verbose), or show nothing there but errors (quiet)."""
    if quiet and verbose:
        raise ValueError("--quiet and --verbose are both given: give one")
    os.environ.setdefault("TQDM_DISABLE", "1")  # read at its import; compressed-tensors has no switch of its own
    for name in PACKAGES:
        logger = logging.getLogger(name)
        logger.handlers = [Echo()]
        logger.setLevel(logging.INFO if verbose else logging.ERROR if quiet else logging.WARNING)
    for name in ("huggingface_hub", "torchao", "torch.utils._pytree"):  # retries, and what a GPU would need
        logging.getLogger(name).setLevel(logging.ERROR)


def tell(message: str) -> None:
    """A line on stderr, but for --quiet."""
    if logging.getLogger(PACKAGES[0]).isEnabledFor(logging.WARNING):
        click.echo(message, err=True)


def typed() -> str:
    """The command line, for what it writes to tell how it was made."""
    return click.get_current_context().meta["typed"]


SECONDS = Seconds()
BYTES = Bytes()
seed_option = click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(0, LARGEST_SEED), help="Seed of all random choices."
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead.")


def shape_options(*shapes: str) -> Callable[[Callable], Callable]:
    """--format with one of `shapes`, the first by default, and --json."""
    wide = click.option("--format", "shape", default=shapes[0], show_default=True, type=click.Choice(shapes))
    short = click.option("--json", "shape", flag_value="json", help="The same as --format json.")
    return lambda command: short(wide(command))  # in this order: click 8.2 takes the last one's default


class Group(click.Group):
    """Bad input ends with one line and exit code 2, a failed run with 1, Ctrl-C with 130 and what is kept."""

    SECTIONS = {
        "Data": ("check", "rank", "validate", "transfer", "scorers"),
        "Models": ("calibrate", "compress", "run", "sweep", "evaluate", "export", "report", "methods"),
    }  # commands of neither, such as batch, come last

    STOPPED = {
        "rank": "source classifiers that were trained are kept, so that the same command takes less time",
        "validate": "source classifiers that were trained are kept, nothing else; the same command begins anew",
        "transfer": "a source classifier that was trained is kept, nothing else; the same command begins anew",
        "calibrate": "what was computed of the texts is kept, so that the same command takes less time",
        "compress": "the same command with --resume goes on from the last finished step",
        "run": "the same command with --resume goes on from the last finished step",
        "sweep": "the models that are finished are kept; the same command goes on with the rest",
        "batch": "the pairs that are scored are in the store; the same command goes on with the rest",
    }  # what Ctrl-C leaves, and how to go on

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The commands by what they are about."""
        rest = [c for c in self.list_commands(ctx) if not any(c in names for names in self.SECTIONS.values())]
        for title, names in (*self.SECTIONS.items(), ("Batch", rest)):
            commands = {name: self.commands[name] for name in names if name in self.commands}
            if commands:
                with formatter.section(title):
                    formatter.write_dl([(name, c.get_short_help_str(limit=90)) for name, c in commands.items()])

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as usual, and note what was typed."""
        ctx.meta["typed"] = shlex.join(["transmeter", *args])
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context):
        """Run the command."""
        warnings.showwarning = lambda message, *_, **__: tell(f"Warning: {message}")
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.Abort):  # RuntimeErrors, by which --help and a prompt end
            raise
        except KeyboardInterrupt:
            click.echo(f"stopped: {self.STOPPED.get(ctx.invoked_subcommand or '', NOTHING)}", err=True)
            sys.exit(INTERRUPTED)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
        except (RuntimeError, OSError) as error:
            raise click.ClickException(str(error)) from None


class Ordered(click.Command):
    """Keeps the order in which --method and --set were given in ctx.meta, which click loses."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse as usual, and note the order."""
        values, _, order = self.make_parser(ctx).parse_args(args=list(args))
        queues = {name: list(values.get(name, ())) for name in ("methods", "settings")}
        ctx.meta["order"] = [(p.name, queues[p.name].pop(0)) for p in order if p.name in queues]
        return super().parse_args(ctx, args)


def _check_dialect(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """The value. Raises ValueError for one that no file is written with."""
    return getattr(Dialect(**{param.name: value}), param.name)


def reading(command: Callable) -> Callable:
    """The options of every command that reads tables and matches their columns."""
    for option in (
        click.option(
            "--encoder",
            metavar="PATH",
            help="Transformers model for texts and column names. Default: TF-IDF and n-grams.",
        ),
        click.option(
            "--match",
            default="meaning",
            show_default=True,
            type=click.Choice(["meaning", "name"]),
            help="How columns of target and source are matched: by meaning, or by name only.",
        ),
        click.option(
            "--encoding",
            callback=_check_dialect,
            help="Encoding of text files, such as latin-1. Default: UTF-8, or UTF-16 where a file says so.",
        ),
        click.option(
            "--decimal",
            type=click.Choice(list(DECIMALS)),
            help="Decimal mark of numbers. Default: decided per column where sure.",
        ),
        click.option(
            "--sep",
            metavar="CHARACTER",
            callback=_check_dialect,
            help="Separator of columns in csv and tsv. Default: guessed where sure.",
        ),
        click.option("--key", metavar="COLUMN", help="Column that says what a row is about, also in sources."),
        click.option("--label", help="Label column of every file that has it. Default: label."),
    ):
        command = option(command)
    return command


def compared(command: Callable) -> Callable:
    """The arguments and options of every command that compares SOURCE... with TARGET."""
    for option in (
        click.option(
            "--cache",
            type=click.Path(path_type=Path),
            help="Folder of trained source classifiers. Default: user cache.",
        ),
        reading,
        click.argument("sources", nargs=-1, required=True),
        click.argument("target"),
    ):
        command = option(command)
    return command


def user_cache() -> Path:
    """The folder in which source classifiers are kept between runs."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("transmeter")) / "sources"


def check_compared(target: str, sources: Sequence[str | Path], encoder: str | None) -> None:
    """Raise ValueError for files that are not there and an encoder that is none: before torch is imported."""
    from transmeter.tables.specs import check_exists

    for spec in (target, *sources):
        check_exists(spec)
    if encoder:
        from transmeter.util import checkpoint

        checkpoint.check(encoder)


def reserve(out: Path | None, check: Callable[[Path], Path]) -> None:
    """Check an output, if one is given, by a function of `transmeter.util.writing`, and keep other runs from writing it
    until the command ends. Raises ValueError as those do."""
    if out:
        click.get_current_context().with_resource(writing.lock(check(out)))


@contextlib.contextmanager
def printing(text: str) -> Iterator[None]:
    """Print results after the block that writes them, also where it fails: they are not lost with a full disk."""
    try:
        yield
    finally:
        click.echo(text, nl=False)


def in_order(order: list[tuple[str, str]], known: dict[str, Callable]) -> list[tuple[str, Callable, tuple[str, ...]]]:
    """(method, function, its settings) from --method and --set in the order given."""
    found: list[tuple[str, Callable, list[str]]] = []
    for kind, value in order:
        if kind == "methods" and value not in known:
            raise ValueError(f"method '{value}' is unknown{did_you_mean(value, known)}: give one of {', '.join(known)}")
        if kind == "methods":
            found.append((value, known[value], []))
        elif not found:
            raise ValueError(f"--set {value} stands before any --method: put it behind the method that it is for")
        else:
            found[-1][2].append(value)
    return [(name, function, tuple(given)) for name, function, given in found]


def listing(functions: dict[str, Callable], fixed: tuple[str, ...], as_json: bool) -> None:
    """Print the functions with what they are and their options, but for the `fixed` ones."""
    found = [
        {
            "name": name,
            "about": (sys.modules[function.__module__].__doc__ or "").split("\n\n")[0].replace("\n", " "),
            "options": {o.name: o.default for o in keyword_options(function) if o.name not in fixed},
        }
        for name, function in functions.items()
    ]
    if as_json:
        click.echo(to_json(found), nl=False)
        return
    for one in found:
        click.echo(f"{one['name']}: {one['about']}")
        for option, default in one["options"].items():
            click.echo(f"    --set {option}={default}")


def others_running() -> float:
    """How many other threads run on the machine at the moment, those of all processes.

    Returns
    -------
    float
        The median of a few looks at /proc/loadavg; where there is none, the load of the last minute; 0 without either.
    """
    try:
        looks = []
        for _ in range(LOOKS):
            looks.append(int(Path("/proc/loadavg").read_text().split()[3].split("/")[0]) - 1)
            time.sleep(PAUSE)
        return statistics.median(looks)
    except (OSError, ValueError, IndexError):
        return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0


def configure_libraries() -> None:
    """Set up the libraries that a command is about to import, by the environment, so that none is imported needlessly.

    Their progress bars and tables of weights are off: what matters of them is said in one line. They take as many
    threads as the process may use, where the machine has more. Where not as many processors are free, a thread that
    waits for others sleeps: beside one busy process on two processors a small model takes 25 ms so, and 830 where
    threads spin. Else it spins, which is twice as fast for small models.
    """
    import joblib

    os.environ.update(HF_DATASETS_DISABLE_PROGRESS_BARS="1", HF_HUB_DISABLE_PROGRESS_BARS="1")
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    count = joblib.cpu_count()
    os.environ.setdefault("OMP_NUM_THREADS", str(count))
    if others_running() > (os.cpu_count() or count) - count:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if datasets := sys.modules.get("datasets"):
        datasets.disable_progress_bars()
    if transformers := sys.modules.get("transformers"):
        transformers.utils.logging.disable_progress_bar()
        transformers.utils.logging.set_verbosity_error()
