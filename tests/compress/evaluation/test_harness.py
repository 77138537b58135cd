"""Tasks of the lm-evaluation-harness: a local one, read from data/, by the command line and in Python."""

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import cli
import compress
from compress.calibration.texts import read_texts
from compress.evaluation import harness, metrics
from compress.model import io, structure

pytest.importorskip("lm_eval")
YAML = """task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {file}}}
  cache_dir: {cache}
test_split: test
output_type: multiple_choice
doc_to_text: "{{{{start}}}}"
doc_to_choice: "{{{{endings}}}}"
doc_to_target: right
metric_list:
  - metric: acc
  - metric: acc_norm
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, root):
    """A folder with one task: which of two texts goes on with a beginning."""
    path = tmp_path_factory.mktemp("tasks")
    texts = [text for text in read_texts(root / "data/text/math_heldout.txt") if len(text) > 150][:20]
    rows = []
    for i, text in enumerate(texts):
        endings = [text[100:150], texts[(i + 1) % len(texts)][100:150]]
        rows.append({"start": text[:100], "endings": endings[:: 1 - 2 * (i % 2)], "right": i % 2})
    pd.DataFrame(rows).to_json(path / "rows.jsonl", orient="records", lines=True)
    file = YAML.format(name="goes_on", file=path / "rows.jsonl", cache=path / "cache")
    (path / "goes_on.yaml").write_text(file, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory, root):
    """The decoder of data/ with half of its blocks."""
    model, tokenizer = io.load(root / "data/mixlm")
    structure.keep_blocks(model, range(0, model.config.num_hidden_layers, 2))
    return compress.save(model, tokenizer, tmp_path_factory.mktemp("small") / "m")


def test_a_model_is_compared_with_its_baseline_document_by_document(folder, small, root, tmp_path):
    args = ["evaluate", str(small), "--baseline", str(root / "data/mixlm"), "--task", str(folder)]
    said = CliRunner().invoke(cli.main, [*args, "--out", str(tmp_path / "r.json")])
    assert said.exit_code == 0, said.output
    found = json.loads((tmp_path / "r.json").read_text())
    own, dense = (r["tasks"]["goes_on"]["acc"] for r in (found, found["baseline"]))
    left = found["recovery_percent"]["goes_on"]["acc"]
    assert own["n"] == 20 and 0.5 < dense["value"] < 1  # a guess is right in half
    assert left["value"] == pytest.approx(100 * own["value"] / dense["value"]) and left["ci_low"] < left["ci_high"]
    assert "recovery, % (95 %)" in said.output and "goes_on, acc\n" in said.output
    said = CliRunner().invoke(cli.main, ["report", str(tmp_path / "r.json"), "--out", str(tmp_path / "r.html")])
    assert said.exit_code == 0, said.output
    page = (tmp_path / "r.html").read_text()
    assert "2 models on 1 task." in page and f"{left['value']:.1f} ({left['ci_low']:.1f} to" in page


def test_likelihoods_are_those_of_the_model(folder, root):
    """Accuracy by hand: the ending with the higher log-likelihood behind the beginning."""
    import torch

    model, tokenizer = io.load(root / "data/mixlm")
    right = []
    for row in map(json.loads, (folder / "rows.jsonl").read_text().splitlines()):
        scores, start = [], tokenizer(row["start"])["input_ids"]
        for ending in row["endings"]:
            ids = torch.tensor([tokenizer(f"{row['start']} {ending}")["input_ids"]])
            with torch.no_grad():
                logs = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
            scores.append(float(logs.gather(1, ids[0, 1:, None])[len(start) - 1 :].sum()))
        right.append(int(np.argmax(scores)) == row["right"])
    [found] = compress.evaluate(root / "data/mixlm", task=folder / "goes_on.yaml")
    assert found["tasks"]["goes_on"]["acc"]["value"] == pytest.approx(np.mean(right))


def test_the_ratio_of_means_is_paired():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(200):
        base = rng.random(200) < 0.8
        own = np.where(rng.random(200) < 0.9, base, rng.random(200) < 0.9).astype(float)  # mean 0.81
        found = metrics.paired_ratio(own, base.astype(float))
        hits += found["ci_low"] <= 0.81 / 0.8 <= found["ci_high"]
    assert 180 <= hits <= 199


def test_what_is_no_mean_over_documents_keeps_the_harness_error():
    result = {
        "name": "t",
        "sample_len": 3,
        "acc,none": 0.5,
        "acc_stderr,none": 0.1,
        "bleu,x": 7.0,
        "bleu_stderr,x": "N/A",
    }
    found = {"results": {"t": result}, "higher_is_better": {"t": {"acc": True, "bleu": True}}, "samples": {}}
    values, documents = harness.estimates(found)
    assert values["t"]["acc"]["ci_high"] == pytest.approx(0.5 + 1.959964 * 0.1) and documents == {"t": {}}
    assert values["t"]["bleu,x"]["value"] == 7.0 and values["t"]["bleu,x"]["ci_low"] == -np.inf


@pytest.mark.parametrize(
    "task, message",
    [
        ("nothing.yaml", "nothing.yaml does not exist: give a file of a task"),
        ("empty", "has no task in it: give a folder"),
        ("broken/a.yaml", "a.yaml cannot be run"),
    ],
)
def test_tasks_that_are_refused(task, message, root, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/a.yaml").write_text("task: a\ndataset_path: json\ndataset_kwargs: {data_files: none.json}\n")
    with pytest.raises(ValueError, match=message):
        compress.evaluate(root / "data/mixlm", task=tmp_path / task)


def test_requests_that_cannot_work_are_refused(encoder, letters, root, tmp_path, monkeypatch):
    model = root / "data/mixlm"
    with pytest.raises(ValueError, match="give data, .* or task"):
        compress.evaluate(model)
    with pytest.raises(ValueError, match="tasks have metrics of their own"):
        compress.evaluate(model, task="arc_easy", window=9)
    found = CliRunner().invoke(cli.main, ["evaluate", str(model)])
    assert found.exit_code == 2 and "give either --data or --task" in found.output
    monkeypatch.setattr(harness, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"lm-evaluation-harness: pip install 'transmeter\[lm-eval\]'"):
        compress.evaluate(model, task="arc_easy")
    monkeypatch.setattr(harness, "task_of", lambda name: "classes")
    with pytest.raises(ValueError, match="does not predict next tokens, as --task asks for"):
        compress.evaluate(model, task="arc_easy")
