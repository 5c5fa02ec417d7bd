"""Benchmarks that drive this project and its peers with the same bytes in one run and print ratios."""
