"""`influence.capped` of a log in parts on the disk: the same rounds stay, and no list of all users is ever held.

Who has more than a share of the whole has more than that share of some part. So each part names those who do in it
(fewer than 1 / share of them), then tells the tickets of all that were named (8 bytes a round of theirs), and of those
who have too many it forgets the rounds beyond. A part without such a round stays as it is, and so do its checkpoints;
of another one the first pass is folded again whenever a limit has moved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from bandits.learners.slab import Slab
from bandits.training.fold import Asked, Map, Spooled, in_turn, written
from bandits.training.influence import NOTHING, LeftOut, Tickets, enough, limits_of, most_of, tickets

_Named = tuple[set[str], set[str], int]  # beyond a share of this part; some users, enough of them; rounds of nobody


def capped(parts: Sequence[Spooled], share: float, over: Map = in_turn) -> tuple[list[Spooled], LeftOut]:
    """Parts of one log without what is beyond a user's share of all of it, and what was left out."""
    n = sum(part.n for part in parts)
    if share >= 1.0 or not n:
        return list(parts), NOTHING
    named: list[_Named] = list(over(partial(_named, share=share), parts))
    heavy = sorted(set[str]().union(*(beyond for beyond, _, _ in named)))
    people = len(set(heavy).union(*(some for _, some, _ in named))) + sum(nobody for *_, nobody in named)
    drawn: dict[str, list[Tickets]] = {user: [] for user in heavy}
    for found in over(partial(_tickets, users=frozenset(heavy)), parts):
        for user, own in found.items():
            drawn[user].append(own)
    limits = limits_of({user: np.concatenate(own) for user, own in drawn.items()}, most_of(people, n, share))
    if not limits:
        return list(parts), NOTHING
    left = list(over(partial(_trimmed, limits=limits), parts))
    return left, LeftOut(n - sum(part.n for part in left), len(limits))


def _named(part: Spooled, share: float) -> _Named:
    counts = Counter(user for asked in part.asked() for user in asked.users)
    beyond = {user for user, count in counts.items() if count > share * part.n}
    return beyond, set(sorted(counts)[: enough(share)]), part.n - counts.total()


def _tickets(part: Spooled, users: frozenset[str]) -> dict[str, Tickets]:
    found: dict[str, list[str]] = {}
    for asked in part.asked():
        for id_, user in zip(asked.ids, asked.users, strict=True):
            if user in users:
                found.setdefault(user, []).append(id_)
    return {user: tickets(ids) for user, ids in found.items()}


def _trimmed(part: Spooled, limits: Mapping[str, int]) -> Spooled:
    beyond = [_beyond(asked, limits) for asked in part.asked()]
    if not any(beyond):
        return part
    path = part.path.with_suffix(".capped")
    digest, n = written(path, _without(part.slabs(), beyond))
    return replace(part, path=path, digest=digest, n=n)


def _beyond(asked: Asked, limits: Mapping[str, int]) -> list[int]:
    """Rows of a slab that do not stay."""
    mine = [i for i, user in enumerate(asked.users) if user in limits]
    drawn = tickets(asked.ids[i] for i in mine).tolist()
    return [asked.rows[i] for i, ticket in zip(mine, drawn, strict=True) if ticket > limits[asked.users[i]]]


def _without(slabs: Iterator[Slab], beyond: Sequence[list[int]]) -> Iterator[Slab]:
    for slab, rows in zip(slabs, beyond, strict=True):
        stay = np.ones(len(slab), np.bool_)
        stay[rows] = False
        yield slab.where(np.flatnonzero(stay))
