"""Every variable of a page's template is a member of its context, and every member of the context is shown."""

import typing
from types import UnionType

import msgspec
import pytest
from jinja2 import nodes

from present import present
from taximeter.control.dashboard.contexts import Frame, Page
from taximeter.control.dashboard.rendering import environment

PAGES = Page.__subclasses__()
IN_BASE = {"here", "view", "complete", "lag_seconds"}


def parsed(template):
    made = environment()
    return made.parse(present(made.loader).get_source(made, template)[0])


def names_read(template):
    """The names a template takes from outside itself."""
    tree = parsed(template)
    names = list(tree.find_all(nodes.Name))
    own = {each.name for each in names if each.ctx != "load"} | {each.name for each in tree.find_all(nodes.Macro)}
    own |= {each.target for each in tree.find_all(nodes.Import)} | {"loop"}
    return {each.name for each in names if each.ctx == "load"} - own - environment().globals.keys()


def kinds(hint):
    """The structs a hint may stand for; None: it may be something whose members are not declared."""
    if typing.get_origin(hint) in (typing.Union, UnionType):
        found = [kinds(each) for each in typing.get_args(hint) if each is not type(None)]
        return None if None in found else [kind for each in found for kind in each]
    return [hint] if isinstance(hint, type) and issubclass(hint, msgspec.Struct) else None


def member(kind, name):
    """The hint of a struct's member. Fails where it has none."""
    hints = typing.get_type_hints(kind)
    if name in hints:
        return hints[name]
    found = getattr(kind, name)
    return typing.get_type_hints(found.fget).get("return") if isinstance(found, property) else None


def check(node, hints):
    """The hint of `a.b.c`, each member of which is looked for."""
    if isinstance(node, nodes.Name):
        return hints.get(node.name) if node.ctx == "load" else None
    of = check(node.node, hints) if isinstance(node, nodes.Getattr) else None
    known = None if of is None else kinds(of)
    return member(known[0], node.attr) if known else None


def test_every_template_of_a_page_has_a_context():
    rest = {"base.html", "managing.html", "parts.html"}
    assert sorted(page.template for page in PAGES) == sorted({*environment().list_templates()} - rest)


def test_what_stands_around_every_page_is_given_to_every_page():
    assert names_read("base.html") == IN_BASE | set(Frame.__struct_fields__)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.__name__)
def test_a_template_shows_what_it_is_given_and_nothing_else(page):
    assert names_read(page.template) | IN_BASE == set(page.__struct_fields__)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.__name__)
def test_every_member_a_template_names_is_there(page):
    hints = typing.get_type_hints(page)
    names = [each for each in parsed(page.template).find_all(nodes.Name) if each.ctx != "load"]
    for own in names:
        hints.pop(own.name, None)  # a loop's or a block's own
    checked = [check(each, hints) for each in parsed(page.template).find_all(nodes.Getattr)]
    assert checked or page.template in ("login.html", "error.html", "request.html")
