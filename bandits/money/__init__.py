"""Money: the pace that bends, the caps that do not, and the ledger that all processes keep together."""
