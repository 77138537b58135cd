"""The report: what it says of every kind of input, that names stay text, and that odd inputs end with one line."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cli import main
from compress.model import io as folders
from compress.model.structure import remove, shallow_copy, sublayers, unshare
from compress.report import charts, models, page
from transmeter.batch import store
from transmeter.report import sections as report
from transmeter.report.tables import format_ranking
from transmeter.result import Ranking, Row, load

EVIL = "<script>alert(1)</script> $x_1$ &amp; 'q' \"u\""
GAIN = {"score": 2.0, "gain_pp": 2.0, "ci_low": 1.0, "ci_high": 3.0, "p_negative": 0.01, "verdict": "helps"}
TERMS = {"trust": 0.5, "measured": 3.0, "usual": -1.0, "transfer": 2.0, "shared": 0.02}


def row(source, rank=1, **values):
    """A row of a ranking."""
    return Row(**{"seconds": 0.1, "source": source, "rank": rank, "tie_group": rank} | values)


def made(target, rows, scorer="transmeter"):
    """A ranking."""
    settings = {"metric": "accuracy", "shots": 5, "repeats": 10, "command": "transmeter rank it"}
    return Ranking(target=target, scorer=scorer, rows=rows, **settings)


def estimate(value):
    """A figure with its interval."""
    return {"value": value, "ci_low": value - 1, "ci_high": value + 1, "n": 9}


def measured(value, size):
    """What a card says of a model."""
    return {"parameters": size // 2, "flops": 10**6, "bytes": size, "perplexity": estimate(value)}


def evaluated(name, value, size):
    """What evaluate says of a model."""
    speed = {"median": 0.01 * size / 1e6, "q1": 0.009, "q3": 0.011, "n": 20, "tokens": 128}
    found = {"model": name, "data": "held.txt", "latency_seconds": speed, "peak_memory_bytes": None, "packed": []}
    return found | measured(value, size) | {"compression_seconds": None, "steps": []}


CONFIG = {
    **{"model_type": "compressed_llama", "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32},
    **{"intermediate_size": 64, "head_dim": 8},
    "compressed": {
        "tied": {},
        "layers": {
            "model.layers.0.self_attn": ["NoAttention", {"features": 32, "bias": False, "layer_idx": 0}],
            "model.layers.1.self_attn.o_proj": ["Linear", {"in_features": 24, "out_features": 32, "bias": False}],
            "model.layers.1.mlp.down_proj": [
                "PackedLinear",
                {"packed": {"form": "Uniform", "rows": 32, "columns": 16, "bits": 4, "group": 16}, "bias": False},
            ],
            "model.layers.1.mlp.up_proj": [
                "PackedLinear",
                {"packed": {"form": "Bitmask", "rows": 16, "columns": 32, "nonzeros": 128}, "bias": False},
            ],
            "model.layers.0.mlp.up_proj": ["LowRankLinear", {"in_features": 32, "out_features": 64, "rank": 8}],
        },
    },
}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    """One input of every kind, with names that would be markup."""
    root = tmp_path_factory.mktemp("inputs")
    matches = [{"source": "chol", "target": EVIL, "confidence": 0.7, "how": "meaning"}]
    matches += [{"source": f"c{i}", "target": f"c{i}", "confidence": 1.0, "how": "name"} for i in range(20)]
    why = {"terms": TERMS, "classes": {"sick": 4.0, "well": -2.5}, "evidence": {"shared": 0.5}, "matches": matches}
    rows = [row(EVIL, **GAIN, **why, repeats=10), row("b", None, error="one class <b>")]
    made("t", rows).save(root / "ranking.json")
    made("u", [row(EVIL, **GAIN | {"verdict": "hurts"})]).save(root / "ranking2.json")
    part = {"share": 1.0, "tokens": 500, "texts": 9, "hash": "ab" * 32}
    chosen = {
        "model": "base",
        "targets": {"t": "t.txt"},
        "by": "measure",
        "seed": 0,
        "scores": {"near": 3.0, "far": 1.0},
        "intervals": {"near": [2.5, 3.6], "far": [0.8, 1.3]},
        "tied": [],
        "by_target": {"t": {"near": 4.0, "far": 1.1}, "u": {"near": 2.25, "far": 0.9}},
        "notes": ["of t the mixture uniform is closer than its own text (5 against 4)"],
    }
    texts = [f"text {i} {EVIL} {'x' * 200}" for i in range(19)]
    Dataset.from_dict({"text": texts, "source": ["near"] * 19}).save_to_disk(str(root / "calibration"))
    write(root / "calibration/provenance.json", chosen | {"parts": [{"name": "near", **part}], "chosen": "near"})
    for name, value in (("near", 12.0), ("far", 15.0)):
        step = {"method": "wanda", "options": {"ratio": 0.5}, "seconds": 2.0, "after": measured(value, 4_000_000)}
        card = {
            "base_model": "base",
            "before": measured(10.0, 8_000_000),
            "steps": [step],
            "arguments": {"calibration": name},
        }
        write(root / name / "compression.json", card | {"calibration": {"texts": f"data/{name}.txt", "tokens": 500}})
        write(root / name / "config.json", CONFIG)
    text = (
        f"---\nlicense: mit\n---\n# {EVIL}\n\n![p](https://x.org/p.png) [bad](javascript:alert(1))\n\n|a|\n|-|\n|1|\n"
    )
    text += (
        f"\n|wide|\n|-|\n|{'w' * 300}|\n\n```sh\ntransmeter compress {'long-name ' * 9}--some-option <x> --set a=1\n"
    )
    text += "```\n"
    (root / "near/README.md").write_text(text)
    small = evaluated("kept", 12.0, 4_000_000) | {"steps": [{"method": "gptq", "options": {}}], "helps": "disk"}
    small |= {"baseline": evaluated("base", 10.0, 8_000_000), "loss_change_nats": estimate(0.5)}
    write(root / "result.json", [small, evaluated("<i>other</i>", 60.0, 2_000_000)])
    ran = {"method": "svd", "options": {"ratio": 0.2}, "seconds": 1.0, "after": measured(float("inf"), 6_000_000)}
    sweep = {"model": "base", "data": "other.txt", "metric": "perplexity", "before": measured(10.0, 8_000_000)}
    write(root / "sweep.json", sweep | {"rows": [ran, {"method": "x", "options": {}, "error": "no"}]})
    stored(root / "scores.db", [(f"t{i}", f"s{j}", i - j) for i in range(3) for j in range(4)])
    return root


def write(path, content):
    """A JSON file."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))


def stored(path, pairs):
    """A store of (target, source, gain) by transmeter, each by logme too, with one failed pair."""
    with store.writing(path) as db, store.transaction(db):
        store.save_input(db, "f", "", b"", {})
        methods = [store.method(db, "logme", {"seed": 0}), store.method(db, "transmeter", {"seed": 0})]
        keys = [(t, s, m, f"{t} {s} {m}".encode(), g) for t, s, g in pairs for m in methods]
        store.request(db, [(t, s, m, key, 1, 1) for t, s, m, key, _ in keys])
        found = [(key, GAIN | {"gain_pp": g if m == methods[1] else None, "score": g}) for _, _, m, key, g in keys]
        store.record(db, [(found[0][0], {"error": "it is <empty>"}), *found[1:]])


class Tags(HTMLParser):
    """The tags and the addresses of a page, and its text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [v for k, v in attrs if k in ("src", "href", "xlink:href", "srcset", "data", "action")]

    def handle_data(self, data):
        self.text += data


def render(paths, out):
    """The page of the inputs, by the command line."""
    found = CliRunner().invoke(main, ["report", *map(str, paths), "--out", str(out)])
    assert found.exit_code == 0, found.output
    return out.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def whole(inputs, tmp_path_factory):
    """The page of all of them."""
    names = ("ranking.json", "ranking2.json", "calibration", "near", "far", "result.json", "sweep.json", "scores.db")
    return render([inputs / name for name in names], tmp_path_factory.mktemp("page") / "report.html")


def test_every_section_is_there_with_its_figures(whole):
    found = Tags(whole)
    for title in (
        "Sources for t",
        "Why they rank so",
        "All rankings by transmeter",
        "Sources for every target, by logme",
    ):
        assert title in found.text
    for title in ("Calibration data", "Calibration: predicted and measured", "Compression: near", "Model card"):
        assert title in found.text
    assert "+1.0 to +3.0" in found.text and "one class <b>" in found.text and "it is <empty>" in found.text
    assert "Targets that none is shown to help: u." in found.text and "no source helps" in found.text
    assert "Of 1 pair of calibration sets 1 came out" in found.text
    assert [i for i in range(19) if f"text {i} {EVIL} xxx" in found.text] == [*range(0, 19, 2)]  # ten of nineteen
    assert "x" * 161 not in found.text and "xxx ..." in found.text
    assert "kept: 12 instead of 10" not in found.text and "2 models; none is smaller and better than" in found.text
    assert 0 < found.text.index("rank it") < found.text.index("compress base") < found.text.rindex("transmeter report")
    assert found.tags.count("svg") == found.tags.count("figure") >= 12


def test_names_stay_text_and_nothing_is_loaded(whole):
    found = Tags(whole)
    assert "script" not in found.tags and "img" not in found.tags and "link" not in found.tags and "i" not in found.tags
    assert EVIL in found.text and "<i>other</i>" in found.text
    assert all(a.startswith("#") or a == "https://x.org/p.png" for a in found.addresses), found.addresses
    assert "javascript:" not in "".join(found.addresses)
    outside = re.findall(r"url\((?!#)|@import|https?://", re.sub(r"<body.*", "", whole, flags=re.DOTALL))
    assert not outside and len(re.findall(r' id="', whole)) == len(set(re.findall(r' id="([^"]*)"', whole)))


def test_pictures_and_tables_are_described(whole):
    pictures = re.findall(r"<svg[^>]*>", whole)
    assert pictures and all('role="img"' in p and 'aria-label="' in p and 'aria-label=""' not in p for p in pictures)
    assert whole.count('<table role="table">\n<caption><span>') == whole.count('<table role="table">') > 10
    assert whole.count('aria-label="Table of the model card"><table>') == whole.count("<table>") == 2
    assert whole.count("<figcaption>") == whole.count("<figure>")


@pytest.mark.parametrize("name", ["ranking.json", "calibration", "near", "result.json", "sweep.json", "scores.db"])
def test_sections_come_only_where_there_are_data(inputs, name, tmp_path):
    text = Tags(render([inputs / name], tmp_path / "r.html")).text
    marks = {"ranking.json": "Sources for t", "calibration": "Calibration data for t", "near": "Compression: near"}
    marks |= {"result.json": "Perplexity and size, held", "sweep.json": "and size, other", "scores.db": "by logme"}
    assert [mark for mark in marks.values() if mark in text] == [marks[name]]


def test_what_rounds_to_zero_has_no_minus():
    terms = [{"trust": 0.5, "measured": -0.04, "usual": value} for value in (-1.0, -0.01)]
    rows = [row(name, terms=t, gain_pp=-0.02, over_itself={"combination": -0.03}) for name, t in zip("ab", terms)]
    labels = [
        cell for part in report._why(rows, "pp") for figure in part["figures"] for cell in figure["table"]["rows"]
    ]
    assert labels[1] == ["b", "+0.0", "+0.0", "+0.0", "+0.0"] and labels[0][1] == "-1.0"
    assert "-0.0" not in json.dumps(labels)
    shown = format_ranking(made("t", [row("a", **GAIN | {"gain_pp": -0.04, "ci_low": -0.01, "ci_high": 0.0})]))
    assert "+0.0     +0.0 to +0.0" in shown and "-0.0" not in shown
    assert not [line for line in shown.splitlines() if line.endswith(" ")]


def test_a_table_of_many_columns_is_turned():
    heads, rows = [f"h{i}" for i in range(9)], [[f"{name}{i}" for i in range(9)] for name in "ab"]
    found = page._turned({"caption": "c", "heads": heads, "rows": rows})
    assert found["caption"] == "c" and found["heads"] == ["h0", "a0", "b0"]
    assert found["rows"] == [[f"h{i}", f"a{i}", f"b{i}"] for i in range(1, 9)]
    for table in ({"heads": heads[:8], "rows": [r[:8] for r in rows]}, {"heads": heads, "rows": [rows[0][:2]]}):
        assert page._turned(table) is table  # few columns; a row that is a message
    assert page._turned(tall := {"heads": heads, "rows": rows * 4}) is tall


def test_a_card_says_that_an_evaluation_is_newer(inputs, tmp_path):
    write(tmp_path / "e.json", evaluated(str(inputs / "near"), 12.0, 4_000_000))
    said = "The card in the folder is older than the evaluation above"
    assert said not in Tags(render([inputs / "near"], tmp_path / "a.html")).text
    assert said in Tags(render([tmp_path / "e.json", inputs / "near"], tmp_path / "b.html")).text


@pytest.mark.parametrize("faster", [True, False])
def test_times_stand_with_their_quartiles_and_say_where_they_overlap(faster, tmp_path):
    small, base = evaluated("small", 12.0, 4_000_000), evaluated("base", 10.0, 8_000_000)
    base["latency_seconds"] = {"median": 0.05, "q1": 0.042, "q3": 0.06, "n": 20, "tokens": 128}
    small["latency_seconds"] = {"median": 0.03, "q1": 0.028, "q3": 0.041 if faster else 0.043, "n": 20, "tokens": 128}
    write(tmp_path / "e.json", small | {"baseline": base, "loss_change_nats": estimate(0.5)})
    text = Tags(render([tmp_path / "e.json"], tmp_path / "r.html")).text
    assert "level ones quartiles" in text
    said = "Quartiles of small overlap those of the dense model: it is not shown to be faster or slower."
    assert (said in text) == (not faster)
    chart = charts.pareto_chart([("dense", base), ("kprune", small)], "perplexity", "milliseconds").to_dict()
    drawn = [row for layer in chart["layer"] for row in layer.get("data", {}).get("values", []) if "time_q1" in row]
    drawn += [row for rows in chart.get("datasets", {}).values() for row in rows if "time_q1" in row]
    assert {(row["time_q1"], row["time_q3"]) for row in drawn} >= {(42.0, 60.0)}


def test_a_hundred_sources_stay_under_two_megabytes(tmp_path):
    names = [f"a source with a rather long name {i:03}" for i in range(100)]
    matches = [{"source": f"c{i}", "target": f"c{i}", "confidence": 1.0, "how": "name"} for i in range(40)]
    why = {
        "terms": TERMS,
        "classes": {f"k{i}": 1.0 for i in range(10)},
        "evidence": {"shared": 0.5},
        "matches": matches,
    }
    made("t", [row(n, i + 1, **GAIN, **why) for i, n in enumerate(names)]).save(tmp_path / "r.json")
    stored(tmp_path / "s.db", [(f"target {t}", n, 0.1 * t) for t in range(20) for n in names])
    text = render([tmp_path / "r.json", tmp_path / "s.db"], tmp_path / "r.html")
    assert len(text.encode()) < 2_000_000 and names[-1] in text


def test_layers_are_read_from_the_config():
    left = models.left(CONFIG)
    assert left["attention heads"] == {0: (0.0, "0 of 4"), 1: (0.75, "3 of 4")}
    assert left["neurons"] == {0: (1.0, "64 of 64"), 1: (0.25, "16 of 64")}
    assert left["bits a weight"] == {1: (0.25, "4")} and left["weights not zero"] == {1: (0.25, "25%")}
    assert left["rank"] == {0: (0.25, "25%")}
    assert models.left({"model_type": "llama"}) == models.left({}) == {}


def test_what_is_left_agrees_with_what_was_removed(decoder, tmp_path):
    model = unshare(shallow_copy(decoder[0]), decoder[0])
    for i, sub in enumerate(sublayers(model)):
        remove(model, sub, torch.arange(sub.units) >= i)
    folders.save(model, decoder[1], tmp_path / "m")
    found = models.left(json.loads((tmp_path / "m/config.json").read_text()))
    units = {"attention heads": 6, "neurons": 512}
    for kind, first in (("attention heads", 0), ("neurons", 1)):
        kept = [max(units[kind] - 2 * n - first, 0) for n in range(6)]
        assert [found[kind][n][1] for n in range(6)] == [f"{count} of {units[kind]}" for count in kept]


@pytest.mark.parametrize(
    "content, message",
    [
        ("{", "cannot be read as JSON"),
        ("[]", "is nothing to report: give ranking.json"),
        ('{"rows": 3}', "is nothing to report"),
        ('{"rows": 3, "scorer": "s", "target": "t", "shots": 1}', "is not a ranking"),
        ('{"model": 1, "data": 1, "parameters": 1, "bytes": 1, "latency_seconds": 1}', "none of the metrics"),
        ('{"model": 1, "data": 1, "metric": "f1", "before": {}, "rows": [{}]}', "is not as this version writes it"),
        ("[" * 100_000, "cannot be read as JSON"),
        ("\ud800", "cannot be read as JSON"),
    ],
)
def test_odd_files_end_with_one_line(content, message, tmp_path):
    (tmp_path / "x.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    check_refused([tmp_path / "x.json"], message, tmp_path)


def check_refused(paths, message, tmp_path):
    """One line, exit code 2, no page."""
    found = CliRunner().invoke(main, ["report", *map(str, paths), "--out", str(tmp_path / "r.html")])
    lines = [line for line in found.stderr.splitlines() if line.startswith("Error")]
    assert found.exit_code == 2 and len(lines) == 1 and message in lines[0], found.output
    assert not (tmp_path / "r.html").exists()


def test_odd_folders_and_stores_end_with_one_line(tmp_path):
    check_refused([tmp_path / "none.json"], "none.json does not exist", tmp_path)
    check_refused([tmp_path], "is nothing to report", tmp_path)
    write(tmp_path / "m/compression.json", {"steps": [{}]})
    check_refused([tmp_path / "m"], "is not as this version writes it", tmp_path)
    write(tmp_path / "m/compression.json", [1])
    check_refused([tmp_path / "m"], "holds no JSON object", tmp_path)
    with store.writing(tmp_path / "empty.db"):
        pass
    check_refused([tmp_path / "empty.db"], "holds no pair that was scored", tmp_path)
    (tmp_path / "other.db").write_bytes(b"SQLite format 3\x00" + b"\x00" * 100)
    check_refused([tmp_path / "other.db"], "is not a store of", tmp_path)
    broken = json.loads(json.dumps(made("t", []).__dict__ | {"rows": [row("a", **GAIN, matches=[{}]).__dict__]}))
    write(tmp_path / "ranking.json", broken)
    check_refused([tmp_path / "ranking.json"], "is not as this version writes it", tmp_path)


def test_a_ranking_without_a_scored_source_and_one_of_plain_scores_are_told_too(tmp_path):
    made("t", [row("b", None, error="one class")]).save(tmp_path / "a.json")
    made("t", [row("a", score=1.5), row("b", 2, score=1.5)], scorer="logme").save(tmp_path / "b.json")
    text = Tags(render([tmp_path / "a.json", tmp_path / "b.json"], tmp_path / "r.html")).text
    assert "No source could be scored." in text and "a comes first of 2, by logme." in text


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(names=st.lists(st.text(max_size=20), min_size=1, max_size=4, unique=True))
def test_any_name_is_drawn_and_stays_text(names, tmp_path):
    path = tmp_path / "ranking.json"
    path.write_text(json.dumps(made(names[0], [row(n, i + 1, **GAIN) for i, n in enumerate(names)]), default=vars))
    sections, _ = report.sections([path])
    page.write(sections, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text(encoding="utf-8")
    own = "html head meta title style body header main nav section figure figcaption h1 h2 h3 ul li a p div pre code"
    own += " table caption span thead tbody tr th td details summary svg g path line rect text defs"
    assert set(Tags(text).tags) <= set(own.split())


def test_the_command_is_noted_where_a_file_is_written(root, tmp_path):
    tables = [str(root / f"data/tabular/heart_{n}.csv") for n in ("va", "hungarian")]
    args = ["rank", *tables, "--scorer", "source_size", "--out", str(tmp_path / "r.json")]
    assert CliRunner().invoke(main, args).exit_code == 0
    assert load(tmp_path / "r.json").command == "transmeter " + " ".join(args)


def test_the_report_needs_no_input_to_be_writable(inputs, tmp_path):
    before = Path(inputs / "scores.db").stat().st_mtime_ns
    render([inputs / "scores.db"], tmp_path / "r.html")
    assert Path(inputs / "scores.db").stat().st_mtime_ns == before
