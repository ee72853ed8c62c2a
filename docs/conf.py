"""Sphinx configuration; build with `make docs`."""

import os
import re
import types
from pathlib import Path

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


def show_pictures(app, text):
    """Put the picture of an example below a paragraph that begins with its title as a link."""

    def with_picture(found):
        name = found["name"]
        title = (Path(app.srcdir).parent / "examples" / f"{name}.py").read_text().split("\n")[1]
        picture = f"gallery/images/sphx_glr_{name}_001.png"  # absent if examples are not run
        shown = title == found["title"] and (Path(app.srcdir) / picture).exists()
        return f"{found[0]}\n\n![{title}](/{picture})\n" if shown else found[0]

    link = r"^\[(?P<title>[^\]]+)\]\((?:\.\./)+examples/(?P<name>plot_\w+)\.py\)"
    return re.sub(rf"{link}(?:.|\n(?!\n))*", with_picture, text, flags=re.MULTILINE)


def link_gallery(app, docname, source):
    """Lead links to examples, which a code host shows as files, to their pages of the gallery."""
    text = show_pictures(app, source[0])
    text = re.sub(r"\]\((?:\.\./)+examples/(plot_\w+)\.py\)", r"](/gallery/\1.rst)", text)
    source[0] = re.sub(
        r"\]\((?:\.\./)+examples/GALLERY_HEADER\.rst\)", "](/gallery/index.rst)", text
    )


def setup(app):
    app.connect("autodoc-skip-member", skip_noise)
    app.connect("source-read", link_gallery)
