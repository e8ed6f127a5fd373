"""GPT weights to and from Hugging Face folders, against `transformers` itself: logits, gradients, greedy text."""

import dataclasses
import json
import pickle
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from families import perturbed
from test_text import TEXT, bpe  # noqa: F401

from genmap_jax.data import text as texts
from genmap_jax.interop.huggingface import from_huggingface, to_huggingface
from genmap_jax.nn import rope
from genmap_jax.samplers import decoding
from genmap_jax.tractable import gpt
from genmap_jax.tractable.completion import complete

WHY = "compares with transformers on PyTorch: pip install genmap_jax[parity]"
MODELS = {
    "gpt2": {},
    "qwen2": gpt.QWEN2 | {"kv_heads": 2, "hidden": 40},
    "qwen2_tied": gpt.QWEN2 | {"kv_heads": 1, "tied": True},
    "llama": gpt.LLAMA | {"norm_eps": 1e-6},
    "yarn": gpt.QWEN2 | {"theta": 1e4, "scaling": rope.Scaling("yarn", 4.0, 8)},
}


def model(name: str) -> tuple[gpt.Config, dict]:
    """Random parameters far from initialisation."""
    cfg = gpt.Config(**({"vocab": 23, "length": 32, "layers": 2, "heads": 4, "width": 32} | MODELS[name]))
    return cfg, perturbed(cfg, 0.2)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_logits_gradients_and_greedy_text_of_an_exported_folder(name, tmp_path):
    """transformers' logits <= 2e-5 from ours, its gradients <= 1e-4 relative, the same greedy text."""
    torch = pytest.importorskip("torch", reason=WHY)
    transformers = pytest.importorskip("transformers", reason=WHY)
    cfg, params = model(name)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        to_huggingface(tmp_path, cfg, params), attn_implementation="eager"
    )
    assert type(theirs).__name__ == json.loads((tmp_path / "config.json").read_text())["architectures"][0]
    tokens = np.random.default_rng(1).integers(0, cfg.vocab, (3, cfg.length))
    begun = torch.tensor(np.concatenate([np.full((3, 1), cfg.vocab), tokens[:, :-1]], axis=1))
    logits = theirs.eval()(begun).logits[..., : cfg.vocab]
    ours = gpt.logits(cfg, params, jnp.asarray(tokens))
    assert ours.std() > 0.5
    np.testing.assert_allclose(ours, logits.detach().numpy(), rtol=0, atol=2e-5)

    loss = torch.nn.functional.cross_entropy(logits.reshape(-1, cfg.vocab), torch.tensor(tokens).reshape(-1))
    loss.backward()
    grads = jax.grad(lambda p: -gpt.log_prob(cfg, p, jnp.asarray(tokens)).mean() / cfg.length)(params)
    their_table = theirs.get_input_embeddings().weight.grad.numpy()
    if not cfg.tied:
        np.testing.assert_allclose(grads["start"], their_table[cfg.vocab], rtol=0, atol=1e-4 * abs(their_table).max())
    np.testing.assert_allclose(grads["embedding"], their_table[: cfg.vocab], rtol=0, atol=1e-4 * abs(their_table).max())
    down = [
        p
        for n, p in theirs.named_parameters()
        if n.endswith(("h.0.mlp.c_proj.weight", "layers.0.mlp.down_proj.weight"))
    ]
    their_down = down[0].grad.numpy() if name == "gpt2" else down[0].grad.numpy().T
    np.testing.assert_allclose(
        grads["block_0"]["down"]["kernel"], their_down, rtol=0, atol=1e-4 * abs(their_down).max()
    )

    start = torch.full((1, 1), cfg.vocab)
    text = theirs.generate(start, max_new_tokens=20, do_sample=False, pad_token_id=0)[0, 1:].numpy()
    greedy = complete(cfg, params, [[]], 20, jax.random.key(0), adjust=lambda x: jnp.where(x == x.max(), x, -jnp.inf))
    np.testing.assert_array_equal(greedy[0, 0], text)


@pytest.mark.parametrize("kind", ["bytes", "characters", "bpe"])
def test_an_exported_folder_reads_and_writes_text(kind, tmp_path, request):
    """transformers' tokenizer of the folder gives our tokens after the start, and spells what the model says alike."""
    transformers = pytest.importorskip("transformers", reason=WHY)
    pytest.importorskip("torch", reason=WHY)
    tokenizer = {"bytes": texts.utf8, "characters": lambda: texts.characters(TEXT)}.get(
        kind, lambda: texts.huggingface(request.getfixturevalue("bpe"))
    )()
    vocab = tokenizer.vocab + 3 * (kind == "bpe")  # a model may have room for more tokens
    cfg = gpt.Config(vocab=vocab, length=128, layers=1, heads=2, width=16, **gpt.QWEN2)
    if kind == "characters":
        with pytest.raises(ValueError, match="byte-level"):
            to_huggingface(tmp_path, cfg, None, tokenizer)
        cfg = dataclasses.replace(cfg, **gpt.LLAMA)
    params = perturbed(cfg, 0.2)
    to_huggingface(tmp_path, cfg, params, tokenizer)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    tokens = tokenizer.encode([TEXT])[0]
    assert theirs(TEXT).input_ids == [vocab, *tokens.tolist()]
    assert theirs.decode(theirs(TEXT).input_ids, skip_special_tokens=True) == TEXT
    prompt = TEXT[:10]
    out = transformers.AutoModelForCausalLM.from_pretrained(tmp_path).generate(
        **theirs(prompt, return_tensors="pt", return_token_type_ids=False), max_new_tokens=12, pad_token_id=0
    )
    new = complete(cfg, params, tokenizer.encode([prompt]), 12, jax.random.key(0), adjust=partial(decoding.top_k, k=1))
    assert out[0].tolist() == [vocab, *tokenizer.encode([prompt])[0].tolist(), *new[0, 0].tolist()]


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    pytest.importorskip("tokenizers", reason=WHY)
    cfg, params = model("gpt2")
    with pytest.raises(ValueError, match="tokenizer has 256 tokens, the model 23"):
        to_huggingface(tmp_path, cfg, params, texts.utf8())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["gpt2", "qwen2"])
def test_a_published_folder_is_read(name, tmp_path):
    """A random model that transformers saved, in several files: logits after its first token <= 2e-5 from ours."""
    torch = pytest.importorskip("torch", reason=WHY)
    transformers = pytest.importorskip("transformers", reason=WHY)
    torch.manual_seed(0)
    if name == "gpt2":
        about = transformers.GPT2Config(vocab_size=29, n_positions=16, n_embd=32, n_layer=2, n_head=4, bos_token_id=28)
        theirs = transformers.GPT2LMHeadModel(about)
    else:
        about = transformers.Qwen2Config(
            vocab_size=29, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, max_position_embeddings=16, bos_token_id=3,
        )  # fmt: skip
        theirs = transformers.Qwen2ForCausalLM(about)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    theirs.eval().save_pretrained(tmp_path, max_shard_size="10KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    cfg, params = from_huggingface(tmp_path)
    tokens = np.random.default_rng(1).integers(0, 29, (2, 16))
    begun = np.concatenate([np.full((2, 1), about.bos_token_id), tokens[:, :-1]], axis=1)
    logits = theirs(torch.tensor(begun)).logits.detach().numpy()
    np.testing.assert_allclose(gpt.logits(cfg, params, jnp.asarray(tokens)), logits, rtol=0, atol=2e-5)


@pytest.mark.parametrize("name", MODELS)
def test_what_is_written_is_read_back(name, tmp_path):
    cfg, params = model(name)
    again, tree = from_huggingface(to_huggingface(tmp_path, cfg, params))
    assert again == dataclasses.replace(cfg, hidden=again.hidden, kv_heads=again.kv_heads)
    assert (again.hidden or 4 * cfg.width, again.groups) == (cfg.hidden or 4 * cfg.width, cfg.groups)
    jax.tree.map(np.testing.assert_array_equal, tree, params)


def test_what_the_format_cannot_hold_is_named(tmp_path):
    cfg, params = model("gpt2")
    for change in (
        {"qk_norm": True},
        {"softcap": 3.0},
        {"norm": "rms"},
        {"tied": False},
        {"window": 4},
        {"classes": 2},
        {"kv_heads": 2},
    ):
        with pytest.raises(ValueError, match=next(iter(change))):
            to_huggingface(tmp_path, dataclasses.replace(cfg, **change), params)
    assert not list(tmp_path.iterdir())


def test_folders_that_are_not_safe_or_not_whole_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="config.json"):
        from_huggingface(tmp_path)
    cfg, params = model("gpt2")
    to_huggingface(tmp_path, cfg, params)
    about = json.loads((tmp_path / "config.json").read_text())

    def refused(match, **changes):
        (tmp_path / "config.json").write_text(json.dumps(about | changes))
        with pytest.raises(ValueError, match=match):
            from_huggingface(tmp_path)

    refused("model_type='bert'", model_type="bert")
    refused("activation_function='relu'", activation_function="relu")
    refused("bos_token_id=None", bos_token_id=None)
    refused("h.2.ln_1", n_layer=3)
    refused("down.*shape", n_inner=64)
    (tmp_path / "config.json").write_text(json.dumps(about))
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"wte.weight": "../outside.safetensors"}}))
    refused("not the name of a .safetensors file")
    index.unlink()
    (tmp_path / "model.safetensors").write_bytes(b"no tensors here")
    refused("not a safetensors file")
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    refused("not safetensors but pickled")
