"""Texts, batches, the choice of calibration data, and evaluation."""

import copy
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, Value
from safetensors.torch import save_file

from compress.algorithms.budget import flops
from compress.calibration.texts import batches, cut, read_texts
from compress.evaluation import costs, evaluate, metrics, prediction
from compress.evaluation.examples import read_examples
from compress.evaluation.windows import apart
from compress.model import io
from transmeter.tables import files

DATA = Path(__file__).resolve().parents[3] / "data"


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.csv.gz", "a.parquet", "a.jsonl", "folder"])
def test_texts_are_read_from_every_format(tmp_path, name):
    texts, path = ["One, two.\nThree.", "NA", "née"], tmp_path / name
    frame = pd.DataFrame({"text": [*texts, ""]})
    if name == "folder":
        Dataset.from_pandas(frame).save_to_disk(path)
    elif name == "a.txt":
        path.write_text("\n\n".join(texts) + "\n\n\n", encoding="utf-8")
    elif name == "a.parquet":
        frame.to_parquet(path)
    elif name == "a.jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_csv(path, index=False)
    assert read_texts(path) == texts


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.txt", b"\n\n \n", "no text in it"),
        ("a.txt", b"\xff\xfe\xfa", "not UTF-8"),
        ("a.csv", b"words\nx\n", "no column 'text'"),
        ("a.jsonl", b"{not json", "cannot be read"),
        ("a.parquet", b"x", "cannot be read"),
        ("a.pdf", b"x", "no known format"),
    ],
)
def test_texts_that_are_refused(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_texts(tmp_path / name)


def test_texts_that_would_fill_the_memory_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "UNPACKED", 1000)
    pd.DataFrame({"text": ["long " * 500] * 9}).to_csv(tmp_path / "a.csv.gz", index=False)
    with pytest.raises(ValueError, match="holds more than 1,000 bytes when unpacked"):
        read_texts(tmp_path / "a.csv.gz")


@pytest.mark.parametrize("suffix", ["", ".parquet"])
def test_classes_of_a_data_set_have_names_where_the_model_has_them_too(tmp_path, suffix):
    features = Features({"text": Value("string"), "label": ClassLabel(names=["bad", "good"])})
    made, path = Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features), tmp_path / f"d{suffix}"
    made.to_parquet(path) if suffix else made.save_to_disk(path)
    assert read_examples(path, names=["good", "bad"])[1] == ["good", "bad"]
    assert read_examples(path, names=["LABEL_0", "LABEL_1"])[1] == read_examples(path)[1] == ["1", "0"]


def test_token_budgets_are_exact_and_draws_reproducible(tokenizer, texts):
    sequences = cut(tokenizer, texts, 1000, 64, seed=3)
    assert sum(map(len, sequences)) == 1000 and max(map(len, sequences)) <= 64
    assert all(s[0] == tokenizer.bos_token_id for s in sequences)
    assert sequences == cut(tokenizer, texts, 1000, 64, seed=3) != cut(tokenizer, texts, 1000, 64, seed=4)
    assert sum(map(len, cut(tokenizer, ["short"], 1000, 64))) < 1000
    made = batches(tokenizer, sequences, size=4)
    assert sum(int(b["attention_mask"].sum()) for b in made) == 1000


def test_perplexity_is_that_of_the_model_card(decoder):
    """12.5 on all held-out maths when the model was trained; this is a part of it, in windows of 192 tokens."""
    held_out = [(DATA / "text/math_heldout.txt").read_text(encoding="utf-8")]
    found = metrics.perplexity(prediction.losses(*decoder, apart(decoder[1], held_out, 8000, 192)))
    assert found["ci_low"] < 12.5 < found["ci_high"] and found["n"] > 7000


def test_perplexity_against_the_mean_loss():
    losses = np.array([[20.0, 10.0], [33.0, 11.0], [5.0, 4.0]])
    found = metrics.perplexity(losses)
    assert found["value"] == pytest.approx(math.exp(58 / 25), rel=1e-6) and found["n"] == 25
    assert found["ci_low"] < found["value"] < found["ci_high"]


def test_accuracy_and_paired_change():
    correct = np.array([True] * 90 + [False] * 10)
    found = metrics.share(correct)
    assert (found["value"], found["n"]) == (0.9, 100) and 0.82 < found["ci_low"] < 0.9 < found["ci_high"] < 0.95
    change = metrics.paired_change(correct, np.ones(100))
    assert change["value"] == pytest.approx(-0.1) and change["ci_low"] < -0.1 < change["ci_high"] < 0


def test_labels_are_ids_or_names(encoder, tmp_path):
    assert prediction.class_ids(encoder, ["0", "LABEL_2"]).tolist() == [0, 2]
    with pytest.raises(ValueError, match="label 'good' is no class of the model: its classes are 0, 1, 2, LABEL_0"):
        prediction.class_ids(encoder, ["good"])
    (tmp_path / "a.csv").write_text("text,label\nx,1.0\ny,\nz,v1.0\n")
    assert read_examples(tmp_path / "a.csv")[1] == ["1.0", "v1.0"]
    (tmp_path / "b.csv").write_text("text\nx\n")
    with pytest.raises(ValueError, match="no column 'label'"):
        read_examples(tmp_path / "b.csv")


@pytest.mark.parametrize(
    "names, labels, ids",
    [
        (["v1", "v1.0", "v2"], ["v2", "v1.0", "v1"], [2, 1, 0]),
        (["1", "1.0", "2"], ["1", "1.0", "2.0"], [0, 1, 2]),  # as it is written, before as what number it is
        (["0.0", "1.0", "2.0"], ["1", "0.0", "2"], [1, 0, 2]),
        (["3", "2", "1"], ["1.0", "3.0", "0"], [2, 0, 0]),  # names come before ids
        (["bad", "good"], ["1.0", "0"], [1, 0]),
        (["true", "false"], ["True", "FALSE"], [0, 1]),
        (["False", "Maybe", "True"], ["true", "False"], [2, 0]),
        (["1", "0"], ["True", "False"], [0, 1]),
        (["LABEL_0", "LABEL_1"], ["True", "False"], [1, 0]),
        (["entailment", "not_entailment"], ["True"], None),  # nothing says which of them is true
        (["0", "1", "2"], ["True"], None),
        (["1", "1.0", "2"], ["1.00"], None),
    ],
)
def test_a_label_is_what_it_says(names, labels, ids):
    model = SimpleNamespace(config=SimpleNamespace(id2label=dict(enumerate(names))))
    if ids is None:
        with pytest.raises(ValueError, match=f"label '{labels[0]}' is no class of the model: its classes are 0"):
            prediction.class_ids(model, labels)
    else:
        assert prediction.class_ids(model, labels).tolist() == ids


@pytest.mark.parametrize(
    "names, written",
    [
        (["v1", "v1.0", "v2"], ["v1", "v1.0", "v2"]),
        (["1", "2", "3"], [1.0, 2.0, 3.0]),  # whole numbers beside an empty cell
        (["false", "perhaps", "true"], [False, "perhaps", True]),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_labels_of_a_file_are_the_models_classes(names, written, suffix, encoder, tokenizer, texts, tmp_path):
    model = copy.deepcopy(encoder)
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: i for i, name in enumerate(names)}
    some = [text[:100] for text in texts[:12]]
    with torch.no_grad():  # so that each class is said of some text
        model.classifier.bias -= torch.from_numpy(prediction.logits(model, tokenizer, some)).mean(0)
    io.save(model, tokenizer, tmp_path / "m", {})
    said = prediction.classes(model, tokenizer, some)
    frame = pd.DataFrame({"text": [*some, "none"], "label": [*(written[i] for i in said), None]})
    path = tmp_path / f"a.{suffix}"
    frame.to_csv(path, index=False) if suffix == "csv" else frame.to_json(path, orient="records", lines=True)
    task = evaluate.evaluation_task(str(tmp_path / "m"), path)
    found = task.values(task.predict(*io.load(tmp_path / "m")))["accuracy"]
    assert set(said) == {0, 1, 2} and (found["value"], found["n"]) == (1.0, 12)


def test_a_list_as_label_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "x", "label": "a"}\n{"text": "y", "label": ["a", "b"]}\n')
    with pytest.raises(ValueError, match="row 2: label is a list: give one class or number a row"):
        read_examples(tmp_path / "a.jsonl")


def test_an_evaluation_reads_chats_by_the_models_template(decoder, tmp_path):
    model, tokenizer = decoder
    tokenizer = copy.deepcopy(tokenizer)
    tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }}{% endfor %}"
    io.save(model, tokenizer, tmp_path / "m", {})
    (tmp_path / "a.jsonl").write_text('{"messages": [{"role": "user", "content": "What is a group?"}]}\n')
    task = evaluate.evaluation_task(str(tmp_path / "m"), tmp_path / "a.jsonl")
    assert task.content == ["<user> What is a group?"]
    with pytest.raises(ValueError, match="the model's tokenizer has no chat template"):
        evaluate.evaluation_task(str(DATA / "mixlm"), tmp_path / "a.jsonl")


def test_costs_are_measured(decoder):
    size = costs.size(decoder[0])
    assert size == {"parameters": 3_443_136, "flops": round(flops(decoder[0], 128))}
    assert costs.peak_memory(str(DATA / "mixlm")) > 3_443_136 * 4
    speed = costs.latency(decoder[0], repeats=5)
    assert 0 < speed["q1"] <= speed["median"] <= speed["q3"] and speed["n"] == 5


def test_change_of_the_loss_agrees_with_the_two_perplexities():
    a, b = (
        np.array([[20.0, 10.0], [33.0, 11.0], [5.0, 4.0]]),
        np.array([[18.0, 10.0], [30.0, 11.0], [5.5, 4.0]]),
    )
    change = metrics.loss_change(a, b)
    ratio = metrics.perplexity(a)["value"] / metrics.perplexity(b)["value"]
    assert change["value"] == pytest.approx(math.log(ratio)) and change["ci_low"] < change["value"] < change["ci_high"]


def test_a_model_without_a_usable_head_is_refused(tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": ["BertForPreTraining"], "model_type": "bert"}')
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="'BertForPreTraining' is none that can be compressed"):
        io.load(tmp_path)
