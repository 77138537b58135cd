"""The examples run as they are, and what they print is what they are there to show."""

import re
import runpy
from pathlib import Path

import pytest

from compress import pipeline, recipe
from compress.methods import SHARED, methods
from compress.model import io
from transmeter.util.signatures import convert

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted((ROOT / "examples").glob("*.py"))


def rank_tables(said):
    """The pick is the source that helps, and it does."""
    assert re.search(r"1 +hungarian .* helps", said) and "the pick: hungarian" in said
    picked, alone = (float(x) for x in re.findall(r"^(?:with the pick|alone) +([\d.]+)%$", said, re.MULTILINE))
    assert picked > alone


def prune_decoder(said):
    """The chosen texts are those of the task, and the model pruned with them is the better one."""
    before, random, chosen = (float(x) for x in re.findall(r"perplexity ([\d.]+) \(", said))
    assert before < chosen < random and "README.md" in said and "calibrated on {'math': " in said


def score_catalogue(said):
    """Every pair is scored."""
    assert "36 pairs, 0 failed" in said and "heart_cleveland   heart_statlog" in said


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_it_runs_and_shows_what_it_says(script, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "app"))
    runpy.run_path(str(script))
    globals()[script.stem](capsys.readouterr().out)


def test_scripts_are_short_and_begin_with_their_story():
    assert [p.stem for p in SCRIPTS] == ["prune_decoder", "rank_tables", "score_catalogue"]
    for script in SCRIPTS:
        text = script.read_text()
        assert len(text.splitlines()) < 60 and text.startswith('"""') and f"python examples/{script.name}" in text


def test_the_recipe_names_what_is_there_and_fits_its_model():
    found = recipe.read(ROOT / "examples/small_math.yaml", methods())
    steps = [pipeline.Step(s.method, convert(methods()[s.method], s.settings, SHARED)) for s in found.steps]
    pipeline.check_steps(steps, texts=True)
    pipeline.check_fit(steps, *io.skeleton(found.model))
    assert found.data.exists() and Path(found.calibration).exists() and found.tokens == 20_000
