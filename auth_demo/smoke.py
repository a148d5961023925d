"""A smoke test of the demo over HTTP: log in, use the session, log out; prints the results."""

# ruff: noqa: T201 - a command prints to its terminal

from __future__ import annotations

from typing import Final

from auth_demo.visitor import SmokeFailure, expect, follow, log_in, new_client, place

__all__ = ("SmokeFailure", "smoke")

_OK: Final = 200
_UNAUTHORIZED: Final = 401


async def smoke(app_url: str, issuer: str, *, user: str = "alice") -> None:
    """Log `user` in and out. Raises `SmokeFailure` at the first problem."""
    async with new_client() as client:
        page = await client.get(app_url)
        expect(page.status_code == _OK, f"GET / answered {page.status_code}")
        expect("set-cookie" not in page.headers, "a visitor without a session got a cookie")
        print(f"smoke: GET {app_url}/ answered without a cookie")

        await log_in(client, app_url, issuer, user)
        print(f"smoke: went to the provider at {issuer} and came back")
        me = await client.get(f"{app_url}/api/me")
        expect(me.status_code == _OK, f"GET /api/me answered {me.status_code} after the login")
        print(f"smoke: logged in as {me.json()['name']} ({', '.join(me.json()['roles'])})")

        for expected in (1, 2):
            counted = await client.post(f"{app_url}/api/session/visits")
            expect(counted.json().get("visits") == expected, f"the counter said {counted.text}, not {expected}")
        print("smoke: counted two visits in the session")

        page = await follow(client, f"{app_url}/auth/logout", method="POST")
        expect(page.status_code == _OK, f"the logout ended with {page.status_code} at {place(page)}")
        me = await client.get(f"{app_url}/api/me")
        expect(me.status_code == _UNAUTHORIZED, f"GET /api/me answered {me.status_code} after the logout")
        print(f"smoke: logged out, back at {place(page)}")
