"""A fold of the record: how one follows it, what a server knows by one, and checkpoints that save folding it anew."""
