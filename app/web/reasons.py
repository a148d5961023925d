"""Readable texts for the reasons of events. Pure functions; in English.

A test compares them with every reason that the library and this application can give.
"""

from __future__ import annotations

from typing import Final

__all__ = ("because",)

_UNREACHABLE: Final = "the identity provider could not be reached"
_GROUPS: Final = {
    # How a session or a login as another user ended.
    "on the user's request": "revoked",
    "by an operator": "operator",
    "by an administrator": "administrator",
    "the identity provider ended the login": "op_logout backchannel_logout frontchannel_logout ended_by_provider",
    "the account was disabled": "disabled account_disabled",
    "too many devices were logged in": "limit session_limit",
    "the stored session could not be read": "unreadable",
    "the administrator may no longer act as another user": "impersonation refused",
    "the administrator returned": "stopped",
    "by a new login": "login",
    "by a logout": "logout",
    "its time was over": "expired",
    "the session had ended": "ended session_gone",
    "not confirmed, so it may not have begun": "unanswered",
    "the user was not let in": "code_withdrawn login_refused",
    # Why something was refused or not saved.
    "the account does not have the right": "forbidden access_denied",
    "a recent login was needed": "step_up_required",
    "not possible while logged in as another user": "impersonation_forbidden",
    "the key was wrong": "refresh_tokens_key",
    "no user was logged in": "login_required",
    "there was no session": "no_session",
    "the response had been sent": "response_sent response_started",
    "the request had failed": "handler_failed",
    "another request changed the same value": "session_conflict version",
    "a value of the session was not valid": "session_data",
    "another user was logged in": "other_user",
    "the token was not valid": "invalid_token",
    "the request came from another site": "cross_site_request",
    "too many requests": "too_many_requests",
    "a setting is not valid": "configuration",
    "one session of the provider": "sid",
    "every session of the user": "sub",
    # Outages.
    "the session store did not answer": "store_unavailable store",
    "the database did not answer": "database_unavailable",
    "an API did not answer": "upstream",
    "an API took too long": "upstream_timeout",
    "the identity provider took too long": "timeout",
    _UNREACHABLE: "dns tls proxy unreachable unavailable server_error temporarily_unavailable discovery",
    "the identity provider did not answer correctly": "status compressed too_large insecure_endpoint issuer_mismatch "
    "provider_error access_token_missing token_type token_exchange discovery_insecure_endpoint discovery_issuer_mismatch "
    "jwks_malformed userinfo_address not_openid par_malformed par_missing userinfo_malformed jwks_status",
    # Logins.
    "the application does not let the user in": "refused_by_application",
    "the application made an error": "application_failed session_core oidc",
    "the user has too many roles": "too_many_roles",
    "it took longer than ten minutes": "state_expired",
    "it began in another browser, or its cookie was lost": "state_unknown",
    "it was finished before": "state_replayed",
    "another login of the user had been ended meanwhile": "reauthentication_required code_older_than_revocation",
    "the login at the identity provider was too old": "auth_time_too_old",
    "the login at the identity provider was not strong enough": "acr_not_met unmet_authentication_requirements mfa_required",
    "the identity provider has to ask the user": "interaction_required consent_required account_selection_required",
    "no identity provider was chosen": "provider_not_chosen",
    "the identity provider is not known here": "unknown_issuer unknown_provider",
    "the client is not known here": "unknown_client",
    "the code was used, or too old": "code_used_or_expired",
    "the identity provider refused the request": "invalid_request invalid_client invalid_grant unauthorized_client "
    "unsupported_grant_type unsupported_response_type invalid_scope userinfo_unauthorized",
    "the identity provider does not offer it": "revocation_not_offered userinfo_not_offered silent_unsupported "
    "step_up_unsupported response_mode_unsupported",
    "the secret for the identity provider is missing": "client_secret_unavailable",
    "another request was renewing it": "refresh_in_progress",
    "the link or form was not valid": "login_parameter parameter_malformed parameter_missing parameter_repeated "
    "parameters_malformed parameters_too_large body_incomplete body_too_large content_type response_missing response_too_large "
    "response_type grant_type pkce_missing verifier_mismatch client_mismatch redirect_uri_mismatch frontchannel_parameters "
    "logout_token_missing state_missing state_malformed code_malformed code_undecodable native_login",
    "it was a repetition": "jti_replayed",
    "a clock is wrong, or it was too old": "iat_in_future iat_too_old nbf_in_future auth_time_in_future",
    "a security check failed": "alg_not_allowed at_hash_mismatch aud_mismatch aud_missing auth_time_mismatch "
    "auth_time_missing azp_mismatch bad_signature claims_malformed crit_header encrypted events_claim events_missing id_token "
    "id_token_missing iss_mismatch iss_missing logout_token malformed nonce_mismatch nonce_missing nonce_present "
    "authorization_response provider_mismatch response_mode_mismatch sid_missing sub_and_sid_missing sub_malformed sub_mismatch "
    "sub_missing tenant_not_admitted token_form token_json token_malformed token_too_large too_many_keys typ_header unknown_key "
    "userinfo_sub_mismatch",
}
_TEXTS: Final = {reason: text for text, reasons in _GROUPS.items() for reason in reasons.split()}
_OF_LOGINS: Final = {
    "access_denied": "cancelled at the identity provider",
    "login_required": "the identity provider asks for a login",
}
_PARTS: Final = ("refresh_", "id_token_", "userinfo_", "par_", "token_", "discovery_", "jwks_", "revocation_")
"""What failed: the rest of the reason says how."""
_OF_CLAIMS: Final = ("_missing", "_malformed")


def because(event: str, reason: str | None) -> str | None:
    """Return the text for the reason of an event: empty if it adds nothing, None for a reason of a clone."""
    if reason is None or (event == "session.conflict" and reason == "version"):
        return ""
    if event == "session.conflict":
        return f"the value: {reason.replace(',', ', ')}"
    if event == "session.undecodable":
        return "damaged, or of another version"
    return (event.startswith("login.") and _OF_LOGINS.get(reason)) or _text(reason)


def _text(reason: str) -> str | None:
    if reason in _TEXTS:
        return _TEXTS[reason]
    for part in _PARTS:
        if reason.startswith(part):
            rest = reason.removeprefix(part)
            return _UNREACHABLE if rest == "refused" else _text(rest)
    return _TEXTS["malformed"] if reason.endswith(_OF_CLAIMS) else None
