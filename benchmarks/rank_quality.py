"""Does the ranking predict the true gain? Five families of problems, all scorers, two modes.

    python benchmarks/rank_quality.py DATASETS --encoder FOLDER        (about an hour on 2 cores)
    python benchmarks/rank_quality.py DATASETS --most-classes 2 --family knobs --family real ...
    python benchmarks/rank_quality.py DATASETS --quick                 (under 3)

Ground truth: gains of the combination of learners, 64 paired repeats, beside those of pooled logistic regression, on
splits that no ranking sees. Planning mode: all target rows are labelled, k per class train. Few labels: only k rows per
class carry a label, drawn anew; the others are unlabelled. DATASETS holds tabular/NAME.csv and
text/NAME/train.csv.gz; the encoder is all-MiniLM-L6-v2. Every cell is written when it is done, and a second run goes
on where the first stopped. rank_report.py turns the cells into figures.
"""

import hashlib
import json
import os
import re
import time
import warnings
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from pathlib import Path

import click
import numpy as np
import torch
from families import Problem, problems
from rank_report import report

from transmeter.gain import ground_truth
from transmeter.gain.estimate import measure_gain
from transmeter.gain.prior import load_prior
from transmeter.gain.score import Score
from transmeter.network.source import Source
from transmeter.scorers import scorers
from transmeter.tables.data import Table
from transmeter.tables.text import featurise
from transmeter.util import writing

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
LEFT_OUT = ("alignment",)  # needs features of one model on both sides; it serves calibration data


@click.command()
@click.argument("datasets", type=click.Path(path_type=Path, exists=True))
@click.option("--encoder", type=click.Path(path_type=Path), help="Of the texts. Default: TF-IDF.")
@click.option("--quick", is_flag=True, help="One target a family, fewer repeats.")
@click.option("--family", multiple=True, help="Only these families. Default: all.")
@click.option("--most-classes", default=100, help="Targets with more classes are left out.")
@click.option("--scorer", "chosen", multiple=True, help="Only these beside transmeter. Default: all.")
@click.option("--work", default="/tmp/transmeter-rank-quality", type=click.Path(path_type=Path), help="For cells.")
@click.option("--workers", default=2)
def main(
    datasets: Path,
    encoder: Path | None,
    quick: bool,
    family: tuple[str, ...],
    most_classes: int,
    chosen: tuple[str, ...],
    work: Path,
    workers: int,
) -> None:
    """Run what is not done yet, then report."""
    begin = time.perf_counter()
    cells = work / f"{'quick' if quick else 'full'}-{_version()}"
    cells.mkdir(parents=True, exist_ok=True)
    made = problems(datasets, lambda tables: featurise(tables, None if quick else encoder, work / "texts"), quick)
    made = [p for p in made if p.family in (family or (p.family,)) and len(p.target.classes) <= most_classes]
    jobs = [(p, shots, cells / _file_name(p, shots)) for p in made for shots in p.shots]
    jobs.sort(key=lambda job: -len(job[0].sources) * job[0].target.features.shape[1])  # long ones first
    open_jobs = [job for job in jobs if not job[2].exists()]
    with ProcessPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        running = [pool.submit(cell, *job, work / "sources", quick, chosen) for job in open_jobs]
        for i, done in enumerate(as_completed(running), start=1):
            click.echo(f"{i} of {len(running)}: {done.result()} ({time.perf_counter() - begin:.0f} s)", err=True)
    found = [json.loads(path.read_text()) for _, _, path in jobs]
    if quick:  # too few targets for figures that anyone should quote
        report(found, work, "rank_quality_quick", time.perf_counter() - begin, load_prior())
    else:
        report(found, RESULTS, "rank_quality", time.perf_counter() - begin)


def _version() -> str:
    """Of the code that makes cells: cells of other code do not count as done."""
    digest = hashlib.sha256()
    for path in [*sorted((ROOT / "transmeter").rglob("*.py")), ROOT / "benchmarks" / "families.py", Path(__file__)]:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:8]


def _file_name(problem: Problem, shots: int) -> str:
    return re.sub(r"\W+", "_", f"{problem.family} {problem.target.name} {shots}") + ".json"


def cell(problem: Problem, shots: int, path: Path, cache: Path, quick: bool, chosen: tuple[str, ...]) -> str:
    """Ground truth and all scorers of one target at one number of shots, written to `path`."""
    warnings.simplefilter("ignore")
    sources = [Source(t, cache) for t in problem.sources]
    for source in sources:
        _ = source.classifier, source.skill  # cached in all arms
    begin = time.perf_counter()
    true = ground_truth.measure(
        sources, problem.target, shots=shots, repeats=16 if quick else 64, seed=99, controls=False, network=False
    )
    seconds = time.perf_counter() - begin
    runs = [_run("planning", 0, sources, problem.target, {"shots": shots}, chosen)]
    for draw in range(1 if quick else 2):
        runs.append(_run("few", draw, sources, hidden(problem.target, shots, draw), {}, chosen))
    about = {
        "family": problem.family,
        "target": problem.target.name,
        "shots": shots,
        "classes": len(problem.target.classes),
        "sources": [s.table.name for s in sources],
        "levels": problem.levels,
    }
    writing.write_json(path, about | {"truth": asdict(true), "seconds": seconds, "runs": runs})
    return f"{problem.family}, {problem.target.name}, {shots} shots"


def hidden(target: Table, shots: int, draw: int) -> Table:
    """The target with `shots` labels a class left, drawn at random."""
    rng = np.random.default_rng(1000 + draw)
    rows = [rng.permutation(np.flatnonzero(target.codes == c))[:shots] for c in range(len(target.classes))]
    kept = np.isin(np.arange(len(target)), np.concatenate(rows))
    return replace(target, labels=np.where(kept, target.labels, None))


def _run(
    mode: str, draw: int, sources: list[Source], target: Table, options: dict[str, int], chosen: tuple[str, ...]
) -> dict:
    """Values and seconds of every scorer; of Transmeter also what its estimate is made of."""
    scored, seconds = {}, {}
    shots = {k: v for k, v in options.items() if k == "shots"}
    others = chosen or [n for n in scorers() if n not in ("transmeter", *LEFT_OUT)]
    for name in ["transmeter", *others]:
        given = options if name == "transmeter" else {}
        if name == "short_finetune":  # in the time that Transmeter took
            given = shots | {"repeats": 200, "seconds": seconds["transmeter"]}
        begin = time.perf_counter()
        scored[name] = scorers()[name](sources, target, seed=draw, **given)
        seconds[name] = time.perf_counter() - begin
    values = {name: [s.value for s in found] for name, found in scored.items()}
    return {
        "mode": mode,
        "draw": draw,
        "values": values,
        "seconds": seconds,
        "transmeter": [_parts(s) for s in scored["transmeter"]],
    }


def _parts(score: Score) -> dict:
    if score.outcome is None:
        return {"gain": asdict(score.gain)}
    outcome = score.outcome
    return {
        "gain": asdict(score.gain),
        "measured": list(measure_gain(outcome)),
        "transfer": asdict(outcome.transfer),
        "evidence": asdict(outcome.features),
        "repeats": len(outcome.difference),
        "baseline": outcome.baseline,
    }


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
