# uv run just RECIPE

# with the packages that tests and checks need
run := "uv run --group dev"

# list the recipes
default:
    @just --list

# demo:begin
# the demo: identity provider and application, logged in within a minute
demo *ARGS:
    uv run demo {{ARGS}}
# demo:end

# the application on Granian, as in production
serve *ARGS:
    uv run serve {{ARGS}}

# a test of every promise in some minutes, or the tests named
test *ARGS:
    {{run}} pytest {{ARGS}}

# all tests: every engine, browser and moment
test-all *ARGS:
    {{run}} pytest --all {{ARGS}}

# style, formatting, and who may import whom
lint:
    {{run}} ruff check .
    {{run}} ruff format --check .
    {{run}} lint-imports

# both type checkers
types:
    {{run}} mypy
    {{run}} pyright

# demo:begin
# the tests in a real browser
e2e *ARGS:
    {{run}} pytest tests/e2e {{ARGS}}

# the pictures of README and documentation, and the animation, taken from the running demo
screenshots *ARGS:
    {{run}} python scripts/screenshots.py {{ARGS}}
# demo:end

# library:begin
# the tables of docs/security.md, from a run of the tests that carry a requirement's id
security:
    {{run}} python scripts/security_table.py

# small faults in the modules that promises rest on: each must make a test fail
mutants *ARGS:
    {{run}} --group mutants python scripts/mutants.py {{ARGS}}

# every order of a few requests with faults at every store call; with a seed, that schedule again
simulate *SEEDS:
    {{run}} python -m tests.simulation.explore {{ if SEEDS == "" { "--all" } else { SEEDS } }}

# measure the sessions beside their peers; a full run writes docs/benchmarks.md
bench *ARGS:
    {{run}} python -m benchmarks {{ARGS}}

# build the documentation
docs:
    {{run}} zensical build --strict --clean

# a release: checks, changelog, version, files in dist/; publishing them is left to you
release VERSION:
    {{run}} python scripts/release.py {{VERSION}}

# depend on a released version of the library instead of the folder session_core
use-release VERSION:
    {{run}} python scripts/use_release.py {{VERSION}}
# library:end

# .env.example and the reference, from the settings as they are declared
settings:
    uv run python -m app.settings.reference

# bring the database of the settings to the newest version
migrate:
    uv run alembic upgrade head

# give the project a name of your own, on its pages and in its texts; spaces are allowed
[positional-arguments]
rename *NAME:
    uv run python scripts/rename.py "$@"

# demo:begin
# drop the demo; what is left logs in at your own provider
eject:
    uv run python scripts/eject.py
# demo:end
