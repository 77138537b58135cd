"""Results, a model folder and a store of batch as they were: nothing changes them unseen (tests/golden/README.md).

    python -m tests.test_golden --write
writes the results anew, so that a change that is wanted is a diff that can be read.
"""

import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from safetensors.torch import save_file

import cli
import compress
from tests.rereader import check_generation
from transmeter.util.to_json import to_json

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests/golden"
LEFT_OUT = {"seconds", "compression_seconds", "command", "versions"}
LENGTH, WINDOW = ("--length", 128), ("--window", 192, "--apart")  # of calibration sequences, and of perplexity
LONG = 20  # from this number of matched columns on, golden files hold a hash of them
CLOSE = 1e-5  # relative, of every number
# with which torch adds in the same order on every CPU: by the last bit of a sum a training may stop elsewhere
PLAIN = {"ATEN_CPU_CAPABILITY": "default"}
# absolute, of what is trained in float32, percentage points most of it; a row of the test set moves it by 0.2
TRAINED = {"rank": 1e-3, "validate": 1e-3, "calibrate_measure": 1e-3}


def run(*args):
    """The document that a command prints."""
    found = CliRunner().invoke(cli.main, [str(a) for a in (*args, "--json")])
    assert found.exit_code == 0, found.output
    return json.loads(found.stdout)


def lasting(value):
    """`value` without what differs from run to run and from machine to machine, long lists of matches abridged."""
    if isinstance(value, dict):
        return {k: _abridged(v) if k == "matches" else lasting(v) for k, v in value.items() if k not in LEFT_OUT}
    return [lasting(v) for v in value] if isinstance(value, list) else value


def _abridged(matches):
    if matches is None or len(matches) < LONG:
        return matches
    return {"number": len(matches), "sha256": hashlib.sha256(json.dumps(matches).encode()).hexdigest()}


def tensors(folder):
    """Shape, type and sums of every tensor of a model folder, by name: of its numbers, of their squares, and of the
    numbers weighted by the cos of their places, which sees numbers that have changed places.

    A number that another CPU rounds to its neighbour moves none of them beyond `CLOSE`.
    """
    found = {}
    with safe_open(folder / "model.safetensors", "pt") as file:
        for name in sorted(file.keys()):
            tensor = file.get_tensor(name)
            numbers = tensor.double().flatten().numpy()
            found[name] = {
                "shape": list(tensor.shape),
                "type": str(tensor.dtype),
                "length": tensor.numel(),
                "sum": float(numbers.sum()),
                "squares": float(np.square(numbers).sum()),
                "by_place": float(numbers @ np.cos(np.arange(len(numbers)))),
            }
    return found


def tables():
    """What `rank` and `validate` print on real tables, by the name of the golden file."""
    cleveland, *sources = (f"data/tabular/heart_{n}.csv" for n in ("cleveland", "hungarian", "statlog", "failure"))
    few = ("--shots", 5, "--cache", "cache")
    found = {"rank": run("rank", cleveland, *sources, *few, "--repeats", 3, "--out", "ranking.json")}
    found["rank_logme"] = run("rank", cleveland, *sources, "--scorer", "logme", "--cache", "cache")
    check = ("--ranking", "ranking.json", "--repeats", 2, "--steps", 10, "--cache", "cache")
    found["validate"] = run("validate", cleveland, *sources, *check)
    return found


def models():
    """What `calibrate`, `compress` and `evaluate` print, with the tensors of what was written.

    Only what does not depend on the last bit of a float32, and so on the CPU: texts are measured by the states of the
    tiny model, as the 4,096 tokens of data/mixlm fall into other clusters elsewhere, and no method is among them that
    decides by a choice at the margin what comes after it, such as kprune, gptq and awq.
    """
    for name in ("math", "novels", "math_sample"):
        text = Path(f"data/text/{name}.txt").read_text(encoding="utf-8")
        Path(f"{name}.txt").write_text(text[:12_000].rpartition("\n\n")[0], encoding="utf-8")
    texts = ("--target", "math_sample.txt", "--candidate", "math.txt", "--candidate", "novels.txt", "--cache", "cache")
    some = ("--length", 64, "--tokens", 900, "--out", "measured")
    found = {"calibrate_measure": run("calibrate", GOLDEN / "model", *texts, *some)}
    found["calibrate_measure"]["model"] = "model"
    by = ("--by", "lowest_perplexity", *LENGTH, "--tokens", 600, "--out", "calibration")
    found["calibrate_perplexity"] = run("calibrate", "data/mixlm", *texts, *by)
    pruning = ("magnitude", "--set", "ratio=0.3", "--method", "wanda", "--set", "ratio=0.5")
    steps = {"pruned": pruning, "quantized": ("round_to_nearest", "--set", "bits=4")}
    for out, method in steps.items():
        with_texts = ("--calibration", "calibration", "--tokens", 600, "--out", out)
        printed = run("compress", "data/mixlm", "--method", *method, *with_texts)
        card = json.loads(Path(out, "compression.json").read_text(encoding="utf-8"))
        found[f"compress_{out}"] = {"printed": printed, "card": card, "tensors": tensors(Path(out))}
    task = ("--baseline", "data/mixlm", "--data", "data/text/math_heldout.txt", "--tokens", 600, *WINDOW)
    return found | {"evaluate": run("evaluate", "pruned", *task)}


def enter(folder, patch):
    """Work in `folder`, with the data in it, so that all paths are relative.

    No process is started for the peak of memory, which golden files leave out.
    """
    (folder / "data").symlink_to(ROOT / "data")
    patch.chdir(folder)
    patch.setattr(subprocess, "run", lambda *args, **kwargs: subprocess.CompletedProcess(args, 1))


def made():
    """All results, by the name of the golden file."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        enter(Path(folder), patch)
        return {name: lasting(value) for name, value in (tables() | models()).items()}


def test_results_are_those_of_the_golden_files():
    line = [sys.executable, "-m", "tests.test_golden", "--show"]
    done = subprocess.run(line, cwd=ROOT, env=os.environ | PLAIN, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = []
    for name, found in json.loads(done.stdout).items():
        lines += differences(found, read(name), name, TRAINED.get(name, 0.0))
    assert not lines, "\n".join(lines)


def read(name):
    """A golden file."""
    return json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))


def differences(found, golden, path, points):
    """A line for everything in which two documents differ: numbers by `CLOSE` or by `points`, texts and order at all.

    Sums of a tensor differ by `CLOSE` of the largest that numbers of its size may have, since they may be near zero.
    """
    if isinstance(golden, dict) and isinstance(found, dict) and list(found) == list(golden):
        largest = math.sqrt(golden["length"] * golden["squares"]) if "squares" in golden else 0.0
        for key in golden:
            yield from differences(found[key], golden[key], f"{path}.{key}", max(points, CLOSE * largest))
    elif isinstance(golden, list) and isinstance(found, list) and len(found) == len(golden):
        for i, pair in enumerate(zip(found, golden)):
            yield from differences(*pair, f"{path}[{i}]", points)
    elif isinstance(golden, float) and isinstance(found, float):
        if not math.isclose(found, golden, rel_tol=CLOSE, abs_tol=points):
            yield f"{path}: {found}, was {golden}"
    elif isinstance(golden, dict) and isinstance(found, dict):
        yield f"{path}: gone {sorted(golden.keys() - found)}, new {sorted(found.keys() - golden)}, or in another order"
    elif found != golden:
        yield f"{path}: {str(found)[:200]}, was {str(golden)[:200]}"


@pytest.mark.parametrize(
    "change, line",
    [
        (lambda d: d["rows"].reverse(), "rows[0].source: b, was a"),
        (lambda d: d.update(target="x"), "d.target: x, was t"),
        (lambda d: d["rows"][1].update(score=2.0001), "rows[1].score: 2.0001, was 2.0"),
        (lambda d: d.pop("rows"), "d: gone ['rows'], new []"),
        (lambda d: d.update(target=d.pop("target")), "d: gone [], new [], or in another order"),
        (lambda d: d["rows"].pop(), "d.rows: "),
        (lambda d: d.update(rows=None), "d.rows: None, was"),
    ],
)
def test_a_difference_is_named(change, line):
    document = {"target": "t", "rows": [{"source": "a", "score": 1.0}, {"source": "b", "score": 2.0}]}
    changed = json.loads(json.dumps(document))
    assert not [*differences(changed, document, "d", 0.0)]
    change(changed)
    assert any(line in found for found in differences(changed, document, "d", 0.0))


def test_tensors_that_changed_places_are_seen(tmp_path):
    model, _ = compress.load(GOLDEN / "model")
    save_file({"w": model.lm_head.weight.detach().clone()}, tmp_path / "model.safetensors")
    golden = tensors(tmp_path)
    for other in (lambda w: w.flip(0), lambda w: w * 1.0001, lambda w: w + 0.001, lambda w: w.half(), lambda w: w.T):
        save_file({"w": other(model.lm_head.weight.detach()).contiguous()}, tmp_path / "model.safetensors")
        assert [*differences(tensors(tmp_path), golden, "m", 0.0)]


def test_a_model_folder_of_then_loads_and_gives_the_logits_of_then(reread):
    golden = read("model_logits")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model, tokenizer = compress.load(GOLDEN / "model")
    assert tokenizer(golden["text"])["input_ids"] == golden["ids"]
    ids = torch.tensor([golden["ids"], golden["ids"][::-1]])
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with torch.no_grad():
        found = model(**batch).logits
    alone = reread(GOLDEN / "model", "AutoModelForCausalLM", batch)
    for logits in (found, alone["logits"]):
        torch.testing.assert_close(logits[0], torch.tensor(golden["logits"]), rtol=0, atol=1e-5)
    check_generation(alone)


def test_a_store_of_then_is_read():
    golden = read("store")
    assert sorted(run("results", GOLDEN / "store.db"), key=str) == sorted(golden["results"], key=str)
    assert run("status", GOLDEN / "store.db") == golden["status"]
    shown = CliRunner().invoke(cli.main, ["status", str(GOLDEN / "store.db")])
    assert shown.exit_code == 0 and shown.stdout.startswith(
        "8 done, 0 failed, 0 open\nrun on host (process 1, local, 1"
    )
    assert "heart_cleveland, knn: heart_va leads (0.7822)" in shown.stdout.splitlines()


def write():
    """Write the results anew."""
    for name, value in made().items():
        (GOLDEN / f"{name}.json").write_text(to_json(value), encoding="utf-8")


if __name__ == "__main__":
    if not PLAIN.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, "-m", "tests.test_golden", *sys.argv[1:]], os.environ | PLAIN)
    if sys.argv[1:] == ["--show"]:
        print(to_json(made()))
    elif sys.argv[1:] == ["--write"]:
        write()
    else:
        sys.exit("usage: python -m tests.test_golden --write")
