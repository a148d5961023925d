"""Paths of claims for roles and subjects, and values that must never become one."""

from __future__ import annotations

from typing import Any

import pytest

from session_core import ConfigurationError
from session_core.oidc import claim_at, names_at
from session_core.oidc.claim_path import check_claim_path

KEYCLOAK = {"realm_access": {"roles": ["admin", "user"]}, "resource_access": {"shop.example": {"roles": ["seller"]}}}
ZITADEL = {"urn:zitadel:iam:org:project:roles": {"admin": {"2131": "example.org"}, "user": {"2131": "example.org"}}}


@pytest.mark.parametrize(
    ("claims", "path", "names"),
    [
        ({"roles": ["admin"]}, "roles", ["admin"]),
        (KEYCLOAK, "realm_access.roles", ["admin", "user"]),
        (KEYCLOAK, "resource_access.shop.example.roles", ["seller"]),
        ({"cognito:groups": ["admin"]}, "cognito:groups", ["admin"]),
        ({"https://app.example.org/roles": ["admin"]}, "https://app.example.org/roles", ["admin"]),
        ({"https://app.example.org/": {"roles": ["admin"]}}, "https://app.example.org/.roles", ["admin"]),
        (ZITADEL, "urn:zitadel:iam:org:project:roles", ["admin", "user"]),
        ({"roles": {"admin": True, "user": False, "guest": None}}, "roles", ["admin"]),
        ({"a.b": "text", "a": {"b": {"c": ["deep"]}}}, "a.b.c", ["deep"]),
        ({"a": {"b": ["nested"]}, "a.b": ["whole"]}, "a.b", ["whole"]),
    ],
)
def test_common_paths_of_roles_are_found(claims: dict[str, Any], path: str, names: list[str]) -> None:
    assert names_at(claims, path) == names


@pytest.mark.parametrize("value", [None, "admin", "admin user", 1, True, {"roles": "admin"}, [["roles"]], "roles", []])
@pytest.mark.parametrize("path", ["realm_access.roles", "realm_access"])
def test_a_malformed_value_gives_no_role(value: Any, path: str) -> None:
    names = names_at({"realm_access": value}, path)
    assert [name for name in names if isinstance(name, str)] in ([], ["roles"])
    assert path == "realm_access" or names == []


def test_a_path_without_a_value_gives_no_role() -> None:
    assert claim_at(KEYCLOAK, "realm_access.groups") is None
    assert claim_at(KEYCLOAK, "realm_access.roles.0") is None
    assert claim_at({}, "roles") is None


@pytest.mark.parametrize("path", ["", ".", ".roles", "roles.", "a..b", " roles", "roles\n", "x" * 256])
def test_an_invalid_path_is_refused(path: str) -> None:
    with pytest.raises(ConfigurationError, match="roles_claim is the path of a claim"):
        check_claim_path(path, "roles_claim")
