"""Sphinx configuration of the site; `make docs` builds it (docs/README.md).

The source folder is the root of the repository, so that each README is a page where it lies and the links
between them are the same here and on a forge.
"""

import builtins
import importlib
import inspect
import re
import sys
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.pycode import ModuleAnalyzer

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
PAGE_OF = re.compile(r"^\.\. automodule:: (\S+)$", re.MULTILINE)
PACKAGES = sorted(path.parent.name for path in ROOT.glob("packages/*/src/*/__init__.py"))

MODULES = [name for page in sorted(HERE.glob("api/*.md")) for name in PAGE_OF.findall(page.read_text())]

project = "VMM toolkit"
copyright = ""  # the licences say it
root_doc = "docs/index"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
include_patterns = ["*.md", "docs/**", "examples/*.md", "bench/**.md", "packages/*/*.md"]
exclude_patterns = [".*", "build", "logs", "docs/_templates", "**/node_modules", "**/tests", "**/*.egg-info"]
templates_path = ["_templates"]

html_theme = "furo"
html_title = "VMM toolkit"
html_additional_pages = {"index": "redirect.html"}
html_copy_source = False
html_show_sphinx = False

myst_heading_anchors = 4

smartquotes = False  # quotation marks are often code

nitpicky = True  # a reference that leads nowhere is a warning, and a warning fails the build
default_role = "py:obj"  # `name` in a docstring is a link where such a name is public, and plain elsewhere
COLON = "\ue000"  # of Unicode's private use: in no docstring
PRIVATE_PATH = re.compile(r"\b[a-z]\w*(?:\.[a-z]\w*)*(?:\._\w+)+\.")
MAX_DEPTH = 3  # page, module, class
BUILT_IN = (
    "object,BaseException,Exception,OSError,ValueError,RuntimeError,LookupError,"
    "int,str,tuple,Enum,Flag,IntEnum,IntFlag,Protocol"
)
autodoc_default_options = {
    "members": True,
    "undoc-members": True,
    "show-inheritance": True,
    "inherited-members": BUILT_IN,
}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True


def _homes() -> dict[str, str]:
    """Map where a public name is defined, `package._module.Name`, to where it is public, `package.Name`."""
    homes = {}
    for package in MODULES:
        module = importlib.import_module(package)
        for name in getattr(module, "__all__", ()):
            value = vars(module).setdefault(name, getattr(module, name))  # lazy ones too: autodoc asks dir()
            origin = getattr(value, "__module__", None)
            if origin and not inspect.ismodule(value):
                homes[f"{origin}.{getattr(value, '__qualname__', name)}"] = f"{package}.{name}"
    return homes


HOMES = _homes()


def _share_docs_of_constants() -> None:
    """Give each public module's analysis what private ones say of the constants and aliases it exports."""
    ours = {name: module for name, module in sys.modules.items() if name.partition(".")[0] in PACKAGES}
    sources = {name for name, module in ours.items() if str(getattr(module, "__file__", "")).endswith(".py")}
    private = {name for name in sources if "._" in name}
    for name in sources - private:
        exported = getattr(ours[name], "__all__", ())
        public = ModuleAnalyzer.for_module(name)
        public.analyze()
        for other in private:
            if other.partition(".")[0] == name.partition(".")[0]:
                docs = ModuleAnalyzer.for_module(other).find_attr_docs()
                public.attr_docs.update({key: docs[key] for key in docs if not key[0] and key[1] in exported})


def _resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.reference | nodes.TextElement | None:
    """Find what autodoc names by its private module; leave alone what is not ours."""
    target = node.get("reftarget", "")
    if node.get("refdomain") != "py":
        return None
    if home := HOMES.get(target):
        domain = env.get_domain("py")
        found = domain.resolve_xref(env, node["refdoc"], app.builder, "obj", home, node, content)
        if found is not None:
            return found
    names = target.split(".")
    promised = names[0] in PACKAGES and not any(name.startswith("_") for name in names)
    return None if promised and node.get("reftype") != "obj" else content


def _hide_private_bases(
    _app: Sphinx, _name: str, _object: object, _options: object, bases: list[type]
) -> None:
    """Name only public bases; the members that private ones bring are shown as the class's own."""
    bases[:] = [base for base in bases if not _private(base)]


def _private(base: type) -> bool:
    name = f"{base.__module__}.{base.__qualname__}"
    return base.__module__.partition(".")[0] in PACKAGES and "._" in name and name not in HOMES


def _shorten_contents(_app: Sphinx, env: BuildEnvironment) -> None:
    """List classes and functions beside a page, without their methods: hundreds of lines."""
    for name in PACKAGES:
        contents = env.tocs[f"docs/api/{name.replace('_', '-')}"]
        for items in list(contents.findall(nodes.bullet_list)):
            depth, node = 0, items
            while node.parent is not None:
                node, depth = node.parent, depth + isinstance(node, nodes.bullet_list)
            if depth >= MAX_DEPTH and items.parent is not None:
                items.parent.remove(items)


def _forget_builtins(_app: Sphinx, tree: nodes.document) -> None:
    """Take `type` in an annotation for Python's own, not for a field of that name somewhere here."""
    for reference in list(tree.findall(pending_xref)):
        if hasattr(builtins, reference.get("reftarget", "")):
            reference.replace_self(reference.children)


def _hide_colon(  # napoleon takes "Short name: kvm" at an attribute for a type and its description
    _app: Sphinx, what: str, _name: str, _object: object, _options: object, lines: list[str]
) -> None:
    """Keep the first line of an attribute's docstring as it is written."""
    if what in {"attribute", "data", "property"} and lines:
        lines[0] = lines[0].replace(":", COLON)


def _show_colon(
    _app: Sphinx, _what: str, _name: str, _object: object, _options: object, lines: list[str]
) -> None:
    lines[:] = [line.replace(COLON, ":") for line in lines]


def _shorten_values(_app: Sphinx, tree: nodes.document) -> None:
    """Name types by their names alone, not by the private modules they are made in."""
    for kind in (addnodes.desc_annotation, addnodes.literal_emphasis, addnodes.pending_xref):
        for text in [text for part in tree.findall(kind) for text in part.findall(nodes.Text)]:
            text.parent.replace(text, nodes.Text(PRIVATE_PATH.sub("", text.astext())))


def setup(app: Sphinx) -> None:
    """Connect what is above."""
    _share_docs_of_constants()
    app.connect("missing-reference", _resolve)
    app.connect("autodoc-process-bases", _hide_private_bases)
    app.connect("doctree-read", _forget_builtins)
    app.connect("doctree-read", _shorten_values)
    app.connect("env-updated", _shorten_contents)
    app.connect("autodoc-process-docstring", _hide_colon, priority=400)  # napoleon's is 500
    app.connect("autodoc-process-docstring", _show_colon, priority=600)
