"""The steps of "Make it yours", a table, a setting and a page with a form, followed in a copy of the application."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.app.processes import clean_environment
from tests.support.pages import ROOT, fences

PAGE = ROOT / "docs" / "how-to" / "make-it-yours.md"
NAMES = {"orders": "probes", "shop_currency": "test_currency", '"ordered"': '"probing"'}
"""The names of the page, and others of the same length: a clone may have followed the page."""
TEST = '''"""The page of the how-to."""

import re

import pytest

from tests.app.conftest import Running

pytestmark = pytest.mark.anyio


async def test_the_page_works(running: Running) -> None:
    async with running.browser() as browser:
        assert (await browser.get("/orders")).status_code == 303
        identity = await running.log_in(browser)
        page = await browser.get("/orders")
        assert "Prices are in EUR." in page.text
        seen = re.findall(r'name="seen_user" value="([^"]+)"', page.text)
        assert set(seen) == {identity.user_key}
        sent = await browser.post("/orders", data={"article": "tea <b>", "seen_user": seen[0]})
        assert (sent.status_code, sent.headers["location"]) == (303, "/orders")
        shown = (await browser.get("/orders")).text
        assert "Your order is placed." in shown
        assert "<li>tea &lt;b&gt;</li>" in shown
        await browser.post("/auth/logout")
        late = await browser.post("/orders", data={"article": "coffee", "seen_user": seen[0]})
        assert late.status_code == 401
        assert "coffee" in late.text
'''


def test_the_steps_work_and_pass_the_linters(tmp_path: Path) -> None:
    root = tmp_path / "copy"
    for name in ("app", "docs", "migrations", "session_core", "tests"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__", "node_modules"))
    for name in ("alembic.ini", "pyproject.toml", ".env.example"):
        shutil.copy(ROOT / name, root)
    follow(root)
    (root / "tests" / "app" / "test_tried.py").write_text(renamed(TEST))
    environment = {**clean_environment(), "PYTHONPATH": str(root), "DATABASE_URL": f"sqlite+aiosqlite:///{tmp_path / 'own.db'}"}
    for command in (
        ["alembic", "upgrade", "head"],
        ["alembic", "revision", "--autogenerate", "-m", "orders of a user"],
        ["alembic", "upgrade", "head"],
        ["alembic", "check"],
        ["app.settings.reference"],
        ["ruff", "check", "app", "migrations"],
        ["ruff", "format", "--check", "app", "migrations"],
        ["pytest", "-q", "-n", "0", "--basetemp", str(tmp_path / "pytest"), "tests/app/test_tried.py"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=root, env=environment, capture_output=True, text=True, check=False, timeout=200
        )
        assert done.returncode == 0, " ".join(command) + "\n" + done.stdout + done.stderr
    assert "TEST_CURRENCY" in (root / ".env.example").read_text()


def renamed(text: str) -> str:
    for name, other in NAMES.items():
        text = text.replace(name, other)
    return text


def follow(root: Path) -> None:
    """Write the files of the page, and insert the lines that it shows of other files."""
    steps = {renamed(fence.title): renamed(fence.body) for fence in fences(PAGE) if fence.title}
    places = {
        "app/data/tables.py": (r"\Z", "\n" + steps.pop("app/data/tables.py")),
        "app/settings/settings.py": (r"(?m)(?=^    @)", steps.pop("app/settings/settings.py") + "\n"),
        "app/web/messages.py": (r"(?<=MESSAGES: Final = \{\n)", steps.pop("app/web/messages.py")),
        "app/asgi.py": (r"(?<=\*admin\.handlers)", ", " + steps.pop("app/asgi.py").strip()),
    }
    for name, text in steps.items():
        (root / name).write_text(text)
    for name, (place, text) in places.items():
        before = (root / name).read_text()
        after = re.sub(place, lambda _, text=text: text, before, count=1)
        assert after != before, name
        (root / name).write_text(after)
    asgi = root / "app" / "asgi.py"
    asgi.write_text(re.sub(r"(from app\.routes import .*)", r"\1, probes", asgi.read_text(), count=1))
    subprocess.run([sys.executable, "-m", "ruff", "check", "-q", "--select", "I", "--fix", str(asgi)], cwd=root, check=True)
