"""Source data sets with their pre-trained classifiers, trained once, saved as safetensors + JSON, and reused."""

import hashlib
import json
import logging
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from transmeter.network.modules import Branch, Trunk
from transmeter.network.training import Data, Schedule, Stack, Terms, fit
from transmeter.tables.data import Table
from transmeter.tables.encoding import Encoder
from transmeter.util import writing
from transmeter.util.code_version import code_version
from transmeter.util.ridge import loo_skill

LOG = logging.getLogger(__name__)
WIDTH, HIDDEN = 32, 32  # of the transformation and of the common representation
# noisy inputs and decay: what a source's classifier learns by heart does not transfer
SCHEDULE, TERMS = Schedule(steps=300, rate=3e-3, decay=0.3, batch=128, noise=0.5), Terms(reconstruction=0.1)


# the code that trains a classifier, with the settings above: what other code trained is not used
CODE = tuple(f"network/{name}.py" for name in ("losses", "modules", "source", "training")) + ("tables/encoding.py",)


@dataclass(frozen=True)
class Classifier:
    """The networks of one source, stacks of one.

    Attributes
    ----------
    branch : Branch
        Transformation T and decoder D.
    trunk : Trunk
        Encoder E and head C.
    """

    branch: Branch
    trunk: Trunk


@dataclass
class Encoded:
    """A table as numbers, which are computed when first asked for.

    Attributes
    ----------
    table : Table
        The table.
    """

    table: Table

    @cached_property
    def encoder(self) -> Encoder:
        """Fitted on the features of all rows."""
        return Encoder(self.table.features)

    @cached_property
    def x(self) -> torch.Tensor:
        """(n, d) float32."""
        return torch.from_numpy(self.encoder(self.table.features))

    @cached_property
    def directions(self) -> np.ndarray:
        """(d, min(n, d)) principal directions of x, the longest first."""
        x = self.x.numpy().astype(np.float64)
        return np.linalg.svd(x - x.mean(0), full_matrices=False)[2].T


@dataclass
class Source(Encoded):
    """A source table; `classifier` is trained when a scorer first asks for it.

    Attributes
    ----------
    cache : Path or None
        Folder in which classifiers are kept between runs; None keeps none.
    seed : int
        Seed of the classifier.
    """

    cache: Path | None = None
    seed: int = 0

    @cached_property
    def classifier(self) -> Classifier:
        """Pre-trained on the labelled rows with cross-entropy and reconstruction; from the cache where it is there."""
        path = self.cache / f"{self._key()}.safetensors" if self.cache else None
        if path and path.exists():
            LOG.info("%s: its classifier is read from %s", self.table.name, path)
            return load_classifier(path)
        LOG.info("%s: its classifier is trained on %d rows", self.table.name, int((self.table.codes >= 0).sum()))
        classifier = fit_source(self.table, self.x, self.seed)
        if path:
            save_classifier(classifier, path, self.table, self.encoder.names)
        return classifier

    @cached_property
    def skill(self) -> float:
        """Leave-one-out accuracy above chance of a ridge on at most 2,000 of its rows."""
        rows = np.flatnonzero(self.table.codes >= 0)
        rows = np.random.default_rng(self.seed).permutation(rows)[:2000]
        return loo_skill(self.x[rows].numpy(), self.table.codes[rows])

    def _key(self) -> str:
        """Of everything that training sees; not of the columns' names, so that a renamed table is not trained anew."""
        settings = [code_version(*CODE), self.seed, self.table.features.shape]
        digest = hashlib.sha256(json.dumps(settings).encode())
        digest.update(pd.util.hash_pandas_object(self.table.features, index=False).to_numpy().tobytes())
        digest.update(self.table.codes.tobytes())  # not of the classes' names either
        return digest.hexdigest()[:32]


def fit_source(table: Table, encoded: torch.Tensor, seed: int) -> Classifier:
    """Train T, E, C and D on the labelled rows.

    Parameters
    ----------
    table : Table
        With labels.
    encoded : Tensor of shape (n, d)
        Its rows as numbers.
    seed : int
        Seed of layers and batches.

    Returns
    -------
    Classifier
        Trained with cross-entropy and reconstruction.
    """
    generator = torch.Generator().manual_seed(seed)
    codes = torch.from_numpy(table.codes)
    features, classes = encoded.shape[1], len(table.classes)
    stack = Stack(Branch(1, features, WIDTH, HIDDEN, generator), Trunk(1, WIDTH, HIDDEN, classes, generator))
    data = Data(
        x_t=encoded,
        q_t=torch.nn.functional.one_hot(codes.clamp_min(0), classes).float(),
        train=(codes >= 0).nonzero().T,
        x_u=encoded[codes < 0],
        rows=torch.tensor([0]),
    )
    fit(stack, data, TERMS, SCHEDULE, seed)
    return Classifier(stack.target, stack.trunk)


def save_classifier(classifier: Classifier, path: Path, table: Table, names: list[str]) -> None:
    """Write the weights, and beside them a JSON file of what they belong to.

    Parameters
    ----------
    classifier : Classifier
        Networks of the source.
    path : Path
        File to write, .safetensors.
    table : Table
        The source.
    names : list of str
        Names of the encoded features.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {"source": table.name, "rows": len(table), "classes": list(table.classes), "features": names}
    writing.write_json(path.with_suffix(".json"), about)
    tensors = {f"branch.{k}": v for k, v in classifier.branch.state_dict().items()}
    with writing.replacing(path) as partial:
        save_file(tensors | {f"trunk.{k}": v for k, v in classifier.trunk.state_dict().items()}, partial)


def load_classifier(path: Path) -> Classifier:
    """Read what `save_classifier` wrote.

    Parameters
    ----------
    path : Path
        A .safetensors file.

    Returns
    -------
    Classifier
        In the sizes of the file.

    Raises
    ------
    ValueError
        For a file that is not a classifier.
    """
    try:
        tensors = load_file(path)
        features, width = tensors["branch.transform.weight"].shape[1:]
        hidden, classes = tensors["trunk.head.weight"].shape[1:]
        generator = torch.Generator().manual_seed(0)
        found = Classifier(Branch(1, features, width, hidden, generator), Trunk(1, width, hidden, classes, generator))
        for name, module in (("branch", found.branch), ("trunk", found.trunk)):
            module.load_state_dict({k.removeprefix(name + "."): v for k, v in tensors.items() if k.startswith(name)})
    except (SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise ValueError(f"{path} holds no source classifier ({error}): delete it") from None
    return found
