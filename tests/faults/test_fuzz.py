"""A few of the generated bad inputs; `benchmarks/batch_scale.py --part fuzz` runs 10,000."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
from tests.faults.fuzz import bad_inputs, wrong  # noqa: E402


@pytest.mark.parametrize("seed", [1, 2])
def test_a_bad_input_ends_with_exit_2_and_one_line_and_nothing_is_written(tmp_path, monkeypatch, seed):
    monkeypatch.setattr("platformdirs.user_cache_dir", lambda name: str(tmp_path / "app"))
    for number, case in enumerate(bad_inputs(seed, 90)):
        folder = tmp_path / str(number)
        folder.mkdir()
        assert wrong(case, folder) is None, case
