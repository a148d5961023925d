"""Publishes what the provider supports, exactly, and its public keys."""

from typing import Any

from litestar import route

from auth_demo.op.protocol.assurance import ACR_VALUES
from auth_demo.op.protocol.authorization_request import PROMPTS, RESPONSE_MODES
from auth_demo.op.protocol.authorization_server import AUTH_METHODS
from auth_demo.op.protocol.claims import SCOPE_CLAIMS, SUPPORTED_SCOPES
from auth_demo.op.settings import OpSettings
from auth_demo.op.state.keys import SIGNING_ALGORITHM
from auth_demo.op.web.web import READ, OpRequest, op_of

__all__ = ("jwks", "metadata_document", "openid_configuration")

_ID_TOKEN_CLAIMS = ("iss", "aud", "exp", "iat", "auth_time", "nonce", "acr", "amr", "sid", "at_hash")


def metadata_document(settings: OpSettings) -> dict[str, Any]:
    """Return the provider metadata (OIDC Discovery 3, RFC 8414, RFC 9207, the three logout specifications)."""
    issuer = settings.issuer
    user_claims = dict.fromkeys(claim for claims in SCOPE_CLAIMS.values() for claim in claims)
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{issuer}/authorize",
        "token_endpoint": f"{issuer}/token",
        "userinfo_endpoint": f"{issuer}/userinfo",
        "jwks_uri": f"{issuer}/jwks.json",
        "revocation_endpoint": f"{issuer}/revoke",
        "end_session_endpoint": f"{issuer}/end_session",
        "account_management_uri": f"{issuer}/",
        "scopes_supported": list(SUPPORTED_SCOPES),
        "claims_supported": [*user_claims, *_ID_TOKEN_CLAIMS],
        "claim_types_supported": ["normal"],
        "response_types_supported": ["code"],
        "response_modes_supported": list(RESPONSE_MODES),
        "grant_types_supported": ["authorization_code", "refresh_token"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [SIGNING_ALGORITHM],
        "token_endpoint_auth_methods_supported": AUTH_METHODS,
        "revocation_endpoint_auth_methods_supported": AUTH_METHODS,
        "code_challenge_methods_supported": ["S256"],
        "acr_values_supported": list(ACR_VALUES),
        "prompt_values_supported": list(PROMPTS),
        "authorization_response_iss_parameter_supported": True,
        "claims_parameter_supported": False,
        "request_parameter_supported": False,
        "request_uri_parameter_supported": False,
        "backchannel_logout_supported": True,
        "backchannel_logout_session_supported": True,
        "frontchannel_logout_supported": True,
        "frontchannel_logout_session_supported": True,
    }


@route("/.well-known/openid-configuration", http_method=READ)
async def openid_configuration(request: OpRequest) -> dict[str, Any]:
    """Answer with the provider metadata."""
    return metadata_document(op_of(request).settings)


@route("/jwks.json", http_method=READ)
async def jwks(request: OpRequest) -> dict[str, Any]:
    """Answer with the public keys (RFC 7517 5)."""
    return op_of(request).keys.public_jwks()
