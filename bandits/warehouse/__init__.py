"""The warehouse: the record as columns in one DuckDB file, and the logs that learners read out of it."""
