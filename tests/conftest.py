"""Real tables, texts and models of `data/`, and a small random encoder."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import contextlib
import functools
import hashlib
import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, settings
from safetensors.torch import load_file, save_file
from sklearn.ensemble import (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.linear_model import LogisticRegression
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification, BertTokenizer, dynamic_module_utils

from compress import pipeline
from compress.algorithms import training
from compress.calibration.texts import batches, cut, read_texts
from compress.methods import dynamic_sparse
from compress.model import io, structure
from compress.pipeline import Step
from tests.browser import AXE, CHROMIUM, Browser
from transmeter.tables.data import load

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT / "data"
torch.set_num_threads(1)
# how long an example takes depends on what else the machine does
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")


class Deprecated(logging.Handler):
    """Makes an error of what transformers logs, and does not warn of, where something is deprecated."""

    def emit(self, record):
        if "deprecat" in record.getMessage():
            raise DeprecationWarning(record.getMessage())


logging.getLogger("transformers").addHandler(Deprecated())


def strayed(found, expected):
    """Mean square of the difference, as a share of what is expected; 2 for outputs that have nothing to do with it."""
    return float((found - expected).square().mean() / expected.square().mean())


def compressed(method, model, batches, *, seed=0, teacher=None, progress=None, **options):
    """The model that a method, given by its name or module, makes of `model`, which stays as it is."""
    name = method if isinstance(method, str) else method.__name__.rpartition(".")[2]
    return pipeline.apply(model, batches, Step(name, options), seed, teacher, progress, in_place=False)


@pytest.fixture(scope="session", autouse=True)
def code_parsed_once():
    """transformers parses the code in a model folder for its imports at every loading; here once for every text."""
    whole, known = dynamic_module_utils.get_imports, {}

    def imports(file):
        text = Path(file).read_bytes()
        if text not in known:
            known[text] = whole(file)
        return list(known[text])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dynamic_module_utils, "get_imports", imports)
        yield


FITS = 400  # that are remembered of every kind of estimator
ESTIMATORS = (
    GradientBoostingClassifier,
    GradientBoostingRegressor,
    LogisticRegression,
    RandomForestClassifier,
    RandomForestRegressor,
)


@pytest.fixture(scope="session", autouse=True)
def fitted_once():
    """scikit-learn fits an estimator of the same seed to the same rows once: tests rank by the same targets again.

    What draws by the global generator is fitted every time.
    """
    with pytest.MonkeyPatch.context() as patch:
        for kind in ESTIMATORS:
            patch.setattr(kind, "fit", remembered(kind.fit))
        yield


def remembered(fit):
    """`fit` of a class of scikit-learn that recalls the last `FITS` fits to arrays."""
    known = {}

    @functools.wraps(fit)
    def recalled(self, x, y, sample_weight=None):
        given = [x, y] if sample_weight is None else [x, y, sample_weight]
        drawn = self.random_state is None and not isinstance(self, LogisticRegression)
        if drawn or not all(isinstance(a, np.ndarray) and a.dtype != object for a in given):
            return fit(self, x, y, sample_weight)
        arrays = [(a.shape, a.dtype.str, hashlib.sha256(a.tobytes()).digest()) for a in given]
        key = repr((sorted(self.get_params().items()), arrays))
        if key not in known:
            fit(self, x, y, sample_weight)
            known[key] = dict(vars(self))
            if len(known) > FITS:
                del known[next(iter(known))]
        vars(self).update(known[key])
        return self

    return recalled


@pytest.fixture(scope="session")
def root():
    """The project's folder."""
    return ROOT


@pytest.fixture(scope="session")
def heart():
    """The four UCI heart sites by name."""
    return {n: load(str(DATA / f"tabular/heart_{n}.csv")) for n in ("cleveland", "hungarian", "switzerland", "va")}


@pytest.fixture(scope="session")
def decoder():
    """(model, tokenizer) of the real small Llama."""
    return io.load(DATA / "mixlm")


@pytest.fixture(scope="session")
def two_blocks():
    """The first two blocks of the real small Llama, for what is checked of every method."""
    model = io.load(DATA / "mixlm")[0]
    structure.keep_blocks(model, [0, 1])
    return model


@pytest.fixture(scope="session")
def small_folder(two_blocks, tokenizer, tmp_path_factory):
    """Folder of `two_blocks`, for jobs of which the size of the model proves nothing; it stays as it is."""
    return io.save(two_blocks, tokenizer, tmp_path_factory.mktemp("small") / "mixlm", {})


@pytest.fixture(scope="session")
def tokenizer():
    """The tokenizer of the real small Llama, which the random encoder shares."""
    return AutoTokenizer.from_pretrained(DATA / "mixlm")


def letter_tokenizer():
    """A BERT tokenizer of 45 tokens: letters, at the beginning of words and inside them."""
    known = [*"etaoinshrdlucmfwypvb"]
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *known, *("##" + x for x in known)]
    return BertTokenizer(vocab={name: i for i, name in enumerate(names)})


@pytest.fixture(scope="session")
def letters():
    """`letter_tokenizer`."""
    return letter_tokenizer()


@pytest.fixture(scope="session")
def encoder(tokenizer):
    """A random BERT with three classes: two blocks, four heads of 8, 48 neurons."""
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
        num_labels=3,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = BertForSequenceClassification(config).eval()
        for parameter in model.parameters():  # the default start is too flat for anything to matter
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model


@pytest.fixture(scope="session")
def texts():
    """Real texts."""
    return read_texts(DATA / "text/math.txt")


@pytest.fixture(scope="session")
def calibration(tokenizer, texts):
    """900 tokens in sequences of up to 48, in batches of 8."""
    return batches(tokenizer, cut(tokenizer, texts, 900, 48, seed=0), size=8)


@pytest.fixture(scope="session")
def reread(tmp_path_factory):
    """What another process, with transformers alone, makes of a model folder: `reread` of rereader.py."""
    work = tmp_path_factory.mktemp("reread")
    command = [sys.executable, "-P", ROOT / "tests/rereader.py"]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=work)

    def ask(folder, name, batch):
        save_file({k: v.contiguous() for k, v in batch.items()}, work / "in")
        process.stdin.write(json.dumps([str(folder), name, str(work / "in"), str(work / "out")]) + "\n")
        process.stdin.flush()
        assert process.stdout.readline() == "done\n"
        return load_file(work / "out")

    yield ask
    process.stdin.close()
    process.wait()


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """One Chromium for all tests that look at pages, which are skipped where it is not."""
    if not CHROMIUM or not AXE:
        pytest.skip("no page is looked at: there is no chromium, or no axe-core-python")
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture
def dying_at(monkeypatch):
    """A context in which every training dies at a step; reached: whether one has to come so far."""

    class Killed(Exception):
        pass

    whole = training.steps

    @contextlib.contextmanager
    def dying(number, reached=True):
        def some(*args, **kwargs):
            for step in whole(*args, **kwargs):
                if step.number == number:
                    raise Killed
                yield step

        with monkeypatch.context() as patch, pytest.raises(Killed) if reached else contextlib.nullcontext():
            patch.setattr(training, "steps", some)
            patch.setattr(dynamic_sparse, "steps", some)
            yield

    return dying


@pytest.fixture
def frame():
    """Mixed columns: numbers with gaps, categories, booleans, text labels."""
    rng = np.random.default_rng(0)
    n = 60
    y = np.arange(n) % 2
    return pd.DataFrame(
        {
            "age": np.where(rng.random(n) < 0.1, np.nan, 40 + 10 * y + rng.normal(size=n)),
            "town": rng.choice(["Seoul", "Busan", None], n),
            "member": rng.random(n) < 0.5,
            "label": np.where(y == 1, "yes", "no"),
        }
    )
