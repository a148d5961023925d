"""Django's cached_db sessions: writes go to SQLite and Redis, reads to Redis only."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Thread
from typing import Any

import django
from django.conf import settings
from django.core.management import call_command
from django.core.wsgi import get_wsgi_application
from django.http import HttpRequest, JsonResponse
from django.urls import path

from benchmarks.payload import COOKIE, FIELDS, LIFETIME_SECONDS, SECRET


def _json(value: dict[str, Any]) -> JsonResponse:
    return JsonResponse(value, json_dumps_params={"separators": (",", ":")})


def public(request: HttpRequest) -> JsonResponse:
    """A page without a session."""
    del request
    return _json({"theme": "dark"})


def read(request: HttpRequest) -> JsonResponse:
    """Read one value."""
    return _json({"theme": request.session.get("theme", "light")})


def visits(request: HttpRequest) -> JsonResponse:
    """Read the counter."""
    return _json({"visits": request.session.get("visits", 0)})


def increment(request: HttpRequest) -> JsonResponse:
    """Add one."""
    number = request.session.get("visits", 0) + 1
    request.session["visits"] = number
    return _json({"visits": number})


def login(request: HttpRequest) -> JsonResponse:
    """Fill the session under a new id, as `django.contrib.auth.login` does."""
    user = request.GET["user"]
    request.session.cycle_key()
    request.session.update({**FIELDS, "user": user})
    return _json({"user": user})


urlpatterns = [
    path("public", public),
    path("read", read),
    path("visits", visits),
    path("increment", increment),
    path("login", login),
]


def create() -> Any:  # noqa: ANN401 - Django declares no types
    """The application with its table."""
    settings.configure(
        SECRET_KEY=SECRET,
        ALLOWED_HOSTS=["127.0.0.1"],
        ROOT_URLCONF=__name__,
        INSTALLED_APPS=["django.contrib.sessions"],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.common.CommonMiddleware",  # the length of a body is required
        ],
        SESSION_ENGINE="django.contrib.sessions.backends.cached_db",
        SESSION_COOKIE_NAME=COOKIE,
        SESSION_COOKIE_AGE=LIFETIME_SECONDS,
        CACHES={"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": os.environ["BENCH_STORE"]}},
        DATABASES={
            "default": {
                "ENGINE": "django.db.backends.sqlite3",
                "CONN_MAX_AGE": None,
                "NAME": Path(os.environ["BENCH_DIRECTORY"]) / "django.db",
                "OPTIONS": {
                    "transaction_mode": "IMMEDIATE",
                    "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;",
                },
            }
        },
        USE_TZ=True,
        LOGGING_CONFIG=None,
    )
    django.setup()
    migration = Thread(target=call_command, args=("migrate",), kwargs={"verbosity": 0})  # refused in an event loop
    migration.start()
    migration.join()
    return get_wsgi_application()
