"""Every term against its equation in float64, one network at a time."""

import numpy as np
import pytest
import torch

from transmeter.network import losses, modules, training


@pytest.fixture
def arrays():
    """B = 3 networks, 7 source and 5 target rows, 4 dimensions, 2 classes."""
    g = torch.Generator().manual_seed(0)
    z_s, z_t = torch.randn(3, 7, 4, generator=g).double(), torch.randn(3, 5, 4, generator=g).double()
    q_s = torch.nn.functional.one_hot(torch.randint(2, (3, 7), generator=g), 2).double()
    q_t = torch.rand(3, 5, 2, generator=g).double()
    return z_s, q_s, z_t, q_t


def test_mean_distance(arrays):
    z_s, q_s, z_t, q_t = arrays
    for b, found in enumerate(losses.mean_distance(*arrays)):
        expected = 0.0
        for c in range(2):
            m_s = np.average(z_s[b].numpy(), axis=0, weights=q_s[b, :, c].numpy())
            m_t = np.average(z_t[b].numpy(), axis=0, weights=q_t[b, :, c].numpy())
            expected += ((m_s - m_t) ** 2).sum()
        assert found.item() == pytest.approx(expected, rel=1e-12)


def test_a_class_that_one_side_lacks_counts_nothing(arrays):
    z_s, q_s, z_t, q_t = arrays
    q_s = q_s * torch.tensor([1.0, 0.0])
    only_first = losses.mean_distance(z_s, q_s, z_t, q_t * torch.tensor([1.0, 0.0]))
    torch.testing.assert_close(losses.mean_distance(z_s, q_s, z_t, q_t), only_first)
    assert losses.mean_distance(z_s, q_s * 0, z_t, q_t).tolist() == [0, 0, 0]
    assert losses.discrimination(z_s[:, :, :2], q_s * 0, z_t[:, :, :2], q_t).tolist() == [0, 0, 0]


def test_discrimination(arrays):
    z_s, q_s, z_t, q_t = arrays
    found = losses.discrimination(z_s[:, :, :2], q_s, z_t[:, :, :2], q_t)
    for b in range(3):
        expected = 0.0
        for c in range(2):
            p_s, p_t = (1 / (1 + np.exp(-z[b, :, c].numpy())) for z in (z_s, z_t))
            source = np.average(-np.log(p_s), weights=q_s[b, :, c].numpy())
            expected += (source + np.average(-np.log(1 - p_t), weights=q_t[b, :, c].numpy())) / 2
        assert found[b].item() == pytest.approx(expected, rel=1e-12)


def test_reconstruction_leaves_padding_out():
    x = torch.randn(2, 6, 5).double()
    x[1, :, 3:] = 0
    decoded = torch.randn(2, 6, 5).double()
    found = losses.reconstruction(decoded, x, torch.tensor([5, 3]))
    assert found[0].item() == pytest.approx(float(((decoded[0] - x[0]) ** 2).mean()))
    assert found[1].item() == pytest.approx(float(((decoded[1, :, :3] - x[1, :, :3]) ** 2).mean()))


def test_cross_entropy_weighs_classes_alike():
    logits = torch.randn(1, 10, 2).double()
    codes = torch.tensor([0] * 8 + [1] * 2)
    q = torch.nn.functional.one_hot(codes, 2)[None].double()
    each = torch.nn.functional.cross_entropy(logits[0], codes, reduction="none")
    expected = (each[:8].mean() + each[8:].mean()) / 2
    assert losses.cross_entropy(logits, q).item() == pytest.approx(expected.item())


def test_reversal_turns_the_gradient_around_and_nothing_else():
    z = torch.randn(2, 3, requires_grad=True)
    out = modules.reverse(z)
    assert torch.equal(out, z)
    out.square().sum().backward()
    torch.testing.assert_close(z.grad, -2 * z)


def test_a_stack_trains_like_its_members_alone():
    def stack(size):
        g = torch.Generator().manual_seed(3)
        made = [(modules.Branch(1, 4, 6, 5, g), modules.Trunk(1, 6, 5, 2, g)) for _ in range(2)][:size]
        branch, trunk = modules.Branch(size, 4, 6, 5, g), modules.Trunk(size, 6, 5, 2, g)
        for whole, parts in ((branch, [m[0] for m in made]), (trunk, [m[1] for m in made])):
            whole.load_state_dict({k: torch.cat([p.state_dict()[k] for p in parts]) for k in whole.state_dict()})
        return training.Stack(branch, trunk)

    g = torch.Generator().manual_seed(4)
    x, q = torch.randn(20, 4, generator=g), torch.nn.functional.one_hot(torch.arange(20) % 2, 2).float()

    def train(size):
        made = stack(size)
        split = {"x_t": x, "q_t": q, "train": torch.arange(20)[None]}
        data = training.Data(**split, x_u=x[:0], rows=torch.zeros(size, dtype=torch.long))
        training.fit(made, data, training.Terms(), training.Schedule(steps=5, batch=8), seed=0)
        return made.trunk.head.weight[0]

    torch.testing.assert_close(train(1), train(2), rtol=1e-4, atol=1e-5)
