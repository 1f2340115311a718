import re

import pytest
import torch

from labkit import corpus, docstrings, questions
from labkit.corpus import Passage, _prose


@pytest.fixture
def few(monkeypatch, tmp_path):
    """A corpus of three, an encoder that counts, and a cache of its own."""
    passages = (Passage("a.b", "one"), Passage("a.c", "a longer text"), Passage("a.d", "two"))
    asked = []

    def encode(texts):
        asked.extend(texts)
        return torch.tensor([[float(len(text)), 1.0] for text in texts])

    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path))
    monkeypatch.setattr(corpus, "docstrings", lambda: passages)
    monkeypatch.setattr(corpus, "minilm", lambda: encode)
    return asked


def test_the_docstrings_are_many_sorted_and_distinct():
    passages = docstrings()
    names = [passage.name for passage in passages]
    assert len(passages) > 1_500 and names == sorted(set(names)) and len({one.text for one in passages}) == len(names)
    assert {"torch.cumsum", "torch.nn.LayerNorm", "torch.optim.AdamW", "torch.Tensor.view"} <= set(names)
    assert not any("._" in name or "IntTensor" in name for name in names)


def test_they_are_prose():
    text = "\n".join(passage.text for passage in docstrings())
    for mark in (">>>", ":func:", ":class:", ".. math", ".. note", "``"):
        assert mark not in text, mark


def test_what_prose_keeps_and_drops():
    given = """\
    f(x) -> Tensor

    Adds :attr:`x` to :func:`~torch.sum` of
    ``y``, see `a link <https://x.org>`_.

    .. math::
        x + y

    .. note:: Slow.

    Example::

        >>> f(1)
        tensor(2)

    Last words.
    """
    assert _prose(given) == "f(x) -> Tensor\nAdds x to torch.sum of y, see a link.\nSlow.\nLast words."


def test_each_question_has_answers_and_quotes_none():
    texts = {passage.name: _words(passage.text) for passage in docstrings()}
    assert len(questions()) >= 200 and len({one.text for one in questions()}) == len(questions())
    for question in questions():
        asked = _words(question.text)
        for name in question.answers:
            last = name.rpartition(".")[2].lower()
            assert not {last, last.strip("_"), last.replace("_", "")} & set(asked), (question.text, name)
            runs = {tuple(texts[name][i : i + 4]) for i in range(len(texts[name]) - 3)}
            assert not runs & {tuple(asked[i : i + 4]) for i in range(len(asked) - 3)}, (question.text, name)


def test_vectors_are_worked_out_once_and_in_order(few, tmp_path):
    told = []
    corpus.prepare(lambda share, what: told.append(share))
    assert told[-1] == 1 and len(few) == 3
    passages, vectors = corpus.embedded_docstrings()
    assert len(few) == 3 and [file.suffix for file in tmp_path.iterdir()] == [".safetensors"]
    assert vectors[:, 0].tolist() == [len(f"{one.name}: {one.text}") for one in passages]


def test_without_the_cache_a_smaller_corpus_serves(few, monkeypatch, capsys):
    monkeypatch.setattr(corpus, "questions", lambda: (corpus.Question("?", ("a.d",)),))
    passages, vectors = corpus.embedded_docstrings()
    assert [one.name for one in passages] == ["a.b", "a.d"] and vectors.shape == (2, 2)
    assert "2 of 3 passages" in capsys.readouterr().out


def _words(text):
    return re.findall("[a-z0-9_]+", text.lower())
