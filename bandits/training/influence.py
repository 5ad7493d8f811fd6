"""How much one person may teach: of whoever made more than their share of a log's rounds, only so many stay.

A person is a pseudonym (`Decision.user`); "" is nobody in particular, which is many people, each with one round. A
person may have `user_share` of the n rounds with a reward, or an even share of them where there are so few people that
even shares are larger. Of those who have more, the rounds whose id has the least hash stay, exactly as many as they may
have: whoever chooses which rounds to vote on gains none by it, since the number is what holds. Hashes know no reward,
no context and no action, so what stays tells of the world what all rounds of the person told, propensities are what
they were, and as a log grows by little few rounds come or go.

The share is of all rounds, before any is left out. So one who made 30 % of them is heard as 5 in 75, and several who
make most of a log together remain several shares of what is left: a cap, not a census. It does not find out who is
hostile, nor that two pseudonyms are one person.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from bandits.types import LoggedFeedback

Tickets = NDArray[np.uint64]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """What a night did not learn from: so many rounds, of so many people."""

    rounds: int = 0
    users: int = 0


NOTHING = LeftOut()


def capped(log: LoggedFeedback, share: float) -> tuple[LoggedFeedback, LeftOut]:
    """The rounds that stay, in their order, and what was left out.   share: (0, 1]; 1 leaves out nothing.

    A log that does not know who asked (`users` is empty) stays as it is.
    """
    if share >= 1.0 or not any(log.users):
        return log, NOTHING
    counts = Counter(log.users)
    nobody = counts.pop("", 0)
    most = most_of(len(counts) + nobody, len(log), share)
    heavy = {user for user, count in counts.items() if count > most}
    if not heavy:
        return log, NOTHING
    rows = np.flatnonzero([user in heavy for user in log.users])
    users = np.array([log.users[row] for row in rows.tolist()])
    drawn = tickets([log.ids[row] for row in rows.tolist()])
    stay = np.ones(len(log), np.bool_)
    for user, limit in limits_of({user: drawn[users == user] for user in heavy}, most).items():
        stay[rows[(users == user) & (drawn > np.uint64(limit))]] = False
    return log.where(stay), LeftOut(int((~stay).sum()), len(heavy))


def most_of(people: int, n: int, share: float) -> int:
    """Rounds that one of so many people may have of n: the share, or an even one where that is more; 1 at least.

    people: as many as 1 / share, rounded up, are as good as more, so nobody need count further.
    """
    return max(int(share * n) if people >= enough(share) else n // max(people, 1), 1)


def enough(share: float) -> int:
    """People among whom an even share is no more than `share`."""
    return math.ceil(1.0 / share)


def tickets(ids: Iterable[str]) -> Tickets:
    """One number for each decision id, (n,), which nothing but the id decides; the least stay."""
    digests = b"".join([blake2b(id_.encode(), digest_size=8, person=b"user-share").digest() for id_ in ids])
    return np.frombuffer(digests, ">u8").astype(np.uint64)


def limits_of(drawn: Mapping[str, Tickets], most: int) -> dict[str, int]:
    """The largest ticket that stays, of each who has more than `most`; the others are not named.

    drawn: the tickets of all rounds of each, in any order.
    """
    return {user: int(np.partition(own, most - 1)[most - 1]) for user, own in drawn.items() if len(own) > most}
