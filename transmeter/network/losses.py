"""The terms of Transmeter's loss, for B stacked networks at once; each gives (B,).

Membership q (B, n, classes) says how much of a row belongs to a class: one-hot for labelled rows, the
probabilities of a pseudo-label for unlabelled target rows, zero for rows of a class that the other side does not have.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def cross_entropy(logits: Tensor, q: Tensor) -> Tensor:
    """CE = mean over classes c of -sum_i q_ic log softmax(logits_i)_c / sum_i q_ic.

    Every class that is there weighs the same, since balanced accuracy is what counts.

    Parameters
    ----------
    logits : Tensor of shape (B, n, classes)
        Outputs of the classifier.
    q : Tensor of shape (B, n, classes)
        Memberships.

    Returns
    -------
    Tensor of shape (B,)
        The loss of every network.
    """
    each = -(q * F.log_softmax(logits, 2)).sum(1) / q.sum(1).clamp_min(1e-9)
    return each.sum(1) / (q.sum(1) > 0).sum(1).clamp_min(1)


def reconstruction(decoded: Tensor, x: Tensor, features: Tensor) -> Tensor:
    """mean_i |D z_i - x_i|^2 / d.

    Parameters
    ----------
    decoded, x : Tensor of shape (B, n, d)
        Decoded and true features, padded with zeros.
    features : Tensor of shape (B,)
        The true d of every network.

    Returns
    -------
    Tensor of shape (B,)
        The loss of every network.
    """
    d = torch.arange(x.shape[2]) < features[:, None, None]
    return ((decoded - x).square() * d).mean(1).sum(1) / features.clamp_min(1)


def mean_distance(z_s: Tensor, q_s: Tensor, z_t: Tensor, q_t: Tensor) -> Tensor:
    """sum_c |mean_c(z_s) - mean_c(z_t)|^2 over the classes that both sides have.

    Parameters
    ----------
    z_s, z_t : Tensor of shape (B, n, h)
        Representations of source and target rows.
    q_s, q_t : Tensor of shape (B, n, classes)
        Their memberships.

    Returns
    -------
    Tensor of shape (B,)
        The loss of every network.
    """
    both = (q_s.sum(1) > 0) & (q_t.sum(1) > 0)  # (B, classes)
    return ((class_means(z_s, q_s) - class_means(z_t, q_t)).square().sum(2) * both).sum(1)


def class_means(z: Tensor, q: Tensor) -> Tensor:
    """Mean representation of every class.

    Parameters
    ----------
    z : Tensor of shape (B, n, h)
        Representations.
    q : Tensor of shape (B, n, classes)
        Memberships.

    Returns
    -------
    Tensor of shape (B, classes, h)
        Zero for a class without rows.
    """
    return q.mT @ z / q.sum(1)[:, :, None].clamp_min(1e-9)


def discrimination(logits_s: Tensor, q_s: Tensor, logits_t: Tensor, q_t: Tensor) -> Tensor:
    """sum_c BCE(G_c), source as 1 and target as 0, both sides of a class weighing the same.

    Parameters
    ----------
    logits_s, logits_t : Tensor of shape (B, n, classes)
        Outputs of the discriminators on source and target rows.
    q_s, q_t : Tensor of shape (B, n, classes)
        Their memberships.

    Returns
    -------
    Tensor of shape (B,)
        The loss of every network.
    """
    both = (q_s.sum(1) > 0) & (q_t.sum(1) > 0)
    source = (q_s * F.softplus(-logits_s)).sum(1) / q_s.sum(1).clamp_min(1e-9)
    target = (q_t * F.softplus(logits_t)).sum(1) / q_t.sum(1).clamp_min(1e-9)
    return ((source + target) / 2 * both).sum(1)
