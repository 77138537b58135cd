"""What results are stored by: the bytes of two tables, a scorer with all its settings, and the code that scores."""

import hashlib
import json
from dataclasses import astuple
from functools import cache
from pathlib import Path

from transmeter.batch.files import digest
from transmeter.batch.spec import Plan
from transmeter.util.code_version import code_version

# the code that can change a number: none that reports, prints, checks arguments or writes files
CODE = (
    *("tables", "network", "learners", "gain", "zero_shot", "scorers"),
    *("ranking.py", "batch/scoring.py", "batch/tables.py"),
    *("util/checkpoint.py", "util/intervals.py", "util/ridge.py"),
)


def version() -> str:
    """The code that scores, as a hash: a number of other code is another number.

    Returns
    -------
    str
        Hexadecimal.
    """
    return code_version(*CODE)


def settings(plan: Plan) -> dict[str, object]:
    """What numbers depend on beside tables, scorer and its options.

    Parameters
    ----------
    plan : Plan
        Of the batch.

    Returns
    -------
    dict
        By name; the encoder by the hash of its files.
    """
    values = {k: getattr(plan.spec, k) for k in ("shots", "repeats", "metric", "seed", "match")}
    return values | {"encoder": plan.spec.encoder and _encoder(plan.spec.encoder)}


@cache
def _encoder(encoder: str) -> str:
    """SHA-256 of the files of an encoder, or its name on a hub."""
    return digest(Path(encoder)).hex() if Path(encoder).exists() else encoder


def method_key(plan: Plan, scorer: str, options: dict[str, object]) -> bytes:
    """Key of a scorer with all settings.

    Parameters
    ----------
    plan : Plan
        Of the batch.
    scorer : str
        Its name.
    options : dict
        Of the scorer.

    Returns
    -------
    bytes
    """
    return hashlib.sha256(json.dumps([scorer, options, settings(plan), version()], sort_keys=True).encode()).digest()


def pair_key(method: bytes, target: bytes, source: bytes) -> bytes:
    """Key of a result.

    Parameters
    ----------
    method : bytes
        Of `method_key`.
    target, source : bytes
        Of `input_digest`.

    Returns
    -------
    bytes
    """
    return hashlib.sha256(method + target + source).digest()


def input_path(spec: str) -> Path:
    """The file of an input.

    Parameters
    ----------
    spec : str
        PATH[::LABEL].

    Returns
    -------
    Path
    """
    return Path(spec.partition("::")[0])


def input_name(plan: Plan, spec: str) -> str:
    """An input with how it is read, as the store calls it.

    Parameters
    ----------
    plan : Plan
        Of the batch.
    spec : str
        PATH[::LABEL].

    Returns
    -------
    str
    """
    return json.dumps([spec, *_read_as(plan, spec)])


def input_digest(plan: Plan, spec: str) -> bytes:
    """SHA-256 of what an input holds and of how it is read.

    Parameters
    ----------
    plan : Plan
        Of the batch.
    spec : str
        PATH[::LABEL].

    Returns
    -------
    bytes
    """
    return digest(input_path(spec), spec.partition("::")[2], *_read_as(plan, spec))


def _read_as(plan: Plan, spec: str) -> tuple[str | None, ...]:
    return plan.spec.label, plan.spec.key, *astuple(plan.dialects[spec])


def is_pair(plan: Plan, digests: dict[str, bytes], target: str, source: str) -> bool:
    """Whether a target and a source are two files of two contents.

    Parameters
    ----------
    plan : Plan
        Of the batch.
    digests : dict
        `input_digest` of every input by its PATH[::LABEL].
    target, source : str
        Names of them.

    Returns
    -------
    bool
    """
    one, other = plan.targets[target], plan.sources[source]
    return input_path(one) != input_path(other) and digests[one] != digests[other]
