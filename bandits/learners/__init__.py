"""Learners: lists of passes over the log, each a fold into sums that add, subtract and merge exactly.

grid.py       the binary grid that makes sums exact
scaling.py    pass 1: centre and scale of the contexts
lift.py       random features over them, so that linear models can bend
ridge.py      pass 2: least squares per arm, arms shrunk toward what they share
doubly_robust.py   pass 3: what the log proves about the errors of pass 2
baselines.py  the simple ones that nothing learned may lose to
linear_policy.py   what a night publishes and a router serves
"""
