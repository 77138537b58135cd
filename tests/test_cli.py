"""The command line as its users run it, with one wrong input of each kind."""

import csv
import io
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from transformers import AutoTokenizer, OPTConfig, OPTForCausalLM

import cli

ROOT = Path(__file__).resolve().parent.parent
TABLES, TEXTS, MODEL = ROOT / "data/tabular", ROOT / "data/text", ROOT / "data/mixlm"
VA, HUNGARIAN = str(TABLES / "heart_va.csv"), str(TABLES / "heart_hungarian.csv")
MATH = str(TEXTS / "math_sample.txt")
NETWORK = ("rank", VA, HUNGARIAN, "--shots", 5, "--repeats", 2, "--set", "learner=network")


def run(*args):
    """Result of the command."""
    return CliRunner().invoke(cli.main, [str(a) for a in args])


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """Keep the user's cache out of the tests."""
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "app"))


def test_rank_as_table_json_csv_and_file(tmp_path):
    base = ("rank", VA, HUNGARIAN, f"pima={TABLES}/pima_diabetes.csv", "--shots", 5, "--repeats", 2)
    table = run(*base, "--out", tmp_path / "r.json")
    assert table.exit_code == 0, table.output
    assert table.stdout.splitlines()[0].split() == "rank tie source gain_pp 95 % interval P(gain<0) verdict".split()
    assert max(map(len, table.stdout.splitlines()[:3])) < 80
    again = shlex.join(["transmeter", "transfer", VA, HUNGARIAN, "--out", "model"])
    assert f"next: {again}\n" in table.stderr
    found = json.loads(run(*base, "--format", "json").stdout)
    saved = json.loads((tmp_path / "r.json").read_text())
    assert {r["source"] for r in found["rows"]} == {"heart_hungarian", "pima"} == {r["source"] for r in saved["rows"]}
    assert saved["shots"] == 5 and saved["repeats"] == 2 and saved["metric"] == "balanced_accuracy"
    rows = list(csv.DictReader(io.StringIO(run(*base, "--format", "csv").stdout)))
    assert [float(r["gain_pp"]) for r in rows] == [r["gain_pp"] for r in found["rows"]]


def test_the_network_takes_the_place_of_the_combination_where_it_is_asked_for():
    found = run(*NETWORK, "--set", "variant=paper", "--set", "steps=3", "--format", "json")
    assert found.exit_code == 0, found.output
    (row,) = json.loads(found.stdout)["rows"]
    assert list(row["over_itself"]) == ["network"] and row["baseline"] != "combination"
    (row,) = json.loads(run(*NETWORK[:-2], "--format", "json").stdout)["rows"]
    assert list(row["over_itself"]) == ["combination", "pooled_linear", "source_forest", "source_linear"]


def test_rank_takes_scorers_and_their_options():
    found = run("rank", VA, HUNGARIAN, "--scorer", "logme", "--set", "steps=5", "--format", "json")
    content = json.loads(found.stdout)
    assert content["scorer"] == "logme" and content["options"] == {"steps": 5}
    assert content["rows"][0]["gain_pp"] is None and content["rows"][0]["score"] is not None


def test_the_main_job_end_to_end(tmp_path, monkeypatch):
    peaks = {str(MODEL): 30_000_000, str(tmp_path / "m"): 20_000_000}  # measured in new processes, which takes seconds
    monkeypatch.setattr("compress.evaluation.costs.peak_memory", peaks.get)
    candidates = [x for n in ("code", "math") for x in ("--candidate", TEXTS / f"{n}.txt")]
    chosen = run("calibrate", MODEL, "--target", MATH, *candidates, "--tokens", 1500, "--out", tmp_path / "c")
    assert chosen.exit_code == 0, chosen.output
    scores = json.loads((tmp_path / "c/provenance.json").read_text())["scores"]
    assert set(scores) == {"math", "code", "uniform", "closeness"} and scores["math"] > scores["code"]
    small = run(
        *("compress", MODEL, "--method", "kprune", "--set", "ratio=0.3", "--method", "wanda", "--set", "ratio=0.5"),
        *("--calibration", tmp_path / "c", "--tokens", 800, "--out", tmp_path / "m"),
    )
    assert small.exit_code == 0, small.output
    card = json.loads((tmp_path / "m/compression.json").read_text())
    assert [(step["method"], step["options"]) for step in card["steps"]] == [
        ("kprune", {"ratio": 0.3}),
        ("wanda", {"ratio": 0.5}),
    ]
    assert card["calibration"]["provenance"]["parts"][0]["name"] == "math"
    result = run(
        *("evaluate", tmp_path / "m", "--baseline", MODEL, "--data", TEXTS / "math_heldout.txt"),
        *("--tokens", 2000, "--latency", "--peak-memory", "--out", tmp_path / "e.json"),
    )
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "e.json").read_text())
    *lines, windows, area = result.stdout.splitlines()
    table = "\n".join(lines)
    for column in (
        "perplexity (95 %)",
        "times smaller",
        "latency ms",
        "memory MB",
        "compressed in s",
        "helps",
        "KL, nats",
        "same first",
    ):
        assert column in table
    assert found["peak_memory_bytes"] == 20_000_000 and found["baseline"]["peak_memory_bytes"] == 30_000_000
    assert f"{found['baseline']['bytes'] / found['bytes']:.2f}" in table and "time and memory everywhere" in table
    assert "6.89" in table and area.startswith("area under the Pareto front of perplexity by bytes: 0.")
    assert windows == f"perplexity on {TEXTS / 'math_heldout.txt'}, windows of 512 tokens, texts joined"
    assert found["kl_divergence_nats"]["ci_low"] > 0 and found["top1_agreement"]["ci_high"] < 1
    assert found["perplexity"]["value"] > found["baseline"]["perplexity"]["value"]
    assert found["loss_change_nats"]["ci_low"] > 0 and found["bytes"] < found["baseline"]["bytes"]
    page = run("report", tmp_path / "c", tmp_path / "m", tmp_path / "e.json", "--out", tmp_path / "r.html")
    assert page.exit_code == 0, page.output
    html = (tmp_path / "r.html").read_text(encoding="utf-8")
    kept = "KL, nats (95 %)", "windows of 512 tokens, texts joined", "Sequences of at most 512 tokens."
    for text in (*kept, "Perplexity and size", "Calibration data", "kprune ratio=0.3 + wanda", "transmeter calibrate"):
        assert text in html


def test_settings_belong_to_the_method_before_them(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr("compress.model.io.load", lambda *a, **k: (_ for _ in ()).throw(ValueError("stop here")))
    monkeypatch.setattr(
        "compress.commands.compress.convert", lambda f, given, fixed=(): seen.append((f.__module__, given)) or {}
    )
    run(
        *("compress", MODEL, "--calibration", MATH, "--out", tmp_path / "m"),
        *("--method", "magnitude", "--set", "ratio=0.1", "--set", "unit=weights", "--method", "wanda"),
        *("--method", "magnitude", "--set", "ratio=0.2"),
    )
    assert seen == [
        ("compress.methods.magnitude", ("ratio=0.1", "unit=weights")),
        ("compress.methods.wanda", ()),
        ("compress.methods.magnitude", ("ratio=0.2",)),
    ]


COMPRESS = ("compress", str(MODEL), "--calibration", MATH, "--out", "OUT", "--method")
CALIBRATE = ("calibrate", str(MODEL), "--out", "OUT", "--target", MATH)


@pytest.mark.parametrize(
    "args, message",
    [
        (("rank", "none.csv", VA), "none.csv does not exist"),
        (("rank", VA, "none.csv"), "none.csv does not exist"),
        (("rank", VA, HUNGARIAN, "--label", "lable"), "no label column 'lable'"),
        (("rank", VA, HUNGARIAN, "--key", "patient"), "no key column 'patient'"),
        (("rank", VA, HUNGARIAN, "--match", "sound"), "--match"),
        (("rank", VA, HUNGARIAN, "--encoder", "nobody/nothing"), "reached from here: give a folder"),
        (("rank", VA, HUNGARIAN, "--shots", "60"), "at least 61 are needed for --shots 60"),
        (("rank", VA, HUNGARIAN, "--shots", "0"), "--shots"),
        (("rank", VA, HUNGARIAN, "--repeats", "1"), "--repeats"),
        (
            ("rank", VA, HUNGARIAN, "--scorer", "logmee"),
            "scorer 'logmee' is unknown, did you mean 'logme'?: give one of alignment, cls, gbc",
        ),
        (
            ("rank", VA, HUNGARIAN, "--set", "stepz=3"),
            "--set stepz=3 is not understood, did you mean 'steps'?: give OPTION=VALUE with one of",
        ),
        (("rank", VA, HUNGARIAN, "--set", "steps=many"), "'many' is not a whole number"),
        (("rank", VA, HUNGARIAN, "--set", "reconstruction=nan"), "'nan' is not a number"),
        ((*NETWORK, "--set", "reconstruction=-1"), "give a number of at least 0"),
        ((*NETWORK, "--set", "steps=0"), "steps 0 is too few"),
        ((*NETWORK, "--set", "variant=x"), "--set variant=x: give one of plain, fast, paper"),
        (("rank", VA, HUNGARIAN, "--set", "variant=paper"), "variant is an option of the network: set learner=network"),
        (("rank", VA, HUNGARIAN, "--set", "learner=none"), "learner none is not understood: give combination, network"),
        (("rank", VA, HUNGARIAN, "--seed", "-1"), "--seed"),
        ((*COMPRESS, "wanda", "--method", "kprune", "--set", "ratio=2"), "0 <= ratio < 1"),
        ((*COMPRESS, "kprune", "--set", "temperature=0"), "temperature must be above 0"),
        (("rank", VA, HUNGARIAN, "--out", "none/r.json"), "in a folder that does not exist: create it first"),
        (("rank", VA, HUNGARIAN, HUNGARIAN), "name them apart, as NAME=PATH"),
        (("rank", VA), "SOURCES"),
        ((*CALIBRATE, "--candidate", "none.txt"), "none.txt does not exist"),
        ((*CALIBRATE, "--candidate", MATH, "--candidate", MATH), "same name"),
        ((*CALIBRATE, "--candidate", MATH, "--by", "meassure"), "--by meassure is unknown: give measure, random"),
        ((*CALIBRATE, "--candidate", MATH, "--weight", "b=2"), "'b' is not a target: give one of math_sample"),
        ((*CALIBRATE, "--candidate", MATH, "--held-out", MATH), "text 1 of math_sample ("),
        ((*COMPRESS, "kprun"), "method 'kprun' is unknown, did you mean 'kprune'?: give one of "),
        ((*COMPRESS, "kprune", "--method", "wanda", "--set", "pattern=2-4"), "give N:M, N of every M inputs stay"),
        ((*COMPRESS, "kprune", "--set", "ratio=1.5"), "0 <= ratio < 1"),
        ((*COMPRESS, "kprune", "--set", "ratio=half"), "'half' is not a number"),
        ((*COMPRESS, "magnitude", "--set", "unit=rows"), "give one of structured, weights"),
        (("compress", str(MODEL), "--set", "ratio=0.5", *COMPRESS[2:], "kprune"), "stands before any --method"),
        (("compress", "nobody/nothing", *COMPRESS[2:], "kprune"), "neither a model folder nor a hub name"),
        (("compress", str(TEXTS), *COMPRESS[2:], "kprune"), "no config.json"),
        (("compress", str(MODEL), "--calibration", MATH, "--out", MATH + "/m", "--method", "wanda"), "which is a file"),
        ((*COMPRESS, "wanda", "--tokens", "1"), "needs at least two tokens: give longer texts or more --tokens"),
        (("evaluate", str(MODEL), "--data", "none.txt"), "none.txt does not exist"),
        (("evaluate", str(MODEL), "--data", MATH, "--metric", "accuracy"), "gives no accuracy: use --metric perp"),
        (("report", "none.json", "--out", "r.html"), "none.json does not exist"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(args, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = run(*args)
    assert found.exit_code == 2, found.output
    assert message in found.stderr and "Traceback" not in found.stderr and found.stdout == ""
    assert found.stderr.strip().splitlines()[-1].startswith("Error: ")
    assert [p.name for p in tmp_path.iterdir() if p.name != "app"] == []


def test_few_calibration_tokens_are_told(tmp_path):
    (tmp_path / "a.txt").write_text("Let x be a real number.\n\nProve it.\n")
    options = ("--calibration", tmp_path / "a.txt", "--method", "kprune", "--out", tmp_path / "m")
    found = run("compress", MODEL, *options, "--tokens", 5000)
    assert found.exit_code == 0, found.output
    assert "a.txt holds 13 tokens, fewer than the 5,000 asked for: all are used" in found.stderr
    assert "13 calibration tokens are fewer than the 512 features of the widest layer" in found.stderr


def test_a_full_disk_is_one_line_and_exit_code_1(tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("transformers.PreTrainedModel.save_pretrained", full)
    options = ("--calibration", MATH, "--tokens", 100, "--method", "magnitude", "--out", tmp_path / "m")
    found = run("compress", MODEL, *options)
    assert found.exit_code == 1 and "Traceback" not in found.stderr
    assert found.stderr.splitlines()[-1].endswith("m cannot be written: No space left on device")
    assert not [p for p in tmp_path.iterdir() if p.name != "app"]


def test_heads_of_an_unknown_architecture_are_refused_and_where_to_look_is_said(tmp_path):
    sizes = {"hidden_size": 16, "ffn_dim": 24, "word_embed_proj_dim": 16, "num_hidden_layers": 1}
    config = OPTConfig(**sizes, num_attention_heads=2, vocab_size=4096, max_position_embeddings=40)
    OPTForCausalLM(config).save_pretrained(tmp_path / "opt")
    AutoTokenizer.from_pretrained(MODEL).save_pretrained(tmp_path / "opt")
    options = ("--calibration", MATH, "--tokens", 100, "--out", tmp_path / "m")
    for method in ("kprune", "magnitude"):
        found = run("compress", tmp_path / "opt", *options, "--method", method)
        assert found.exit_code == 2 and "model type 'opt' cannot be cut, as it has no entry in" in found.stderr
    found = run("compress", tmp_path / "opt", *options, "--method", "wanda")
    assert found.exit_code == 0, found.stderr


def test_the_targets_own_file_as_source_is_told(tmp_path):
    found = run("rank", VA, f"own={VA}", "--repeats", 2)
    assert found.exit_code == 0 and "the target's own file" in found.stderr


def test_lists_name_every_file_with_its_options():
    scorers, methods = run("scorers").stdout, run("methods").stdout
    for name in ("alignment", "logme", "otdd", "short_finetune", "source_size", "transmeter"):
        assert f"\n{name}: " in "\n" + scorers
    assert "kprune: K-prune" in methods and "--set ratio=0.5" in methods and "in_place" not in methods


def words_of(command, words=()):
    """The words of a command and of all below it."""
    below = getattr(command, "commands", {})
    return [words, *(found for name, one in below.items() for found in words_of(one, (*words, name)))]


@pytest.mark.parametrize("option", ["--help", "-h"])
@pytest.mark.parametrize("words", words_of(cli.main), ids=" ".join)
def test_help_of_every_command_ends_well(words, option):
    found = run(*words, option)
    assert found.exit_code == 0 and "Error" not in found.output and found.stderr == ""
    command = cli.main
    for word in words:
        command = command.commands[word]
    assert found.stdout.startswith(f"Usage: main {' '.join(words)}".rstrip() + " ")
    assert not [line for line in found.stdout.splitlines() if len(line) > 80 and "|" not in line]  # choices stay whole
    told = " ".join(found.stdout.split())
    assert " ".join(command.help.split()).partition(". ")[0].partition(" Example:")[0] in told
    assert all(name in told for option in command.params if option.name for name in option.opts if name[0] == "-")


def test_help_is_quick_to_import_and_documents_every_command():
    text = subprocess.run(
        [sys.executable, "-c", "import cli, sys; print('torch' in sys.modules)"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    ).stdout
    assert text.strip() == "False"
    for name, command in cli.main.commands.items():
        assert command.help and name in run("--help").output
