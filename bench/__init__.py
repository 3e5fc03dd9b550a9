"""What it costs: benchmarks, run by `make bench`."""
