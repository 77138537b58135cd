"""Tables that the tests of learners share."""

from dataclasses import replace

import numpy as np
import pandas as pd

from transmeter.tables import data


def table(name, rows, seed, keys=None, columns="abcd"):
    """Two classes, told apart by several columns together."""
    rng = np.random.default_rng(seed)
    y = np.arange(rows) % 2
    x = rng.normal(size=(rows, len(columns))) + 0.7 * (2 * y - 1)[:, None]
    made = data.table(name, pd.DataFrame(x, columns=list(columns)), np.array(["no", "yes"], dtype=object)[y])
    return made if keys is None else replace(made, keys=np.array(keys, dtype=object))
