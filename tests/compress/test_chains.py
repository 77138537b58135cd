"""Several steps in one run: recipes, orders that cannot work, and going on between two steps."""

import json

import pytest
import torch
import yaml
from click.testing import CliRunner

from cli import main
from compress import pipeline, recipe
from compress.evaluation import evaluate
from compress.methods import methods
from compress.model import io
from tests.conftest import DATA
from transmeter.util.checkpoint import bytes_of

TEXTS = DATA / "text/math_sample.txt"
MODEL = str(DATA / "mixlm")
STEPS = [
    pipeline.Step("magnitude", {"ratio": 0.3, "multiple": 32}),
    pipeline.Step("distil", {"steps": 3}),
    pipeline.Step("round_to_nearest", {"group": 32}),
]


def weights(folder):
    """All weights of a folder."""
    return io.load(folder)[0].state_dict()


@pytest.mark.parametrize("finished", [1, 2])
def test_a_chain_goes_on_at_the_step_where_it_stopped(finished, small_folder, tmp_path, monkeypatch):
    model = str(small_folder)
    pipeline.run(model, STEPS, TEXTS, tmp_path / "whole", tokens=300)
    apply, done = pipeline.apply, []

    def failing(net, data, step, *rest):
        if len(done) == finished:
            raise KeyboardInterrupt
        done.append(step.method)
        return apply(net, data, step, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "apply", failing)
        with pytest.raises(KeyboardInterrupt):
            pipeline.run(model, STEPS, TEXTS, tmp_path / "m", tokens=300)
    done.clear()
    monkeypatch.setattr(pipeline, "apply", lambda *a: done.append(a[2].method) or apply(*a))
    card = pipeline.run(model, STEPS, TEXTS, tmp_path / "m", tokens=300, resume=True)
    assert done == [s.method for s in STEPS[finished:]]
    assert [s["method"] for s in card["steps"]] == [s.method for s in STEPS]
    one, other = weights(tmp_path / "whole"), weights(tmp_path / "m")
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)
    assert not (tmp_path / ".m.unfinished").exists()


def test_every_step_is_measured(tmp_path):
    task = evaluate.evaluation_task(MODEL, DATA / "text/math_heldout.txt", tokens=2000, window=192, apart=True)
    said = []
    card = pipeline.run(MODEL, STEPS, TEXTS, tmp_path / "m", tokens=300, task=task, tell=said.append)
    sizes = [card["before"], *(s["after"] for s in card["steps"])]
    assert [s["bytes"] for s in sizes] == sorted((s["bytes"] for s in sizes), reverse=True)
    for found in (sizes[0], sizes[-1]):
        written = bytes_of(MODEL if found is sizes[0] else tmp_path / "m")
        assert found["bytes"] == pytest.approx(written, rel=0.01)  # headers
        assert found["perplexity"]["ci_low"] < found["perplexity"]["value"]
    assert said[-1].startswith("round_to_nearest: ") and "perplexity 1" in said[-1] and "times fewer" in said[-1]
    assert json.loads((tmp_path / "m/compression.json").read_text())["steps"] == card["steps"]


@pytest.mark.parametrize(
    "steps, message",
    [
        (
            [("round_to_nearest", {}), ("kprune", {"ratio": 0.5})],
            "kprune cannot follow round_to_nearest.*quantize last",
        ),
        ([("round_to_nearest", {}), ("round_to_nearest", {})], "cannot follow round_to_nearest"),
        (
            [("kprune", {"ratio": 0.5}), ("round_to_nearest", {})],
            "give kprune multiple=32 and round_to_nearest group=32",
        ),
        ([("kprune", {"multiple": 64}), ("round_to_nearest", {})], "multiple=32 and round_to_nearest group=32"),
    ],
)
def test_an_order_that_cannot_work_is_refused_before_work(steps, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        pipeline.run(MODEL, [pipeline.Step(*s) for s in steps], TEXTS, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_what_looks_at_no_texts_needs_none(tmp_path):
    run = CliRunner().invoke(main, ["compress", MODEL, "--method", "round_to_nearest", "--out", str(tmp_path / "m")])
    assert run.exit_code == 0 and "6,892,248 -> " in run.output
    run = CliRunner().invoke(main, ["compress", MODEL, "--method", "wanda", "--out", str(tmp_path / "n")])
    assert run.exit_code == 2 and "wanda looks at calibration texts: give --calibration" in run.output


def write(path, **content):
    """A recipe file."""
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def test_a_recipe_does_what_the_command_does(small_folder, tmp_path):
    model = str(small_folder)
    steps = [{"method": "magnitude", "ratio": 0.3}, {"method": "round_to_nearest", "group": None, "clip": False}]
    data = str(DATA / "text/math_heldout.txt")
    file = write(tmp_path / "r.yaml", model=model, calibration=str(TEXTS), tokens=300, steps=steps, out="m", data=data)
    found = recipe.read(file, methods())
    assert found.out == tmp_path / "m" and found.steps[1].settings == ("group=none", "clip=false")
    run = CliRunner().invoke(main, ["run", str(file)])
    assert run.exit_code == 0, run.output
    command = ["compress", model, "--calibration", str(TEXTS), "--tokens", "300", "--out", str(tmp_path / "n")]
    command += ["--method", "magnitude", "--set", "ratio=0.3"]
    command += ["--method", "round_to_nearest", "--set", "group=none", "--set", "clip=false"]
    assert CliRunner().invoke(main, command).exit_code == 0
    one, other = weights(tmp_path / "m"), weights(tmp_path / "n")
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


@pytest.mark.parametrize(
    "content, message",
    [
        ("a: [", "cannot be read as YAML"),
        ("- a", "holds no keys"),
        ("model: m\nsteps: []\nout: x", "has no 'steps'"),
        ("model: m\nsteps: 3\nout: x", "steps is 3: give a list"),
        ("model: m\nsteps: [{method: nope}]\nout: x", "method 'nope' is unknown: give one of awq, depth"),
        (
            "model: m\nsteps: [kprune]\nout: x",
            "steps is 'kprune': give a list with one entry per step, each with a method",
        ),
        ("model: m\nsteps: [{method: kprune}]\nout: x\nseeds: 1", "key 'seeds' is unknown"),
        ("model: m\nsteps: [{method: kprune}]\nout: x\ntokens: 0", "tokens is 0: give a whole number"),
        ("model: m\nsteps: [{method: kprune}]\nout: 3", "out is 3: give a text"),
        ("model: {a: 1}\nsteps: [{method: kprune}]\nout: x", "model is .*: give a text"),
    ],
)
def test_a_bad_recipe_is_one_clear_line(content, message, tmp_path):
    (tmp_path / "r.yaml").write_text(content)
    with pytest.raises(ValueError, match=message):
        recipe.read(tmp_path / "r.yaml", methods())
    run = CliRunner().invoke(main, ["run", str(tmp_path / "r.yaml")])
    assert run.exit_code == 2 and run.output.count("\n") == 1
