"""Service calls that must not wait: answered once, or given up."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hiwm_teleop.service_calls import ServiceCalls

from hiwm_teleop import service_calls


class Later:
    """A future that is answered by hand."""

    def __init__(self) -> None:
        self.callbacks: list[Callable[[Any], None]] = []

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self.callbacks.append(callback)

    def result(self) -> str:
        return "reply"

    def answer(self) -> None:
        for callback in self.callbacks:
            callback(self)


class Client:
    def __init__(self, ready: bool = True) -> None:
        self.ready, self.future = ready, Later()

    def service_is_ready(self) -> bool:
        return self.ready

    def call_async(self, request: Any) -> Later:
        return self.future


def test_a_reply_is_given_once_and_then_nothing_is_left_to_give_up(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, client, answers = ServiceCalls(), Client(), []
    calls.call(client, "request", answers.append)
    assert answers == []
    client.future.answer()
    monkeypatch.setattr(service_calls.time, "monotonic", lambda: 1e12)
    assert calls.give_up() == 0 and answers == ["reply"]


def test_where_nobody_serves_the_answer_is_none_at_once() -> None:
    answers: list[Any] = []
    ServiceCalls().call(Client(ready=False), "request", answers.append)
    assert answers == [None]


def test_a_late_reply_after_giving_up_is_not_a_second_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, client, answers = ServiceCalls(), Client(), []
    calls.call(client, "request", answers.append)
    assert calls.give_up() == 0, "not late yet"
    monkeypatch.setattr(service_calls.time, "monotonic", lambda: 1e12)
    assert calls.give_up() == 1 and answers == [None]
    client.future.answer()
    assert answers == [None]
