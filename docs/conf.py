"""How Sphinx builds these pages: `make docs`."""

import dataclasses
import importlib
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# What notebooks compile is no part of the home. They train for seconds: as in the suite, compiling
# is to be fast, and not the code.
os.environ.setdefault("FLAXSEG_CACHE", str(ROOT / "docs" / "_build" / "cache"))
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

# Imported late: the lines above are read by JAX, and the path by the search for flaxseg.
from docutils import nodes  # noqa: E402
from flax import nnx  # noqa: E402
from jax import numpy as jnp  # noqa: E402
from sphinx import addnodes  # noqa: E402
from sphinx.util import inspect  # noqa: E402

import flaxseg  # noqa: E402
from convert.parity.compiling import xla_flags  # noqa: E402

os.environ.setdefault(
    "XLA_FLAGS",
    xla_flags({"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": 1}),
)

project = "flaxseg"
copyright = "the authors of flaxseg, Apache-2.0"
version = release = flaxseg.__version__
html_title = f"flaxseg {version}"

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
]
exclude_patterns = ["_build"]
nitpicky = True

# Links to headings work as on a code host, in all levels that pages have.
myst_heading_anchors = 4
# Notebooks run at every build, as what they show follows from the library and not from them; each
# in a folder of its own. A cell that fails is a warning with its traceback.
nb_execution_mode = "force"
nb_execution_in_temp = True
nb_execution_timeout = 600
nb_execution_show_tb = True
# Libraries complain there about a machine that is slow.
nb_output_stderr = "remove"
nb_merge_streams = True
# Widgets would be loaded from another host.
nb_ipywidgets_js = {}

# Tables that programs write, and outputs of a terminal, are no language that Pygments knows.
highlight_language = "none"
myst_enable_extensions = ["attrs_block"]

html_theme = "furo"
html_copy_source = False
html_show_sphinx = False
html_static_path = ["_static"]
html_css_files = ["wide.css"]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
# Defaults as they are written: jnp.float32 and not the class behind it.
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
autosummary_generate = False
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# `name` in a docstring is an object of ours where there is one, and else an argument or a value.
default_role = "py:obj"

# Inventories are text in this folder, so that a build asks no other host; they hold the names that
# our signatures use. A name that is missing there is a warning, and so an error.
_ELSEWHERE = {
    "python": "https://docs.python.org/3/library",
    "numpy": "https://numpy.org/doc/stable/reference",
    "jax": "https://docs.jax.dev/en/latest",
    "flax": "https://flax.readthedocs.io/en/stable",
    "optax": "https://optax.readthedocs.io/en/latest",
    "torch": "https://docs.pytorch.org/docs/stable",
}
intersphinx_mapping = {
    name: (address, f"inventories/{name}.txt") for name, address in _ELSEWHERE.items()
}

# Grain's pages have no address for it.
nitpick_ignore = [("py:class", "grain._src.python.dataset.dataset.IterDataset")]

OURS = ("flaxseg", "convert", "torch_ref")


def _known_by_import(name: str) -> bool:
    """Whether a dotted name is a module of ours, or something in one."""
    words = name.split(".")
    for end in range(len(words), 0, -1):
        try:
            found = importlib.import_module(".".join(words[:end]))
        except ImportError:
            continue
        for word in words[end:]:
            if not hasattr(found, word) and word not in getattr(found, "__annotations__", {}):
                return False
            found = getattr(found, word, None)
        return True
    return False


def _public(app, env, node, content):
    """Types of other libraries are looked up by the name under which these document them."""
    node["reftarget"] = _PUBLIC.get(node["reftarget"], node["reftarget"])


_PUBLIC = {
    "flax.nnx.rnglib.Rngs": "flax.nnx.Rngs",
    "jax._src.typing.SupportsDType": "jax.typing.DTypeLike",
    "jax.jaxlib._jax.Array": "jax.Array",
    "numpy.random._generator.Generator": "numpy.random.Generator",
}


def _plain(app, env, node, content):
    """What exists and has no page is plain text, as are arguments and values in backticks."""
    target = node["reftarget"]
    if target.partition(".")[0] in OURS and "." in target:
        return content if _known_by_import(target) else None
    return content if node.get("reftype") == "obj" else None


def _signature(app, what, name, thing, options, signature, returns):
    """A network is made by its own arguments: its metaclass takes any. Defaults as written."""
    if what != "class" or not (issubclass(thing, nnx.Module) or dataclasses.is_dataclass(thing)):
        return None
    own = inspect.signature(thing.__init__, bound_method=True)
    arguments = [a.replace(default=_written(a.default)) for a in own.parameters.values()]
    own = own.replace(parameters=arguments, return_annotation=inspect.Signature.empty)
    return inspect.stringify_signature(own, unqualified_typehints=True), None


class _Written(str):
    """Text that stands in a signature as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _written(default):
    """A default without what Python shows of objects that have no literal."""
    if default is jnp.float32:
        return _Written("jnp.float32")
    return _Written("...") if repr(default) == "<factory>" else default


def _unsaid(app, what, name, thing, skip, options):
    """Fields of a named tuple stand in its own docstring; what Python says of each is no more."""
    told = getattr(thing, "__doc__", None) or ""
    return True if told.startswith("Alias for field number") else None


def _introduced(app, document):
    """The page of a notebook begins with its task, the page of the same name, and its file.

    The notebook itself holds no such links: they would lead nowhere once it is elsewhere.
    """
    path = Path(app.env.doc2path(app.env.docname))
    title = document.next_node(nodes.title)
    if path.suffix != ".ipynb" or title is None:
        return
    task = addnodes.pending_xref(
        "", nodes.inline(), refdomain="std", reftype="doc", reftarget=f"/{path.stem}"
    )
    task.attributes |= {"refdoc": app.env.docname, "refexplicit": False, "refwarn": True}
    file = addnodes.download_reference("", path.name, reftarget=path.name, reftype="download")
    file["refdoc"] = app.env.docname
    words = "A notebook of ", task, ", run when this page was built: ", file
    line = nodes.paragraph("", "", *(nodes.Text(w) if isinstance(w, str) else w for w in words))
    title.parent.insert(1, line)


def setup(app):
    """Called by Sphinx."""
    app.connect("doctree-read", _introduced, priority=400)  # before downloads are collected
    app.connect("autodoc-process-signature", _signature)
    app.connect("autodoc-skip-member", _unsaid)
    app.connect("missing-reference", _public, priority=100)
    app.connect("missing-reference", _plain, priority=900)
