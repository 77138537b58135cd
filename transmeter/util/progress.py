"""Progress bars on stderr, quiet when that is not a terminal or only errors are logged."""

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich import progress
from rich.console import Console

T = TypeVar("T")
LOG = logging.getLogger(__name__)


def track(steps: Iterable[T], description: str) -> Iterable[T]:
    """Steps with a progress bar.

    Parameters
    ----------
    steps : Iterable
        What is iterated over; its length, where it has one, is that of the bar.
    description : str
        Text before the bar.

    Returns
    -------
    Iterable
        The same steps.
    """
    console = Console(stderr=True)
    return progress.track(steps, description, console=console, disable=_hidden(console))


@contextmanager
def bar(description: str, steps: int) -> Iterator[Callable[[str], None]]:
    """A progress bar whose text says what is known so far; it disappears at the end.

    Parameters
    ----------
    description : str
        Text before the bar.
    steps : int
        Length of the bar.

    Yields
    ------
    Callable
        Moves the bar by one step and puts its argument, a text, behind the description.
    """
    console = Console(stderr=True)
    with progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.TimeRemainingColumn(),
        console=console,
        disable=_hidden(console),
        transient=True,
    ) as shown:
        task = shown.add_task(description, total=steps)
        yield lambda news: shown.update(task, advance=1, description=f"{description} {news}")


def _hidden(console: Console) -> bool:
    return not (console.is_terminal and LOG.isEnabledFor(logging.WARNING))
