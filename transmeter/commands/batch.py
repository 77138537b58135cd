"""The commands of batch scoring: batch, results, status."""

import csv
import os
import sys
import warnings
from pathlib import Path

import click

from transmeter.commands.options import BYTES, SECONDS, json_option, reserve, shape_options, user_cache
from transmeter.util import writing
from transmeter.util.arguments import LARGEST_SEED
from transmeter.util.to_json import to_json

METRICS = ("balanced_accuracy", "accuracy")
FAILED = 3  # exit code of a run that ended with failed pairs
PER_PAIR = {True: 2.0, False: 0.5}  # seconds that --dry-run expects of Transmeter and of others, before any was timed
NAMED = 5  # unusable files that --dry-run names
BASE, FACTOR = 500e6, 6.0  # bytes of a worker, and those a byte of the tables that it works on


@click.command()
@click.argument("job", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--store", required=True, type=click.Path(dir_okay=False, path_type=Path), help="SQLite file of results.")
@click.option("--targets", multiple=True, metavar="GLOB", help="Instead of JOB: files or patterns; may repeat.")
@click.option("--sources", multiple=True, metavar="GLOB", help="Instead of JOB: files or patterns; may repeat.")
@click.option("--scorer", "scorers", multiple=True, help="Instead of JOB; may repeat. Default: transmeter.")
@click.option("--label", help="Instead of JOB: label column of every file that has it. Default: label.")
@click.option("--key", metavar="COLUMN", help="Instead of JOB: as in rank.")
@click.option("--match", type=click.Choice(["meaning", "name"]), help="Instead of JOB: as in rank.")
@click.option("--encoder", metavar="PATH", help="Instead of JOB: as in rank.")
@click.option("--seed", type=click.IntRange(0, LARGEST_SEED), help="Instead of JOB: as in rank.")
@click.option("--shots", type=click.IntRange(1), help="Instead of JOB: as in rank.")
@click.option("--repeats", type=click.IntRange(2), help="Instead of JOB: as in rank.")
@click.option("--metric", type=click.Choice(METRICS), help="Instead of JOB: as in rank.")
@click.option("--allow-outside", is_flag=True, help="JOB may name files outside of its folder.")
@click.option("--engine", default="local", show_default=True, type=click.Choice(["local", "dask", "ray"]))
@click.option("--address", help="Of a running Dask scheduler or Ray cluster. Default: one is started here.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address that a cluster started here listens at.")
@click.option("--workers", type=click.IntRange(1), help="Processes. Default: one a core.")
@click.option("--pair-timeout", "timeout", type=SECONDS, help="Time after which a pair fails. Default: none.")
@click.option("--memory", type=BYTES, help="Data that a worker may have, such as 2GB; beyond it a pair fails.")
@click.option("--retry-failed", "retry", is_flag=True, help="Score again what failed.")
@click.option("--dry-run", is_flag=True, help="List the pairs and what they would take; score nothing.")
@click.option("--log", type=click.Path(dir_okay=False, path_type=Path), help="Append what happens as JSON lines.")
@click.option("--cache", type=click.Path(path_type=Path), help="Folder for what is reused. Default: user cache.")
@json_option
def batch(
    job,
    store,
    retry,
    dry_run,
    log,
    cache,
    allow_outside,
    engine,
    address,
    host,
    workers,
    timeout,
    memory,
    as_json,
    **given,
):
    """Score every (target, source, scorer) of JOB, a YAML file, into a store; what is there is not scored again.

    \b
    JOB: targets: [a.csv, "tables/*.csv"]      sources: ["tables/*.csv"]
         scorers: [transmeter, {name: logme, set: {steps: 30}}]
         and, as in rank, label, key, shots, repeats, metric, seed, match, encoder.

    A run that was stopped, by whatever, goes on with the same command. A pair that fails is a row with its reason.

    \b
    Exit codes: 0 every pair is scored; 1 the run could not go on (the same command resumes it); 2 bad input, nothing
    was scored; 3 the run ended, some pairs failed; 130 interrupted (the same command resumes it).

    Example: transmeter batch job.yaml --store results.db
    """
    from transmeter.batch import run, watch

    for file in (store, log):
        if file:
            writing.check_file(file)
    plan = plan_of(job, given, not allow_outside, cache or user_cache())
    workers = workers or os.cpu_count() or 1
    if address and engine == "local":
        raise ValueError("--address is of a cluster: give --engine dask or --engine ray with it")
    machine = run.Machine(engine, workers, address, host, timeout, memory)
    if dry_run:
        return _survey(store, plan, workers, as_json)
    with watch.Watch(log) as seen:
        counts = run.run(store, plan, machine, retry, seen.tell)
    for said in sorted(seen.warned):
        warnings.warn(watch.printable(said), stacklevel=2)
    done = counts["before"] + counts["done"]
    failed = f", {counts['failed']} failed (--retry-failed tries them again)" if counts["failed"] else ""
    if as_json:
        found = {"store": store, "total": counts["total"], "done": done, "new": counts["done"]}
        click.echo(to_json(found | {"failed": counts["failed"]}), nl=False)
    else:
        click.echo(f"{store}: {done} of {counts['total']} pairs, {counts['done']} of them new{failed}")
    if counts["failed"]:
        sys.exit(FAILED)


def plan_of(path, given, inside, cache):
    """The job of the file or of the options, checked."""
    from transmeter.batch import run, spec

    named = {k: list(v) if isinstance(v, tuple) else v for k, v in given.items() if v not in (None, ())}
    if path and named:
        raise ValueError(f"--{next(iter(named))} stands beside {path}: write it there, or give options alone")
    if path:
        found, lines = spec.read(path)
        root = path.absolute().parent
    else:
        if not (named.get("targets") and named.get("sources")):
            raise ValueError("give JOB, a YAML file, or --targets and --sources")
        lines, root, inside = spec.Lines(), Path.cwd(), False
        found = spec.check(named, lines)
    targets, sources = (spec.inputs(getattr(found, k), k, root, inside, lines) for k in ("targets", "sources"))
    if found.encoder and (root / found.encoder).exists():
        encoder = (root / found.encoder).resolve()
        if inside and not encoder.is_relative_to(root.resolve()):
            raise lines.error(("encoder",), f"{found.encoder} is outside of {root}: give --allow-outside")
        found = found.model_copy(update={"encoder": str(encoder)})
    return run.Plan(found, targets, sources, spec.options(found, lines), cache.absolute())


def _survey(path, plan, workers, as_json):
    """Print the pairs, and on stderr what is unusable and what the open ones would take."""
    from transmeter.batch import run, store, watch

    timed = {}
    if path.exists():
        with store.reading(path) as db:
            sql = "SELECT scorer, avg(seconds) FROM results WHERE status = 'done' GROUP BY scorer"
            timed = dict(store.query(db, sql)[1])
    heads, rows = ("target", "source", "scorer", "status"), []
    writer = csv.writer(sys.stdout)
    if not as_json:
        writer.writerow(heads)
    pairs = seconds = 0
    with warnings.catch_warnings(action="ignore"):  # of what a run would make of tables, which says it itself
        reasons = run.unusable(path, plan)
    for row in run.survey(path, plan, reasons):
        if as_json:
            rows.append(dict(zip(heads, row)))
        else:
            writer.writerow(row)
        if row[3] == "open":
            pairs += 1
            seconds += timed.get(row[2], PER_PAIR[row[2] == "transmeter"])
    sizes = sorted(Path(s.partition("::")[0]).stat().st_size for s in plan.sources.values())
    memory = workers * (BASE + FACTOR * sum(sizes[-run.CHUNK :]))
    if as_json:
        about = {"pairs": rows, "open": pairs, "unusable": reasons, "seconds": seconds / workers}
        about |= {"workers": workers, "bytes": memory}
        click.echo(to_json(about), nl=False)
    for reason in list(reasons.values())[:NAMED]:
        warnings.warn(reason, stacklevel=2)
    if len(reasons) > NAMED:
        warnings.warn(f"{len(reasons)} files in all are unusable: --json names every one", stacklevel=2)
    how = "as timed in the store" if timed else "a guess before any pair was timed"
    click.echo(
        f"{pairs} pairs are open: about {watch.duration(seconds / workers)} on {workers} workers ({how}),"
        f" at most about {memory / 1e9:.1f} GB",
        err=True,
    )


@click.command()
@click.argument("file", metavar="STORE", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--target", help="Only pairs of this target.")
@click.option("--sql", metavar="QUERY", help="One SELECT instead, over results and the other tables; cannot write.")
@shape_options("csv", "json", "parquet")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write. Default: stdout.")
def results(file, target, sql, shape, out) -> None:
    """Print what a batch found: target, source, scorer, score, gain_pp and its interval, verdict, status, error.

    pandas reads it from the store itself: pandas.read_sql("SELECT * FROM results", sqlite3.connect("STORE")).

    Example: transmeter results results.db --target mine
    """
    from transmeter.batch import store

    reserve(out, writing.check_file)
    if sql and target is not None:
        raise ValueError("--target stands beside --sql: say it in the query, WHERE target = '...'")
    if shape == "parquet" and out is None:
        raise ValueError("--format parquet is no text: name a file with --out")
    query = sql or "SELECT * FROM results" + " WHERE target = ?" * (target is not None)
    with store.reading(file) as db:
        columns, rows = store.query(db, query, () if target is None else (target,))
        _write(columns, list(rows), shape, out)


def _write(columns, rows, shape, out):
    if out is None:
        return _write_text(columns, rows, shape, sys.stdout)
    with writing.replacing(out) as partial:
        if shape == "parquet":
            import pandas as pd

            return pd.DataFrame(rows, columns=columns).to_parquet(partial)
        with partial.open("w", encoding="utf-8", newline="") as file:
            _write_text(columns, rows, shape, file)


def _write_text(columns, rows, shape, file):
    if shape == "csv":
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    else:
        file.write(to_json([dict(zip(columns, row)) for row in rows]))


@click.command()
@click.argument("file", metavar="STORE", type=click.Path(dir_okay=False, path_type=Path))
@json_option
def status(file, as_json) -> None:
    """Print how far the batch that writes STORE has come: pairs done, failed and open, pace, leaders.

    Example: transmeter status results.db
    """
    from transmeter.batch import store, watch

    with store.reading(file) as db:
        found = watch.state(db)
    click.echo(to_json(found) if as_json else watch.status(found), nl=False)
