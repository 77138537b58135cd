"""The shipped forests, what a skill is as a gain, and the fit on pairs that are known."""

import importlib
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from transmeter.util.intervals import half_width
from transmeter.zero_shot import prior
from transmeter.zero_shot.features import ZeroShotFeatures, regressors

FIELDS = list(ZeroShotFeatures.__dataclass_fields__)


@pytest.fixture(scope="module")
def fit(root):
    """The benchmark that fits prior.npz."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(root / "benchmarks"))  # as of a script, which imports its neighbours
        return importlib.import_module("fit_no_label_prior")


def test_the_shipped_forests_see_every_feature(root):
    shipped = prior.load_prior()
    for forest, count in ((shipped.alone, len(FIELDS)), (shipped.among, len(FIELDS) + 3)):
        forest.trees.check(count)
        assert set(range(count)) == set(np.unique(forest.trees.feature[forest.trees.left >= 0]))
        assert forest.scale > 0 and np.isfinite(forest.trees.value).all()
    assert (root / "transmeter/zero_shot/prior.npz").stat().st_size < 400_000


def test_a_saved_model_is_what_it_was():
    shipped = prior.load_prior()
    again = prior.ZeroShotPrior.restore({name: array.copy() for name, array in shipped.arrays().items()})
    x = np.linspace(0, 1, len(FIELDS))[None]
    assert again.alone.predict(x) == shipped.alone.predict(x)
    assert again.among.scale == shipped.among.scale


def test_a_skill_is_a_gain_in_points_over_guessing():
    gain = prior.gain_of(0.5, 0.1, 2, 200, 300)
    reach = half_width(5.0, prior.TAIL)
    assert (gain.mean, gain.low, gain.high) == pytest.approx((25, 25 - reach, 25 + reach))
    assert gain.verdict == "helps"
    assert prior.gain_of(0.5, 0.1, 4, 200, 300).mean == pytest.approx(37.5)
    wide = prior.gain_of(0.9, 0.9, 2, 200, 300)
    assert (wide.low, wide.high) == (-50, 50) and wide.verdict == "likely helps"
    assert prior.gain_of(0.0, 0.1, 2, 200, 300).p_negative == 0.5


def test_few_rows_of_either_side_make_a_gain_unsure():
    few = prior.gain_of(0.5, 0.1, 2, 20, 300)
    chance = 4 * 3 / 16 * 2 * (1 / 20 - 1 / 80)  # of 3 right rows in 4, classes unequal, less that of 80 rows
    assert few.mean - few.low == pytest.approx(half_width(50 * (0.1**2 + chance) ** 0.5, prior.TAIL))
    tiny = prior.gain_of(0.5, 0.1, 2, 200, 10)
    assert tiny.mean - tiny.low == pytest.approx(half_width(50 * (0.1**2 + 0.075) ** 0.5, prior.TAIL))
    assert prior.gain_of(0.6, 0.1, 2, 3, 300).verdict != "helps" != prior.gain_of(0.6, 0.1, 2, 200, 3).verdict


def test_a_source_whose_model_is_surer_is_expected_to_be_better(features_of):
    good, poor = features_of(0.9), features_of(0.05)
    shipped = prior.load_prior()
    x = regressors([good, poor])
    means, _ = shipped.alone.predict(x)
    assert means[0] > means[1] + 0.3
    agreed = np.column_stack([x[[0, 0]], [[0.8, 0.8, 2.0], [-0.4, -0.4, 2.0]]])
    means, _ = shipped.among.predict(agreed)
    assert means[0] > means[1] + 0.05


@pytest.fixture
def features_of():
    """Features of a pair alike in all but the accuracy of the source on itself and what follows from it."""
    usual = {name: 0.0 for name in FIELDS} | {"classes": 2, "shared": 1.0, "size": 2.7, "rows": 2.5}
    usual |= {"unit_agreement": 0.9, "neighbour_agreement": 0.8, "own_neighbour_agreement": 0.8, "outside": 0.05}

    def made(skill):
        told = ("skill", "weighted_skill", "confidence", "own_confidence", "changed", "expected", "smoothness")
        return replace(ZeroShotFeatures(**usual), **dict.fromkeys(told, skill))

    return made


def test_the_fit_learns_a_skill_and_how_far_it_may_be_off(fit):
    rng = np.random.default_rng(0)
    pairs = pd.DataFrame(rng.random((600, len(FIELDS))), columns=FIELDS)
    pairs["skill_there"] = pairs["skill"] + 0.1 * rng.normal(size=600)
    pairs["group"], pairs["problem"] = np.arange(600) // 20, np.arange(600) // 5
    pairs[[f"agreement_{i}" for i in range(5)]] = np.eye(5)[np.arange(600) % 5]
    fitted = fit.fit(pairs)
    x = rng.random((200, len(FIELDS)))
    means, deviations = fitted.alone.predict(x)
    assert np.corrcoef(means, x[:, FIELDS.index("skill")])[0, 1] > 0.9
    assert 0.08 < deviations.mean() < 0.25
    others = fit.others_of(pairs, np.ones(600))
    assert (others[:, :2] == 0).all() and others[0, 2] == 4
