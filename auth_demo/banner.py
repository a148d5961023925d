"""The text that the demo prints at start: addresses and demo users."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from auth_demo.cluster.watch import ClusterWatch
    from auth_demo.op import Account
    from auth_demo.servers import Addresses

__all__ = ("banner", "cluster_page")


def banner(addresses: Addresses, accounts: Sequence[Account], watch: ClusterWatch | None) -> str:
    """Return the lines. `watch` is that of the cluster, where there is one."""
    width = max(len(account.username) for account in accounts)
    users = [f"{account.username:{width}}  {', '.join(account.roles)}" for account in accounts]
    lines = [
        "",
        f"  Application        {addresses.app_url}",
        f"  Identity provider  {addresses.issuer}",
        *([] if watch is None else _cluster(addresses, watch)),
        "",
        f"  Log in as          {users[0]}",
        *(f"                     {user}" for user in users[1:]),
        f"                     one click each, or the password: {accounts[0].password}",
        "",
        f"  Ctrl-C stops {'both' if watch is None else 'everything'}.",
        "",
    ]
    return "\n".join(lines)


def cluster_page(addresses: Addresses) -> str:
    """Return where the cluster is shown."""
    return f"{addresses.app_url}/demo/cluster"


def _cluster(addresses: Addresses, watch: ClusterWatch) -> Iterator[str]:
    yield f"  Cluster            {cluster_page(addresses)}"
    for view in watch.views:
        what = f"slots {view.ranges}" if view.slots else f"follows {view.follows}"
        yield f"                     {view.role:7}  127.0.0.1:{view.port}  {what}"
