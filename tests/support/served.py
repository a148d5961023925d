"""The small application as a separate process; the environment names the store."""

from __future__ import annotations

import os

from tests.support.sessions import make_app

app = make_app(store=os.environ["TEST_STORE"], store_timeout=30)
