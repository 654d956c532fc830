"""The scripts of ``--routes``: run, and what they ask for found and checked.

A script and the modules beside it are this server's own: they are imported afresh for each server
and for each reload, under names that nobody else has, by an ``import`` statement that looks into
the script's folder first. It is the statement of these modules and of no other, at whatever time
it runs, so that nothing that is process-wide is touched but ``sys.modules``, where dataclasses,
pickle and others look a class's module up.

It refuses whatever would only be noticed at a request: a handler that is not there or takes no
request, a path that is malformed, two routes that answer the same.
"""

from __future__ import annotations

import builtins
import difflib
import importlib.util
import inspect
import re
import sys
import threading
import traceback
import types
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from notebook_rpc import audit, runtime
from notebook_rpc.sansio.routing import RouteConflict, RoutingTable
from notebook_rpc.settings import ConfigError
from notebook_rpc.surfaces.routes import Endpoint, Folder, Site

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from notebook_rpc.runtime import Handler, Registered

ALIAS: Final = "scriptling"  # what such modules are called in Scriptling's own scripts
PATIENCE: Final = 10.0  # seconds that one request waits for what another is importing
_NAME: Final = re.compile(r"\{([^{}.]*)(\.\.\.)?\}")


Stamp: TypeAlias = "tuple[int, ...] | None"
"""What tells a file from what it was before; None of one that is not there."""


def load(scripts: Sequence[str], others: Sequence[tuple[str, str]], modules: Modules) -> Site:
    """Run *scripts* as *modules*, and find what they ask for. *others* are methods and paths that
    are taken.

    Raises:
        ConfigError: that cannot be done; the message has a file and a line.
    """
    registered: list[Registered] = []
    loading = runtime.LOADING.set(registered.append)
    try:
        for name in scripts:
            modules.run(located(name))
        site = Site(
            tuple(_endpoint(modules, each) for each in registered if _is_route(each)),
            tuple(
                _found(modules, each) for each in registered if each.method == runtime.MIDDLEWARE
            ),
            _only(modules, registered),
            tuple(_folder(each) for each in registered if each.method == runtime.STATIC),
        )
        _check(registered, site, others)
        return site
    finally:
        runtime.LOADING.reset(loading)


def located(name: str) -> Path:
    """Where a script is, without links.

    Raises:
        ConfigError: there is none.
    """
    try:
        path = Path(name).expanduser().resolve(strict=True)
    except (OSError, RuntimeError) as exc:
        reason = getattr(exc, "strerror", None) or exc
        raise ConfigError(f"--routes: cannot read {name}: {reason}") from exc
    if path.suffix != ".py" or not path.is_file():
        raise ConfigError(f"--routes: {name} is no file of Python (.py)")
    return path


def stamps(files: Iterable[Path]) -> dict[Path, Stamp]:
    """Those of *files* now."""
    return {path: _stamp(path) for path in files}


def _stamp(path: Path) -> Stamp:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


class Modules:
    """The modules of the scripts of one server, as they were loaded once."""

    def __init__(self) -> None:
        self._folders: dict[Path, Workspace] = {}

    def run(self, path: Path) -> None:
        workspace = self._folders.setdefault(path.parent, Workspace(path.parent))
        with _located(path):
            workspace.load(path.stem)

    def function(self, reference: str, of: Registered) -> Handler:
        """What is called "module.function", in the folder of the script that says so."""
        module_name, _, name = reference.rpartition(".")
        if not module_name or not all(part.isidentifier() for part in reference.split(".")):
            raise _wrong(of, f"{reference!r} is not of the form 'module.function'")
        workspace = self._of(of.file)
        with _located(Path(of.file), of.line):
            module = workspace.find(module_name)
        if module is None:
            raise _wrong(of, f"there is no module {module_name!r} in {workspace.folder}")
        found = getattr(module, name, None)
        if found is None:
            near = difflib.get_close_matches(name, vars(module), 1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise _wrong(of, f"{module_name} has no function {name!r}{hint}")
        handler: Handler = found
        return handler

    def _of(self, file: str) -> Workspace:
        """That of a script or of a module, which may be in a folder below; of what is installed,
        that of the first script."""
        near = [self._folders[each] for each in Path(file).parents if each in self._folders]
        return (near or list(self._folders.values()))[0]

    @property
    def files(self) -> dict[Path, Stamp]:
        """Everything that was read, as it was then."""
        found: dict[Path, Stamp] = {}
        for each in tuple(self._folders.values()):  # copies: a thread may be importing meanwhile
            found |= each.files.copy()
        return found

    def forget(self) -> None:
        """Nobody imports them any more; those who have them keep them."""
        for workspace in tuple(self._folders.values()):  # as above
            workspace.forget()


class Workspace:
    """The modules of one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files: dict[Path, Stamp] = {}
        # Below our own name, so that their loggers write into the server's log.
        self._prefix = f"notebook_rpc.script_{uuid.uuid4().hex[:12]}"
        self._modules: dict[str, types.ModuleType] = {}
        self._ready: set[str] = set()
        self._builtins = {**vars(builtins), "__import__": self._import}
        self._alias = types.ModuleType(ALIAS)
        self._alias.__dict__["runtime"] = runtime
        self._importing = threading.RLock()

    def find(self, name: str) -> types.ModuleType | None:
        """The module of this name, of the folder or any that is installed; None if there is
        none."""
        try:
            found: types.ModuleType = self._import(name, fromlist=("",))
        except ModuleNotFoundError as exc:
            missing = exc.name or ""
            if name == missing or name.startswith(f"{missing}."):
                return None
            raise
        return found

    def load(self, name: str) -> types.ModuleType:
        """The module *name* of the folder, which is run when it is first asked for."""
        if name in self._ready:
            return self._modules[name]
        # With a limit, as Trio's thread must not wait for a thread that waits for Trio.
        if not self._importing.acquire(timeout=PATIENCE):
            raise ImportError(f"another request is still importing {name}", name=name)
        try:
            if name in self._modules:  # meanwhile; or it imports itself in a circle
                return self._modules[name]
            parent, _, leaf = name.rpartition(".")
            if parent:
                self.load(parent)
            module = self._run(name)
            if parent:
                setattr(self._modules[parent], leaf, module)
            self._ready.add(name)
            return module
        finally:
            self._importing.release()

    def forget(self) -> None:
        for name in tuple(self._modules):
            sys.modules.pop(f"{self._prefix}.{name}", None)

    def _run(self, name: str) -> types.ModuleType:
        path = self._path(name)
        if path is None:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        full_name = f"{self._prefix}.{name}"
        module = types.ModuleType(full_name)
        is_package = path.name == "__init__.py" or path.is_dir()
        module.__file__ = None if path.is_dir() else str(path)
        module.__package__ = full_name if is_package else full_name.rpartition(".")[0]
        if is_package:
            module.__path__ = [str(path if path.is_dir() else path.parent)]
        module.__dict__["__builtins__"] = self._builtins
        self._modules[name] = sys.modules[full_name] = module
        try:
            if not path.is_dir():
                with audit.unguarded():
                    self.files[path] = _stamp(path)
                    source = importlib.util.decode_source(path.read_bytes())
                exec(compile(source, path, "exec", dont_inherit=True), vars(module))  # noqa: S102  # it is what was asked for
        except BaseException:
            del self._modules[name], sys.modules[full_name]
            raise
        return module

    def _path(self, name: str) -> Path | None:
        """The file of a module, or its folder if it is a package without a file."""
        base = self.folder.joinpath(*name.split("."))
        for path in (base / "__init__.py", base.with_name(f"{base.name}.py")):
            if path.is_file():
                return path
        with audit.unguarded():
            return base if base.is_dir() and any(base.glob("*.py")) else None

    def _has(self, name: str) -> bool:
        """Whether the folder has the module. A mere folder gives way to what is installed, as it
        does in Python."""
        if name in self._modules:
            return True
        path = self._path(name)
        if path is None or path.is_file():
            return path is not None
        installed = importlib.util.find_spec(name)
        return installed is None or installed.origin is None  # a mere folder, too

    def _import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,  # noqa: A002  # as builtins.__import__ has it
        locals: Mapping[str, Any] | None = None,  # noqa: A002  # as above
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> Any:
        """What the ``import`` of these modules does."""
        if level:
            package = (globals or {}).get("__package__") or ""
            full_name = importlib.util.resolve_name("." * level + name, package)
            if not full_name.startswith(f"{self._prefix}."):
                raise ImportError("attempted relative import beyond the script's folder")
            name = full_name.removeprefix(f"{self._prefix}.")
        top = name.partition(".")[0]
        if top == ALIAS and not level:
            return self._aliased(name, fromlist)
        with audit.unguarded():
            is_own = bool(level) or self._has(top)
        if not is_own:
            with audit.unguarded():
                return builtins.__import__(name, globals, locals, fromlist or (), 0)
        module = self.load(name)
        if not fromlist:
            return self._modules[top]
        if hasattr(module, "__path__"):
            self._load_submodules(name, module, fromlist)
        return module

    def _load_submodules(self, name: str, module: types.ModuleType, wanted: Iterable[str]) -> None:
        names = set(wanted)
        if "*" in names:
            names |= set(getattr(module, "__all__", ()))
        for each in names - {"*", ""}:
            if not hasattr(module, each) and self._path(f"{name}.{each}") is not None:
                self.load(f"{name}.{each}")

    def _aliased(self, name: str, fromlist: Sequence[str] | None) -> Any:
        found: Any = self._alias
        for part in name.split(".")[1:]:
            found = getattr(found, part, None)
            if found is None:
                raise ModuleNotFoundError(
                    f"no {name!r} here: of Scriptling there is scriptling.runtime", name=name
                )
        return found if fromlist else self._alias


@contextmanager
def _located(path: Path, line: int = 0) -> Iterator[None]:
    """Says of whatever goes wrong in a script in which file and line that was; if in none,
    *path* and *line*."""
    try:
        yield
    except ConfigError:
        raise
    except SyntaxError as exc:
        raise ConfigError(f"{exc.filename or path}:{exc.lineno or line}: {exc.msg}") from exc
    except BaseException as exc:  # a script's, on a thread: that of Ctrl-C never comes here
        folder = str(path.parent)
        frames = [
            frame
            for frame in traceback.extract_tb(exc.__traceback__)
            if frame.filename.startswith(folder)
        ]
        file, number = (frames[-1].filename, frames[-1].lineno) if frames else (path, line)
        raise ConfigError(f"{file}:{number}: {type(exc).__name__}: {exc}") from exc


def _wrong(of: Registered, message: str) -> ConfigError:
    return ConfigError(f"{of.file}:{of.line}: {message}")


def _is_route(each: Registered) -> bool:
    return each.method not in (runtime.MIDDLEWARE, runtime.NOT_FOUND, runtime.STATIC)


def _found(modules: Modules, each: Registered) -> Handler:
    """The handler, which can be given what it will be given."""
    if isinstance(each.handler, str):
        handler, name = modules.function(each.handler, each), each.handler
    else:
        handler = each.handler
        name = getattr(handler, "__qualname__", repr(handler))
    if not callable(handler):
        raise _wrong(each, f"{name} is no function")
    try:
        inspect.signature(handler).bind(None)
    except TypeError:
        raise _wrong(each, f"{name} must take one argument") from None
    except ValueError:  # of a function of C, which says nothing
        return handler
    return handler


def _only(modules: Modules, registered: Iterable[Registered]) -> Handler | None:
    found = [each for each in registered if each.method == runtime.NOT_FOUND]
    if len(found) > 1:
        raise _wrong(found[1], "there are two handlers for what is not found")
    return _found(modules, found[0]) if found else None


def _endpoint(modules: Modules, each: Registered) -> Endpoint:
    _check_path(each)
    return Endpoint(each.method, each.path, _found(modules, each))


def _folder(each: Registered) -> Folder:
    _check_path(each, names=False)
    folder = Path(each.file).parent / Path(str(each.handler)).expanduser()
    if not folder.is_dir():
        raise _wrong(each, f"there is no folder {folder}")
    return Folder(each.path.rstrip("/"), folder.resolve())


def _check_path(each: Registered, *, names: bool = True) -> None:
    if not each.path.startswith("/"):
        raise _wrong(each, f"the path {each.path!r} does not begin with a slash")
    if set("?#%") & set(each.path):
        raise _wrong(each, f"the path {each.path!r} has a ?, a # or a %, which paths never have")
    found = []
    for segment in each.path.split("/"):
        match = _NAME.fullmatch(segment)
        if match is None and set("{}") & set(segment):
            raise _wrong(each, f"{segment!r} in {each.path!r} must be a word, or {{name}}")
        if match is not None:
            found.append(match[1])
    if found and not names:
        raise _wrong(each, f"the path {each.path!r} of a folder cannot have {{names}}")
    if not all(name.isidentifier() for name in found) or len(set(found)) < len(found):
        raise _wrong(each, f"the names in {each.path!r} must be words, and distinct")


def _check(registered: Sequence[Registered], site: Site, others: Sequence[tuple[str, str]]) -> None:
    """Raises ``ConfigError`` if two routes answer the same, with the place of the second."""
    taken = list(others)
    endpoints, folders = iter(site.endpoints), iter(site.folders)
    for each in registered:
        if each.method == runtime.STATIC:
            taken += next(folders).paths()
        elif _is_route(each):
            endpoint = next(endpoints)
            taken.append((endpoint.method, endpoint.path))
        else:
            continue
        try:
            RoutingTable((method, path, None) for method, path in taken)
        except RouteConflict as exc:
            raise _wrong(each, str(exc)) from exc
