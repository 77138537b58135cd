"""Batch scoring: job, store, the same numbers as `rank`, what runs again and what does not, and its commands.

Workers score in this process here; `tests/faults` has real ones.
"""

import ast
import html
import json
import re
import shutil
import sqlite3
from contextlib import closing
from importlib import metadata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import cli
from transmeter import ranking
from transmeter.batch import engines, keys, listing, scoring, spec, store, tables, watch
from transmeter.tables import data

ROOT = Path(__file__).resolve().parents[3]
TABLES = ROOT / "data/tabular"


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    """Tasks are done in this process; the user's cache stays out."""
    monkeypatch.setattr(
        engines, "guarded", lambda task: json.loads(json.dumps(scoring.run(json.loads(json.dumps(task)))))
    )
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "app"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """One folder of classifiers for the module."""
    return tmp_path_factory.mktemp("cache")


def command(*args):
    """Result of the command."""
    return CliRunner().invoke(cli.main, [str(a) for a in args])


def batch(path, cache, *more, targets=("heart_va",), sources=("heart_hungarian", "heart_statlog", "pima_diabetes")):
    """`transmeter batch` on tables of data/."""
    named = [
        x
        for k, names in (("--targets", targets), ("--sources", sources))
        for n in names
        for x in (k, TABLES / f"{n}.csv")
    ]
    return command("batch", *named, "--store", path, "--cache", cache, "--workers", 1, *more)


def rows(path):
    """(target, source, scorer) -> row of the view results, as pandas reads it."""
    with closing(sqlite3.connect(path)) as db:
        found = pd.read_sql("SELECT * FROM results", db).astype(object)
    found = found.where(found.notna(), None)
    return {(r.target, r.source, r.scorer): r for r in found.itertuples()}


def small(path, n=40, seed=0, columns=3):
    """A file of two classes."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 2
    frame = pd.DataFrame(rng.normal(size=(n, columns)) + y[:, None]).add_prefix("c").round(4)
    frame.assign(label=y).to_csv(path, index=False)


def written(folder, text, name="job.yaml"):
    """A job file."""
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_numbers_are_those_of_rank_with_one_source_and_a_second_run_computes_nothing(tmp_path, cache, monkeypatch):
    path = tmp_path / "s.sqlite"
    given = ("--scorer", "transmeter", "--scorer", "logme", "--shots", 5, "--repeats", 12)
    first = batch(path, cache, *given)
    assert first.exit_code == 0, first.output
    found = rows(path)
    assert len(found) == 6 and {r.status for r in found.values()} == {"done"}
    for source in ("heart_hungarian", "pima_diabetes"):
        alone = ranking.rank(
            data.load(str(TABLES / "heart_va.csv")),
            [data.load(str(TABLES / f"{source}.csv"))],
            shots=5,
            repeats=12,
            cache=cache,
        ).rows[0]
        row = found["heart_va", source, "transmeter"]
        got = row.score, row.gain_pp, row.ci_low, row.ci_high, row.p_negative
        # sums in another order move a probability by 1e-7
        assert got == pytest.approx(
            (alone.score, alone.gain_pp, alone.ci_low, alone.ci_high, alone.p_negative), abs=1e-3
        )
        assert (row.verdict, row.repeats, row.baseline) == (alone.verdict, alone.repeats, alone.baseline)
    monkeypatch.setattr(engines, "guarded", lambda task: pytest.fail("computed again"))
    again = batch(path, cache, *given)
    assert again.exit_code == 0 and "6 of 6 pairs, 0 of them new" in again.stdout
    assert rows(path) == found


def test_changed_input_is_computed_again_and_what_was_known_is_not(tmp_path, cache, monkeypatch):
    for i, name in enumerate(("t", "a", "b")):
        small(tmp_path / f"{name}.csv", seed=i)
    path = tmp_path / "s.sqlite"
    text = "targets: t.csv\nsources: ['*.csv']\nscorers: [source_accuracy, {name: knn, set: {steps: 3}}]\n"
    file = written(tmp_path, text)
    assert command("batch", file, "--store", path, "--cache", cache).exit_code == 0
    old = rows(path)
    assert {k[:2] for k in old} == {("t", "a"), ("t", "b")}  # not itself
    small(tmp_path / "a.csv", seed=9)
    again = command("batch", file, "--store", path, "--cache", cache)
    assert "4 of 4 pairs, 2 of them new" in again.stdout
    new = rows(path)
    assert {k for k in old if old[k].score != new[k].score} == {("t", "a", "knn"), ("t", "a", "source_accuracy")}
    assert [k for k in old if old[k].seconds == new[k].seconds] == [k for k in old if k[1] == "b"]
    (tmp_path / "copy.csv").write_bytes((tmp_path / "b.csv").read_bytes())  # the same content under another name
    assert "6 of 6 pairs, 0 of them new" in command("batch", file, "--store", path, "--cache", cache).stdout
    monkeypatch.setattr(keys, "version", lambda: "of other code")
    assert "6 of 6 pairs, 6 of them new" in command("batch", file, "--store", path, "--cache", cache).stdout


def test_results_are_kept_by_all_the_code_that_can_change_a_number():
    """Followed from what a worker does; what is not hashed is listed here, since it changes no number."""
    harmless = {"checks.py", "more_labels.py", "result.py", "util/signatures.py"}  # checks only warn
    harmless |= {
        f"util/{n}.py" for n in ("arguments", "charts", "code_version", "counts", "progress", "suggestions", "writing")
    }
    package, reached = ROOT / "transmeter", set()
    ahead = ["transmeter.batch.scoring", *(f"transmeter.scorers.{p.stem}" for p in (package / "scorers").glob("*.py"))]
    while ahead:
        name = ahead.pop()
        path = ROOT / f"{name.replace('.', '/')}.py"
        if not path.exists() or path in reached:
            continue
        reached.add(path)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("transmeter"):
                ahead += [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
    names = {path.relative_to(package).as_posix() for path in reached} - harmless
    assert {n for n in names if not any(n == c or n.startswith(f"{c}/") for c in keys.CODE)} == set()
    assert not {n for n in keys.CODE if n.startswith(("report", "commands")) or not (package / n).exists()}


def test_a_source_does_not_move_another_ones_number(tmp_path, cache):
    few, many = tmp_path / "few.sqlite", tmp_path / "many.sqlite"
    given = ("--shots", 5, "--repeats", 12)
    batch(few, cache, *given, sources=("heart_statlog",))
    sources = ("heart_statlog", "heart_hungarian", "heart_failure", "pima_diabetes", "heart_cleveland")
    batch(many, cache, *given, sources=sources)
    one, other = (rows(p)["heart_va", "heart_statlog", "transmeter"] for p in (few, many))
    assert (one.gain_pp, one.ci_low) == pytest.approx((other.gain_pp, other.ci_low), abs=1e-3)
    assert one.repeats == other.repeats and one.baseline == other.baseline


def test_a_bad_file_fails_its_pairs_alone_and_retry_scores_them_when_it_is_mended(tmp_path, cache):
    for i, name in enumerate(("t", "a", "b")):
        small(tmp_path / f"{name}.csv", seed=i)
    (tmp_path / "a.csv").write_bytes(b"\xff\xfe\x00 no table")
    path, log = tmp_path / "s.sqlite", tmp_path / "log.jsonl"
    file = written(tmp_path, "targets: t.csv\nsources: [a.csv, b.csv]\nscorers: source_accuracy\n")
    given = (file, "--store", path, "--cache", cache, "--log", log)
    found = command("batch", *given)
    assert found.exit_code == 3 and "1 of 2 pairs" in found.stdout and "1 failed" in found.stdout
    failed = rows(path)["t", "a", "source_accuracy"]
    assert failed.status == "failed" and "a.csv" in failed.error and failed.score is None
    assert command("batch", *given).exit_code == 3  # known, not tried again
    assert "1 failed: " in command("status", path).stdout
    events = [json.loads(line)["event"] for line in log.read_text().splitlines()]
    assert events[:5] == ["read", "read", "read", "start", "pairs"] and events.count("end") == 2
    small(tmp_path / "a.csv", seed=1)
    assert command("batch", *given).exit_code == 0  # it is another file now
    assert rows(path)["t", "a", "source_accuracy"].status == "done"


def test_a_source_that_fails_in_a_stack_leaves_the_others_as_they_are(tmp_path, cache, monkeypatch):
    real = scoring.rank

    def failing(target, sources, *args, **kwargs):
        if any(s.name == "heart_statlog" for s in sources):
            raise MemoryError
        return real(target, sources, *args, **kwargs)

    monkeypatch.setattr(scoring, "rank", failing)
    path = tmp_path / "s.sqlite"
    assert batch(path, cache, "--scorer", "shared_columns").exit_code == 3
    found = rows(path)
    assert found["heart_va", "heart_statlog", "shared_columns"].error == "out of memory"
    assert sum(r.status == "done" for r in found.values()) == 2
    monkeypatch.setattr(scoring, "rank", real)
    again = batch(path, cache, "--scorer", "shared_columns", "--retry-failed")
    assert again.exit_code == 0 and "1 of them new" in again.stdout


def test_a_full_disk_stops_the_run_and_no_pair_is_blamed(tmp_path, cache, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scoring, "rank", full)
    path = tmp_path / "s.sqlite"
    found = batch(path, cache, "--scorer", "shared_columns")
    assert found.exit_code == 1 and "no space" in found.stderr and "Traceback" not in found.output
    assert {r.status for r in rows(path).values()} == {"open"}


def test_a_store_without_room_stops_the_run_and_the_next_goes_on(tmp_path, cache, monkeypatch):
    path = tmp_path / "s.sqlite"
    real = store.record

    def full(db, found):
        db.execute(f"PRAGMA max_page_count = {db.execute('PRAGMA page_count').fetchone()[0]}")
        real(db, [(bytes([i // 256, i % 256]) * 16, {"error": "x" * 400}) for i in range(500)])

    monkeypatch.setattr(store, "record", full)
    found = batch(path, cache, "--scorer", "shared_columns")
    assert found.exit_code == 1 and "cannot be written (database or disk is full)" in found.stderr
    monkeypatch.setattr(store, "record", real)
    assert batch(path, cache, "--scorer", "shared_columns").exit_code == 0
    assert len(rows(path)) == 3


def test_ctrl_c_keeps_what_is_done_and_says_how_to_go_on(tmp_path, cache, monkeypatch):
    real, seen = scoring.rank, []

    def interrupted(target, sources, scorer, **given):
        seen.append(scorer)
        if len(seen) > 1:
            raise KeyboardInterrupt
        return real(target, sources, scorer, **given)

    monkeypatch.setattr(scoring, "rank", interrupted)
    path, given = tmp_path / "s.sqlite", ("--scorer", "shared_columns", "--scorer", "source_size")
    found = batch(path, cache, *given)
    assert found.exit_code == 130 and "the same command goes on" in found.stderr
    assert sum(r.status == "done" for r in rows(path).values()) == 3
    monkeypatch.setattr(scoring, "rank", real)
    assert "6 of 6 pairs, 3 of them new" in batch(path, cache, *given).stdout


def test_a_lost_engine_is_started_again_with_what_is_left(tmp_path, cache, monkeypatch):
    real, calls = engines.guarded, []

    def losing(task):
        calls.append(task["do"])
        if calls.count("score") == 2:
            raise engines.Lost("the scheduler is gone")
        return real(task)

    monkeypatch.setattr(engines, "guarded", losing)
    path = tmp_path / "s.sqlite"
    found = batch(
        path, cache, *(x for s in ("shared_columns", "source_size", "source_accuracy") for x in ("--scorer", s))
    )
    assert found.exit_code == 0, found.output
    assert len(rows(path)) == 9 and calls.count("score") == 4

    def gone(task):
        raise engines.Lost("the scheduler is gone")

    monkeypatch.setattr(engines, "guarded", gone)
    found = batch(path, cache, "--scorer", "shared_columns", "--shots", 4)
    assert found.exit_code == 1 and "3 times in a row: the same command goes on" in found.stderr


def test_texts_are_scored_by_themselves_since_tfidf_is_of_both_tables(tmp_path, cache, monkeypatch):
    words = "good bad film plot actor scene very not rather long short music light dark slow quick".split()
    for i, name in enumerate(("t", "a", "b")):
        rng = np.random.default_rng(i)
        texts = [" ".join(rng.choice(words, 6)) for _ in range(30)]
        pd.DataFrame({"text": texts, "label": np.arange(30) % 2}).to_csv(tmp_path / f"{name}.csv", index=False)
    asked, real = [], engines.guarded
    monkeypatch.setattr(engines, "guarded", lambda task: asked.append(task) or real(task))
    file = written(tmp_path, "targets: t.csv\nsources: [a.csv, b.csv]\nscorers: shared_columns\n")
    assert command("batch", file, "--store", tmp_path / "s", "--cache", cache).exit_code == 0
    assert [len(t["items"]) for t in asked if t["do"] == "score"] == [1, 1]


@pytest.mark.parametrize(
    "text, line, said",
    [
        ("targets: t.csv\nsources: t.csv\nsorcerers: [logme]\n", 3, "key 'sorcerers' is unknown: give targets"),
        ("targets: t.csv\nsources: t.csv\nshots: five\n", 3, "shots is 'five': input should be a valid integer"),
        ("targets: t.csv\nsources: t.csv\nshots: true\n", 3, "shots"),
        ("targets: t.csv\nsources: t.csv\nscorers:\n- logme\n- nope\n", 5, "scorer 'nope' is unknown"),
        (
            "targets: t.csv\nsources: t.csv\nscorers:\n- name: logme\n  set:\n    steps: x\n",
            5,
            "'x' is not a whole number",
        ),
        ("targets: t.csv\nsources: t.csv\nscorers:\n- name: logme\n  sat: {}\n", 5, "key 'sat' is unknown"),
        ("targets: t.csv\nsources: t.csv\nscorers: [logme, logme]\n", 3, "given twice"),
        ("targets: t.csv\nsources:\n- path: t.csv\n  dec: x\n", 4, "key 'dec' is unknown: give path, sep, decimal"),
        ("targets: t.csv\nsources:\n- t.csv\n- path: u.csv\n  decimal: x\n", 4, "decimal 'x' is unknown"),
        ("targets: t.csv\nsources: u.csv\nencoding: x\n", 3, "encoding is 'x': give one that Python knows"),
        ("targets: t.csv\nsources: [t.csv, {path: t.csv, sep: ':'}]\n", 2, "is given twice, to be read in two ways"),
        ("targets: t.csv\nsources:\n- t.csv\n- gone_*.csv\n", 4, "'gone_*.csv' matches no file"),
        ("targets: t.csv\nsources: ../*.csv\n", 2, "outside of"),
        ("targets: t.csv\nsources: link.csv\n", 2, "outside of"),
        ("targets: t.csv\nsources: /etc/passwd\n", 2, "outside of"),
        ("targets: t.csv\nsources: [a/t.csv, t=t.csv, t=u.csv]\n", 2, "two files are called 't'"),
        ("targets: t.csv\ntargets: u.csv\nsources: t.csv\n", 1, "given twice"),
        ("targets: &x [t.csv]\nsources: *x\n", 1, "aliases such as *x are not allowed"),
        ("targets: !!python/object/apply:os.system [ls]\nsources: t.csv\n", 1, "not YAML"),
        ("targets: t.csv\n", 1, "sources"),
        ("targets: [t.csv\nsources: t.csv\n", 2, "not YAML"),
        ("targets: []\nsources: t.csv\n", 1, "targets"),
        ("targets: t.csv\nsources: t.csv\n", None, "no pair"),
        ("- t.csv\n", None, "holds no keys"),
        ("", None, "holds no keys"),
        ("targets: " + "[" * 1500, None, "YAML"),
    ],
)
def test_a_bad_job_is_refused_with_its_line_and_nothing_is_written(tmp_path, text, line, said):
    folder = tmp_path / "job"
    (folder / "a").mkdir(parents=True)
    for name in ("t.csv", "u.csv", "a/t.csv", "../x.csv"):
        small(folder / name, n=8)
    (folder / "link.csv").symlink_to(tmp_path / "x.csv")
    path = written(folder, text)
    found = command(
        "batch", path, "--store", folder / "s.sqlite", "--cache", tmp_path / "c", "--dry-run" if line else "--workers=1"
    )
    assert found.exit_code == 2, found.output
    assert said in found.stderr.splitlines()[-1]
    assert line is None or f"job.yaml, line {line}: " in found.stderr.splitlines()[-1]
    assert not line or not (folder / "s.sqlite").exists()


def test_outside_files_are_allowed_when_told(tmp_path, cache):
    for name in ("job/t.csv", "a.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        small(tmp_path / name, seed=len(name))
    file = written(tmp_path / "job", "targets: t.csv\nsources: ../a.csv\nscorers: source_size\n")
    given = ("batch", file, "--store", tmp_path / "s", "--cache", cache)
    assert command(*given).exit_code == 2
    assert command(*given, "--allow-outside").exit_code == 0


@pytest.mark.parametrize(
    "args, said",
    [
        ((), "give SPEC, a YAML file, or --targets and --sources"),
        (("--address", "tcp://x:1"), "--address is of a cluster"),
        (("--store", "."), "is a directory"),
        (("--store", "gone/s.sqlite"), "folder that does not exist"),
        (("--pair-timeout", "soon"), "is not a time"),
        (("--scorer", "nope"), "scorer 'nope' is unknown"),
    ],
)
def test_bad_options_of_batch(tmp_path, args, said, monkeypatch):
    monkeypatch.chdir(tmp_path)
    named = ("--targets", TABLES / "heart_va.csv", "--sources", TABLES / "heart_hungarian.csv") if args else ()
    found = command("batch", "--store", "s.sqlite", *named, *args)
    assert found.exit_code == 2 and said in found.stderr and not list(tmp_path.iterdir())


def test_a_dry_run_lists_pairs_and_writes_nothing(tmp_path, cache):
    path = tmp_path / "s.sqlite"
    found = batch(path, cache, "--dry-run")
    assert found.exit_code == 0 and not path.exists()
    assert found.stdout.splitlines()[0] == "target,source,scorer,status" and len(found.stdout.splitlines()) == 4
    assert "3 pairs are open: about" in found.stderr and "GB" in found.stderr
    batch(path, cache, "--scorer", "source_size")
    found = batch(path, cache, "--scorer", "source_size", "--dry-run")
    assert found.stdout.count(",done") == 3 and "0 pairs are open" in found.stderr
    found = batch(path, cache, "--scorer", "source_size", "--seed", 1, "--match", "name", "--dry-run")
    assert found.stdout.count(",open") == 3 and "3 pairs are open" in found.stderr


def test_a_dry_run_tells_what_is_unusable(tmp_path, cache):
    pd.DataFrame({"x": [1, 2, 3], "outcome": list("aba")}).to_csv(tmp_path / "outcome.csv", index=False)
    pd.DataFrame({"x": [1, 2, 3], "diagnosis": list("aaa")}).to_csv(tmp_path / "single.csv", index=False)
    pd.read_csv(TABLES / "heart_va.csv").rename(columns={"label": "diagnosis"}).to_csv(tmp_path / "va.csv", index=False)
    store_path, files = tmp_path / "s.sqlite", [tmp_path / f"{n}.csv" for n in ("outcome", "single")]
    named = ("--targets", tmp_path / "va.csv", "--sources", TABLES / "pima_diabetes.csv", "--scorer", "source_size")
    named += tuple(x for file in files for x in ("--sources", file))
    named += ("--label", "diagnosis", "--store", store_path, "--cache", cache, "--workers", 1)
    found = command("batch", *named, "--dry-run")
    assert found.exit_code == 0 and not store_path.exists()
    assert found.stdout.splitlines()[1:] == [
        "va,pima_diabetes,source_size,open",
        "va,outcome,source_size,unusable",
        "va,single,source_size,unusable",
    ]
    lacks = f"{files[0]} has no label column 'diagnosis' and none called 'label': name it with --label"
    assert lacks in found.stderr and "single has only the class 'a'" in found.stderr
    assert "1 pair is open" in found.stderr
    command("batch", *named)
    assert lacks in rows(store_path)["va", "outcome", "source_size"].error
    again = json.loads(command("batch", *named, "--scorer", "leep", "--dry-run", "--json").stdout)
    assert [r["status"] for r in again["pairs"]].count("unusable") == 2 and len(again["unusable"]) == 2


def test_a_target_without_labels_is_scored_and_a_source_without_them_is_not(tmp_path, cache):
    frame = pd.read_csv(TABLES / "heart_va.csv").drop(columns="label")
    frame.to_csv(tmp_path / "bare.csv", index=False)
    frame[1:].to_csv(tmp_path / "blank.csv", index=False)
    files = ("--targets", tmp_path / "bare.csv", "--sources", TABLES / "heart_hungarian.csv")
    files += ("--sources", TABLES / "pima_diabetes.csv", "--sources", tmp_path / "blank.csv", "--allow-outside")
    path = tmp_path / "s.sqlite"
    for scorer in ("transmeter", "logme"):
        found = command("batch", *files, "--store", path, "--cache", cache, "--workers", 1, "--scorer", scorer)
        assert found.exit_code == 3, found.output
    results = rows(path)
    row = results["bare", "heart_hungarian", "transmeter"]
    alone = ranking.rank(frame, {"s": str(TABLES / "heart_hungarian.csv")}).rows[0]
    assert (row.gain_pp, row.ci_low, row.verdict) == pytest.approx((alone.gain_pp, alone.ci_low, alone.verdict))
    shown = command("results", path).stdout
    assert f"1     heart_hungarian  {alone.gain_pp:+.1f}" in shown
    assert "over guessing, predicted: no row of the target has a label" in shown
    assert "failed: blank: " in shown
    assert command("report", path, "--out", tmp_path / "r.html").exit_code == 0
    assert "has no label column 'label'" in results["bare", "blank", "transmeter"].error
    assert "scorer logme needs them: use transmeter" in results["bare", "pima_diabetes", "logme"].error


def test_results_in_every_format_and_by_target(tmp_path, cache):
    path = tmp_path / "s.sqlite"
    batch(path, cache, "--scorer", "source_size", targets=("heart_va", "heart_failure"))
    listed = command("results", path, "--format", "csv").stdout
    assert command("results", path, "--out", tmp_path / "r.csv").exit_code == 0
    assert (tmp_path / "r.csv").read_text() == listed
    columns = "target source scorer score gain_pp ci_low ci_high verdict seconds status error".split()
    assert set(columns) <= set(listed.splitlines()[0].split(",")) and len(listed.splitlines()) == 7
    found = json.loads(command("results", path, "--target", "heart_va", "--format", "json").stdout)
    assert {r["target"] for r in found} == {"heart_va"} and len(found) == 3
    out = tmp_path / "r.parquet"
    assert command("results", path, "--format", "parquet", "--out", out).exit_code == 0
    assert len(pd.read_parquet(out)) == 6
    assert command("results", path, "--format", "parquet").exit_code == 2
    asked = command("results", path, "--sql", "SELECT source, max(score) AS s FROM results GROUP BY source ORDER BY 2")
    assert asked.stdout.splitlines()[0].split() == ["source", "s"] and len(asked.stdout.splitlines()) == 4
    assert "6 done, 0 failed, 0 open" in command("status", path).stdout


def test_the_command_line_of_every_run_is_in_the_store(tmp_path, cache):
    path = tmp_path / "s.sqlite"
    for seed in (0, 0, 1):
        assert batch(path, cache, "--scorer", "source_size", "--seed", seed).exit_code == 0
    with store.reading(path) as db:
        found = store.commands(db)
    assert [f.rpartition(" ")[2] for f in found] == ["0", "1"]
    assert all(f.startswith("transmeter batch --targets ") and f"--store {path}" in f for f in found)
    assert f"made by: {found[1]}" in command("status", path).stdout.splitlines()
    assert command("report", path, "--out", tmp_path / "r.html").exit_code == 0
    page = (tmp_path / "r.html").read_text()
    assert found[0] in html.unescape(re.sub("</?span[^>]*>", "", page)) and page.count("transmeter batch") == 2


@pytest.mark.parametrize("change", ["score = NULL", "score = 'x'", "gain_pp = 1.0"])
def test_a_store_that_was_tampered_with_ends_with_one_line(tmp_path, change):
    path = tmp_path / "s.sqlite"
    with store.writing(path) as db, store.transaction(db):
        store.save_input(db, "f", "", b"", {})
        store.request(db, [("t", s, store.method(db, "knn", {}), s.encode(), 1, 1) for s in "ab"])
        store.record(db, [(s.encode(), {"score": 1.0}) for s in "ab"])
    assert "1     a       1" in command("results", path).stdout
    with closing(sqlite3.connect(path)) as db, db:
        db.execute(f"UPDATE pairs SET {change}")
    found = command("results", path)
    assert found.exit_code == 2 and "is not as this version writes it" in found.stderr.splitlines()[-1], found.output


def test_results_are_listed_by_target_and_say_where_none_helps():
    gain = {"ci_low": -3.04, "ci_high": 12.0, "p_negative": 0.5, "baseline": "ridge", "status": "done", "error": None}
    about = {"scorer": "transmeter", "settings": '{"metric": "log_loss", "seed": 0}'}
    found = [
        {**gain, **about, "target": target, "source": source, "score": g, "gain_pp": g, "verdict": verdict}
        for target, source, g, verdict in (
            ("u", "a", 1.0, "likely helps"),
            ("t", "b", -2.5, "no evidence"),
            ("t", "x" * 100 + "\x1b[2J", 1.25, "no evidence"),
        )
    ]
    found += [{**found[1], "source": "c", "status": "failed", "score": None, "gain_pp": None, "error": "no row"}]
    found += [{**found[1], "source": "d", "status": "open", "score": None, "gain_pp": None}]
    other = {**found[0], "target": "t", "scorer": "knn", "score": 0.123456, "gain_pp": None}
    found += [{**other, "settings": f'{{"seed": {seed}, "shots": null}}'} for seed in (0, 1)]
    shown = listing.format_results(found)
    assert max(map(len, shown.splitlines())) <= 80 and "\x1b" not in shown
    blocks = [block.splitlines() for block in shown.split("\n\n")]
    assert [block[0] for block in blocks] == [
        "t by knn (seed 0)",
        "t by knn (seed 1)",
        "t by transmeter",
        "u by transmeter",
    ]
    assert [line.split() for line in blocks[0][1:]] == [["rank", "source", "score"], ["1", "a", "0.1235"]]
    first = next(line for line in blocks[2] if line.startswith("1 "))
    assert first.split()[2:] == "+1.2 -3.0 to +12.0 0.50 no evidence".split()
    assert blocks[2][-4:] == [
        "gains in hundredths of a nat over ridge alone",
        "none: no source here is shown to help t",
        "failed: c: no row",
        "open: 1 pair",
    ]
    assert blocks[3][-1] == "gains in hundredths of a nat over ridge alone"
    assert listing.format_results([]) == "no pair\n"


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM pairs",
        "UPDATE pairs SET score = 1 RETURNING score",
        "DROP VIEW results",
        "ATTACH 'x.sqlite' AS x",
        "PRAGMA journal_mode = DELETE",
        "SELECT load_extension('x')",
        "SELECT 1; DELETE FROM pairs",
        "VACUUM INTO 'x.sqlite'",
        "CREATE TABLE x (y)",
        "",
        "SELEKT",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n",
    ],
)
def test_a_query_cannot_write_attach_or_run_for_ever(tmp_path, cache, sql, monkeypatch):
    monkeypatch.setattr(store, "QUERY_SECONDS", 0.2)
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "s.sqlite"
    with store.writing(path) as db:
        store.record(db, [(b"k", {"score": 1.0})])
    found = command("results", path, "--sql", sql)
    assert found.exit_code == 2 or not sql and found.exit_code == 0, found.output
    with store.reading(path) as db:
        assert list(store.query(db, "SELECT score FROM pairs")[1]) == [(1.0,)]
    assert not (tmp_path / "x.sqlite").exists()


def test_a_file_that_is_no_store_is_refused_as_it_stands(tmp_path):
    other = tmp_path / "other.sqlite"
    with closing(sqlite3.connect(other)) as db:
        db.execute("CREATE TABLE mine (x)")
    text = tmp_path / "text.sqlite"
    text.write_text("no database, but long enough to be taken for one " * 50)
    for path in (other, text, tmp_path / "gone"):
        before = path.read_bytes() if path.exists() else None
        for args in (("results", path), ("status", path)):
            found = command(*args)
            assert found.exit_code == 2 and len(found.stderr.splitlines()) <= 4
        if before is not None:
            with pytest.raises(ValueError, match="give another file"), store.writing(path):
                pass
            assert path.read_bytes() == before


def test_the_schema_migrates_step_by_step_and_a_newer_one_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "s.sqlite"
    with store.writing(path) as db:
        store.record(db, [(b"k", {"score": 2.0})])
    monkeypatch.setattr(store, "SCHEMA", (*store.SCHEMA, "ALTER TABLE pairs ADD COLUMN note TEXT"))
    with store.reading(path) as db:  # one of an earlier version is read as it is
        assert list(store.query(db, "SELECT score FROM pairs")[1]) == [(2.0,)]
    monkeypatch.setattr(store, "OLDEST", len(store.SCHEMA))
    with pytest.raises(ValueError, match="run batch on it first"), store.reading(path):
        pass
    with store.writing(path) as db:
        assert db.execute("SELECT score, note FROM pairs").fetchall() == [(2.0, None)]
    monkeypatch.undo()
    said = (
        rf"newer transmeter \(store version 3, transmeter {metadata.version('transmeter')} reads up to version 2\): upd"
    )
    for opened in (store.writing, store.reading):
        with pytest.raises(ValueError, match=said), opened(path):
            pass
    for name in ("results", "status"):
        assert "run batch" not in command(name, path).stderr


def test_one_writer_many_readers(tmp_path):
    path = tmp_path / "s.sqlite"
    with store.writing(path) as db:
        store.record(db, [(b"k", {"score": 2.0})])
        with pytest.raises(ValueError, match="another batch is writing"), store.writing(path):
            pass
        with store.reading(path) as other:
            assert list(store.query(other, "SELECT count(*) FROM pairs")[1]) == [(1,)]


def test_a_table_is_mapped_as_it_was_read_and_a_crafted_folder_is_refused(tmp_path, frame):
    frame.loc[3, "label"] = None
    table = data.table("mixed", frame.drop(columns="label"), frame["label"], np.arange(len(frame)))
    tables.keep(table, tmp_path / "t")
    again = tables.mapped(tmp_path / "t", "mixed")
    pd.testing.assert_frame_equal(again.features, table.features)
    assert (again.labels == table.labels).all() and again.classes == table.classes and (again.keys == table.keys).all()
    assert not again.features["age"].to_numpy().flags.owndata and isinstance(again.codes, np.ndarray)
    np.save(tmp_path / "t/codes.npy", np.array([{"run": "me"}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="does not hold a table .*delete it"):
        tables.mapped(tmp_path / "t", "mixed")
    (tmp_path / "t/table.json").write_text("[]")
    with pytest.raises(ValueError, match="does not hold a table"):
        tables.mapped(tmp_path / "t", "mixed")


def test_names_cannot_steer_a_terminal(tmp_path):
    assert watch.printable("a\x1b[31mb\nc<script>") == "a?[31mb?c<script>"
    assert [watch.duration(s) for s in (None, 5, 600, 40_000)] == ["not known", "5 s", "10 min", "11.1 h"]


def test_names_of_inputs(tmp_path):
    for name in ("a/x.csv", "b/x.csv", "y=1.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    lines = spec.Lines()
    content = {"targets": "y=1.csv", "sources": ["*/x.csv", "y=1.csv", "mine=a/x.csv::out"]}
    targets, sources, dialects = spec.inputs(spec.check(content, lines), tmp_path, True, lines)
    assert targets == {"y=1": str(tmp_path / "y=1.csv")} and set(dialects) == set(sources.values())
    assert sources == {
        str(tmp_path / "a/x.csv"): str(tmp_path / "a/x.csv"),
        str(tmp_path / "b/x.csv"): str(tmp_path / "b/x.csv"),
        "y=1": str(tmp_path / "y=1.csv"),
        "mine": f"{tmp_path / 'a/x.csv'}::out",
    }
    with pytest.raises(ValueError, match="cannot all be called"):
        spec.inputs(spec.check(content | {"sources": ["n=*/x.csv"]}, lines), tmp_path, True, lines)


def test_files_are_read_as_the_spec_says_of_each(tmp_path, cache):
    frame = pd.read_csv(TABLES / "heart_hungarian.csv")
    frame.to_csv(tmp_path / "plain.csv", index=False)
    frame.to_csv(tmp_path / "german.csv", index=False, sep=":", decimal=",", encoding="utf-16-le")
    shutil.copy(TABLES / "heart_va.csv", tmp_path / "t.csv")
    source = "{path: german.csv, sep: ':', decimal: ',', encoding: utf-16-le}"
    file = written(tmp_path, f"targets: t.csv\nsources: [plain.csv, {source}]\nscorers: logme\n")
    found = command("batch", file, "--store", tmp_path / "r.db", "--cache", cache, "--workers", 1)
    assert found.exit_code == 0, found.output
    scores = [row.score for row in rows(tmp_path / "r.db").values()]
    assert len(scores) == 2 and scores[0] == scores[1]
    named = ("--targets", tmp_path / "t.csv", "--sources", tmp_path / "german.csv", "--scorer", "logme")
    wrong = command("batch", *named, "--store", tmp_path / "s.db", "--sep", ";;", "--cache", cache)
    assert wrong.exit_code == 2 and "sep is ';;': give one character" in wrong.output


def test_on_a_terminal_a_table_says_how_far_it_is_and_who_leads(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with watch.Watch(None) as seen:
        seen.tell("start", {"total": 4, "open": 4, "before": 0, "done": 0, "failed": 0})
        rows = {"low": {"score": 0.25}, "high\x1b[2J": {"score": 0.5}, "bad": {"error": "out of memory"}}
        seen.tell("pairs", {"target": "t", "scorer": "knn", "rows": rows})
    shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", capsys.readouterr().err)
    last = shown[shown.rindex("done") :].split("\n")
    assert last[1].split()[:3] == ["2", "1", "1"] and last[4].split() == ["t", "knn", "high?[2J", "0.5"]


def test_reading_leaves_nothing_beside_a_store_nor_beside_what_is_none(tmp_path):
    with store.writing(tmp_path / "a.db"):
        assert (tmp_path / "a.db-wal").exists()
    there = {"a.db", "a.db.lock"}
    assert {p.name for p in tmp_path.iterdir()} == there
    with store.reading(tmp_path / "a.db") as db:
        assert list(store.query(db, "SELECT * FROM results")[1]) == []
    head = bytearray((tmp_path / "a.db").read_bytes()[:100])
    head[18] = head[19] = 2  # WAL
    (tmp_path / "bad.db").write_bytes(bytes(head) + b"\x07" * 4000)
    with pytest.raises(ValueError, match="is not a store"), store.reading(tmp_path / "bad.db"):
        pass
    assert {p.name for p in tmp_path.iterdir()} == there | {"bad.db"}
