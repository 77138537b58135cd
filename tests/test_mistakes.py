"""The likely mistakes of a new user: each ends with one line that says what to do, before any work."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

import cli

ROOT = Path(__file__).resolve().parent.parent
MODEL, MATH = str(ROOT / "data/mixlm"), str(ROOT / "data/text/math_sample.txt")
RANK = ("rank", "mine.csv", "other.csv")
COMPRESS = ("compress", MODEL, "--calibration", MATH, "--out", "small", "--method")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What a user may have at hand, much of it broken."""
    folder = tmp_path_factory.mktemp("mine")
    for name, site in (("mine", "va"), ("other", "hungarian")):
        shutil.copy(ROOT / f"data/tabular/heart_{site}.csv", folder / f"{name}.csv")
    frame = pd.read_csv(folder / "mine.csv")
    (folder / "quote.csv").write_text('age,label\n63,0\n"41,1\n')
    (folder / "latin.csv").write_text("größe,label\n1,0\n2,1\n", encoding="latin-1")
    (folder / "colons.csv").write_text("age:label\n63:0\n41:1\n")
    (folder / "wide.csv").write_text("age,label\n5,63,0\n5,41,1\n")
    flowers = "@relation r\n@attribute x real\n@attribute label {red,blue}\n@data\n1,red\n2,rosy\n"
    (folder / "flowers.arff").write_text(flowers)
    frame.rename(columns={"label": "outcome"}).to_csv(folder / "outcome.csv", index=False)
    frame.assign(label="sick").to_csv(folder / "sick.csv", index=False)
    frame.assign(note=[f"patient {i} felt well" for i in range(len(frame))]).to_csv(folder / "notes.csv", index=False)
    pd.DataFrame({"texts": ["Hello there."], "label": [0]}).to_csv(folder / "texts.csv", index=False)
    (folder / "table.xlsx").write_bytes(b"PK")
    (folder / "empty.txt").write_text("")
    (folder / "full").mkdir()
    (folder / "full/thesis.tex").write_text("mine")
    (folder / "no_tokenizer").mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(ROOT / "data/mixlm" / name, folder / "no_tokenizer")
    shutil.copytree(ROOT / "data/mixlm", folder / "two_models")
    config = json.loads((folder / "two_models/config.json").read_text())
    (folder / "two_models/config.json").write_text(json.dumps(config | {"intermediate_size": 256}))
    for name in ("half", "tuned", "packed", "old"):
        shutil.copytree(ROOT / "data/mixlm", folder / name)
    tensors = load_file(folder / "half/model.safetensors")
    save_file({k: v for k, v in tensors.items() if "3.mlp.up_proj" not in k}, folder / "half/model.safetensors")
    (folder / "tuned/adapter_config.json").write_text('{"task_type": "CAUSAL_LM"}')
    config["quantization_config"] = {"quant_method": "gptq"}
    (folder / "packed/config.json").write_text(json.dumps(config))
    (folder / "old/model.safetensors").rename(folder / "old/pytorch_model.bin")
    (folder / "bad.toml").write_text("[rank]\nshot = 5\n")
    (folder / "other.toml").write_text("[rnak]\nshots = 5\n")
    (folder / "result.json").write_text(json.dumps({"a": 1}))
    return folder


MISTAKES = {
    "wrong label column": ((*RANK, "--label", "lable"), "no label column 'lable', did you mean 'label'?"),
    "wrong label column of a source": (
        ("rank", "mine.csv::label", "outcome.csv", "--label", "diagnosis"),
        "outcome.csv has no label column 'diagnosis' and none called 'label': name it with --label or as PATH::column",
    ),
    "files of two models": (
        ("evaluate", "two_models", "--data", MATH),
        "down_proj.weight' is (192, 512), its config asks for (192, 256)",
    ),
    "missing file": (("rank", "mine.cvs", "other.csv"), "mine.cvs does not exist, did you mean 'mine.csv'?"),
    "missing source": (("rank", "mine.csv", "othr.csv"), "othr.csv does not exist, did you mean 'other.csv'?"),
    "no source": (("rank", "mine.csv"), "Missing argument 'SOURCES...'"),
    "typo in a command": (("rnak", "mine.csv", "other.csv"), "No such command 'rnak'. Did you mean 'rank'?"),
    "typo in an option": (
        (*RANK, "--shot", "5"),
        "No such option '--shot'. (Did you mean one of: '--out', '--set', '--shots'?)",
    ),
    "typo in a scorer": ((*RANK, "--scorer", "logm"), "scorer 'logm' is unknown, did you mean 'logme'?"),
    "typo in a method": ((*COMPRESS, "k-prune"), "method 'k-prune' is unknown, did you mean 'kprune'?"),
    "typo in a setting": ((*COMPRESS, "kprune", "--set", "ratoi=0.5"), "not understood, did you mean 'ratio'?"),
    "an option of another learner": (
        (*RANK, "--set", "steps=5"),
        "steps is an option of the network: set learner=network too, or leave it out",
    ),
    "a percentage": ((*COMPRESS, "kprune", "--set", "ratio=50"), "give 0 <= ratio < 1, for example ratio=0.5"),
    "wrong metric": ((*RANK, "--metric", "f1"), "'f1' is not one of 'balanced_accuracy', 'accuracy'"),
    "metric of another task": (
        ("evaluate", MODEL, "--data", MATH, "--metric", "accuracy"),
        "gives no accuracy: use --metric perplexity",
    ),
    "a window beyond the context": (
        ("evaluate", MODEL, "--data", MATH, "--window", "4096"),
        "window 4096 is beyond the context of",
    ),
    "a sequence beyond the context": (
        (*COMPRESS, "kprune", "--length", "4096"),
        "length 4096 is beyond the context of the model: give at most 512 tokens",
    ),
    "an unclosed quote": (
        ("rank", "quote.csv", "other.csv"),
        "quote.csv has a quote that is not closed, after row 2: close it",
    ),
    "another encoding": (
        ("rank", "latin.csv", "other.csv"),
        "latin.csv is not UTF-8 text (byte 2): give its encoding (--encoding)",
    ),
    "another separator": (("rank", "colons.csv", "other.csv"), "colons.csv has no label column 'label'"),
    "a cell too many": (
        ("rank", "wide.csv", "other.csv"),
        "wide.csv has 2 cells in its first line and 3 in a row: name every column, or give the separator (--sep)",
    ),
    "a value that ARFF does not declare": (
        ("rank", "flowers.arff", "other.csv"),
        "flowers.arff cannot be read: line 6: 'rosy' is not one of red, blue",
    ),
    "a spreadsheet": (("rank", "table.xlsx", "other.csv"), "table.xlsx is of no known format: give .csv"),
    "one class": (("rank", "sick.csv", "other.csv"), "sick has only the class 'sick': two classes are needed"),
    "too many shots": ((*RANK, "--shots", "500"), "at least 501 are needed for --shots 500"),
    "result into no folder": ((*RANK, "--out", "none/r.json"), "is in a folder that does not exist: create it first"),
    "its own source": (("transfer", "mine.csv", "mine.csv", "--out", "m"), "mine.csv is the target's own file: give"),
    "no encoder": (
        ("transfer", "notes.csv", "other.csv", "--encoder", "full", "--out", "m"),
        "full is not a model folder: it has no config.json",
    ),
    "no network": (
        ("compress", "bert-base-uncased", *COMPRESS[2:], "kprune"),
        "bert-base-uncased is neither a model folder nor a hub name that can be reached from here: give a folder",
    ),
    "typo in a model folder": (
        ("compress", MODEL + "x", *COMPRESS[2:], "kprune"),
        "can be reached from here, did you mean 'mixlm'?: give a folder",
    ),
    "no tokenizer": (
        ("compress", "no_tokenizer", *COMPRESS[2:], "kprune"),
        "no_tokenizer cannot be loaded: it has no tokenizer in it: put the files",
    ),
    "an incomplete model": (
        ("compress", "half", *COMPRESS[2:], "kprune"),
        "half lacks 1 of 57 weights that its config asks for",
    ),
    "an adapter": (("evaluate", "tuned", "--data", MATH), "tuned holds an adapter (adapter_config.json)"),
    "a quantized model": (("compress", "packed", *COMPRESS[2:], "kprune"), "packed is quantized already (gptq)"),
    "pickled weights": (("evaluate", "old", "--data", MATH), "pickled and could run code when it is opened"),
    "no model": (("compress", "full", *COMPRESS[2:], "kprune"), "full is not a model folder: it has no config.json"),
    "no calibration": (
        ("compress", MODEL, "--method", "kprune", "--out", "small"),
        "kprune looks at calibration texts: give --calibration",
    ),
    "empty calibration": (
        ("compress", MODEL, "--calibration", "empty.txt", "--method", "kprune", "--out", "small"),
        "empty.txt has no text in it",
    ),
    "result onto a folder": (
        ("compress", MODEL, "--calibration", MATH, "--method", "kprune", "--out", "full"),
        "full exists already: give a new folder or remove it first",
    ),
    "no column of texts": (
        ("compress", MODEL, "--calibration", "texts.csv", "--method", "kprune", "--out", "small"),
        "texts.csv has no column 'text', did you mean 'texts'?",
    ),
    "no ranking": (("validate", "mine.csv", "other.csv", "--ranking", "result.json"), "result.json is not a ranking"),
    "typo in the configuration": (
        ("--config", "bad.toml", *RANK),
        "'shot' is not an option of rank to set here, did you mean",
    ),
    "typo in a section": (("--config", "other.toml", *RANK), "[rnak] is not a command, did you mean 'rank'?"),
    "no configuration": (("--config", "none.toml", *RANK), "none.toml does not exist: give a TOML file"),
}


@pytest.mark.parametrize("args, message", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_ends_with_what_to_do_and_nothing_written(args, message, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "app"))
    before = sorted(folder.rglob("*"))
    found = CliRunner().invoke(cli.main, list(args))
    assert found.exit_code == 2 and found.stdout == "", found.output
    last = found.stderr.strip().splitlines()[-1]
    assert last.startswith("Error: ") and message in last and "Traceback" not in found.stderr
    assert sorted(folder.rglob("*")) == before
