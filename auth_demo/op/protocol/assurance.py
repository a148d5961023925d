"""Authentication levels of the demo: what a sign-in proves, and which level a request asks for."""

from typing import Final

__all__ = ("ACR_ONE_CLICK", "ACR_PASSWORD", "ACR_VALUES", "acr_claim", "needs_step_up")

ACR_ONE_CLICK: Final = "urn:demo:acr:1"
ACR_PASSWORD: Final = "urn:demo:acr:2"  # noqa: S105 - a level, no secret
ACR_VALUES: Final = (ACR_ONE_CLICK, ACR_PASSWORD)
"""Lowest first; a higher level satisfies a request for a lower one."""


def _satisfied(achieved: str, requested: tuple[str, ...]) -> list[str]:
    level = ACR_VALUES.index(achieved)
    return [value for value in requested if value in ACR_VALUES and ACR_VALUES.index(value) <= level]


def acr_claim(achieved: str, requested: tuple[str, ...]) -> str:
    """Return the first requested level that is met, else the one achieved (OIDC Core 3.1.2.1, ``acr_values``)."""
    return next(iter(_satisfied(achieved, requested)), achieved)


def needs_step_up(achieved: str, requested: tuple[str, ...]) -> bool:
    """Tell whether known levels were requested and `achieved` meets none of them."""
    return any(value in ACR_VALUES for value in requested) and not _satisfied(achieved, requested)
