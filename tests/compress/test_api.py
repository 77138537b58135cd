"""`compress.compress` from Python: the model that the command line would write, and what is refused."""

import copy

import pandas as pd
import pytest
import torch
from transformers import GPT2Config, GPT2DoubleHeadsModel

import compress
from compress import pipeline
from compress.model.storage import stored_bytes


@pytest.fixture(scope="module")
def folder(root):
    """The real small Llama's folder."""
    return root / "data/mixlm"


def same(model, other):
    """Whether two models have equal weights."""
    one, two = model.state_dict(), other.state_dict()
    return one.keys() == two.keys() and all(torch.equal(one[k], two[k]) for k in one)


def test_it_is_the_model_that_a_job_writes(folder, root, tmp_path):
    math = str(root / "data/text/math.txt")
    found = compress.compress(folder, "wanda", options={"pattern": "2:4"}, calibration=math, tokens=300)
    compress.save(found, compress.load(folder)[1], tmp_path / "api")
    pipeline.run(str(folder), [pipeline.Step("wanda", {"pattern": "2:4"})], math, tmp_path / "job", tokens=300)
    assert same(compress.load(tmp_path / "api")[0], compress.load(tmp_path / "job")[0])


def test_a_model_at_hand_stays_as_it_is(encoder, tokenizer, texts):
    before = {k: v.clone() for k, v in encoder.state_dict().items()}
    found = compress.compress((encoder, tokenizer), ratio=0.5, multiple=4, calibration=texts, tokens=200)
    assert all(torch.equal(v, before[k]) for k, v in encoder.state_dict().items())
    assert stored_bytes(found) < stored_bytes(encoder)


def test_texts_in_a_list_are_those_of_a_file(encoder, tokenizer, texts, tmp_path):
    pd.Series(texts[:40], name="text").to_frame().to_parquet(tmp_path / "t.parquet")
    by_list, by_file = (
        compress.compress((encoder, tokenizer), "gptq", options={"group": 16}, calibration=given, tokens=200)
        for given in (texts[:40], str(tmp_path / "t.parquet"))
    )
    assert same(by_list, by_file)


@pytest.mark.parametrize(
    "method, options, dtype",
    [  # every method and every type, weights, books and steps of grids in both half types
        ("kprune", {"ratio": 0.4}, torch.float16),
        ("svd", {"ratio": 0.5}, torch.bfloat16),
        ("kmeans", {"bits": 5}, torch.float16),
        ("kmeans", {"bits": 5}, torch.bfloat16),
        ("smoothquant", {}, torch.float16),
        ("smoothquant", {}, torch.bfloat16),
        ("svd", {"ratio": 0.5}, torch.float32),
    ],
)
def test_it_gives_what_the_saved_file_gives(method, options, dtype, two_blocks, tokenizer, tmp_path):
    model = copy.deepcopy(two_blocks)
    model.config.dtype = dtype
    compress.save(model, tokenizer, tmp_path / "given")
    found = compress.compress(tmp_path / "given", method, options=options, calibration=["Two or three texts."] * 40)
    compress.save(found, tokenizer, tmp_path / "m")
    again = compress.load(tmp_path / "m")[0]
    ids = torch.arange(40).view(2, 20)
    with torch.no_grad():
        one, two = (m(input_ids=ids).logits for m in (found, again))
    assert torch.equal(one, two) and one.dtype == torch.float32 and again.config.dtype == dtype
    if method in ("kprune", "svd"):
        assert same(found, again)


@pytest.mark.parametrize(
    "given, message",
    [
        ({"method": "kprun"}, "method 'kprun' is unknown, did you mean 'kprune'?"),
        ({"ratio": 1.5}, "ratio 1.5 is not a share to remove"),
        ({"ratio": 0.5, "bytes": 9}, "are both given"),
        ({"method": "gptq", "ratio": 0.5}, "option 'ratio' is unknown to gptq"),
        ({"options": {"ridg": 1}}, "option 'ridg' is unknown to kprune, did you mean 'ridge'?"),
        ({"options": {"seed": 1}}, "option 'seed' is unknown to kprune"),
        ({"calibration": None}, "kprune looks at calibration texts"),
        ({"calibration": "none.txt"}, "none.txt does not exist"),
        ({"calibration": []}, "calibration holds no text of two tokens"),
        ({"model": "no/model"}, "neither a model folder nor a hub name"),
        ({"model": 5}, "model is 5: give a folder, a hub name, or (model, tokenizer) of transformers"),
        ({"model": (1, 2)}, "the model is a int: give a model of transformers, as compress.load does"),
        ({"method": 3}, "method 3 is unknown: give one of"),
        ({"ratio": "0.5"}, "option ratio of kprune is '0.5': give a number or None"),
        ({"multiple": 1.5}, "option multiple of kprune is 1.5: give a whole number"),
        ({"options": 5}, "options is 5: give a dict of names and values"),
        ({"options": {"knowledge": "all"}}, "option knowledge of kprune is 'all': give one of 'curvature', 'gradient'"),
        ({"tokens": "many"}, "tokens is 'many': give a whole number of at least 1"),
        ({"batch_size": 0}, "batch_size is 0: give a whole number of at least 1"),
        ({"seed": None}, "seed is None: give a whole number from 0 to 2147483647"),
        ({"device": 1.5}, "device 1.5 is not here: give cpu, auto, or cuda"),
        ({"calibration": 5}, "calibration is a int: give a path, or a list of texts and pairs of texts"),
        ({"calibration": ["a", 3]}, "calibration holds 3 as text 2: give a path, or a list of texts"),
        ({"calibration": pd.Series(["a b"])}, "calibration is a Series: give a path, or a list of texts"),
    ],
)
def test_what_cannot_be_done_is_refused(given, message, folder):
    with pytest.raises(ValueError) as found:
        compress.compress(**{"model": folder, "calibration": ["Two texts."], **given})
    assert message in str(found.value) and "\n" not in str(found.value)


def test_loading_and_saving_refuse_what_they_cannot_take(encoder, tokenizer, folder, tmp_path):
    cases = (
        (lambda: compress.load(5), "source is 5: give a path, a text or a pathlib.Path"),
        (lambda: compress.load(folder, dtype="float16"), "dtype is 'float16': give a type of torch, such as"),
        (lambda: compress.save(encoder, None, tmp_path / "m"), "the tokenizer is a NoneType: give the model's tokeni"),
        (lambda: compress.save(str(folder), tokenizer, tmp_path / "m"), "the model is a str: give a model of transf"),
        (lambda: compress.save(encoder, tokenizer, 5), "out is 5: give a path, a text or a pathlib.Path"),
        (lambda: compress.save(encoder, tokenizer, tmp_path / "m", 5), "card is 5: give a dict of what is to stand"),
        (lambda: compress.save(encoder, tokenizer, tmp_path / "m", push_to_hub=5), "push_to_hub is 5: give a name"),
    )
    for call, message in cases:
        with pytest.raises(ValueError) as found:
            call()
        assert message in str(found.value) and "\n" not in str(found.value)
    assert not list(tmp_path.iterdir())


def test_a_model_of_several_heads_is_refused(tokenizer):
    model = GPT2DoubleHeadsModel(GPT2Config(vocab_size=len(tokenizer), n_embd=8, n_layer=1, n_head=2))
    with pytest.raises(ValueError, match="architecture 'GPT2DoubleHeadsModel' is none that can be compressed"):
        compress.compress((model, tokenizer), "round_to_nearest")


def test_a_decoder_without_its_head_gives_embeddings(decoder):
    small = compress.compress((decoder[0].model, decoder[1]), "round_to_nearest", options={"group": None})
    assert small.compression["embedding"] == {
        "pooling": "the mean over the tokens, as the folder has no modules.json",
        "file": "",
    }
