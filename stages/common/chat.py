"""How a conversation becomes one text: the chat template of a tokenizer, or the plain one.

Templates are Jinja's, as transformers has them: they see `messages` (a list of {role, content}),
`add_generation_prompt`, `bos_token` and `eos_token`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

from stages.errors import UserError

ROLES = ("system", "user", "assistant")
PLAIN = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '### Instruction:\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ '### Response:\n' }}{% endif %}"
    "{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}"
)
"""For bases without one, after Taori et al., "Stanford Alpaca", 2023."""


def of_base(folder: Path) -> dict[str, Any]:
    """How the base in a folder is spoken to: its chat template, the tokens that begin and end a
    text, whether it is a causal language model; None for what it does not say."""
    named: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        named |= _object(folder / name)
    found: dict[str, Any] = {"template": _template(folder, named)}
    for role in ("bos_token", "eos_token"):
        token = named.get(role)
        found[role] = token.get("content") if isinstance(token, dict) else token
    architectures = _object(folder / "config.json").get("architectures") or [""]
    found["causal"] = str(architectures[0]).endswith(("ForCausalLM", "LMHeadModel"))
    return found


def _template(folder: Path, named: Mapping[str, Any]) -> str | None:
    """The one called default, where there are several."""
    file = folder / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    value = (_object(folder / "chat_template.json") or named).get("chat_template")
    if isinstance(value, list):
        by_name = {one.get("name"): one.get("template") for one in value if isinstance(one, dict)}
        value = by_name.get("default")
    return value if isinstance(value, str) else None


def _object(path: Path) -> dict[str, Any]:
    """The object in a JSON file; none where there is no such file."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


_LINE_ENDS = re.compile("\r\n?")


def clean(text: str) -> str:
    """Without white space at the ends, line ends as line feeds, no NUL or stray byte order mark:
    what stands within a text is part of what is learnt."""
    return _LINE_ENDS.sub("\n", text.replace("\0", "").replace("\ufeff", "")).strip()


Messages = Sequence[Mapping[str, str]]


class TemplateRefusedError(UserError):
    """The template is none, or refuses the messages; `reason` says why."""

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(f"chat template of the base: {reason}; {advice}")
        self.reason = f"the chat template refuses it: {reason}"


def render(
    template: str, messages: Messages, special: Mapping[str, str | None], *, prompting: bool
) -> str:
    """The text of a conversation, as transformers' `apply_chat_template` gives it.

    Args:
        special: `bos_token` and `eos_token`.
        prompting: does the text end where the assistant's next message begins?

    Raises:
        TemplateRefusedError: the template is none, or refuses the messages.
    """
    from jinja2 import TemplateError

    tokens = {name: special.get(name) or "" for name in ("bos_token", "eos_token")}
    try:
        text: str = _compiled(template).render(
            messages=messages, add_generation_prompt=prompting, tools=None, documents=None, **tokens
        )
        return text
    except (TemplateError, TypeError) as error:
        reason = " ".join(str(error).split())[:200]
        advice = "write tokenize.chat_template: plain in params.yaml, or mend the row's messages"
        if "'strftime_now' is undefined" in reason:
            reason = "writes the day's date (strftime_now), so that no result could be repeated"
            advice = "write tokenize.chat_template: plain in params.yaml"
        raise TemplateRefusedError(reason, advice) from None


@cache
def _compiled(template: str) -> Any:
    from jinja2 import TemplateError, nodes
    from jinja2.ext import Extension
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """The block that transformers' templates put around what the assistant says: its body."""

        tags = {"generation"}  # noqa: RUF012  the library's own attribute

        def parse(self, parser: Any) -> Any:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            call = self.call_method("_body")
            return nodes.CallBlock(call, [], [], body).set_lineno(line)

        def _body(self, caller: Any) -> Any:
            return caller()

    def refuse(message: str) -> NoReturn:
        raise TemplateError(message)

    def written(value: Any, ensure_ascii: bool = False, indent: int | None = None) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", Generation]
    )
    environment.filters["tojson"] = written
    environment.globals["raise_exception"] = refuse
    return environment.from_string(template)


def answer(
    template: str, messages: Messages, response: str, special: Mapping[str, str | None]
) -> str:
    """What follows a prompt up to the end of its response: the response, and what a template puts
    before it, such as a space."""
    if not response:  # of a prompt that is yet to be answered
        return ""
    prompt = render(template, messages, special, prompting=True)
    whole = render(
        template,
        [*messages, {"role": "assistant", "content": response}],
        special,
        prompting=False,
    )
    rest = whole[len(prompt) :] if whole.startswith(prompt) else ""
    before, found, _ = rest.partition(response)
    return f"{before}{response}" if found and not before.strip() else response
