"""Runs one operation of ParallelCluster: JSON in, JSON out.

Started by :mod:`strandloop.pcluster` with the interpreter of ParallelCluster's own environment, and therefore
made of that package and the standard library only. One document comes in, ``{"operation", "arguments"}``, with
the keyword arguments of that function of ``pcluster.lib``. One goes out: ``{"result"}``, or ``{"error"}`` with
``kind``, ``message`` and, of a refused configuration, ``validation``.
"""

from __future__ import annotations

import ast
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

THROTTLED = {"Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequestsException"}
LIMIT = {"LimitExceeded", "LimitExceededException", "VcpuLimitExceeded", "InstanceLimitExceeded"}
CREDENTIALS = {
    *("ExpiredToken", "ExpiredTokenException", "RequestExpired", "InvalidClientTokenId", "AuthFailure"),
    *(
        "UnrecognizedClientException",
        "SignatureDoesNotMatch",
        "InvalidAccessKeyId",
        "MissingAuthenticationToken",
    ),
    *("AccessDenied", "AccessDeniedException", "UnauthorizedOperation"),
}


def main() -> None:
    """Answer the request on standard input."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nothing else, of Node.js neither, gets between the caller and the answer
    os.environ.setdefault("JSII_SILENCE_WARNING_END_OF_LIFE_NODE_VERSION", "1")
    request = json.load(sys.stdin)
    json.dump(answer(request["operation"], request["arguments"]), answers)
    answers.close()


def answer(operation: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The document that goes out."""
    import pcluster.lib
    from pcluster.api.errors import DryrunOperationException

    # The library takes a None for a value that was given.
    arguments = {name: value for name, value in arguments.items() if value is not None}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        if isinstance(text := arguments.get("cluster_configuration"), str):
            # The library takes text for the name of a file.
            file.write(text)
            file.flush()
            arguments = {**arguments, "cluster_configuration": file.name}
        try:
            return {"result": getattr(pcluster.lib, operation)(**arguments)}
        except DryrunOperationException as success:
            return {"result": plain(success.content)}
        except Exception as error:
            return {"error": described(error)}


def described(error: Exception) -> dict[str, Any]:
    """An error as the caller gets it."""
    content = plain(getattr(error, "content", None) or getattr(error, "data", None)) or {}
    message = content.get("message") or f"{type(error).__name__}: {error}"
    validation = [
        {"level": found["level"], "type": found["type"], "message": readable(found["message"])}
        for found in content.get("configurationValidationErrors") or []
    ]
    validation += [
        {"level": "ERROR", "type": found.get("parameter") or "update", "message": found.get("message") or ""}
        for found in content.get("updateValidationErrors") or []
    ]
    return {"kind": kind(error, message), "message": message, "validation": validation}


def readable(message: str) -> str:
    """Its text, or of a schema error, which is the text of a Python object, one place after the other."""
    try:
        problems = dict(ast.literal_eval(message))
    except (ValueError, TypeError, SyntaxError):
        return message
    return "; ".join(f"{place}: {words}" for place, words in places(problems))


def places(problems: dict[Any, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """The innermost keys of nested schema errors, as ``Scheduling.SlurmQueues.0``, and what is said of each."""
    for name, inner in problems.items():
        if isinstance(inner, dict):
            yield from places(inner, f"{above}{name}.")
        else:
            yield f"{above}{name}", " ".join(map(str, inner if isinstance(inner, list) else [inner]))


def kind(error: Exception, message: str) -> str:
    """What the caller should make of an error: first by AWS's code, then by ParallelCluster's class."""
    codes = set(aws_codes(error))
    if codes & THROTTLED:
        return "throttled"
    if codes & CREDENTIALS or "Unable to locate credentials" in message:
        return "credentials"
    if codes & LIMIT:
        return "limit"
    if "already exists" in message:
        return "conflict"
    if message.startswith("Bad Request"):  # an argument that is refused before any call
        return "bad_configuration"
    by_status = {400: "bad_configuration", 404: "not_found", 409: "conflict", 429: "throttled"}
    return by_status.get(getattr(error, "code", None) or 0, "other")


def aws_codes(error: BaseException | None) -> Iterator[str]:
    """The codes of AWS's answers behind an error, outermost first."""
    while error is not None:
        response = getattr(error, "response", None)
        code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
        yield from filter(None, [code, getattr(error, "error_code", None)])
        error = error.__cause__ or error.__context__


def plain(content: Any) -> Any:
    """One of the library's objects as JSON would give it back."""
    from pcluster.api.encoder import JSONEncoder

    return json.loads(JSONEncoder().encode(content))


if __name__ == "__main__":
    main()
