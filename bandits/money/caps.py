"""Hard caps of money as arithmetic: what a request may hold, in whole nano-dollars, of a tenant's day and month.

Three verbs. `reserve` holds money before a request, `settle` replaces what was held by what it cost, `release` gives
it back. A reservation that nobody settled within HOLD_S is given back by whoever reserves next, so that a killed
process leaves no phantom; its cost still counts, however late it is told. Pure: `ledger.py` makes it durable.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from typing import NamedTuple

from bandits.errors import BudgetExhaustedError, LedgerError
from bandits.settings.caps import CapsConfig

HOLD_S = 60.0  # a reservation is held this long for its owner; also how far the clocks of two hosts may differ
NANO = 10**9  # nano-dollars in a dollar
LARGEST = 10**15  # nano-dollars of one request, a million dollars: sums stay far within 64 bits
_LAST = 2.5e11  # UTC, seconds: the calendar ends soon after


def nano(usd: float) -> int:
    """Nano-dollars of an amount in USD, rounded up: as the number is written, so 0.1 is exactly 100,000,000.

    Raises LedgerError for what is not finite, below 0 or above LARGEST.
    """
    if not (math.isfinite(usd) and 0.0 <= usd <= LARGEST / NANO):
        raise LedgerError(f"an amount must be 0 to {LARGEST // NANO} USD, but got {usd!r}; mend the price or the cost.")
    return _whole(usd, ROUND_CEILING)


def _whole(usd: float, rounding: str) -> int:
    return int(Decimal(repr(float(usd))).scaleb(9).to_integral_value(rounding))


def in_usd(amount: int) -> str:
    """Nano-dollars as a person reads them, every digit kept."""
    return f"{Decimal(amount).scaleb(-9).normalize():f} USD"


@dataclass(frozen=True, slots=True)
class Reservation:
    """Money held for one request. Its time says which day and month it counts in, whenever it is settled."""

    id: str
    tenant: str
    user: str  # pseudonymous key; empty when the request is nobody's in particular
    amount: int  # nano-dollars that are held
    time: float  # UTC, seconds since the epoch


class Account(NamedTuple):
    """What money is counted in: a tenant's ("" for user) or a user's day or month."""

    tenant: str
    user: str
    period: str  # "2026-11-22" or "2026-11", UTC


@dataclass(frozen=True, slots=True)
class Sums:
    """Nano-dollars of one account."""

    reserved: int = 0
    settled: int = 0


@dataclass(frozen=True, slots=True)
class Line:
    """One reservation and what became of it: held, or closed with what it has cost so far (0: released)."""

    reservation: Reservation
    held: bool
    actual: int = 0


@dataclass(frozen=True, slots=True)
class Standing:
    """How one cap stands, in nano-dollars."""

    cap: str  # "day", "month" or "user day"
    account: Account
    limit: int
    reserved: int
    settled: int
    resets: float  # UTC, seconds since the epoch

    @property
    def left(self) -> int:
        """What may still be held; 0 where late costs went past the cap."""
        return max(self.limit - self.reserved - self.settled, 0)


def accounts(tenant: str, user: str, time: float) -> tuple[Account, ...]:
    """Every account that a request of this time counts in. Raises LedgerError for a time that no calendar has."""
    day, month = _day(time).isoformat(), _day(time).isoformat()[:7]
    own = (Account(tenant, user, day),) if user else ()
    return Account(tenant, "", day), Account(tenant, "", month), *own


@dataclass(slots=True)
class Book:
    """The sums and lines that some requests touch. What is not in it has never been counted."""

    sums: dict[Account, Sums] = field(default_factory=dict)
    lines: dict[tuple[str, str], Line] = field(default_factory=dict)  # by tenant and id: none reaches another's

    def reserve(self, wanted: Reservation, least: int, caps: CapsConfig, now: float) -> int:
        """Hold `wanted.amount`, or what is left of it as long as that is `least`; return what is held.

        The same reservation again is answered as the first time. Raises BudgetExhaustedError, and LedgerError for an
        id that stands for something else.
        """
        _check(wanted, least)
        key = wanted.tenant, wanted.id
        self.lapse(wanted.tenant, now)
        line = self.lines.get(key)
        if line is not None:
            if line.held and line.reservation.user == wanted.user:
                return line.reservation.amount
            raise LedgerError(f"a reservation's id must be new, but {wanted.id!r} is taken; give each request its own.")
        standings = self.standings(wanted.tenant, wanted.user, caps, wanted.time)
        granted = min([wanted.amount, *(standing.left for standing in standings)])
        if granted < least:
            raise _exhausted([standing for standing in standings if standing.left < least], now)
        self._write(Line(replace(wanted, amount=granted), held=True))
        return granted

    def settle(self, reservation: Reservation, actual: int) -> None:
        """Count what a request has cost in all; told twice, or in any order, the highest counts: costs only add up.

        Late is not too late: the cost of a reservation that was released, or that nobody knows, counts as well.
        """
        _check(reservation, actual)
        line = self.lines.get((reservation.tenant, reservation.id), Line(reservation, held=False))
        self._write(replace(line, held=False, actual=max(actual, line.actual)))

    def release(self, reservation: Reservation) -> None:
        """Give back what is held; nothing for what is settled, released or unknown."""
        line = self.lines.get((reservation.tenant, reservation.id))
        if line is not None and line.held:
            self._write(replace(line, held=False))

    def lapse(self, tenant: str, now: float) -> None:
        """Release what the tenant has held for HOLD_S or longer, or what a clock that was set back left in the future.

        Nobody can tell it from abandoned; who held it and is alive after all still settles what it cost.
        """
        for line in list(self.lines.values()):
            reservation = line.reservation
            if line.held and reservation.tenant == tenant and not -HOLD_S <= now - reservation.time < HOLD_S:
                self.release(reservation)

    def standings(self, tenant: str, user: str, caps: CapsConfig, time: float) -> list[Standing]:
        """How each configured cap stands that a request of this tenant, user and time falls under."""
        day = _day(time)
        tomorrow, next_month = day + timedelta(days=1), (day.replace(day=1) + timedelta(days=32)).replace(day=1)
        limits = (caps.usd_per_day, caps.usd_per_month, caps.usd_per_user_day)
        names, ends = ("day", "month", "user day"), (tomorrow, next_month, tomorrow)
        found = []
        for name, account, usd, end in zip(names, accounts(tenant, user, time), limits, ends, strict=False):
            if usd is not None:
                sums, resets = self.sums.get(account, Sums()), datetime(end.year, end.month, end.day, tzinfo=UTC)
                limit = _whole(usd, ROUND_FLOOR)
                found.append(Standing(name, account, limit, sums.reserved, sums.settled, resets.timestamp()))
        return found

    def copy(self) -> Book:
        """The book as it is now; what stands in it never changes in place."""
        return Book(dict(self.sums), dict(self.lines))

    def _write(self, line: Line) -> None:
        """Put `line` in place of what stood there, in the lines and in every account that it counts in."""
        reservation = line.reservation
        key = reservation.tenant, reservation.id
        before = self.lines.get(key, Line(reservation, held=False))
        self.lines[key] = line
        for account in accounts(reservation.tenant, reservation.user, reservation.time):
            sums = self.sums.get(account, Sums())
            reserved = sums.reserved + _held(line) - _held(before)
            self.sums[account] = Sums(reserved, sums.settled + line.actual - before.actual)


def _held(line: Line) -> int:
    return line.reservation.amount if line.held else 0


def _day(time: float) -> date:
    if not 0.0 <= time <= _LAST:
        raise LedgerError(f"time must be UTC seconds since 1970, but got {time!r}; mend the clock.")
    return datetime.fromtimestamp(time, UTC).date()


def _check(reservation: Reservation, amount: int) -> None:
    for value in (reservation.amount, amount):
        if type(value) is not int or not 0 <= value <= LARGEST:
            raise LedgerError(
                f"an amount must be a whole number of nano-dollars from 0 to {LARGEST}, but got {value!r} for "
                f"{reservation.id!r}; turn USD into it with nano()."
            )


def _exhausted(short: list[Standing], now: float) -> BudgetExhaustedError:
    """Names the cap that begins anew last: before that, asking again is in vain."""
    worst = max(short, key=lambda standing: standing.resets)
    resets = datetime.fromtimestamp(worst.resets, UTC)
    return BudgetExhaustedError(
        f"a request must fit every cap, but the {worst.cap} of tenant {worst.account.tenant} has {in_usd(worst.left)} "
        f"left of {in_usd(worst.limit)} ({in_usd(worst.settled)} spent, {in_usd(worst.reserved)} held by requests "
        f"under way); ask again from {resets:%Y-%m-%d %H:%M} UTC, in {worst.resets - now:.0f} s, or raise the cap.",
        worst.cap,
        worst.left,
        worst.resets,
    )
