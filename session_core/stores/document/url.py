"""Parses the URLs of stores: a token, options after the question mark, and their errors.

What is refused is never quoted: a malformed URL may have its token anywhere.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from typing import Final, NoReturn
from urllib.parse import parse_qsl, unquote

from session_core.errors import ConfigurationError

__all__ = ("DocumentUrl",)

_PREFIX: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}\Z", re.ASCII)
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/=:-]{1,4096}\Z", re.ASCII)


class DocumentUrl:
    """Reads one kind of URL. Every method raises `ConfigurationError` with `example` in its message."""

    def __init__(self, what: str, form: re.Pattern[str], options: frozenset[str], *, example: str) -> None:
        self._what = what
        self._form = form
        self._options = options
        self._example = example

    def read(self, url: str) -> tuple[re.Match[str], dict[str, str]]:
        """Return the parts, and the options."""
        match = self._form.match(url)
        if match is None:
            self.refuse("it has another form")
        pairs = parse_qsl(match["query"] or "", keep_blank_values=True)
        options = dict(pairs)
        if unknown := sorted(options.keys() - self._options):
            self.refuse(f"there is no option {unknown[0]!r}; the options are {', '.join(sorted(self._options))}")
        if len(options) != len(pairs):
            self.refuse("an option is given twice")
        return match, options

    def token(self, userinfo: str | None, options: Mapping[str, str], given: str | None) -> str | None:
        """Return the token of the URL, of the variable that `token_env` names, or `given`."""
        variable = options.get("token_env")
        if userinfo is not None:
            user, _, password = userinfo.partition(":")
            if user or not password:
                self.refuse("a token stands after a colon, with no user before it")
            given = unquote(password)
        elif variable is not None:
            given = os.environ.get(variable)
            if not given:
                self.refuse("the variable that token_env names is not set")
        if given is not None and not _TOKEN.match(given):
            self.refuse("a token may hold letters, digits and . _ ~ + / = : - only")
        return given

    def seconds(self, options: Mapping[str, str], default: float) -> float:
        """Return the timeout."""
        try:
            seconds = float(options.get("timeout", default))
        except ValueError:
            seconds = math.nan
        if not 0 < seconds < math.inf:
            self.refuse("timeout is a positive number of seconds, for example ?timeout=2")
        return seconds

    def choice(self, options: Mapping[str, str], name: str) -> bool:
        """Return whether a yes-or-no option says yes."""
        value = options.get(name, "false")
        if value not in {"true", "false"}:
            self.refuse(f"{name} is true or false")
        return value == "true"

    def prefix(self, options: Mapping[str, str], default: str) -> str:
        """Return the prefix of the names of all documents."""
        prefix = options.get("prefix", default)
        if prefix != default and not _PREFIX.match(prefix):
            self.refuse("prefix may hold letters, digits and _ . : - only, for example ?prefix=shop:")
        return prefix

    def refuse(self, problem: str) -> NoReturn:
        """Raise the error."""
        msg = f"the URL of {self._what} is malformed: {problem}; a good example: {self._example}"
        raise ConfigurationError(msg) from None
