"""Files of calibration data for other toolkits hold the tokens that were chosen."""

import json

import pytest
from click.testing import CliRunner

import cli
from compress.calibration import toolkits
from compress.calibration.calibrate import calibrate
from tests.conftest import DATA

MODEL, TEXTS = str(DATA / "mixlm"), str(DATA / "text/math.txt")


@pytest.fixture(scope="module")
def chosen(tmp_path_factory):
    """A small choice with the files of all toolkits, and its folder."""
    out = tmp_path_factory.mktemp("toolkits") / "with space"
    return calibrate(MODEL, [TEXTS], by="random", tokens=600, out=out, toolkit=list(toolkits.CODE)), out


def rows(file):
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize("name", ["llm-compressor", "gptqmodel"])
def test_token_ids_are_those_that_were_chosen(name, chosen):
    found, out = chosen
    read = rows(out / f"{name}.jsonl")
    assert [row["input_ids"] for row in read] == found.sequences
    assert [len(row["attention_mask"]) for row in read] == [len(ids) for ids in found.sequences]
    code = found.usage[name]
    compile(code.replace("RECIPE", "None"), name, "exec")
    assert json.dumps(str(out / f"{name}.jsonl")) in code


def test_of_texts_the_tokenizer_makes_the_tokens_that_were_chosen(chosen):
    found, out = chosen
    text = (out / "llama.cpp.txt").read_text(encoding="utf-8")
    each = [toolkits.text(found.tokenizer, ids) for ids in found.sequences]
    assert text == "\n\n".join(each)
    whole = [ids for ids, text in zip(found.sequences, each) if found.tokenizer(text)["input_ids"] == ids]
    assert len(whole) >= len(each) - 1  # the last one is cut, perhaps within a word
    assert f"-c {max(map(len, found.sequences))} " in found.usage["llama.cpp"]
    assert f"-f '{out}/llama.cpp.txt'" in found.usage["llama.cpp"]


def test_auto_round_gets_sequences_of_the_one_length_that_it_asks_for(chosen):
    found, out = chosen
    texts, words = [row["text"] for row in rows(out / "auto-round.jsonl")], found.usage["auto-round"].split()
    seqlen, count = (int(words[words.index(option) + 1]) for option in ("--seqlen", "--nsamples"))
    lengths = [len(found.tokenizer(text)["input_ids"]) for text in texts]
    assert count == len(texts) and seqlen == min(lengths)
    total, longest = sum(len(ids) + 1 for ids in found.sequences), max(map(len, found.sequences))
    assert len(texts) == total // longest and seqlen >= longest - 2


def test_special_tokens_that_the_tokenizer_adds_are_left_out_of_texts_and_others_are_not(tokenizer):
    start, *words = tokenizer("good film")["input_ids"]
    assert toolkits.text(tokenizer, [start, *words]) == "good film"
    assert toolkits.text(tokenizer, [start, *words, tokenizer.eos_token_id, *words]) == "good film</s>good film"


def test_what_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(ValueError, match="toolkit is 'vllm', which is not known: give llm-compressor or gptqmodel or"):
        calibrate(MODEL, [TEXTS], toolkit=["vllm"], out=tmp_path / "c")
    with pytest.raises(ValueError, match="files for gptqmodel go into the folder out, and there is none: give out"):
        calibrate(MODEL, [TEXTS], toolkit=["gptqmodel"])


def test_the_command_shows_the_code(tmp_path):
    line = ["calibrate", MODEL, "--candidate", TEXTS, "--tokens", "300", "--out", str(tmp_path / "c")]
    done = CliRunner().invoke(cli.main, [*line, "--for", "auto-round"])
    assert done.exit_code == 0, done.output
    assert f"In auto-round:\n\nauto-round --model {MODEL} --dataset {tmp_path}/c/auto-round.jsonl" in done.output
