"""chat_model: the local model in batches, and an endpoint that answers, calls tools, streams, is slow, or fails."""

import contextlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import labkit.models
from labkit import EndpointFailed, Reply, chat_model

LETTERS = [*"abcdefghijklmnopqrstuvwxyz .<>_{}:\"'/,\n\\[]0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ?!"]
TEMPLATE = "{% for m in messages %}{{ m['role'] }}:{{ m['content'] }}{% endfor %}"
CHATS = [[{"role": "user", "content": text}] for text in ("hello", "hello there", "why", "a", "hey you, there is more")]
WEATHER = {"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object"}}}


@pytest.fixture(autouse=True)
def nowhere(monkeypatch):
    for name in ("OPENAI_BASE_URL", "OPENAI_MODEL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def tiny(monkeypatch):
    """A model of random weights and single letters, with which a batch can be compared digit by digit."""
    torch.manual_seed(0)
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(["<end>", "<?>", *LETTERS])}, "<?>"))
    words.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", unk_token="<?>")
    tokenizer.chat_template = TEMPLATE
    tokenizer.decode = lambda ids: "".join(["<end>", "?", *LETTERS][i] for i in ids)
    config = LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                         num_key_value_heads=2, vocab_size=len(LETTERS) + 2, eos_token_id=0)  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    for weight in (model.lm_head.weight, model.model.embed_tokens.weight):
        torch.nn.init.normal_(weight)
    with torch.no_grad():
        model.lm_head.weight[0] *= 0.7  # else it ends at once
    monkeypatch.setattr(labkit.models, "smollm", lambda dtype: (model, tokenizer))
    return model, tokenizer


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_many_is_one_by_one_in_order(tiny, batch):
    llm = chat_model()
    alone = [llm(chat, max_new_tokens=12) for chat in CHATS]
    assert llm.many(CHATS, max_new_tokens=12, batch=batch) == alone
    assert len({reply.text for reply in alone}) > 1 and llm.many([]) == []


def test_it_is_what_generate_writes(tiny):
    model, tokenizer = tiny
    reply = chat_model()(CHATS[1], max_new_tokens=10)
    ids = tokenizer(tokenizer.apply_chat_template(CHATS[1], tokenize=False), return_tensors="pt")
    wanted = model.generate(**ids, max_new_tokens=10, do_sample=False, pad_token_id=0)[0, ids.input_ids.shape[1] :]
    assert reply.completion_tokens == len(wanted) and reply.prompt_tokens == ids.input_ids.shape[1]
    assert reply.text == tokenizer.decode([i for i in wanted.tolist() if i])


def test_a_stop_text_ends_the_answer_and_is_left_out(tiny):
    llm = chat_model()
    whole = llm(CHATS[0], max_new_tokens=20)
    stop = whole.text[5:8]
    cut = llm(CHATS[0], max_new_tokens=20, stop=[stop, "never written"])
    assert cut.text == whole.text[: whole.text.index(stop)] and cut.completion_tokens < whole.completion_tokens
    assert llm(CHATS[0], max_new_tokens=20, stop=stop) == cut == llm.many([CHATS[0]], max_new_tokens=20, stop=stop)[0]


@pytest.mark.parametrize("stop", [(), "cut"])
def test_pieces_make_up_the_answer(tiny, stop):
    llm, pieces = chat_model(), []
    stop = llm(CHATS[0], max_new_tokens=20).text[8:11] if stop else ()
    reply = llm(CHATS[0], max_new_tokens=20, stop=stop, on_text=pieces.append)
    assert "".join(pieces) == reply.text and len(pieces) > 3


def test_a_temperature_draws(tiny):
    llm = chat_model()
    torch.manual_seed(1)
    texts = {llm(CHATS[0], max_new_tokens=8, temperature=2.0).text for _ in range(4)}
    torch.manual_seed(1)
    assert len(texts) > 1 and llm(CHATS[0], max_new_tokens=8, temperature=2.0).text in texts


def test_local_tools_are_told_and_calls_are_read_as_data(tiny):
    llm = chat_model()
    assert '<tools>[{"name": "get_weather"' in llm.rendered(CHATS[0], [WEATHER])
    called = {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "f", "arguments": '{"x": 1}'}}]}
    assert '<tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call>' in llm.rendered([*CHATS[0], called])
    read = labkit.chat._calls_in('Well: <tool_call>{"name": "f", "arguments": {"x": 1}}</tool_call> <tool_call>f(1)')
    assert read == ({"id": "call_0", "name": "f", "arguments": '{"x": 1}'},)


class Handler(BaseHTTPRequestHandler):
    """Answers as `self.server.answer(request)` says: (status, text), or a list of pieces of a stream."""

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, dict(self.headers), asked))
        answer = self.server.answer(asked)
        status, parts = answer if isinstance(answer, tuple) else (200, answer)
        self.send_response(status)
        self.end_headers()
        with contextlib.suppress(BrokenPipeError):  # who asked has given up
            for part in [parts] if isinstance(parts, str) else parts:
                self.wfile.write(part.encode())
                self.wfile.flush()

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{server.server_port}/v1/")
    monkeypatch.setenv("OPENAI_MODEL", "some-model")
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def completion(message, **usage):
    return json.dumps({"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage})


def test_an_endpoint_answers(server):
    server.answer = lambda asked: completion({"content": "Hi!"}, prompt_tokens=7, completion_tokens=2)
    llm = chat_model()
    assert llm(CHATS[0], max_new_tokens=5, stop="X", temperature=0.5) == Reply("Hi!", (), 7, 2)
    ((path, headers, asked),) = server.asked
    assert path == "/v1/chat/completions" and headers["Authorization"] == "Bearer secret-key"
    wanted = {"model": "some-model", "max_tokens": 5, "temperature": 0.5, "stop": ["X"], "messages": CHATS[0]}
    assert asked == wanted and llm.name == "some-model"


def test_an_endpoint_calls_tools(server):
    call = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'}}
    server.answer = lambda asked: completion({"content": None, "tool_calls": [call]} if "tools" in asked else {})
    reply = chat_model()(CHATS[0], tools=[WEATHER])
    assert reply == Reply("", ({"id": "c1", "name": "get_weather", "arguments": '{"city": "Oslo"}'},), 0, 0)


def event(**delta):
    return f"data: {json.dumps({'choices': [{'delta': delta, 'finish_reason': None}]})}\n\n"


END = 'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}\n\ndata: [DONE]\n\n'


def test_an_endpoint_streams_text_and_calls(server):
    first = {"index": 0, "id": "c1", "function": {"name": "f", "arguments": '{"x"'}}
    other = {"index": 1, "id": "c2", "function": {"name": "g", "arguments": "{}"}}
    rest = {"index": 0, "function": {"arguments": ": 1}"}}
    parts = [": a remark\n\n", event(role="assistant"), event(content="Hé"), event(content="llo")]
    server.answer = lambda asked: [*parts, event(tool_calls=[first]), event(tool_calls=[other, rest]), END]
    pieces = []
    reply = chat_model()(CHATS[0], on_text=pieces.append)
    calls = ({"id": "c1", "name": "f", "arguments": '{"x": 1}'}, {"id": "c2", "name": "g", "arguments": "{}"})
    assert pieces == ["Hé", "llo"] and reply == Reply("Héllo", calls, 3, 4)
    assert server.asked[0][2]["stream"] is True


def test_many_at_an_endpoint_keep_their_order(server):
    server.answer = lambda asked: completion({"content": asked["messages"][0]["content"].upper()})
    assert [reply.text for reply in chat_model().many(CHATS)] == [chat[0]["content"].upper() for chat in CHATS]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((401, '{"error": {"message": "Incorrect key"}}'), "HTTP 401, 'Incorrect key'. Is OPENAI_API_KEY right"),
        ((404, "<html>not found</html>"), "HTTP 404, .*OPENAI_BASE_URL and OPENAI_MODEL"),
        ((500, ""), "HTTP 500"),
        ((200, "<html>a web page</html>"), "no chat completion"),
        ((200, '{"choices": []}'), "no chat completion"),
        ((200, "[1]"), "no chat completion"),
    ],
)
def test_a_failing_endpoint_is_one_sentence(server, answer, says):
    server.answer = lambda asked: answer
    with pytest.raises(EndpointFailed, match=says) as caught:
        chat_model()(CHATS[0])
    told = "".join(caught.value._render_traceback_())
    assert "secret-key" not in told and "\n" not in told and len(told) < 400


def test_a_stream_that_breaks_off_is_no_answer(server):
    server.answer = lambda asked: [event(content="Half an ans")]
    with pytest.raises(EndpointFailed, match="no chat completion"):
        chat_model()(CHATS[0], on_text=lambda text: None)


def test_a_slow_endpoint_is_one_sentence(server):
    server.answer = lambda asked: time.sleep(0.5) or "{}"
    with pytest.raises(EndpointFailed, match="no sign of it for 0.1 seconds"):
        chat_model(timeout=0.1)(CHATS[0])


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/v1", "localhost:8000", "http://[/v1"])
def test_a_missing_endpoint_is_one_sentence(monkeypatch, address):
    monkeypatch.setenv("OPENAI_BASE_URL", address)
    with pytest.raises(EndpointFailed, match="OPENAI_MODEL"):
        chat_model()
    monkeypatch.setenv("OPENAI_MODEL", "some-model")
    with pytest.raises(EndpointFailed, match="can't be reached"):
        chat_model()(CHATS[0])


def test_a_key_alone_sends_nothing_away(tiny, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret-key")
    assert "on this machine" in chat_model().name
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert "on this machine" in chat_model(local=True).name
