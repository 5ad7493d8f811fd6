"""What if: what another policy or one fixed model would have earned and cost, estimated from the log."""
