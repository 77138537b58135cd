"""What happens to tables before any scorer sees them: texts become numbers, columns get the target's names."""

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from transmeter.tables.classes import align_classes
from transmeter.tables.columns import listed
from transmeter.tables.data import Table, in_order
from transmeter.tables.matching import Match, align
from transmeter.tables.text import check_encoder, embed, featurise

LOG = logging.getLogger(__name__)
MATCH = ("meaning", "name")  # how columns may match


def prepare(
    target: Table,
    sources: Sequence[Table],
    encoder: str | Path | None = None,
    match: str = "meaning",
    cache: Path | None = None,
    classes: Mapping[str, Mapping[str, str]] | None = None,
) -> tuple[Table, list[Table], list[list[Match]]]:
    """Target and sources as scorers see them: texts as numbers, the sources' columns and classes named as the target's.

    Parameters
    ----------
    target, sources
        Tables as they were read.
    encoder
        Of texts and column names, as for `featurise`.
    match
        Whether columns match by "name" alone, or by "meaning" too.
    cache
        Folder for what the encoder gave; None: nothing is kept.
    classes
        By name of the source: its classes with those of the target that they stand for, as for `align_classes`.

    Returns
    -------
    tuple
        The target, the sources with their rows in an order of their own, and the matches of the columns of each.

    Raises
    ------
    ValueError
        For another `match`, an encoder that cannot be loaded, and classes or sources that are not there.
    """
    unknown = next((name for name in classes or {} if name not in {s.name for s in sources}), None)
    if unknown is not None:
        raise ValueError(f"classes are given of '{unknown}': name one of {', '.join(s.name for s in sources)}")
    if match not in MATCH:
        raise ValueError(f"match '{match}' is unknown: give one of {', '.join(MATCH)}")
    if encoder:
        check_encoder(encoder)
    target, *tables = featurise([target, *sources], encoder, cache)
    describe = partial(embed, encoder=encoder, cache=cache) if encoder else None
    aligned = [align(t, target, describe, meaning=match == "meaning") for t in tables]
    for table, (_, matches) in zip(tables, aligned):
        for line in match_lines(table, matches):
            LOG.info("%s: %s", table.name, line)
    tables = [in_order(t) for t, _ in aligned]
    if target.quantity is None:
        tables = [align_classes(t, target, (classes or {}).get(t.name)) for t in tables]
    elif classes:
        raise ValueError(f"classes are given, and the label of {target.name} is a quantity: leave them out")
    return target, tables, [m for _, m in aligned]


def match_lines(source: Table, matches: Sequence[Match]) -> list[str]:
    """Which columns match, in words.

    Parameters
    ----------
    source
        Whose columns they are.
    matches
        Of its columns with those of the target.

    Returns
    -------
    list of str
        One line for those of equal names, and one per match by meaning, with its confidence.
    """
    named = [m.target for m in matches if m.how == "name"]
    names = f": {listed(named)}" if named else ""
    lines = [f"{len(named)} of {len(source.columns)} columns matched by name{names}"]
    meant = [m for m in matches if m.how == "meaning"]
    return lines + [f"column '{m.source}' stands for '{m.target}' by meaning, confidence {m.confidence}" for m in meant]
