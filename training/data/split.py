"""Who is held out: whole people, by a hash of their name, so that every tool agrees.

One person in ten never trains. Half of these are for validation, looked at while a model is made;
the other half are for the test that is reported.
"""

from __future__ import annotations

import hashlib
from typing import Final

SPLITS: Final = ("train", "val", "test")


def split_of(dataset: str, person: str) -> str:
    """One of SPLITS.

    Args:
        dataset: Name of the portrait set in its manifest, or its folder's, such as "london".
        person: The person's name in its manifest, such as "042".
    """
    digest = hashlib.sha256(f"{dataset}/{person}".encode()).digest()
    rest, remainder = divmod(int.from_bytes(digest, "big"), 10)
    if remainder:
        return "train"
    return "val" if rest % 2 == 0 else "test"


def is_held_out(dataset: str, person: str) -> bool:
    """True for about one person in ten; these never train. Arguments as for :func:`split_of`."""
    return split_of(dataset, person) != "train"
