"""Scripts are loaded apart from each other, and refused with the line that is wrong."""

from __future__ import annotations

import re
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest

from notebook_rpc import runtime, scripts
from notebook_rpc.audit import Guard, guarded
from notebook_rpc.scripts import Modules
from notebook_rpc.settings import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from notebook_rpc.surfaces.routes import Site

TAKEN = [("GET", "/healthz"), ("POST", "/"), ("WEBSOCKET", "/")]


def write(folder: Path, **modules: str) -> None:
    """Modules by their names, with a dash for a slash."""
    for name, text in modules.items():
        path = folder / f"{name.replace('-', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))


def load(folder: Path, *names: str, modules: Modules | None = None) -> Site:
    paths: Sequence[str] = [str(folder / f"{name}.py") for name in names or ("setup",)]
    return scripts.load(paths, TAKEN, modules or Modules())


def answers(site: Site) -> list[object]:
    return [endpoint.handler(None) for endpoint in site.endpoints]


# Refused

HANDLERS = """
    def known(request): return None
    def two(request, more): return None
    word = "no function"
"""


@pytest.mark.parametrize(
    ("script", "line", "message"),
    [
        ('http.get("/x", "nowhere.f")', 3, "there is no module 'nowhere' in "),
        ('http.get("/x", "handlers.knwn")', 3, "no function 'knwn'; did you mean 'known'?"),
        ('http.get("/x", "handlers")', 3, "not of the form 'module.function'"),
        ('http.get("/x", "handlers.word")', 3, "handlers.word is no function"),
        ('http.get("/x", "handlers.two")', 3, "handlers.two must take one argument"),
        ('http.get("/x", "broken.f")', 1, "ZeroDivisionError: division by zero"),
        ('http.get("/x", "imports.f")', 1, "No module named 'nothing_of_this_name'"),
        ('http.get("/x", 5)', 3, "5 is no function"),
        ('http.get("x", "handlers.known")', 3, "does not begin with a slash"),
        ('http.get("/x?a", "handlers.known")', 3, "has a ?"),
        ('http.get("/{}", "handlers.known")', 3, "must be words"),
        ('http.get("/{a}/{a}", "handlers.known")', 3, "distinct"),
        ('http.get("/a{b}", "handlers.known")', 3, "must be a word, or {name}"),
        ('http.get("/{a...}/b", "handlers.known")', 3, "goes on behind {a...}"),
        ('http.get("/healthz", "handlers.known")', 3, "two routes answer GET /healthz"),
        ('http.post("/", "handlers.known")', 3, "two routes answer POST /"),
        ('http.websocket("/", "handlers.known")', 3, "two routes answer WEBSOCKET /"),
        (
            'http.get("/x/{a}", "handlers.known")\nhttp.get("/x/{b}", "handlers.known")',
            4,
            "two routes answer GET /x/{b}",
        ),
        ('http.static("/s", "nowhere")', 3, "there is no folder"),
        ('http.static("/{s}", ".")', 3, "cannot have {names}"),
        ('http.static("/s", ".")\nhttp.get("/s", "handlers.known")', 4, "two routes answer GET /s"),
        ('http.not_found("handlers.known")\nhttp.not_found("handlers.known")', 4, "two handlers"),
        ('http.middleware("handlers.two")', 3, "must take one argument"),
        ('http.route("/x", "handlers.known", ["BREW"])', 3, "there are no routes for BREW"),
        ('http.route("/x", "handlers.knwn", ["PUT"])', 3, "did you mean 'known'?"),
        ('http.route("/x", methods=["PUT"])(5)', 3, "5 is no function"),
        ("\n\nraise ValueError('no way')", 5, "ValueError: no way"),
        ("def f(:", 3, "invalid syntax"),
        ("import nothing_of_this_name", 3, "ModuleNotFoundError: No module named"),
        ("import scriptling.kv", 3, "no 'scriptling.kv' here"),
        ("from .. import above", 3, "beyond"),
        ("raise SystemExit(3)", 3, "SystemExit: 3"),
        ("raise KeyboardInterrupt('no')", 3, "KeyboardInterrupt: no"),
        ("from notebook_rpc.runtime import sql\nsql.query('select 1')", 4, "no request here"),
    ],
)
def test_what_is_wrong_is_found_at_the_start(
    tmp_path: Path, script: str, line: int, message: str
) -> None:
    write(tmp_path, handlers=HANDLERS, broken="1 / 0", imports="import nothing_of_this_name")
    (tmp_path / "setup.py").write_text(f"from notebook_rpc.runtime import http\n\n{script}\n")
    with pytest.raises(ConfigError, match=rf"^{tmp_path}/\w+\.py:{line}: ") as refused:
        load(tmp_path)
    assert message in str(refused.value)


@pytest.mark.parametrize("name", ["nowhere.py", "folder.py", "notes.txt"])
def test_what_is_no_script_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.py").mkdir()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ConfigError, match=f"^--routes: .*{re.escape(name)}"):
        scripts.load([str(tmp_path / name)], [], Modules())


def test_routes_are_registered_while_scripts_are_loaded_and_not_later() -> None:
    with pytest.raises(RuntimeError, match="while the setup script is loaded"):
        runtime.http.get("/x", lambda _: None)


# Apart


def test_two_servers_with_modules_of_one_name_do_not_notice_each_other(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(
            tmp_path / name,
            setup='from notebook_rpc.runtime import http\nhttp.get("/x", "handlers.f")',
            handlers=f"def f(request): return {name!r}",
        )
    before = set(sys.modules)
    assert answers(load(tmp_path / "one")) == ["one"]
    assert answers(load(tmp_path / "two")) == ["two"]
    assert "handlers" not in sys.modules
    assert str(tmp_path / "one") not in sys.path
    assert all(name.startswith("notebook_rpc.script_") for name in set(sys.modules) - before)


@pytest.mark.parametrize("register", ["get('/{0}', ", "route('/{0}', methods=['GET'], handler="])
def test_a_name_is_looked_up_in_the_folder_of_the_script_that_says_it(
    tmp_path: Path, register: str
) -> None:
    for name in ("one", "two"):
        write(
            tmp_path / name,
            setup="from notebook_rpc.runtime import http\n"
            f"http.{register.format(name)}'handlers.f')",
            handlers=f"def f(request): return {name!r}",
        )
    assert answers(load(tmp_path, "one/setup", "two/setup")) == ["one", "two"]


def test_scripts_of_one_folder_share_its_modules(tmp_path: Path) -> None:
    write(
        tmp_path,
        setup='from notebook_rpc.runtime import http\nhttp.get("/x", "state.f")',
        more='from notebook_rpc.runtime import http\nhttp.get("/y", "state.f")',
        state="seen = []\ndef f(request):\n    seen.append(1)\n    return len(seen)",
    )
    assert answers(load(tmp_path, "setup", "more")) == [1, 2]


def test_to_load_again_is_to_begin_anew(tmp_path: Path) -> None:
    write(
        tmp_path,
        setup='from notebook_rpc.runtime import http\nhttp.get("/x", "state.f")',
        state="seen = []\ndef f(request):\n    seen.append('a')\n    return seen",
    )
    modules = Modules()
    first = load(tmp_path, modules=modules)
    assert answers(first) == [["a"]]
    write(tmp_path, state="seen = []\ndef f(request):\n    seen.append('b')\n    return seen")
    assert answers(load(tmp_path)) == [["b"]]  # though it is as long, and perhaps as old
    assert answers(first) == [["a", "a"]]
    modules.forget()
    assert answers(first) == [["a", "a", "a"]]


def test_imports_are_those_of_a_script_in_its_folder(tmp_path: Path) -> None:
    modules = {
        "setup": """
            import colorsys
            import json as own
            import package.deep.module
            import plain.helper
            from notebook_rpc.runtime import http
            from package import *
            from package import sibling
            from package.deep import module as same

            assert own.WORD == "shadows"
            assert package.deep.module is same
            assert named.WORD == "named"
            http.get("/x", lambda request: [same.WORDS, sibling.WORD, plain.helper.WORD])
            http.get("/y", "package.deep.module.later")
            http.get("/z", "package.deep.module.Point")
        """,
        "json": "WORD = 'shadows'",
        "plain-helper": "WORD = 'of a mere folder'",
        "package-__init__": "__all__ = ['named']",
        "package-named": "WORD = 'named'",
        "package-sibling": "from .named import WORD",
        "package-deep-__init__": "",
        "package-deep-module": """
            from __future__ import annotations

            import dataclasses
            from typing import ClassVar

            from .. import sibling
            from ..named import WORD

            WORDS = [sibling.WORD, WORD]

            @dataclasses.dataclass
            class Point:
                x: int
                origin: ClassVar[int] = 0

            def later(request):
                from package import named
                import plain.late
                return plain.late.WORD + named.WORD
        """,
    }
    write(tmp_path, **modules)
    site = load(tmp_path)
    write(tmp_path, **{"plain-late": "WORD = 'late, '"})
    x, y, point = answers(site)
    assert x == [["named", "named"], "named", "of a mere folder"]
    assert y == "late, named"
    assert type(point).__name__ == "Point"


def test_whatever_may_be_reached_modules_may_be_imported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "path", module_of_this_test="WORD = 'installed'")
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    modules = {"setup": SETUP, "below-more": "WORD = 'below'"}
    write(tmp_path / "code", **modules)
    with guarded(Guard([])):
        assert answers(load(tmp_path / "code")) == [["installed", "below"]]
    del sys.modules["module_of_this_test"]


SETUP = """
    import below.more
    import module_of_this_test
    from notebook_rpc.runtime import http

    http.get("/x", lambda request: [module_of_this_test.WORD, below.more.WORD])
"""


def test_scriptlings_name_for_the_runtime_is_known_to_scripts_alone(tmp_path: Path) -> None:
    write(
        tmp_path,
        setup="""
            import scriptling.runtime
            import scriptling.runtime as runtime
            import scriptling.runtime.http as http
            from scriptling import runtime as again
            from scriptling.runtime import http as same

            assert scriptling.runtime is runtime is again
            assert http is same is runtime.http
            runtime.http.get("/x", lambda request: runtime)
        """,
    )
    assert answers(load(tmp_path)) == [runtime]
    assert "scriptling" not in sys.modules
    with pytest.raises(ModuleNotFoundError):
        __import__("scriptling")


def test_every_way_to_register_a_handler(tmp_path: Path) -> None:
    write(
        tmp_path,
        setup="""
            from notebook_rpc.runtime import http

            def f(request): return "f"

            assert http.get("/a", f) is f
            assert http.get("/b", "setup.f") is None
            assert http.delete("/{a}/{b...}")(f) is f

            @http.post("/a")
            def g(request): return "g"

            @http.middleware
            def first(request): return "first"

            http.middleware("setup.f")

            @http.not_found
            def lost(request): return "lost"

            @http.websocket("/a")
            async def chat(client): pass

            http.static("/s/", ".")

            @http.route("/r", methods=["get", "PUT"])
            def both(request): return "both"

            http.route("/q", "setup.f", ["POST"])
        """,
    )
    site = load(tmp_path)
    assert [(each.method, each.path) for each in site.endpoints] == [
        *(("GET", "/a"), ("GET", "/b"), ("DELETE", "/{a}/{b...}"), ("POST", "/a")),
        *(("WEBSOCKET", "/a"), ("GET", "/r"), ("PUT", "/r"), ("POST", "/q")),
    ]
    assert [each(None) for each in site.middleware] == ["first", "f"]
    assert site.not_found is not None
    assert site.not_found(None) == "lost"
    assert [(each.path, each.folder) for each in site.folders] == [("/s", tmp_path)]


def test_what_was_read_is_known_also_of_what_failed(tmp_path: Path) -> None:
    write(tmp_path, setup="import helper\nimport broken", helper="", broken="(")
    modules = Modules()
    with pytest.raises(ConfigError, match=r"broken\.py:1"):
        load(tmp_path, modules=modules)
    assert {path.name for path in modules.files} == {"setup.py", "helper.py", "broken.py"}
    assert scripts.stamps(modules.files) == modules.files
    write(tmp_path, broken="")
    assert scripts.stamps(modules.files) != modules.files
    (tmp_path / "broken.py").unlink()
    assert scripts.stamps(modules.files)[tmp_path / "broken.py"] is None
