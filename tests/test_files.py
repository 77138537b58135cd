"""What the commands do to files: full disks, devices, two runs on one output, bad outputs, Ctrl-C."""

import contextlib
import json
import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pandas as pd
import pytest
import torch
from click.testing import CliRunner

import cli
from compress import pipeline
from compress.calibration import texts
from compress.model import io, offload
from transmeter.tables import files
from transmeter.util import writing

ROOT = Path(__file__).resolve().parent.parent
TABLES, MODEL = ROOT / "data/tabular", str(ROOT / "data/mixlm")
MATH, HELD = str(ROOT / "data/text/math_sample.txt"), str(ROOT / "data/text/math_heldout.txt")
VA, HUNGARIAN = str(TABLES / "heart_va.csv"), str(TABLES / "heart_hungarian.csv")
RANK = ("rank", VA, HUNGARIAN, "--shots", 5, "--repeats", 2)
COMPRESS = ("compress", MODEL, "--calibration", MATH, "--tokens", 200, "--method")
CALIBRATE = ("calibrate", MODEL, "--target", MATH, "--candidate", f"held={HELD}", "--tokens", 200)
# of every command that writes: the words before --out, and what does its work
COMMANDS = {
    "rank": (RANK, "transmeter.ranking.rank"),
    "validate": (("validate", VA, HUNGARIAN), "transmeter.gain.ground_truth.measure"),
    "transfer": (("transfer", VA, HUNGARIAN), "transmeter.gain.heldout.check"),
    "calibrate": (CALIBRATE, "compress.calibration.calibrate.calibrate"),
    "compress": ((*COMPRESS, "magnitude"), "compress.pipeline._run_steps"),
    "run": (("run", "recipe.yaml"), "compress.pipeline._run_steps"),
    "sweep": (("sweep", *COMPRESS[1:], "magnitude", "--data", HELD), "compress.pipeline._run_steps"),
    "evaluate": (("evaluate", MODEL, "--data", HELD), "compress.evaluation.evaluate.evaluate"),
    "export": (("export", MODEL, "--format", "torchao"), "compress.model.io.load"),
    "report": (("report", "result.json"), "transmeter.report.sections.sections"),
    "results": (("results", "store.db"), "transmeter.batch.store.query"),
}
FOLDERS = ("transfer", "calibrate", "compress", "run", "sweep", "export")  # the others write a file
LARGE = "File too large"  # what the system says where the limit of `disk` is reached


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """A folder to work in, with what the commands read; the user's cache stays out."""
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "app"))
    steps = f"model: {MODEL}\ncalibration: {MATH}\ntokens: 200\nsteps:\n  - method: magnitude\nout: out\n"
    (work / "recipe.yaml").write_text(steps)
    (work / "result.json").write_text("{}")
    from transmeter.batch import store

    with store.writing(work / "store.db"):
        pass
    return work


@pytest.fixture(autouse=True)
def nothing_is_left(here):
    """No temporary name and no lock stays beside what was written."""
    yield
    left = [p for p in here.rglob(".*") if p.name.endswith((writing.PARTIAL, ".lock"))]
    assert left == []


def run(*args):
    """Result of the command."""
    return CliRunner().invoke(cli.main, [str(a) for a in args])


def with_out(name, out):
    """The words of a command that writes to `out`."""
    words = COMMANDS[name][0]
    if name == "run":
        recipe = Path("recipe.yaml")
        recipe.write_text(recipe.read_text().rpartition("out: ")[0] + f"out: {out}\n")
        return words
    return (*words, "--out", out)


def error(found):
    """The last line of stderr."""
    assert "Traceback" not in found.output
    return found.stderr.strip().splitlines()[-1]


@contextlib.contextmanager
def disk(size):
    """No file may grow beyond `size` bytes: what writes more fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


# outputs are checked before the work


@pytest.mark.parametrize("name", COMMANDS)
def test_an_output_that_cannot_be_written_is_refused_before_work(name, here, monkeypatch):
    def work(*_, **__):
        raise AssertionError("the work began")

    monkeypatch.setattr(COMMANDS[name][1], work)
    (here / "full").mkdir()
    (here / "full/file").write_text("mine")
    (here / "dangling").symlink_to("nowhere")
    before = sorted(here.rglob("*"))
    wrong = {
        "none/r": "none/r is in a folder that does not exist: create it first",
        "full/file/r": "which is a file: give a",
        "dangling": "dangling is a link to",
    }
    if name in FOLDERS:
        wrong["full/file"] = "is a file: give a folder" if name == "sweep" else "full/file exists already: give a new"
        wrong["full"] = "full exists already"
    for out, message in wrong.items():
        found = run(*with_out(name, out))
        assert found.exit_code == 2 and message in error(found) and found.stdout == "", found.output
    assert run(*with_out(name, "full")).exit_code == 2
    assert sorted(here.rglob("*")) == before and (here / "full/file").read_text() == "mine"


@pytest.mark.parametrize("option", ["--store", "--log"])
def test_the_files_of_a_batch_are_checked_too(option):
    words = {"--store": "s.db", "--log": "log.jsonl"} | {option: "none/file"}
    found = run("batch", "--targets", VA, "--sources", HUNGARIAN, *(w for pair in words.items() for w in pair))
    assert found.exit_code == 2 and "none/file is in a folder that does not exist: create it first" in error(found)


# two runs on one output


@pytest.mark.parametrize("name", COMMANDS)
def test_a_second_run_on_one_output_is_refused_before_work(name, here, monkeypatch):
    def work(*_, **__):
        raise AssertionError("the work began")

    monkeypatch.setattr(COMMANDS[name][1], work)
    with writing.lock("out"):
        found = run(*with_out(name, "out"))
    assert found.exit_code == 2 and not (here / "out").exists()
    number = os.getpid()
    assert error(found).endswith(
        f"out is being written by another run (process {number}): wait for it or give another output"
    )


# devices, pipes, links


def test_results_go_through_a_device_a_pipe_and_a_link(here):
    expected = run("results", "store.db", "--format", "csv")
    assert run("results", "store.db", "--out", "/dev/null").exit_code == 0 and expected.stdout
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)
    os.mkfifo("pipe")
    read = []
    reader = threading.Thread(target=lambda: read.append(Path("pipe").read_text()))
    reader.start()
    assert run("results", "store.db", "--out", "pipe").exit_code == 0
    reader.join()
    assert read == [expected.stdout] and stat.S_ISFIFO(os.stat("pipe").st_mode)
    Path("real.csv").write_text("older")
    Path("link.csv").symlink_to("real.csv")
    assert run("results", "store.db", "--out", "link.csv").exit_code == 0
    assert Path("link.csv").is_symlink() and Path("real.csv").read_text() == expected.stdout


# full disks


def test_results_are_printed_and_the_older_file_kept_where_the_disk_is_full(monkeypatch):
    monkeypatch.setattr("compress.evaluation.evaluate.evaluate", lambda *_, **__: [{"model": "m", "metric": 0.5}])
    Path("r.json").write_text("older")
    words = ("evaluate", MODEL, "--data", HELD, "--format", "json", "--out", "r.json")
    with disk(20):
        found = run(*words)
    assert found.exit_code == 1 and error(found) == f"Error: r.json cannot be written: {LARGE}"
    assert json.loads(found.stdout)["metric"] == 0.5 and Path("r.json").read_text() == "older"
    assert run(*words).stdout == Path("r.json").read_text().replace("older", "")


def test_a_ranking_is_printed_where_the_disk_is_full(tmp_path):
    assert run(*RANK).exit_code == 0  # the classifier is in the cache now
    Path("r.json").write_text("older")
    with disk(1000):
        found = run(*RANK, "--out", "r.json", "--format", "json")
    assert found.exit_code == 1 and error(found) == f"Error: r.json cannot be written: {LARGE}"
    assert json.loads(found.stdout)["rows"][0]["source"] == "heart_hungarian" and Path("r.json").read_text() == "older"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_device_is_named():
    found = run("results", "store.db", "--out", "/dev/full")
    assert found.exit_code == 1
    assert error(found) == "Error: /dev/full cannot be written: No space left on device"


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    with disk(1000):
        found = run(*RANK, "--out", "r.json")
    assert found.exit_code == 1 and error(found).endswith(f".safetensors cannot be written: {LARGE}")
    assert error(found).startswith(f"Error: {tmp_path}/app/sources/")
    assert not Path("r.json").exists() and not [p for p in (tmp_path / "app").rglob("*") if p.is_file()][1:]


def test_the_folder_of_a_transfer_is_complete_or_absent(here):
    """The model fits on the disk, the predictions do not."""
    words = ("transfer", VA, HUNGARIAN, "--repeats", 2)
    pd.concat([pd.read_csv(VA)] * 100).to_csv("many.csv", index=False)
    first = run(*words, "--out", "first")
    with disk(max(p.stat().st_size for p in Path("first").iterdir())):
        found = run(*words, "--predict", "many.csv", "--out", "second")
    assert found.exit_code == 1 and error(found) == f"Error: second cannot be written: {LARGE}"
    assert found.stdout == first.stdout != "" and not Path("second").exists()


@pytest.mark.parametrize("name, size, file", [("calibrate", 100_000, "hidden_states/"), ("export", 100_000, "out")])
def test_a_folder_is_complete_or_absent(name, size, file, here):
    with disk(size):
        found = run(*with_out(name, "out"))
    assert found.exit_code == 1 and error(found).endswith(f"cannot be written: {LARGE}"), found.output
    assert file in error(found) and not Path("out").exists()


@pytest.mark.parametrize("method", ["kprune", "dynamic_sparse"])
def test_a_full_disk_in_a_method_keeps_what_is_finished_and_resume_goes_on(method, here, monkeypatch):
    """The limit comes when the method has finished and kept one of its own steps."""
    words = (*COMPRESS, method, *(("--set", "steps=3") if method == "dynamic_sparse" else ()))
    monkeypatch.setattr("compress.algorithms.training.KEEP_EVERY", 1)
    assert run(*words, "--out", "whole").exit_code == 0
    module = sys.modules["compress.algorithms.resume" if method == "kprune" else "compress.algorithms.training"]
    real, limit, done = module.save_file, contextlib.ExitStack(), []

    def then_full(tensors, file, *args, **given):
        real(tensors, file, *args, **given)
        if not done:
            limit.enter_context(disk(10_000))
        done.append(file)

    with monkeypatch.context() as patch, limit:
        patch.setattr(module, "save_file", then_full)
        found = run(*words, "--out", "out")
    assert found.exit_code == 1 and LARGE in error(found) and len(error(found).splitlines()) == 1, found.output
    assert error(found).startswith(f"Error: {here}/.out.unfinished/0-{method}/")
    assert len(done) == 1 and len(list(here.glob(f".out.unfinished/0-{method}/*.safetensors"))) == 1
    assert not Path("out").exists() and not Path(".out.unfinished/scratch").exists()
    again = run(*words, "--out", "out", "--resume")
    assert again.exit_code == 0, again.output
    one, other = (io.load(folder)[0].state_dict() for folder in ("whole", "out"))
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
    assert not list(here.glob(".out*"))


@pytest.mark.parametrize("how", ["full", "stopped"])
def test_a_sweep_keeps_the_models_that_are_finished(how, here, monkeypatch):
    words = ("sweep", *COMPRESS[1:], "magnitude", "--set", "ratio=0.1,0.3", "--data", HELD, "--out", "s")
    monkeypatch.setattr("compress.commands.options.PERPLEXITY_TOKENS", 500)
    real, steps, limit = pipeline.run, [], contextlib.ExitStack()

    def second_fails(model, step, *rest, **given):
        steps.append(step)
        if len(steps) == 2 and how == "stopped":
            raise KeyboardInterrupt
        if len(steps) == 2:
            limit.enter_context(disk(10_000))
        return real(model, step, *rest, **given)

    monkeypatch.setattr(pipeline, "run", second_fails)
    with limit:
        found = run(*words)
    second = here / "s/magnitude__ratio_0_3"
    told = f"Error: {second.relative_to(here)} cannot be written: {LARGE}"
    assert (found.exit_code, error(found)) == ((1, told) if how == "full" else (130, f"stopped: {KEPT['sweep']}"))
    assert (here / "s/magnitude__ratio_0_1/config.json").exists() and not second.exists()
    assert run(*words).exit_code == 0 and len(steps) == 3 and (second / "config.json").exists()


def test_a_full_disk_while_a_model_streams_names_the_file(here):
    model = io.load(MODEL, stream=True, scratch=here)[0]
    layer = model.model.layers[0].mlp.up_proj
    layer.weight = torch.nn.Parameter(layer.weight * 2)
    with disk(1000), pytest.raises(OSError) as found:
        offload.store_of(model).let_go()
    assert str(found.value).startswith(f"{here}/") and str(found.value).endswith(f" cannot be written: {LARGE}")


# Ctrl-C


def process(*args):
    """The command in a process of its own that Ctrl-C reaches, also where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    found = subprocess.Popen(
        [sys.executable, "-m", "cli", *map(str, args)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    signal.signal(signal.SIGINT, before)
    return found


KEPT = {
    "rank": "source classifiers that were trained are kept, so that the same command takes less time",
    "validate": "source classifiers that were trained are kept, nothing else; the same command begins anew",
    "transfer": "a source classifier that was trained is kept, nothing else; the same command begins anew",
    "calibrate": "what was computed of the texts is kept, so that the same command takes less time",
    "compress": "the same command with --resume goes on from the last finished step",
    "run": "the same command with --resume goes on from the last finished step",
    "sweep": "the models that are finished are kept; the same command goes on with the rest",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_ctrl_c_is_one_line_and_130(name, here, monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(COMMANDS[name][1], interrupted)
    found = run(*with_out(name, "out"))
    kept = KEPT.get(name, "nothing was written; the same command begins anew")
    assert found.exit_code == 130 and error(found) == f"stopped: {kept}" and found.stdout == "", found.output
    assert name == "sweep" or not Path("out").exists()


def test_a_second_process_is_refused_and_a_real_ctrl_c_ends_the_first():
    """The first waits for its target, a pipe that nothing is written into."""
    os.mkfifo("target.csv")
    first = process("rank", "target.csv", HUNGARIAN, "--out", "r.json")
    with open("target.csv", "w"):  # it reads now
        second = run(*RANK, "--out", "r.json")
        first.send_signal(signal.SIGINT)
        out, err = first.communicate(timeout=60)
    assert second.exit_code == 2
    assert f"r.json is being written by another run (process {first.pid})" in error(second)
    assert (first.returncode, out, err) == (130, "", f"stopped: {KEPT['rank']}\n") and not Path("r.json").exists()
    assert run(*RANK, "--out", "r.json").exit_code == 0 and Path("r.json").exists()


def test_a_real_ctrl_c_while_a_report_is_written():
    os.mkfifo("ranking.json")
    first = process("report", "ranking.json", "--out", "report.html")
    with open("ranking.json", "w"):  # it reads now
        first.send_signal(signal.SIGINT)
        out, err = first.communicate(timeout=60)
    kept = "nothing was written; the same command begins anew"
    assert (first.returncode, out, err) == (130, "", f"stopped: {kept}\n") and not Path("report.html").exists()


@pytest.mark.parametrize("read", [files.read, texts.read_texts])
def test_ctrl_c_while_pandas_reads_is_no_parser_error(read, monkeypatch):
    def interrupted(*_, **__):
        raise pd.errors.ParserError("Error tokenizing data. C error: Calling read(nbytes) on source failed. Try ...")

    Path("t.csv").write_text("text\nhello\n")
    monkeypatch.setattr(pd, "read_csv", interrupted)
    with pytest.raises(KeyboardInterrupt):
        read(Path("t.csv"))
