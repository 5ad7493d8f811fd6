"""Learners: lists of passes over the log, each a fold into sums that add, subtract and merge exactly.

grid.py       the binary grid that makes sums exact
scaling.py    pass 1: centre and scale of the contexts
sums.py, slab.py, passes.py   what a pass is: a batch of the log, its additive sums, and each pass of the night
lift.py       random features over them, so that linear models can bend
ridge.py      pass 2: least squares per arm, arms shrunk toward what they share
doubly_robust.py   pass 3: what the log proves about the errors of pass 2
direct_method.py   logistic reward models, for arms that are right or wrong
corrected.py   pass 3 upon those, everything about it chosen on the log
offset_tree.py   K - 1 comparisons of two, bottom-up; tree_policy.py plays them
online.py      ridge per arm over random features, learned outcome by outcome
choice.py      which of these a log speaks for
baselines.py  the simple ones that nothing learned may lose to
linear_policy.py, lifted_policy.py   what a night publishes and a router serves: most reward for the money
"""
