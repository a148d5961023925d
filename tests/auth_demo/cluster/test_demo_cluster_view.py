"""The view of the cluster, also in states too short to observe on real servers."""

from __future__ import annotations

from auth_demo.cluster.view import NodeReport, picture_of, report_of

PRIMARY = b"""\
aaa 127.0.0.1:7001@8001 myself,master - 0 0 3 connected 0-99 200 [300->-bbb]
bbb 127.0.0.1:7002@8002 slave aaa 0 0 3 connected
"""
REPLICA = b"""\
aaa 127.0.0.1:7001@8001 master,fail - 0 0 3 connected 0-99
bbb 127.0.0.1:7002@8002 myself,slave aaa 0 0 3 connected
"""


def test_the_reply_of_a_server_is_parsed() -> None:
    followed = [b"master", 14, [[b"127.0.0.1", b"7002", b"14"]]]
    assert report_of(PRIMARY, followed) == NodeReport("aaa", None, 3, ((0, 99), (200, 200)), in_sync=True)
    assert report_of(PRIMARY, [b"master", 14, []]) == NodeReport("aaa", None, 3, ((0, 99), (200, 200)), in_sync=False)
    assert report_of(REPLICA, [b"slave", b"127.0.0.1", 7001, b"connect", -1]) == NodeReport("bbb", "aaa", 3, (), in_sync=False)
    assert report_of(b"", [b"master", 0, []]) is None


def test_a_server_promoted_between_two_replies_has_no_replica_in_sync() -> None:
    assert report_of(REPLICA, [b"master", 14, []]) == NodeReport("bbb", "aaa", 3, (), in_sync=False)
    assert report_of(PRIMARY, [b"slave", b"127.0.0.1", 7002, b"connected", 14]) == NodeReport(
        "aaa", None, 3, ((0, 99), (200, 200)), in_sync=False
    )


def test_a_dead_primary_does_not_count_against_its_successor() -> None:
    old = NodeReport("aaa", None, 3, ((0, 99),), in_sync=False)
    new = NodeReport("bbb", None, 7, ((0, 99),), in_sync=False)
    first, second = picture_of({7001: old, 7002: new}, down=set())
    assert (first.role, first.holds(5)) == ("coming back", False)
    assert (second.role, second.holds(5), second.holds(100), second.ranges) == ("primary", True, False, "0-99")


def test_a_dead_server_is_down_regardless_of_its_last_reply() -> None:
    report = NodeReport("aaa", None, 3, ((0, 99),), in_sync=True)
    replica = NodeReport("bbb", "aaa", 3, (), in_sync=True)
    first, second, third = picture_of({7001: report, 7002: replica, 7003: None}, down={7001})
    assert (first.role, first.slots) == ("down", ())
    assert (second.role, second.follows) == ("replica", 7001)
    assert third.role == "coming back"
