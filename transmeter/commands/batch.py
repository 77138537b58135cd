"""The commands of batch scoring: batch, results, status."""

import csv
import sys
import warnings
from pathlib import Path

import click

from transmeter.commands.options import BYTES, SECONDS, json_option, reserve, typed, user_cache
from transmeter.gain.metric_names import METRICS
from transmeter.tables.specs import DECIMALS
from transmeter.util import writing
from transmeter.util.arguments import LARGEST_SEED
from transmeter.util.counts import counted
from transmeter.util.to_json import to_json

FAILED = 3  # exit code of a run that ended with failed pairs
NAMED = 5  # unusable files that --dry-run names


@click.command()
@click.argument("file", metavar="[SPEC]", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--store", required=True, type=click.Path(dir_okay=False, path_type=Path), help="SQLite file of results.")
@click.option("--targets", multiple=True, metavar="GLOB", help="Instead of SPEC: files or patterns. May repeat.")
@click.option("--sources", multiple=True, metavar="GLOB", help="Instead of SPEC: files or patterns. May repeat.")
@click.option("--scorer", "scorers", multiple=True, help="Instead of SPEC: a scorer. May repeat. Default: transmeter.")
@click.option("--label", help="Instead of SPEC: label column of every file that has it. Default: label.")
@click.option("--key", metavar="COLUMN", help="Instead of SPEC: as in rank.")
@click.option("--sep", metavar="CHARACTER", help="Instead of SPEC: as in rank.")
@click.option("--decimal", type=click.Choice(DECIMALS), help="Instead of SPEC: as in rank.")
@click.option("--encoding", help="Instead of SPEC: as in rank.")
@click.option("--match", type=click.Choice(["meaning", "name"]), help="Instead of SPEC: as in rank.")
@click.option("--encoder", metavar="PATH", help="Instead of SPEC: as in rank.")
@click.option("--seed", type=click.IntRange(0, LARGEST_SEED), help="Instead of SPEC: as in rank.")
@click.option("--shots", type=click.IntRange(1), help="Instead of SPEC: as in rank.")
@click.option("--repeats", type=click.IntRange(2), help="Instead of SPEC: as in rank.")
@click.option("--metric", type=click.Choice(METRICS), help="Instead of SPEC: as in rank.")
@click.option("--allow-outside", is_flag=True, help="Let SPEC name files outside of its folder.")
@click.option("--engine", default="local", show_default=True, type=click.Choice(["local", "dask", "ray"]))
@click.option("--address", help="Address of a running Dask scheduler or Ray cluster. Default: one is started here.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address that a cluster started here listens at.")
@click.option("--workers", type=click.IntRange(1), help="Number of processes. Default: one per core.")
@click.option(
    "--pair-timeout", "timeout", type=SECONDS, help="Time after which a pair fails, such as 10m. Default: no limit."
)
@click.option("--memory", type=BYTES, help="Memory for the data of a worker, such as 2GB; beyond it a pair fails.")
@click.option("--retry-failed", "retry", is_flag=True, help="Score failed pairs again.")
@click.option("--dry-run", is_flag=True, help="List the pairs and what they would take; score nothing.")
@click.option("--log", type=click.Path(dir_okay=False, path_type=Path), help="File to append events to, as JSON lines.")
@click.option("--cache", type=click.Path(path_type=Path), help="Folder to reuse results from. Default: user cache.")
@json_option
def batch(
    file,
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
    **options,
):
    """Score every (target, source, scorer) of SPEC, a YAML file, into a store; what is there is not scored again.

    \b
    SPEC: targets: [a.csv, "tables/*.csv"]
          sources: ["tables/*.csv"]
          scorers: [transmeter, {name: logme, set: {steps: 30}}]
          and, as in rank, label, key, sep, decimal, encoding, shots,
          repeats, metric, seed, match, encoder. Of some files alone:
          sources: [{path: "german/*.csv", sep: ";", decimal: ","}]

    A run that was stopped, by whatever, goes on with the same command. A pair that fails is a row with its reason.

    \b
    Exit codes: 0 every pair is scored;
                1 the run could not go on (the same command resumes it);
                2 bad input, nothing was scored;
                3 the run ended, some pairs failed;
                130 interrupted (the same command resumes it).

    Example: transmeter batch batch.yaml --store results.db
    """
    from transmeter.batch import spec

    for output in (store, log):
        if output:
            writing.check_file(output)
    plan = spec.plan(file, options, not allow_outside, cache or user_cache())
    from transmeter.batch import run, watch  # pandas, which takes time, only for a good spec

    if workers is None:
        import joblib

        workers = joblib.cpu_count()  # what the process may use, which is fewer in a container
    if address and engine == "local":
        raise ValueError("--address is of a cluster: give --engine dask or --engine ray with it")
    if dry_run:
        return _dry_run(store, plan, workers, as_json)
    machine = run.Machine(engine, workers, address, host, timeout, memory)
    with watch.Watch(log) as watcher:
        counts = run.run(store, plan, machine, retry, watcher.tell, typed())
    for message in sorted(watcher.warned):
        warnings.warn(watch.printable(message), stacklevel=2)
    done = counts["before"] + counts["done"]
    if as_json:
        numbers = {"store": store, "total": counts["total"], "done": done, "new": counts["done"]}
        click.echo(to_json({**numbers, "failed": counts["failed"]}), nl=False)
    else:
        failed = f", {counts['failed']} failed (--retry-failed tries them again)" if counts["failed"] else ""
        click.echo(f"{store}: {done} of {counted(counts['total'], 'pair')}, {counts['done']} of them new{failed}")
    if counts["failed"]:
        sys.exit(FAILED)


def _dry_run(path, plan, workers, as_json):
    """Print the pairs, and on stderr what is unusable and what the open ones would take."""
    from transmeter.batch import dry_run, watch

    with warnings.catch_warnings(action="ignore"):  # of what a run would make of tables, which says it itself
        reasons = dry_run.unusable(path, plan)
    timed = dry_run.timings(path)
    pairs, count, seconds = [], 0, 0.0
    writer = csv.writer(sys.stdout)
    if not as_json:
        writer.writerow(dry_run.Pair._fields)
    for pair in dry_run.pairs(path, plan, reasons):
        if as_json:
            pairs.append(pair._asdict())
        else:
            writer.writerow(pair)
        if pair.status == "open":
            count += 1
            seconds += dry_run.expected_seconds(timed, pair.scorer) / workers
    memory = dry_run.memory(plan, workers)
    if as_json:
        about = {"pairs": pairs, "open": count, "unusable": reasons, "seconds": seconds}
        click.echo(to_json({**about, "workers": workers, "bytes": memory}), nl=False)
    for reason in list(reasons.values())[:NAMED]:
        warnings.warn(reason, stacklevel=2)
    if len(reasons) > NAMED:
        warnings.warn(f"{len(reasons)} files in all are unusable: --json names every one", stacklevel=2)
    how = "as timed in the store" if timed else "a guess before any pair was timed"
    click.echo(
        f"{counted(count, 'pair')} {'is' if count == 1 else 'are'} open: about {watch.duration(seconds)}"
        f" on {counted(workers, 'worker')} ({how}),"
        f" at most about {memory / 1e9:.1f} GB",
        err=True,
    )


@click.command()
@click.argument("file", metavar="STORE", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--target", help="Only pairs of this target.")
@click.option(
    "--sql", metavar="QUERY", help="SQL query to print instead: one SELECT over results and the other tables."
)
@click.option("--json", "shape", flag_value="json", help="The same as --format json.")
@click.option(
    "--format",
    "shape",
    type=click.Choice(["table", "csv", "json", "parquet"]),
    help="Default: table, with --out csv.",
)
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="File to write. Default: stdout.")
def results(file, target, sql, shape, out) -> None:
    """Print what a batch found: of every target the sources, the best first, with their gains or scores.

    --format csv has a row per pair: target, source, scorer, score, gain_pp and its interval, verdict, status, error.
    pandas reads it from the store itself: pandas.read_sql("SELECT * FROM results", sqlite3.connect("STORE")).

    Example: transmeter results results.db --target mine
    """
    from transmeter.batch import store

    reserve(out, writing.check_file)
    if sql and target is not None:
        raise ValueError("--target stands beside --sql: say it in the query, WHERE target = '...'")
    if shape == "parquet" and out is None:
        raise ValueError("--format parquet is not a text: name a file with --out")
    shape = shape or ("csv" if out else "table")
    query = sql or "SELECT * FROM results" + " WHERE target = ?" * (target is not None)
    with store.reading(file) as db:
        columns, rows = store.query(db, query, () if target is None else (target,))
        if shape == "table":
            try:
                _write_table(columns, list(rows), sql is not None, out)
            except (KeyError, TypeError, AttributeError) as error:
                raise ValueError(f"{file} is not as this version writes it ({error!r}): make it anew") from None
        else:
            _write(columns, list(rows), shape, out)


def _write_table(columns, rows, asked, out):
    """Tables for people; of a query that was asked for as its columns are."""
    from transmeter.batch.listing import format_query, format_results

    text = format_query(columns, rows) if asked else format_results(dict(zip(columns, row)) for row in rows)
    if out:
        writing.write_text(out, text)
    else:
        click.echo(text, nl=False)


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
        state = watch.state(db)
    click.echo(to_json(state) if as_json else watch.format_state(state), nl=False)
