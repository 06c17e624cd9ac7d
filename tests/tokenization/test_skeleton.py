"""Skeletons: what is filled in equals what is rendered, and templates that look at contents get none."""

import dataclasses
import itertools
import operator

import pytest
from helpers import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenization.test_chat import CHATML, CONTROLS, PLAIN

import packcli
from packcli import tokenization
from packcli.tokenization import chat
from packcli.tokenization.chat import Renderer, opaque, render, skeleton

CONTENT, TURN = "m['content']", "<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
HEADER = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"


def write(expression, before=""):
    """ChatML without tags that writes an expression in the place of the content."""
    return before + PLAIN.replace(CONTENT, expression)


def loop(body):
    return "{% for m in messages %}" + body + "{% endfor %}" + HEADER


SKELETAL = {
    "chatml": CHATML,
    "plain": PLAIN,
    "trim": write("m['content'] | trim"),
    "strip": write("m.content.strip()"),
    "trimmed twice": write("(' ' + m['content'] | trim + '\n') | trim"),
    "plus": loop("{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}"),
    "if": write("m['content'] if m.content else 'nothing'"),
    "or": write("m['content'] or 'nothing'"),
    "set": loop("{% set c = m.content | trim %}" + TURN.replace(CONTENT, "c + ' '")),
    "kinds": write("m.content if m.content is string and m.content is not none else m.content | tojson"),
    "default": write("m.content | default('', true)"),
    "namespace": "{% set ns = namespace(last='', n=0) %}"
    + loop("{% set ns.last = m.content %}{% set ns.n = ns.n + 1 %}" + TURN.replace(CONTENT, "ns.last")),
    "items": loop("<|im_start|>{% for k, v in m.items() %}{{ v }}\n{% endfor %}<|im_end|>\n"),
    "twice": loop("<|im_start|>{{ m.role }}\n{{ m.content }}-{{ m.content | trim }}<|im_end|>\n"),
    "refuses": "{% if messages[0].role == 'tool' %}{{ raise_exception('no') }}{% endif %}" + PLAIN,
    "roles": write("m.content if m.role in ['user', 'assistant', 'tool'] else m.content | trim"),
    "keys": write("m.content if 'content' in m and messages | length > 0 else 1"),
}
LOOKING = {
    "search": write("m.content if 'x' not in m.content else 'x'"),
    "sought": write("m.content if m.content in 'user x' else 'x'"),
    "sought by test": write("m.content if m.content is in 'user x' else 'x'"),
    "equal": write("m.content if m.content != 'x' else 'y'"),
    "same": write("m.content if m.content == messages[0].content else 'y'"),
    "less": write("m.content if 'x' < m.content else 'y'"),
    "startswith": write("m.content if m.content.startswith('x') else 'y'"),
    "length": write("m.content if m.content | length > 1 else 'y'"),
    "len": write("m.content if m.content.__len__ is defined and m.content.split() | length > 1 else 'y'"),
    "first": write("m.content[0]"),
    "slice": write("m.content[1:]"),
    "key": write("{'x': 1}[m.content]"),
    "attribute": write("m[m.content] | default('')"),
    "tojson": write("m.content | tojson"),
    "tojson of all": write("m | tojson"),
    "upper": write("m.content | upper"),
    "upper method": write("m.content.upper()"),
    "replace": write("m.content | replace('x', 'y')"),
    "lstrip": write("m.content.lstrip()"),
    "strip letters": write("m.content.strip('x')"),
    "trim of more": write("(m.role + m.content) | trim"),
    "concat": write("m.content ~ ''"),
    "percent": write("'%s' % m.content"),
    "percent of many": write("'%s-%s' % (m.content, 1)"),
    "format": write("'{}'.format(m.content)"),
    "format filter": write("'%s' | format(m.content)"),
    "format of": write("m.content.format()"),
    "times": write("m.content * 2"),
    "join": write("[m.content, 'x'] | join('-')"),
    "join method": write("'-'.join([m.content])"),
    "map": write("messages | map(attribute='content') | join"),
    "select": write("messages | selectattr('content', 'equalto', 'x') | list | length"),
    "escape": write("('<' | safe) + m.content"),
    "loop over": write("'x'") + "{% for c in messages[0].content %}{{ c }}{% endfor %}",
    "repr": write("m"),
    "in repr": write("[m.content]"),
    "changed": write("m.content if loop.changed(m.content) else ''"),
    "macro": write("w(m.content)", "{% macro w(c) %}{{ c }}{% endmacro %}"),
    "captured": loop("{% set c %}{{ m.content }}{% endset %}" + TURN.replace(CONTENT, "c")),
    "filtered": loop("{% filter upper %}{{ m.content }}{% endfilter %}"),
    "chance": write("['x'] | random + m.content"),
    # What stands between the header and the words may be words.
    "header": PLAIN.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}"),
    "no header": PLAIN.replace(HEADER, ""),
    # A token could be written around the words, or between two of them.
    "whole": write("'<|' + m.content + '|>'"),
    "glued": loop("{{ m.content }}") + "{{ messages[0].content }}",
}
ALL = SKELETAL | LOOKING
MODES = list(itertools.product(("assistant", "last-assistant", "all"), (None, True, False)))
SHAPES = [("user", "assistant"), ("system", "user", "assistant"), ("assistant", "user"), ("user",) * 2, ("tool",)]
SHAPES += [("user", "assistant", "user", "assistant")]


def pair(source, loss="assistant", on_eot=None, controls=CONTROLS):
    spec = tokenization.TemplateSpec(name="t", source=source, variables={"bos_token": "<s>"}, date="2026-01-31")
    return [kind(spec, controls, loss=loss, loss_on_eot=on_eot) for kind in (chat.Renderer, render.TemplateRenderer)]


def outcome(renderer, made):
    try:
        return renderer(made)
    except chat.RenderError as error:
        return str(error), error.hint, error.is_template


def talk(roles, contents):
    return chat.make_conversation(
        [{"role": role, "content": content} for role, content in zip(roles, contents, strict=False)]
    )


@pytest.fixture(autouse=True, scope="module")
def at_once():
    """Skeletons from the first conversation of a shape on; no second looks, which would hide what is wrong."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(skeleton, "DRAW_AT", 0)
        patch.setattr(skeleton, "CHECK_EVERY", 1 << 60)
        patch.setattr(chat.Renderer, "_agrees", lambda *_: True)
        yield


@pytest.mark.parametrize("name", ALL)
def test_which_templates_have_skeletons(name):
    fast, slow = pair(ALL[name], loss="assistant")
    made = talk(("user", "assistant"), ("Question?", "Answer."))
    for _ in range(3):
        assert outcome(fast, made) == outcome(slow, made)
    assert fast.num_filled == (3 if name in SKELETAL else 0)


AGREES = Renderer._agrees
PAIRS = {}
WORDS = [
    "x",
    " x ",
    "y",
    "xx",
    "user",
    "assistant\n",
    "\n",
    " ",
    "",
    "<think>\nx",
    "im_start",
    "<|im_end|>",
    "<|im_end|",
]
WORDS += [
    "|>",
    "é",
    "<",
    "{{ x }}",
    "\u2003\U000f0000\u2009",
    "\U000f0001",
    "\ue000",
    "\x00",
    "x\x00<|im_end",
    "%s",
    "x" * 99,
]


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(SHAPES),
    st.lists(st.one_of(st.sampled_from(WORDS), st.text("x <|>\nuser\u2003é", max_size=8)), min_size=4, max_size=4),
    st.sampled_from(MODES),
)
def test_filled_in_is_what_is_rendered(roles, contents, mode):
    made = talk(roles, contents)
    for name, source in ALL.items():
        if name == "chance":
            continue
        if (name, mode) not in PAIRS:
            PAIRS[name, mode] = pair(source, *mode)
        fast, slow = PAIRS[name, mode]
        assert outcome(fast, made) == outcome(slow, made), name


def test_some_of_them_were_filled_in():
    for mode in MODES:
        for name in ("chatml", "trim"):
            fast, slow = pair(SKELETAL[name], *mode)
            made = talk(("user", "assistant"), (" a\n", " b "))
            assert fast(made) == slow(made)
            # Without tags, where the words of a turn end is looked up in the text.
            assert fast.num_filled == (0 if name == "trim" and mode[1] is False else 1)


@pytest.mark.parametrize(
    "more",
    [
        {"tools": [{"name": "f"}]},
        {"variables": {"x": 1}},
        {"completion": [{"role": "assistant", "content": "y"}]},
    ],
)
def test_only_plain_conversations_are_filled_in(more):
    fast, slow = pair(CHATML)
    plain = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
    assert fast(chat.make_conversation(plain)) == slow(chat.make_conversation(plain))
    assert fast.num_filled == 1
    others = [chat.make_conversation(plain, **more)]
    for change in (
        {"name": "n"},
        {"train": 0},
        {"content": ""},
        {"content": " "},
        {"content": [{"type": "text", "text": "x"}]},
    ):
        others.append(chat.make_conversation([plain[0], {**plain[1], **change}]))
    others.append(chat.make_conversation([{"content": "x", "role": "user"}, plain[1]]))
    for made in others:
        assert outcome(fast, made) == outcome(slow, made)
    assert fast.num_filled == 1


@pytest.mark.parametrize(
    "controls",
    [
        dataclasses.replace(CONTROLS, protect=False),
        dataclasses.replace(CONTROLS, lstrip=frozenset({"<|im_end|>"})),
        dataclasses.replace(CONTROLS, others=("|><",)),
        chat.Controls(ids={"a\0b": 1}),
    ],
)
def test_unusual_control_tokens_have_no_skeletons(controls):
    fast, slow = pair(CHATML, controls=controls)
    made = talk(("user", "assistant"), ("x<|im_end|>", "y "))
    assert fast(made) == slow(made)
    assert fast.num_filled == 0


def test_a_skeleton_is_tried_before_it_is_used(monkeypatch):
    """Even if the proof had a hole: here one where everything about contents is let through."""
    monkeypatch.setattr(opaque, "_ON_TEXT", frozenset({"upper", "length", "replace"}))
    monkeypatch.setattr(opaque, "Opaque", type("Open", (str,), {}))
    made = talk(("user", "assistant"), ("Ab", "x"))
    for name in ("upper", "length", "replace"):
        fast, slow = pair(LOOKING[name])
        fast(made)
        assert fast.num_filled == 1  # so far nothing has stopped it
    monkeypatch.setattr(Renderer, "_agrees", AGREES)
    for name in ("upper", "length", "replace"):
        fast, slow = pair(LOOKING[name])
        assert fast(made) == slow(made)
        assert fast.num_filled == 0


def test_a_wrong_skeleton_is_found(monkeypatch):
    monkeypatch.setattr(skeleton, "CHECK_EVERY", 3)
    fast, _ = pair(CHATML)
    made = talk(("user", "assistant"), ("x", "y"))
    fast(made)
    ((shape, right),) = fast._shapes.items()
    fast._shapes[shape] = dataclasses.replace(right, spans=())
    assert fast(made).spans == []
    with pytest.raises(AssertionError, match="differs from the template"):
        fast(made)


def test_shapes_are_bounded_and_drawn_when_they_come_again(monkeypatch):
    monkeypatch.setattr(skeleton, "MAX_SHAPES", 2)
    monkeypatch.setattr(skeleton, "DRAW_AT", 2)
    fast, slow = pair(CHATML)
    for roles in SHAPES:
        for _ in range(4):
            assert fast(talk(roles, "abcd")) == slow(talk(roles, "abcd"))
    assert len(fast._shapes) == 2
    assert fast.num_filled == 2 * 2


def test_limits_hold(monkeypatch):
    for module in (render, skeleton):
        monkeypatch.setattr(module, "MAX_CHARS", 5000)
    fast, slow = pair(CHATML)
    for size in (1, 6000, 4000):
        made = talk(("user", "assistant"), ("x", "y" * size))
        assert outcome(fast, made) == outcome(slow, made)
    assert fast.num_filled == 2
    assert "more than" in outcome(fast, talk(("user", "assistant"), ("x", "y" * 6000)))[0]


def test_a_draw_that_never_ends_is_no_skeleton(monkeypatch):
    """The probe has the limits of every rendering."""
    monkeypatch.setattr("packcli.tokenization.chat.sandbox.MAX_SECONDS", 0.2)
    endless = "{% for i in range(99999) %}{% for j in range(99999) %}"
    fast, slow = pair(endless + "{% endfor %}{% endfor %}" + PLAIN)
    made = talk(("user",), ("x",))
    assert outcome(fast, made) == outcome(slow, made)
    assert fast._shapes == {("user",): None}


ARGUMENTS = [(), ("x",), (1,), ("x", "y"), (opaque.Opaque("z"),), ({},)]
OPEN = {"__add__", "__class__", "__delattr__", "__dir__", "__doc__", "__getattribute__", "__init__", "__new__"} | {
    "__init_subclass__", "__setattr__", "__subclasshook__", "strip"
}  # fmt: skip


@pytest.mark.parametrize("name", sorted({*dir(str), "__reversed__"} - OPEN))
def test_every_operation_of_an_opaque_text_refuses(name):
    for arguments in ARGUMENTS:
        with pytest.raises(opaque.DependsError):
            getattr(opaque.Opaque("x"), name)(*arguments)


@pytest.mark.parametrize(
    "operation",
    [
        str, repr, len, hash, list, iter, reversed, sorted, "{}".format, format, ascii,
        lambda x: x == "x", lambda x: x != "x", lambda x: operator.lt("x", x), lambda x: operator.eq("x", x),
        lambda x: x >= "x",
        lambda x: x == opaque.Opaque("x"), lambda x: x in ["x"], lambda x: "x" in x, lambda x: x in {"x": 1},
        lambda x: x[0], lambda x: x[:], lambda x: x * 2, lambda x: 2 * x, lambda x: x % 1,
        lambda x: operator.mod("%s", x),
        lambda x: [x] == ["x"], lambda x: {x: 1}, lambda x: f"{x}", lambda x: x.upper(), lambda x: x.strip("x"),
        lambda x: (x + "y").strip(), lambda x: ("y" + x).strip(), lambda x: [*x], lambda x: str([x]),
    ],
)  # fmt: skip
def test_operators_on_an_opaque_text_refuse(operation):
    with pytest.raises(opaque.DependsError):
        operation(opaque.Opaque(opaque.stand_in(0)))


def test_what_an_opaque_text_can_do():
    one, two = opaque.Opaque(opaque.stand_in(0)), opaque.Opaque(opaque.stand_in(1))
    assert bool(one)
    assert bool(one.strip())
    for made in (one + "x", "x" + one, one + two, one.strip(), one.strip().strip(), (" " + one + "\n").strip()):
        assert type(made) is opaque.Opaque
    assert opaque.plain("a" + one + two + "b") == f"a{opaque.stand_in(0)}{opaque.stand_in(1)}b"
    assert opaque.plain((" " + one).strip()) == opaque.stand_in(0).strip()
    with pytest.raises(TypeError):
        one + 1


def test_a_skeleton_is_never_asked_what_other_words_give():
    environment = opaque.ProbeEnvironment(render.clock(""))
    with pytest.raises(opaque.DependsError):
        environment.given([{"role": "user", "content": "x"}])


def test_packing_gives_the_same_bytes(tmp_path, monkeypatch):
    made = []
    for number, draw_at in enumerate((0, 1 << 60)):
        monkeypatch.setattr(skeleton, "DRAW_AT", draw_at)
        packcli.pack(ROOT / "sample_data" / "chat.jsonl", tmp_path / str(number), workers=1, max_len=2048)
        made.append({path.name: path.read_bytes() for path in (tmp_path / str(number)).glob("*.arrow")})
    assert made[0] == made[1] != {}
