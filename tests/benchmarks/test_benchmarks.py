"""The benchmark: its client refuses wrong responses; its tables and ratios report what was measured, misses included.

Speed is not tested here.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import cycle
from pathlib import Path
from xml.etree import ElementTree as ET

import msgspec
import pytest

from benchmarks.chart import draw
from benchmarks.client import BrokenPromiseError, Connections, Fixed, Jar, counted, drive, exactly, request, round_robin
from benchmarks.payload import FIELDS, MESSAGEPACK_BYTES
from benchmarks.ratios import TARGETS, ratio, verdicts
from benchmarks.report import page, summary, table
from benchmarks.results import Cell, Results, Sample, Scale, Sweep, percentile
from benchmarks.stacks import BARE, LITESTAR, OURS_REDIS, STACKS, missing_package
from benchmarks.stacks.ours import AppSession
from benchmarks.sweeping import longest_overlap

ROOT = Path(__file__).parent.parent.parent
SVG = "{http://www.w3.org/2000/svg}"


def cell(*rates: float, acknowledged: int = 0, kept: int = 0) -> Cell:
    return Cell([Sample(rate, 1.0, 2.0, acknowledged, kept) for rate in rates])


def results() -> Results:
    """Three rounds; the machine is slower in each."""
    found = Results("2026-11-23", 3, 0.4, {"cores": "2"}, [BARE, LITESTAR, OURS_REDIS])
    found.cells = {
        ("read", "bare"): cell(32000, 30000, 20000),
        ("read", "litestar"): cell(4000, 3000, 2000),
        ("read", "redis"): cell(16000, 15000, 10000),
        ("public", "bare"): cell(32000, 30000, 20000),
        ("public", "redis"): cell(30000, 27000, 19000),
        ("one", "litestar"): cell(4000, acknowledged=3200, kept=217),
        ("one", "redis"): cell(12000, acknowledged=3200, kept=3200),
        ("two", "redis"): cell(12000, 12000, acknowledged=3200, kept=3200),
    }
    found.commands = {"litestar": (2, 2), "redis": (1, 2)}
    found.memory = {"litestar": 504, "redis": 936.4}
    found.stored_bytes = 650
    found.scales = [Scale("Redis", 10_000, 5, 100, 100), Scale("Redis", 1_000_000, 5, 110, 170)]
    found.scales += [Scale("SQLite", 10_000, 5, 50, 80), Scale("SQLite", 1_000_000, 5, 60, 90)]
    found.scale_bytes = {"Redis": 760.0, "SQLite": 977.0}
    found.waiting = {("read", "redis", 1): cell(3000), ("increment", "redis", 256): cell(9000)}
    found.sweep = Sweep(100_000, 2.5, 4000, 61.5, 31.5, 42.0, 4.5)
    return found


# -- what is compared ----------------------------------------------------------------------------------------


def test_the_session_contains_300_bytes() -> None:
    assert len(msgspec.msgpack.encode(AppSession(**FIELDS))) == MESSAGEPACK_BYTES
    assert [field.name for field in msgspec.structs.fields(AppSession)] == list(FIELDS)


def test_every_stack_of_a_target_exists() -> None:
    names = {stack.name for stack in STACKS} | {"redis-near-cache"}
    assert len(names) >= len(STACKS)
    assert {target.stack for target in TARGETS} | {target.other for target in TARGETS} <= names


# -- figures -------------------------------------------------------------------------------------------------


def test_a_cell_is_the_median_with_its_worst_and_best_round() -> None:
    found = cell(5, 100, 7)
    assert (found.rate, found.slowest, found.fastest) == (7, 5, 100)


def test_percentiles_of_few_and_of_no_values() -> None:
    assert percentile(list(range(100)), 0.99) == 99
    assert percentile([3], 0.5) == 3
    assert percentile([], 0.5) == 0


def test_a_ratio_is_computed_within_each_round() -> None:
    """A machine that slows down for both sides does not change it."""
    assert ratio(cell(20, 2, 6), cell(10, 1, 2)) == 2
    with pytest.raises(ValueError, match="zip"):
        ratio(cell(1, 2), cell(1))


def test_targets_that_are_reached_missed_and_not_measured() -> None:
    words = {verdict.name: (verdict.reached, verdict.word) for verdict in verdicts(results())}
    assert words["Redis: read, of a page without sessions"] == ("0.50x", "no")
    assert words["Redis: read, of Litestar's own sessions"] == ("5.00x", "yes")
    assert words["Redis: read, of starsessions"] == ("", "not measured")
    assert words["a page that uses no session, of bare Litestar"] == ("0.94x", "no")
    assert words["Redis: increment of ONE session, of Litestar's own"] == ("3.00x", "yes")
    kept = "acknowledged increments of ONE session that are kept, over two processes"
    assert words[f"session_core, Redis: {kept}"] == ("6400 of 6400", "yes")
    assert words["Redis: revoke a user's sessions among 1,000,000 sessions, of the same among 10,000"] == ("1.70x", "no")
    assert words["SQLite: revoke a user's sessions among 1,000,000 sessions, 5 each, of the same on Redis"] == ("0.53x", "yes")
    assert words["PostgreSQL: list a user's sessions among very many"] == ("", "not measured")
    assert words["the longest that a sweep of 100,000 expired SQL rows delayed a request"] == ("31.5 ms", "yes")


def test_interleaved_measurements_are_compared_within_each_turn() -> None:
    found = results()
    found.turns = {("read", "litestar"): cell(10, 20, 40), ("read", "redis"): cell(21, 40, 100)}
    reached = {verdict.name: verdict.reached for verdict in verdicts(found)}
    assert reached["Redis: read, of Litestar's own sessions"] == "2.10x"
    assert reached["Redis: increment of ONE session, of Litestar's own"] == "3.00x"


@pytest.mark.parametrize(("within", "longest", "before", "reached"), [(30, 70, 60, 30), (10, 70, 30, 40), (10, 20, 30, 10)])
def test_the_delay_of_a_sweep_is_its_own_time_or_the_time_after_it(
    within: float, longest: float, before: float, reached: float
) -> None:
    assert Sweep(1, 1, 1, longest, within, before, 1).request_delay == reached


def test_the_delay_caused_by_other_statements() -> None:
    steps = [(10, 20), (30, 35), (50, 90)]
    asked = {(0, 5): 0, (0, 10): 0, (0, 100): 55, (12, 15): 3, (15, 32): 7, (20, 30): 0, (34, 60): 11, (90, 99): 0, (95, 99): 0}
    assert {span: longest_overlap([span], steps) for span in asked} == asked
    assert longest_overlap(list(asked), steps) == 55
    assert longest_overlap([], steps) == longest_overlap(list(asked), []) == 0


def test_one_lost_increment_is_a_miss() -> None:
    found = results()
    found.cells["two", "redis"] = cell(12000, acknowledged=3200, kept=3199)
    assert [verdict.reached for verdict in verdicts(found) if verdict.word == "no" and "kept" in verdict.name] == ["3199 of 3200"]


def test_a_target_without_a_measurement_is_not_reached() -> None:
    empty = Results("2026-11-23", 1, 0.1, {}, [])
    assert {verdict.word for verdict in verdicts(empty)} == {"not measured"}


# -- what is written -----------------------------------------------------------------------------------------


def test_a_table_is_aligned_markdown() -> None:
    assert (
        table(("Stack", "rate"), [("ours", "1"), ("theirs", "2")])
        == "| Stack | rate |\n| --- | ---: |\n| ours | 1 |\n| theirs | 2 |\n"
    )


def test_the_page_shows_every_miss() -> None:
    found = results()
    found.left_out.append("Express: node is not installed: uv sync --group dev")
    text = page(found, "assets/benchmarks.svg")
    assert text.startswith("# Benchmarks\n")
    assert "![Requests per second of each stack](assets/benchmarks.svg)" in text
    assert "| a page that uses no session, of bare Litestar | 0.94x | >= 0.97x | **no** |" in text
    assert "| Litestar's own sessions, Redis | 217 of 3,200 (7%) |  |" in text
    assert "15,000 (10,000 to 16,000)" in text
    assert "| session_core, Redis | 1.00 / 2.00 |  |  |  |  | 1.00 / 2.00 |" in text
    assert "| 1,000,000 | 5 | 110 / 170 | 60 / 90 |" in text
    assert "- Express: node is not installed: uv sync --group dev" in text
    assert text.endswith("\n")
    assert "\n\n\n" not in text


def test_the_summary_without_measurements() -> None:
    assert "not measured" in summary(Results("2026-11-23", 1, 0.1, {}, [BARE]))


def test_the_chart_shows_reads_writes_and_kept_increments() -> None:
    found = results()
    found.cells["increment", "litestar"] = cell(4000)
    tree = ET.fromstring(draw(found))
    _, _, width, height = (float(number) for number in tree.attrib["viewBox"].split())
    texts = [text.text or "" for text in tree.iter(f"{SVG}text")]
    titles = [text.text for text in tree.iter(f"{SVG}text") if text.attrib.get("class") == "title"]
    assert [(title or "").partition(" ")[0] for title in titles] == ["Reads", "Writes", "Kept,"]
    bars = [bar for bar in tree.iter(f"{SVG}rect") if bar.attrib["class"] in {"bare", "peer", "ours"}]
    assert [bar.attrib["class"] for bar in bars] == ["bare", "ours", "peer", "peer", "ours", "peer"]
    lengths = [float(bar.attrib["width"]) for bar in bars]
    assert lengths[0] / lengths[1] == pytest.approx(2, rel=0.01)
    assert [text for text in texts if text.endswith("%")] == ["100%", "7%"]
    for bar in bars:
        assert float(bar.attrib["x"]) + float(bar.attrib["width"]) <= width
        assert float(bar.attrib["y"]) + float(bar.attrib["height"]) <= height
    style = tree.findtext(f"{SVG}style") or ""
    assert "prefers-color-scheme: dark" in style
    assert not {"url(", "@import", "@font-face"} & set(style.split())
    assert "href" not in draw(found)


# -- the client ----------------------------------------------------------------------------------------------


@contextmanager
def answering(*answers: bytes) -> Iterator[int]:
    """A server that sends these responses in order, each in two pieces, on every connection."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection: socket.socket) -> None:
        with connection:
            for answer in cycle(answers):
                if not connection.recv(65536):
                    return
                connection.sendall(answer[:20])
                connection.sendall(answer[20:])
                if not answer:
                    return

    def accept() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


def answer(body: bytes, status: bytes = b"200 OK", *headers: bytes) -> bytes:
    lines = [b"HTTP/1.1 " + status, b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def test_the_client_counts_responses() -> None:
    with answering(answer(b"yes")) as port:
        lanes = [Fixed([request("GET", "/", port)], exactly(b"yes")) for _ in range(8)]
        outcome = drive(lanes, [port], answers=100)
        assert outcome.answers == len(outcome.latencies) == 100
        assert outcome.rate > 0
        assert drive(lanes, [port], seconds=0.05).answers >= 8


def test_the_client_reuses_its_connections() -> None:
    with answering(answer(b"yes")) as port:
        connections = Connections([Fixed([request("GET", "/", port)], exactly(b"yes")) for _ in range(4)], [port])
        before = time.perf_counter_ns()
        outcomes = [connections.drive(answers=10) for _ in range(3)]
        connections.close()
    assert [outcome.answers for outcome in outcomes] == [10, 10, 10]
    begins = [begun for outcome in outcomes for begun in outcome.begins]
    assert before <= min(begins) <= max(begins) <= time.perf_counter_ns()
    assert max(outcomes[0].begins) < min(outcomes[1].begins)


@pytest.mark.parametrize(
    "wrong",
    [
        answer(b"no"),
        answer(b"yes", b"500 Oh"),
        answer(b"yes", b"204 No"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nyes\r\n0\r\n\r\n",
        answer(b"yes") + b"more",
        b"",
    ],
)
def test_one_wrong_response_fails_the_run(wrong: bytes) -> None:
    with answering(*[answer(b"yes")] * 5, wrong) as port, pytest.raises(BrokenPromiseError):
        drive([Fixed([request("GET", "/", port)], exactly(b"yes"))], [port], answers=6)


def test_a_cookie_jar_keeps_the_newest_cookie() -> None:
    cookies = [answer(b"yes", b"200 OK", b"Set-Cookie: session=%d; Path=/" % number) for number in range(3)]
    with answering(*cookies) as port:
        jar = Jar("POST", "/login", port, exactly(b"yes"), must_change=True)
        drive([jar], [port], answers=3)
        assert jar.cookie == b"session=2"
        assert b"\r\ncookie: session=2\r\n" in jar.next()


def test_an_id_unchanged_by_a_login_fails_the_run() -> None:
    with answering(answer(b"yes", b"200 OK", b"set-cookie: session=1")) as port, pytest.raises(BrokenPromiseError):
        drive([Jar("POST", "/login", port, exactly(b"yes"), must_change=True)], [port], answers=2)


def test_a_request_without_a_session_uses_two_lanes() -> None:
    items = [b"%d" % number for number in range(10)]
    dealt = round_robin(items, 4)
    assert sorted(item for lane in dealt for item in lane) == sorted(items)


def test_the_response_of_an_increment_is_checked() -> None:
    assert counted(b'{"visits":12}')
    assert not counted(b'{"visits":null}')


# -- a short real run ----------------------------------------------------------------------------------------


@pytest.mark.timeout(600)
def test_every_python_stack_responds_correctly_in_a_real_run(tmp_path: Path) -> None:
    """The client checks status and body of each response; this test checks that all stacks ran."""
    for stack in STACKS:
        if package := missing_package(stack):
            assert not os.environ.get("CI"), f"{package} is not installed: uv sync --group dev"
            pytest.skip(f"{package} is not installed: uv sync --group dev")
    only = [stack.name for stack in STACKS if not stack.program.endswith(".js")]
    command = [sys.executable, "-m", "benchmarks", "--quick", "--output", str(tmp_path), "--only", *only]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=580)
    assert run.returncode == 0, run.stderr[-4000:]
    text = (tmp_path / "benchmarks.md").read_text()
    left_out = text.partition("## Left out")[2].strip().splitlines()
    assert [line for line in left_out if not line.endswith("256 connections, which it answers with errors")] == []
    increments = text.partition("## Increments of one session")[2].partition("\n## ")[0]
    kept = [line for line in increments.splitlines() if "session_core" in line]
    assert len(kept) == sum(stack.ours for stack in STACKS)
    assert [line for line in kept if line.count("(100%)") != (1 if "memory" in line else 2)] == []
    ET.fromstring((tmp_path / "assets" / "benchmarks.svg").read_text())


def test_an_unknown_stack_is_refused() -> None:
    command = [sys.executable, "-m", "benchmarks", "--only", "nothing"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=200)
    assert run.returncode == 2
    assert "invalid choice: 'nothing'" in run.stderr
