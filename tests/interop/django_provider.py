"""django-oauth-toolkit as a provider process: `python django_provider.py CLIENTS` prints `ready PORT`."""

from __future__ import annotations

import json
import secrets
import sys
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import django
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from django.conf import settings
from django.core.management import call_command


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name there
        """Log nothing: URLs contain codes."""


def _configure(issuer: str) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=3072)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    settings.configure(
        SECRET_KEY=secrets.token_urlsafe(32),
        ALLOWED_HOSTS=["127.0.0.1"],
        ROOT_URLCONF=__name__,
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "oauth2_provider"],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
        LOGIN_URL="/sign-in",
        USE_TZ=True,
        OAUTH2_PROVIDER={
            "OIDC_ENABLED": True,
            "OIDC_ISS_ENDPOINT": issuer,
            "OIDC_RSA_PRIVATE_KEY": pem,
            "OIDC_RP_INITIATED_LOGOUT_ENABLED": True,
            "OIDC_RP_INITIATED_LOGOUT_ALWAYS_PROMPT": False,
            "ACCESS_TOKEN_EXPIRE_SECONDS": 60,
            "PKCE_REQUIRED": True,
            "ROTATE_REFRESH_TOKEN": True,
            "SCOPES": {"openid": "OpenID Connect", "email": "e-mail"},
        },
    )


def _register(clients: list[dict[str, Any]]) -> None:
    from django.contrib.auth.models import User
    from oauth2_provider.models import Application

    for name in ("alice", "bob"):
        User.objects.create_user(name, f"{name}@example.org")
    for client in clients:
        Application.objects.create(
            client_type="confidential",
            authorization_grant_type="authorization-code",
            algorithm="RS256",
            skip_authorization=True,
            **client,
        )


def sign_in(request: Any) -> Any:
    """Sign a user in without asking for a password."""
    from django.contrib.auth import login
    from django.contrib.auth.models import User
    from django.http import HttpResponseRedirect

    login(request, User.objects.get(username="alice"))
    return HttpResponseRedirect(request.GET["next"])


def signed_in(request: Any) -> Any:
    """Report whether the browser has a session here."""
    from django.http import HttpResponse

    return HttpResponse(request.user.get_username())


def main() -> None:
    """Serve until killed."""
    server = make_server("127.0.0.1", 0, None, handler_class=_Quiet)
    issuer = f"http://127.0.0.1:{server.server_port}/o"
    _configure(issuer)
    django.setup()
    call_command("migrate", verbosity=0)
    _register(json.loads(sys.argv[1]))
    from django.core.wsgi import get_wsgi_application

    server.set_app(get_wsgi_application())
    sys.stdout.write(f"ready {server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()


def __getattr__(name: str) -> Any:
    if name != "urlpatterns":
        raise AttributeError(name)
    from django.urls import include, path

    return [
        path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")),
        path("sign-in", sign_in),
        path("signed-in", signed_in),
    ]


if __name__ == "__main__":
    main()
