"""The cookie that carries the session id: signing, Set-Cookie attributes, reading; independent of stores and ASGI."""

from session_core.cookies.config import LONGEST_SECONDS, CookieConfig, ResolvedCookie, cookie_name
from session_core.cookies.reader import CookieReading, CookieRejection, SessionCookieReader, read_cookies, read_session_id
from session_core.cookies.signing import CookieSigner, Unsigned, parse_secrets, sign_cookie, unsign_cookie

__all__ = (
    "LONGEST_SECONDS",
    "CookieConfig",
    "CookieReading",
    "CookieRejection",
    "CookieSigner",
    "ResolvedCookie",
    "SessionCookieReader",
    "Unsigned",
    "cookie_name",
    "parse_secrets",
    "read_cookies",
    "read_session_id",
    "sign_cookie",
    "unsign_cookie",
)
