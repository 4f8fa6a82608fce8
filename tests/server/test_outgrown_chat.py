"""A chat over HTTP that outgrows its context: old turns go, the rest is not computed anew."""

from typing import Any

from tests.server.live import LiveServer


def test_each_turn_costs_about_what_is_new(server: LiveServer) -> None:
    messages: list[Any] = [{"role": "system", "content": "You are a lighthouse keeper who tells stories."}]
    computed, prompts = [], []
    for turn in range(60):
        messages.append(
            {"role": "user", "content": f"Turn {turn}: what did you see in the night of the storm?"}
        )
        before = server.worker.snapshot()
        body = {"messages": messages, "max_tokens": 24, "temperature": 0, "ban_eos_token": True}
        answer = server.post("/v1/chat/completions", body).json
        after = server.worker.snapshot()
        computed.append(after.prompt_tokens_computed - before.prompt_tokens_computed)
        prompts.append(answer["usage"]["prompt_tokens"])
        messages.append({"role": "assistant", "content": answer["choices"][0]["message"]["content"]})
    assert max(prompts) <= 2048 - 24
    cut = [turn for turn in range(1, 60) if prompts[turn] < prompts[turn - 1]]
    assert cut, "the chat never outgrew its context"
    # a whole prompt has some 1,900 tokens
    assert min(prompts[turn] for turn in cut) > 1700
    assert max(computed[turn] for turn in cut) < 400
    assert server.worker.snapshot().prompt_tokens_shifted > 0
