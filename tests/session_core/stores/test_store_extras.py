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
    await store.close()

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("extra", "url"),
    [
        ("redis", "redis://127.0.0.1:1/0"),
        ("postgresql", "postgresql://u@127.0.0.1:1/d"),
        ("mysql", "mysql://u@127.0.0.1:1/d"),
        ("http", "http://127.0.0.1:1/"),
        ("dynamodb", "dynamodb://sessions?region=eu-central-1&endpoint=http://127.0.0.1:1"),
        ("s3", "s3://bucket/sessions?region=eu-central-1&endpoint=http://127.0.0.1:1"),
        ("azure-tables", "azure-tables://sessions"),
        ("mongodb", "mongodb://127.0.0.1:1/d"),
        ("memcached", "memcached://127.0.0.1:1"),
    ],
)
def test_an_extra_is_enough_for_its_store(extra: str, url: str, tmp_path: Path) -> None:
    environment = make_environment(tmp_path, f"session-core[{extra}]")
    ran = run_in(environment, OPEN, url)
    assert (ran.returncode, ran.stdout.splitlines()[-1:]) == (0, ["no server"]), ran.stderr
