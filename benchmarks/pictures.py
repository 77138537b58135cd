"""The pictures of README.md and of the manual's front page, from the data of the repository alone.

python benchmarks/pictures.py [--drawn]

Writes docs/ranking.svg, docs/pareto.svg, docs/calibration.svg and benchmarks/results/pictures.json, the numbers in
them; with --drawn the numbers stay and the pictures are drawn anew.
"""

import json
import sys
import tempfile
from pathlib import Path

from click.testing import CliRunner

import compress
import transmeter
from cli import main
from compress.evaluation.pareto import DENSE
from compress.report.calibration import scatter
from compress.report.charts import pareto_chart, picture
from transmeter import result
from transmeter.util import writing

ROOT = Path(__file__).resolve().parent.parent
DOCS, NUMBERS = ROOT / "docs", ROOT / "benchmarks/results/pictures.json"
TABLES, TEXTS, MODEL = ROOT / "data/tabular", ROOT / "data/text", ROOT / "data/mixlm"
SOURCES = ("heart_hungarian", "heart_cleveland", "heart_switzerland", "heart_statlog", "heart_failure", "pima_diabetes")
CANDIDATES = ("code", "drama", "math", "novels", "web")
CALIBRATED = {"tokens": 20_000, "length": 128}
READ = {"window": 192, "apart": True}  # as the model was trained: every text by itself
RATIO = 0.3  # of the FLOPs of heads and neurons, that every set of texts calibrates the removal of
SWEEP = [
    *("--method", "kprune", "--set", "ratio=0.1,0.2,0.3,0.4,0.5"),
    *("--method", "gptq", "--set", "bits=3,4,8"),
    *("--method", "round_to_nearest", "--set", "bits=3,4,8"),
]


def ranking(folder: Path) -> dict:
    """The ranking of README.md."""
    sources = [str(TABLES / f"{name}.csv") for name in SOURCES]
    found = transmeter.rank(str(TABLES / "heart_va.csv"), sources, shots=5, repeats=60)
    found.save(folder / "ranking.json")
    return json.loads((folder / "ranking.json").read_text(encoding="utf-8"))


def sweep(folder: Path) -> dict:
    """Three methods at several sizes, calibrated and measured on school maths."""
    words = [
        "sweep",
        str(MODEL),
        *SWEEP,
        "--calibration",
        str(TEXTS / "math.txt"),
        "--tokens",
        "20000",
        "--length",
        "128",
    ]
    words += ["--data", str(TEXTS / "math_heldout.txt"), "--window", "192", "--apart", "--out", str(folder / "sweep")]
    done = CliRunner().invoke(main, [*words, "--json"])
    if done.exit_code:
        raise SystemExit(done.output)
    found = json.loads(done.stdout)
    kept = ("perplexity", "loss_change_nats", "bytes")
    rows = [
        {"method": r["method"], "options": r["options"], **{k: r["after"][k] for k in kept}}
        for r in found["rows"]
        if "error" not in r
    ]
    return {"dense": {k: found["before"][k] for k in kept if k in found["before"]}, "rows": rows}


def calibration(folder: Path) -> dict:
    """Closeness of every set of texts to school maths, and the perplexity there of the model pruned with it."""
    texts = {name: TEXTS / f"{name}.txt" for name in CANDIDATES}
    chosen = compress.calibrate(str(MODEL), texts, TEXTS / "math_sample.txt", **CALIBRATED, out=folder / "chosen")
    tokenizer, found = compress.load(str(MODEL))[1], {}
    for name, file in texts.items():
        model = compress.compress(str(MODEL), "kprune", ratio=RATIO, calibration=str(file), **CALIBRATED)
        compress.save(model, tokenizer, folder / name)
    results = compress.evaluate([str(folder / name) for name in texts], TEXTS / "math_heldout.txt", **READ)
    for name, measured in zip(texts, results):
        found[name] = {"closeness": chosen.scores[name], "perplexity": measured["perplexity"]}
    return found


def draw(numbers: dict) -> dict[str, str]:
    """The pictures by the names of their files."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "ranking.json").write_text(json.dumps(numbers["ranking"]), encoding="utf-8")
        ranked = result.load(Path(folder) / "ranking.json")
    swept = numbers["sweep"]
    models = [(DENSE, swept["dense"]), *((row["method"], row) for row in swept["rows"])]
    sets = {name: (one["closeness"], one["perplexity"]) for name, one in numbers["calibration"].items()}
    return {
        "ranking.svg": picture(
            result.chart(ranked), "Gains of six sources for heart_va at five labelled rows per class, 95 % intervals"
        ),
        "pareto.svg": picture(
            pareto_chart(models, "perplexity"),
            "Perplexity on school maths by the size of models, with the Pareto front",
        ),
        "calibration.svg": picture(
            scatter("perplexity on school maths", sets, lower=True),
            "Closeness of calibration texts against the perplexity of models pruned with them",
        ),
    }


if __name__ == "__main__":
    if sys.argv[1:] != ["--drawn"]:
        with tempfile.TemporaryDirectory() as name:
            parts = (ranking, sweep, calibration)
            writing.write_text(
                NUMBERS, json.dumps({part.__name__: part(Path(name)) for part in parts}, indent=1) + "\n"
            )
    for name, text in draw(json.loads(NUMBERS.read_text(encoding="utf-8"))).items():
        writing.write_text(DOCS / name, text + "\n")
