"""Benchmarks: what they measure and how is in README.md. Run from the checkout: ``python -m
benchmarks.<name>``.
"""
