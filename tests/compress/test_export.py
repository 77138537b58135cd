"""Other tools' formats, reread in a process that has only transformers and the format's library."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from transformers import AutoModelForCausalLM

from cli import main
from compress import export
from compress.methods import magnitude, round_to_nearest
from compress.model import io
from tests.conftest import DATA, compressed
from transmeter.util.checkpoint import bytes_of

MODEL = str(DATA / "mixlm")


@pytest.fixture(scope="module")
def folders(tmp_path_factory, encoder, decoder, calibration):
    """Small models in folders, by what was done to them."""
    out = tmp_path_factory.mktemp("models")
    made = {
        "encoder": encoder,
        "pruned": compressed(magnitude, decoder[0], calibration, ratio=0.3),
        "asymmetric": compressed(round_to_nearest, decoder[0], []),
        "grouped": compressed(round_to_nearest, decoder[0], [], symmetric=True),
        "rows": compressed(
            round_to_nearest, decoder[0], [], bits=8, group=None, symmetric=True, embeddings=True, head=True
        ),
    }
    for name, model in made.items():
        io.save(model, decoder[1], out / name, {})
    return out


@pytest.fixture
def here(monkeypatch):
    """What reads a folder again runs in this process, as importing torch anew takes seconds."""

    def run(command, **options):
        monkeypatch.setattr(sys, "argv", command[2:])
        exec(command[2], {})
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(export.subprocess, "run", run)


def test_a_new_process_rereads_what_is_written(folders, tmp_path):
    export.export(str(folders / "grouped"), "compressed-tensors", tmp_path / "m")
    assert not (tmp_path / "m/logits.npy").exists()
    with pytest.raises(RuntimeError, match="what was written cannot be reread: ValueError: no such thing"):
        export._compare("raise ValueError('no such thing')", tmp_path, [], np.zeros(1), 0.0)


@pytest.mark.parametrize("name", ["grouped", "rows"])
@pytest.mark.usefixtures("here")
def test_compressed_tensors_reload_to_our_logits(name, folders, tmp_path, calibration):
    export.export(str(folders / name), "compressed-tensors", tmp_path / "m")
    ours = io.load(folders / name)[0]
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32)
    with torch.no_grad():
        found, wanted = theirs(**calibration[0]).logits, ours(**calibration[0]).logits
    torch.testing.assert_close(found, wanted, rtol=0, atol=0 if name == "grouped" else 0.02)  # embeddings in fp16
    if name == "grouped":
        assert bytes_of(tmp_path / "m") < 1.01 * bytes_of(folders / name)


@pytest.mark.parametrize("shape", ["torchao", "torchao-dynamic"])
@pytest.mark.usefixtures("here")
def test_torchao_stays_near_the_model(shape, tmp_path, calibration, decoder):
    export.export(MODEL, shape, tmp_path / "m")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "m", dtype=torch.float32)
    assert type(theirs.model.layers[0].mlp.up_proj.weight).__name__ == "Int8Tensor"
    with torch.no_grad():
        found, wanted = theirs(**calibration[0]).logits, decoder[0](**calibration[0]).logits
    assert 0 < (found - wanted).square().mean() < 0.01 * wanted.square().mean()
    assert json.loads((tmp_path / "m/export.json").read_text())["format"] == shape


def test_onnx_gives_the_logits_of_any_batch(folders, tmp_path, encoder):
    import onnxruntime

    export.export(str(folders / "encoder"), "onnx", tmp_path / "m")
    session = onnxruntime.InferenceSession(str(tmp_path / "m/model.onnx"))
    ids = torch.randint(5, 4000, (3, 11))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": torch.zeros_like(ids)}
    found = session.run(None, {x.name: given[x.name].numpy() for x in session.get_inputs()})[0]
    with torch.no_grad():
        np.testing.assert_allclose(found, encoder(**given).logits.numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "name, shape, message",
    [
        ("asymmetric", "compressed-tensors", r"\(4 bits, asymmetric\): quantize with .*symmetric=true"),
        ("pruned", "compressed-tensors", "holds layers on a uniform grid, .* is none"),
        ("encoder", "compressed-tensors", "holds layers on a uniform grid, there is none"),
        ("pruned", "torchao", "torchao holds plain models, model.layers.0.* is changed"),
        ("pruned", "onnx", "onnx is for encoders, .*generates: give another format"),
    ],
)
def test_what_a_format_cannot_say_is_refused(name, shape, message, folders, tmp_path):
    with pytest.raises(ValueError, match=message):
        export.export(str(folders / name), shape, tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("here")
def test_a_difference_is_an_error_and_leaves_nothing(tmp_path, monkeypatch):
    logits = export._logits
    monkeypatch.setattr(export, "_logits", lambda model: logits(model) + 0.1)
    with pytest.raises(RuntimeError, match="differs when it is reread"):
        export.export(MODEL, "torchao", tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_library_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(export, "find_spec", lambda name: None)
    run = CliRunner().invoke(main, ["export", MODEL, "--format", "onnx", "--out", str(tmp_path / "m")])
    assert run.exit_code == 2 and "onnx needs onnx, onnxscript, onnxruntime: pip install" in run.output
