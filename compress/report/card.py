"""The model card: README.md of a model folder, made of the folder's compression.json (export.json) and config.json.

What it says is in card.md.jinja, and nothing is known to the card alone. The format is the Hub's,
https://huggingface.co/docs/hub/model-cards.
"""

import json
import math
import re
import shlex
import sys
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from huggingface_hub.utils import validate_repo_id
from jinja2 import Environment

from compress.methods import methods, quantizes
from compress.report.markdown import code, fenced, plain
from compress.report.tables import KNOWN, interval, is_change, windows
from transmeter.util import writing

Record = Mapping[str, Any]
# names of metrics on the Hub that are others there
HUB_METRICS = {"macro_f1": "f1", "spearman": "spearmanr", "pearson": "pearsonr"}
# auto class and task of the Hub, by the end of a class's name
HEADS = {
    "LMHeadModel": ("AutoModelForCausalLM", "text-generation"),
    "ForCausalLM": ("AutoModelForCausalLM", "text-generation"),
    "ForSequenceClassification": ("AutoModelForSequenceClassification", "text-classification"),
    "ForTokenClassification": ("AutoModelForTokenClassification", "token-classification"),
    "ForQuestionAnswering": ("AutoModelForQuestionAnswering", "question-answering"),
    "ForMaskedLM": ("AutoModelForMaskedLM", "fill-mask"),
    "Model": ("AutoModel", "feature-extraction"),
}
GIVEN = "texts given in Python"  # in the place of a file's name
QUANTIZED = ("compressed-tensors", "torchao", "torchao-dynamic")  # formats of export that round weights
ROUNDED = ("q8_0", "q5_1", "q4_1", "q4_0")  # types of weights of gguf that do


def write_card(folder: Path) -> None:
    """Write README.md into a folder of compress or export, over what is there.

    Parameters
    ----------
    folder
        With config.json, and compression.json or export.json.

    Raises
    ------
    OSError
        It cannot be written.
    """
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    file = next(f for f in (folder / "export.json", folder / "compression.json") if f.exists())
    record = json.loads(file.read_text(encoding="utf-8"))
    writing.write_text(folder / "README.md", render(record, config))


def render(record: Record, config: Record) -> str:
    """The model card as a text.

    Parameters
    ----------
    record
        What compression.json or export.json says.
    config
        What config.json says.

    Returns
    -------
    str
        Markdown, in which nothing that comes from outside has a meaning.
    """
    environment = Environment(trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True)
    filters = {"code": code, "plain": plain, "fenced": fenced, "cell": _cell, "thousands": _thousands}
    environment.filters |= filters | {"interval": interval, "windows": windows}
    template = environment.from_string(resources.files("compress.report").joinpath("card.md.jinja").read_text("utf-8"))
    measured = _measured(record)
    first, last = (measured[i][1].get("bytes") for i in (0, -1))
    return template.render(
        record=record,
        base=record.get("base") or {},
        steps=record.get("steps", ()),
        format=record.get("format"),
        exam=record.get("exam") or {},
        calibration=record.get("calibration"),
        texts=[(part, part.get("provenance")) for part in _texts(record)],
        datasets=_datasets(record),
        sizes=[(name, after) for name, after in measured if "bytes" in after],
        qualities=[(name, m, v) for name, after in measured for m, v in after.items() if m in KNOWN or is_change(m)],
        shrunk=(first / 1e6, last / 1e6, first / last) if len(measured) > 1 and first and last else None,
        front=_front(record, config),
        title=_title(record),
        commands=commands(record),
        about=_about,
        auto_class=_head(config)[0],
        remote="auto_map" in config,
    )


def commands(record: Record) -> list[str]:
    """The commands that make a model.

    Parameters
    ----------
    record
        What compression.json or export.json says of it.

    Returns
    -------
    list of str
        Lines for a shell; none for a model that was made in Python.
    """
    arguments, shape = record.get("arguments"), record.get("format")
    source, lines = str(record.get("exported") or record.get("base_model")), []
    if arguments:
        words = ["compress", str(record["base_model"])]
        for step in record["steps"]:
            words += ["--method", step["method"]]
            for option, value in step["options"].items():
                words += ["--set", f"{option}={str(value).lower() if isinstance(value, bool) else value}"]
        for option, value in arguments.items():
            words += [] if value is None else _words(option, value)
        source = _title({**record, "format": None})
        lines.append([*words, "--out", source])
    if shape:
        kind = ["--weights", str(record["weights"])] if record.get("weights") else []
        lines.append(["export", source, "--format", shape, *kind, "--out", _title(record)])
    return [shlex.join(["transmeter", *map(plain, words)]) for words in lines]


def _words(option: str, value: object) -> list[str]:
    """An option as it is typed; one that is True has no value."""
    name = f"--{option.replace('_', '-')}"
    return [name] if value is True else [name, str(value)]


def _title(record: Record) -> str:
    """What the model is called: its base and what was done to it."""
    base = Path(str(record.get("base_model") or "model")).name or "model"
    return re.sub(r"[^\w.-]+", "-", "-".join([base, *_tags(record)]))


def _tags(record: Record) -> list[str]:
    """The methods in their order, and the format that export wrote."""
    steps = [step["method"] for step in record.get("steps", ())]
    return [*steps, record["format"]] if record.get("format") else steps


def _measured(record: Record) -> list[tuple[str, Record]]:
    """(step, sizes and quality after it), first "before"; what is not known is left out of the second."""
    steps = [(step["method"], step.get("after") or {}) for step in record.get("steps", ())]
    if record.get("format"):
        steps.append((record["format"], {"bytes": record["bytes"]}))
    return [("before", record.get("before") or {}), *steps]


def _about(method: str) -> str:
    """The first paragraph of the documentation of a method, "" for one that there is no more."""
    function = methods().get(method)
    return (sys.modules[function.__module__].__doc__ or "").split("\n\n")[0] if function else ""


def _front(record: Record, config: Record) -> str:
    """The YAML between the dashes."""
    base, tags, results = record.get("base") or {}, _tags(record), _results(record, config)
    rounded = record.get("format") in QUANTIZED or record.get("weights") in ROUNDED
    quantized = rounded or any(quantizes(step["method"]) for step in record.get("steps", ()))
    data = ModelCardData(
        base_model=base.get("base_model") or None,
        datasets=[n for n in map(_identifier, _datasets(record)) if n] or None,
        eval_results=results or None,
        language=base.get("language"),
        library_name=record["format"] if record.get("format") in ("onnx", "gguf") else "transformers",
        license=base.get("license"),
        license_name=base.get("license_name"),
        license_link=base.get("license_link"),
        metrics=sorted({result.metric_type for result in results}) or None,
        model_name=_title(record) if results else None,
        pipeline_tag=_head(config)[1],
        tags=["transmeter", "model-compression", *tags],
        base_model_relation=("quantized" if quantized else "finetune") if base.get("base_model") else None,
    )
    return data.to_yaml()


def _results(record: Record, config: Record) -> list[EvalResult]:
    """What was measured on the finished model, as the Hub's model-index takes it."""
    if record.get("format"):  # what was measured is the model before it was rounded and written anew
        return []
    file = _stem((record.get("exam") or {}).get("data", ""))
    return [
        EvalResult(
            task_type=_head(config)[1] or "other",
            dataset_type=_identifier(file) or "local",
            dataset_name=plain(file) or "local",
            metric_type=HUB_METRICS.get(metric, metric),
            metric_name=metric,
            metric_value=value["value"],
            metric_args={"ci_95": [value["ci_low"], value["ci_high"]], "n": value["n"]},
        )
        for metric, value in _measured(record)[-1][1].items()
        if metric in KNOWN and math.isfinite(value["value"])
    ]


def _texts(record: Record) -> list[Record]:
    """The parts of the calibration data, each of one source of texts."""
    calibration = record.get("calibration")
    return calibration.get("parts", [calibration]) if calibration else []


def _datasets(record: Record) -> list[str]:
    """Names of what the calibration data was sampled from, but for what is not a data set."""
    names = []
    for text in _texts(record):
        sample = text.get("provenance")
        names += [part["name"] for part in sample["parts"]] if sample else [_stem(text["texts"])]
    return [n for n in dict.fromkeys(names) if n not in ("self", "random", GIVEN)]


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
    return next((head for end, head in HEADS.items() if name.endswith(end)), ("AutoModel", None))


def _cell(text: object) -> str:
    """A foreign text as code in a table."""
    return code(text).replace("|", "\\|")


def _thousands(number: float | None) -> str:
    """A number, or "-" for none, with commas and without decimals."""
    return "-" if number is None else f"{number:,.0f}"
