"""The day: what a server folds out of the record between two nights, behind the snapshot that serves."""
