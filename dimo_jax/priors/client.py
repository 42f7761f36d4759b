"""Talks to a language model at any endpoint of the OpenAI chat-completions kind; answers are JSON of a known schema."""

from __future__ import annotations

import base64
import io
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from dimo_jax.core.errors import UserError
from dimo_jax.priors.failures import Failure

EXTRA = "pip install 'dimo_jax[distill]'"
OFFICIAL = "https://api.openai.com/v1"
FORMATS = ("json_schema", "json_object", "text")
Part = dict[str, Any]  # of a message's content


@dataclass(frozen=True)
class Endpoint:
    """An endpoint and how to ask it. The key itself is in nothing that is printed, compared or written."""

    client: Any
    model: str
    base_url: str
    secrets: tuple[str, ...]
    temperature: float
    max_tokens: int
    response_format: str
    num_repairs: int

    def __repr__(self) -> str:
        return f"Endpoint({self.model!r} at {self.base_url})"


def open_endpoint(
    *,
    model: str = "gpt-4o",
    base_url: str = "",
    key_variable: str = "OPENAI_API_KEY",
    timeout: float = 120.0,
    num_retries: int = 5,
    num_repairs: int = 2,
    temperature: float = 1.0,
    max_tokens: int = 0,
    response_format: str = "json_object",
) -> Endpoint:
    """An endpoint through the `openai` client.

    Args:
      model: its name there.
      base_url: with the path, such as http://localhost:8000/v1; "" takes the environment's OPENAI_BASE_URL, or
        OpenAI's own.
      key_variable: the environment's variable that holds the key. With a base_url of one's own it may be unset.
      timeout: seconds of one request.
      num_retries: of a request that got no answer, 408, 409, 429 or 5xx; the client waits between them, at 429 as long
        as the `retry-after` header says, up to a minute.
      num_repairs: of an answer that is not what was asked for: it is sent back with what is wrong with it.
      temperature: of the answers.
      max_tokens: of an answer; 0 leaves it to the endpoint.
      response_format: "json_schema", "json_object", or "text" for endpoints that know neither.

    Raises:
      UserError: the client is not installed, there is no key, or an option is out of range.
    """
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", key_variable) or key_variable.startswith("sk_"):
        # What stands there may be the key itself, so it is not repeated.
        raise UserError("config.client.key_variable: found no name of an environment variable, expected e.g. "
                        "'OPENAI_API_KEY' (the key itself belongs into that variable)")  # fmt: skip
    if response_format not in FORMATS:
        raise UserError(
            f"config.client.response_format: found {response_format!r}, expected one of {', '.join(FORMATS)}"
        )
    url = base_url or os.environ.get("OPENAI_BASE_URL") or OFFICIAL
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc or parts.query:
        raise UserError("config.client.base_url: found something else than http(s)://HOST[:PORT]/PATH without user, "
                        "password and query, expected e.g. http://localhost:8000/v1")  # fmt: skip
    key = os.environ.get(key_variable, "").strip()
    if not key and url == OFFICIAL:
        raise UserError(
            f"config.client: the environment has no {key_variable}, expected a key in it, a config.client.base_url of "
            "your own, or, without a language model, --prompts=FILE --config.score.fn="
        )
    openai = import_openai()
    client = openai.OpenAI(api_key=key or "none", base_url=url, timeout=timeout, max_retries=num_retries)
    secrets = (key,) if key else ()
    return Endpoint(client, model, url, secrets, temperature, max_tokens, response_format, num_repairs)


def import_openai() -> Any:
    """The client's module.

    Raises:
      UserError: it is not installed.
    """
    try:
        import openai
    except ImportError as error:
        raise UserError(f"distill: package openai not found, expected it installed ({EXTRA})") from error
    return openai


def redact(text: str, secrets: Sequence[str]) -> str:
    """The text without the secrets, on one line."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return " ".join(text.split())


def picture_part(image: np.ndarray) -> Part:
    """A picture [H,W,3] uint8 as a part of a message: a PNG inside the request."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image)).save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}}


def text_part(text: str) -> Part:
    """A text as a part of a message."""
    return {"type": "text", "text": text}


def ask(endpoint: Endpoint, system: str, parts: Sequence[Part], *, schema: Mapping[str, Any], name: str) -> Any:
    """Asks for JSON of a schema.

    Args:
      endpoint: from `open_endpoint`.
      system: the instructions; the schema is added to them.
      parts: the question.
      schema: JSON schema of an object.
      name: of the schema, for endpoints that want one.

    Returns:
      The value, which fits the schema.

    Raises:
      Failure: no answer (fatal), a refusal, or one that does not fit after all repairs.
    """
    system = f"{system}\n\nAnswer with one JSON object and nothing else. Its JSON schema:\n{json.dumps(schema)}"
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": system},
        {"role": "user", "content": list(parts)},
    ]
    wrong = ""
    for _ in range(1 + endpoint.num_repairs):
        answer = _complete(endpoint, messages, schema, name)
        try:
            return check(read_json(answer), schema)
        except ValueError as error:
            wrong = redact(str(error), endpoint.secrets)[:300]
        messages += [
            {"role": "assistant", "content": answer},
            {"role": "user", "content": f"That is not what I asked for: {wrong}. Send the whole JSON object again."},
        ]
    raise Failure(
        f"{endpoint.model} gave no JSON of the asked kind in {1 + endpoint.num_repairs} attempts ({wrong})",
        suggestion="expected a model that keeps to a schema, or config.client.response_format='json_schema'",
    )


def _complete(endpoint: Endpoint, messages: Sequence[Mapping[str, Any]], schema: Any, name: str) -> str:
    """One request: the answer's text."""
    openai = import_openai()
    options: dict[str, Any] = {"max_completion_tokens": endpoint.max_tokens} if endpoint.max_tokens else {}
    if endpoint.response_format == "json_object":
        options["response_format"] = {"type": "json_object"}
    elif endpoint.response_format == "json_schema":
        options["response_format"] = {"type": "json_schema", "json_schema": {"name": name, "schema": schema}}
    try:
        completion = endpoint.client.chat.completions.create(
            model=endpoint.model,
            messages=messages,
            temperature=endpoint.temperature,
            **options,
        )
        choice = completion.choices[0]
        refusal, content = getattr(choice.message, "refusal", None), choice.message.content or ""
        filtered = getattr(choice, "finish_reason", None) == "content_filter"
    except openai.APIStatusError as error:
        raise _explain_status(endpoint, error) from None  # its message may quote the key
    except openai.APITimeoutError:
        raise Failure(
            f"{endpoint.base_url} did not answer in time", suggestion="see config.client.timeout", fatal=True
        ) from None
    except openai.APIConnectionError as error:
        reason = redact(str(error.__cause__ or error), endpoint.secrets)
        raise Failure(
            f"{endpoint.base_url} cannot be reached ({reason})",
            suggestion="expected an endpoint there (config.client.base_url)",
            fatal=True,
        ) from None
    except (openai.OpenAIError, IndexError, TypeError, AttributeError, ValueError) as error:
        raise Failure(
            f"{endpoint.base_url}: found no chat completion in its answer ({redact(str(error), endpoint.secrets)})",
            suggestion="expected an endpoint that speaks the OpenAI chat-completions protocol",
            fatal=True,
        ) from None
    if refusal or filtered:
        said = redact(refusal or "its content filter took the answer back", endpoint.secrets)
        raise Failure(f"{endpoint.model} refused: {said}", suggestion="expected another picture, prompt or model")
    return str(content)


def _explain_status(endpoint: Endpoint, error: Any) -> Failure:
    """What an HTTP error means for the user."""
    said = redact(str(error.message), endpoint.secrets)
    code = error.status_code
    where = f"{endpoint.base_url} answered {code}"
    if code == 429:
        wait = error.response.headers.get("retry-after")
        when = f"run the same command again in {wait} s" if wait else "run the same command again later"
        return Failure(f"{where}, its rate limit ({said})", suggestion=when, fatal=True)
    if code in (401, 403):
        return Failure(f"{where} ({said})", suggestion="expected a key that is valid there", fatal=True)
    if code == 404:
        return Failure(f"{where} ({said})", suggestion=f"expected model {endpoint.model!r} there", fatal=True)
    return Failure(f"{where} ({said})", fatal=code >= 500)


def read_json(text: str) -> Any:
    """The JSON object inside a model's answer: without fences, words around it, and commas before closing brackets.

    Raises:
      ValueError: there is none.
    """
    start, end = text.find("{"), text.rfind("}")
    if start < 0 or end < start:
        raise ValueError("it holds no JSON object")
    inside = text[start : end + 1]
    for candidate in (inside, re.sub(r",(\s*[}\]])", r"\1", inside)):
        try:
            return json.loads(candidate)
        except ValueError as error:
            wrong = error
    raise ValueError(f"it is not valid JSON: {wrong}")


def check(value: Any, schema: Mapping[str, Any]) -> Any:
    """Gives the value back if it fits the schema.

    Raises:
      ValueError: it does not; the message names the place.
    """
    try:
        import jsonschema
    except ImportError as error:
        raise UserError(f"distill: package jsonschema not found, expected it installed ({EXTRA})") from error
    worst = jsonschema.exceptions.best_match(jsonschema.Draft202012Validator(schema).iter_errors(value))
    if worst is not None:
        place = "/".join(str(part) for part in worst.absolute_path) or "the object"
        raise ValueError(f"{place}: {worst.message}")
    return value
