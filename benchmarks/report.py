"""Writes the results as a page of the documentation."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from benchmarks.payload import JSON_BYTES, MESSAGEPACK_BYTES
from benchmarks.ratios import Verdict, verdicts
from benchmarks.results import Cell, Results
from benchmarks.rounds import TURN_SECONDS
from benchmarks.stacks import BARE, OURS_REDIS
from benchmarks.works import CONNECTIONS, LANES, WORKS

__all__ = ("page", "summary", "table")

_GB_OF_A_MILLION: Final = 1_000
"""Bytes each that make a gigabyte."""

_ABOUT: Final = f"""\
# Benchmarks

<!-- Written by `uv run just bench`; edit benchmarks/report.py, not this page. -->

The cost of a session, for the framework without sessions, the framework's sessions, four other libraries, and this library with
its stores. Run it yourself, in about eight minutes:

```console
uv run just bench
```

`--quick` checks that everything runs, `--only NAME ...` measures some of the stacks, `--part NAME` measures one part, and
`--rounds N` sets the number of rounds. The first three do not change this page. `--keep FILE` adds the results to those of
earlier runs in that file, so that a full run can be made in pieces.

## What is measured

Every stack serves the same pages with one worker process on loopback: Python on Granian with uvloop (Django over WSGI, where
it is many times faster than over ASGI), Express on Node. In every Python process the garbage collector is set as in `serve`
(`app/ops/collector.py`): otherwise each stack pauses for 20 to 50 ms now and then. All servers run during the whole
measurement. In a round each stack does each task, one stack after the other; each round begins with another stack. The
client is one process with {LANES} keep-alive connections. On each it sends the next request after the response to the last
one, and checks every status and body: one wrong response ends the run. No requests are logged.

A session has the same eight fields in every stack: {MESSAGEPACK_BYTES} bytes in MessagePack, {JSON_BYTES} in JSON. Redis
writes nothing to disk; PostgreSQL and SQLite do. The other libraries are set up as their documentation says for production.
The task "login callback" is the part after the provider's response: the session is filled and gets a new id (Litestar's own
sessions cannot change the id). State-changing requests have the headers of a form of the same site; this library checks
them.

Each figure is the median of the rounds; the worst and the best round are in brackets. All servers are restarted three times
in a run, so that no figure depends on one process. p50 and p99 are the times that the client waits for a response, in
milliseconds: with one connection the time of a single request, with {LANES} and more the time in a queue of that length.

Each ratio under "Must reach" is the median of the ratios within each turn. In a turn the stacks of a target serve one after
the other, for {TURN_SECONDS * 1000:g} ms each, over open connections; each turn begins with another stack. Virtual machines
change their speed several times a second; within so short a time it is the same for all. On the page without a session this
library and bare Litestar run the same instructions, but two processes of one stack differ by more than the target allows:
there, new processes are started for every pair of figures. Increments of one session are compared by rounds.

For the tests with very many sessions, each store is filled with copies of one session. Then the library lists and revokes
the sessions of forty users.

**Not measured:** networks, TLS, several machines, a Redis that persists or replicates, the OpenID provider's part of a
login, the memory of server processes without WebSockets, and pages that do real work, where the cost of a session is a
smaller part.
"""


def page(results: Results, chart: str) -> str:
    """The whole page; `chart` is the relative path of the picture."""
    parts = [_ABOUT, _machine(results), f"![Requests per second of each stack]({chart})\n", "## Must reach\n", _verdicts(results)]
    parts += ["## Requests per second\n", _rates(results), "## Waiting for an answer\n", _latencies(results)]
    parts += [_one_session(results), _redis(results), _scale(results), _memory(results), _sweep(results), _left_out(results)]
    return "\n".join(part for part in parts if part).rstrip() + "\n"


def summary(results: Results) -> str:
    """Only the tables, for a terminal."""
    parts = [
        _rates(results),
        _latencies(results),
        _one_session(results),
        _redis(results),
        _scale(results),
        _memory(results),
        _sweep(results),
    ]
    return "\n".join(part for part in [*parts, _verdicts(results), _left_out(results)] if part)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; every column except the first is right-aligned."""
    lines = [_line(head), _line(["---", *["---:"] * (len(head) - 1)])]
    return "\n".join([*lines, *(_line(row) for row in rows)]) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _machine(results: Results) -> str:
    facts = ", ".join(f"{name} {value}" for name, value in results.machine.items())
    turns = min((len(cell.samples) for cell in results.turns.values()), default=0)
    measured = f"{results.rounds} rounds of {results.seconds:g} seconds for each figure, {turns} turns or more for each ratio"
    return f"Measured on {results.date}, {measured}. {facts}.\n"


def _verdicts(results: Results) -> str:
    rows = [_verdict(verdict) for verdict in verdicts(results)]
    return table(("Target", "reached", "wanted", "met"), rows)


def _verdict(verdict: Verdict) -> tuple[str, str, str, str]:
    word = verdict.word if verdict.met is not False else f"**{verdict.word}**"
    return verdict.name, verdict.reached, verdict.target, word


def _rates(results: Results) -> str:
    works = [work for work in WORKS if any(name == work.name for name, _ in results.cells)]
    rows = [[stack.label, *(_rate(results.cell(work.name, stack.name)) for work in works)] for stack in results.stacks]
    return table(("Stack", *(work.title for work in works)), rows)


def _rate(cell: Cell | None) -> str:
    return "" if cell is None else f"{cell.rate:,.0f} ({cell.slowest:,.0f} to {cell.fastest:,.0f})"


def _latencies(results: Results) -> str:
    columns = [(work, number) for work in ("read", "increment") for number in CONNECTIONS]
    rows = [
        [stack.label, *(_latency(results.waiting.get((work, stack.name, number))) for work, number in columns)]
        for stack in results.stacks
        if stack.sessions
    ]
    head = [f"{work}, {number} {'connection' if number == 1 else 'connections'}" for work, number in columns]
    return table(("p50 / p99 in ms", *head), rows)


def _latency(cell: Cell | None) -> str:
    return "" if cell is None else f"{cell.p50:.2f} / {cell.p99:.2f}"


def _one_session(results: Results) -> str:
    rows = []
    for stack in results.stacks:
        one, two = results.cell("one", stack.name), results.cell("two", stack.name)
        if one is not None:
            rows.append((stack.label, _kept(one), _kept(two) if two else ""))
    text = (
        "## Increments of one session that are kept\n\n"
        f"{LANES} clients increment one number; each waits for the response before its next increment.\n"
    )
    return f"{text}\n{table(('Kept, of those acknowledged', 'one process', 'two processes'), rows)}" if rows else ""


def _kept(cell: Cell) -> str:
    return f"{cell.kept:,} of {cell.acknowledged:,} ({cell.kept / cell.acknowledged:.0%})"


def _redis(results: Results) -> str:
    rows = [
        (
            stack.label,
            *map(str, results.commands[stack.name]),
            f"{results.memory[stack.name]:,.0f}",
        )
        for stack in results.stacks
        if stack.name in results.commands
    ]
    text = (
        "## Redis commands and memory\n\n"
        "Commands that reach Redis (a script counts as one), and `MEMORY USAGE` of everything that belongs\n"
        f"to a logged-in session, the mean of {max(CONNECTIONS)}. Only this library stores "
        "who is logged in,\non which device, and the indexes by user and by session at the provider.\n"
    )
    return f"{text}\n{table(('Stack', 'read', 'increment', 'bytes per session'), rows)}" if rows else ""


def _scale(results: Results) -> str:
    if not results.scales:
        return ""
    engines = list(dict.fromkeys(scale.engine for scale in results.scales))
    costs = {(s.sessions, s.per_user, s.engine): f"{s.list_us:,.0f} / {s.revoke_us:,.0f}" for s in results.scales}
    rows = [
        (f"{sessions:,}", str(per_user), *(costs.get((sessions, per_user, engine), "") for engine in engines))
        for sessions, per_user in dict.fromkeys((s.sessions, s.per_user) for s in results.scales)
    ]
    taken = ", ".join(f"{results.scale_bytes[engine]:,.0f} in {engine}" for engine in engines)
    text = (
        "## Listing and revoking among very many\n\nOne user's sessions, by their index: the cost is that of the user's own "
        f"sessions. At the largest\nnumber the bytes per session, indexes included, are {taken}.\nThe other libraries "
        "have no index: they have to read every session.\n"
    )
    return f"{text}\n{table(('Sessions', 'of the user', *(f'{engine}: list / revoke all, µs' for engine in engines)), rows)}"


def _memory(results: Results) -> str:
    bare, ours = results.socket_bytes.get(BARE.name), results.socket_bytes.get(OURS_REDIS.name)
    if bare is None or ours is None:
        return ""
    rows = [
        (f"session at rest, {engine}", f"{taken:,.0f}", f"{taken / _GB_OF_A_MILLION:.2f} GB")
        for engine, taken in results.scale_bytes.items()
    ]
    rows += [
        ("open WebSocket without a session, server process", f"{bare:,.0f}", f"{bare / _GB_OF_A_MILLION:.1f} GB"),
        ("open WebSocket with a session, server process", f"{ours:,.0f}", f"{ours / _GB_OF_A_MILLION:.1f} GB"),
    ]
    text = (
        "## Memory\n\nA session at rest needs no memory in the server processes. An open WebSocket needs memory of the server\n"
        "and the framework in any case.\n"
    )
    return f"{text}\n{table(('One', 'bytes', 'a million of them'), rows)}"


def _sweep(results: Results) -> str:
    sweep = results.sweep
    if sweep is None:
        return ""
    return (
        "## Sweeping\n\n"
        f"{sweep.rows:,} expired rows were removed from PostgreSQL in {sweep.seconds:.1f} s by another process, while four "
        f"clients\nread and incremented ({sweep.answers:,} requests). Each step of the sweep is one statement that commits "
        f"itself; the\nlongest took {sweep.longest_step:.1f} ms. During no request did such statements run for more than "
        f"{sweep.within:.1f} ms. Work that they leave to\nothers, such as a log that the next commit writes, is not included; "
        f"the longest request took {sweep.longest:.1f} ms, and\n{sweep.longest_before:.1f} without the sweep. The target uses "
        "the greater of the two: the statements, or the difference.\n"
    )


def _left_out(results: Results) -> str:
    lines = "".join(f"- {line}\n" for line in results.left_out)
    return f"## Left out\n\n{lines}" if lines else ""
