"""Training side of rt_swap: data engine, networks, losses, loop. Needs torch; run from the
checkout.
"""
