"""The registration with one provider of any kind; checked when built, without a request."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from session_core.errors import ConfigurationError, check_choices
from session_core.oidc.provider.client_key import ClientKey
from session_core.urls import is_provider_url, origin_of

__all__ = ("DEFAULT_ID", "ClientSecret", "Registration", "check_words")

ClientSecret: TypeAlias = Callable[[], str | Awaitable[str]]
"""Called for every request to the provider: for a secret that changes, such as Apple's, which expires."""

DEFAULT_ID: Final = "default"
"""The id of the provider with the addresses without an id."""

_OURS: Final = frozenset(
    {
        "client_id", "client_secret", "code", "code_challenge", "code_challenge_method", "nonce", "redirect_uri", "request",
        "request_uri", "response_mode", "response_type", "scope", "state",
    }
)  # fmt: skip
_ASKED: Final = frozenset(
    {"iss", "login_hint", "max_age", "next", "page", "prompt", "provider", "target_link_uri", "ui_locales", "unsent"}
)
"""The parameters that the library itself sets or reads."""
_CHECKED: Final = frozenset({"acr_values", "max_age"})
_ID: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,31}\Z")
_MAX_PARAM: Final = 2048
_PARAM: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.:-]{0,63}\Z")
_MAX_LINK_PARAMS: Final = 10
_WITH_SECRET: Final = frozenset({"client_secret_basic", "client_secret_post"})


@dataclass(frozen=True, kw_only=True)
class Registration:
    """What providers of every kind have in common. Raises `ConfigurationError` for values that cannot work."""

    issuer: str
    """The provider's issuer identifier: with the subject, the name of a user here."""
    client_id: str
    """The client id that the provider issued."""
    client_secret: str | ClientSecret | None = field(default=None, repr=False)
    """The client secret, or a function that returns it, called for every request and awaited if asynchronous; `None` for a client
    with a key, or without authentication."""
    client_key: ClientKey | None = None
    """The key for `private_key_jwt`; the provider has the public key."""
    id: str = DEFAULT_ID
    """A short name for the provider, used in addresses and in sealed state. The one named `default` has the addresses without an
    id, `/auth/login` and `/auth/callback`."""
    title: str = ""
    """The name on the page where users choose a provider; the id when empty."""
    token_endpoint_auth_method: Literal["client_secret_basic", "client_secret_post", "private_key_jwt", "none"] = (
        "client_secret_basic"  # noqa: S105 - the name of a method
    )
    """The client authentication method (OpenID Connect Core 9)."""
    client_assertion_audience: Literal["issuer", "token_endpoint"] = "issuer"
    """The audience of an assertion of `private_key_jwt`; older providers need the URL of the token endpoint."""
    authorization_params: Mapping[str, str] = field(default_factory=dict)
    """Further parameters for the authorization endpoint, for example `{"audience": "..."}`. Parameters of the login link take
    precedence."""
    link_params: Sequence[str] = ()
    """Names of further parameters that a login link may set, `kc_idp_hint`, `organization` or `screen_hint` for example. Anyone
    can write a link: do not name what a login must prove, and check the claims of what you do name (`org_id`)."""
    end_session_endpoint: str | None = None
    """The end-session endpoint, if the provider's metadata name none or another one."""
    logout_params: Mapping[str, str] = field(default_factory=dict)
    """Further parameters of a logout, for example `{"federated": ""}`."""
    logout_return_param: str = "post_logout_redirect_uri"
    """The parameter for the URL after a logout: `logout_uri` at Cognito, `returnTo` at Auth0's old address."""
    response_mode: Literal["query", "form_post"] = "query"
    """How the response is returned: in the query, or as a form that the browser posts (OAuth 2.0 Form Post Response Mode)."""
    pushed_authorization_requests: Literal["auto", "required", "off"] = "auto"
    """Whether the parameters of a login are pushed to the provider instead of sent through the browser (RFC 9126): if offered,
    always, or never."""
    reauthentication_prompt: Literal["login", "select_account", "consent"] = "login"
    """The `prompt` of a browser's first login after its session was revoked; `select_account` for providers without `login`."""
    revoke_at_logout: bool = True
    """Whether a logout also revokes the tokens at the provider (RFC 7009), if it supports that. Some providers then withdraw the
    user's consent and revoke the tokens of the user's other sessions too."""
    posted_user: bool = False
    """Whether the member `user` of a `form_post` response becomes a claim for `on_login`, unless another claim has that name.
    Apple sends the user's name there, only at the first login. It comes unsigned through the browser: never base a decision on
    it."""
    accept_code_injection_without_pkce: bool = False
    """Log in without PKCE, for providers that refuse it. The risk: a thief of another user's code can log in with it
    here (RFC 9700 2.1.1); the nonce of an ID token prevents that only where it is checked."""
    allow_http: bool = False
    """Accept http for a provider on a loopback address: development only."""

    def __post_init__(self) -> None:
        """Check what can be checked without the provider."""
        issuer = self._any_issuer()
        if not is_provider_url(issuer, allow_http=self.allow_http) or "?" in issuer:
            msg = (
                "the issuer must be an https URL without query and fragment, for example https://login.example.org "
                "(http needs allow_http and a loopback host)"
            )
            raise ConfigurationError(msg, option="issuer")
        if not self.client_id.isascii() or not self.client_id.isprintable() or not self.client_id:
            msg = "client_id must be the identifier that the provider issued, for example my-app"
            raise ConfigurationError(msg, option="client_id")
        if not _ID.match(self.id):
            msg = "a provider's id is lower-case letters, digits and hyphens, for example keycloak"
            raise ConfigurationError(msg, option="id")
        check_choices(Registration, self)
        self._check_authentication()
        self._check_params()
        self._check_logout()

    @property
    def scope(self) -> str:
        """The requested scopes, in the provider's format."""
        raise NotImplementedError

    @property
    def origin(self) -> str:
        """Scheme, host and port of the issuer; a page that posts a logout form needs it in its CSP's form-action."""
        return origin_of(self._any_issuer())

    def is_issuer(self, issuer: str) -> bool:
        """Whether this issuer belongs to this provider; compared character for character."""
        return issuer == self.issuer

    def _any_issuer(self) -> str:
        """Return an issuer of this provider's form."""
        return self.issuer

    def _check_authentication(self) -> None:
        method = self.token_endpoint_auth_method
        if (method in _WITH_SECRET) != bool(self.client_secret):
            msg = (
                "a client_secret is needed for client_secret_basic and client_secret_post, and for nothing else; "
                'token_endpoint_auth_method="none" is for a public client without one'
            )
            raise ConfigurationError(msg, option="client_secret")
        if (method == "private_key_jwt") != (self.client_key is not None):
            msg = 'client_key=ClientKey(...) and token_endpoint_auth_method="private_key_jwt" go together'
            raise ConfigurationError(msg, option="client_key")
        if self.posted_user and self.response_mode != "form_post":
            msg = 'posted_user needs response_mode="form_post"'
            raise ConfigurationError(msg, option="posted_user")

    def _check_logout(self) -> None:
        if self.end_session_endpoint is not None and not is_provider_url(self.end_session_endpoint, allow_http=self.allow_http):
            msg = "end_session_endpoint must be an https URL, for example https://login.example.org/logout"
            raise ConfigurationError(msg, option="end_session_endpoint")
        names = [self.logout_return_param, *self.logout_params]
        if len(set(names) | {"client_id", "id_token_hint", "state"}) != len(names) + 3 or not all(map(_PARAM.match, names)):
            msg = 'logout_params are further parameters of a logout, for example {"federated": ""}; logout_return_param is a name'
            raise ConfigurationError(msg, option="logout_params")
        if not all(len(value) <= _MAX_PARAM and (value.isprintable()) for value in self.logout_params.values()):
            msg = f"the values of logout_params are printable text of at most {_MAX_PARAM} characters"
            raise ConfigurationError(msg, option="logout_params")

    def _check_params(self) -> None:
        given, links = set(self.authorization_params), set(self.link_params)
        fit = not isinstance(self.link_params, str) and len(links) <= _MAX_LINK_PARAMS and all(map(_PARAM.match, links))
        if not fit or links & (_OURS | _CHECKED | _ASKED):
            msg = (
                f"link_params are at most {_MAX_LINK_PARAMS} names that a login decides nothing by, "
                'for example ("kc_idp_hint", "organization")'
            )
            raise ConfigurationError(msg, option="link_params")
        if clashing := _OURS & given:
            msg = f"authorization_params must not set {', '.join(sorted(clashing))}: the login decides about them"
            raise ConfigurationError(msg, option="authorization_params")
        if clashing := _CHECKED & given:
            msg = f"authorization_params must not set {', '.join(sorted(clashing))}: the options of that name are also checked"
            raise ConfigurationError(msg, option="authorization_params")
        if self.authorization_params.get("prompt") == "none":
            msg = 'authorization_params must not set prompt="none": no login could ever succeed; ask /auth/login?prompt=none'
            raise ConfigurationError(msg, option="authorization_params")
        if not all(0 < len(value) <= _MAX_PARAM and value.isprintable() for value in self.authorization_params.values()):
            msg = f"the values of authorization_params are printable text of at most {_MAX_PARAM} characters"
            raise ConfigurationError(msg, option="authorization_params")


def check_words(words: Sequence[str], option: str) -> None:
    """Raise `ConfigurationError` unless each of the words in `option` has the form of a scope (RFC 6749 3.3)."""
    if isinstance(words, str) or any(
        not each or not each.isascii() or not each.isprintable() or set(each) & set(' "\\') for each in words
    ):
        msg = f'{option} must be a sequence of single words, for example {option}=("one", "two")'
        raise ConfigurationError(msg, option=option)
