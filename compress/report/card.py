"""The model card: README.md of a model folder, made of the folder's compression.json (export.json) and config.json.

One direction: nothing is known to the card alone. The format is the Hub's, https://huggingface.co/docs/hub/model-cards.
"""

import json
import math
import re
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.utils import validate_repo_id

from compress.evaluation.metrics import METRICS
from compress.methods import methods, quantizes
from compress.report.markdown import code, fenced, plain, table
from compress.report.tables import interval
from transmeter.util import writing

Record = Mapping[str, Any]
FILE = "README.md"
KNOWN = {metric for names in METRICS.values() for metric in names}
HUB_METRICS = {"macro_f1": "f1", "spearman": "spearmanr", "pearson": "pearsonr"}  # by other names there
# auto class and task of the Hub, by the end of a class's name
HEADS = {
    "LMHeadModel": ("AutoModelForCausalLM", "text-generation"),
    "ForCausalLM": ("AutoModelForCausalLM", "text-generation"),
    "ForSequenceClassification": ("AutoModelForSequenceClassification", "text-classification"),
    "ForTokenClassification": ("AutoModelForTokenClassification", "token-classification"),
    "ForQuestionAnswering": ("AutoModelForQuestionAnswering", "question-answering"),
}
GIVEN = "texts given in Python"  # in the place of a file's name
QUANTIZED = ("compressed-tensors", "torchao", "torchao-dynamic")  # formats of export that round weights


def write_card(folder: Path) -> None:
    """Write README.md into a folder of compress or export, over what is there."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    file = next(f for f in (folder / "export.json", folder / "compression.json") if f.exists())
    record = json.loads(file.read_text(encoding="utf-8"))
    writing.write_text(folder / FILE, render(record, config))


def render(record: Record, config: Record) -> str:
    """The card of what compression.json or export.json says, and the model's config."""
    return f"---\n{_front(record, config)}---\n\n{_body(record, config)}"


def commands(record: Record) -> list[str]:
    """The commands that make the model that `record` is of, none where it was made in Python."""
    given, shape = record.get("arguments"), _format(record)
    source, found = str(record.get("exported") or record.get("base_model")), []
    if given:
        words = ["compress", str(record["base_model"])]
        for step in record["steps"]:
            words += ["--method", step["method"]]
            for option, value in step["options"].items():
                words += ["--set", f"{option}={str(value).lower() if isinstance(value, bool) else value}"]
        for option, value in given.items():
            words += [f"--{option.replace('_', '-')}", str(value)] if value is not None else []
        source = name_of({**record, "format": None})
        found.append([*words, "--out", source])
    if shape:
        found.append(["export", source, "--format", *shape, "--out", name_of(record)])
    return [shlex.join(["transmeter", *map(plain, words)]) for words in found]


def name_of(record: Record) -> str:
    """What the model is called: its base and what was done to it."""
    base = Path(str(record.get("base_model") or "model")).name or "model"
    words = [base, *(step["method"] for step in record.get("steps", ())), *_format(record)]
    return re.sub(r"[^\w.-]+", "-", "-".join(words))


def measured(record: Record) -> list[tuple[str, Record]]:
    """(step, sizes and quality after it), first "before"; what is not known is left out of the second."""
    steps = [(step["method"], step.get("after") or {}) for step in record.get("steps", ())]
    steps += [(shape, {"bytes": record["bytes"]}) for shape in _format(record)]
    return [("before", record.get("before") or {}), *steps]


def _front(record: Record, config: Record) -> str:
    """The YAML between the dashes; ends with a line break."""
    base = record.get("base") or {}
    quantized = any(quantizes(s["method"]) for s in record.get("steps", ())) or set(_format(record)) & set(QUANTIZED)
    results = _results(record, config)
    metrics = sorted({result.metric_type for result in results})
    data = ModelCardData(
        base_model=base.get("base_model") or None,
        datasets=[n for n in map(_identifier, _sets(record)) if n] or None,
        eval_results=results or None,
        language=base.get("language"),
        library_name="onnx" if _format(record) == ["onnx"] else "transformers",
        license=base.get("license"),
        license_name=base.get("license_name"),
        license_link=base.get("license_link"),
        metrics=metrics or None,
        model_name=name_of(record) if results else None,
        pipeline_tag=_head(config)[1],
        tags=["transmeter", "model-compression", *(s["method"] for s in record.get("steps", ())), *_format(record)],
        base_model_relation=("quantized" if quantized else "finetune") if base.get("base_model") else None,
    )
    return data.to_yaml() + "\n"


def _results(record: Record, config: Record) -> list[EvalResult]:
    """What was measured on the finished model, as the Hub's model-index takes it."""
    if _format(record):  # the exam was of the model before it was rounded and written anew
        return []
    exam, task = record.get("exam") or {}, _head(config)[1]
    found = [(m, v) for m, v in measured(record)[-1][1].items() if m in KNOWN and math.isfinite(v["value"])]
    return [
        EvalResult(
            task_type=task or "other",
            dataset_type=_identifier(_stem(exam.get("data", ""))) or "local",
            dataset_name=plain(_stem(exam.get("data", ""))) or "local",
            metric_type=HUB_METRICS.get(metric, metric),
            metric_name=metric,
            metric_value=value["value"],
            metric_args={"ci_95": [value["ci_low"], value["ci_high"]], "n": value["n"]},
        )
        for metric, value in found
    ]


def _body(record: Record, config: Record) -> str:
    base = record.get("base") or {}
    origin = code(record.get("base_model") or "a model that was given in Python")
    ids = base.get("base_model") or []
    links = f" ({', '.join(f'[{n}](https://huggingface.co/{n})' for n in ids)})" if ids else ""
    title = name_of(record).replace("_", "\\_")  # a pair of them would mean emphasis
    sections = [
        f"# {title}\n\nMade from {origin}{links} by transmeter. {_whole(record)}",
        f"## What was done\n\n{_steps(record)}",
        f"## Sizes\n\n{_sizes(record)}",
        f"## Quality\n\n{_quality(record)}",
        f"## Calibration data\n\n{_calibration(record)}",
        f"## How to load it\n\n{_loading(record, config)}",
        f"## Limits\n\n{_limits(record)}",
    ]
    if base.get("card"):
        sections.append(f"## The base model's own card\n\n{fenced(base['card'], 'markdown')}")
    return "\n\n".join(sections) + "\n"


def _whole(record: Record) -> str:
    sizes = [found.get("bytes") for _, found in measured(record)]
    if len(sizes) < 2 or not (sizes[0] and sizes[-1]):
        return ""
    return f"{sizes[0] / 1e6:.2f} MB became {sizes[-1] / 1e6:.2f} MB, {sizes[0] / sizes[-1]:.2f} times fewer."


def _steps(record: Record) -> str:
    known, lines = methods(), []
    for index, step in enumerate(record.get("steps", ()), 1):
        function = known.get(step["method"])
        about = (sys.modules[function.__module__].__doc__ or "").split("\n\n")[0] if function else ""
        options = ", ".join(code(f"{k}={v}") for k, v in step["options"].items()) or "options as they are"
        seconds = f", {step['seconds']:.0f} s" if "seconds" in step else ""
        lines.append(f"{index}. {code(step['method'])} ({options}{seconds}). {plain(about)}")
    if _format(record):
        lines.append(f"{len(lines) + 1}. Written as {code(record['format'])} by `transmeter export`.")
    again, made = commands(record), ", ".join(f"{k} {v}" for k, v in record.get("versions", {}).items())
    text = "\n".join(lines) or "Nothing is recorded."
    if again:
        text += f"\n\nThe same once more:\n\n{fenced(chr(10).join(again), 'sh')}"
    return text + (f"\n\nMade with {plain(made)}." if made else "")


def _sizes(record: Record) -> str:
    rows = [(name, found) for name, found in measured(record) if "bytes" in found]
    if not rows:
        return "They were not measured" + (": the model streamed from its files." if "reloaded" in record else ".")
    cells = [
        [
            code(name),
            f"{found['bytes']:,}",
            f"{rows[0][1]['bytes'] / found['bytes']:.2f}",
            f"{found['parameters']:,}" if found.get("parameters") else "-",
            f"{found['flops'] / 1e6:,.0f}" if found.get("flops") else "-",
        ]
        for name, found in rows
    ]
    return table(["after", "bytes of the weights", "times smaller", "parameters", "MFLOPs of 128 tokens"], cells)


def _quality(record: Record) -> str:
    rows = [(n, m, v) for n, found in measured(record) for m, v in found.items() if m in KNOWN]
    if not rows:
        return "It was not measured: `transmeter evaluate` does that."
    cells = [[code(name), metric, interval(value), str(value["n"])] for name, metric, value in rows]
    exam = record.get("exam") or {}
    file = f"Measured on {code(exam.get('data', '-'))}" + (
        f", SHA-256 `{exam['sha256']}`" if exam.get("sha256") else ""
    )
    return f"{table(['after', 'metric', 'value (95 % interval)', 'n'], cells)}\n\n{file}."


def _calibration(record: Record) -> str:
    used = record.get("calibration")
    if not used:
        return "None was used."
    cells, notes = [], []
    for part in used.get("parts", [used]):
        drawn = part.get("provenance")
        if not drawn:
            share = part["tokens"] / used["tokens"]
            cells.append(
                [code(part["texts"]), f"{share:.0%}", f"{part['tokens']:,}", code(part.get("sha256", "-")), "-"]
            )
            continue
        for p in drawn["parts"]:
            score = drawn.get("scores", {}).get(p["name"])
            row = [code(p["name"]), f"{p['share'] * part['tokens'] / used['tokens']:.0%}", f"{p['tokens']:,}"]
            cells.append([*row, code(p["hash"]), "-" if score is None else f"{score:.3g}"])
        aims = ", ".join(code(path) for path in drawn.get("targets", {}).values()) or "no target"
        notes.append(f"{code(part['texts'])} was chosen by {code(drawn.get('by', '-'))} for {aims}.")
        weighed = ", ".join(f"{code(n)} {s:.3g}" for n, s in drawn.get("scores", {}).items())
        notes += [f"Closeness of all that was weighed, higher is closer: {weighed}."] if weighed else []
    heads = ["set", "share", "tokens", "SHA-256 (of a file, or of the tokens drawn)", "closeness"]
    return "\n\n".join([table(heads, cells), f"{used['tokens']:,} tokens, seed {used.get('seed', '-')}.", *notes])


def _loading(record: Record, config: Record) -> str:
    auto = _head(config)[0]
    if _format(record) == ["onnx"]:
        lines = ["import onnxruntime", "", 'session = onnxruntime.InferenceSession("model.onnx")']
        return fenced("\n".join(lines), "python")
    trust = ", trust_remote_code=True" if "auto_map" in config else ""
    lines = [f"from transformers import {auto}, AutoTokenizer", "", 'path = "."  # this folder, or its name on the Hub']
    lines += [f"model = {auto}.from_pretrained(path{trust})", "tokenizer = AutoTokenizer.from_pretrained(path)"]
    text = fenced("\n".join(lines), "python")
    if trust:
        text += "\n\nThe code that it trusts is `modeling.py` and `layers.py` beside this card. Without remote code:"
    elif not _format(record):
        text += "\n\nOr:"
    ours = (
        "" if _format(record) else "\n\n" + fenced('import compress\n\nmodel, tokenizer = compress.load(".")', "python")
    )
    return text + ours


def _limits(record: Record) -> str:
    base, exam = record.get("base") or {}, record.get("exam")
    lines = []
    if exam and not _format(record):
        lines.append(f"Quality was measured on {code(exam['data'])} only; on other tasks and texts it may be lower.")
    elif exam:
        lines.append("Quality was measured before the model was written in this format, not after.")
    else:
        lines.append("What the compression costs in quality is not known: it was not measured.")
    lines.append("Latency, memory, safety and bias were not measured; the limits of the base model stay.")
    language = base.get("language")
    spoken = ", ".join(map(plain, language if isinstance(language, list) else [language])) if language else ""
    lines.append(f"Languages, by the base model's card: {spoken}." if spoken else "The languages are not recorded.")
    if not base.get("license"):
        lines.append("The licence of the base model is not known: it has no card that names one.")
    if not base.get("base_model"):
        lines.append("The base model is a local one, so that `base_model` is left out above.")
    if _sets(record):
        lines.append("`datasets` above are names of local files and candidates, perhaps not of data sets on the Hub.")
    if "reloaded" in record and not _format(record):
        lines.append(f"The model was checked {record['reloaded']}.")
    return "\n".join(f"- {line}" for line in lines)


def _format(record: Record) -> list[str]:
    """The format that export wrote, none for a folder of compress."""
    return [record["format"]] if record.get("format") else []


def _sets(record: Record) -> list[str]:
    """Names of what the calibration was drawn from, but for what is no data set."""
    used = record.get("calibration") or {}
    found = []
    for part in used.get("parts", [used] if used else []):
        drawn = part.get("provenance")
        found += [p["name"] for p in drawn["parts"]] if drawn else [_stem(part["texts"])]
    return [n for n in dict.fromkeys(found) if n not in ("self", "random", GIVEN)]


def _stem(path: str) -> str:
    return Path(path).name.partition(".")[0]


def _identifier(name: str) -> str:
    """A name as the Hub allows it for a data set, "" where nothing of it is left."""
    try:
        validate_repo_id(name)
        return name
    except ValueError:
        return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:96]


def _head(config: Record) -> tuple[str, str | None]:
    """The auto class that reads the model, and the Hub's name of its task."""
    name = (config.get("architectures") or [""])[0]
    return next((found for end, found in HEADS.items() if name.endswith(end)), ("AutoModel", None))
