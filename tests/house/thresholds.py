"""A watch for quorum arithmetic outside the one module that owns it."""

from __future__ import annotations

import ast

FAULTS = {"f", "faults", "max_faults", "faulty"}
SIZES = {"n", "size", "replicas", "members", "membership", "member_count"}


def last_name(node: ast.expr) -> str:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
        case ast.Call(func=ast.Name(id="len"), args=[argument]):
            return last_name(argument)
        case ast.BinOp(left=left, op=ast.Sub() | ast.Add(), right=ast.Constant()):
            return last_name(left)
    return ""


def is_threshold(node: ast.AST) -> bool:
    """Tell whether an expression computes a quorum: `2 * f`, `f + 1`, `(n - 1) // 3`, `len(members) // 2`."""
    match node:
        case ast.BinOp(left=ast.Constant(value=2 | 3), op=ast.Mult(), right=factor):
            return last_name(factor) in FAULTS
        case ast.BinOp(left=factor, op=ast.Mult(), right=ast.Constant(value=2 | 3)):
            return last_name(factor) in FAULTS
        case ast.BinOp(left=ast.Name() | ast.Attribute() as term, op=ast.Add(), right=ast.Constant(value=1)):
            return last_name(term) in FAULTS
        case ast.BinOp(left=dividend, op=ast.FloorDiv(), right=ast.Constant(value=2 | 3)):
            return last_name(dividend) in SIZES
    return False
