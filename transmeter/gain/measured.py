"""Labels as what a metric measures: classes, or a quantity."""

import warnings
from dataclasses import replace

import numpy as np
import pandas as pd

from transmeter.gain.metric_names import METRICS, decisions
from transmeter.gain.metrics import positive_classes
from transmeter.tables.data import Table, Unusable
from transmeter.tables.labels import R2
from transmeter.util.arguments import one_of
from transmeter.util.counts import counted


def known_metric(metric: str | None) -> str | None:
    """A metric, before any table is read.

    Parameters
    ----------
    metric : str or None
        As for `measured_by`.

    Returns
    -------
    str or None
        The same.

    Raises
    ------
    ValueError
        For an unknown one.
    """
    return None if metric is None else one_of("metric", metric, (*METRICS, R2))


def measured_by(target: Table, metric: str | None, quantities: bool = True) -> tuple[Table, str]:
    """The target with its label as what a metric measures, and that metric.

    Parameters
    ----------
    target : Table
        As it was read.
    metric : str or None
        One of `METRICS`, for which a quantity is cut at its terciles; "r2", for which classes have to be numbers; None:
        balanced accuracy of classes, r2 of a quantity.
    quantities : bool
        Whether a quantity can be measured at all.

    Returns
    -------
    tuple
        The table and the metric.

    Raises
    ------
    ValueError
        For an unknown metric, and for r2 of classes that are not numbers.
    """
    if metric is None:
        metric = R2 if quantities and target.quantity is not None else METRICS[0]
    one_of("metric", metric, (*METRICS, R2) if quantities else METRICS)
    return (as_quantity(target) if metric == R2 else as_classes(target)), metric


def metric_notes(target: Table, metric: str) -> list[str]:
    """What is decided of gains in a metric.

    Parameters
    ----------
    target : Table
        With its label as what the metric measures.
    metric : str
        As `measured_by` returns it.

    Returns
    -------
    list of str
        As by `metric_names.decisions`.
    """
    rarer = positive_classes(target.codes, len(target.classes))
    return decisions(metric, target.classes[rarer[0]] if len(rarer) == 1 else None)


def as_quantity(table: Table) -> Table:
    """The table with its label as a quantity.

    Parameters
    ----------
    table
        Whose labels are numbers.

    Returns
    -------
    Table
        `table` itself where the label is one already.

    Raises
    ------
    ValueError
        For a class whose name is not a finite number.
    """
    if table.quantity is not None:
        return table
    numbers = pd.to_numeric(pd.Series(table.labels, dtype=object), errors="coerce").to_numpy(dtype=np.float64)
    for label in table.labels[(table.codes >= 0) & ~np.isfinite(numbers)]:
        raise ValueError(f"{table.name} has the label '{label}', which is not a number: a quantity is needed")
    return replace(table, quantity=numbers)


def source_quantity(table: Table) -> Table:
    """A source with its label as a quantity, as one that serves a target with a quantity.

    Parameters
    ----------
    table
        Whose labels are numbers, or two classes, which become 0 and 1: the sign and the unit are learned.

    Returns
    -------
    Table
        `table` itself where the label is a quantity already.

    Raises
    ------
    ValueError
        For more classes, the names of which are not numbers.
    """
    try:
        return as_quantity(table)
    except ValueError:
        if len(table.classes) != 2:
            classes = counted(len(table.classes), "class", "classes")
            has = f"{table.name} has {classes}, not numbers, and the target a quantity"
            raise ValueError(f"{has}: give a quantity or two classes") from None
    first, second = table.classes
    note = f"'{first}' counts as 0 and '{second}' as 1, as the target has a quantity"
    warnings.warn(f"{table.name}: {note}", stacklevel=2)
    quantity = np.where(table.codes < 0, np.nan, table.codes)
    return replace(table, quantity=quantity, notes=(*table.notes, note))


def as_classes(table: Table) -> Table:
    """The table with its label as classes, of a quantity its terciles.

    Parameters
    ----------
    table
        Any.

    Returns
    -------
    Table
        `table` itself where the label is classes already.
    """
    return table if table.quantity is None else replace(table, quantity=None)


def like(target: Table, source: Table | Unusable) -> Table | Unusable:
    """A source whose label is of the kind of the target's.

    Parameters
    ----------
    target
        With a quantity or with classes.
    source
        Any.

    Returns
    -------
    Table or Unusable
        The latter for classes that cannot stand for a quantity.
    """
    if isinstance(source, Unusable):
        return source
    if target.quantity is None:
        return as_classes(source)
    try:
        return source_quantity(source)
    except ValueError as error:
        return Unusable(source.name, str(error))
