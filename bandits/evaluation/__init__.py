"""Judge a policy by the log of another: one file an estimator, each a pure function to one score per round."""
