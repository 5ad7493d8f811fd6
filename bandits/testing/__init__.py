"""Testing: the contracts of ports and learners as pytest classes, and a PostgreSQL server of one's own."""
