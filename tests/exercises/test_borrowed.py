"""Borrowed definitions: the plain import's numbers without its modules, and the plain import where that can't be."""

from __future__ import annotations

import pathlib
import pickle
import subprocess
import sys

import pytest
import torch

from autograde import borrowed as module
from autograde.borrowed import borrowed
from autograde.exercises import find, names
from autograde.exercises.transformer.pretrain_gpt.gpt_forward import _PLACES as PLACES
from autograde.judging.calls import copied, plain
from autograde.judging.comparing import compare
from autograde.judging.surroundings import fixed_randomness

HEAVY = ("transformers.modeling_utils", "torch._dynamo", "sympy", "rfc3987_syntax")
# What an exercise's file says if its oracle borrows; all but the first are helpers in a shared.py.
MARKS = ("borrowed(", "logits_processor", "hf_rotation", "rotary")
# Fast for another reason: their oracles make no optimizer of torch's, and jsonschema puts off what it does not need.
LIGHT = ("adam_with_decay", "grad_scaler_step", "EarlyStopping", "parse_tool_call", "tool_schema", "dispatch")


def borrowers() -> list[str]:
    """The exercises whose oracle borrows."""
    home = pathlib.Path(sys.modules["autograde.exercises"].__file__).parent
    files = {name: home.joinpath(*chapter.split("."), f"{name}.py") for name, chapter in names().items()}
    return [name for name, path in files.items() if any(mark in path.read_text("utf-8") for mark in MARKS)]


INSTEAD = {}  # oracles in place of an exercise's own


def whole_llama(ids, weights, n_heads, base=10_000.0, eps=1e-6):
    """transformers' own model, of whose layers the oracle of `gpt_forward` is put together."""
    from transformers import LlamaConfig, LlamaForCausalLM

    embed, layers = weights["embed"], weights["layers"]
    config = LlamaConfig(
        vocab_size=len(embed),
        hidden_size=embed.shape[1],
        intermediate_size=len(layers[0]["gate"]),
        num_hidden_layers=len(layers),
        num_attention_heads=n_heads,
        rms_norm_eps=eps,
        rope_parameters={"rope_type": "default", "rope_theta": base},
        max_position_embeddings=64,
        attn_implementation="eager",
        tie_word_embeddings=True,
        pad_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
    )
    values = {"model.embed_tokens.weight": embed, "lm_head.weight": embed, "model.norm.weight": weights["norm"]}
    for i, layer in enumerate(layers):
        values |= {f"model.layers.{i}.{place}.weight": layer[name] for name, place in PLACES.items()}
    model = LlamaForCausalLM(config).to(embed.dtype).eval()
    return torch.func.functional_call(model, values, (ids,), {"use_cache": False}).logits


def answers(wanted: list[str]) -> dict:
    """What the oracles say on the cases of two seeds, by exercise, seed and case."""
    found = {}
    for name in wanted:
        exercise = find(name)
        oracle = INSTEAD.get(name, exercise.oracle)
        for seed in range(2):
            for place, one in enumerate(exercise.draw(seed)):
                with fixed_randomness():
                    found[name, seed, place] = plain(oracle(*copied(one.args), **copied(one.kwargs)))
    return found


def in_a_fresh_python(first: str = "") -> tuple[dict, list[str]]:
    """The answers of a Python of its own that begins with `first`, and which heavy modules it had then."""
    script = f"""
import pickle, sys
import test_borrowed as test
{first}
found = test.answers([*test.borrowers(), *test.LIGHT])
sys.stdout.buffer.write(pickle.dumps((found, [name for name in test.HEAVY if name in sys.modules])))
"""
    here = pathlib.Path(__file__)
    path = [str(here.parents[2]), str(here.parent)]
    command = [sys.executable, "-c", f"import sys; sys.path[:0] = {path}\n{script}"]
    return pickle.loads(subprocess.run(command, capture_output=True, check=True).stdout)


@pytest.fixture(scope="module")
def fresh():
    return in_a_fresh_python()


def test_borrowing_imports_nothing_heavy(fresh):
    assert fresh[1] == []


def test_what_is_borrowed_gives_what_the_plain_import_gives(fresh):
    """To the last bit: no tolerance."""
    plainly, heavy = in_a_fresh_python("test.module._names = None\ntest.INSTEAD['gpt_forward'] = test.whole_llama")
    assert "transformers.modeling_utils" in heavy
    assert fresh[0].keys() == plainly.keys()
    differing = {key[0] for key, value in plainly.items() if compare(value, fresh[0][key], 0.0, 0.0, equal_nan=True)}
    assert differing == set()


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A small library that can't be imported."""
    folder = tmp_path / "lending"
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").write_text("raise RuntimeError('imported')\n")
    (folder / "inner" / "__init__.py").write_text("from .parts import Part\n")
    (folder / "inner" / "parts.py").write_text("class Part:\n    size = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    module._names.cache_clear()
    borrowed.cache_clear()
    for name in [name for name in sys.modules if name.partition(".")[0] == "lending"]:
        del sys.modules[name]


def lend(library, text: str) -> None:
    (library / "code.py").write_text(text)


def test_a_function_comes_with_what_it_leans_on(library):
    lend(
        library,
        "import math\nfrom .inner import Part\nfrom missing import gone\n\nSIZE = 2\n\n"
        "def helper(x: gone) -> gone:\n    return x * SIZE\n\n"
        "def wanted(x):\n    return helper(x) + Part.size + math.floor(0.5) + len('ab')\n",
    )
    assert borrowed("lending.code", "wanted")(5) == 15
    assert "lending" not in sys.modules


def test_a_class_with_bases_decorators_and_super(library):
    lend(
        library,
        "import torch\nfrom torch import nn\n\nROWS = 2\n\nclass Base(nn.Module):\n    rows = ROWS\n\n"
        "@use_kernel_forward_from_hub('x')\nclass Layer(Base):\n"
        "    def __init__(self):\n        super().__init__()\n        self.weight = nn.Parameter(torch.ones(ROWS))\n"
        "    @torch.no_grad()\n    def forward(self, x):\n        return x @ self.weight * self.rows\n",
    )
    out = borrowed("lending.code", "Layer")()(torch.ones(2))
    assert out == 4 and not out.requires_grad


def test_a_name_bound_more_than_once_where_that_is_clear(library):
    lend(
        library,
        "import os.path\nimport os\n\ndef helper(x):\n    return 1\n\ndef helper(x):\n    return x + 1\n\n"
        "def wanted(x):\n    return helper(x), os.path.basename('a/b')\n",
    )
    assert borrowed("lending.code", "wanted")(2) == (3, "b")


def test_a_class_within_a_function(library):
    lend(library, "SIZE = 2\n\ndef wanted():\n    class Inner:\n        size = SIZE\n    return Inner.size\n")
    assert borrowed("lending.code", "wanted")() == 2


def test_one_module_gives_one_class(library):
    lend(library, "class Wrong(Exception): pass\n\ndef fail():\n    raise Wrong\n")
    with pytest.raises(borrowed("lending.code", "Wrong")):
        borrowed("lending.code", "fail")()


@pytest.mark.parametrize(
    "text",
    [
        "try:\n    wanted = 1\nexcept ImportError:\n    wanted = 2\n",
        "wanted = 0\nwanted += 1\n",
        "for wanted in (0, 1):\n    pass\n",
        "if True:\n    import math as wanted\nelse:\n    import json as wanted\nwanted = 1\n",
        "from math import *\nwanted = 1\n",
        "globals()['wanted'] = 1\n",
        "def __getattr__(name):\n    return 1\n",
    ],
)
def test_the_plain_import_where_the_source_does_not_tell(library, text):
    (library / "__init__.py").write_text("")
    lend(library, text)
    assert borrowed("lending.code", "wanted") == 1
    assert "lending.code" in sys.modules


def test_the_plain_import_of_one_name_in_the_way(library):
    (library / "__init__.py").write_text("")
    (library / "inner" / "__init__.py").write_text("try:\n    step = 1\nexcept ImportError:\n    step = 2\n")
    lend(library, "from .inner import step\n\ndef wanted(x):\n    return x + step\n")
    assert borrowed("lending.code", "wanted")(1) == 2
    assert "lending.code" not in sys.modules and "lending.inner" in sys.modules


def test_what_is_not_there_fails_as_an_import_does(library):
    (library / "__init__.py").write_text("")
    lend(library, "x = 1\n")
    with pytest.raises(AttributeError, match="wanted"):
        borrowed("lending.code", "wanted")
    with pytest.raises(ModuleNotFoundError):
        borrowed("lending.nowhere", "wanted")
    with pytest.raises(ModuleNotFoundError):
        borrowed("no_such_library.code", "wanted")


def test_what_has_been_imported_is_used(library):
    import json.decoder

    assert borrowed("json.decoder", "JSONDecoder") is json.decoder.JSONDecoder


def test_transformers_counts_its_two_windows_differently():
    """01_transformer/06_efficient_attention says so: looking both ways `sliding_window` reaches one key further."""
    back, both = (
        borrowed("transformers.masking_utils", f"sliding_window_{kind}_mask_function")(2)
        for kind in ("causal", "bidirectional")
    )
    query, keys = torch.tensor(4), torch.arange(9)
    assert back(0, 0, query, keys).nonzero().flatten().tolist() == [3, 4]
    assert both(0, 0, query, keys).nonzero().flatten().tolist() == [2, 3, 4, 5, 6]
