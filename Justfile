# uv run just RECIPE

# with the packages that tests and checks need
run := "uv run --group dev"

# list the recipes
default:
    @just --list

# demo:begin
# the demo: identity provider and application
demo *ARGS:
    uv run demo {{ARGS}}
# demo:end

# the application on Granian, as in production
serve *ARGS:
    uv run serve {{ARGS}}

# at least one test of every promise, in minutes, or the given tests
test *ARGS:
    {{run}} pytest {{ARGS}}

# all tests: every engine, browser and failure point
test-all *ARGS:
    {{run}} pytest --all {{ARGS}}

# style, formatting, and import rules
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

# mutation testing of the modules behind the guarantees
mutants *ARGS:
    {{run}} --group mutants python scripts/mutants.py {{ARGS}}

# every order of a few requests with faults at every store call; with a seed, replay that schedule
simulate *SEEDS:
    {{run}} python -m tests.simulation.explore {{ if SEEDS == "" { "--all" } else { SEEDS } }}

# benchmark the sessions and comparable libraries; a full run writes docs/benchmarks.md
bench *ARGS:
    {{run}} python -m benchmarks {{ARGS}}

# prepare a release: checks, changelog, version, files in dist/; you publish them
release VERSION:
    {{run}} python scripts/release.py {{VERSION}}

# depend on a released version of the library instead of the folder session_core
use-release VERSION:
    {{run}} python scripts/use_release.py {{VERSION}}
# library:end

# build the documentation
docs:
    {{run}} zensical build --strict --clean

# .env.example and the reference, from the settings as they are declared
settings:
    uv run python -m app.settings.reference

# migrate the configured database to the newest revision
migrate:
    uv run alembic upgrade head

# rename the project, on its pages and in its texts; spaces are allowed
[positional-arguments]
rename *NAME:
    uv run python scripts/rename.py "$@"

# demo:begin
# remove the demo; logins then use your own provider
eject:
    uv run python scripts/eject.py
# demo:end
