"""What an error page says to a person: what happened, and the next step. Knows errors, no request."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, TypeAlias

from app.data.database import DatabaseUnavailableError
from app.data.users import AccountDisabledError
from app.web.form_user import OtherUserError
from session_core.errors import (
    CrossSiteRequestError,
    DiscoveryError,
    ForbiddenError,
    ImpersonationForbiddenError,
    LoginCancelledError,
    LoginExpiredError,
    LoginRefusedError,
    OidcError,
    SessionConflictError,
    SessionGoneError,
    SessionLimitError,
    StoreUnavailableError,
    TokenExchangeError,
    TooManyRequestsError,
    UnknownLoginError,
)

__all__ = ("Act", "Explanation", "OwnAccountError", "Step", "explain")

Act: TypeAlias = Literal["read", "send", "log in", "log out"]
"""What the failed request was for."""
Step: TypeAlias = Literal["", "back", "retry", "login", "login again", "log out"]
"""What helps: back to the page of the form, the same again, log in, begin the failed login again, use another account."""


class OwnAccountError(ForbiddenError):
    """An administrator asked to do to the own account what could leave no administrator."""

    title = "You cannot do this to your own account"


class Explanation(NamedTuple):
    """One case. `title` takes the place of the phrase of HTTP, which programs get."""

    advice: str
    step: Step = ""
    title: str = ""


_AGAIN: Final = "Please try again in a moment."
_OUTAGE: Final = f"You are not logged out. {_AGAIN}"
_UNSURE: Final = "It is not known whether what you sent was carried out: go back and look before you send it again."
"""The answer of a store or database can be lost after it has made the change, and a handler can fail after a change."""
_NOT_LOGGED_OUT: Final = "You may still be logged in: please go back and log out again in a moment."
_UNCHANGED: Final = "Nothing was changed: an earlier session is unaffected."
_ONE_BROWSER: Final = (
    "A login is valid for ten minutes, works once, and ends in the browser in which it began. "
    f"{_UNCHANGED} Start again from here, at {{url}}, and stay in the same window."
)
_NO_COOKIES: Final = "Your browser sent no cookie, and a login needs them: if it blocks cookies, allow them for this site. "
# The first that fits. Whatever check of a login has failed, the explanation is the same: it must not show which one.
_CASES: Final[tuple[tuple[type[Exception], Explanation], ...]] = (
    (
        AccountDisabledError,
        Explanation("An administrator has disabled it. Please ask one of them to enable it again.", "log out"),
    ),
    (ImpersonationForbiddenError, Explanation("You are logged in as another user. End that first, by the button above.", "back")),
    (OwnAccountError, Explanation("Another administrator has to do it, so that one is always left.")),
    (ForbiddenError, Explanation("Your account does not have the right that this page needs.", "log out")),
    (
        CrossSiteRequestError,
        Explanation(
            "The request came from a page of another site, or of another address of this one. It was not carried out. If you "
            "wanted it, open the page here and do it again."
        ),
    ),
    (
        SessionGoneError,
        Explanation(
            "It ran out, or was ended in another tab, on another device or by an administrator. Nothing was changed. "
            "Log in to go on.",
            "login",
        ),
    ),
    (OtherUserError, Explanation("The page was opened in another login. Nothing was changed. Open it again to go on.", "back")),
    (
        SessionConflictError,
        Explanation(
            "The change was not saved: another tab or device changed the same value first. Go back to see the newest state.",
            "back",
        ),
    ),
    (SessionLimitError, Explanation("Sign one of them out, then log in here again.", "login again")),
    (TooManyRequestsError, Explanation("Too many requests. Nothing was changed.", "retry")),
    (
        StoreUnavailableError,
        Explanation(f"The session store does not respond. {_OUTAGE}", "retry", "The session store is unavailable"),
    ),
    (DatabaseUnavailableError, Explanation(f"The user database does not respond. {_OUTAGE}", "retry")),
    (
        LoginRefusedError,
        Explanation("The identity provider knows you, but this application does not let you in. Nothing was changed.", "log out"),
    ),
    (
        DiscoveryError,
        Explanation("It does not respond correctly. An earlier session is unaffected. Please try again.", "login again"),
    ),
    (
        TokenExchangeError,
        Explanation("It did not respond correctly. An earlier session is unaffected. Please try again.", "login again"),
    ),
    (
        LoginExpiredError,
        Explanation(f"It took longer than ten minutes, or was already finished. {_UNCHANGED} Please start again.", "login again"),
    ),
    (UnknownLoginError, Explanation(_ONE_BROWSER, "login again")),
    (
        LoginCancelledError,
        Explanation(f"You pressed Cancel there, or it does not let you in here. {_UNCHANGED}", "login again"),
    ),
    (
        OidcError,
        Explanation(
            "The identity provider reported an error, or a check failed. For security this page does not say which; the log "
            f"does, under the reference below. {_UNCHANGED}",
            "login again",
        ),
    ),
)
_BY_STATUS: Final = {
    400: Explanation("Nothing was changed.", "back", "The request was not understood"),
    404: Explanation("It does not exist, or no longer exists.", "", "Page not found"),
    405: Explanation("Nothing was changed.", "back", "This page only receives forms, or is only for reading"),
    408: Explanation("Nothing was changed.", "retry", "The request did not arrive completely"),
    413: Explanation("Nothing was changed.", "back", "That was too large"),
    502: Explanation("Your session is unaffected.", "retry", "The identity provider did not respond correctly"),
    503: Explanation(_OUTAGE, "retry", "A service that this page needs does not respond"),
    504: Explanation("Your session is unaffected.", "retry", "The identity provider took too long"),
}
_UNKNOWN: Final = Explanation("It has been logged.", "retry", "An error occurred on our side")
_SERVER_ERROR: Final = 500


def explain(error: Exception, status: int, *, act: Act, url: str, has_cookies: bool) -> Explanation:
    """Return the explanation of an error. `url` is where the application is; `has_cookies`: the request had at least one."""
    found = next((case for kind, case in _CASES if isinstance(error, kind)), None) or _BY_STATUS.get(status, _UNKNOWN)
    advice = found.advice.format(url=url) if "{url}" in found.advice else found.advice
    if isinstance(error, ForbiddenError) and error.roles:
        roles = " or ".join(f"“{role}”" for role in error.roles)
        advice = f"This page needs the role {roles}, which your account does not have."
    if isinstance(error, TooManyRequestsError):
        advice += f" Please wait {error.retry_after} seconds."
    if isinstance(error, UnknownLoginError) and not has_cookies:
        advice = _NO_COOKIES + advice
    if status < _SERVER_ERROR or act == "read":
        return found._replace(advice=advice)
    if act == "log in":  # the response of the provider may be used up
        return found._replace(advice=advice, step="login again")
    advice = advice.replace(_OUTAGE, "").strip() if act == "log out" else advice.removesuffix(_AGAIN).strip()
    return found._replace(advice=f"{advice} {_NOT_LOGGED_OUT if act == 'log out' else _UNSURE}".strip())
