"""What is here and what is wrong with it: ``rt-swap doctor`` and ``rt-swap devices``.

Importing this imports nothing heavy.
"""
