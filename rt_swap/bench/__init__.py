"""Measuring: latency, throughput, memory and power of what ships, on the machine it runs on.

Importing this imports nothing heavy. What ``rt-swap bench`` runs is in
``rt_swap.bench.run``.
"""
