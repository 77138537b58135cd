"""What happens to tables before any scorer sees them: texts become numbers, columns get the target's names."""

import logging
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from transmeter.tables.data import Table
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
) -> tuple[Table, list[Table], list[list[Match]]]:
    """The target and the sources with texts as numbers and the sources' columns named as the target's; the matches.

    encoder: of texts and column names, as for `featurise`; match: columns of one name only, or of one meaning too;
    cache: folder for what the encoder gave. Raises ValueError for another `match` or an encoder that cannot be loaded.
    """
    if match not in MATCH:
        raise ValueError(f"match '{match}' is unknown: give one of {', '.join(MATCH)}")
    if encoder:
        check_encoder(encoder)
    target, *tables = featurise([target, *sources], encoder, cache)
    describe = partial(embed, encoder=encoder, cache=cache) if encoder else None
    aligned = [align(t, target, describe, meaning=match == "meaning") for t in tables]
    for table, (_, matches) in zip(tables, aligned):
        meant = ", ".join(f"{m.source} = {m.target} ({m.confidence})" for m in matches if m.how == "meaning")
        named = sum(m.how == "name" for m in matches)
        LOG.info(
            "%s: %d of %d columns matched by name; by meaning: %s",
            table.name,
            named,
            len(table.columns),
            meant or "none",
        )
    return target, [t for t, _ in aligned], [m for _, m in aligned]
