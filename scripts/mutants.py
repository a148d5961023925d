"""Mutation testing of the modules behind the guarantees: each small fault must make a test fail.

    uv run just mutants                          a sample from every module
    uv run just mutants --sample 0               every mutant (hours)
    uv run just mutants --only 'session_core/oidc/verify/*' --seed 7
    uv run just mutants --sample 0 --progress var/mutants    what is in the file is not run again

`tests/mutants.toml` lists the mutated files, the tests that must fail, and the mutants that change no behaviour with the reason
for each; those are not run. Python is mutated by Cosmic Ray's operators; Lua, SQL and patterns by the few rules below. Everything
runs in copies of the tree. The exit status is 1 when an unlisted mutant survives.
"""

from __future__ import annotations

import argparse
import difflib
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter, defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatch
from functools import partial
from hashlib import sha256
from itertools import count
from pathlib import Path
from queue import SimpleQueue
from time import monotonic
from typing import Any, Final, NamedTuple

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

ROOT: Final = Path(__file__).resolve().parent.parent
_SKIPPED: Final = re.compile(
    r"core/(?:Variable|RemoveDecorator|ReplaceBinaryOperator_BitOr_|ReplaceBinaryOperator_\w+_(?:Pow|Mod|RShift|LShift))"
)
"""Excluded: type unions, decorators, and arithmetic that is not a typical mistake."""
_POSITIONAL: Final = re.compile(r"(^\s+|[(] ?|, )/,", re.MULTILINE)
"""Replaces `*` by `/` in a signature: calls pass these parameters by name and stay valid, so it changes no behaviour."""
_PATTERN_RULES: Final = (
    ("end anchor removed", re.compile(r"\\Z"), ""),
    ("start anchor removed", re.compile(r'(?<=r")\^'), ""),
)
_SQL_RULES: Final = (
    ("<= to <", re.compile(r" <= (?=[:?])"), " < "),
    ("> to >=", re.compile(r"(?<=[a-z]) > (?=[:?n])"), " >= "),
    ("< to <=", re.compile(r"(?<=[a-z_)}]) < (?=[:?n])"), " <= "),
    ("condition removed", re.compile(r" AND [\w.\"]+ (?:=|<>|<|>|<=|>=|IS) (?::\w+|\?|NULL|[\w.]+)"), ""),
    ("order reversed", re.compile(r"(?<=ORDER BY rank)|(?<=ORDER BY \"rank\")|(?<=ORDER BY expires_at)"), " DESC"),
    ("value not set", re.compile(r", (?:data|successor|user_key|op_session_key|\"?rank\"?) = [:\w.?]+"), ""),
)
_LUA_RULES: Final = (
    ("== to ~=", re.compile(r"=="), "~="),
    ("~= to ==", re.compile(r"~="), "=="),
    ("<= to <", re.compile(r"<="), "<"),
    (">= to >", re.compile(r">="), ">"),
    ("< to <=", re.compile(r"(?<![<~])<(?![=<])"), "<="),
    ("> to >=", re.compile(r"(?<![>~=-])>(?![=>])"), ">="),
    ("and to or", re.compile(r"\band\b"), "or"),
    ("or to and", re.compile(r"\bor\b"), "and"),
    ("not removed", re.compile(r"\bnot "), ""),
    ("+ to -", re.compile(r" \+ "), " - "),
    ("- to +", re.compile(r" - "), " + "),
    ("call removed", re.compile(r"^(\s*)redis\.call\(.*\)$", re.MULTILINE), r"\1"),
    ("return removed", re.compile(r"^(\s+)return .*$", re.MULTILINE), r"\1"),
)


class Target(NamedTuple):
    """Files to mutate, and the tests that must fail."""

    files: list[str]
    tests: list[str]


_FAILED: Final = re.compile(r"^(?:FAILED|ERROR) (tests/[^\s\[]+)", re.MULTILINE)
_MANY: Final = 20
"""How many of the test functions that killed mutants of a file run first."""


class Mutant(NamedTuple):
    """One mutation."""

    file: str
    rule: str
    text: str
    target: Target

    def diff(self) -> str:
        """Return the changed lines."""
        before = (ROOT / self.file).read_text(encoding="utf-8").splitlines()
        lines = difflib.unified_diff(before, self.text.splitlines(), self.file, f"{self.file} ({self.rule})", lineterm="", n=0)
        return "\n".join(lines)

    def digest(self) -> str:
        """Return its name in the file of `--progress`."""
        return sha256(f"{self.file}\n{self.text}".encode()).hexdigest()[:20]

    def changed(self) -> tuple[str, str]:
        """Return the first changed line before and after, for the list of equivalent mutants."""
        lines = [line for line in self.diff().splitlines()[2:] if line[:1] in {"-", "+"}]
        return next((x[1:].strip() for x in lines if x[0] == "-"), ""), next((x[1:].strip() for x in lines if x[0] == "+"), "")


def main() -> int:
    """Run the mutants; return 1 when an unlisted one survives."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sample", type=int, default=8, help="mutants of each file; 0 for all")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="*", help="files, as a pattern")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no mutant after that")
    parser.add_argument("--progress", type=Path, help="a file of the killed mutants, which are not run again")
    options = parser.parse_args()
    plan = tomllib.loads((ROOT / "tests/mutants.toml").read_text(encoding="utf-8"))
    targets = [Target([file for pattern in each["files"] for file in _files(pattern)], each["tests"]) for each in plan["target"]]
    chosen = _choose(targets, options)
    print(f"{len(chosen)} mutants, seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="mutants-") as directory:
        tests = _Tests(Path(directory), options.jobs, options.progress)
        for target in targets:
            if any(mutant.target is target for mutant in chosen) and (failed := tests.failing(target.tests)):
                print(f"the tests fail without a mutant: {failed}", file=sys.stderr)
                return 2
        equivalent = {(each["file"], each["before"], each["after"]) for each in plan.get("equivalent", [])}
        end = monotonic() + options.seconds
        counts: defaultdict[str, Counter[str]] = defaultdict(Counter)

        def judge(mutant: Mutant) -> str:
            if (mutant.file, *mutant.changed()) in equivalent:
                return "listed"
            if mutant.digest() in tests.killed:
                return "killed"
            if monotonic() > end:
                return "not run"
            if tests.kill(mutant):
                return "killed"
            print(f"\nSURVIVED\n{mutant.diff()}", flush=True)
            return "survived"

        chance = random.Random(options.seed)  # noqa: S311 - an order, no secret
        chance.shuffle(chosen)
        with ThreadPoolExecutor(options.jobs) as pool:
            for mutant, outcome in zip(chosen, pool.map(judge, chosen), strict=True):
                counts[mutant.file][outcome] += 1
    print()
    for name, outcomes in sorted(counts.items()):
        print(f"{name}: {', '.join(f'{number} {outcome}' for outcome, number in sorted(outcomes.items()))}")
    return 1 if any(outcomes["survived"] for outcomes in counts.values()) else 0


def mutants_of(file: str, target: Target) -> list[Callable[[], Mutant | None]]:
    """Return functions that create the mutants of a file; creating one takes time, so a sample is chosen first."""
    code = (ROOT / file).read_text(encoding="utf-8")
    rules = _LUA_RULES if file.endswith(".lua") else _SQL_RULES if "SELECT " in code else _PATTERN_RULES
    makers: list[Callable[[], Mutant | None]] = [
        partial(Mutant, file, rule, text, target) for rule, text in _by_rules(code, rules)
    ]
    if file.endswith(".lua"):
        return makers
    nodes = list(ast_nodes(get_ast(code)))
    for name in sorted(operator_names()):
        if not _SKIPPED.match(name):
            operator: Any = get_operator(name)()
            places = sum(len(list(operator.mutation_positions(node))) for node in nodes)
            makers += [partial(_mutated, file, code, name, place, target) for place in range(places)]
    return makers


def _mutated(file: str, code: str, name: str, place: int, target: Target) -> Mutant | None:
    operator: Any = get_operator(name)()
    try:
        mutated = mutate_code(code, operator, place)
    except AttributeError:  # Cosmic Ray has no replacement for the dotted name of an exception
        return None
    if mutated is None or _behaviour(mutated) == _behaviour(code):
        return None
    try:
        compile(mutated, file, "exec")
    except SyntaxError:  # such as another operator in place of the `*` before keyword-only parameters
        return None
    return Mutant(file, name.removeprefix("core/"), mutated, target)


def _behaviour(code: str) -> str:
    return _POSITIONAL.sub(r"\1*,", code).replace("if not TYPE_CHECKING:", "if TYPE_CHECKING:")


def _by_rules(code: str, rules: tuple[tuple[str, re.Pattern[str], str], ...]) -> list[tuple[str, str]]:
    found = []
    for rule, pattern, replacement in rules:
        for match in pattern.finditer(code):
            line = code[code.rfind("\n", 0, match.start()) + 1 : match.start()]
            if "--" not in line and not line.lstrip().startswith("#"):
                found.append((rule, code[: match.start()] + match.expand(replacement) + code[match.end() :]))
    return found


def _choose(targets: list[Target], options: argparse.Namespace) -> list[Mutant]:
    chance = random.Random(options.seed)  # noqa: S311 - a sample to test, no secret
    chosen: list[Mutant] = []
    for target in targets:
        for file in target.files:
            if fnmatch(file, options.only):
                makers = mutants_of(file, target)
                chance.shuffle(makers)
                made = {mutant.text: mutant for maker in makers[: options.sample or None] if (mutant := maker()) is not None}
                chosen += made.values()
    return chosen


class _Tests:
    """Runs tests in copies of the tree; first those that have killed the most mutants of the same file."""

    def __init__(self, directory: Path, jobs: int, progress: Path | None) -> None:
        self._directory = directory
        self._copies: SimpleQueue[Path] = SimpleQueue()
        for number in range(jobs):
            self._copies.put(_copy(directory / str(number)))
        self._stamps = count(1)
        self._killers: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._progress = progress
        self.killed: set[str] = set()
        """The digests of the mutants that the file of `--progress` names."""
        if progress is not None and progress.exists():
            for line in progress.read_text(encoding="utf-8").splitlines():
                digest, file, killer = line.split(" ", 2)
                self.killed.add(digest)
                self._killers[file][killer] += 1

    def kill(self, mutant: Mutant) -> bool:
        """Return whether a test fails with the mutant."""
        copy = self._copies.get()
        place, killers = copy / mutant.file, self._killers[mutant.file]
        try:
            place.write_text(mutant.text, encoding="utf-8")
            stamp = next(self._stamps)
            os.utime(place, (stamp, stamp))  # one of its own: Python must not use the cached bytecode of another mutant
            quick = [name for name, _ in killers.most_common(_MANY) if "::" in name]
            failed = self._run(copy, quick) if quick else None
            if failed is None or "::" not in failed:
                failed = self._run(copy, mutant.target.tests)
        finally:
            shutil.copyfile(ROOT / mutant.file, place)
            self._copies.put(copy)
        print("." if failed else "S", end="", flush=True)
        if failed is None:
            return False
        killers[failed] += 1
        if self._progress is not None:
            with self._progress.open("a", encoding="utf-8") as file:
                print(mutant.digest(), mutant.file, failed, file=file)
        return True

    def failing(self, tests: list[str]) -> str | None:
        """Return the first of some tests that fails without a mutant."""
        return self._run(self._directory / "0", tests)

    def _run(self, copy: Path, tests: list[str]) -> str | None:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:randomly", "--timeout", "60", *tests]
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": str(self._directory / "bytecode"), "PYTHONPATH": str(copy)}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        try:
            ended = subprocess.run(command, cwd=copy, env=environment, capture_output=True, text=True, timeout=300, check=False)
        except subprocess.TimeoutExpired:
            return "timeout"
        if ended.returncode == 0:
            return None
        found = _FAILED.search(ended.stdout)
        return found[1] if found else "error"


def _copy(place: Path) -> Path:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, listed):
        if (ROOT / name).is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, place / name)
    return place


def _files(pattern: str) -> list[str]:
    found = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob(pattern))
    return [file for file in found if not file.endswith("__init__.py")]


if __name__ == "__main__":
    sys.exit(main())
