"""A model to talk with: the one on this machine, or any endpoint that speaks OpenAI's chat-completions protocol."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from labkit.errors import PlainError

__all__ = ["EndpointFailed", "Reply", "chat_model"]

Messages = Sequence[dict[str, Any]]
_AT_ONCE = 4  # requests that run together at an endpoint
_CALL = re.compile(r"<tool_call>(.*?)(?:</tool_call>|$)", re.DOTALL)
_TOOLS = (
    "You can call these functions:\n<tools>{tools}</tools>\n"
    'To call one, answer <tool_call>{{"name": ..., "arguments": {{...}}}}</tool_call>'
)


class EndpointFailed(PlainError):
    """An endpoint that is missing, slow, or answers what isn't an answer. The message says what to do."""


@dataclass(frozen=True)
class Reply:
    """What a model answered.

    text:              str, without the stop text, "" where it only called tools
    tool_calls:        a tuple of {"id": str, "name": str, "arguments": str}; the arguments are the JSON that the model
                       wrote, unread: check it before you use it
    prompt_tokens:     int, tokens that were read, the chat template's among them
    completion_tokens: int, tokens that were written
    """

    text: str
    tool_calls: tuple[dict[str, str], ...] = ()
    prompt_tokens: int = 0
    completion_tokens: int = 0


def chat_model(local: bool = False, timeout: float = 60.0) -> Callable[..., Reply]:
    """A model to talk with: `llm = chat_model(); llm([{"role": "user", "content": "Hello!"}]).text`.

    `llm(messages, max_new_tokens=64, stop=(), tools=None, temperature=0.0, on_text=None)` gives a `Reply`.

    messages:    list of {"role", "content"}, as OpenAI's protocol has them; "tool" messages and "tool_calls" as well
    stop:        texts; the answer ends before the first of them
    tools:       functions that may be asked for, in OpenAI's form (see tool_schema); nothing is run here
    temperature: 0.0 takes the likeliest token each time, else tokens are drawn from torch's generator
    on_text:     called with each piece of the answer as it comes (streaming)

    `llm.many(list of messages, …)` gives one Reply each, in order: in padded batches that read a common beginning
    once, or several requests at a time. `llm.name` says who answers.

    Who answers is SmolLM2-135M-Instruct on this machine in bfloat16 (see `labkit.smollm`), unless OPENAI_BASE_URL is
    set (http://localhost:8000/v1, say): then the same calls go there, for the model OPENAI_MODEL, with OPENAI_API_KEY
    if there is one. `local` asks for the model on this machine in any case. timeout: seconds without any sign from the
    endpoint. Raises ModelMissing, EndpointFailed.
    """
    address = "" if local else os.environ.get("OPENAI_BASE_URL", "").strip()
    if not address:
        return _Local()
    name = os.environ.get("OPENAI_MODEL", "").strip()
    if not name:
        raise EndpointFailed("OPENAI_BASE_URL is set, but not OPENAI_MODEL: say which of its models is to answer.")
    return _Endpoint(address.rstrip("/"), name, os.environ.get("OPENAI_API_KEY", "").strip(), timeout)


class _Local:
    """The model on this machine."""

    def __init__(self):
        import torch

        from labkit.models import smollm

        self.name = "SmolLM2-135M-Instruct, on this machine"
        self.model, self.tokenizer = smollm(torch.bfloat16)
        self._end = {self.tokenizer.eos_token_id}

    def __call__(
        self,
        messages: Messages,
        max_new_tokens: int = 64,
        stop: Sequence[str] | str = (),
        tools: Sequence[dict] | None = None,
        temperature: float = 0.0,
        on_text: Callable[[str], Any] | None = None,
    ) -> Reply:
        return self._answered([messages], max_new_tokens, _listed(stop), tools, temperature, on_text)[0]

    def many(
        self,
        list_of_messages: Sequence[Messages],
        max_new_tokens: int = 64,
        stop: Sequence[str] | str = (),
        tools: Sequence[dict] | None = None,
        temperature: float = 0.0,
        batch: int = 16,
    ) -> list[Reply]:
        """One Reply for each conversation, `batch` of them at a time, those of like length together."""
        order = sorted(range(len(list_of_messages)), key=lambda i: len(str(list_of_messages[i])))
        replies: dict[int, Reply] = {}
        for start in range(0, len(order), batch):
            chosen = order[start : start + batch]
            some = [list_of_messages[i] for i in chosen]
            found = self._answered(some, max_new_tokens, _listed(stop), tools, temperature, None)
            replies.update(zip(chosen, found, strict=True))
        return [replies[i] for i in range(len(order))]

    def rendered(self, messages: Messages, tools: Sequence[dict] | None = None) -> str:
        """The text that the model goes on with. Its template knows no tools: they are told in the system message."""
        plain = [{"role": m["role"], "content": _content(m)} for m in messages]
        if tools:
            told = _TOOLS.format(tools=json.dumps([tool.get("function", tool) for tool in tools], ensure_ascii=False))
            if plain and plain[0]["role"] == "system":
                plain[0] = {"role": "system", "content": f"{plain[0]['content']}\n{told}".strip()}
            else:
                plain.insert(0, {"role": "system", "content": told})
        return self.tokenizer.apply_chat_template(plain, tokenize=False, add_generation_prompt=True)

    def _answered(self, chats, steps, stop, tools, temperature, on_text) -> list[Reply]:
        rows = [self.tokenizer(self.rendered(chat, tools)).input_ids for chat in chats]
        written = self._written(rows, steps, stop, temperature, on_text)
        replies = []
        for row, ids in zip(rows, written, strict=True):
            text, _ = _cut(self.tokenizer.decode([i for i in ids if i not in self._end]), stop)
            calls = _calls_in(text) if tools else ()
            text = _CALL.sub("", text).strip() if calls else text
            replies.append(Reply(text, calls, len(row), len(ids)))
        return replies

    def _written(self, rows: list[list[int]], steps, stop, temperature, on_text) -> list[list[int]]:
        """What the model writes after each row of tokens. The rows' common beginning is read once."""
        import torch
        from transformers import DynamicCache

        with torch.inference_mode():
            shared, cache = _common(rows), DynamicCache()
            if len(rows) > 1 and shared:
                self.model(torch.tensor([rows[0][:shared]]), past_key_values=cache, logits_to_keep=1)
                cache.batch_repeat_interleave(len(rows))
            else:
                shared = 0
            longest = max(map(len, rows)) - shared
            pad = next(iter(self._end))
            read = torch.tensor([[pad] * (longest + shared - len(row)) + row[shared:] for row in rows])
            mask = torch.tensor([[1] * shared + [0] * (longest + shared - len(row)) + [1] * (len(row) - shared)
                                 for row in rows])  # fmt: skip
            written: list[list[int]] = [[] for _ in rows]
            alive, told = [True] * len(rows), ""
            for _ in range(steps):
                places = (mask.cumsum(1) - 1).clamp(min=0)[:, -read.shape[1] :]
                out = self.model(
                    read, past_key_values=cache, attention_mask=mask, position_ids=places, logits_to_keep=1
                )
                scores = out.logits[:, -1].float()
                if temperature:
                    chosen = torch.multinomial((scores / temperature).softmax(-1), 1)[:, 0].tolist()
                else:
                    chosen = scores.argmax(-1).tolist()
                for i, token in enumerate(chosen):
                    if alive[i]:
                        written[i].append(token)
                        ended = token in self._end
                        alive[i] = not (ended or stop and _cut(self.tokenizer.decode(written[i]), stop)[1])
                if on_text is not None:
                    told = self._tell(written[0], stop, told, on_text, last=not alive[0])
                if not any(alive):
                    break
                read = torch.tensor(chosen)[:, None]
                mask = torch.cat([mask, torch.ones(len(rows), 1, dtype=mask.dtype)], dim=1)
            if on_text is not None and alive[0]:
                self._tell(written[0], stop, told, on_text, last=True)
        return written

    def _tell(self, ids, stop, told: str, on_text, last: bool) -> str:
        """Hand on what is new. What may be the beginning of a stop text, or half a letter, waits."""
        text, _ = _cut(self.tokenizer.decode([i for i in ids if i not in self._end]), stop)
        if not last:
            text = text.rstrip("\ufffd")
            text = text[: len(text) - max((_overlap(text, each) for each in stop), default=0)]
        if len(text) > len(told):
            on_text(text[len(told) :])
            return text
        return told


class _Endpoint:
    """A model behind OpenAI's chat-completions protocol."""

    def __init__(self, address: str, name: str, key: str, timeout: float):
        self.name, self.address, self._timeout = name, address, timeout
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    def __call__(
        self,
        messages: Messages,
        max_new_tokens: int = 64,
        stop: Sequence[str] | str = (),
        tools: Sequence[dict] | None = None,
        temperature: float = 0.0,
        on_text: Callable[[str], Any] | None = None,
    ) -> Reply:
        asked: dict[str, Any] = {
            "model": self.name,
            "messages": list(messages),
            "max_tokens": max_new_tokens,
            "temperature": temperature,
        }
        if stop:
            asked["stop"] = _listed(stop)
        if tools:
            asked["tools"] = list(tools)
        if on_text is not None:
            asked |= {"stream": True, "stream_options": {"include_usage": True}}
        try:
            return self._asked(asked, on_text)
        except EndpointFailed:
            raise
        except (KeyError, IndexError, TypeError, AttributeError, ValueError):
            what = "what came back is no chat completion. Does OPENAI_BASE_URL end as its documentation says (/v1)?"
            raise self._failed(what) from None

    def many(self, list_of_messages: Sequence[Messages], *args, **kwargs) -> list[Reply]:
        """One Reply for each conversation, several requests at a time."""
        kwargs.pop("batch", None)
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return list(pool.map(lambda messages: self(messages, *args, **kwargs), list_of_messages))

    def _asked(self, asked: dict, on_text) -> Reply:
        import httpx

        url = f"{self.address}/chat/completions"
        try:
            with (
                httpx.Client(timeout=self._timeout, headers=self._headers) as client,
                client.stream("POST", url, json=asked) as response,
            ):
                if response.status_code != 200:
                    response.read()
                    raise self._failed(_reason(response))
                if on_text is None:
                    response.read()
                    return _whole(response.json())
                return _streamed(response.iter_lines(), on_text)
        except httpx.TimeoutException:
            raise self._failed(f"there was no sign of it for {self._timeout:g} seconds.") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            told = str(error) or type(error).__name__
            raise self._failed(f"it can't be reached ({told}). Is OPENAI_BASE_URL right, is it running?") from None

    def _failed(self, why: str) -> EndpointFailed:
        return EndpointFailed(f"The endpoint {self.address} did not answer: {why}")


def _reason(response) -> str:
    """What an answer that isn't one says, in a line."""
    try:
        said = response.json()["error"]
        said = said["message"] if isinstance(said, dict) else said
    except (ValueError, KeyError, TypeError):
        said = response.text
    said = " ".join(str(said).split())[:200]
    advice = {401: " Is OPENAI_API_KEY right?", 404: " Are OPENAI_BASE_URL and OPENAI_MODEL right?"}
    return f"HTTP {response.status_code}{f', {said!r}' if said else ''}.{advice.get(response.status_code, '')}"


def _whole(content: dict) -> Reply:
    message, usage = content["choices"][0]["message"], content.get("usage") or {}
    calls = tuple(
        {"id": call.get("id") or "", "name": call["function"]["name"], "arguments": call["function"]["arguments"]}
        for call in message.get("tool_calls") or ()
    )
    return Reply(message.get("content") or "", calls, *_counts(usage))


def _streamed(lines, on_text: Callable[[str], Any]) -> Reply:
    """A Reply out of server-sent events. A tool call comes in pieces, which carry the call's number."""
    text, calls, usage, ended = "", {}, {}, False
    for line in lines:
        if not line.startswith("data:"):
            continue
        data = line[5:].strip()
        if data == "[DONE]":
            ended = True
            break
        event = json.loads(data)
        if "error" in event:
            raise ValueError("an error amid the stream")
        usage = event.get("usage") or usage
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or {}
            ended = ended or bool(choice.get("finish_reason"))
            if piece := delta.get("content"):
                text += piece
                on_text(piece)
            for part in delta.get("tool_calls") or ():
                call = calls.setdefault(part.get("index", 0), {"id": "", "name": "", "arguments": ""})
                function = part.get("function") or {}
                call["id"] = part.get("id") or call["id"]
                call["name"] += function.get("name") or ""
                call["arguments"] += function.get("arguments") or ""
    if not ended:
        raise ValueError("the stream broke off")
    return Reply(text, tuple(calls[i] for i in sorted(calls)), *_counts(usage))


def _counts(usage: dict) -> tuple[int, int]:
    return int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)


def _content(message: dict[str, Any]) -> str:
    """What a message says as a text; calls are written as this model is asked to write them."""
    calls = [
        json.dumps({"name": call["function"]["name"], "arguments": _read(call["function"]["arguments"])})
        for call in message.get("tool_calls") or ()
    ]
    return "\n".join([*filter(None, [message.get("content")]), *(f"<tool_call>{call}</tool_call>" for call in calls)])


def _read(arguments: Any) -> Any:
    try:
        return json.loads(arguments) if isinstance(arguments, str) else arguments
    except ValueError:
        return arguments


def _calls_in(text: str) -> tuple[dict[str, str], ...]:
    """The calls that stand in a text, read as data; what isn't JSON is none."""
    found = []
    for part in _CALL.findall(text):
        value = _read(part.strip())
        for call in value if isinstance(value, list) else [value]:
            if isinstance(call, dict) and isinstance(call.get("name"), str):
                arguments = json.dumps(call.get("arguments", {}), ensure_ascii=False)
                found.append({"id": f"call_{len(found)}", "name": call["name"], "arguments": arguments})
    return tuple(found)


def _listed(stop: Sequence[str] | str) -> list[str]:
    return [text for text in ([stop] if isinstance(stop, str) else stop) if text]


def _cut(text: str, stop: Sequence[str]) -> tuple[str, bool]:
    """The text up to the first stop text, and whether there is one."""
    at = min((text.find(each) for each in stop if each in text), default=-1)
    return (text, False) if at < 0 else (text[:at], True)


def _overlap(text: str, stop: str) -> int:
    """How many letters at the end of the text may be the beginning of the stop text."""
    return next((n for n in range(min(len(text), len(stop)), 0, -1) if text.endswith(stop[:n])), 0)


def _common(rows: Sequence[Sequence[int]]) -> int:
    """How many tokens all rows begin with; each keeps one of its own at least, which is read for its scores."""
    most = min(map(len, rows)) - 1
    return next((i for i in range(most) if len({row[i] for row in rows}) > 1), most)
