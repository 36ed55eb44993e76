"""Benchmarks: ratios within one run, with the machine that they were measured on."""
