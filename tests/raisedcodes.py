"""Finds the codes that the source can raise, by static analysis of the values that are passed as `reason`.

A code reaches users through a parameter or a field named `reason`, or as a value of an enum of reasons. So the scan
collects everything in the package that takes a `reason`, follows what each call passes for it (constants, branches,
local and module variables, tables, and what functions of the package return), and reports what it cannot follow.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "operator" / "remit"
PARAMETERS = frozenset({"reason"})
LOGGING = frozenset({"debug", "info", "warning", "error", "exception"})
EVENT_TYPES = frozenset({"Normal", "Warning"})
OTHERS = frozenset({"controlplane", "sandbox", "cli"})
"""Packages that are not scanned: the control plane's reasons are Kubernetes' own; the others show reasons of other
packages, or raise none."""
CODE = re.compile(r"[A-Z][A-Za-z]+")


@dataclass
class Module:
    path: Path
    tree: ast.Module
    functions: dict[str, list[ast.FunctionDef | ast.AsyncFunctionDef]] = field(
        default_factory=lambda: defaultdict(list)
    )
    values: dict[str, list[ast.expr]] = field(default_factory=lambda: defaultdict(list))
    imports: dict[str, str] = field(default_factory=dict)
    takers: dict[str, int | None] = field(default_factory=dict)
    """The classes and functions of the module that take a reason, and the position of the parameter."""
    methods: set[ast.AST] = field(default_factory=set)

    @cached_property
    def nodes(self) -> Sequence[ast.AST]:
        """All nodes of the module's tree, cached because walking is slow."""
        return list(ast.walk(self.tree))

    @cached_property
    def name(self) -> str:
        return ".".join(("remit", *self.path.with_suffix("").parts)).removesuffix(".__init__")


@dataclass(frozen=True)
class Found:
    code: str
    where: str


Scope = Sequence[ast.FunctionDef | ast.AsyncFunctionDef]


class Scan:
    """A scan of the files below `root`. `codes` are the codes that it found, and `unknown` the places that it cannot
    follow."""

    def __init__(self, root: Path = PACKAGE) -> None:
        paths = sorted(path for path in root.rglob("*.py") if path.relative_to(root).parts[0] not in OTHERS)
        self.modules = [_module(path, root) for path in paths]
        self.enums: dict[str, dict[str, str]] = {}
        self.methods: dict[str, set[int | None]] = defaultdict(set)
        self.other_methods: set[str] = set()
        self.codes: set[Found] = set()
        self.unknown: set[Found] = set()
        self._walked: dict[ast.AST, Sequence[ast.AST]] = {}
        for module in self.modules:
            self._index(module)
        for module in self.modules:
            for scope, node in _taking(module.tree):
                if isinstance(node, ast.Call):
                    self._call(module, scope, node)
                else:
                    self._dict(module, scope, node)
            self._families(module)

    def _walk(self, function: ast.FunctionDef | ast.AsyncFunctionDef) -> Sequence[ast.AST]:
        """Returns all nodes of a function, cached because each of its variables is looked up in it."""
        if function not in self._walked:
            self._walked[function] = list(ast.walk(function))
        return self._walked[function]

    def _index(self, module: Module) -> None:
        for node in module.nodes:
            match node:
                case ast.ClassDef():
                    self._index_class(module, node)
                case ast.FunctionDef() | ast.AsyncFunctionDef() if node not in module.methods:
                    if position := _parameter(node):
                        module.takers[node.name] = position[0]
                case ast.ImportFrom(module=str(origin), names=names):
                    module.imports.update({each.asname or each.name: origin for each in names})

    def _index_class(self, module: Module, node: ast.ClassDef) -> None:
        if any(isinstance(base, ast.Name) and base.id == "StrEnum" for base in node.bases):
            self.enums[node.name] = dict(_members(node))
            return
        methods = [each for each in node.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
        module.methods.update(methods)
        if (position := _field(node)) is not None:
            module.takers[node.name] = position
        for method in methods:
            found = _parameter(method)
            if method.name == "__init__" and found:
                module.takers[node.name] = found[0]
                self.defaults(module, method)
            elif found:
                self.methods[method.name].add(found[0])
            else:
                self.other_methods.add(method.name)

    def defaults(self, module: Module, method: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        for argument, default in zip(method.args.kwonlyargs, method.args.kw_defaults, strict=True):
            if argument.arg in PARAMETERS and default is not None:
                self._value(module, (), default, set())

    def _families(self, module: Module) -> None:
        """Adds the codes of exceptions that are raised without a reason of their own."""
        for node in module.nodes:
            match node:
                case (
                    ast.Assign(targets=[ast.Name(id="default_code")], value=value)
                    | ast.AnnAssign(target=ast.Name(id="default_code"), value=ast.expr() as value)
                ):
                    self._value(module, (), value, set())

    def _taken_by(self, module: Module, function: ast.expr) -> tuple[set[int | None], bool]:
        """Returns the positions of a reason among the arguments of a call, and whether they are certain."""
        if isinstance(function, ast.Attribute):
            inherits = isinstance(function.value, ast.Call) and _name(function.value.func) == "super"
            if inherits:
                return set(), True
            if isinstance(function.value, ast.Name) and (origin := module.imports.get(function.value.id)):
                whole = f"{origin}.{function.value.id}"
                if found := next((each for each in self.modules if each.name == whole), None):
                    return ({found.takers[function.attr]} if function.attr in found.takers else set()), True
            positions = self.methods.get(function.attr, set())
            return positions, function.attr not in self.other_methods and len(positions) == 1
        name = _name(function)
        if name in module.takers:
            return {module.takers[name]}, True
        origin = module.imports.get(name)
        if origin is None:
            return set(), True
        exact = [each for each in self.modules if each.name == origin]
        within = [each for each in self.modules if each.name.startswith(f"{origin}.")]
        for candidates in (exact, within):
            found = {each.takers[name] for each in candidates if name in each.takers}
            if found:
                return found, True
        return set(), True

    def _call(self, module: Module, scope: Scope, call: ast.Call) -> None:
        before = set(self.unknown)
        positions, certain = self._taken_by(module, call.func)
        for keyword in call.keywords:
            if keyword.arg in PARAMETERS and _name(call.func) not in LOGGING:
                self._value(module, scope, keyword.value, set())
        for position in positions:
            if position is not None and position < len(call.args):
                arguments = call.args[: position + 1]
                if not any(isinstance(each, ast.Starred) for each in arguments):
                    self._value(module, scope, call.args[position], set())
        if not certain:
            self.unknown = before

    def _dict(self, module: Module, scope: Scope, node: ast.Dict) -> None:
        for key, value in zip(node.keys, node.values, strict=True):
            if isinstance(key, ast.Constant) and key.value in PARAMETERS:
                self._value(module, scope, value, set())

    def _value(self, module: Module, scope: Scope, node: ast.expr, seen: set[ast.AST], part: int | None = None) -> None:
        """Adds the codes that `node` may evaluate to. `part` is the index if the value is unpacked."""
        if node in seen:
            return
        seen.add(node)
        follow: Iterable[ast.expr] = ()
        match node:
            case ast.Constant(value=str(text)):
                if CODE.fullmatch(text) and text not in EVENT_TYPES:
                    self.codes.add(Found(text, str(module.path)))
            case ast.Constant() | ast.Attribute(attr="reason" | "code"):
                pass  # no reason, or one that is passed on
            case ast.Tuple(elts=elements) if part is not None:
                self._value(module, scope, elements[part], seen)
            case ast.IfExp(body=body, orelse=orelse):
                follow = (body, orelse)
            case ast.BoolOp(values=values):
                follow = values
            case ast.Attribute(value=ast.Name(id=enum), attr=member) if member in self.enums.get(enum, {}):
                self.codes.add(Found(self.enums[enum][member], str(module.path)))
            case ast.Call(func=ast.Name(id="str"), args=[value]):
                follow = (value,)
            case ast.Call(func=ast.Attribute(value=ast.Name(id=table), attr="get"), args=[_, *default]):
                follow = (*self._table(module, table), *default)
            case ast.Subscript(value=ast.Name(id=table)) if table in module.values:
                follow = self._table(module, table)
            case ast.Call(func=function) if called := module.functions.get(_name(function)):
                for each in called:
                    for value in _returned(self._walk(each)):
                        self._value(module, (*scope, each), value, seen, part)
            case ast.Name(id=name):
                self._variable(module, scope, name, seen)
            case _:
                self.unknown.add(Found(ast.unparse(node), str(module.path)))
        for each in follow:
            self._value(module, scope, each, seen, part)

    def _table(self, module: Module, name: str) -> Iterator[ast.expr]:
        for value in module.values.get(name, ()):
            for node in ast.walk(value):
                if isinstance(node, ast.Dict):
                    yield from (each for each in node.values)

    def _variable(self, module: Module, scope: Scope, name: str, seen: set[ast.AST]) -> None:
        for function in reversed(scope):
            if any(each.arg == name for each in _arguments(function)):
                if name not in PARAMETERS:
                    self.unknown.add(Found(f"{function.name}({name})", str(module.path)))
                return
            if assigned := list(_assigned(self._walk(function), name)):
                for value, part in assigned:
                    self._value(module, scope, value, seen, part)
                return
            if any(isinstance(each, ast.MatchAs) and each.name == name for each in self._walk(function)):
                return  # read from a value that already has its reason
        origin = next((each for each in self.modules if each.name == module.imports.get(name)), None)
        if origin is not None and name in origin.values:
            module = origin
        if name not in module.values:
            self.unknown.add(Found(name, str(module.path)))
        for value in module.values.get(name, ()):
            self._value(module, (), value, seen)


def _module(path: Path, root: Path) -> Module:
    module = Module(path.relative_to(root), ast.parse(path.read_text()))
    for node in module.nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            module.functions[node.name].append(node)
    for statement in module.tree.body:
        match statement:
            case (
                ast.Assign(targets=[ast.Name(id=name)], value=value)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value)
            ):
                module.values[name].append(value)
    return module


def _taking(tree: ast.AST, scope: Scope = ()) -> Iterator[tuple[Scope, ast.Call | ast.Dict]]:
    """Yields the calls and dictionaries of a module, each with its enclosing functions."""
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.Call | ast.Dict):
            yield scope, child
        within = (*scope, child) if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else scope
        yield from _taking(child, within)


def _name(function: ast.expr) -> str:
    match function:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def _arguments(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[ast.arg]:
    arguments = function.args
    return [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]


def _parameter(node: ast.AST) -> tuple[int | None] | None:
    """Returns the position of a function's parameter `reason` without `self`; the position is None if the parameter is
    keyword-only."""
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return None
    names = [each.arg for each in (*node.args.posonlyargs, *node.args.args)]
    names = names[1:] if names[:1] in (["self"], ["cls"]) else names
    found = [names.index(name) for name in PARAMETERS if name in names]
    if found:
        return (found[0],)
    return (None,) if any(each.arg in PARAMETERS for each in node.args.kwonlyargs) else None


def _is_init(node: ast.AST) -> bool:
    return isinstance(node, ast.FunctionDef) and node.name == "__init__"


def _field(node: ast.ClassDef) -> int | None:
    """Returns the position of the field `reason` in a dataclass or a named tuple."""
    names = [
        each.target.id for each in node.body if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
    ]
    return next((names.index(name) for name in PARAMETERS if name in names), None)


def _members(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for each in node.body:
        match each:
            case ast.Assign(targets=[ast.Name(id=name)], value=ast.Constant(value=str(text))):
                yield name, text


def _returned(function: Iterable[ast.AST]) -> Iterator[ast.expr]:
    for node in function:
        if isinstance(node, ast.Return) and node.value is not None:
            yield node.value


def _assigned(function: Iterable[ast.AST], name: str) -> Iterator[tuple[ast.expr, int | None]]:
    """Yields the values that are assigned to the variable, and the index if they are unpacked."""
    for node in function:
        match node:
            case ast.Assign(targets=targets, value=value):
                for target in targets:
                    if isinstance(target, ast.Name) and target.id == name:
                        yield value, None
                    elif isinstance(target, ast.Tuple):
                        names = [each.id if isinstance(each, ast.Name) else "" for each in target.elts]
                        if name in names:
                            yield value, names.index(name)
            case ast.AnnAssign(target=ast.Name(id=found), value=ast.expr() as value) if found == name:
                yield value, None
            case ast.NamedExpr(target=ast.Name(id=found), value=value) if found == name:
                yield value, None


if __name__ == "__main__":
    scan = Scan()
    codes: dict[str, list[str]] = defaultdict(list)
    for found in scan.codes:
        codes[found.code].append(found.where)
    for code, places in sorted(codes.items()):
        print(code, *sorted(places)[:4])
    print("--- unknown")
    for found in sorted(scan.unknown, key=lambda f: f.where):
        print(found.where, found.code)
