"""The training loop: paces, noise, what a source's classifier teaches; and its neutrality to everything outside."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from transmeter.network.modules import Branch, Trunk, represent
from transmeter.network.training import Data, Schedule, Stack, Terms, fit

SHORT, PLAIN = Schedule(steps=12), Terms()


@pytest.fixture
def data():
    """Two splits of 20 labelled rows with 4 features, 10 unlabelled rows, no source."""
    g = torch.Generator().manual_seed(0)
    codes = torch.arange(20) % 2
    x = torch.randn(20, 4, generator=g) + 2 * codes[:, None]
    return Data(
        x_t=x,
        q_t=F.one_hot(codes, 2).float(),
        train=torch.stack([torch.arange(0, 10), torch.arange(10, 20)]),
        x_u=torch.randn(10, 4, generator=g),
        rows=torch.tensor([0]),
    )


def stack(networks=2):
    """Fresh networks, the same at every call."""
    g = torch.Generator().manual_seed(1)
    return Stack(Branch(networks, 4, 6, 5, g), Trunk(networks, 6, 5, 2, g))


def weights(found):
    """Copies of all weights."""
    return [p.detach().clone() for p in found.parameters()]


def trained(data, pace=None, schedule=SHORT, terms=PLAIN, seed=0):
    """A fresh stack after training; pace: of every parameter."""
    found = stack()
    if pace is not None:
        found.pace = {p: torch.full_like(p, pace) for p in found.parameters()}
    fit(found, data, terms, schedule, seed)
    return found


def test_pace_zero_stands_still_and_pace_one_is_none(data):
    plain = weights(trained(data))
    for still, start in zip(weights(trained(data, pace=0.0)), weights(stack())):
        assert torch.equal(still, start)
    for full, without in zip(weights(trained(data, pace=1.0)), plain):
        torch.testing.assert_close(full, without, rtol=0, atol=1e-7)
    moved = [sum((a - b).norm() for a, b in zip(weights(trained(data, pace=p)), weights(stack()))) for p in (0.3, 1.0)]
    assert 0 < moved[0] < moved[1]


def test_a_pace_belongs_to_single_values(data):
    found = stack()
    share = torch.ones_like(found.target.transform.weight)
    share[0, 1:3] = 0
    found.pace = {found.target.transform.weight: share}
    fit(found, data, Terms(), Schedule(steps=8), seed=0)
    moved = (found.target.transform.weight - stack().target.transform.weight).abs() > 0
    assert not moved[0, 1:3].any() and moved[0, [0, 3]].any(1).all() and moved[1].any(1).all()


def test_training_learns_its_split_and_the_same_each_time(data):
    found = trained(data, schedule=Schedule(steps=60, rate=1e-2))
    z = represent(found.target, found.trunk, data.x_t.expand(2, -1, -1))
    right = found.trunk.head(z).argmax(2) == data.q_t.argmax(1)
    assert right.gather(1, data.train).float().mean() > 0.9
    for a, b in zip(weights(trained(data)), weights(trained(data))):
        assert torch.equal(a, b)
    assert any(not torch.equal(a, b) for a, b in zip(weights(trained(data)), weights(trained(data, seed=1))))


def test_noise_lets_less_be_learned_by_heart(data):
    codes = torch.randint(2, (20,), generator=torch.Generator().manual_seed(3))
    by_heart = replace(data, q_t=F.one_hot(codes, 2).float())  # labels that have nothing to do with the features

    def loss(noise):
        found = trained(by_heart, schedule=Schedule(steps=150, rate=1e-2, noise=noise))
        logits = found.trunk.head(represent(found.target, found.trunk, data.x_t[data.train]))
        return F.cross_entropy(logits.flatten(0, 1), codes[data.train].flatten()).item()

    assert loss(0.0) < 0.1 < 0.4 < loss(3.0)


def test_what_is_taught_of_unlabelled_rows_is_learned(data):
    taught = torch.zeros(1, 10, 2)
    taught[0, :, 1] = (data.x_u[:, 0] > 0).float()
    taught[0, :, 0] = 1 - taught[0, :, 1]
    schedule = Schedule(steps=150, rate=1e-2)

    def agree(found):
        guess = found.trunk.head(represent(found.target, found.trunk, data.x_u.expand(2, -1, -1))).argmax(2)
        return float((guess == taught[0].argmax(1)).float().mean())

    without = trained(data, schedule=schedule)
    off = trained(replace(data, taught=taught), schedule=schedule, terms=Terms(distillation=0.0))
    assert agree(trained(replace(data, taught=taught), schedule=schedule)) > agree(without) + 0.2
    for a, b in zip(weights(without), weights(off)):
        assert torch.equal(a, b)


def test_rows_about_which_nothing_is_known_teach_nothing(data):
    """Zero memberships give no gradient: only the draws of rows change."""
    from transmeter.network.losses import cross_entropy

    logits = torch.randn(2, 10, 2, requires_grad=True)
    loss = cross_entropy(logits, torch.zeros(2, 10, 2))
    assert loss.tolist() == [0, 0]
    loss.sum().backward()
    assert (logits.grad == 0).all()


def test_threads_and_global_randomness_are_as_before(data):
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    with torch.no_grad():  # sources are trained wherever they are first asked for
        trained(data)
    assert torch.get_num_threads() == threads and torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("make", [lambda: Terms(distillation=-1.0), lambda: Terms(source_loss=float("nan"))])
def test_weights_that_are_none_are_refused(make):
    with pytest.raises(ValueError, match="give a number of at least 0"):
        make()
    with pytest.raises(ValueError, match="steps 0 is too few"):
        Schedule(steps=0)
