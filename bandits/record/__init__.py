"""The record: decisions and outcomes in the order of their commits, the only truth; beside it the audit chain."""
