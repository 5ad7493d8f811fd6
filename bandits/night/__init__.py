"""The night of one scope: learn, judge, guard, gate, check, publish or keep, and say why."""
