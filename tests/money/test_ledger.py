"""Facts about the ledger: what caps.py says of a few requests holds for many processes, also when they are killed."""

from __future__ import annotations

import os
import random
import resource
import shutil
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
import sqlalchemy as sa

from bandits.errors import BudgetExhaustedError, InvalidNameError, LedgerError, PilotageError, RecordError
from bandits.money import tables as ledger_tables
from bandits.money.caps import HOLD_S, NANO, Book, Reservation
from bandits.money.ledger import Ledger
from bandits.record.database import open_database
from bandits.record.sql import SqlRecord
from bandits.settings.caps import CapsConfig
from bandits.testing.ports import sample_decision
from bandits.types import new_id

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()
CAPS = {"a": CapsConfig(usd_per_day=1.0), "b": CapsConfig(usd_per_day=1.0)}


@pytest.fixture
def in_file(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'record.db'}"


@pytest.fixture(params=["in_file", "postgres_url"], ids=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest) -> str:
    """One database of each kind."""
    return request.getfixturevalue(request.param)


def change(url: str, statement: str) -> None:
    """Do to the database what no ledger does."""
    with open_database(url, 5.0).writing.begin() as connection:
        connection.execute(sa.text(statement))


def test_spending_outlives_the_process(url):
    """Reserved, settled and released, as they were, for whoever opens the ledger next."""
    with Ledger(url, CAPS) as ledger:
        held, settled, released = (ledger.reserve("a", "u", amount, NOW) for amount in (100, 200, 300))
        ledger.settle(settled, 150)
        ledger.release(released)
    with Ledger(url, CAPS) as ledger:
        (standing,) = ledger.standings("a", "", NOW)
        assert (standing.reserved, standing.settled, standing.left) == (100, 150, NANO - 250)
        ledger.settle(held, 90)
        (standing,) = ledger.standings("a", "", NOW)
        assert (standing.reserved, standing.settled) == (0, 240)


def test_it_shares_the_database_with_the_record(url):
    """Whichever opens first; neither takes the other's tables as foreign."""
    with Ledger(url, CAPS), SqlRecord(url) as record:
        assert record.append(sample_decision("x")) == 1
    with SqlRecord(url) as record, Ledger(url, CAPS) as ledger:
        assert record.head() == 1
        assert ledger.standings("a", "", NOW)[0].left == NANO


def test_a_refusal_holds_nothing_and_hinders_nobody(url):
    """Two who wait together are answered each on their own."""
    with Ledger(url, CAPS) as ledger:
        answers: dict[int, object] = {}

        def ask(amount: int) -> None:
            try:
                answers[amount] = ledger.reserve("a", "", amount, NOW).amount
            except BudgetExhaustedError as error:
                answers[amount] = error.left

        threads = [threading.Thread(target=ask, args=(amount,)) for amount in (NANO + 1, 600, 2 * NANO)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers[600] == 600
        assert ledger.standings("a", "", NOW)[0].reserved == 600
        assert answers[NANO + 1] in (NANO, NANO - 600)


def test_it_does_what_the_book_says(url):
    """The same requests, one after the other, in a book in memory and in the database, with a restart between."""
    rng, now, book = random.Random(5), NOW, Book()
    ledger = Ledger(url, CAPS)
    for step in range(60):
        now += rng.choice([0.0, 5.0, 30.0, HOLD_S, -20.0])
        wanted = Reservation(str(rng.randrange(9)), rng.choice("ab"), rng.choice(["", "u"]), rng.randrange(NANO), now)
        verb, answers = rng.choice(["reserve", "reserve", "settle", "release"]), []
        for one in (book, ledger):
            try:
                if verb == "settle":
                    answers.append(one.settle(wanted, wanted.amount // 2))
                elif verb == "release":
                    answers.append(one.release(wanted))
                elif one is book:
                    answers.append(book.reserve(wanted, 10, CAPS[wanted.tenant], now))
                else:
                    asked = (wanted.tenant, wanted.user, wanted.amount, now)
                    answers.append(ledger.reserve(*asked, least=10, id=wanted.id).amount)
            except PilotageError as error:
                answers.append(str(error))
        assert answers[0] == answers[1], step
        if step == 30:
            ledger.close()
            ledger = Ledger(url, CAPS)
    for tenant in "ab":
        expected = book.copy()
        expected.lapse(tenant, now)
        assert ledger.standings(tenant, "u", now) == expected.standings(tenant, "u", CAPS[tenant], now)
    ledger.close()


def test_a_tenant_without_caps_is_counted(url):
    """So that caps which are set at noon know the morning."""
    with Ledger(url, {}) as ledger:
        ledger.settle(ledger.reserve("a", "", 5 * NANO, NOW), NANO - 1)
        assert ledger.standings("a", "", NOW) == []
    with Ledger(url, CAPS) as ledger, pytest.raises(BudgetExhaustedError):
        ledger.reserve("a", "", 2, NOW)


def test_months_gone_by_are_forgotten(url):
    """What is closed and where no cap looks; never this month's, nor what is held."""
    before, now = datetime(2026, 10, 31, 23, tzinfo=UTC).timestamp(), NOW
    with Ledger(url, CAPS) as ledger:
        ledger.settle(ledger.reserve("a", "u", 10, before), 10)
        ledger.settle(ledger.reserve("a", "u", 20, now - 86_400 * 21), 20)
        ledger.settle(ledger.reserve("a", "u", 30, now), 30)
        ledger.reserve("b", "u", 40, before)
        assert ledger.forget(now) == 1
        assert ledger.forget(now) == 0
        assert ledger.standings("a", "", now)[0].settled == 30
        assert ledger.standings("a", "", now - 86_400 * 21)[0].settled == 20
        assert ledger.standings("b", "", before)[0].reserved == 40


def test_a_user_who_is_forgotten_leaves_no_name_and_no_phantom(url):
    """What was spent stays spent, a cost that is told again counts once, and what is held can be given back."""
    with Ledger(url, CAPS) as ledger:
        settled, held, late = (ledger.reserve("a", "u-1", amount, NOW) for amount in (100, 200, 300))
        ledger.settle(settled, 70)
        other = ledger.reserve("a", "u-2", 400, NOW)
        with open_database(url, 5.0).writing.begin() as connection:
            ledger_tables.forget(connection, "a", "u-1")
        with open_database(url, 5.0).reading.begin() as connection:
            for table in (ledger_tables.SUMS, ledger_tables.LINES):
                assert set(connection.scalars(sa.select(table.c.user))) <= {"", "u-2"}
        for one, cost in ((settled, 70), (late, 250), (other, 400)):
            ledger.settle(one, cost)
        ledger.release(held)
        (standing,) = ledger.standings("a", "", NOW)
        assert (standing.reserved, standing.settled) == (0, 70 + 250 + 400)


SPENDER = """
import os, random, sys, threading
from bandits.money.caps import NANO, nano
from bandits.settings.caps import CapsConfig
from bandits.errors import BudgetExhaustedError
from bandits.money.ledger import Ledger

url, journal, seed, now, most = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5])
ledger = Ledger(url, {"a": CapsConfig(usd_per_day=1.0)})
journal = os.open(journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

def spend(number):
    rng = random.Random(seed * 1000 + number)
    while True:
        try:
            held = ledger.reserve("a", "", most, now)
        except BudgetExhaustedError:
            return
        cost = rng.randrange(most // 2, most + 1)
        os.write(journal, f"{held.id} {cost}\\n".encode())  # the money is gone from here on
        ledger.settle(held, cost)

threads = [threading.Thread(target=spend, args=(number,)) for number in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("done", flush=True)
"""


def spender(url: str, journal: Path, seed: int, most: int) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", SPENDER, url, str(journal), str(seed), repr(NOW), str(most)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])


def race(url: str, journal: Path, kills: int, most: int) -> int:
    """Four processes of sixteen spenders until the cap is reached, `kills` of them killed; how many were in mid-work.

    The moments are measured in work done: a kill as soon as so much stands in the journal.
    """
    rng, seeds, alive, killed = random.Random(3), iter(range(10_000)), [], 0
    expected = len(f"{new_id(NOW)} {most}\n") * NANO / (0.75 * most)  # bytes, when the cap is reached
    for _ in range(4):
        alive.append(spender(url, journal, next(seeds), most))
    for moment in sorted(rng.uniform(0.1, 0.8) for _ in range(kills)):
        victim = alive.pop(rng.randrange(4))
        while victim.poll() is None and journal.stat().st_size < moment * expected:
            time.sleep(0.001)
        killed += victim.poll() is None
        victim.kill()
        victim.communicate()
        alive.append(spender(url, journal, next(seeds), most))
    for process in alive:
        assert process.communicate(timeout=120)[0] == "done\n"
    return killed


def check_race(url: str, journal: Path, kills: int, most: int) -> None:
    """No cap is passed, the journal reconciles to the nano-dollar, and what nobody spent is free again."""
    assert race(url, journal, kills, most) == kills
    spent = {id_: int(cost) for id_, cost in (line.split() for line in journal.read_text().splitlines())}
    total = sum(spent.values())
    with Ledger(url, CAPS) as ledger:
        (standing,) = ledger.standings("a", "", NOW)
        assert total <= standing.settled + standing.reserved <= NANO
        assert NANO - standing.settled - standing.reserved < most, "they stopped before the cap was reached"
        for id_, cost in spent.items():  # what a restart reads in its own log
            ledger.settle(Reservation(id_, "a", "", 0, NOW), cost)
        (standing,) = ledger.standings("a", "", NOW + HOLD_S)
        assert (standing.settled, standing.reserved) == (total, 0)
        assert ledger.reserve("a", "", NANO - total, NOW + HOLD_S).amount == NANO - total


def test_64_spenders_who_are_killed_never_pass_the_cap(in_file, tmp_path):
    """Overspending is nothing, since each holds what a request can cost at most."""
    (tmp_path / "journal").touch()
    check_race(in_file, tmp_path / "journal", 2, NANO // 150)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_64_spenders_who_are_killed_often_never_pass_the_cap(url, tmp_path):
    """Twenty times in mid-load, on either database."""
    (tmp_path / "journal").touch()
    check_race(url, tmp_path / "journal", 20, NANO // 3000)


def test_a_ledger_whose_file_is_gone_says_so(in_file, tmp_path):
    """SQLite would go on writing into the deleted file, and count for nobody."""
    with Ledger(in_file, CAPS) as ledger:
        held = ledger.reserve("a", "", 5, NOW)
        aside = tmp_path / "aside"
        shutil.move(tmp_path / "record.db", aside)
        for refused in (
            lambda: ledger.reserve("a", "", 5, NOW),
            lambda: ledger.settle(held, 5),
            lambda: ledger.standings("a", "", NOW),
        ):
            with pytest.raises(LedgerError, match="is gone"):
                refused()
        shutil.copy(aside, tmp_path / "record.db")
        with pytest.raises(LedgerError, match="another file than was opened"):
            ledger.reserve("a", "", 5, NOW)


def test_a_full_disk_refuses_and_loses_nothing(in_file, tmp_path):
    """The database's own words; once there is room, the same ledger goes on."""
    with Ledger(in_file, CAPS) as ledger:
        ledger.reserve("a", "", 5, NOW)
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(tmp_path / "record.db-wal"), before[1]))
        try:
            with pytest.raises(LedgerError, match="free space"):
                ledger.reserve("a", "", 7, NOW)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert ledger.standings("a", "", NOW)[0].reserved == 5
        ledger.reserve("a", "", 11, NOW)
        assert ledger.standings("a", "", NOW)[0].reserved == 16


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"id": "x\0"}, LedgerError, "id must be 1 to 200 printable"),
        ({"id": "\ud800"}, LedgerError, "id must be"),
        ({"id": "x" * 201}, LedgerError, "id must be"),
        ({"user": "a\nb"}, LedgerError, "user must be"),
        ({"tenant": "../x"}, InvalidNameError, "tenant must be"),
        ({"amount": -1}, LedgerError, "whole number of nano-dollars"),
        ({"amount": 2**70}, LedgerError, "whole number of nano-dollars"),
        ({"now": float("nan")}, LedgerError, "mend the clock"),
    ],
)
def test_what_no_ledger_can_keep_is_refused(url, change, error, message):
    """Before it is written; whoever waits in the same group does not hear of it."""
    given = {"tenant": "a", "user": "", "amount": 1, "now": NOW, "id": "x"} | change
    with Ledger(url, CAPS) as ledger:
        with pytest.raises(error, match=message):
            ledger.reserve(**given)
        assert ledger.standings("a", "", NOW)[0].reserved == 0


def test_one_tenant_cannot_reach_anothers_reservation(url):
    """The same id is another request there."""
    with Ledger(url, CAPS) as ledger:
        ledger.reserve("a", "", 5, NOW, id="x")
        ledger.release(Reservation("x", "b", "", 5, NOW))
        ledger.settle(Reservation("x", "b", "", 5, NOW), 3)
        assert ledger.standings("a", "", NOW)[0].reserved == 5
        assert ledger.standings("b", "", NOW)[0].settled == 3


def test_a_ledger_of_another_version_is_refused(url):
    """And so is a file that holds no record, with the record's words."""
    Ledger(url, CAPS).close()
    change(url, "UPDATE meta SET value = '2' WHERE key = 'budgets'")
    with pytest.raises(LedgerError, match="must have version 1"):
        Ledger(url, CAPS)
    change(url, "DROP TABLE meta")
    with pytest.raises(RecordError, match="another program"):
        Ledger(url, CAPS)


def test_a_closed_ledger_and_a_fork_say_so(url):
    """Neither hangs, nor writes."""
    ledger = Ledger(url, CAPS)
    child = os.fork()
    if child == 0:
        try:
            ledger.reserve("a", "", 1, NOW)
        except LedgerError as error:
            os._exit(7 if "is its fork" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    ledger.close()
    with pytest.raises(LedgerError, match="was closed"):
        ledger.reserve("a", "", 1, NOW)
    with Ledger(url, CAPS) as again:
        assert again.standings("a", "", NOW)[0].reserved == 0
