"""A watch for iterations whose order depends on the hash seed."""

from __future__ import annotations

import ast

SET_METHODS = {"union", "intersection", "difference", "symmetric_difference"}
KEEPS_ORDER = {"list", "tuple", "enumerate", "iter", "reversed", "zip", "map", "filter"}


def is_set_annotation(node: ast.expr | None) -> bool:
    while isinstance(node, ast.Subscript):
        node = node.value
    return isinstance(node, ast.Name) and node.id in {"set", "frozenset"}


class SetWatch(ast.NodeVisitor):
    """Finds iterations over sets: literals, calls, and names or attributes made or annotated as sets."""

    def __init__(self, tree: ast.Module) -> None:
        self.attributes = {
            statement.target.id
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef)
            for statement in node.body
            if isinstance(statement, ast.AnnAssign)
            and isinstance(statement.target, ast.Name)
            and is_set_annotation(statement.annotation)
        }
        self.names: set[str] = set()
        self.found: list[ast.expr] = []
        self.visit(tree)

    def is_set(self, node: ast.expr) -> bool:
        match node:
            case ast.Set() | ast.SetComp():
                return True
            case ast.Call(func=ast.Name(id="set" | "frozenset")):
                return True
            case ast.Call(func=ast.Name(id=name), args=arguments) if name in KEEPS_ORDER:
                return any(self.is_set(argument) for argument in arguments)
            case ast.Call(func=ast.Attribute(attr=name)) if name in SET_METHODS:
                return True
            case ast.BinOp(left=left, right=right, op=ast.BitOr() | ast.BitAnd() | ast.Sub() | ast.BitXor()):
                return self.is_set(left) or self.is_set(right)
            case ast.Name(id=name):
                return name in self.names
            case ast.Attribute(attr=name):
                return name in self.attributes
        return False

    def look_at(self, node: ast.expr) -> None:
        if self.is_set(node):
            self.found.append(node)

    def visit_function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        outer = self.names
        parameters = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        self.names = outer | {parameter.arg for parameter in parameters if is_set_annotation(parameter.annotation)}
        self.generic_visit(node)
        self.names = outer

    visit_FunctionDef = visit_AsyncFunctionDef = visit_function  # noqa: N815 - the names that ast.NodeVisitor looks for

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        for target in node.targets:
            if isinstance(target, ast.Name):
                self.names = self.names | {target.id} if self.is_set(node.value) else self.names - {target.id}

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.generic_visit(node)
        if isinstance(node.target, ast.Name) and is_set_annotation(node.annotation):
            self.names = self.names | {node.target.id}

    def visit_For(self, node: ast.For) -> None:
        self.look_at(node.iter)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self.look_at(node.iter)
        self.generic_visit(node)

    def visit_SetComp(self, node: ast.SetComp) -> None:
        """A set made from a set has no order to lose; conditions and elements are still looked at."""
        for generator in node.generators:
            self.generic_visit(generator)
        self.visit(node.elt)

    def visit_Call(self, node: ast.Call) -> None:
        match node:
            case ast.Call(func=ast.Name(id="list" | "tuple"), args=[argument]):
                self.look_at(argument)
            case ast.Call(func=ast.Attribute(attr="join" | "extend"), args=[argument]):
                self.look_at(argument)
            case ast.Call(
                func=ast.Name(id="any" | "all" | "len" | "max" | "min" | "set" | "sorted" | "sum" | "frozenset")
            ):
                for argument in node.args:  # the answer does not depend on the order: skip the outer iteration
                    if isinstance(argument, ast.GeneratorExp):
                        for generator in argument.generators:
                            self.generic_visit(generator)
                        self.visit(argument.elt)
                    else:
                        self.visit(argument)
                return
        self.generic_visit(node)
