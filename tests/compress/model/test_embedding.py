"""Models without a head: pooling as sentence-transformers does it, its files, and what is measured of embeddings."""

import json

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy import stats
from transformers import AutoModel, BertConfig, BertForMaskedLM, BertModel

import cli
import compress
from compress.calibration.texts import pad
from compress.evaluation import metrics, prediction
from compress.evaluation.windows import apart
from compress.export import export
from compress.model import io, walk
from compress.model.config import task_of
from compress.model.embedding import MODES, Pooling, read_pooling

TEXTS = [f"{a} {b} in the {c}" for a in ("tea", "salt", "rain") for b in ("is", "was") for c in ("inn", "den")]
MODULES = ("Transformer", "Pooling", "Normalize")
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "max_position_embeddings": 64,
}


def build(tokenizer, cls=BertModel, **settings):
    """A random model whose embeddings differ from text to text."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = cls(BertConfig(vocab_size=len(tokenizer), **SIZES), **settings).eval()
        for parameter in model.parameters():
            parameter.data += 0.2 * torch.randn_like(parameter)
    return model


def modules(path, pooling, kinds=MODULES):
    """Write what sentence-transformers writes beside a model."""
    folders = ["" if i == 0 else f"{i}_{kind}" for i, kind in enumerate(kinds)]
    listed = [
        {"idx": i, "path": f, "type": f"sentence_transformers.models.{k}"}
        for i, (f, k) in enumerate(zip(folders, kinds))
    ]
    for folder in folders[1:]:
        (path / folder).mkdir()
    (path / "1_Pooling/config.json").write_text(json.dumps({"word_embedding_dimension": 16, **pooling}))
    (path / "modules.json").write_text(json.dumps(listed))
    (path / "sentence_bert_config.json").write_text('{"max_seq_length": 32, "do_lower_case": false}')
    (path / "config_sentence_transformers.json").write_text('{"prompts": {}}')
    return path


@pytest.fixture
def plain(tmp_path, letters):
    """The folder of a model without a head, and nothing beside it."""
    path = tmp_path / "plain"
    build(letters).save_pretrained(path)
    letters.save_pretrained(path)
    return path


@pytest.fixture
def folder(plain):
    """The same with the files of sentence-transformers: mean, normalized."""
    return modules(plain, {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False})


def run(*args):
    found = CliRunner().invoke(cli.main, [str(a) for a in args])
    assert found.exit_code == 0, found.output
    return found


def of_one(mode, rows):
    """The embedding of a text by the states (tokens, width) of its tokens, written down once more."""
    places = torch.arange(1.0, len(rows) + 1)[:, None]
    return {
        "cls": rows[0],
        "lasttoken": rows[-1],
        "max": rows.max(0).values,
        "mean": rows.mean(0),
        "mean_sqrt_len_tokens": rows.sum(0) / len(rows) ** 0.5,
        "weightedmean": (rows * places).sum(0) / places.sum(),
    }[mode]


@pytest.mark.parametrize("side", ["right", "left"])
def test_every_pooling_is_that_of_the_real_tokens(side):
    states, lengths = torch.randn(3, 6, 4, generator=torch.Generator().manual_seed(0)), [6, 4, 1]
    real = [slice(0, n) if side == "right" else slice(6 - n, 6) for n in lengths]
    mask = torch.zeros(3, 6, dtype=torch.long)
    for row, place in enumerate(real):
        mask[row, place] = 1
    expected = {mode: torch.stack([of_one(mode, states[i, p]) for i, p in enumerate(real)]) for mode in MODES}
    for mode in MODES:
        torch.testing.assert_close(Pooling((mode,)).embed(states, mask), expected[mode])
    both = Pooling(("cls", "mean"), normalize=True).embed(states, mask)
    torch.testing.assert_close(both, torch.nn.functional.normalize(torch.cat([expected["cls"], expected["mean"]], 1)))


@pytest.mark.parametrize(
    "settings, kinds, expected",
    [
        ({"pooling_mode_cls_token": True}, MODULES, (("cls",), True, ())),
        ({"pooling_mode": "lasttoken"}, MODULES[:2], (("lasttoken",), False, ())),
        ({"pooling_mode": ["max", "mean"]}, (*MODULES[:2], "Dense"), (("max", "mean"), False, ("Dense",))),
        ({}, MODULES[:2], (("mean",), False, ())),
    ],
)
def test_the_pooling_is_what_the_folder_says(settings, kinds, expected, plain):
    assert read_pooling("m", plain) == Pooling() and "no modules.json" in Pooling().about()
    found = read_pooling("m", modules(plain, settings, kinds))
    assert (found.modes, found.normalize, found.others) == expected
    assert (found.length, found.file) == (32, "1_Pooling/config.json") and found.file in found.about()


@pytest.mark.parametrize(
    "name, text, message",
    [
        ("1_Pooling/config.json", '{"pooling_mode": "median"}', "asks for the pooling 'median': give one of cls, max"),
        ("modules.json", '[{"type": "x.Pooling", "path": "../elsewhere"}]', "holds no list of modules in it"),
        ("modules.json", '{"type": "x.Pooling"}', "holds no list of modules in it"),
        ("modules.json", "[", "modules.json cannot be read as JSON"),
    ],
)
def test_broken_files_are_refused(name, text, message, folder):
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match=message):
        io.skeleton(folder)


def test_methods_see_the_embedding(folder, letters):
    model, tokenizer = io.load(folder)
    batch = pad(tokenizer, [tokenizer(text)["input_ids"] for text in TEXTS[:3]])
    with torch.no_grad():
        states = AutoModel.from_pretrained(folder)(**batch).last_hidden_state
        found = walk.outputs(model, model(**batch), batch)
    expected = [
        torch.nn.functional.normalize(of_one("mean", s[m.bool()]), dim=0)
        for s, m in zip(states, batch["attention_mask"])
    ]
    torch.testing.assert_close(found, 4 * torch.stack(expected)[:, :, None])  # 16 numbers, whose mean square is 1
    assert walk.row_weights(model, torch.zeros(3, batch["input_ids"].shape[1], 1), batch).all()  # not taken for tokens
    own = prediction.embeddings(model, tokenizer, TEXTS[:3])
    np.testing.assert_allclose(own, found[:, :, 0].numpy(), rtol=1e-5, atol=1e-6)


def test_what_lies_beside_a_model_is_carried_along(folder, tmp_path):
    (folder / "1_Pooling/weights.bin").write_bytes(b"\x80never opened")
    texts = tmp_path / "texts.txt"
    texts.write_text("\n\n".join(TEXTS))
    out, onnx = tmp_path / "small", tmp_path / "onnx"
    options = ("--method", "kprune", "--set", "ratio=0.4", "--calibration", texts, "--tokens", 150, "--data", texts)
    said = run("compress", folder, *options, "--out", out).output
    assert "embedding: the mean over the tokens, normalized, as 1_Pooling/config.json says" in said
    names = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and "model." not in p.name]
    beside = [n for n in names if "/" in n or n.startswith(("modules", "sentence_", "config_s"))]
    assert len(beside) == 5 and all((out / n).read_bytes() == (folder / n).read_bytes() for n in beside)
    card = json.loads((out / "compression.json").read_text())
    assert card["before"]["similarity_spearman"]["value"] == pytest.approx(1) and card["embedding"]["file"]
    assert 0 < card["steps"][0]["after"]["similarity_spearman"]["value"] < 1
    assert 'SentenceTransformer(".", trust_remote_code=True)' in (out / "README.md").read_text()
    assert task_of(out) == "embeddings" and io.load(out)[0].pooling == io.load(folder)[0].pooling
    export(str(out), "onnx", onnx)
    with pytest.raises(ValueError, match="has no head, gguf is for decoders"):
        export(str(out), "gguf", tmp_path / "gguf")
    assert all((onnx / n).exists() for n in beside)


def test_a_head_that_the_config_names_does_not_count_beside_a_pooling(letters, tmp_path):
    """As all-mpnet-base-v2: the config is of masked tokens, the files hold the base alone, without a pooler."""
    path = tmp_path / "m"
    build(letters, add_pooling_layer=False).save_pretrained(path)
    letters.save_pretrained(path)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"architectures": ["BertForMaskedLM"]}))
    with pytest.raises(ValueError, match="lacks .* weights"):
        io.load(path)
    modules(path, {"pooling_mode_cls_token": True})
    model, tokenizer = io.load(path)
    assert type(model) is BertModel and model.pooler is None and task_of(path) == "embeddings"
    small = compress.compress((model, tokenizer), "round_to_nearest", options={"bits": 8, "group": 8})
    compress.save(small, tokenizer, tmp_path / "small")
    again = io.load(tmp_path / "small")[0]
    assert again.pooler is None and not any("pooler" in name for name in again.state_dict())


def test_embeddings_are_compared_with_those_of_a_baseline(folder, tmp_path, letters):
    texts, out = tmp_path / "texts.txt", tmp_path / "small"
    texts.write_text("\n\n".join([*TEXTS, TEXTS[0]]))
    small = compress.compress(folder, "magnitude", ratio=0.3, options={"unit": "weights"}, calibration=TEXTS)
    compress.save(small, letters, out)
    found = json.loads(run("evaluate", out, "--baseline", folder, "--data", texts, "--json").output)
    own, other = (prediction.embeddings(*io.load(path), TEXTS) for path in (out, folder))
    cosines = [
        [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for i, a in enumerate(e) for b in e[:i]] for e in (own, other)
    ]
    assert found["similarity_spearman"]["value"] == pytest.approx(stats.spearmanr(*cosines).statistic, abs=1e-9)
    each = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(own, other)]
    assert found["cosine"]["value"] == pytest.approx(np.mean(each)) and found["cosine"]["n"] == len(TEXTS)
    assert found["baseline"]["cosine"]["value"] == pytest.approx(1) and "1_Pooling" in found["pooling"]
    shown = run("evaluate", out, "--baseline", folder, "--data", texts, "--metric", "cosine").output
    assert "cosine (95 %)" in shown and "pooling: the mean over the tokens" in shown


def test_every_model_embeds_the_texts_once(folder, tmp_path, monkeypatch):
    texts, out, other = tmp_path / "texts.txt", tmp_path / "small", tmp_path / "smaller"
    texts.write_text("\n\n".join(TEXTS))
    embed, calls = prediction.embeddings, []
    monkeypatch.setattr(prediction, "embeddings", lambda *given: calls.append(1) or embed(*given))
    run("compress", folder, "--method", "round_to_nearest", "--set", "group=8", "--data", texts, "--out", out)
    assert len(calls) == 2  # before and after
    compress.save(*io.load(folder), other)
    compress.evaluate([out, other], texts, baseline=folder)
    assert len(calls) == 2 + 3


def test_embeddings_without_a_baseline_or_texts_are_refused(folder, tmp_path):
    few = tmp_path / "few.txt"
    few.write_text("tea is in\n\nsalt was in")
    with pytest.raises(ValueError, match="has no head, so that only how near .*: give --baseline"):
        compress.evaluate(folder, few)
    with pytest.raises(ValueError, match="holds 2 different texts: give at least 10"):
        compress.evaluate(folder, few, baseline=folder)
    with pytest.raises(ValueError, match="lowest_perplexity asks for predictions, .* has no head"):
        compress.calibrate(folder, few, by="lowest_perplexity")


def test_pairs_drawn_several_times_have_the_ranks_of_their_copies():
    rng = np.random.default_rng(0)
    own = rng.integers(0, 5, 40)
    other, weights = own + rng.integers(0, 4, 40), rng.integers(0, 3, 40)
    places = [np.unique(x, return_inverse=True)[1] for x in (own, other)]
    expected = stats.spearmanr(np.repeat(own, weights), np.repeat(other, weights)).statistic
    assert metrics._spearman(*places, weights) == pytest.approx(expected, abs=1e-12)


def test_the_interval_of_the_similarity_covers_that_of_all_texts():
    rng = np.random.default_rng(0)
    base = rng.normal(size=(800, 6))
    other = base + rng.normal(size=base.shape)
    first, second = np.triu_indices(800, 1)
    truth = stats.spearmanr(metrics._cosines(base)[first, second], metrics._cosines(other)[first, second]).statistic
    drawn = [metrics.similarity(other[i : i + 40], base[i : i + 40]) for i in range(0, 800, 40)]
    covered = sum(e["ci_low"] <= truth <= e["ci_high"] for e in drawn)
    assert covered >= 16 and all(e["n"] == 40 and e["ci_high"] - e["ci_low"] < 0.4 for e in drawn)


def test_a_student_of_another_width_is_refused(folder, letters, tmp_path):
    wide = tmp_path / "wide"
    BertModel(BertConfig(vocab_size=len(letters), **SIZES | {"hidden_size": 32})).save_pretrained(wide)
    letters.save_pretrained(wide)
    with pytest.raises(ValueError, match="gives embeddings of 32 numbers, the teacher's have 16: give one of the same"):
        compress.compress(folder, "distil", options={"student": str(wide), "steps": 1}, calibration=TEXTS, tokens=100)


def test_masked_tokens_are_predicted_and_tied_heads_stay_tied(letters, tmp_path):
    path, out, texts = tmp_path / "m", tmp_path / "small", tmp_path / "texts.txt"
    model = build(letters, BertForMaskedLM)
    model.tie_weights()
    model.save_pretrained(path)
    letters.save_pretrained(path)
    texts.write_text("\n\n".join(TEXTS))
    options = ("--method", "kprune", "--set", "ratio=0.4", "--method", "gptq", "--set", "embeddings=true")
    run(
        "compress",
        path,
        *options,
        "--set",
        "head=true",
        "--set",
        "group=none",
        "--calibration",
        texts,
        "--tokens",
        150,
        "--out",
        out,
    )
    small = io.load(out)[0]
    head = small.cls.predictions.decoder.packed
    assert head.codes is small.bert.embeddings.word_embeddings.packed.codes
    found = json.loads(run("evaluate", out, "--baseline", path, "--data", texts, "--json").output)
    again = json.loads(run("evaluate", out, "--baseline", path, "--data", texts, "--json").output)
    assert found["masked_perplexity"] == again["masked_perplexity"] and (found["masked"], found["mask_seed"]) == (
        0.15,
        0,
    )
    change = found["loss_change_nats"]["value"]
    dense = found["baseline"]["masked_perplexity"]
    assert change == pytest.approx(np.log(found["masked_perplexity"]["value"] / dense["value"]))
    assert found["kl_divergence_nats"]["value"] > 0 and dense["n"] == found["masked_accuracy"]["n"]
    assert "15% masked, seed 0" in run("evaluate", path, "--data", texts).output


def test_the_loss_of_masked_tokens_is_that_of_transformers(letters):
    model, windows, seen = build(letters, BertForMaskedLM), apart(letters, TEXTS, 1000, 32), []
    hook = model.register_forward_pre_hook(lambda module, args, given: seen.append(given), with_kwargs=True)
    found = prediction.masked_losses(model, letters, windows, 0.15, 3)
    hook.remove()
    whole = pad(letters, [window.ids for window in sorted(windows, key=lambda window: -len(window.ids))])["input_ids"]
    hidden = seen[0]["input_ids"] != whole
    assert (seen[0]["input_ids"][hidden] == letters.mask_token_id).all() and (whole[hidden] > 4).all()
    assert found[:, 1].tolist() == [max(1, round(0.15 * (len(ids[ids > 0]) - 2))) for ids in whole]
    with torch.no_grad():
        output = model(**seen[0], labels=whole.masked_fill(~hidden, -100))
    assert found[:, 0].sum() / found[:, 1].sum() == pytest.approx(float(output.loss), rel=1e-5)
    assert found[:, -1].sum() == ((output.logits.argmax(-1) == whole) & hidden).sum()
