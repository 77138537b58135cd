"""A new file in compress/methods is a method of the command line and the pipeline, without another change."""

import json
import sys

import pytest
from click.testing import CliRunner

import cli
from compress import methods, pipeline
from compress.methods import method_signatures, traits
from compress.model import io
from tests.conftest import DATA
from transmeter.util.signatures import keyword_options

MODEL, TEXTS = str(DATA / "mixlm"), str(DATA / "text/math_sample.txt")
NOTHING = '''"""Nothing: the model stays as it is."""

from compress.algorithms.options import Limits


def compress(model, batches, *, limits: Limits = Limits(), bits: int = 4, group: int | None = None):
    """Note the options in the config; they are called as those of quantizers are."""
    model.config.noted = [limits.share, bits]
    return model
'''


@pytest.fixture
def nothing(tmp_path, monkeypatch):
    """The name of a method in a folder of its own."""
    (tmp_path / "methods").mkdir()
    (tmp_path / "methods/nothing.py").write_text(NOTHING)
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(tmp_path / "methods")])
    yield "nothing"
    sys.modules.pop("compress.methods.nothing", None)
    vars(methods).pop("nothing", None)


def test_command_line_and_pipeline_take_a_new_file(nothing, tmp_path):
    listing = CliRunner().invoke(cli.main, ["methods"]).output
    assert "nothing: Nothing: the model stays as it is." in listing and "--set bits=4" in listing
    options = [option.name for option in keyword_options(method_signatures()[nothing])]
    assert options == ["ratio", "parameters", "bytes", "latency", "bits", "group"]
    words = ["compress", MODEL, "--method", nothing, "--set", "bits=3", "--set", "ratio=0.2", "--method", "wanda"]
    words += ["--calibration", TEXTS, "--tokens", "200", "--out", str(tmp_path / "m")]
    done = CliRunner().invoke(cli.main, words)
    assert done.exit_code == 0, done.output
    steps = json.loads((tmp_path / "m/compression.json").read_text())["steps"]
    assert [(s["method"], s["options"]) for s in steps] == [(nothing, {"bits": 3, "ratio": 0.2}), ("wanda", {})]
    assert io.load(tmp_path / "m")[0].config.noted == [0.2, 3]


def test_what_a_method_does_is_declared_not_read_from_its_options(nothing):
    assert not traits(nothing).quantizes and not methods.quantizes(nothing)
    steps = [pipeline.Step(name, {}) for name in (nothing, "svd", nothing, "wanda", "gptq")]
    pipeline.check_steps(steps, texts=True)
    with pytest.raises(ValueError, match="quantized weights do not change, quantize last"):
        pipeline.check_steps([*steps, pipeline.Step(nothing, {})], texts=True)
    with pytest.raises(ValueError, match="ratio and bytes are both given: give one limit"):
        pipeline.check_steps([pipeline.Step(nothing, {"ratio": 0.5, "bytes": 10})], texts=True)
