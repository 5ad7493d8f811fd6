"""Decide, log, learn, evaluate, publish. Start with types.py, then policy.py and router.py."""
