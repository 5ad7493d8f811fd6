"""Facts about caps as arithmetic: nothing is lost, nothing counted twice, and one tenant is nothing to another."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bandits.errors import BudgetExhaustedError, LedgerError
from bandits.money.caps import HOLD_S, LARGEST, NANO, Account, Book, Reservation, Sums, in_usd, nano
from bandits.settings.caps import CapsConfig

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()
DAY, MONTH = Account("a", "", "2026-11-22"), Account("a", "", "2026-11")
CAPS = CapsConfig(usd_per_day=1.0)
FREE = CapsConfig()


def request(id_: str, amount: int, time: float = NOW, tenant: str = "a", user: str = "") -> Reservation:
    return Reservation(id_, tenant, user, amount, time)


def hold(book: Book, wanted: Reservation, caps: CapsConfig = CAPS, now: float | None = None) -> int:
    return book.reserve(wanted, wanted.amount, caps, wanted.time if now is None else now)


def test_a_request_is_held_then_settled():
    """Reserved becomes settled, in the day and in the month."""
    book = Book()

    assert hold(book, request("x", 400)) == 400
    assert book.sums == {DAY: Sums(400, 0), MONTH: Sums(400, 0)}
    book.settle(request("x", 400), 350)
    assert book.sums == {DAY: Sums(0, 350), MONTH: Sums(0, 350)}


def test_what_is_held_counts_against_the_cap():
    """To the nano-dollar: all of it, and not one more."""
    book = Book()
    hold(book, request("x", NANO - 1))

    with pytest.raises(BudgetExhaustedError, match=r"the day of tenant a has 0\.000000001 USD left of 1 USD"):
        hold(book, request("y", 2))
    assert hold(book, request("y", 1)) == 1
    assert hold(book, request("free", 0)) == 0


def test_as_much_as_there_is_may_be_asked_for():
    """What is left is held whole, if it is at least the least."""
    book = Book()
    hold(book, request("x", NANO - 100))

    with pytest.raises(BudgetExhaustedError) as caught:
        book.reserve(request("y", 500), 101, CAPS, NOW)
    assert caught.value.left == 100
    assert book.reserve(request("y", 500), 100, CAPS, NOW) == 100


def test_the_refusal_names_the_cap_that_begins_anew_last():
    """With what is left and when to ask again; and says nothing of who the user is."""
    book = Book()
    caps = CapsConfig(usd_per_day=1.0, usd_per_month=1.0, usd_per_user_day=1.0)
    hold(book, request("x", NANO, user="u-secret"), caps)

    with pytest.raises(BudgetExhaustedError) as caught:
        hold(book, request("y", 7, user="u-secret"), caps)
    assert (caught.value.cap, caught.value.left) == ("month", 0)
    assert caught.value.resets == datetime(2026, 12, 1, tzinfo=UTC).timestamp()
    assert "from 2026-12-01 00:00 UTC, in 734400 s" in str(caught.value)
    assert "u-secret" not in str(caught.value)


def test_each_user_has_a_day_of_their_own():
    """One who has spent it does not keep another from asking, nor a request that is nobody's."""
    book, caps = Book(), CapsConfig(usd_per_user_day=1.0)
    hold(book, request("x", NANO, user="u"), caps)

    with pytest.raises(BudgetExhaustedError, match="user day"):
        hold(book, request("y", 1, user="u"), caps)
    assert hold(book, request("y", NANO, user="v"), caps) == NANO
    assert hold(book, request("z", NANO), caps) == NANO


@pytest.mark.parametrize(
    ("spent", "asked", "fits"),
    [
        ((2026, 11, 22, 23, 59, 59), (2026, 11, 22, 23, 59, 59), False),
        ((2026, 11, 22, 23, 59, 59), (2026, 11, 23), True),
        ((2026, 11, 23), (2026, 11, 22, 23, 59, 59), True),  # a clock that was set back finds that day unspent
        ((2026, 11, 22), (2025, 11, 22), True),
    ],
)
def test_a_day_ends_at_midnight_utc(spent, asked, fits):
    """And a request counts in the day of its own clock, forwards and backwards."""
    book = Book()
    for number, time in enumerate((spent, asked)):
        wanted = request(str(number), NANO, datetime(*time, tzinfo=UTC).timestamp())
        if number and not fits:
            with pytest.raises(BudgetExhaustedError):
                hold(book, wanted)
        else:
            assert hold(book, wanted) == NANO


@pytest.mark.parametrize(
    ("time", "resets"),
    [((2026, 12, 31), (2027, 1, 1)), ((2028, 2, 29), (2028, 3, 1)), ((2026, 1, 31, 23, 59), (2026, 2, 1))],
)
def test_a_month_ends_with_its_last_day(time, resets):
    """December, February of a leap year, and a month of 31 days before a short one."""
    caps = CapsConfig(usd_per_month=1.0)
    (standing,) = Book().standings("a", "", caps, datetime(*time, tzinfo=UTC).timestamp())

    assert standing.resets == datetime(*resets, tzinfo=UTC).timestamp()


def test_a_month_outlives_its_days():
    """Spending of yesterday is gone from the day and still in the month."""
    book, caps = Book(), CapsConfig(usd_per_day=1.0, usd_per_month=1.5)
    yesterday, today = request("x", NANO, NOW - 86_400), request("y", NANO)
    hold(book, yesterday, caps)
    book.settle(yesterday, NANO)

    with pytest.raises(BudgetExhaustedError, match="month"):
        hold(book, today, caps)
    assert hold(book, replace(today, amount=NANO // 2), caps) == NANO // 2


def test_an_abandoned_reservation_is_given_back_after_its_time_and_not_before():
    """By whoever reserves next; nobody waits for a process that was killed."""
    book = Book()
    hold(book, request("dead", NANO))

    with pytest.raises(BudgetExhaustedError):
        hold(book, request("y", NANO), now=NOW + HOLD_S - 0.001)
    assert hold(book, request("y", NANO), now=NOW + HOLD_S) == NANO
    assert book.sums[DAY] == Sums(NANO, 0)


def test_a_late_cost_counts_all_the_same():
    """Money that was spent was spent, though the cap is then passed; nothing more is held until it resets."""
    book = Book()
    late = request("late", NANO)
    hold(book, late)
    hold(book, request("y", NANO, NOW + HOLD_S))
    book.settle(late, NANO // 2)

    assert book.sums[DAY] == Sums(NANO, NANO // 2)
    assert book.standings("a", "", CAPS, NOW)[0].left == 0
    with pytest.raises(BudgetExhaustedError, match="has 0 USD left"):
        hold(book, request("z", 1, NOW + HOLD_S))


def test_the_cost_of_a_request_that_nobody_reserved_counts():
    """Such as one from before the caps were set; in the day of its own time."""
    book = Book()
    book.settle(request("x", 0, NOW - 86_400), 70)

    assert book.sums[Account("a", "", "2026-11-21")] == Sums(0, 70)
    assert DAY not in book.sums


@pytest.mark.parametrize(("back", "lapses"), [(HOLD_S - 1, False), (HOLD_S, False), (HOLD_S + 1, True), (9e6, True)])
def test_a_clock_that_is_set_back_leaves_no_phantom(back, lapses):
    """A reservation from further in the future than clocks may differ is given back."""
    book, caps = Book(), CapsConfig(usd_per_day=1.0, usd_per_month=1.0)
    hold(book, request("x", 300), caps)
    hold(book, request("y", 300, NOW - back), caps)

    assert book.lines["a", "x"].held is not lapses


def test_a_request_that_costs_nothing_is_released_once():
    """Twice is once; what is settled is not touched by it."""
    book = Book()
    for id_ in "xy":
        hold(book, request(id_, 300))
    book.settle(request("y", 300), 200)
    for id_ in ("x", "x", "y", "unknown"):
        book.release(request(id_, 300))

    assert book.sums[DAY] == Sums(0, 200)


def test_the_same_reservation_again_gets_the_same_answer():
    """A caller who never heard the first one may ask again; another request may not take its id."""
    book = Book()
    hold(book, request("x", NANO - 5))

    assert book.reserve(request("y", 9), 5, CAPS, NOW) == 5
    assert book.reserve(request("y", 9, NOW + 1), 5, CAPS, NOW + 1) == 5
    assert book.sums[DAY] == Sums(NANO, 0)
    with pytest.raises(LedgerError, match="id must be new"):
        book.reserve(request("y", 9, user="u"), 0, CAPS, NOW)
    book.settle(request("y", 9), 1)
    with pytest.raises(LedgerError, match="id must be new"):
        book.reserve(request("y", 9), 0, CAPS, NOW)


@pytest.mark.parametrize("amount", [-1, LARGEST + 1, 0.5, 1e-9, True, None])
def test_an_amount_that_is_no_number_of_nano_dollars_is_refused(amount):
    """USD in place of nano-dollars above all; and nothing is written."""
    book = Book()
    for refused in (
        lambda: book.reserve(request("x", amount), 0, CAPS, NOW),
        lambda: book.settle(request("x", 1), amount),
    ):
        with pytest.raises(LedgerError, match="whole number of nano-dollars"):
            refused()
    assert book == Book()


@pytest.mark.parametrize("time", [-1.0, float("nan"), float("inf"), 1e12])
def test_a_time_that_no_calendar_has_is_refused(time):
    """With a word on the clock."""
    with pytest.raises(LedgerError, match="mend the clock"):
        hold(Book(), request("x", 1, time))


@given(st.decimals(min_value=0, max_value=1_000_000, places=9))
def test_a_price_is_exact_as_it_is_written(usd):
    """Nine digits behind the point survive the float that carries them, as long as the float can tell them apart."""
    if Decimal(repr(float(usd))) == usd:
        assert nano(float(usd)) == int(usd * NANO)
    assert nano(float(usd)) >= Decimal(repr(float(usd))) * NANO > nano(float(usd)) - 1


def test_a_fraction_of_a_nano_dollar_is_counted_whole():
    """Never less than was spent."""
    assert [nano(usd) for usd in (0.0, 1e-12, 1e-9, 1.1e-9, 0.1, 3e-5)] == [0, 1, 1, 2, 10**8, 30_000]
    assert in_usd(30_000) == "0.00003 USD"
    for usd in (-1e-9, float("nan"), float("inf"), 1e6 + 1):
        with pytest.raises(LedgerError, match="0 to 1000000 USD"):
            nano(usd)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["reserve", "settle", "release"]),
        st.sampled_from("ab"),  # tenant
        st.sampled_from(["", "u", "v"]),
        st.integers(0, 9),  # id
        st.integers(0, NANO // 2),
        st.integers(-200, 200).map(lambda step: step * 20.0),  # of the clock, seconds
    ),
    max_size=40,
)


def play(
    book: Book, steps: list[tuple], caps: CapsConfig, honest: bool, now: float = NOW + 40_000.0
) -> tuple[list[object], float]:
    """Do the steps; what each answered, and the time then. Honest: costs stay within what is held and come in time."""
    answers: list[object] = []
    for verb, tenant, user, id_, amount, step in steps:
        now += abs(step) % HOLD_S / 50 if honest else step
        wanted = request(str(id_), amount, now, tenant, user)
        line = book.lines.get((tenant, wanted.id))
        try:
            if verb == "reserve":
                answers.append(hold(book, wanted, caps))
            elif verb == "release":
                answers.append(book.release(wanted))
            elif not honest:
                answers.append(book.settle(wanted, amount))
            elif line is not None and line.held:
                answers.append(book.settle(wanted, min(amount, line.reservation.amount)))
        except (BudgetExhaustedError, LedgerError) as error:
            answers.append(str(error))
    return answers, now


@settings(max_examples=60, deadline=None)
@given(STEPS, st.booleans())
def test_sums_are_the_sums_of_the_lines(steps, honest):
    """Whatever happens, and however the clock runs: nothing is lost, and nothing counted twice."""
    book = Book()
    play(book, steps, CapsConfig(usd_per_day=0.9, usd_per_user_day=0.7), honest)

    reserved = settled = 0
    for line in book.lines.values():
        reserved += line.reservation.amount if line.held else 0
        settled += line.actual
    months = [sums for account, sums in book.sums.items() if len(account.period) == 7]
    assert sum(sums.reserved for sums in months) == reserved
    assert sum(sums.settled for sums in months) == settled
    assert all(sums.reserved >= 0 for sums in book.sums.values())


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_no_cap_is_passed_by_requests_that_hold_what_they_cost(steps):
    """Reserved + settled <= cap, in every account, after every step."""
    caps = CapsConfig(usd_per_day=0.9, usd_per_month=1.1, usd_per_user_day=0.7)
    book, now = Book(), NOW
    for step in steps:
        now = play(book, [step], caps, honest=True, now=now)[1]
        for account, sums in book.sums.items():
            cap = caps.usd_per_user_day if account.user else (0.9 if len(account.period) == 10 else 1.1)
            assert sums.reserved + sums.settled <= cap * NANO


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_one_tenants_spending_is_nothing_to_another(steps):
    """Play both, or play A alone: A's answers, lines and sums are the same."""
    caps = CapsConfig(usd_per_day=0.9, usd_per_user_day=0.7)
    both, alone = Book(), Book()
    clock, of_a = 0.0, []
    for verb, tenant, user, id_, amount, step in steps:  # A's own clock runs on while B is at work
        clock += step
        if tenant == "a":
            of_a.append((verb, tenant, user, id_, amount, clock))
            clock = 0.0
    answers, _ = play(both, steps, caps, honest=False)
    mine, _ = play(alone, of_a, caps, honest=False)

    assert [answer for answer, step in zip(answers, steps, strict=True) if step[1] == "a"] == mine
    assert {key: line for key, line in both.lines.items() if key[0] == "a"} == alone.lines
    assert {account: sums for account, sums in both.sums.items() if account.tenant == "a"} == alone.sums


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_costs_may_be_told_in_any_order_and_again(told, random):
    """The highest stands: a report that is repeated, or overtaken by a later one, changes nothing."""
    book, other = Book(), Book()
    shuffled = told + random.sample(told, random.randint(0, len(told)))
    random.shuffle(shuffled)
    for one, costs in ((book, told), (other, shuffled)):
        hold(one, request("x", 500))
        for cost in costs:
            one.settle(request("x", 500), cost)

    assert book == other
    assert book.sums[DAY] == Sums(0, max(told))
