"""One choice for every layer, so that the sum of their losses is small and the sum of their costs fits."""

from collections.abc import Sequence

Choice = tuple[float, float]  # (cost, loss)


def allocate(choices: Sequence[Sequence[Choice]], allowed: float) -> list[int]:
    """One choice for every layer, so that the sum of losses is small.

    Parameters
    ----------
    choices
        (cost, loss) each, of every layer.
    allowed
        What all may cost together.

    Returns
    -------
    list of int
        The choice of every layer: from the cheapest, along the lower convex hulls, what lowers the loss most for
        its cost first, then whatever single step lowers it most.

    Raises
    ------
    ValueError
        Even the cheapest do not fit.

    References
    ----------
    Shoham, Gersho, "Efficient bit allocation for an arbitrary set of quantizers", IEEE TASSP 1988.
    """
    hulls = [_hull(c) for c in choices]
    taken = [hull[0] for hull in hulls]
    left = allowed * (1 + 1e-12) - sum(c[i][0] for c, i in zip(choices, taken))
    if left < 0:
        raise ValueError(f"{allowed:.6g} cannot be kept: the cheapest choices take {allowed - left:.6g} together")
    steps = [
        ((c[old][1] - c[new][1]) / (c[new][0] - c[old][0]), layer, old, new)
        for layer, (c, hull) in enumerate(zip(choices, hulls))
        for old, new in zip(hull, hull[1:])
    ]
    for _, layer, old, new in sorted(steps, key=lambda step: -step[0]):
        cost = choices[layer][new][0] - choices[layer][old][0]
        if taken[layer] == old and cost <= left:
            taken[layer], left = new, left - cost
    while best := _best(choices, taken, left):
        layer, new = best
        left -= choices[layer][new][0] - choices[layer][taken[layer]][0]
        taken[layer] = new
    return taken


def _hull(choices: Sequence[Choice]) -> list[int]:
    """Indices along the lower convex hull, from the cheapest choice to the one of least loss."""
    hull: list[int] = []
    for i in sorted(range(len(choices)), key=choices.__getitem__):
        if hull and choices[i][1] >= choices[hull[-1]][1]:
            continue
        while len(hull) > 1 and _above(*(choices[j] for j in (hull[-2], hull[-1], i))):
            hull.pop()
        hull.append(i)
    return hull


def _above(a: Choice, b: Choice, c: Choice) -> bool:
    """Whether b is on or above the line from a to c, costs rising."""
    return (b[1] - a[1]) * (c[0] - a[0]) >= (c[1] - a[1]) * (b[0] - a[0])


def _best(choices: Sequence[Sequence[Choice]], taken: Sequence[int], left: float) -> tuple[int, int] | None:
    """(layer, index) of the choice that lowers the loss most for at most `left`; None if none does."""
    steps = [
        (c[at][1] - c[i][1], layer, i)
        for layer, (c, at) in enumerate(zip(choices, taken))
        for i in range(len(c))
        if c[i][0] - c[at][0] <= left and c[i][1] < c[at][1]
    ]
    return max(steps)[1:] if steps else None
