"""Who is held out for validation: whole people, by a hash of their name; every tool agrees."""

from __future__ import annotations

import hashlib


def is_held_out(dataset: str, person: str) -> bool:
    """True for about one person in ten; these never train.

    Args:
        dataset: Folder name of the portrait set, such as "london".
        person: The person's name in its manifest, such as "042".
    """
    digest = hashlib.sha256(f"{dataset}/{person}".encode()).digest()
    return int.from_bytes(digest, "big") % 10 == 0
