"""The two grants, PKCE and revocation on Authlib's classes, as strict as RFC 9700 requires.

Not used from Authlib 1.9, and why:

- ``OpenIDCode`` reads the wall clock and has no ``sid``: the ID token is made in `auth_demo.op.protocol.claims`.
- Its redirect URI, prompt and response mode checks put request text into error descriptions, which raises
  ``ValueError`` for characters RFC 6749 does not allow there: see `auth_demo.op.protocol.authorization_request`.
- ``EndSessionEndpoint`` and ``IssuerParameter`` cannot tell sessions apart, render ``form_post`` or ask a user.
"""

# The Authlib stubs bundled with pyright declare the hooks narrower than Authlib calls them (no None).
# ruff: noqa: ANN401 - Authlib is untyped
# pyright: reportIncompatibleMethodOverride=false

from typing import Any

from authlib.oauth2.rfc6749 import (  # type: ignore[import-untyped, unused-ignore]
    InvalidRequestError,
)
from authlib.oauth2.rfc6749.grants import (  # type: ignore[import-untyped, unused-ignore]
    AuthorizationCodeGrant,
    RefreshTokenGrant,
)
from authlib.oauth2.rfc7009 import (  # type: ignore[import-untyped, unused-ignore]
    RevocationEndpoint,
)
from authlib.oauth2.rfc7636 import (  # type: ignore[import-untyped, unused-ignore]
    CodeChallenge,
    create_s256_code_challenge,
)

from auth_demo.op.protocol.authorization_server import AUTH_METHODS, OAuthServer
from auth_demo.op.protocol.claims import IdTokens
from auth_demo.op.settings import Account, OpSettings
from auth_demo.op.state.grants import GrantStore
from auth_demo.op.state.records import AccessToken, AuthorizationCode, RefreshToken
from auth_demo.op.state.secret import same

__all__ = ("create_oauth_server",)


def _verify_s256(verifier: str, challenge: str) -> bool:
    return same(create_s256_code_challenge(verifier), challenge)


class _RequiredS256(CodeChallenge):  # type: ignore[misc]
    """PKCE with S256 for every client (ASVS 10.4.6).

    Authlib makes it optional for confidential clients and takes a missing method as ``plain``.
    """

    SUPPORTED_CODE_CHALLENGE_METHOD = ["S256"]  # noqa: RUF012 - Authlib's attribute
    CODE_CHALLENGE_METHODS = {"S256": _verify_s256}  # noqa: RUF012 - Authlib's attribute

    def validate_code_challenge(self, grant: Any, redirect_uri: str) -> None:
        """Raise `InvalidRequestError` unless the request carries an S256 challenge."""
        data = grant.request.payload.data
        if "code_challenge" not in data:
            raise InvalidRequestError(description="PKCE is required: code_challenge is missing.")
        if data.get("code_challenge_method") != "S256":
            raise InvalidRequestError(description="PKCE is required: code_challenge_method must be S256.")
        super().validate_code_challenge(grant, redirect_uri)


class _CodeGrant(AuthorizationCodeGrant):  # type: ignore[misc]
    TOKEN_ENDPOINT_AUTH_METHODS = AUTH_METHODS

    def query_authorization_code(self, code: str, client: Any) -> AuthorizationCode | None:
        """Take the code out of the store: it is spent whatever follows."""
        server: OAuthServer = self.server
        return server.grants.redeem_code(code, client.client_id)

    def delete_authorization_code(self, authorization_code: AuthorizationCode) -> None:
        """Do nothing: the code was spent when it was presented, not after the tokens were made."""

    def authenticate_user(self, authorization_code: AuthorizationCode) -> Account | None:
        """Return the account the code was issued for."""
        server: OAuthServer = self.server
        return server.query_account(authorization_code.grant.sub)


class _RotatingRefreshGrant(RefreshTokenGrant):  # type: ignore[misc]
    TOKEN_ENDPOINT_AUTH_METHODS = AUTH_METHODS
    INCLUDE_NEW_REFRESH_TOKEN = True

    def authenticate_refresh_token(self, refresh_token: str) -> RefreshToken | None:
        """Return an unused token of the authenticated client; reuse revokes the family."""
        server: OAuthServer = self.server
        client: Any = self.request.client
        return server.grants.redeem_refresh_token(refresh_token, client.client_id)

    def authenticate_user(self, refresh_token: RefreshToken) -> Account | None:
        """Return the account the token was issued for."""
        server: OAuthServer = self.server
        # Authlib tells the request's user only after the tokens are saved; the ID token needs it before.
        self.request.user = server.query_account(refresh_token.grant.sub)
        account: Account | None = self.request.user
        return account

    def revoke_old_credential(self, refresh_token: RefreshToken) -> None:
        """Mark the presented token as used (rotation, RFC 9700 4.14.2)."""
        refresh_token.used = True


class _Revocation(RevocationEndpoint):  # type: ignore[misc]
    CLIENT_AUTH_METHODS = AUTH_METHODS

    def check_params(self, request: Any, client: Any) -> None:  # noqa: ARG002 - Authlib's name
        """Require the token; ignore the hint, of which RFC 7009 2.1 makes no use mandatory."""
        if "token" not in request.form:
            raise InvalidRequestError(description="token is missing.")

    def query_token(
        self,
        token_string: str,
        token_type_hint: str | None,  # noqa: ARG002 - Authlib's name
    ) -> AccessToken | RefreshToken | None:
        """Return whichever token it is."""
        server: OAuthServer = self.server
        return server.grants.find_any_token(token_string)

    def revoke_token(self, token: AccessToken | RefreshToken, request: Any) -> None:
        """End one access token, or with a refresh token the whole family (RFC 7009 2.1)."""
        server: OAuthServer = self.server
        if isinstance(token, RefreshToken):
            token.grant.revoked = True
        else:
            server.grants.drop_access_token(request.form["token"])


def create_oauth_server(settings: OpSettings, grants: GrantStore, id_tokens: IdTokens) -> OAuthServer:
    """Return the protocol server with code and refresh grants, mandatory PKCE and revocation."""
    server = OAuthServer(settings, grants, id_tokens)
    server.register_grant(_CodeGrant, [_RequiredS256(required=True)])
    server.register_grant(_RotatingRefreshGrant)
    server.register_endpoint(_Revocation)
    return server
