"""What people do with OpenAI's own client, done to every node: `openai_client.py MODEL URL…`; fails with a reason."""

import sys

import openai

model, *urls = sys.argv[1:]
words = " ".join(f"word-{n}" for n in range(50))


def messages(text):
    return [{"role": "system", "content": "Say it again."}, {"role": "user", "content": text}]


for url in urls:
    client = openai.OpenAI(base_url=url + "/v1", api_key="any", timeout=30)

    assert model in [listed.id for listed in client.models.list()], "the model is listed"
    assert client.models.retrieve(model).id == model

    whole = client.chat.completions.create(model=model, messages=messages(words))
    assert whole.choices[0].message.content == words, whole
    assert whole.choices[0].finish_reason == "stop" and whole.choices[0].message.role == "assistant", whole
    assert whole.usage.completion_tokens == 50, whole
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + 50, whole

    cut = client.chat.completions.create(model=model, messages=messages(words), max_completion_tokens=7)
    assert cut.choices[0].finish_reason == "length" and cut.usage.completion_tokens == 7, cut

    pieces, reasons, usages, ids = [], [], [], set()
    stream = client.chat.completions.create(
        model=model, messages=messages(words), stream=True, stream_options={"include_usage": True}, temperature=0.3
    )
    for chunk in stream:
        ids.add(chunk.id)
        usages.append(chunk.usage)
        for choice in chunk.choices:
            pieces.append(choice.delta.content or "")
            reasons.append(choice.finish_reason)
    assert "".join(pieces) == words, pieces
    assert [reason for reason in reasons if reason] == ["stop"] and reasons[-1] == "stop", reasons
    assert usages[-1].completion_tokens == 50 and not any(usages[:-1]), usages
    assert len(ids) == 1, ids

    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    content = [{"type": "text", "text": "look"}, picture]
    seen = client.chat.completions.create(model=model, messages=[{"role": "user", "content": content}])
    assert seen.choices[0].message.content == "look [image:100022]", seen

    with client.chat.completions.create(model=model, messages=messages(words), stream=True) as stream:
        next(iter(stream))

    for wrong, expected in [
        ({"model": "no/such", "messages": messages("x")}, openai.NotFoundError),
        ({"model": model, "messages": []}, openai.BadRequestError),
        ({"model": model, "messages": messages("x"), "n": 2}, openai.BadRequestError),
    ]:
        try:
            client.chat.completions.create(**wrong)
        except expected as error:
            assert error.code and error.type == "invalid_request_error" and str(error), error
        else:
            raise AssertionError(f"{wrong} was granted")

    # The model itself fails: in a stream, the client raises what the model said.
    try:
        failing = [{"role": "system", "content": "nobody asks"}]
        list(client.with_options(max_retries=0).chat.completions.create(model=model, messages=failing, stream=True))
    except openai.APIError as error:
        assert "user" in str(error), error
    else:
        raise AssertionError("a request without a user's message was answered")

print(f"openai {openai.__version__}: {len(urls)} nodes")
