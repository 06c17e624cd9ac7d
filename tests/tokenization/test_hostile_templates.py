"""Chat templates from strangers, through `pack`: none reaches Python or a file, and all of them end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizer_files import Oracle

import packcli
from packcli.errors import PackcliError
from packcli.tokenization.chat import sandbox

SECRET = "the secret of the machine"

ESCAPES = {
    "subclasses": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "globals of a function": "{{ raise_exception.__globals__['__builtins__']['open']('CANARY', 'w') }}",
    "globals of a closure": "{{ strftime_now.__globals__.sys.modules.os.system('touch CANARY') }}",
    "namespace": "{{ namespace.__init__.__globals__.__builtins__.__import__('os').system('touch CANARY') }}",
    "cycler": "{{ cycler.__init__.__globals__.os.popen('touch CANARY').read() }}",
    "lipsum": "{{ lipsum.__globals__.os.popen('touch CANARY').read() }}",
    "self": '{{ self.__init__.__globals__.__builtins__.exec(\'open("CANARY", "w")\') }}',
    "self by its slots": "{{ self._TemplateReference__context.eval_ctx.environment.loader }}",
    "attr": "{{ (messages|attr('__class__')|attr('__base__')).__subclasses__() }}",
    "map attribute": "{{ (messages|map(attribute='__class__')|list)[0].__base__.__subclasses__() }}",
    "format": "{{ '{0.__class__.__init__.__globals__}'.format(namespace) }}",
    "format kept (CVE-2024-56326)": "{% set f = '{0.__class__.__mro__}'.format %}{{ f(messages) }}",
    "format by attr (CVE-2025-27516)": "{{ ('{0.__class__.__mro__}'|attr('format'))(messages) }}",
    "format_map (CVE-2019-10906)": "{{ '{a.__class__.__mro__}'.format_map({'a': 1}) }}",
    "percent": "{{ '%(__class__)s' % messages[0] }}{{ messages.__reduce_ex__(2) }}",
    "include": "{% include 'SECRET' %}",
    "import": "{% import 'SECRET' as secret %}{{ secret }}",
    "extends": "{% extends 'SECRET' %}",
    "frame of a generator": "{{ (messages|map('upper')).gi_frame.f_back.f_globals }}",
    "frame of a loop": "{% for m in messages recursive %}{{ loop.__init__.__globals__ }}{% endfor %}",
    "code of a macro": "{% macro m() %}{% endmacro %}{{ m.__init__.__globals__ }}{{ m._func.__code__ }}",
    "changes the record": "{{ messages.append(messages[0]) }}",
    "changes a message": "{{ messages[0].update({'role': 'assistant'}) }}",
    "pollutes the namespace": "{% set n = namespace() %}{% set n.__class__ = 1 %}",
    "async": "{{ messages.ag_frame }}{{ messages.cr_frame.f_globals }}",
    "tag of another extension": "{% do messages.append(1) %}",
    "debug": "{% debug %}",
    "translation": "{% trans %}{{ messages }}{% endtrans %}",
}
"""Name -> payload. Nothing that one of them gives is ever packed: each ends in an error."""

ENDLESS = {
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
    "two macros": "{% macro a(n) %}{% if n %}{{ a(n - 1) }}{{ a(n - 1) }}{% endif %}{% endmacro %}{{ a(99) }}",
    "recursive loop": "{% for a in [[1]] recursive %}{{ loop([[a]]) }}{% endfor %}",
    "filters on filters": "{% for a in range(99999) %}{{ range(99999)|map('string')|join|length }}{% endfor %}",
}

GIANT = {
    "product": "{{ 'x' * 9999999999 }}",
    "product of a list": "{{ [messages] * 9999999999 }}",
    "power": "{{ 9 ** 999999999 }}",
    "range": "{{ range(9999999999)|list }}",
    "width": "{{ '%09999999999d' % 1 }}",
    "width of format": "{{ '{:>9999999999}'.format('x') }}",
    "nested width": "{{ '{:{}}'.format('x', 9999999999) }}",
    "center": "{{ 'x'|center(9999999999) }}",
    "ljust": "{{ 'x'.ljust(9999999999) }}",
    "expandtabs": "{{ '\\t'.expandtabs(9999999999) }}",
    "indent of JSON": "{{ [1]|tojson(indent=9999999999) }}",
    "replace": "{{ ('x' * 99999).replace('x', 'y' * 99999) }}",
    "join": "{{ ('x' * 99999).join(['y'] * 99999) }}",
    "join by filter": "{{ (['y'] * 99999)|join('x' * 99999) }}",
    "batch": "{{ [1]|batch(9999999999, 'x')|list }}",
    "slice": "{{ [1]|slice(9999999999)|list }}",
    "doubling": "{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
    "doubling a list": "{% set n = namespace(x=[1]) %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}",
}


@pytest.fixture
def inputs(tmp_path, monkeypatch):
    """A chat, a secret beside it, and the place to which payloads write."""
    monkeypatch.chdir(tmp_path)
    messages = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "there"}]
    Path("chats.jsonl").write_text(json.dumps({"messages": messages}) + "\n")
    Path("SECRET").write_text(SECRET)
    return tmp_path


def refusal(template):
    """What `pack` says to a template that it refuses or stops."""
    Path("evil.jinja").write_text(template)
    with pytest.raises(PackcliError) as caught:
        packcli.pack("chats.jsonl", "out", chat_template="evil.jinja", workers=1)
    assert caught.value.exit_code in (2, 4)
    message = caught.value.message
    assert any(why in message for why in ("template refuses it: ", "template was stopped: ", "unknown tag")), message
    return message


@pytest.mark.parametrize("payload", ESCAPES.values(), ids=ESCAPES)
def test_no_template_leaves_its_sandbox(inputs, payload):
    message = refusal(payload)
    assert SECRET not in message
    assert "<class" not in message, "shows what Python is made of"
    assert {path.name for path in inputs.iterdir()} <= {"chats.jsonl", "SECRET", "evil.jinja", "out"}
    assert not list(inputs.glob("out/**/*.arrow"))


@pytest.mark.parametrize("payload", ENDLESS.values(), ids=ENDLESS)
def test_every_template_ends(inputs, payload, monkeypatch):
    monkeypatch.setattr(sandbox, "MAX_SECONDS", 0.3)
    refusal(payload)


@pytest.mark.parametrize("payload", GIANT.values(), ids=GIANT)
def test_no_template_fills_the_memory(inputs, payload, monkeypatch):
    """Refused before the memory is asked for, or stopped while it grows."""
    monkeypatch.setattr(sandbox, "MAX_GROWTH", 1 << 27)
    refusal(payload)


def test_what_people_say_is_no_template(inputs):
    """Code in contents, names and roles is text."""
    said = "{{ ''.__class__ }}{% for a in range(3) %}{{ a }}{% endfor %}{# note #}"
    messages = [{"role": "user", "content": said}, {"role": "assistant", "content": said}]
    Path("chats.jsonl").write_text(json.dumps({"messages": messages}) + "\n")
    report = packcli.pack("chats.jsonl", "out", chat_template="chatml", workers=1, columns="compact")
    tokenizer = Oracle(Path(report.run["tokenizer_path"]))
    text = tokenizer.decode(packcli.load(report.output)[0]["input_ids"])
    assert text.count(said) == 2


def test_a_worker_under_a_memory_limit_says_so_and_lives(inputs):
    """As a real process with a hard limit: a message and an exit code, never a kill by the system."""
    Path("evil.jinja").write_text(GIANT["doubling a list"] + GIANT["doubling"] + GIANT["join"])
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, "pack", "chats.jsonl", "--chat-template", "evil.jinja", "-w", "1"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert done.returncode in (2, 4), done.stderr
    assert "template" in done.stderr
    assert "Traceback" not in done.stderr


LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
from packcli.cli import main
main()
"""
