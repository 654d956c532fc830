from __future__ import annotations

import pytest

from notebook_rpc.sansio.routing import NotAllowed, RouteConflict, RoutingTable


def test_a_path_and_a_method_lead_to_their_target() -> None:
    table = RoutingTable([("POST", "/", 1), ("GET", "/a", 2), ("POST", "/a", 3)])
    assert table.find("POST", "/") == 1
    assert table.find("GET", "/a") == 2
    assert table.find("POST", "/a") == 3


def test_a_path_that_is_not_in_the_table_leads_nowhere() -> None:
    table = RoutingTable([("POST", "/", 1)])
    for path in ("", "//", "/a", "/%2F", "*"):
        assert table.find("POST", path) is None


def test_another_method_is_told_which_are_allowed() -> None:
    table = RoutingTable([("POST", "/", 1), ("GET", "/a", 2)])
    assert table.find("GET", "/") == NotAllowed("OPTIONS, POST")
    assert table.find("post", "/") == NotAllowed("OPTIONS, POST")
    assert table.find("PUT", "/a") == NotAllowed("GET, HEAD, OPTIONS")


def test_head_is_answered_where_get_is() -> None:
    table = RoutingTable([("POST", "/", 1), ("GET", "/a", 2)])
    assert table.find("HEAD", "/a") == 2
    assert table.find("HEAD", "/") == NotAllowed("OPTIONS, POST")


def test_a_route_for_head_comes_before_the_one_for_get() -> None:
    table = RoutingTable([("GET", "/a", 1), ("HEAD", "/a", 2)])
    assert table.find("HEAD", "/a") == 2
    assert table.find("GET", "/a") == 1


def test_a_conflict_is_found_when_the_table_is_made() -> None:
    with pytest.raises(RouteConflict, match="two routes answer GET /a"):
        RoutingTable([("GET", "/a", 1), ("POST", "/a", 2), ("GET", "/a", 3)])
