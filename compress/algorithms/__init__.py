"""What methods share: second moments, grids, codebooks, budgets, least squares, training."""
