"""One HTML page of what was chosen, what was done to models, and what came of it."""
