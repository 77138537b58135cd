"""Texts as features: which columns are text, TF-IDF with SVD, mean states of an encoder."""

import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file, save_file
from sklearn.linear_model import LogisticRegression
from transformers import AutoModel, AutoTokenizer

from compress.calibration.texts import read_texts
from transmeter import ranking
from transmeter.tables import data
from transmeter.tables.text import embed, featurise, is_text

SHORT = ["Add two and three.", "", "def area(r): return 3.14 * r * r", "a " * 300]


def make(name, kinds, root, rows=60):
    """Texts of two kinds with their kind as label, and a plain column."""
    parts = [read_texts(root / f"data/text/{k}.txt")[:rows] for k in kinds]
    texts = [t[:300] for pair in zip(*parts) for t in pair]
    frame = pd.DataFrame({"n": np.arange(len(texts)), "body": texts})
    return data.table(name, frame, np.array(kinds * (len(texts) // 2), dtype=object))


@pytest.mark.parametrize(
    "values, expected",
    [
        (["a b c", "d e f", "g h i", None], True),
        (["a b c", "a b c", "a b c", "d e f", "d e f"], False),
        (["ab", "cd", "ef", "gh"], False),
        ([1.0, 2.0, 3.0, 4.0], False),
        ([None, None, "a b c d"], False),
    ],
)
def test_what_a_text_column_is(values, expected):
    assert is_text(pd.Series(values)) == expected


def test_texts_of_all_tables_become_the_same_columns(root):
    a, b = make("a", ["code", "math"], root), make("b", ["math", "code"], root)
    b = replace(b, features=b.features.rename(columns={"body": "story"}), keys=np.arange(len(b)).astype(str))
    plain = data.table("c", pd.DataFrame({"x": range(4)}), np.array([0, 1, 0, 1]))
    before = a.features.copy()
    found = featurise([a, b, plain])
    assert found[2] is plain and list(found[1].keys) == list(b.keys)
    assert found[0].columns == found[1].columns == ["n", *(f"text dimension {i}" for i in range(64))]
    pd.testing.assert_frame_equal(a.features, before)
    pd.testing.assert_frame_equal(found[0].features, featurise([a, b, plain])[0].features)
    x = [t.features.drop(columns="n").to_numpy() for t in found[:2]]
    fitted = LogisticRegression(max_iter=500).fit(x[0][:80], found[0].labels[:80])
    assert fitted.score(x[1][80:], found[1].labels[80:]) > 0.9  # what one table says holds in the other


def test_a_column_that_texts_would_cover_is_refused():
    frame = pd.DataFrame({"a": ["one two three", "four five six"], "text dimension 0": [1, 2]})
    with pytest.raises(ValueError, match="rename that"):
        featurise([data.table("t", frame, np.array([0, 1]))])


def test_few_short_texts_and_several_text_columns():
    frame = pd.DataFrame({"a": ["one two three", "four five six"], "b": ["x y z", "x z y"]})
    found = featurise([data.table("t", frame, np.array([0, 1]))])[0]
    values = found.features["text dimension 0"]  # of two texts of unit length both have the same share of it
    assert found.columns == ["text dimension 0"]
    assert values[0] == pytest.approx(values[1], abs=1e-5) and 0.7 < values[0] < 1


def test_an_encoder_gives_mean_states_whatever_the_company(root, tmp_path):
    model, folder = AutoModel.from_pretrained(root / "data/mixlm", dtype=torch.float32), root / "data/mixlm"
    found = embed(SHORT, folder, tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for text, state in zip(SHORT, found):
        ids = tokenizer(text, truncation=True, max_length=128, return_tensors="pt")["input_ids"]
        if text:
            with torch.no_grad():
                np.testing.assert_allclose(state, model(ids).last_hidden_state[0].mean(0), atol=2e-5)
    assert not found[1].any()


def test_states_are_computed_once(root, tmp_path, monkeypatch):
    first = embed(SHORT, root / "data/mixlm", tmp_path)
    (file,) = tmp_path.iterdir()
    monkeypatch.setattr("transmeter.tables.text._states", None)
    np.testing.assert_array_equal(first, embed(SHORT, root / "data/mixlm", tmp_path))
    file.write_bytes(b"broken")
    with pytest.raises(ValueError, match="holds no states of texts: delete it"):
        embed(SHORT, root / "data/mixlm", tmp_path)


def test_encoders_that_are_refused(root, tmp_path):
    for encoder, message in (
        ("nobody/nothing", "neither a model folder nor a hub name that can be reached from here: give a folder"),
        (tmp_path, "has no config.json"),
    ):
        with pytest.raises(ValueError, match=message):
            embed(["a"], encoder)
    (tmp_path / "config.json").write_text("{}")
    save_file({"x": np.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match="cannot be loaded") as error:
        embed(["a"], tmp_path)
    assert "\n" not in str(error.value)


def test_an_encoder_that_lacks_weights_is_refused(root, tmp_path):
    """transformers would fill what is missing with random numbers."""
    folder = shutil.copytree(root / "data/mixlm", tmp_path / "m")
    tensors = load_file(folder / "model.safetensors")
    del tensors["model.layers.2.mlp.up_proj.weight"]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        ValueError, match=r"lacks 1 of 56 weights that its config asks for \(layers.2.mlp.up_proj.weight\)"
    ):
        embed(["a"], folder)


@pytest.mark.parametrize("encoder", [None, "data/mixlm"])
def test_texts_are_ranked(root, tmp_path, encoder):
    tables = [make("same", ["code", "math"], root), make("other", ["drama", "novels"], root)]
    target = make("target", ["math", "code"], root)
    target = target.take(np.arange(60, 120))
    sources = [tables[0].take(np.arange(60)), tables[1]]
    found = ranking.rank(target, sources, shots=3, repeats=4, cache=tmp_path, encoder=encoder and root / encoder)
    assert found.rows[0].source == "same" and found.rows[0].gain_pp > 0
    assert {m["target"] for m in found.rows[0].matches} >= {"n", "text dimension 0"}
    assert (tmp_path / "texts").exists() == bool(encoder)
