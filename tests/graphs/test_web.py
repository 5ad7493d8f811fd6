"""Pages, feeds, captions and folders as inputs; what cannot be had is left out by name, and the rest goes on."""

from __future__ import annotations

import os

import pytest

from graphs import web
from graphs.audit import Counters
from graphs.errors import IngestError
from graphs.fetch import Guard, Page
from graphs.gather import expand, files
from graphs.pilot import run_pilot
from graphs.state import PilotRequest
from graphs.steps import table
from tests.graphs.test_fetch import web as serving

ARTICLE = """<html><head><title>T</title><script>evil()</script></head><body><nav>Home About Login</nav><article>
<h1>The gateway crashed</h1><p>On Friday the gateway crashed for an hour, and nobody was awake to see it.</p>
<p>The caf\u00e9 stayed open. We will page two people from now on, and rehearse it every month.</p></article>
<footer>Cookies \u00a9 2026</footer></body></html>"""
FEED = """<?xml version="1.0"?><rss version="2.0"><channel><title>News</title>
<item><title>Older</title><description>&lt;p&gt;The quiz night was wonderful.&lt;/p&gt;</description>
<pubDate>Mon, 01 Jun 2026 10:00:00 GMT</pubDate></item>
<item><title>Newer</title><description>&lt;p&gt;The deploy&lt;script&gt;x()&lt;/script&gt; failed.&lt;/p&gt;
&lt;p&gt;We rolled back.&lt;/p&gt;</description><pubDate>Tue, 02 Jun 2026 10:00:00 GMT</pubDate></item>
<item><title>Empty</title></item></channel></rss>"""
VTT = "WEBVTT\n\n00:00:01.000 --> 00:00:03.000\nThe release is on Friday.\n"
HERE = Guard(allow=("127.0.0.1/32",))


def read(body, content_type="text/html", url="https://example.org/post", charset=None):
    data = body if isinstance(body, bytes) else body.encode()
    return list(web.documents(url, None, lambda *_: Page(url, content_type, charset, data)))


def test_of_an_article_its_text_is_kept_and_what_stands_around_it_is_not():
    """As Markdown, under its address."""
    ((name, text),) = read(ARTICLE)

    assert name == "example.org/post.md"
    assert "# The gateway crashed" in text
    assert "café" in text
    assert not {"evil", "Login", "Cookies"} & set(text.replace("(", " ").split())


@pytest.mark.parametrize("charset", [None, "iso-8859-1"])
def test_the_encoding_that_a_page_declares_counts(charset):
    """Whether its server says it or the page itself."""
    declared = ARTICLE.replace("<head>", '<head><meta charset="iso-8859-1">').encode("iso-8859-1", "replace")

    assert "café" in read(declared, charset=charset)[0][1]


def test_a_feed_is_its_entries_newest_first():
    """Those that have words; markup is gone, and what a script says with it."""
    found = read(FEED, "application/rss+xml", "https://example.org/feed?token=secret")

    assert [name for name, _ in found] == ["example.org/feed#1.md", "example.org/feed#2.md"]
    assert found[0][1] == "# Newer\n\nThe deploy failed.\n\nWe rolled back.\n"
    assert "quiz night" in found[1][1]
    assert read(FEED, "text/xml") == read(FEED, "application/xml")  # whatever its server calls it


@pytest.mark.parametrize(
    ("content_type", "url", "name"),
    [
        ("text/vtt", "https://example.org/talk", "example.org/talk.vtt"),
        ("text/plain", "https://example.org/talk.vtt", "example.org/talk.vtt"),
        ("text/plain", "https://example.org/notes", "example.org/notes.txt"),
        ("application/json", "https://example.org/t.json?x=1", "example.org/t.json"),
        ("text/markdown", "https://example.org/", "example.org.md"),
    ],
)
def test_text_stays_as_it_is_under_a_name_that_says_its_kind(content_type, url, name):
    """So that ingest reads it as a file of that kind."""
    assert read(VTT, content_type, url) == [(name, VTT)]


@pytest.mark.parametrize(
    ("body", "content_type", "charset", "fault"),
    [
        ("<html><body></body></html>", "text/html", None, "empty"),
        ("", "text/html", None, "empty"),
        ("<rss><channel></channel></rss>", "text/xml", None, "empty"),
        ("<rss", "application/rss+xml", None, "empty"),
        (b"caf\xe9", "text/plain", None, "encoding"),
        (b"cafe", "text/plain", "klingon", "encoding"),
    ],
)
def test_a_page_without_readable_words_is_refused(body, content_type, charset, fault):
    """With its fault, by its name."""
    with pytest.raises(IngestError, match=r"example\.org/post") as caught:
        read(body, content_type, charset=charset)

    assert caught.value.fault == fault


def test_a_feed_that_spells_a_path_opens_no_file(tmp_path):
    """A parser of feeds that is given a text may take it for the name of a file."""
    secret = tmp_path / "secret.xml"
    secret.write_text(FEED)

    with pytest.raises(IngestError, match="without a readable entry"):
        read(str(secret), "application/rss+xml")


def test_addresses_folders_files_and_texts_go_into_one_run(tmp_path):
    """What cannot be had is left out by name; the tenant reads in the report why."""
    folder = tmp_path / "inbox"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "b.txt").write_text("The second note.")
    (folder / "a.txt").write_text("The first note.")
    pages = {
        "/post": (200, {"Content-Type": "text/html; charset=utf-8"}, [ARTICLE.encode()]),
        "/away": (302, {"Location": "http://127.0.0.2:9/"}, []),
        "/huge": (200, {"Content-Type": "text/plain"}, [b"x" * 2**16] * 800),
    }
    with serving(pages) as (_, root):
        inputs = [f"{root}/post", folder, ("c.txt", "The third."), f"{root}/away", f"{root}/huge", "file:///etc/passwd"]
        request = PilotRequest("acme", "main", inputs, enable_embed=False)
        result = run_pilot(request, orchestrator="sequential", steps=table(HERE), counters=Counters())

    assert result.status == "degraded"
    names = [one["name"] for one in result.ingest["documents"]]
    assert names == [f"{root[7:]}/post.md", "a.txt", "b.txt", "c.txt"]
    assert [(one["name"], one["fault"]) for one in result.ingest["left_out"]] == [
        (f"{root}/away", "refused"),
        (f"{root}/huge", "too_large"),
        ("file:///etc/passwd", "refused"),
    ]


def test_without_any_document_the_run_fails_with_every_reason():
    """As it does where files alone are named."""
    request = PilotRequest("acme", "main", ["http://127.0.0.1:9/a", "http://10.0.0.1/b"])
    result = run_pilot(request, orchestrator="sequential", counters=Counters())

    assert result.status == "failed"
    assert "127.0.0.1:9/a: 127.0.0.1 is 127.0.0.1, which is not public" in result.error["reason"]
    assert "10.0.0.1/b" in result.error["reason"]


def test_a_folder_is_its_files_without_hidden_ones_and_ways_out(tmp_path):
    """Sorted, so that two readings are equal; a link that leads out of it is not followed."""
    inbox = tmp_path / "inbox"
    (inbox / ".git").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("no")
    for name in ("b.txt", "a.txt", ".hidden.txt", ".git/c.txt"):
        (inbox / name).write_text("x")
    os.symlink(tmp_path / "secret.txt", inbox / "out.txt")
    os.symlink(inbox / "a.txt", inbox / "in.txt")

    assert [path.name for path in files(inbox)] == ["a.txt", "b.txt", "in.txt"]
    assert expand(str(inbox)) == files(inbox)
    (tmp_path / "empty").mkdir()
    with pytest.raises(IngestError, match="there is no file in it"):
        files(tmp_path / "empty")


def test_a_thousand_files_of_which_seven_are_broken(tmp_path):
    """The seven are named with their faults; the others are read."""
    for number in range(993):
        (tmp_path / f"{number:04}.txt").write_text(f"Note {number}: the deploy of day {number} went well.")
    for number in range(7):
        (tmp_path / f"broken{number}.srt").write_bytes(bytes([0, 1, 2, number]))
    steps = table()[:1]
    result = run_pilot(PilotRequest("a", "b", [tmp_path]), orchestrator="sequential", steps=steps, counters=Counters())

    assert len(result.ingest["documents"]) == 993
    assert [one["name"] for one in result.ingest["left_out"]] == [f"broken{number}.srt" for number in range(7)]
    assert {one["fault"] for one in result.ingest["left_out"]} == {"binary"}
