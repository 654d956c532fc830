from __future__ import annotations

import pytest

from notebook_rpc.sansio.routing import WEBSOCKET, Found, NotAllowed, RouteConflict, RoutingTable


def test_a_path_and_a_method_lead_to_their_target() -> None:
    table = RoutingTable([("POST", "/", 1), ("GET", "/a", 2), ("POST", "/a", 3)])
    assert table.find("POST", "/") == Found(1, {})
    assert table.find("GET", "/a") == Found(2, {})
    assert table.find("POST", "/a") == Found(3, {})


def test_a_path_that_is_not_in_the_table_leads_nowhere() -> None:
    table = RoutingTable([("POST", "/", 1), ("POST", "/a/b", 1)])
    for path in ("", "//", "/a", "/a/", "/a/b/", "/a//b", "/a/b/c", "/%2F", "*", "a"):
        assert table.find("POST", path) is None
        assert table.allow(path) is None


def test_another_method_is_told_which_are_allowed() -> None:
    table = RoutingTable([("POST", "/", 1), ("GET", "/a", 2)])
    assert table.find("GET", "/") == NotAllowed("OPTIONS, POST")
    assert table.find("post", "/") == NotAllowed("OPTIONS, POST")
    assert table.find("PUT", "/a") == NotAllowed("GET, HEAD, OPTIONS")
    assert table.allow("/a") == "GET, HEAD, OPTIONS"


def test_a_websocket_is_no_method_to_be_told_of_but_what_a_get_may_miss() -> None:
    table = RoutingTable([("POST", "/", 1), (WEBSOCKET, "/", 2), (WEBSOCKET, "/a", 3)])
    assert table.find(WEBSOCKET, "/") == Found(2, {})
    assert table.find("GET", "/") == NotAllowed("OPTIONS, POST")
    assert table.find("GET", "/a") == NotAllowed("OPTIONS", upgrade=True)
    assert table.find(WEBSOCKET, "/b") is None
    assert table.allow("/a") == "OPTIONS"


def test_head_is_answered_where_get_is() -> None:
    table = RoutingTable([("POST", "/", 1), ("GET", "/a", 2)])
    assert table.find("HEAD", "/a") == Found(2, {})
    assert table.find("HEAD", "/") == NotAllowed("OPTIONS, POST")


def test_a_route_for_head_comes_before_the_one_for_get() -> None:
    table = RoutingTable([("GET", "/a", 1), ("HEAD", "/a", 2)])
    assert table.find("HEAD", "/a") == Found(2, {})
    assert table.find("GET", "/a") == Found(1, {})


def test_a_named_segment_is_any_one_that_is_not_empty() -> None:
    table = RoutingTable([("GET", "/a/{x}", 1), ("GET", "/a/{x}/c/{y}", 2)])
    assert table.find("GET", "/a/b") == Found(1, {"x": "b"})
    assert table.find("GET", "/a/{x}") == Found(1, {"x": "{x}"})
    assert table.find("GET", "/a/b c/c/\u00e9") == Found(2, {"x": "b c", "y": "\u00e9"})
    for path in ("/a/", "/a", "/a//c/d", "/a/b/c/", "/a/b/x/d"):
        assert table.find("GET", path) is None


def test_letters_win_over_names_whatever_came_first() -> None:
    for routes in (
        ["/a/b", "/a/{x}", "/a/b/c", "/a/{x}/d"],
        ["/a/{x}", "/a/b", "/a/{x}/d", "/a/b/c"],
    ):
        table = RoutingTable([("GET", path, path) for path in routes])
        assert table.find("GET", "/a/b") == Found("/a/b", {})
        assert table.find("GET", "/a/z") == Found("/a/{x}", {"x": "z"})
        assert table.find("GET", "/a/b/c") == Found("/a/b/c", {})
        assert table.find("GET", "/a/b/d") == Found("/a/{x}/d", {"x": "b"})


def test_what_is_left_of_a_path_may_have_a_name() -> None:
    table = RoutingTable([("GET", "/a/{x...}", 1), ("GET", "/{x}/b/{rest...}", 2)])
    assert table.find("GET", "/a/") == Found(1, {"x": ""})
    assert table.find("GET", "/a/b//c/") == Found(1, {"x": "b//c/"})
    assert table.find("GET", "/z/b/c") == Found(2, {"x": "z", "rest": "c"})
    assert table.find("POST", "/a/b") == NotAllowed("GET, HEAD, OPTIONS")
    for path in ("/a", "/z", "/z/b", "/z/c/d"):
        assert table.find("GET", path) is None


def test_it_comes_behind_letters_and_names() -> None:
    paths = ["/{all...}", "/a/{x}/c", "/a/b", "/a/{rest...}"]
    table = RoutingTable([("GET", path, path) for path in paths] + [("POST", "/", "post")])
    assert table.find("GET", "/a/b") == Found("/a/b", {})
    assert table.find("GET", "/a/b/c") == Found("/a/{x}/c", {"x": "b"})
    assert table.find("GET", "/a/b/d") == Found("/a/{rest...}", {"rest": "b/d"})
    assert table.find("GET", "/b/d") == Found("/{all...}", {"all": "b/d"})
    assert table.find("GET", "/") == NotAllowed("OPTIONS, POST")  # it has a place of its own


@pytest.mark.parametrize(
    ("first", "second", "complaint"),
    [
        ("/a", "/a", "two routes answer GET /a"),
        ("/a/{x}", "/a/{x}", "two routes answer GET /a/{x}"),
        ("/a/{x}", "/a/{y}", "two routes answer GET /a/{y}"),
        ("/a", "b", "does not begin with a slash"),
        ("/{x...}", "/{y...}", "two routes answer GET /{y...}"),
        ("/a", "/{x...}/b", "goes on behind {x...}"),
    ],
)
def test_a_conflict_is_found_when_the_table_is_made(
    first: str, second: str, complaint: str
) -> None:
    with pytest.raises(RouteConflict) as raised:
        RoutingTable([("GET", first, 1), ("POST", "/a", 2), ("GET", second, 3)])
    assert complaint in str(raised.value)


def test_two_methods_of_one_path_name_its_segments_alike() -> None:
    with pytest.raises(RouteConflict, match="names its segments"):
        RoutingTable([("GET", "/a/{x}", 1), ("POST", "/a/{y}", 2)])
