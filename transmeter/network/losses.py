"""The terms of Transmeter's loss, for B stacked networks at once; each gives (B,).

Membership q (B, n, classes) says how much of a row belongs to a class: one-hot for labelled rows, the soft
pseudo-label for unlabelled target rows, zero for rows of a class that the other side does not have.
"""

import torch
from torch import Tensor
from torch.nn import functional as F


def cross_entropy(logits: Tensor, q: Tensor) -> Tensor:
    """CE = mean over classes c of -sum_i q_ic log softmax(logits_i)_c / sum_i q_ic; logits, q (B, n, classes).

    Every class that is there weighs the same, since balanced accuracy is what counts.
    """
    each = -(q * F.log_softmax(logits, 2)).sum(1) / q.sum(1).clamp_min(1e-9)
    return each.sum(1) / (q.sum(1) > 0).sum(1).clamp_min(1)


def reconstruction(decoded: Tensor, x: Tensor, features: Tensor) -> Tensor:
    """mean_i |D z_i - x_i|^2 / d; decoded, x (B, n, d padded with zeros), features (B,) the true d."""
    d = torch.arange(x.shape[2]) < features[:, None, None]
    return ((decoded - x).square() * d).mean(1).sum(1) / features.clamp_min(1)


def mean_distance(z_s: Tensor, q_s: Tensor, z_t: Tensor, q_t: Tensor) -> Tensor:
    """sum_c |mean_c(z_s) - mean_c(z_t)|^2 over the classes that both sides have; z (B, n, h), q (B, n, classes)."""
    both = (q_s.sum(1) > 0) & (q_t.sum(1) > 0)  # (B, classes)
    return ((class_means(z_s, q_s) - class_means(z_t, q_t)).square().sum(2) * both).sum(1)


def class_means(z: Tensor, q: Tensor) -> Tensor:
    """mean_c(z) (B, classes, h), zero for a class without rows."""
    return q.mT @ z / q.sum(1)[:, :, None].clamp_min(1e-9)


def discrimination(logits_s: Tensor, q_s: Tensor, logits_t: Tensor, q_t: Tensor) -> Tensor:
    """sum_c BCE(G_c), source as 1 and target as 0, both sides of a class weighing the same; all (B, n, classes)."""
    both = (q_s.sum(1) > 0) & (q_t.sum(1) > 0)
    source = (q_s * F.softplus(-logits_s)).sum(1) / q_s.sum(1).clamp_min(1e-9)
    target = (q_t * F.softplus(logits_t)).sum(1) / q_t.sum(1).clamp_min(1e-9)
    return ((source + target) / 2 * both).sum(1)
