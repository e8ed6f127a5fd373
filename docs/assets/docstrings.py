"""Docstrings of genmap_jax as Markdown: the lines `name: what it is` below a summary become a list."""

import re

import griffe

FIELD = re.compile(r"^(\w+(?:, \w+)*|Raises \w+(?:,? (?:or|and) \w+)*|Returns?)(: )(?=\S)", re.MULTILINE)


class Fields(griffe.Extension):
    """Rewrites docstrings of functions and classes after they are read; modules are prose and tables already."""

    def on_object(self, *, obj, **kwargs):
        if obj.docstring and not obj.is_module and not obj.is_alias:
            obj.docstring.value = FIELD.sub(r"\n* `\1`: ", obj.docstring.value)
