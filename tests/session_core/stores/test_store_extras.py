"""Each store's extra installs all that its store needs: `open` reaches for the server, with no other package installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.environments import make_environment, run_in

OPEN = """
import asyncio, os, sys
from session_core.stores import open_store

azure = "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=YWJj;TableEndpoint=http://127.0.0.1:1/a;"
os.environ.update(AWS_ACCESS_KEY_ID="a", AWS_SECRET_ACCESS_KEY="a", AZURE_STORAGE_CONNECTION_STRING=azure)

async def main():
    store = open_store(sys.argv[1])
    try:
        await asyncio.wait_for(store.open(), 1)
    except TimeoutError:
        print("no server")
    except Exception as error:
        while error is not None:
            if isinstance(error, ImportError):
                raise
            error = error.__cause__ or error.__context__
        print("no server")
    else:
        print("opened")
    await store.close()

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("extra", "url", "outcome"),
    [
        ("redis", "redis://127.0.0.1:1/0", "no server"),
        ("postgresql", "postgresql://u@127.0.0.1:1/d", "no server"),
        ("mysql", "mysql://u@127.0.0.1:1/d", "no server"),
        ("sql", "sqlite+aiosqlite:///s.db", "opened"),
        ("http", "http://127.0.0.1:1/", "no server"),
        ("dynamodb", "dynamodb://sessions?region=eu-central-1&endpoint=http://127.0.0.1:1", "no server"),
        ("s3", "s3://bucket/sessions?region=eu-central-1&endpoint=http://127.0.0.1:1", "no server"),
        ("azure-tables", "azure-tables://sessions", "no server"),
        ("mongodb", "mongodb://127.0.0.1:1/d", "no server"),
        ("memcached", "memcached://127.0.0.1:1", "no server"),
    ],
)
def test_an_extra_is_enough_for_its_store(extra: str, url: str, outcome: str, tmp_path: Path) -> None:
    environment = make_environment(tmp_path, f"session-core[{extra}]")
    ran = run_in(environment, OPEN, url)
    assert (ran.returncode, ran.stdout.splitlines()[-1:]) == (0, [outcome]), ran.stderr
