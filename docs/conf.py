"""How Sphinx builds these pages: `make docs`."""

import importlib
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("JAX_PLATFORMS", "cpu")

# Imported late: the line above is read by JAX, and the path by the search for flaxseg.
from flax import nnx  # noqa: E402
from sphinx.util import inspect  # noqa: E402

import flaxseg  # noqa: E402

project = "flaxseg"
copyright = "the authors of flaxseg, Apache-2.0"
version = release = flaxseg.__version__
html_title = f"flaxseg {version}"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "sphinx.ext.intersphinx",
]
exclude_patterns = ["_build"]
nitpicky = True

# Links to headings work as on a code host, in all levels that pages have.
myst_heading_anchors = 4
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
    """A network is made by its own arguments; its metaclass takes any."""
    if what != "class" or not issubclass(thing, nnx.Module):
        return None
    app.emit("autodoc-before-process-signature", thing.__init__, True)
    own = inspect.signature(thing.__init__, bound_method=True)
    return inspect.stringify_signature(own, unqualified_typehints=True), None


def setup(app):
    """Called by Sphinx."""
    app.connect("autodoc-process-signature", _signature)
    app.connect("missing-reference", _public, priority=100)
    app.connect("missing-reference", _plain, priority=900)
