"""GPT weights to and from Hugging Face folders, against `transformers` itself: logits, gradients, greedy text."""

import dataclasses
import json
import pickle
import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from families import perturbed
from test_text import TEXT, bpe  # noqa: F401

from genmap_jax.data import text as texts
from genmap_jax.interop.huggingface import configuration, from_huggingface, to_huggingface
from genmap_jax.nn import rope
from genmap_jax.samplers import decoding
from genmap_jax.tractable import gpt
from genmap_jax.tractable.completion import complete

WHY = "compares with transformers on PyTorch: pip install genmap_jax[parity]"
MODELS = {
    "gpt2": {},
    "gpt2_untied": {"tied": False},
    "qwen2": gpt.QWEN2 | {"kv_heads": 2, "hidden": 40},
    "qwen2_tied": gpt.QWEN2 | {"kv_heads": 1, "tied": True, "head_dim": 12},
    "llama": gpt.LLAMA | {"norm_eps": 1e-6},
    "llama_3_1": gpt.LLAMA | {"head_dim": 10, "kv_heads": 2, "scaling": rope.Scaling("llama3", 8.0, 64, 4.0, 1.0)},
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
    their_down = down[0].grad.numpy() if cfg.positions == "learned" else down[0].grad.numpy().T
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


@pytest.mark.parametrize("name", ["GPT2", "GPT2 untied", "Qwen2", "Llama"])
def test_a_published_folder_is_read(name, tmp_path):
    """A random model that transformers saved, in several files: logits after its first token <= 2e-5 from ours."""
    torch = pytest.importorskip("torch", reason=WHY)
    transformers = pytest.importorskip("transformers", reason=WHY)
    torch.manual_seed(0)
    kind, _, untied = name.partition(" ")
    sizes = {"vocab_size": 29, "bos_token_id": 28, "eos_token_id": [5, 7]}
    if kind == "GPT2":
        sizes |= {"n_positions": 16, "n_embd": 32, "n_layer": 2, "n_head": 4, "tie_word_embeddings": not untied}
    else:
        sizes |= {"max_position_embeddings": 16, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
        sizes |= {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12}
    about = getattr(transformers, f"{kind}Config")(**sizes)
    theirs = transformers.AutoModelForCausalLM.from_config(about)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    theirs.eval().save_pretrained(tmp_path, max_shard_size="10KB")
    assert (tmp_path / "model.safetensors.index.json").exists()
    cfg, params = from_huggingface(tmp_path)
    assert cfg.stop == (5, 7)
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
        {"window": 4},
        {"classes": 2},
        {"kv_heads": 2},
        {"head_dim": 12},
    ):
        with pytest.raises(ValueError, match=next(iter(change))):
            to_huggingface(tmp_path, dataclasses.replace(cfg, **change), params)
    assert not list(tmp_path.iterdir())


def test_folders_that_are_not_safe_or_not_whole_are_refused(tmp_path):
    """Malformed ones by the hundred: tests/test_foreign_files.py."""
    with pytest.raises(FileNotFoundError, match="config.json"):
        from_huggingface(tmp_path)
    to_huggingface(tmp_path, *model("gpt2"))
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({}))
    with pytest.raises(ValueError, match="not safetensors but pickled"):
        from_huggingface(tmp_path)


def edit(folder, name="config.json", **changes):
    """Change fields of a JSON file of a folder; without the field of ours it is one that others wrote."""
    about = json.loads((folder / name).read_text()) | {"genmap_jax": None} | changes
    (folder / name).write_text(json.dumps(about))


def logits_of(folder):
    cfg, params = from_huggingface(folder)
    return np.asarray(gpt.logits(cfg, params, jnp.arange(32)[None] % 20))


LLAMA_3_1_8B = {
    **{
        "architectures": ["LlamaForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 128000,
    },
    **{"eos_token_id": [128001, 128008, 128009], "hidden_act": "silu", "hidden_size": 4096, "initializer_range": 0.02},
    **{"intermediate_size": 14336, "max_position_embeddings": 131072, "mlp_bias": False, "model_type": "llama"},
    **{"num_attention_heads": 32, "num_hidden_layers": 32, "num_key_value_heads": 8, "pretraining_tp": 1},
    **{"rms_norm_eps": 1e-05, "rope_theta": 500000.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16"},
    **{"transformers_version": "4.43.0.dev0", "use_cache": True, "vocab_size": 128256},
    "rope_scaling": {
        **{"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0},
        **{"original_max_position_embeddings": 8192, "rope_type": "llama3"},
    },
}
QWEN2_5_7B = {
    **{"architectures": ["Qwen2ForCausalLM"], "attention_dropout": 0.0, "bos_token_id": 151643, "eos_token_id": 151645},
    **{"hidden_act": "silu", "hidden_size": 3584, "initializer_range": 0.02, "intermediate_size": 18944},
    **{"max_position_embeddings": 32768, "max_window_layers": 28, "model_type": "qwen2", "num_attention_heads": 28},
    **{"num_hidden_layers": 28, "num_key_value_heads": 4, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0},
    **{"sliding_window": 131072, "tie_word_embeddings": False, "torch_dtype": "bfloat16", "use_cache": True},
    **{"transformers_version": "4.43.1", "use_sliding_window": False, "vocab_size": 152064, "attention_bias": True},
    "rope_scaling": {"factor": 4.0, "original_max_position_embeddings": 32768, "type": "yarn"},
}
GPT2_SMALL = {
    **{"activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1, "embd_pdrop": 0.1},
    **{"bos_token_id": 50256, "eos_token_id": 50256, "initializer_range": 0.02, "layer_norm_epsilon": 1e-05},
    **{"model_type": "gpt2", "n_ctx": 1024, "n_embd": 768, "n_head": 12, "n_layer": 12, "n_positions": 1024},
    **{"resid_pdrop": 0.1, "summary_activation": None, "summary_first_dropout": 0.1, "summary_proj_to_labels": True},
    **{"summary_type": "cls_index", "summary_use_proj": True, "vocab_size": 50257},
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
}


def test_configurations_as_published(tmp_path):
    """The config.json of GPT-2, Qwen2.5-7B (with the YaRN of its card) and Llama-3.1-8B: the models that they mean."""
    found = {}
    for about in (GPT2_SMALL, QWEN2_5_7B, LLAMA_3_1_8B):
        (tmp_path / "config.json").write_text(json.dumps(about))
        found[about["model_type"]] = configuration.read(tmp_path)
    sizes = {"layers": 12, "heads": 12, "width": 768, "stop": 50256}
    assert found["gpt2"].config == gpt.Config(vocab=50257, length=1024, **sizes)
    sizes = {"layers": 28, "heads": 28, "kv_heads": 4, "width": 3584, "hidden": 18944, "stop": 151645}
    yarn = rope.Scaling("yarn", 4.0, 32768)
    assert found["qwen2"].config == gpt.Config(vocab=152064, length=32768, **sizes, **gpt.QWEN2, scaling=yarn)
    sizes = {"layers": 32, "heads": 32, "kv_heads": 8, "width": 4096, "hidden": 14336}
    sizes |= {"stop": (128001, 128008, 128009), "theta": 5e5, "scaling": rope.Scaling("llama3", 8.0, 8192, 4.0, 1.0)}
    assert found["llama"].config == gpt.Config(vocab=128256, length=131072, **sizes, **gpt.LLAMA)
    assert [each.first for each in found.values()] == [50256, 151643, 128000]


def test_a_head_of_its_own_counts(tmp_path):
    """tie_word_embeddings decides, of GPT-2 too; a head that is not used is named."""
    cfg, params = model("gpt2")
    edit(to_huggingface(tmp_path, cfg, params), bos_token_id=1)
    tied = logits_of(tmp_path)
    tensors = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    tensors["lm_head.weight"] = tensors["transformer.wte.weight"].copy()
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    with warnings.catch_warnings(action="error"):
        np.testing.assert_array_equal(logits_of(tmp_path), tied)
    tensors["lm_head.weight"] *= 2
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    with pytest.warns(UserWarning, match="lm_head.weight is not used"):
        np.testing.assert_array_equal(logits_of(tmp_path), tied)
    edit(tmp_path, tie_word_embeddings=False)
    np.testing.assert_allclose(logits_of(tmp_path), 2 * tied, rtol=1e-6)


def test_every_place_of_the_rotary_fields_counts(tmp_path):
    """rope_scaling, alone, beside rope_parameters, and as rope_parameters: the same frequencies, and not the plain."""
    cfg, params = model("llama")
    edit(to_huggingface(tmp_path, cfg, params), bos_token_id=1)
    plain, linear = logits_of(tmp_path), {"rope_type": "linear", "factor": 4.0}
    edit(tmp_path, rope_parameters=linear | {"rope_theta": 1e4}, rope_theta=None)
    stretched = logits_of(tmp_path)
    assert abs(stretched - plain).max() > 0.1
    default = {"rope_type": "default", "rope_theta": 1e4}
    for places in (
        {"rope_parameters": None, "rope_scaling": linear},
        {"rope_parameters": default, "rope_scaling": linear},
        {"rope_parameters": default, "rope_scaling": {"type": "linear", "factor": 4.0}},
        {"rope_parameters": linear, "rope_scaling": linear, "rope_theta": 1e4},
    ):
        edit(tmp_path, **places)
        np.testing.assert_array_equal(logits_of(tmp_path), stretched)
    edit(tmp_path, rope_parameters=default, rope_scaling=None)
    np.testing.assert_array_equal(logits_of(tmp_path), plain)
    edit(tmp_path, rope_parameters={"rope_theta": 1e3}, rope_theta=None)
    assert abs(logits_of(tmp_path) - plain).max() > 1e-3


@pytest.mark.parametrize("rows", [24, 32])
def test_a_written_folder_holds_nothing_of_before(rows, tmp_path):
    """Weights in several files, the table padded or not, changed and written back: the new ones are read."""
    cfg, params = model("llama")
    edit(to_huggingface(tmp_path, cfg, params), bos_token_id=1)
    tensors = safetensors.numpy.load_file(tmp_path / "model.safetensors")
    for name in ("lm_head.weight", "model.embed_tokens.weight"):
        tensors[name] = np.pad(tensors[name], ((0, rows - 24), (0, 0)))
    (tmp_path / "model.safetensors").unlink()
    shard = "model-00001-of-00001.safetensors"
    safetensors.numpy.save_file(tensors, tmp_path / shard)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(tensors, shard)}))
    for name in ("tokenizer.json", "merges.txt", "pytorch_model.bin", "README.md"):
        (tmp_path / name).write_text("of before")
    cfg, read = from_huggingface(tmp_path)
    np.testing.assert_array_equal(read["embedding"][:-1], params["embedding"])
    changed = jax.tree.map(lambda x: 2 * x, read)
    to_huggingface(tmp_path, cfg, changed)
    jax.tree.map(np.testing.assert_array_equal, from_huggingface(tmp_path)[1], changed)
    written = {"config.json", "generation_config.json", "model.safetensors", "README.md"}
    assert {path.name for path in tmp_path.iterdir()} == written
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="holds adapter_model.safetensors"):
        to_huggingface(tmp_path, cfg, read)
    (tmp_path / "adapter_model.safetensors").unlink()
    jax.tree.map(np.testing.assert_array_equal, from_huggingface(tmp_path)[1], changed)
    with pytest.raises(ValueError, match="is a file"):
        to_huggingface(tmp_path / "README.md", cfg, read)
    with pytest.raises(ValueError, match="params: start holds NaN"):
        to_huggingface(tmp_path, cfg, read | {"start": read["start"] * np.nan})
    with pytest.raises(ValueError, match="params: embedding has shape"):
        to_huggingface(tmp_path, dataclasses.replace(cfg, vocab=3), read)


def test_end_tokens_survive(tmp_path):
    """Those of generation_config.json, where there are some, or of config.json; one or several; read, written, read."""
    cfg, params = model("llama")
    folder = to_huggingface(tmp_path / "a", cfg, params)
    assert from_huggingface(folder)[0].stop is None
    for config, generation, expected in ((2, None, 2), (2, [2, 5], (2, 5)), ([4, 2], [], (4, 2)), (None, [3], 3)):
        edit(folder, bos_token_id=1, eos_token_id=config)
        edit(folder, "generation_config.json", eos_token_id=generation)
        read = from_huggingface(folder)
        assert read[0].stop == expected
        again = to_huggingface(tmp_path / "b", *read)
        for name in ("config.json", "generation_config.json"):
            written = json.loads((again / name).read_text())["eos_token_id"]
            assert written == (list(expected) if isinstance(expected, tuple) else expected)
        assert from_huggingface(again)[0].stop == expected
    edit(folder, "generation_config.json", eos_token_id=None)
    for config, expected in ((50256, None), ([2, 24], 2)):
        edit(folder, bos_token_id=1, eos_token_id=config)
        with pytest.warns(UserWarning, match=r"eos_token_id=.*: only 0..23 are tokens"):
            assert from_huggingface(folder)[0].stop == expected


@pytest.mark.slow
def test_generation_ends_where_ours_does(tmp_path):
    """Greedy text of transformers and of `complete` with two end tokens: the same, up to the first of them."""
    torch = pytest.importorskip("torch", reason=WHY)
    transformers = pytest.importorskip("transformers", reason=WHY)
    cfg, params = model("llama")
    greedy = partial(decoding.top_k, k=1)
    free = complete(cfg, params, [[]], 20, jax.random.key(0), adjust=greedy)[0, 0]
    ends = (int(free[6]), int(free[3]))
    cfg = dataclasses.replace(cfg, stop=ends)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(to_huggingface(tmp_path, cfg, params))
    start = torch.full((1, 1), cfg.vocab)
    text = theirs.generate(start, max_new_tokens=20, do_sample=False, pad_token_id=0)[0, 1:].numpy()
    ours = complete(cfg, params, [[]], 20, jax.random.key(0), adjust=greedy)[0, 0]
    size = int(np.isin(free, ends).argmax()) + 1
    assert size == len(text) < 20
    np.testing.assert_array_equal(text, ours[:size])
    assert (ours[size:] == ends[0]).all()
