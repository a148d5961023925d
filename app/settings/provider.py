"""The settings of one identity provider. Reads no environment."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal
from urllib.parse import parse_qsl, urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, PrivateAttr, SecretStr, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from app.settings.declared import example_of, setting
from app.settings.report import Problem, SettingsError, as_value_error, problem_in
from session_core.errors import ConfigurationError
from session_core.oidc import ClientKey, FetchJson, OAuth2Provider, OidcProvider, apple_client_secret, check_claim_path, claim_at
from session_core.urls import is_loopback

__all__ = ("EMBEDDED_CLIENT_ID", "EMBEDDED_ISSUER", "ProviderSettings", "check_address", "problem_of")

EMBEDDED_ISSUER: Final = "http://127.0.0.1:9000"
EMBEDDED_CLIENT_ID: Final = "reference-app"
_IN_VAR: Final = "made in `var/` in development"
_ENDPOINTS: Final = ("authorization_endpoint", "token_endpoint", "jwks_uri", "userinfo_endpoint", "revocation_endpoint")


def _words(value: object) -> object:
    return tuple(filter(None, re.split(r"[\s,]+", value))) if isinstance(value, str) else value


def _scope_words(value: object) -> object:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else value


def _params(value: object) -> object:
    """Return parameters as a mapping; text is form-encoded: `audience=https://api.example.org&prompt=consent`."""
    if not isinstance(value, str):
        return value
    try:
        return dict(parse_qsl(value, keep_blank_values=True, strict_parsing=True))
    except ValueError:
        message = "must be name=value, several of them joined by &"
        raise ValueError(message) from None


Words = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_words)]
Params = Annotated[dict[str, str], NoDecode, BeforeValidator(_params)]


class ProviderSettings(BaseModel):
    """One provider, by the names of the variables in lower case; a table of a file has them without `oidc_`."""

    model_config = ConfigDict(extra="ignore", hide_input_in_errors=True, frozen=True, use_attribute_docstrings=True)

    oidc_id: str = setting("default", example="partner")
    """Short name in the addresses; lower-case letters, digits, hyphens."""
    oidc_title: str = setting("", example="Partner account", otherwise="the id")
    """The name on the page where users choose a provider."""
    oidc_protocol: Literal["openid", "oauth2"] = setting("openid", example="openid")
    """`oauth2` for plain OAuth 2.0, which needs the authorization, token and userinfo endpoints."""
    oidc_issuer: str = setting(EMBEDDED_ISSUER, example="https://login.example.org")
    """The OpenID provider. Its metadata is read from `{issuer}/.well-known/openid-configuration`. Another one needs its own
    client id and secret."""
    oidc_client_id: str = setting(EMBEDDED_CLIENT_ID, example="reference-app")
    """Issued by the provider."""
    oidc_client_secret: SecretStr | None = setting(
        None, advice="the secret that the provider issued with OIDC_CLIENT_ID", otherwise=_IN_VAR
    )
    """Issued by the provider."""
    oidc_client_secret_file: Path | None = setting(None, example="/run/secrets/oidc-client-secret")
    """A file with the secret, read for every request to the provider."""
    oidc_client_auth_method: Literal["client_secret_basic", "client_secret_post", "private_key_jwt", "none"] | None = setting(
        None, example="client_secret_post", otherwise="`client_secret_basic`; with a key file `private_key_jwt`"
    )
    """`client_secret_basic`, `client_secret_post`, `private_key_jwt` or `none`."""
    oidc_client_key_file: Path | None = setting(None, example="/run/secrets/client-key.pem")
    """A file with the private key, in PEM or as a JWK."""
    oidc_client_key_id: str | None = setting(None, example="2026-11")
    """The `kid` of that key."""
    oidc_client_assertion_audience: Literal["issuer", "token_endpoint"] = setting("issuer", example="token_endpoint")
    """`issuer` or `token_endpoint`: the audience of a client assertion."""
    oidc_apple_team_id: str | None = setting(None, example="ABCDE12345")
    """The client secret is signed with the key file, as [Apple](../how-to/providers.md) requires."""
    oidc_scopes: Annotated[str, BeforeValidator(_scope_words)] = setting("openid profile email", example="openid profile email")
    """The requested scopes; must contain `openid`."""
    oidc_audience: str | None = setting(None, example="https://api.example.org")
    """The parameter `audience` of the authorization request."""
    oidc_authorization_params: Params = setting({}, example="prompt=consent&access_type=offline")
    """Further parameters of the authorization request."""
    oidc_link_params: Words = setting((), example="kc_idp_hint")
    """Names of parameters that a login link may set, `kc_idp_hint` for example."""
    oidc_response_mode: Literal["query", "form_post"] = setting("query", example="form_post")
    """`query` or `form_post`."""
    oidc_par: Literal["auto", "required", "off"] = setting("auto", example="required")
    """Pushed authorization requests: `auto`, `required` or `off`."""
    oidc_userinfo: bool = setting(default=True, example="false")
    """Whether claims are fetched from userinfo, too."""
    oidc_subject_claim: str | None = setting(None, example="data.id", otherwise="`sub`; of plain OAuth 2.0 `id`")
    """Path of the claim that names the user, `data.id` for example."""
    oidc_roles_claim: str = setting("roles", example="realm_access.roles")
    """Path of the claim with the roles: `realm_access.roles`, `cognito:groups`, `https://app.example.org/roles`. A list of
    names, or an object whose keys they are; anything else gives no role."""
    oidc_metadata_url: str | None = setting(
        None, example="https://login.example.org/policy/.well-known/openid-configuration", otherwise="below the issuer"
    )
    """The URL of the metadata."""
    oidc_authorization_endpoint: str | None = setting(
        None, example="https://login.example.org/authorize", otherwise="of the metadata"
    )
    """For a provider without metadata. Those of authorization, tokens and keys are needed then, and nothing is fetched."""
    oidc_token_endpoint: str | None = setting(None, example="https://login.example.org/token", otherwise="of the metadata")
    """For a provider without metadata. Those of authorization, tokens and keys are needed then, and nothing is fetched."""
    oidc_jwks_uri: str | None = setting(None, example="https://login.example.org/keys", otherwise="of the metadata")
    """For a provider without metadata. Those of authorization, tokens and keys are needed then, and nothing is fetched."""
    oidc_userinfo_endpoint: str | None = setting(None, example="https://login.example.org/userinfo", otherwise="of the metadata")
    """For a provider without metadata. Those of authorization, tokens and keys are needed then, and nothing is fetched."""
    oidc_revocation_endpoint: str | None = setting(None, example="https://login.example.org/revoke", otherwise="of the metadata")
    """For a provider without metadata. Those of authorization, tokens and keys are needed then, and nothing is fetched."""
    oidc_end_session_endpoint: str | None = setting(None, example="https://login.example.org/logout", otherwise="of the metadata")
    """The end-session endpoint."""
    oidc_account_url: str | None = setting(
        None, example="https://login.example.org/account", otherwise="of the metadata (`account_management_uri`)"
    )
    """Where users manage their account at the provider; the page "Account" links to it."""
    oidc_logout_params: Params = setting({}, example="federated=")
    """Further parameters of a logout."""
    oidc_logout_return_param: str = setting("post_logout_redirect_uri", example="logout_uri")
    """The name of the parameter of a logout with the address to come back to."""
    oidc_tenants: Words = setting((), example="00000000-0000-0000-0000-000000000000")
    """Ids of [Entra tenants](../how-to/providers.md#microsoft-entra-id); `{tenantid}` stands in the issuer."""
    oidc_max_age: int | None = setting(None, ge=0, example="3600")
    """Every login at the provider must be at most so many seconds old, which is verified."""
    oidc_acr_values: Words = setting((), example="phr phrh")
    """Every login must have one of these authentication classes, which is verified."""
    oidc_logout_token_typ: Literal["strict", "if_present"] = setting("strict", example="strict")
    """`if_present` also takes logout tokens without `exp`, and without `typ: logout+jwt` or with the general `JWT`."""
    oidc_step_up_prompt: bool = setting(default=False, example="true")
    """A login that must be recent also sends `prompt=login`, for providers that ignore `max_age`."""
    oidc_reauthentication_prompt: Literal["login", "select_account", "consent"] = setting("login", example="select_account")
    """The `prompt` of that login: also `select_account`, `consent`."""
    oidc_verify_reauthentication: bool = setting(default=True, example="false")
    """[The login after a revocation](../how-to/provider.md#sign-out-that-lasts) is verified by `auth_time`; `false` for
    providers that never send it."""
    oidc_revoke_at_logout: bool = setting(default=True, example="false")
    """Whether a logout revokes the login's tokens."""
    oidc_posted_user: bool = setting(default=False, example="true")
    """With `form_post`: take the user's name that Apple posts at the first login."""
    oidc_clock_tolerance_seconds: int = setting(60, ge=0, le=300, example="60")
    """The largest difference of the provider's clock in seconds, at most 300."""
    oidc_accept_code_injection_without_pkce: bool = setting(default=False, example="false")
    """Log in without PKCE. The risk: a stolen code of another user logs the attacker in."""
    oidc_accept_id_token_replay_without_nonce: bool = setting(default=False, example="false")
    """Log in without a nonce. The risk: an ID token of another login is not recognised."""

    _place: str = PrivateAttr(default="OIDC_")

    @field_validator("oidc_issuer")
    @classmethod
    def _is_address(cls, value: str) -> str:
        if (parts := urlsplit(check_address(value))).scheme == "http" and not is_loopback(parts.hostname or ""):
            message = "must be https; http is for a provider on a loopback host"
            raise ValueError(message)
        return value

    @field_validator("oidc_account_url")
    @classmethod
    def _is_link(cls, value: str | None) -> str | None:
        # The query is taken off: other than an endpoint, such a page may have one.
        if value is not None:
            check_address(value.partition("#")[0].partition("?")[0])
        return value

    @field_validator("oidc_scopes")
    @classmethod
    def _has_openid(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("oidc_protocol") == "openid" and "openid" not in value.split():
            message = "must contain the scope openid"
            raise ValueError(message)
        return " ".join(value.split())

    @field_validator("oidc_roles_claim", "oidc_subject_claim")
    @classmethod
    def _is_claim(cls, value: str | None) -> str | None:
        with as_value_error():
            check_claim_path("sub" if value is None else value, "claim")
        return value

    def at(self, place: str) -> ProviderSettings:
        """Keep the source of these settings, for the names in errors."""
        self._place = place
        return self

    def name_of(self, field: str) -> str:
        """Return the full name of a setting: `OIDC_2_ISSUER`, or `providers.toml, provider 2: issuer`."""
        name = field.removeprefix("oidc_")
        return f"{self._place}{name.upper() if self._place.startswith('OIDC_') else name}"

    def missing(self) -> list[str]:
        """Return the required settings that are missing."""
        names = [name for name in ("oidc_issuer", "oidc_client_id") if name not in self.model_fields_set]
        proofs = (self.oidc_client_secret, self.oidc_client_secret_file, self.oidc_client_key_file)
        if not any(proofs) and self.oidc_client_auth_method != "none":
            names.append("oidc_client_secret")
        return names

    @property
    def has_shared_secret(self) -> bool:
        """Whether the client authenticates by a secret of the provider, not by a key."""
        return self.oidc_apple_team_id is None and self._auth_method() in {"client_secret_basic", "client_secret_post"}

    def shared_secret(self) -> str:
        """Return that secret, or None."""
        secret = self._client_secret()
        return (secret() if callable(secret) else secret) or ""

    def provider(self, *, allow_http: bool) -> OidcProvider | OAuth2Provider:
        """Return the provider. Raises `SettingsError`."""
        try:
            return self._built(allow_http=allow_http)
        except ConfigurationError as error:
            if f"oidc_{error.option}" in type(self).model_fields:
                problem = Problem(self.name_of(str(error.option)), problem_in(error), self.example_of(str(error.option)))
            else:
                problem = Problem(self.name_of("oidc_*"), str(error), "see docs/reference/settings.md")
            raise SettingsError([problem]) from None

    def _built(self, *, allow_http: bool) -> OidcProvider | OAuth2Provider:
        method = self._auth_method()
        given: dict[str, Any] = {
            "id": self.oidc_id,
            "title": self.oidc_title,
            "issuer": self.oidc_issuer,
            "client_id": self.oidc_client_id,
            "client_secret": self._client_secret(),
            "client_key": self._client_key() if method == "private_key_jwt" else None,
            "token_endpoint_auth_method": method,
            "client_assertion_audience": self.oidc_client_assertion_audience,
            "authorization_params": self.oidc_authorization_params | ({"audience": a} if (a := self.oidc_audience) else {}),
            "link_params": self.oidc_link_params,
            "response_mode": self.oidc_response_mode,
            "pushed_authorization_requests": self.oidc_par,
            "end_session_endpoint": self.oidc_end_session_endpoint,
            "logout_params": self.oidc_logout_params,
            "logout_return_param": self.oidc_logout_return_param,
            "reauthentication_prompt": self.oidc_reauthentication_prompt,
            "revoke_at_logout": self.oidc_revoke_at_logout,
            "posted_user": self.oidc_posted_user,
            "accept_code_injection_without_pkce": self.oidc_accept_code_injection_without_pkce,
            "allow_http": allow_http,
        }
        if self.oidc_subject_claim is not None:
            given["subject_claim"] = self.oidc_subject_claim
        endpoints: dict[str, Any] = {name: url for name in _ENDPOINTS if (url := getattr(self, f"oidc_{name}")) is not None}
        if self.oidc_protocol == "oauth2":
            return self._oauth2(given, endpoints)
        return OidcProvider(
            **given,
            metadata_url=self.oidc_metadata_url,
            metadata=endpoints or None,
            tenants=self.oidc_tenants,
            scopes=self.oidc_scopes.split(),
            max_age=self.oidc_max_age,
            acr_values=self.oidc_acr_values,
            logout_token_typ=self.oidc_logout_token_typ,
            step_up_prompt=self.oidc_step_up_prompt,
            verify_reauthentication=self.oidc_verify_reauthentication,
            use_userinfo=self.oidc_userinfo,
            clock_tolerance_seconds=self.oidc_clock_tolerance_seconds,
            accept_id_token_replay_without_nonce=self.oidc_accept_id_token_replay_without_nonce,
        )

    def _oauth2(self, given: dict[str, Any], endpoints: dict[str, Any]) -> OAuth2Provider:
        needed = ("authorization_endpoint", "token_endpoint", "userinfo_endpoint")
        if absent := [name for name in needed if name not in endpoints]:
            problems = [Problem(self.name_of(name), "is needed for plain OAuth 2.0", self.example_of(name)) for name in absent]
            raise SettingsError(problems)
        endpoints.pop("jwks_uri", None)
        scopes = self.oidc_scopes.split() if "oidc_scopes" in self.model_fields_set else ()
        return OAuth2Provider(**given, **endpoints, scopes=scopes, claims=_beside(self.oidc_subject_claim or "id"))

    def example_of(self, field: str) -> str:
        """Return an example of a setting in the form of its source."""
        text = example_of(f"oidc_{field.removeprefix('oidc_')}", type(self).model_fields)
        if self._place.startswith("OIDC_"):
            return text.replace("OIDC_", self._place)
        return re.sub(r"OIDC_([A-Z_]+)=(.*)", lambda found: f'{found[1].lower()} = "{found[2]}"', text)

    def _auth_method(self) -> str:
        if self.oidc_client_auth_method is not None:
            return self.oidc_client_auth_method
        if self.oidc_apple_team_id is not None:
            return "client_secret_post"
        return "private_key_jwt" if self.oidc_client_key_file is not None else "client_secret_basic"

    def _client_secret(self) -> str | Callable[[], str] | None:
        if self.oidc_apple_team_id is not None:
            return apple_client_secret(self._client_key(), team_id=self.oidc_apple_team_id, client_id=self.oidc_client_id)
        if (file := self.oidc_client_secret_file) is not None:
            self._read("client_secret_file", file)
            # Read for every request: the file may be replaced while the application runs.
            return lambda: file.read_text(encoding="utf-8").strip()
        return self.oidc_client_secret.get_secret_value() if self.oidc_client_secret is not None else None

    def _client_key(self) -> ClientKey:
        if self.oidc_client_key_file is None:
            name = "client_key_file"
            raise SettingsError([Problem(self.name_of(name), "is needed for this authentication", self.example_of(name))])
        return ClientKey(self._read("client_key_file", self.oidc_client_key_file), kid=self.oidc_client_key_id)

    def _read(self, name: str, file: Path) -> str:
        try:
            return file.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            problem = Problem(self.name_of(name), f"cannot be read ({type(error).__name__})", self.example_of(name))
            raise SettingsError([problem]) from None


def problem_of(error: Any, settings: ProviderSettings) -> Problem:  # noqa: ANN401 - pydantic's ErrorDetails
    """Convert an error of pydantic; its own text may repeat the value."""
    message = str(error["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    name = str(error["loc"][0])
    return Problem(settings.name_of(name), message[:1].lower() + message[1:], settings.example_of(name))


def check_address(value: str) -> str:
    """Return an http or https address. Raises `ValueError`."""
    try:
        parts = urlsplit(value)
        _ = parts.port
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment or "@" in value:
        message = "must be an http or https address without user name, query or fragment"
        raise ValueError(message)
    return value


def _beside(subject_claim: str) -> Callable[[Mapping[str, Any], FetchJson], Any]:
    """Return a hook that adds the members beside the subject as claims: those of `data` for `data.id`."""
    inner = subject_claim.rpartition(".")[0]

    async def claims(user: Mapping[str, Any], fetch: FetchJson) -> Mapping[str, Any]:
        del fetch
        beside = claim_at(user, inner) if inner else None
        return {**user, **beside} if isinstance(beside, dict) else user

    return claims
