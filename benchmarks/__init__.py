"""One script per claim: `python -m benchmarks.NAME`. Each runs the product's own classes."""
