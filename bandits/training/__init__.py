"""Training: a log becomes a policy, in exact sums, and learners compete over it."""
