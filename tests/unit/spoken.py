"""Reads from the package's source every sentence that can reach people on a page; values in it become ``{}``."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import binder_onprem
from binder_onprem import errors

ROOT = Path(binder_onprem.__file__).parent

COMMAND_LINE = {
    "host.baseimage": "makes the base image during `up`",
    "cli": "the command line",
    "cli.host": "the command line",
    "cli.launch": "the command line",
    "cli.records": "the command line",
    "cli.rulings": "the command line",
    "cli.calls": "the command line",
    "hub.nativeaccounts": "the command line",
    "cli.options": "the command line",
    "cli.client": "how the command line reaches the daemon",
    "host.networks": "made during `up`",
    "host.ociarchive": "pushes the base image during `up`",
    "host.up": "the command line",
}
"""Modules whose sentences only the command line prints, and why."""
SETTING_UP = {"ConfigError", "HostUnfit"}
"""Classes that end a command of the administrator, who reads English logs as well."""
PASSED_ON = {"engine.loopfile", "engine.projectvolumes"}
"""Modules whose `HostUnfit` becomes a build's or a launch's error all the same."""
ALSO = {"NotStarted"}
"""The hub's own error, which the session's part raises."""
TREE = {name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, errors.BinderError)} | ALSO
SAYS_PROGRESS = {"hub.spawner", "hub.pod_spawner"}
"""Where `_say` is progress of a session's start, not a line of a log."""


@dataclass
class Module:
    """One file's names."""

    name: str
    tree: ast.Module
    names: dict[str, ast.expr] = field(default_factory=dict)
    functions: dict[str, ast.FunctionDef | ast.AsyncFunctionDef] = field(default_factory=dict)
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)


def modules() -> dict[str, Module]:
    found: dict[str, Module] = {}
    for path in sorted(ROOT.rglob("*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        module = Module(name, ast.parse(path.read_text(encoding="utf-8")))
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                module.functions[node.name] = node
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("binder_onprem"):
                there = str(node.module).removeprefix("binder_onprem").removeprefix(".")
                module.imports |= {alias.asname or alias.name: (there, alias.name) for alias in node.names}
        for node in module.tree.body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                if isinstance(target, ast.Name):
                    module.names[target.id] = node.value
        found[name] = module
    return found


@dataclass
class Reader:
    """Follows an expression to the texts it can be."""

    all: dict[str, Module]
    found: dict[str, str] = field(default_factory=dict)
    where: str = ""

    def keep(self, text: str) -> None:
        text = text.rstrip("\n")
        if re.search(r"[A-Za-z]{2}", text.replace("{}", "")):
            self.found.setdefault(text, self.where)

    def texts(self, node: ast.AST | None, module: Module, scope: ast.AST | None, depth: int = 8) -> set[str]:  # noqa: PLR0911 - one for each form
        """The texts; ``{}`` alone for what is not known."""
        again = (module, scope, depth - 1)
        if depth == 0:
            return {"{}"}
        match node:
            case ast.Constant(value=str(text)):
                return {text}
            case ast.JoinedStr(values=parts):
                choices = [self.part(part, module, scope, depth - 1) for part in parts]
                return {re.sub(r"(\{\})+", "{}", "".join(words)) for words in product(*choices)}
            case ast.BoolOp(values=values):
                return set().union(*(self.texts(value, *again) for value in values))
            case ast.IfExp(body=body, orelse=orelse):
                return self.texts(body, *again) | self.texts(orelse, *again)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                ends = {text if text.strip() else "" for text in self.pieces(right, module, scope, depth - 1)}
                return {one + two for one, two in product(self.texts(left, *again), ends)}
            case ast.Name(id=name):
                return self.named(name, module, scope, depth - 1)
            case ast.Call(func=function):
                return self.returned(function, module, None, depth - 1)
            case _:
                return {"{}"}

    def part(self, node: ast.expr, module: Module, scope: ast.AST | None, depth: int) -> set[str]:
        """A part of an f-string: a value whose texts are known is a part of its own, with an entry of its own."""
        if isinstance(node, ast.Constant):
            return {str(node.value)}
        self.pieces(node.value if isinstance(node, ast.FormattedValue) else node, module, scope, depth)
        return {"{}"}

    def pieces(self, node: ast.AST, module: Module, scope: ast.AST | None, depth: int) -> set[str]:
        if isinstance(node, ast.Constant):
            return {str(node.value)}
        for text in self.texts(node, module, scope, depth) - {"{}"}:
            if " " in text.strip() and re.search(r"[a-z]{2}", text):
                self.keep(text)
        return {"{}"}

    def named(self, name: str, module: Module, scope: ast.AST | None, depth: int) -> set[str]:
        found: set[str] = set()
        for node in ast.walk(scope) if scope else ():
            if isinstance(node, ast.Assign):
                for target in node.targets:
                    found |= self.assigned(name, target, node.value, (module, scope, depth))
        if found:
            return found
        if name in module.names:
            return self.texts(module.names[name], module, None, depth)
        if name in module.imports:
            there, other = module.imports[name]
            if there in self.all and other in self.all[there].names:
                return self.texts(self.all[there].names[other], self.all[there], None, depth)
        return {"{}"}

    def assigned(self, name: str, target: ast.expr, value: ast.expr, at: tuple[Module, ast.AST | None, int]) -> set[str]:
        """What one assignment gives to a name, by itself or in a tuple."""
        if isinstance(target, ast.Name):
            return self.texts(value, *at) if target.id == name else set()
        names = [item.id if isinstance(item, ast.Name) else "" for item in target.elts] if isinstance(target, ast.Tuple) else []
        if name not in names:
            return set()
        place = names.index(name)
        if isinstance(value, ast.Tuple):
            return self.texts(value.elts[place], *at)
        return self.returned(value.func, at[0], place, at[2]) if isinstance(value, ast.Call) else set()

    def returned(self, function: ast.expr, module: Module, place: int | None, depth: int) -> set[str]:
        """What a function of the package returns; `place` in a tuple."""
        if isinstance(function, ast.Name) and function.id in module.functions:
            there, name = module, function.id
        elif isinstance(function, ast.Name) and function.id in module.imports and module.imports[function.id][0] in self.all:
            there, name = self.all[module.imports[function.id][0]], module.imports[function.id][1]
        elif isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id in module.imports:
            above, inner_name = module.imports[function.value.id]
            found_module = self.all.get(f"{above}.{inner_name}".lstrip("."))
            if found_module is None:
                return {"{}"}
            there, name = found_module, function.attr
        else:
            return {"{}"}
        node = there.functions.get(name)
        found: set[str] = set()
        if node is None or ast.unparse(node.returns or ast.Constant("")) not in ("str", "tuple[str, str]", "tuple[Phase, str]"):
            return {"{}"}
        for inner in ast.walk(node):
            if isinstance(inner, ast.Return):
                value = inner.value.elts[place] if place is not None and isinstance(inner.value, ast.Tuple) else inner.value
                found |= self.texts(value, there, node, depth)
        return found


def _sentence(call: ast.Call, module: Module) -> list[ast.expr]:
    """The arguments of a call that are sentences."""
    name = call.func.id if isinstance(call.func, ast.Name) else call.func.attr if isinstance(call.func, ast.Attribute) else ""
    if name in TREE or (name == "kind" and module.name == "outcome"):
        return call.args[:1] if name not in SETTING_UP or module.name in PASSED_ON else []
    if name == "_refused":
        return call.args[1:] if module.name == "building.dockerfile" else []
    if name == "_say":
        return call.args[:1] if module.name in SAYS_PROGRESS else []
    if name == "Progress" and len(call.args) > 1:
        return [call.args[1]]
    return []


def _asked(node: ast.AST, module: Module) -> list[ast.expr]:
    if isinstance(node, ast.Call):
        return [] if any(isinstance(argument, ast.Starred) for argument in node.args) else _sentence(node, module)
    notice = isinstance(node, ast.Assign) and any(isinstance(target, ast.Name) and target.id == "notice" for target in node.targets)
    return [node.value] if notice and isinstance(node, ast.Assign) and module.name == "providers.cache" else []


def sentences() -> dict[str, str]:
    """Sentence → where it stands."""
    reader = Reader(modules())
    for name, module in reader.all.items():
        for scope in () if name in COMMAND_LINE else module.functions.values():
            for expression in (found for node in ast.walk(scope) for found in _asked(node, module)):
                reader.where = f"{name}:{expression.lineno}"
                for text in reader.texts(expression, module, scope) - {"{}"}:
                    reader.keep(text)
    for name, function, place in (("outcome", "verdict", 1), ("providers.refs", "default_notice", None)):
        reader.where = f"{name}.{function}"
        for text in reader.returned(ast.Name(function), reader.all[name], place, 8) - {"{}"}:
            reader.keep(text)
    reader.keep(ast.literal_eval(reader.all["web.pages"].names["ENDED"]))
    reader.where = "hub.pages"
    for text in ast.literal_eval(reader.all["hub.pages"].names["SAID"]):
        reader.keep(text)
    return reader.found
