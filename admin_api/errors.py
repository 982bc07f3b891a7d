"""Every error as ``{"error": {"field", "problem", "fix"}}``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from admin_api.schemas import ErrorAnswer
from node.domain.errors import AinodeError, IllegalStep, InvalidInput, LostLease, NotFound

Answers = dict[int | str, dict[str, Any]]

# For OpenAPI.
UNAUTHORIZED: Answers = {401: {"model": ErrorAnswer, "description": "The token is missing or wrong."}}
NOT_FOUND: Answers = {404: {"model": ErrorAnswer, "description": "There is none with this id."}}
NOT_DEAD: Answers = {409: {"model": ErrorAnswer, "description": "It is not dead, or was moved meanwhile."}}
NOT_NOW: Answers = {409: {"model": ErrorAnswer, "description": "Not in its present state."}}
INVALID: Answers = {422: {"model": ErrorAnswer, "description": "A parameter is not allowed."}}


class Refusal(HTTPException):
    """A request that is not served: names what is wrong, and what the caller can do."""

    def __init__(
        self, status: int, field: str | None, problem: str, fix: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, problem, headers)
        self.field = field
        self.fix = fix


def answer_errors(app: FastAPI) -> None:
    """Turn what handlers raise into answers."""

    @app.exception_handler(AinodeError)
    def _node(request: Request, error: AinodeError) -> JSONResponse:
        match error:
            case InvalidInput():
                return _answer(422, error.field, error.problem, error.fix)
            case NotFound():
                return _answer(404, None, str(error), "List what there is, and ask with an id from there")
            case IllegalStep() | LostLease():
                return _answer(409, None, str(error), "Read its state again and decide anew")
            case _:
                return _answer(500, None, str(error), "Read the node's log")

    @app.exception_handler(RequestValidationError)
    def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        place, *path = first["loc"]
        field = ".".join(str(part) for part in path) or str(place)
        return _answer(422, field, first["msg"], f"Send a valid {place} parameter; /docs says what is allowed")

    @app.exception_handler(HTTPException)
    def _http(request: Request, error: HTTPException) -> JSONResponse:
        if isinstance(error, Refusal):
            return _answer(error.status_code, error.field, error.detail, error.fix, error.headers)
        return _answer(error.status_code, None, error.detail, "/docs lists every path and method", error.headers)

    @app.exception_handler(Exception)
    def _unexpected(request: Request, error: Exception) -> JSONResponse:
        # Logged by the server with its traceback, which is not for the caller to see.
        return _answer(500, None, f"the node failed: {type(error).__name__}", "Read the node's log")


def _answer(
    status: int, field: str | None, problem: str, fix: str, headers: Mapping[str, str] | None = None
) -> JSONResponse:
    return JSONResponse({"error": {"field": field, "problem": problem, "fix": fix}}, status, headers)
