"""The model card: what the Hub reads, what a reader is told, and nothing that compression.json does not say."""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

import compress
from cli import main
from compress import hub
from compress.model import io
from compress.report import card
from tests.conftest import DATA

MODEL, MATH = str(DATA / "mixlm"), str(DATA / "text/math_sample.txt")
STEPS = ("--method", "wanda", "--set", "pattern=2:4", "--method", "round_to_nearest", "--set", "symmetric=true")
OWN = """---
license: apache-2.0
language: [en, fr]
base_model: someone/great-model
---
# Mine

```sh
rm -rf everything
```
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """The small Llama with a card of its own."""
    folder = tmp_path_factory.mktemp("base") / "mixlm"
    shutil.copytree(MODEL, folder)
    (folder / "README.md").write_text(OWN)
    return folder


@pytest.fixture(scope="module")
def exam(base):
    """A few texts, in a file with a name that is hard on Markdown."""
    file = base.parent / "exam|[x](y).txt"
    file.write_text("\n\n".join(Path(MATH).read_text().split("\n\n")[:4]))
    return file


@pytest.fixture(scope="module")
def made(base, exam):
    """A folder of compress with two steps, measured."""
    out = base.parent / "small"
    run("compress", base, *STEPS, "--calibration", MATH, "--tokens", 300, "--data", exam, "--out", out)
    return out


def run(*args):
    """Run a command that succeeds."""
    found = CliRunner().invoke(main, [str(a) for a in args])
    assert found.exit_code == 0, found.output
    return found


def test_the_front_matter_is_what_the_hub_reads(made):
    record = json.loads((made / "compression.json").read_text())
    text = (made / "README.md").read_text()
    read = ModelCard(text)
    assert read.data.to_dict() == yaml.safe_load(text.split("---\n")[1])
    assert read.data.base_model == ["someone/great-model"] and read.data["base_model_relation"] == "quantized"
    assert read.data.license == "apache-2.0" and read.data.language == ["en", "fr"]
    assert read.data.datasets == ["math_sample"] and read.data.metrics == ["perplexity"]
    assert read.data.library_name == "transformers" and read.data.pipeline_tag == "text-generation"
    assert {"wanda", "round_to_nearest"} <= set(read.data.tags)
    (result,), last = read.data.eval_results, record["steps"][-1]["after"]["perplexity"]
    assert (result.metric_type, result.metric_value) == ("perplexity", last["value"])
    assert result.metric_args == {"ci_95": [last["ci_low"], last["ci_high"]], "n": last["n"]}
    assert (result.dataset_type, result.dataset_name) == ("exam-x-y", "exam|[x](y)")


def test_the_body_says_what_was_done_and_what_is_not_known(made, base):
    text = (made / "README.md").read_text()
    sections = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert sections[:6] == ["What was done", "Sizes", "Quality", "Calibration data", "How to load it", "Limits"]
    record = json.loads((made / "compression.json").read_text())
    last = record["steps"][-1]["after"]
    for part in (
        "`pattern=2:4`",
        f"{last['bytes']:,}",
        f"| {last['perplexity']['n']} |",
        record["calibration"]["sha256"],
        record["exam"]["sha256"],
        "300 tokens, seed 0",
        "AutoModelForCausalLM.from_pretrained(path, trust_remote_code=True)",
        "Languages, by the base model's card: en, fr.",
        "[someone/great-model](https://huggingface.co/someone/great-model)",
    ):
        assert part in text, part
    assert OWN.strip() in text and "licence of the base model is not known" not in text
    assert "quality is not known" not in text


def test_the_card_is_made_of_the_folder_alone(made):
    before = (made / "README.md").read_text()
    (made / "README.md").unlink()
    card.write_card(made)
    assert (made / "README.md").read_text() == before


def test_the_command_in_it_makes_the_same_model(made, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (again,) = card.commands(json.loads((made / "compression.json").read_text()))
    assert again in (made / "README.md").read_text()
    words = shlex.split(again)
    run(*words[1:])
    one, other = (io.load(folder)[0].state_dict() for folder in (made, tmp_path / words[-1]))
    assert one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


def test_a_plain_base_has_no_licence_and_no_name_on_the_hub(tmp_path):
    run("compress", MODEL, "--method", "round_to_nearest", "--out", tmp_path / "m")
    text = (tmp_path / "m/README.md").read_text()
    data = ModelCard(text).data.to_dict()
    assert not {"license", "base_model", "base_model_relation", "datasets", "metrics", "model-index"} & set(data)
    for part in ("licence of the base model is not known", "base model is a local one", "it was not measured"):
        assert part in text


def test_what_is_exported_has_the_card_of_what_it_was_made_of(made, tmp_path):
    run("export", made, "--format", "compressed-tensors", "--out", tmp_path / "e")
    text, record = (tmp_path / "e/README.md").read_text(), json.loads((tmp_path / "e/export.json").read_text())
    data = ModelCard(text).data
    assert data.license == "apache-2.0" and "compressed-tensors" in data.tags and data.eval_results is None
    assert "Quality was measured before the model was written in this format" in text
    assert "trust_remote_code" not in text and f"{record['bytes']:,}" in text
    assert "transmeter export mixlm-wanda-round_to_nearest --format compressed-tensors" in text


def test_a_name_on_the_hub_is_the_base_model(monkeypatch, tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")
    monkeypatch.setattr(hub, "_download", lambda name: tmp_path / "README.md")
    assert hub.about_base("someone/model") == {"base_model": ["someone/model"], "license": "mit"}
    monkeypatch.setattr(hub, "_download", lambda name: None)
    assert hub.about_base("someone/model") == {"base_model": ["someone/model"]}
    assert hub.about_base(tmp_path / "gone") == {}


@pytest.mark.parametrize("front", ["license: {a: 1}", "license: [1]", "base_model: '/home/me/x'", "", "- a list", "{"])
def test_a_card_that_is_not_sound_is_quoted_and_gives_nothing(front, tmp_path, recwarn):
    (tmp_path / "README.md").write_text(f"---\n{front}\n---\ntext")
    assert set(hub.about_base(tmp_path)) == {"card"}
    told = [str(w.message) for w in recwarn if "cannot be read as YAML" in str(w.message)]
    assert len(told) == (front in ("- a list", "{"))


def test_from_python_the_model_carries_what_was_done(decoder, texts, tmp_path):
    first = compress.compress(MODEL, "wanda", options={"pattern": "2:4"}, calibration=texts[:40], tokens=200)
    second = compress.compress((first, decoder[1]), "gptq", calibration=MATH, tokens=250)
    compress.save(second, decoder[1], tmp_path / "m")
    record = json.loads((tmp_path / "m/compression.json").read_text())
    assert [s["method"] for s in record["steps"]] == ["wanda", "gptq"] and record["base_model"] == MODEL
    assert [p["tokens"] for p in record["calibration"]["parts"]] == [200, 250]
    text = (tmp_path / "m/README.md").read_text()
    assert "The same once more" not in text and "texts given in Python" in text
    assert ModelCard(text).data.datasets == ["math_sample"]
    assert [s["method"] for s in first.compression["steps"]] == ["wanda"]


NAMES = st.text(min_size=1, max_size=20) | st.text("`|*_[]()<>#!\\\n- a~$&;:/", min_size=1, max_size=12)


@settings(max_examples=60, deadline=None)
@given(base=NAMES, texts=NAMES, exam=NAMES, option=NAMES, quoted=NAMES, licence=NAMES, tokens=st.integers(1, 9))
def test_foreign_names_mean_nothing_in_it(base, texts, exam, option, quoted, licence, tokens):
    value = {"value": 1.5, "ci_low": 1.0, "ci_high": 2.0, "n": 9, "interval": "t"}
    sizes = {"bytes": 10, "parameters": 3, "flops": None, "perplexity": value}
    record = {
        "base_model": base,
        "base": {"card": quoted, "license": licence},
        "before": sizes,
        "steps": [{"method": "kprune", "options": {"knowledge": option}, "seconds": 1.0, "after": sizes}],
        "calibration": {"texts": texts, "tokens": tokens, "seed": 0},
        "exam": {"data": exam, "metric": "perplexity"},
        "arguments": {"calibration": texts, "tokens": tokens},
    }
    text = card.render(record, {"architectures": ["LlamaForCausalLM"]})
    read = ModelCard(text)
    assert read.data.license == licence and len(read.data.eval_results) == 1
    tokens_of = MarkdownIt("commonmark").enable("table").parse(read.text)
    kinds = [t.type for t in tokens_of]
    inline = [c for t in tokens_of for c in t.children or ()]
    assert "html_block" not in kinds
    assert kinds.count("heading_open") == 8 and kinds.count("table_open") == 3 and kinds.count("fence") == 4
    assert not {c.type for c in inline} & {"link_open", "image", "html_inline", "em_open", "strong_open"}
    shown = [c.content for c in inline if c.type == "code_inline"]
    for foreign in (base, texts, exam):
        assert card.plain(foreign) in [s.strip() for s in shown] or not card.plain(foreign).strip()
