"""Sphinx configuration; build with `make docs`."""

import os
import re
import types

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import cvxnn

project = "cvxnn"
author = "cvxnn contributors"
copyright = "2026, cvxnn contributors"
version = release = cvxnn.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "myst_parser",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "gallery/**.ipynb", "gallery/**.py", "gallery/**.md5"]
templates_path = ["_templates"]

myst_enable_extensions = ["dollarmath", "colon_fence", "deflist"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_typehints = "none"  # numpydoc sections name the types
autodoc_member_order = "bysource"
numpydoc_show_class_members = False  # the templates list members

sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "gallery",
    "filename_pattern": re.escape(os.sep) + "plot_",
    "download_all_examples": False,
    "show_memory": False,
    "remove_config_comments": True,
}

html_theme = "pydata_sphinx_theme"
html_title = "cvxnn"
html_show_sourcelink = False
html_theme_options = {"show_toc_level": 2, "navigation_with_keys": False}


def skip_noise(app, what, name, obj, skip, options):
    """Leave out scikit-learn's metadata routing, fields without a text, and type aliases."""
    routing = re.fullmatch(r"set_\w+_request|get_metadata_routing", name)
    field = str(getattr(obj, "__doc__", "")).startswith("Alias for field number")
    alias = isinstance(obj, types.GenericAlias | types.UnionType)
    return True if routing or field or alias else None


def link_gallery(app, docname, source):
    """Lead links to examples, which a code host shows as files, to their pages of the gallery."""
    text = re.sub(r"\]\((?:\.\./)+examples/(plot_\w+)\.py\)", r"](/gallery/\1.rst)", source[0])
    source[0] = re.sub(
        r"\]\((?:\.\./)+examples/GALLERY_HEADER\.rst\)", "](/gallery/index.rst)", text
    )


def setup(app):
    app.connect("autodoc-skip-member", skip_noise)
    app.connect("source-read", link_gallery)
