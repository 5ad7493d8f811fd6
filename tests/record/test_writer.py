"""Facts about the group writer: each caller is answered, whatever becomes of the others."""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from itertools import count

import pytest

from bandits.errors import RecordError
from bandits.record.writer import GroupWriter
from bandits.testing.ports import at_once


def numbered():
    """A commit that counts batches, as a record counts rows, and the groups that it was given."""
    groups, last = [], count(1)

    def commit(group):
        groups.append(list(group))
        return [next(last) for _ in group]

    return commit, groups


def until(condition):
    """Wait for what must come; pytest's own limit ends it if it does not."""
    while not condition():
        time.sleep(0.001)


def test_each_of_many_callers_hears_its_own_answer():
    """64 threads, 20 batches each: no answer twice, no batch unwritten, each thread's in the order of its calls."""
    commit, groups = numbered()
    writer, told = GroupWriter(commit), {}

    def work(name):
        told[name] = [writer.write((name, i)) for i in range(20)]

    at_once(work, map(str, range(64)))
    writer.close()

    written = [batch for group in groups for batch in group]
    assert {(name, i): place for name, places in told.items() for i, place in enumerate(places)} == {
        batch: place for place, batch in enumerate(written, start=1)
    }
    assert all(places == sorted(places) for places in told.values())


def test_one_caller_alone_is_written_at_once_and_alone():
    """It waits for nobody: each of its batches is a group."""
    commit, groups = numbered()
    writer = GroupWriter(commit)

    assert [writer.write(name) for name in "abc"] == [1, 2, 3]
    writer.close()
    assert groups == [["a"], ["b"], ["c"]]


def test_a_refusal_is_raised_in_its_own_caller_only():
    """An answer that is an error is raised; the others of the group hear their position."""
    go = threading.Event()

    def commit(group):
        go.wait()
        return [RecordError(batch) if batch.startswith("bad") else 7 for batch in group]

    writer, heard = GroupWriter(commit), {}

    def work(name):
        try:
            heard[name] = writer.write(name)
        except RecordError as error:
            heard[name] = str(error)
        go.set()

    threading.Timer(0.0, go.set).start()
    at_once(work, ["bad1", "good1", "bad2", "good2"])
    writer.close()
    assert heard == {"bad1": "bad1", "bad2": "bad2", "good1": 7, "good2": 7}


@pytest.mark.parametrize("answers", [[], [1, 2, 3]])
def test_a_commit_that_does_not_answer_each_batch_is_an_error_and_no_hang(answers):
    """Nobody guesses whose answer it was: all hear that it broke, and the writer lives."""
    broken = [answers]
    writer = GroupWriter(lambda group: broken.pop() if broken else [9 for _ in group])

    with pytest.raises(RecordError, match=f"each of 1 batches, but answered {len(answers)}"):
        writer.write("a")
    assert writer.write("b") == 9
    writer.close()


class Interrupted(BaseException):
    """What a signal's handler raises here, as Ctrl-C raises KeyboardInterrupt."""


@pytest.fixture
def interrupting():
    """While the test runs, SIGALRM raises Interrupted in the main thread."""

    def interrupt(*_):
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    yield
    signal.signal(signal.SIGALRM, before)


def test_a_caller_who_is_interrupted_while_it_waits_strands_nobody(interrupting):
    """Of nine in one group the first gives up; eight are answered, and what it sent is written."""
    go, first, groups = threading.Event(), threading.Event(), []

    def commit(group):
        first.set()
        go.wait()
        groups.append(list(group))
        return [len(batch) for batch in group]

    writer, told = GroupWriter(commit), []
    ahead = threading.Thread(target=writer.write, args=("",))  # keeps the writer busy while the group gathers
    ahead.start()
    first.wait()

    def meanwhile():
        until(lambda: writer.waiting == 1)
        others = [threading.Thread(target=lambda i=i: told.append(writer.write("x" * i))) for i in range(1, 9)]
        for other in others:
            other.start()
        until(lambda: writer.waiting == 9)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)
        return others

    found = []
    helper = threading.Thread(target=lambda: found.extend(meanwhile()))
    helper.start()
    with pytest.raises(Interrupted):
        writer.write("main")
    helper.join()
    go.set()
    for thread in (ahead, *found):
        thread.join()
    writer.close()
    assert sorted(told) == list(range(1, 9))
    assert groups[0] == [""]
    assert groups[1][0] == "main"
    assert len(groups[1]) == 9


STORM = """
import random, signal, sys, threading
from itertools import count
from bandits.record.writer import GroupWriter

class Interrupted(BaseException): pass
def interrupt(*_):
    raise Interrupted

last = count(1)
writer = GroupWriter(lambda group: [next(last) for _ in group])
told, interrupted = {}, 0

def work(name):
    told[name] = [writer.write(name) for _ in range(300)]

sys.setswitchinterval(1e-5)
threads = [threading.Thread(target=work, args=(i,), daemon=True) for i in range(8)]
for thread in threads:
    thread.start()
signal.signal(signal.SIGALRM, interrupt)
random.seed(int(sys.argv[1]))
while any(thread.is_alive() for thread in threads):  # the main thread writes too, and is interrupted all the time
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(1e-5, 5e-4))
        while True:
            writer.write("main")
    except Interrupted:
        interrupted += 1
signal.setitimer(signal.ITIMER_REAL, 0.0)
positions = [position for mine in told.values() for position in mine]
assert len(set(positions)) == len(positions) == 8 * 300
writer.close()
print(interrupted)
"""


@pytest.mark.parametrize("seed", range(4))
def test_a_storm_of_interrupts_strands_nobody(seed):
    """A caller interrupted hundreds of times, at any instruction of `write`; eight others get all their answers."""
    storm = [sys.executable, "-c", STORM, str(seed)]
    ended = subprocess.run(storm, capture_output=True, text=True, timeout=60, check=False)

    assert (ended.returncode, ended.stderr) == (0, "")
    assert int(ended.stdout) > 20


def test_asynchronous_exceptions_in_callers_strand_nobody(monkeypatch):
    """Threads have exceptions thrown into them again and again; four others get all their answers."""
    monkeypatch.setattr(threading, "excepthook", lambda _: None)  # how a victim ends is not what is tested
    commit, _ = numbered()
    writer, done, told, thrown, left = GroupWriter(commit), threading.Event(), {}, [], set()

    def victim():
        while not done.is_set():
            with suppress(Interrupted):
                try:
                    writer.write("victim")
                except Interrupted:
                    thrown.append(1)

    def shielded():
        try:
            with suppress(Interrupted):  # one that came between two attempts ends this victim
                victim()
        finally:
            left.add(threading.get_ident())  # its end is not what is tested

    victims = [threading.Thread(target=shielded, daemon=True) for _ in range(16)]
    for thread in victims:
        thread.start()

    def throw():
        throwing = ctypes.pythonapi.PyThreadState_SetAsyncExc
        while not done.is_set():
            for thread in victims:
                if thread.is_alive() and thread.ident not in left:  # or another has its number by now
                    throwing(ctypes.c_ulong(thread.ident), ctypes.py_object(Interrupted))
            done.wait(0.002)

    thrower = threading.Thread(target=throw, daemon=True)
    thrower.start()
    try:
        at_once(lambda name: told.update({name: [writer.write(name) for _ in range(200)]}), "abcd")
        until(lambda: len(thrown) > 4 or not any(thread.is_alive() for thread in victims))
    finally:
        done.set()
        thrower.join()
    writer.close()
    positions = [position for mine in told.values() for position in mine]
    assert len(set(positions)) == len(positions) == 800


def test_a_caller_interrupted_while_it_starts_the_thread_leaves_one_writer(monkeypatch):
    """The thread that nobody knows of ends; the next caller starts the one that writes, and closing ends that."""
    start, orphans = threading.Thread.start, []

    def started_and_interrupted(thread):
        start(thread)
        orphans.append(thread)
        raise Interrupted

    commit, groups = numbered()
    writer = GroupWriter(commit)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", started_and_interrupted)
        with pytest.raises(Interrupted):
            writer.write("lost")
    orphans[0].join()
    assert not writer.started
    assert writer.write("a") == 1
    writer.close()
    assert groups == [["a"]]
