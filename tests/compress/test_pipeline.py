"""A compression job: what is killed goes on, what differs is refused, nothing half-done gets the final name."""

import json
import math
import os
import signal
import subprocess
import sys
import time
import warnings

import pytest
import torch
from click.testing import CliRunner

import compress
from cli import main
from compress import pipeline
from compress.algorithms import resume
from compress.evaluation import evaluate
from compress.methods import kprune
from compress.model import io
from tests.conftest import DATA, compressed, strayed

TEXTS = DATA / "text/math_sample.txt"


def steps(ratio=0.3):
    """One K-prune step."""
    return [pipeline.Step("kprune", {"ratio": ratio})]


def weights(folder):
    """All weights of a folder."""
    return io.load(folder)[0].state_dict()


class Killed(Exception):
    """What stops a run in these tests."""


def stop_after(monkeypatch, number):
    """Make the run stop when `number` steps are finished."""
    keep = resume.Progress.keep

    def counting(self, step, model, blocks):
        keep(self, step, model, blocks)
        if step + 1 == number:
            raise Killed

    monkeypatch.setattr(resume.Progress, "keep", counting)


@pytest.mark.parametrize("finished", [1, 4, 12])
def test_a_stopped_run_goes_on_to_the_same_weights(finished, tmp_path, monkeypatch):
    model = str(DATA / "mixlm")
    pipeline.run(model, steps(), TEXTS, tmp_path / "whole", tokens=600)
    with monkeypatch.context() as patch:
        stop_after(patch, finished)
        with pytest.raises(Killed):
            pipeline.run(model, steps(), TEXTS, tmp_path / "m", tokens=600)
    assert not (tmp_path / "m").exists()
    with pytest.raises(ValueError, match="add --resume to go on"):
        pipeline.run(model, steps(), TEXTS, tmp_path / "m", tokens=600)
    with pytest.raises(ValueError, match="other steps .*0.3.*, now .*0.4.*: give the same"):
        pipeline.run(model, steps(0.4), TEXTS, tmp_path / "m", tokens=600, resume=True)
    with pytest.raises(ValueError, match="begun with other texts: give the same"):
        pipeline.run(model, steps(), TEXTS, tmp_path / "m", tokens=500, resume=True)
    other = evaluate.evaluation_task(model, TEXTS, tokens=100)
    with pytest.raises(ValueError, match=r"begun with other data \(None, now .*math_sample"):
        pipeline.run(model, steps(), TEXTS, tmp_path / "m", tokens=600, task=other, resume=True)
    remove, calls = kprune.remove, []  # once a sublayer that is not finished
    monkeypatch.setattr(kprune, "remove", lambda *a: calls.append(1) or remove(*a))
    pipeline.run(model, steps(), TEXTS, tmp_path / "m", tokens=600, resume=True)
    assert len(calls) == 12 - finished
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "m")
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m", "whole"]


def test_a_killed_process_goes_on(tmp_path):
    command = [sys.executable, "-m", "cli", "compress", str(DATA / "mixlm"), "--method", "kprune", "--set", "ratio=0.3"]
    command += ["--calibration", str(TEXTS), "--tokens", "600", "--out", str(tmp_path / "m")]
    running = subprocess.Popen(command, cwd=DATA.parent, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    finished = tmp_path / ".m.unfinished/0-kprune"
    while running.poll() is None and len(list(finished.glob("*.safetensors"))) < 2:
        time.sleep(0.01)
    os.kill(running.pid, signal.SIGKILL)
    running.wait()
    assert not (tmp_path / "m").exists() and finished.is_dir()
    done = subprocess.run([*command, "--resume"], cwd=DATA.parent, capture_output=True, text=True)
    assert done.returncode == 0 and "reloaded with equal logits" in done.stdout, done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


def test_a_run_that_finished_nothing_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("no")

    monkeypatch.setattr(kprune, "_knowledge", fail)
    with pytest.raises(RuntimeError):
        pipeline.run(str(DATA / "mixlm"), steps(), TEXTS, tmp_path / "m", tokens=600)
    assert list(tmp_path.iterdir()) == []


def test_options_are_checked_before_the_model_is_read(tmp_path):
    for options, message in [
        ({"ratio": 1.5}, "ratio 1.5 is not a share"),
        ({"ratio": 0.5, "bytes": 10}, "ratio and bytes are both given"),
        ({"latency": -1.0}, "latency -1.0 is out of range"),
        ({"multiple": 0}, "multiple 0 is out of range"),
    ]:
        with pytest.raises(ValueError, match=message):
            pipeline.run("nowhere", [pipeline.Step("kprune", options)], TEXTS, tmp_path / "m")


def test_steps_are_kept_apart_and_noted(tmp_path):
    both = (
        [pipeline.Step("depth", {"ratio": 0.2}), *steps(0.2)]
        if "depth" in pipeline.methods()
        else [*steps(0.2), *steps(0.1)]
    )
    card = pipeline.run(str(DATA / "mixlm"), both, TEXTS, tmp_path / "m", tokens=600)
    assert [s["method"] for s in card["steps"]] == [s.method for s in both]
    assert card == json.loads((tmp_path / "m/compression.json").read_text())
    assert all(s["seconds"] > 0 for s in card["steps"])


def test_a_run_that_goes_on_compares_with_the_model_before_the_first_step(tmp_path, monkeypatch):
    both = [
        pipeline.Step("magnitude", {"ratio": 0.2, "multiple": 32}),
        pipeline.Step("round_to_nearest", {"bits": 3, "group": 32}),
    ]
    task = evaluate.evaluation_task(str(DATA / "mixlm"), DATA / "text/math_heldout.txt", tokens=600, window=192)
    whole = pipeline.run(str(DATA / "mixlm"), both, TEXTS, tmp_path / "whole", tokens=300, task=task)
    changes = [step["after"]["loss_change_nats"]["value"] for step in whole["steps"]]
    logs = [math.log(r["perplexity"]["value"]) for r in (whole["before"], *(s["after"] for s in whole["steps"]))]
    assert changes == pytest.approx([logs[1] - logs[0], logs[2] - logs[0]], abs=1e-4) and changes[1] > changes[0] > 0
    assert "loss_change_nats" in (tmp_path / "whole/README.md").read_text()
    real = pipeline.apply
    monkeypatch.setattr(
        pipeline, "apply", lambda net, data, step, *args: {"magnitude": real}[step.method](net, data, step, *args)
    )
    with pytest.raises(KeyError):
        pipeline.run(str(DATA / "mixlm"), both, TEXTS, tmp_path / "stopped", tokens=300, task=task)
    monkeypatch.undo()
    again = pipeline.run(str(DATA / "mixlm"), both, TEXTS, tmp_path / "stopped", tokens=300, task=task, resume=True)
    assert [s["after"]["loss_change_nats"]["value"] for s in again["steps"]] == pytest.approx(changes, abs=1e-6)


def test_what_leaves_nearly_nothing_and_texts_of_special_tokens_are_told(tmp_path):
    with pytest.warns(
        UserWarning, match=r"^magnitude ratio=0\.999 leaves 0\.001 of what it removes from: evaluate the"
    ):
        compress.compress(str(DATA / "mixlm"), "magnitude", ratio=0.999, calibration=["One two three."], tokens=9)
    (tmp_path / "special.txt").write_text("<s></s><s></s>\n\n</s></s></s>\n")
    told = r"holds special tokens alone \(<s>, </s>\), which say nothing of any text$"
    for texts in (str(tmp_path / "special.txt"), ["<s></s><s></s>", "</s></s></s>"]):
        with pytest.warns(UserWarning, match=told):
            compress.compress(str(DATA / "mixlm"), "wanda", ratio=0.5, calibration=texts, tokens=9)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        compress.compress(str(DATA / "mixlm"), "wanda", ratio=0.9, calibration=["One and two <s>."], tokens=9)
    assert not [w for w in caught if "special" in str(w.message) or "leaves" in str(w.message)]


def test_bfloat16_and_a_device_that_is_not_here(tmp_path):
    command = ["compress", str(DATA / "mixlm"), "--method", "kprune", "--set", "ratio=0.3", "--calibration", str(TEXTS)]
    command += ["--tokens", "600", "--out", str(tmp_path / "m")]
    for device in ("cuda:77", "abacus"):
        result = CliRunner().invoke(main, [*command, "--device", device])
        assert result.exit_code == 2 and f"device '{device}' is not here: give cpu" in result.output
    result = CliRunner().invoke(main, [*command, "--dtype", "bfloat16"])
    assert result.exit_code == 0, result.output
    assert json.loads((tmp_path / "m/config.json").read_text())["dtype"] == "float16"


@pytest.mark.parametrize(
    "method, options",
    [
        ("gptq", {}),
        ("mixed", {"symmetric": True}),
        ("awq", {"embeddings": True, "head": True}),
        ("smoothquant", {"activations": 8}),
        ("kmeans", {"bits": 3}),
        ("vector", {"bits": 4, "width": 2}),
    ],
)
def test_quantizers_work_in_bfloat16(method, options, two_blocks, small_folder, calibration):
    """Blocks behind a quantized one are run on what leaves it: the result is near that of float32."""
    dense = [io.load(small_folder, dtype=dtype)[0] for dtype in (torch.float32, torch.bfloat16)]
    made = [compressed(method, model, calibration, **options) for model in dense]
    with torch.no_grad():
        expected, *found = (model.float()(**calibration[0]).logits for model in (two_blocks, *made))
    usual, half = (strayed(logits, expected) for logits in found)
    assert half < 1.3 * usual + 1e-3


def test_the_limit_of_memory_holds_without_texts_too(tmp_path):
    rounded = [pipeline.Step("round_to_nearest", {})]
    message = "streamed from files, but 1 MB may be used: raise --memory$"
    with pytest.raises(ValueError, match=message):
        pipeline.run(str(DATA / "mixlm"), rounded, None, tmp_path / "small", machine=pipeline.Machine(memory=10**6))
    assert not list(tmp_path.iterdir())
