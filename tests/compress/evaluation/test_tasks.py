"""Every task from file to figures: small random models with every head, made data, the command line."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from click.testing import CliRunner
from transformers import AutoTokenizer, BertTokenizer

import cli
from compress.algorithms.training import divergence
from compress.calibration import candidates as calibration
from compress.calibration import hidden_states, sampling
from compress.calibration.calibrate import CalibrationSet
from compress.calibration.texts import batches, cut, decode, pad, read_texts, shorten
from compress.evaluation import evaluate, prediction
from compress.evaluation.examples import read_examples
from compress.methods import methods
from compress.model import io, walk
from compress.model.config import task_of
from tests.compress.methods.test_methods import DECODERS, LARGER, OTHERS
from tests.conftest import compressed
from transmeter.util.checkpoint import bytes_of
from transmeter.util.signatures import keyword_options

NAMES = ("anna", "ben", "carla", "dan")
TOWNS = ("paris", "oslo", "rome", "lima")
PAIRS = [(a, b) for a in NAMES for b in TOWNS]
SENTENCES = [f"{a} lives in {b}, and works with {a}s friend." for a, b in PAIRS]
TABLES = {
    "text": pd.DataFrame({"text": SENTENCES}),
    "classes": pd.DataFrame({"text": SENTENCES, "label": ["LABEL_0", "LABEL_1"] * 8}),
    "pairs": pd.DataFrame({"text": SENTENCES, "text_pair": [f"{a} is here" for a, _ in PAIRS], "label": [0, 1] * 8}),
    "values": pd.DataFrame({"text": SENTENCES, "text_pair": SENTENCES[::-1], "label": np.linspace(0, 5, 16)}),
    "labels": pd.DataFrame(
        {
            "tokens": [[a, "lives", "in", b] for a, b in PAIRS],
            "labels": [["B-PER", "O", "O", "B-LOC"]] * 16,
        }
    ),
    "answers": pd.DataFrame(
        {
            "question": [f"where lives {a}" for a, _ in PAIRS],
            "context": SENTENCES,
            "answers": [{"text": [b], "answer_start": [s.index(b)]} for s, (_, b) in zip(SENTENCES, PAIRS)],
        }
    ),
}
TABLES |= {"masked": TABLES["text"], "embeddings": TABLES["text"]}
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
GPT2 = {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_inner": 24, "n_positions": 64}
FAMILIES = {
    "Bert": SMALL | {"max_position_embeddings": 64},
    "Roberta": SMALL | {"max_position_embeddings": 66, "type_vocab_size": 1},
    "DistilBert": {"dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 24, "max_position_embeddings": 64},
    "Llama": SMALL | {"max_position_embeddings": 64, "num_key_value_heads": 2},
    "GPT2": GPT2,
}
HEADS = {
    "classes": ("ForSequenceClassification", 2),
    "values": ("ForSequenceClassification", 1),
    "labels": ("ForTokenClassification", 3),
    "answers": ("ForQuestionAnswering", 2),
    "masked": ("ForMaskedLM", 2),
    "embeddings": ("Model", 2),
}
every_task = pytest.mark.parametrize("task", HEADS)


@pytest.fixture(scope="module")
def words():
    """A BERT tokenizer of the words in the made data, and of single letters."""
    pieces = sorted({w.strip(",.") for t in TABLES["answers"].question.tolist() + SENTENCES for w in t.split()})
    letters = list("abcdefghijklmnopqrstuvwxyz0123456789,.?")
    pieces = [*pieces, *letters, *("##" + x for x in letters)]
    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(pieces)]
    return BertTokenizer(vocab={word: i for i, word in enumerate(known)})


@pytest.fixture
def tokenizer_of(words, root):
    """A fresh tokenizer that suits a family."""
    known = AutoTokenizer.from_pretrained(root / "data/mixlm")
    return lambda family: known if family in ("Llama", "GPT2") else words


def build(family, task, tokenizer):
    """A random model whose logits differ from text to text."""
    head, classes = HEADS[task]
    config = getattr(transformers, f"{family}Config")(
        **FAMILIES[family],
        vocab_size=len(tokenizer),
        num_labels=classes,
        **({"id2label": {0: "O", 1: "B-PER", 2: "B-LOC"}} if task == "labels" else {}),
    )
    config.label2id = {name: i for i, name in config.id2label.items()}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = getattr(transformers, family + head)(config).eval()
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model


@pytest.fixture
def folder(tmp_path, tokenizer_of):
    """The folder of a saved random model of a family for a task."""

    def make(family, task):
        tokenizer, path = tokenizer_of(family), tmp_path / f"{family}-{task}"
        build(family, task, tokenizer).save_pretrained(path)
        tokenizer.save_pretrained(path)
        return path

    return make


@pytest.fixture
def file(tmp_path):
    """A file with the made data of a task."""

    def make(name):
        path = tmp_path / f"{name}.jsonl"
        TABLES[name].to_json(path, orient="records", lines=True)
        return path

    return make


def logits(model, batch):
    """(batch, rows, classes)."""
    with torch.no_grad():
        return walk.outputs(model, model(**batch), batch)


@every_task
@pytest.mark.parametrize("family", FAMILIES)
def test_every_head_is_compressed_saved_and_reloaded(family, task, folder, file, tmp_path):
    if task == "masked" and family in ("Llama", "GPT2"):
        pytest.skip("a decoder predicts next tokens")
    path = folder(family, task)
    model, tokenizer = io.load(path)
    assert task_of(path) == task
    data = batches(tokenizer, cut(tokenizer, read_texts(file(task)), 400, 64, seed=0), size=4)
    others = {name: options for name, options, _ in OTHERS}
    place = list(FAMILIES).index(family) + list(HEADS).index(task)
    for number, (name, method) in enumerate(methods().items()):
        if (number + place) % len(HEADS):  # every method meets every family and every task, if not all at once
            continue
        if name in DECODERS or name == "early_exit" and task in ("values", "answers", "embeddings"):
            continue  # has its own tests
            continue
        options = others.get(name, {"ratio": 0.5})
        steps = {"steps": 4} if "steps" in {option.name for option in keyword_options(method)} else {}
        small = compressed(name, model, data, **options | steps)
        assert logits(small, data[0]).shape == logits(model, data[0]).shape and logits(small, data[0]).isfinite().all()
        io.save(small, tokenizer, tmp_path / name, {})
        assert name in LARGER or bytes_of(tmp_path / name) < bytes_of(path)
        assert task_of(tmp_path / name) == task
        again = io.load(tmp_path / name)[0]
        torch.testing.assert_close(logits(again, data[0]), logits(small, data[0]), rtol=0, atol=0)


@pytest.mark.parametrize("task", [task for task in HEADS if task != "masked"])
@pytest.mark.parametrize("family", ["Bert", "Llama", "GPT2"])
def test_padding_changes_no_prediction(family, task, folder):
    model, tokenizer = io.load(folder(family, task))
    table = TABLES[task]
    inputs = {
        "labels": lambda: table.tokens.tolist(),
        "answers": lambda: list(zip(table.question, table.context)),
        "embeddings": lambda: table.text.tolist(),
    }.get(task, lambda: [(s, s + s) if i % 2 else s for i, s in enumerate(table.text)])()
    ask = getattr(prediction, task)
    together, alone = ask(model, tokenizer, inputs), [ask(model, tokenizer, [x])[0] for x in inputs]
    if task == "answers":
        assert together == alone and all(a in c for a, c in zip(together, table.context))
    else:
        np.testing.assert_allclose(np.stack(together), np.stack(alone), atol=1e-5)


@every_task
@pytest.mark.parametrize("family", ["Bert", "GPT2"])
def test_padding_changes_no_distance(family, task, folder, file):
    """What methods minimise is the same for a sequence alone and among longer ones."""
    if (family, task) == ("GPT2", "masked"):
        pytest.skip("a decoder predicts next tokens")
    model, tokenizer = io.load(folder(family, task))
    small = compressed("magnitude", model, [], ratio=0.5, unit="weights")
    sequences = cut(tokenizer, read_texts(file(task)), 100, 64, seed=0) + [cut(tokenizer, ["anna lives"], 9, 64)[0]]

    def distances(batch):
        one, other = logits(model, batch), logits(small, batch)
        return divergence(one, other, walk.row_weights(model, one, batch), 2.0)

    alone = torch.cat([distances(pad(tokenizer, [s])) for s in sequences])
    torch.testing.assert_close(distances(pad(tokenizer, sequences)), alone, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "task, metric, table",
    [
        ("classes", None, "classes"),
        ("classes", "f1", "pairs"),
        ("values", "pearson", "values"),
        ("values", None, "values"),
        ("labels", None, "labels"),
        ("labels", "macro_f1", "labels"),
        ("answers", None, "answers"),
        ("answers", "exact_match", "answers"),
    ],
)
def test_the_command_line_compresses_evaluates_and_reports(task, metric, table, folder, file, tmp_path):
    dense, data = folder("Bert", task), file(table)

    def run(*args):
        found = CliRunner().invoke(cli.main, [str(a) for a in args])
        assert found.exit_code == 0, found.output
        return found

    options = ("--calibration", data, "--tokens", 200, "--out", tmp_path / "small")
    run("compress", dense, "--method", "kprune", "--method", "wanda", *options)
    options = ("--baseline", dense, "--data", data, "--out", tmp_path / "r.json")
    options = (*options, "--format", "json", *(("--metric", metric) if metric else ()))
    found = json.loads(run("evaluate", tmp_path / "small", *options).stdout)
    name = metric or {"classes": "accuracy", "values": "spearman", "labels": "f1", "answers": "f1"}[task]
    assert found[name]["ci_low"] <= found[name]["value"] <= found[name]["ci_high"] and found[name]["n"] == 16
    change = found[f"{name}_change"]
    assert change["value"] == pytest.approx(found[name]["value"] - found["baseline"][name]["value"])
    assert change["ci_low"] <= change["value"] <= change["ci_high"]
    run("report", tmp_path / "r.json", tmp_path / "small", "--out", tmp_path / "r.html")
    page = (tmp_path / "r.html").read_text(encoding="utf-8")
    assert f"{name.replace('_', ' ').capitalize()} and size" in page and "change (95 %, paired)" in page


def test_pairs_get_the_tokenizers_own_types(words, folder):
    model, tokenizer = io.load(folder("Bert", "classes"))
    table = TABLES["pairs"]
    pairs = list(zip(table.text, table.text_pair))
    wanted = tokenizer(table.text.tolist(), table.text_pair.tolist(), padding=True, return_tensors="pt")
    made = pad(tokenizer, [tokenizer(*p)["input_ids"] for p in pairs])
    assert set(made) == set(wanted) and all(torch.equal(made[k], wanted[k]) for k in made)
    with torch.no_grad():
        expected = model(**wanted).logits.argmax(-1)
    assert prediction.classes(model, tokenizer, pairs).tolist() == expected.tolist()
    assert "token_type_ids" not in pad(tokenizer, [tokenizer(table.text[0])["input_ids"]])
    for family in ("Roberta", "DistilBert"):  # with a tokenizer that has types, which these models have not
        _, plain = io.load(folder(family, "classes"))
        assert "token_type_ids" not in pad(plain, [plain(*pairs[0])["input_ids"]])


def test_a_pair_is_cut_in_its_second_text_and_decoded_again(words):
    first, second = "where lives anna", " ".join(SENTENCES)
    sequences = cut(words, [(first, second)], 150, 32)
    assert sum(map(len, sequences)) == 150 and len(sequences) == 5
    found = [decode(words, s) for s in sequences]
    assert all(isinstance(pair, tuple) and pair[0] == first for pair in found)
    assert decode(words, cut(words, [first], 100, 32)[0]) == first
    long = cut(words, [(second, first)], 1000, 32)  # the first text leaves room for the second
    assert len(long) == 1 and len(long[0]) == 32 and decode(words, long[0])[1] == first
    assert shorten(words, second, 4).strip() == "anna lives in paris" and shorten(words, first, 99) == first


@pytest.fixture
def reader(monkeypatch):
    """Make models answer with the words of a list, as if they had understood."""

    def make(tokenizer, known, none=0.0):
        ids = {tokenizer.convert_tokens_to_ids(word) for word in known}

        def outputs(model, tokenizer, sequences, size=32):
            hits = [torch.tensor([9.0 if i in ids else 0.0 for i in s]) for s in sequences]
            for each in hits:
                each[0] = none
            return [torch.stack([each, each]) for each in hits]

        monkeypatch.setattr(prediction, "_outputs", outputs)

    return make


def test_answers_come_from_the_best_of_many_windows(words, folder, reader):
    model, tokenizer = io.load(folder("Bert", "answers"))
    filler = "Carla, works with Ben.  " * 40
    pairs = [("where lives anna", filler + "Anna lives in  PARIS."), ("where lives oslo", "in oslo"), ("x", filler)]
    reader(tokenizer, ["paris", "oslo"])
    # oslo of the question is no answer, what stands in the context is, letter by letter
    assert prediction.answers(model, tokenizer, pairs)[:2] == ["PARIS", "oslo"]
    reader(tokenizer, ["paris", "oslo"], none=4.0)
    assert prediction.answers(model, tokenizer, pairs, may_be_none=True) == ["PARIS", "oslo", ""]
    assert prediction.answers(model, tokenizer, [(filler, "in oslo " + filler)]) == ["oslo"]


def test_words_get_the_label_of_their_first_token_beyond_the_context_too(words, folder, monkeypatch):
    model, tokenizer = io.load(folder("Bert", "labels"))

    def outputs(model, tokenizer, sequences, size=32):
        return [torch.eye(len(tokenizer))[torch.tensor(s)] for s in sequences]  # the label is the token

    monkeypatch.setattr(prediction, "_outputs", outputs)
    sentences = [["paris", "xyz", "\u200b", "oslo,", "lives"] * 30, ["anna"]]
    found = prediction.labels(model, tokenizer, sentences)
    expected = [tokenizer.convert_tokens_to_ids(t) for t in ("paris", "x")] + [-1]
    expected += [tokenizer.convert_tokens_to_ids(t) for t in ("oslo", "lives")]
    assert found[0].tolist() == expected * 30 and found[1].tolist() == [tokenizer.convert_tokens_to_ids("anna")]


@every_task
def test_calibration_is_chosen_and_sampled_for_every_task(task, folder, file, tmp_path):
    model, tokenizer = io.load(folder("Bert", task))
    texts = read_texts(file(task))
    view = hidden_states.collect(model, tokenizer, "a", cut(tokenizer, texts, 90, 64))
    points = calibration.points(view)
    assert {x.shape for x in points.spaces.values()} == {(len(points.labels), 16)} and len(points.spaces) == 3
    assert all(np.isfinite(x).all() for x in points.spaces.values())
    assert (len(points.labels) == 90) == (task in ("labels", "masked", "embeddings"))
    chosen = calibration.choose({"a": view}, [], tokens=90, by="longest").states
    CalibrationSet(chosen.sequences, chosen.origins, tokenizer).save(tmp_path / "c", {"seed": 0})
    assert isinstance(read_texts(tmp_path / "c")[0], tuple) == (task in ("values", "answers"))
    sequences, card = sampling.sample(str(tmp_path / "c"), model, tokenizer, 7, 0, lambda: model)
    assert sequences == chosen.sequences and sum(map(len, sequences)) == card["tokens"]


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_examples_are_read_alike_from_every_format(suffix, tmp_path):
    def read(name, task):
        path = tmp_path / f"{name}.{suffix}"
        if suffix == "jsonl":
            TABLES[name].to_json(path, orient="records", lines=True)
        else:
            TABLES[name].to_parquet(path)
        return read_examples(path, task)

    assert read("labels", "labels") == (TABLES["labels"].tokens.tolist(), TABLES["labels"]["labels"].tolist())
    pairs, answers = read("answers", "answers")
    assert pairs[1] == ("where lives anna", SENTENCES[1]) and answers[1] == ["oslo"]
    assert read("values", "values")[1][-1] == 5.0 and read("pairs", "classes")[0][0][1] == "anna is here"


@pytest.mark.parametrize(
    "task, rows, message",
    [
        ("values", {"text": ["a", "b"], "label": [1.5, "high"]}, "label 'high' is no number"),
        ("values", {"text": ["a", "b"], "label": [2, 2]}, "every label is 2: a correlation needs different ones"),
        ("labels", {"tokens": [["a"], ["b", "c"]], "labels": [["O"], ["O"]]}, "row 2: 2 tokens, but 1 labels"),
        ("labels", {"tokens": ["a b"], "labels": ["O O"]}, "row 1: 'tokens' is not a list: give .jsonl or .parquet"),
        ("answers", {"question": ["a"], "context": ["b"]}, "no column 'answers': give a table with the columns ques"),
        ("answers", {"question": ["a"], "context": ["b"], "answers": ["b"]}, "row 1: answers is not a list of texts"),
        ("answers", {"question": [""], "context": ["b"], "answers": [["b"]]}, "no labelled text in it"),
    ],
)
def test_examples_that_are_refused(task, rows, message, tmp_path):
    pd.DataFrame(rows).to_json(tmp_path / "a.jsonl", orient="records", lines=True)
    with pytest.raises(ValueError, match=message):
        read_examples(tmp_path / "a.jsonl", task)


def test_metrics_that_a_model_cannot_give_are_refused(folder, file, root):
    bert = str(folder("Bert", "labels"))
    for args, message in (
        ((bert, None, file("labels"), "exact_match", 9), "gives no exact_match: use --metric f1 or macro_f1 or acc"),
        ((bert, str(root / "data/mixlm"), file("labels"), None, 9), "is for another task than the first model"),
        ((bert, None, file("answers"), None, 9), "has no column 'tokens'"),
    ):
        with pytest.raises(ValueError, match=message):
            model, baseline, data, metric, tokens = args
            evaluate.evaluate(model, data, baseline=baseline, metric=metric, tokens=tokens)
