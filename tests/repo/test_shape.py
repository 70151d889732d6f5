"""The shape of the shipped code: short files, short functions, messages that show values."""

import ast
import re
import statistics

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def functions(package):
    """Yield (lines without the docstring, where) of every function."""
    for source in package.sources:
        for node in ast.walk(source.tree):
            if isinstance(node, FUNCTIONS):
                text = ast.get_docstring(node, clean=False)
                lines = node.end_lineno - node.lineno + 1 - (text.count("\n") + 1 if text else 0)
                yield lines, f"{source.path}:{node.lineno} {node.name}"


def shows_a_value(call):
    """Whether any argument of a raised exception is more than a constant."""
    return any(
        not isinstance(value, ast.Constant) for value in [*call.args, *(k.value for k in call.keywords)]
    )


def test_files_are_short(package):
    """No file has more than 400 lines."""
    assert not [f"{s.path}: {s.lines} lines" for s in package.sources if s.lines > 400]


def test_functions_are_short(package):
    """None has more than 60 lines besides its docstring, and half have at most 8."""
    measured = list(functions(package))
    assert not [f"{where}: {lines} lines" for lines, where in measured if lines > 60]
    assert statistics.median(lines for lines, _ in measured) <= 8


def test_messages_show_values(package):
    """At least 70 % of the raised exceptions carry a value of this very case."""
    raised = [
        node.exc
        for source in package.sources
        for node in ast.walk(source.tree)
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and node.exc.args
    ]
    assert sum(map(shows_a_value, raised)) >= 0.7 * len(raised)


def test_every_module_says_what_it_is_for(package):
    """Private modules included."""
    assert not [source.path for source in package.sources if not ast.get_docstring(source.tree)]


def test_nothing_is_unfinished(package):
    """No comment says that work is left over."""
    for source in package.sources:
        for number, line in enumerate(source.path.read_text().splitlines(), 1):
            assert not re.search(r"#\s*(TODO|FIXME|XXX|HACK)\b", line), f"{source.path}:{number}"
