"""GPT is an exact density: normalised, causal, learned to its source's entropy, and sampled from the same law."""

import dataclasses
import importlib.util
import itertools
import re
import types
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from families import perturbed
from variants import chosen

from genmap_jax.algorithm import State
from genmap_jax.data.text import utf8
from genmap_jax.nn import rope
from genmap_jax.nn.attention import attend, attend_in_blocks, scaled_scores
from genmap_jax.objectives import exact_likelihood
from genmap_jax.optim import Optim
from genmap_jax.samplers import decoding
from genmap_jax.tractable import completion, gpt
from genmap_jax.tractable.completion import complete

logits = jax.jit(gpt.logits, static_argnums=0)
log_prob = jax.jit(gpt.log_prob, static_argnums=0)

ARCHITECTURES = {
    "gpt2": {},
    "qwen2": gpt.QWEN2 | {"heads": 4, "kv_heads": 2, "theta": 100.0},
    "everything": {
        **{"norm": "rms", "positions": "rope", "mlp": "relu2", "bias": "none", "heads": 4, "kv_heads": 1, "hidden": 24},
        "head_dim": 6,
        **{"qk_norm": True, "softcap": 5.0, "residual_scales": True, "tied": False},
    },
    "window": {"window": 4},
    "window_rope": gpt.LLAMA | {"window": 4},
    "window_global": {"window": 4, "global_every": 2, "kv_heads": 1},
    "chunked": gpt.LLAMA | {"chunk": 3, "trained": 5},
}


def shaped(name: str, **changes) -> gpt.Config:
    return gpt.Config(**({"heads": 2} | ARCHITECTURES[name] | changes))


def tokens_of(cfg: gpt.Config, n: int, seed: int = 0):
    return jnp.asarray(np.random.default_rng(seed).integers(0, cfg.vocab, (n, cfg.length)), jnp.int32)


def generate(cfg: gpt.Config, params, **how):
    """`decode` with a KV cache, compiled."""
    n = len(how["keys"] if "keys" in how else how["noise"])
    adjust = how.pop("adjust", lambda logits: logits)
    step = lambda how: decoding.decode(  # noqa: E731
        gpt.decoding_step(cfg, params), gpt.empty_cache(cfg, n), cfg.length, adjust=adjust, **how
    )
    return jax.jit(step)(how)


def started(alg):
    """The state after `init`."""
    return jax.jit(alg.init)(jax.random.key(0), {name: space.zeros(1) for name, space in alg.reads.items()})


def all_strings(cfg: gpt.Config):
    return jnp.array(list(itertools.product(range(cfg.vocab), repeat=cfg.length)), jnp.int32)


def recomputing_step(cfg: gpt.Config, params):
    """The model without a KV cache, under the contract of `decoding`: its "cache" is the string so far."""

    def step(tokens, token, t):
        tokens = jnp.where((jnp.arange(cfg.length) == t - 1)[None, :], token[:, None], tokens)
        return jax.lax.dynamic_index_in_dim(gpt.logits(cfg, params, tokens), t, axis=1, keepdims=False), tokens

    return step


# ---- the density -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", chosen(ARCHITECTURES, ["gpt2", "everything"]))
def test_probabilities_of_all_strings_sum_to_one(name):
    """|sum over 3^6 strings - 1| <= 1e-5. A leak of one token makes it wrong by order 1."""
    cfg = shaped(name, vocab=3, length=6, layers=2, width=16)
    params = perturbed(cfg)
    nats = log_prob(cfg, params, all_strings(cfg))
    assert nats.std() > 1.0  # not the uniform law, which any network with zero logits has
    assert abs(np.exp(np.asarray(nats, np.float64)).sum() - 1.0) <= 1e-5


def test_ended_strings_and_those_that_go_on_sum_to_one():
    """With token 2 for the end: all strings that end within 6 tokens, and all without an end, have mass 1 to 1e-5."""
    cfg = shaped("gpt2", vocab=3, length=6, layers=2, width=16)
    params, mass = perturbed(cfg), []
    for size in range(1, 7):
        text = np.array(list(itertools.product(range(2), repeat=size - 1)), np.int32).reshape(2 ** (size - 1), size - 1)
        ended = np.concatenate([text, np.full((len(text), 1), 2, np.int32)], axis=1)
        mass.append(np.exp(np.asarray(log_prob(cfg, params, ended), np.float64)).sum())
    going_on = np.array(list(itertools.product(range(2), repeat=6)), np.int32)
    mass.append(np.exp(np.asarray(log_prob(cfg, params, going_on), np.float64)).sum())
    assert min(mass) > 1e-3 and abs(sum(mass) - 1.0) <= 1e-5


@pytest.mark.parametrize("documents", [False, True])
@pytest.mark.parametrize("tokens", chosen([8, 13, 31], [13]))
def test_a_window_in_blocks_is_the_masked_whole(tokens, documents):
    """Values and gradients of queries, keys and values: 1e-6."""
    keys, n, window = jax.random.split(jax.random.key(tokens), 4), 4, 4
    q = jax.random.normal(keys[0], (n, 2, tokens, 8))
    k, v, weight = (jax.random.normal(key, (n, tokens, 8)) for key in keys[1:])
    segments = jnp.asarray(np.sort(np.random.default_rng(0).integers(0, 3, (n, tokens)), axis=1)) if documents else None
    distance = jnp.arange(tokens)[:, None] - jnp.arange(tokens)[None, :]
    mask = ((distance >= 0) & (distance < window))[None]
    if documents:
        mask &= segments[:, :, None] == segments[:, None, :]
    score = lambda y: (y * weight[:, None]).sum()  # noqa: E731
    whole = lambda q, k, v: score(attend(scaled_scores(q, k), v, mask))  # noqa: E731
    blocks = lambda q, k, v: score(attend_in_blocks(q, k, v, window, segments))  # noqa: E731
    expected, found = (jax.jit(jax.value_and_grad(f, argnums=(0, 1, 2)))(q, k, v) for f in (whole, blocks))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected)


def test_no_array_of_a_windowed_gpt_grows_with_the_square_of_the_length():
    """The compiled gradient at 512 tokens and a window of 16 holds no array with two axes of 512."""
    cfg = shaped("window_rope", vocab=17, length=512, layers=1, width=16, window=16)
    gradient = jax.grad(lambda params, tokens: log_prob(cfg, params, tokens).sum())
    shapes = jax.eval_shape(lambda: perturbed(cfg)), jax.ShapeDtypeStruct((2, 512), jnp.int32)
    hlo = jax.jit(gradient).lower(*shapes).compile().as_text()
    assert not re.search(r"\[[\d,]*512,512[\d,]*\]", hlo) and "[2,512,17]" in hlo


def test_no_mask_of_dropout_is_used_twice(monkeypatch):
    """Two branches of each of two layers, and the embeddings: of five draws no two have the same key and number."""
    used, dropout = [], gpt.network.dropout

    def recorded(cfg, x, keys, draw):
        used.append((jax.random.key_data(keys).tobytes(), draw))
        return dropout(cfg, x, keys, draw)

    cfg = shaped("gpt2", vocab=7, length=12, layers=2, width=16, dropout=0.5)
    params, tokens = perturbed(cfg), tokens_of(cfg, 4)
    monkeypatch.setattr(gpt.network, "dropout", recorded)
    gpt.log_prob(cfg, params, tokens, keys=jax.random.split(jax.random.key(0), 4))
    assert len(used) == len(set(used)) == 5


def test_dropout_is_of_each_example_and_of_training_alone():
    """A share of 0.5: half of the entries are zero, the others twice as large, so that the mean stays.

    A string's masks are those of its key, whatever stands beside it; without keys nothing is dropped; layers that are
    scanned over or recomputed have the same masks.
    """
    cfg = shaped("gpt2", vocab=7, length=12, layers=2, width=16, dropout=0.5)
    keys, x = jax.random.split(jax.random.key(0), 4), jnp.ones((4, 50, 40))
    dropped = gpt.network.dropout(cfg, x, keys, 0)
    assert set(np.unique(dropped)) == {0.0, 2.0} and abs(float(dropped.mean()) - 1.0) < 0.05
    assert not np.array_equal(dropped, gpt.network.dropout(cfg, x, keys, 1))
    params, tokens = perturbed(cfg), tokens_of(cfg, 4)
    trained = log_prob(cfg, params, tokens, keys=keys)
    assert np.abs(trained - log_prob(cfg, params, tokens)).min() > 1e-3
    plain = dataclasses.replace(cfg, dropout=0.0)
    np.testing.assert_array_equal(log_prob(cfg, params, tokens), log_prob(plain, params, tokens))
    np.testing.assert_allclose(log_prob(cfg, params, tokens[2:], keys=keys[2:]), trained[2:], rtol=1e-5)
    for change in ({"scan": True}, {"remat": "full"}):
        other = log_prob(dataclasses.replace(cfg, **change), params, tokens, keys=keys)
        np.testing.assert_allclose(other, trained, rtol=1e-5)
    step = lambda cfg: jax.jit(gpt.algorithm(cfg, batch_size=4).step)  # noqa: E731
    state = gpt.algorithm(cfg, batch_size=4).init(jax.random.key(1), {"tokens": tokens})
    losses = [float(step(c)(state, {"tokens": tokens}, jax.random.key(2))[1]["loss"]) for c in (cfg, plain)]
    assert abs(losses[0] - losses[1]) > 1e-4


@pytest.mark.parametrize(
    ("name", "dtype"),
    chosen([("gpt2", "bfloat16"), *((name, "float32") for name in ARCHITECTURES)], [("everything", "float32")]),
)
def test_jacobian_is_exactly_zero_for_the_future_and_nowhere_zero_for_the_past(name, dtype):
    """d logits[t] / d input[s]: 0.0, not small, for s > t; not zero for every s <= t. Input s holds token s - 1.

    With a window w, two layers see back to s = t - 2 (w - 1) and exactly no further, unless the second has none.
    """
    cfg = shaped(name, vocab=7, length=12, layers=2, width=16, dtype=dtype)
    params = perturbed(cfg)
    x = gpt.GPT(cfg).apply({"params": params}, tokens_of(cfg, 1), method="embed")
    trunk = lambda x: gpt.GPT(cfg).apply({"params": params}, x[None], method="trunk")[0][0]  # noqa: E731
    size = jnp.abs(jax.jit(jax.jacrev(trunk))(x[0])).max(axis=(1, 3))  # [t, s]
    past = np.tri(cfg.length, dtype=bool)
    if cfg.window is not None and cfg.global_every is None:
        past &= ~np.tri(cfg.length, k=-2 * (cfg.window - 1) - 1, dtype=bool)
        assert not past[-1, 0]
    assert (np.asarray(size)[~past] == 0.0).all()
    assert (np.asarray(size)[past] > 0.0).all()


def test_a_token_changes_the_logits_after_it_and_no_others():
    """End to end, with the shift by the start vector: logits[: s + 1] are bit-equal, all later ones differ."""
    cfg = gpt.Config(vocab=7, length=10, layers=2, heads=2, width=16)
    params, tokens = perturbed(cfg), tokens_of(cfg, 1)
    before = logits(cfg, params, tokens)[0]
    for s in range(cfg.length):
        after = logits(cfg, params, tokens.at[0, s].set((tokens[0, s] + 1) % cfg.vocab))[0]
        changed = np.asarray((after != before).any(-1))
        np.testing.assert_array_equal(changed, np.arange(cfg.length) > s)


@pytest.mark.parametrize("init", ["gpt2", "zero"])
def test_initial_loss_is_log_vocab(init):
    """-log p / L = ln V within 2 % at initialisation, in nats per token; bits per dimension is the same in bits."""
    cfg = gpt.Config(layers=2, init=init, tied=init == "gpt2")
    params = jax.jit(partial(gpt.init_params, cfg))(jax.random.key(0))
    down = params["block_1"]["down"]["kernel"]
    assert down.std() == pytest.approx({"gpt2": 0.02 / 4**0.5, "zero": 0.0}[init], rel=0.02)
    up = params["block_1"]["up"]["kernel"]
    assert up.std() == pytest.approx({"gpt2": 0.02, "zero": cfg.width**-0.5}[init], rel=0.02)
    loss = exact_likelihood.negative_log_likelihood(
        lambda params, keys, batch: log_prob(cfg, params, batch["tokens"]), cfg.length
    )
    terms = loss(params, None, {"tokens": tokens_of(cfg, 8)})
    assert terms["loss"].shape == (8,)
    np.testing.assert_allclose(terms["loss"], np.log(256), rtol=0.02)
    np.testing.assert_allclose(terms["bits_per_dim"], 8.0, rtol=0.02)


@pytest.mark.slow
def test_learns_a_markov_source_to_its_entropy_and_not_below():
    """Order-2 chain over 8 symbols: (log p_source - log p_model) / L, a KL, in [-4 stderr, 0.01] nats per token."""
    cfg = gpt.Config(
        vocab=8, length=32, layers=2, heads=2, width=32, optim=Optim(lr=1e-2, b2=0.99, warmup=64 * 20, decay=64 * 600)
    )
    rng = np.random.default_rng(0)
    transitions = rng.dirichlet(np.full(8, 0.3), size=(8, 8))
    law = np.log(transitions)

    def draw(n):
        x = np.zeros((n, cfg.length), np.int32)
        x[:, :2] = rng.integers(0, 8, (n, 2))
        cumulative = transitions.cumsum(-1)
        for t in range(2, cfg.length):
            x[:, t] = (rng.random((n, 1)) > cumulative[x[:, t - 2], x[:, t - 1], :7]).sum(-1)
        return x

    alg = gpt.algorithm(cfg, batch_size=64)
    state, step = started(alg), jax.jit(alg.step, donate_argnums=0)
    for i in range(600):
        state, _ = step(state, {"tokens": draw(64)}, jax.random.key(i))
    x = draw(4096)
    source = -2 * np.log(8) + law[x[:, :-2], x[:, 1:-1], x[:, 2:]].sum(-1)
    gap = (source - np.asarray(log_prob(cfg, state.params, x))) / cfg.length
    assert -4 * gap.std() / 64 <= gap.mean() <= 0.01


@pytest.mark.slow
def test_learns_to_copy():
    """The second half of a string repeats its first half, which is random: the copy is right in over 99 %."""
    cfg = gpt.Config(
        **{"vocab": 8, "length": 24, "layers": 2, "heads": 2, "width": 32, "positions": "rope", "norm": "rms"},
        optim=Optim(lr=1e-2, b2=0.99, warmup=64 * 50, decay=64 * 600),
    )
    rng = np.random.default_rng(0)
    draw = lambda n: {"tokens": np.tile(rng.integers(0, 8, (n, 12), np.int32), 2)}  # noqa: E731
    alg = gpt.algorithm(cfg, batch_size=64)
    state, step = started(alg), jax.jit(alg.step, donate_argnums=0)
    for i in range(600):
        state, _ = step(state, draw(64), jax.random.key(i))
    tokens = draw(512)["tokens"]
    right = np.asarray(logits(cfg, state.params, tokens).argmax(-1) == tokens)
    assert right[:, 12:].mean() > 0.99
    assert right[:, :12].mean() < 0.2  # nothing leaks


# ---- the KV cache ----------------------------------------------------------------------------------------------------


CACHED = [("gpt2", 5, "float32"), ("gpt2", 1, "bfloat16"), *((name, 1, "float32") for name in ARCHITECTURES)]


@pytest.mark.parametrize(("name", "n", "dtype"), chosen(CACHED, [("gpt2", 5, "float32"), ("everything", 1, "float32")]))
def test_cached_logits_equal_uncached(name, n, dtype):
    """256 positions, the cache filled one token at a time: max |difference| <= 1e-5 in float32, 2e-2 in bfloat16.

    A window is a ring that wraps around many times. The cache has the dtype of the computation: regression of
    nanochat#795.
    """
    tolerance = {"float32": 1e-5, "bfloat16": 2e-2}[dtype]
    cfg = shaped(name, vocab=17, length=256, layers=2, width=32, dtype=dtype)
    params, tokens = perturbed(cfg, 0.1), tokens_of(cfg, n)
    step = gpt.decoding_step(cfg, params)
    previous = jnp.roll(tokens, 1, axis=1)  # position 0 is handed a token that does not exist, and must ignore it

    def body(cache, inputs):
        logits, cache = step(cache, *inputs)
        return cache, logits

    _, cached = jax.jit(jax.lax.scan, static_argnums=0)(
        body, gpt.empty_cache(cfg, n), (previous.T, jnp.arange(cfg.length))
    )
    whole = logits(cfg, params, tokens)
    assert whole.std() > 0.5
    assert all(leaf.dtype == dtype for leaf in jax.tree.leaves(gpt.empty_cache(cfg, n)))
    np.testing.assert_allclose(jnp.moveaxis(cached, 0, 1), whole, rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    "name", chosen(["gpt2", "everything", "window_rope", "window_global", "chunked"], ["everything"])
)
def test_kv_cache_does_not_change_the_text(name):
    """256 strings, shared Gumbel noise, any prompt length: the same tokens, one by one, with and without a cache.

    Four prompt lengths make 1,024 strings of each model. Regression: nanoGPT#613.
    """
    cfg = shaped(name, vocab=17, length=32, layers=2, width=32)
    params, n = perturbed(cfg, 0.3 if name == "gpt2" else 0.15), 256
    noise = jnp.asarray(np.random.default_rng(5).gumbel(size=(n, cfg.length, cfg.vocab)), jnp.float32)
    empty = jnp.zeros((n, cfg.length), jnp.int32)
    cached = jax.jit(lambda prompt: generate(cfg, params, noise=noise, prompt=prompt))
    uncached = jax.jit(
        lambda prompt: decoding.decode(recomputing_step(cfg, params), empty, cfg.length, noise=noise, prompt=prompt)
    )
    for length in (0, 1, 7, 31):
        prompt = jnp.where((jnp.arange(cfg.length) < length)[None, :], tokens_of(cfg, n), -1)
        text = cached(prompt)
        np.testing.assert_array_equal(text, uncached(prompt))
        np.testing.assert_array_equal(text[:, :length], prompt[:, :length])
        assert len(np.unique(text[:, length:], axis=0)) > 10


@pytest.mark.parametrize("name", chosen(["gpt2", "qwen2", "window_rope", "chunked"], ["chunked"]))
@pytest.mark.parametrize("count", [1, 7, 31])
def test_prefill_equals_one_token_at_a_time(name, count):
    """The cache after `count` tokens at once, padded to 31, gives the next logits that the whole string has: 1e-5."""
    cfg = shaped(name, vocab=17, length=32, layers=2, width=32)
    params, tokens = perturbed(cfg, 0.1), tokens_of(cfg, 5)
    cache = gpt.prefill(cfg, params, gpt.empty_cache(cfg, 5), tokens[:, :31], count)
    step = jax.jit(gpt.decoding_step(cfg, params))
    whole = logits(cfg, params, tokens)
    for t in range(count, 32):
        each, cache = step(cache, tokens[:, t - 1], jnp.asarray(t))
        np.testing.assert_allclose(each, whole[:, t], rtol=0, atol=1e-5)


def test_completions_of_prompts_of_any_length():
    """Greedy: what recomputing gives, for prompts of 0 to 12 tokens at once; samples of one prompt follow their own
    noise; lengths of one bucket share one compilation."""
    cfg = shaped("window_rope", vocab=17, length=40, layers=2, width=32)
    params = perturbed(cfg)
    texts = tokens_of(cfg, 5)
    greedy = partial(decoding.top_k, k=1)
    for sizes in ([3, 12, 5, 7], [0, 4]):
        prompts = [np.asarray(text[:size]) for text, size in zip(texts, sizes, strict=False)]
        out = complete(cfg, params, prompts, 8, jax.random.key(0), samples=2, adjust=greedy)
        assert out.shape == (len(sizes), 2, 8)
        for prompt, both in zip(prompts, out, strict=True):
            text = np.zeros((1, cfg.length), np.int32)
            text[0, : len(prompt)] = prompt
            for t in range(len(prompt), len(prompt) + 8):
                text[0, t] = logits(cfg, params, text)[0, t].argmax()
            np.testing.assert_array_equal(both, np.tile(text[:, len(prompt) : len(prompt) + 8], (2, 1)))
    before = completion._complete._cache_size()
    for size in (5, 9, 16):
        free = complete(cfg, params, [texts[0, :size]], 12, jax.random.key(1), samples=3)
        assert len(np.unique(free[0], axis=0)) == 3
    assert completion._complete._cache_size() == before + 1


def test_completions_end_with_a_stop_token():
    """As without one up to the first that is drawn, then filled; a stop token in the prompt ends nothing."""
    cfg = shaped("gpt2", vocab=5, length=24, layers=1, width=16)
    params, prompts = perturbed(cfg), [[1, 2, 1], [2], []]
    run = partial(complete, params=params, prompts=prompts, new=16, key=jax.random.key(0), samples=8)
    free, stopped = run(cfg), run(cfg, stop=2)
    drawn = np.cumsum(free == 2, axis=-1) > 0
    np.testing.assert_array_equal(stopped, np.where(drawn, 2, free))
    assert drawn.any(-1).sum() > 8 and (free[drawn] != 2).any() and (~drawn[0]).any()
    np.testing.assert_array_equal(run(dataclasses.replace(cfg, stop=2)), stopped)
    several = run(cfg, stop=(4, 2))
    ended = np.isin(free, (4, 2))
    before = np.cumsum(ended, axis=-1) - ended == 0  # up to the first of them, included
    np.testing.assert_array_equal(several, np.where(before, free, 4))
    assert (free[before] == 2).any() and (free[before] == 4).any()
    np.testing.assert_array_equal(run(dataclasses.replace(cfg, stop=(4, 2))), several)
    for wrong, words in ((5, "stop=5"), ((1, 5), "stop=1, 5"), ((), "stop="), (-1, "stop=-1")):
        with pytest.raises(ValueError, match=words):
            run(cfg, stop=wrong)


def test_completions_of_labels():
    """Greedy: each prompt continues under its own label, as recomputing gives; labels are checked first."""
    cfg = gpt.Config(vocab=17, length=16, layers=1, heads=2, width=16, classes=3, **gpt.LLAMA)
    params, labels = perturbed(cfg), np.array([2, 0, 1], np.int32)
    params["label"] *= 3  # so that each label has its own text
    greedy = dataclasses.replace(cfg, top_k=1)
    drawn = complete(greedy, params, [[1, 2]] * 3, 6, jax.random.key(0), samples=2, label=labels)
    text = np.tile(np.array([[1, 2] + [0] * 14], np.int32), (3, 1))
    for t in range(2, 8):
        text[:, t] = logits(cfg, params, text, labels)[:, t].argmax(-1)
    np.testing.assert_array_equal(drawn, np.repeat(text[:, None, 2:8], 2, axis=1))
    assert len(np.unique(drawn[:, 0], axis=0)) == 3
    for wrong, message in ((None, "classes=3"), (labels[:2], "label has shape"), (labels + 1, "classes=3")):
        with pytest.raises(ValueError, match=message):
            complete(cfg, params, [[1, 2]] * 3, 6, jax.random.key(0), label=wrong)


def script(monkeypatch, capsys, run, *arguments: str) -> str:
    """What experiments/complete.py prints of an opened run."""
    path = Path(__file__).parents[1] / "experiments" / "complete.py"
    spec = importlib.util.spec_from_file_location("complete", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module.opening, "open_run", lambda *_: run)
    monkeypatch.setattr("sys.argv", ["complete.py", "RUN", *arguments])
    module.main()
    return capsys.readouterr().out


@pytest.mark.slow
def test_the_script_stops_and_takes_a_label(monkeypatch, capsys):
    """experiments/complete.py: samples are cut before the stop token, a text or a number; --label chooses the law."""
    cfg = gpt.Config(length=32, layers=1, heads=1, width=8, classes=2)
    params = perturbed(cfg, 0.0)  # the next byte depends on the label alone
    bytes_of = lambda text: jnp.zeros(256).at[np.frombuffer(text.encode(), np.uint8)].set(9.0)  # noqa: E731
    params["label"] = jnp.stack([jnp.eye(8)[0], jnp.eye(8)[1]])
    params["embedding"] = jnp.zeros((256, 8)).at[:, 0].set(bytes_of("ab")).at[:, 1].set(bytes_of("xy\n"))
    source = types.SimpleNamespace(tokenizer=utf8())
    config = types.SimpleNamespace(model=cfg)
    state = State(jnp.zeros((), jnp.int32), params, None, None)
    run = types.SimpleNamespace(config=config, sources={"test": source}, state=state)
    ask = partial(script, monkeypatch, capsys, run, "p.", "--new", "20", "--samples", "5")
    free = ask("--label", "0").split("\n\n")[:-1]
    assert len(free) == 5 and all(set(text[2:]) == {"a", "b"} and len(text) == 22 for text in free)
    assert ask("--label", "0", "--stop", "b").split("\n\n")[:-1] == [text.split("b")[0] for text in free]
    assert ask("--label", "0", "--stop", "98").split("\n\n")[:-1] == [text.split("b")[0] for text in free]
    both = ask("--label", "0", "--stop", "b", "--stop", "a").split("\n\n")[:-1]
    assert both == ["p."] * 5
    assert set(ask("--label", "1", "--stop", "\n")) <= set("p.xy\n")
    assert ask("--label", "1", "--stop", "\n", "--top-k", "1") == ask("--label", "1", "--stop", "10", "--top-k", "1")
    for wrong, message in (
        *((("--stop", "ab"), "2 tokens"), ((), "classes=2"), (("--label", "2"), "classes=2")),
        *((("--length", "32"), "reads 32 tokens already"), (("--seed", "-1"), "--seed -1")),
    ):
        with pytest.raises(SystemExit):
            ask(*wrong, *([] if "--label" in wrong or not wrong else ["--label", "0"]))
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("n", [1, 16])
def test_kv_cache_is_not_copied_per_token(n):
    """No operation inside the compiled loop makes a second array of a cache's size; it is only updated in place."""
    cfg = gpt.Config(vocab=17, length=64, layers=2, heads=4, width=32)
    params = perturbed(cfg)
    sample = lambda params, keys: decoding.decode(  # noqa: E731
        gpt.decoding_step(cfg, params), gpt.empty_cache(cfg, n), cfg.length, keys=keys
    )
    hlo = jax.jit(sample).lower(params, jax.random.split(jax.random.key(0), n)).compile().as_text()
    loop = hlo[: hlo.index("\nENTRY ")]  # what the loop calls; the entry may copy zeros into the empty cache
    made = re.findall(r"= \w+\[([\d,]+)\]\S* (copy|transpose|concatenate|pad|dynamic-update-slice)\(", loop)
    room = n * cfg.length * cfg.width
    big = [name for shape, name in made if np.prod([int(size) for size in shape.split(",")]) == room]
    assert big == ["dynamic-update-slice"] * (2 * cfg.layers)


# ---- packed strings, labels, and how it is compiled -----------------------------------------------------------------


@pytest.mark.parametrize("name", chosen(["gpt2", "qwen2", "chunked", "window_global"], ["qwen2"]))
def test_packed_documents_do_not_see_each_other(name):
    """log p of a packed string is the sum over its documents alone, padding counts nothing: 1e-5. Jacobian: 0.0."""
    cfg = shaped(name, vocab=7, length=12, layers=2, width=16)
    params, tokens = perturbed(cfg, 0.2), tokens_of(cfg, 1)
    segments = jnp.array([[0] * 4 + [1] * 5 + [2] * 1 + [-1] * 2])
    alone = [tokens[:, a:b] for a, b in ((0, 4), (4, 9), (9, 10))]
    expected = sum(log_prob(cfg, params, document) for document in alone)
    np.testing.assert_allclose(log_prob(cfg, params, tokens, None, segments), expected, rtol=1e-5)

    network = gpt.GPT(cfg)
    x = network.apply({"params": params}, tokens, None, segments, method="embed")
    at = gpt.At(jnp.array([[0, 1, 2, 3, 0, 1, 2, 3, 4, 0, 0, 1]]), segments)
    trunk = lambda x: network.apply({"params": params}, x[None], at, method="trunk")[0][0]  # noqa: E731
    size = np.asarray(jnp.abs(jax.jit(jax.jacrev(trunk))(x[0])).max(axis=(1, 3)))
    same = np.asarray(segments[0][:, None] == segments[0][None, :]) & np.tri(12, dtype=bool)
    assert (size[~same] == 0.0).all() and (size[same] > 0.0).all()


def test_a_conditional_model_is_a_density_for_every_label():
    cfg = shaped("gpt2", vocab=3, length=4, layers=1, width=8, classes=2)
    params, strings = perturbed(cfg), all_strings(shaped("gpt2", vocab=3, length=4))
    each = [log_prob(cfg, params, strings, jnp.full(len(strings), label)) for label in (0, 1)]
    for nats in each:
        assert abs(np.exp(np.asarray(nats, np.float64)).sum() - 1.0) <= 1e-5
    assert abs(each[0] - each[1]).max() > 0.1
    alg = gpt.algorithm(cfg, batch_size=4)
    state = started(alg).replace(params=params)
    n = 4000
    drawn = jax.jit(alg.sample, static_argnums=2)(state, jax.random.key(1), n, {"label": jnp.ones(n, jnp.int32)})
    observed = np.bincount(np.asarray(drawn) @ 3 ** np.arange(3, -1, -1), minlength=81)
    expected = n * np.exp(np.asarray(each[1], np.float64))
    kept = expected >= 5
    assert kept.sum() > 30 and observed[~kept].sum() < 40
    observed, expected = observed[kept], expected[kept]
    expected = expected / expected.sum() * observed.sum()
    assert scipy.stats.chisquare(observed, expected).pvalue > 1e-3
    with pytest.raises(ValueError, match="cond=None.*label"):
        alg.sample(state, jax.random.key(1), 7)


@pytest.mark.parametrize("name", chosen(["gpt2", "everything"], ["everything"]))
@pytest.mark.parametrize(
    "how",
    chosen(
        [{"scan": True}, {"remat": "full"}, {"remat": "dots"}, {"scan": True, "remat": "full"}],
        [],  # each compiles two models
    ),
)
def test_scan_and_remat_change_nothing(name, how):
    """Loss to 1e-6, gradients to 1e-6 of the largest, from one tree of parameters, as ordinary runs compile them."""
    cfg = shaped(name, vocab=17, length=16, layers=3, width=32)
    params, tokens = perturbed(cfg, 0.1), tokens_of(cfg, 4)
    loss = lambda cfg, params: -log_prob(cfg, params, tokens).mean()  # noqa: E731
    ordinary = {"xla_backend_optimization_level": 3, "xla_cpu_use_fusion_emitters": True}
    run = jax.jit(jax.value_and_grad(loss, argnums=1), static_argnums=0, compiler_options=ordinary)
    value, grads = run(cfg, params)
    other, others = run(dataclasses.replace(cfg, **how), params)
    np.testing.assert_allclose(other, value, rtol=1e-6)
    largest = max(float(jnp.abs(g).max()) for g in jax.tree.leaves(grads))
    for a, b in zip(jax.tree.leaves(others), jax.tree.leaves(grads), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 * largest)


@pytest.mark.slow
def test_accumulated_micro_batches_are_one_batch():
    """Parameters after an SGD step, and its metrics: 1e-6, with four micro-batches of 2 and with one of 8."""
    cfg = shaped("qwen2", vocab=17, length=12, layers=2, width=32, optim=Optim(name="sgd", lr=0.1))
    tokens, stepped = {"tokens": tokens_of(cfg, 8)}, []
    for accumulate in (1, 4):
        alg = gpt.algorithm(dataclasses.replace(cfg, accumulate=accumulate), batch_size=8)
        state = started(alg).replace(params=perturbed(cfg, 0.1))
        state, metrics = jax.jit(alg.step)(state, tokens, jax.random.key(1))
        stepped.append((state.params, metrics))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), *stepped)


# ---- the samplers ----------------------------------------------------------------------------------------------------


def naive_top_p(p, mass):
    """Most likely tokens until `mass` is reached, one row at a time."""
    kept, total = np.zeros_like(p), 0.0
    for token in sorted(range(len(p)), key=lambda token: -p[token]):
        kept[token] = p[token]
        total += p[token]
        if total >= mass:
            break
    return kept / kept.sum()


def naive_top_k(p, k):
    kept = np.where(p >= np.sort(p)[-k], p, 0.0)
    return kept / kept.sum()


def naive_min_p(p, share):
    kept = np.where(p >= share * p.max(), p, 0.0)
    return kept / kept.sum()


LAWS = {
    "plain": (lambda logits: logits, lambda p: p),
    "temperature": (lambda logits: decoding.temperature(logits, 0.5), lambda p: p**2 / (p**2).sum()),
    "top_k": (lambda logits: decoding.top_k(logits, 2), lambda p: naive_top_k(p, 2)),
    "top_p": (lambda logits: decoding.top_p(logits, 0.8), lambda p: naive_top_p(p, 0.8)),
    "min_p": (lambda logits: decoding.min_p(logits, 0.2), lambda p: naive_min_p(p, 0.2)),
}


@pytest.mark.parametrize("law", chosen(LAWS, ["plain", "top_p"]))
def test_samples_follow_the_enumerated_law(law):
    """Chi-square of 100,000 samples against all 3^4 strings, p > 1e-3; strings cut away are never drawn."""
    adjust, exact = LAWS[law]
    cfg = gpt.Config(vocab=3, length=4, layers=1, heads=2, width=8)
    params, n = perturbed(cfg, 0.25), 100_000
    strings = np.asarray(all_strings(cfg))
    p = np.asarray(jax.nn.softmax(logits(cfg, params, jnp.asarray(strings))), np.float64)
    p = np.apply_along_axis(exact, -1, p / p.sum(-1, keepdims=True))
    expected = n * np.take_along_axis(p, strings[..., None], axis=-1)[..., 0].prod(-1)
    drawn = generate(cfg, params, keys=jax.random.split(jax.random.key(3), n), adjust=adjust)
    observed = np.bincount(np.asarray(drawn) @ 3 ** np.arange(3, -1, -1), minlength=81)
    assert observed[expected == 0].sum() == 0
    assert (law in ("plain", "temperature")) == (expected > 0).all()  # a truncated law is one that cuts something
    rare = expected < 5
    bins = [np.append(x[~rare], x[rare].sum()) for x in (observed, expected)]
    observed, expected = (x[bins[1] > 0] for x in bins)
    assert len(expected) >= 10
    assert scipy.stats.chisquare(observed, expected).pvalue > 1e-3


def test_the_algorithm_samples_with_the_averaged_parameters():
    """`sample` is `decode` with one key per example, from the parameters that `log_prob` evaluates."""
    cfg = gpt.Config(vocab=5, length=6, layers=1, heads=1, width=8, ema_halflife=100.0)
    alg = gpt.algorithm(cfg, batch_size=4)
    state = State(jnp.zeros((), jnp.int32), perturbed(cfg, seed=1), None, perturbed(cfg))
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(1), i))(jnp.arange(7))
    noise = jnp.stack([decoding.gumbel(keys, t, cfg.vocab) for t in range(cfg.length)], axis=1)
    expected = decoding.decode(recomputing_step(cfg, state.ema), jnp.zeros((7, 6), jnp.int32), 6, noise=noise)
    drawn = jax.jit(alg.sample, static_argnums=2)(state, jax.random.key(1), 7)
    assert drawn.dtype == jnp.int32
    np.testing.assert_array_equal(drawn, expected)
    value = jax.jit(alg.log_prob)(state, {"tokens": drawn}, jax.random.key(0))
    assert value.kind == "exact"
    np.testing.assert_allclose(value.nats, log_prob(cfg, state.ema, drawn), rtol=1e-6)


@pytest.mark.slow
def test_the_options_of_sampling_are_those_of_decoding():
    """`sample` with every option = `decode` with the same law and stop token; no parameter, no likelihood changes."""
    cfg = gpt.Config(vocab=5, length=6, layers=1, heads=1, width=8)
    changed = dataclasses.replace(cfg, temperature=0.7, top_k=4, top_p=0.9, min_p=0.05, stop=2)
    assert set(gpt.FAMILY.sampling) == {
        f.name for f in dataclasses.fields(cfg) if getattr(cfg, f.name) != getattr(changed, f.name)
    }
    plain, alg = (gpt.algorithm(each, batch_size=4) for each in (cfg, changed))
    state = started(plain).replace(params=perturbed(cfg))
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(1), i))(jnp.arange(64))
    law = lambda x: decoding.min_p(decoding.top_p(decoding.top_k(decoding.temperature(x, 0.7), 4), 0.9), 0.05)  # noqa: E731
    expected = generate(cfg, state.params, keys=keys, adjust=law, stop=2)
    drawn = jax.jit(alg.sample, static_argnums=2)(state, jax.random.key(1), 64)
    np.testing.assert_array_equal(drawn, expected)
    assert (drawn != jax.jit(plain.sample, static_argnums=2)(state, jax.random.key(1), 64)).any()
    batch = {"tokens": drawn}
    np.testing.assert_array_equal(*(a.log_prob(state, batch, jax.random.key(0)).nats for a in (alg, plain)))


@pytest.mark.parametrize("last", [None, 9])
def test_a_string_ends_with_its_stop_token(last):
    """Up to the first drawn stop token nothing changes, after it there is no other; given tokens stay and end nothing.

    The law of the toy model depends on the token before, so that a string that went on would be seen.
    """
    n, length, stop, end = 64, 12, 3, last or 12
    law = jax.random.normal(jax.random.key(0), (4, 4))
    step = lambda cache, token, t: (law[jnp.where(t == 0, 0, token)], cache)  # noqa: E731
    run = jax.jit(partial(decoding.decode, step, None, length, last=last))
    keys = jax.random.split(jax.random.key(1), n)
    prompt = jnp.full((n, length), -1).at[:, 1].set(stop).at[: n // 2, 7].set(1)
    free, stopped = np.asarray(run(keys=keys, prompt=prompt)), np.asarray(run(keys=keys, prompt=prompt, stop=stop))
    drawn = (prompt < 0) & (free == stop)
    before = np.cumsum(drawn, axis=1) - drawn == 0  # until the first drawn stop token, included
    inside = np.arange(length)[None] < end
    np.testing.assert_array_equal(stopped[before & inside], free[before & inside])
    after = ~before & inside
    np.testing.assert_array_equal(stopped[after], np.where(prompt < 0, stop, prompt)[after])
    assert (stopped[~np.broadcast_to(inside, after.shape)] == np.maximum(prompt, 0)[:, end:].ravel()).all()
    assert after.any(1).sum() > 20 and before[:, end - 1].sum() > 2  # some end, some do not


def test_the_loop_ends_when_every_string_has_stopped():
    """Steps of the model = the position of the last first stop token + 1; all of them where one string goes on."""
    taken, n, length = [], 8, 64
    ends = jnp.array([3, 0, 5, 9, 2, 1, 4, 7])

    def step(cache, token, t):
        jax.debug.callback(lambda t: taken.append(int(t)), t)
        return 100.0 * jax.nn.one_hot(jnp.where(t == cache, 2, 1), 3), cache

    run = jax.jit(lambda ends: decoding.decode(step, ends, length, noise=jnp.zeros((n, length, 3)), stop=2))
    expected = np.where(np.arange(length)[None] < ends[:, None], 1, 2)
    np.testing.assert_array_equal(run(ends), expected)
    jax.effects_barrier()
    assert sorted(taken) == list(range(10))
    taken.clear()
    run(ends.at[0].set(length))
    jax.effects_barrier()
    assert sorted(taken) == list(range(length))


def test_adjusted_laws_at_their_ends():
    """top_k 1 = tiny top_p = the mode; top_k V, top_p 1 and temperature 1 change nothing; ties keep exactly k."""
    logits = jax.random.normal(jax.random.key(0), (50, 9))
    mode = jax.nn.one_hot(logits.argmax(-1), 9)
    np.testing.assert_array_equal(jax.nn.softmax(decoding.top_k(logits, 1)), mode)
    np.testing.assert_array_equal(jax.nn.softmax(decoding.top_p(logits, 1e-6)), mode)
    for same in (decoding.top_k(logits, 9), decoding.top_p(logits, 1.0), decoding.temperature(logits, 1.0)):
        np.testing.assert_array_equal(same, logits)
    np.testing.assert_array_equal(jnp.isfinite(decoding.top_k(jnp.zeros(9), 4)), np.arange(9) < 4)


def test_top_p_of_one_drops_no_token():
    """Of 50,000 with a long tail, where the sum of the more likely ones rounds to 1 before the last; compiled too."""
    logits = 4.0 * jax.random.normal(jax.random.key(0), (4, 50_000))
    np.testing.assert_array_equal(decoding.top_p(logits, 1.0), logits)
    np.testing.assert_array_equal(jax.jit(decoding.top_p)(logits, 1.0), logits)
    assert not np.isfinite(decoding.top_p(logits, 0.999)).all()


@pytest.mark.parametrize("value", [jnp.nan, jnp.inf])
def test_tokens_without_a_law_are_marked(value):
    """A token whose logits are not finite is -1, whatever the law to draw from; the others are as they were."""
    law = decoding.Law(temperature=0.7, top_k=4, top_p=0.9)

    def step(cache, token, t):
        logits = jnp.zeros((3, 5)).at[1, 2].set(jnp.where(t == 1, value, 0.0))
        return logits, cache

    fine = lambda cache, token, t: (jnp.zeros((3, 5)), cache)  # noqa: E731
    keys = jax.random.split(jax.random.key(0), 3)
    broken, whole = (decoding.decode(each, None, 4, keys=keys, adjust=law, stop=4) for each in (step, fine))
    assert broken[1, 1] == -1
    broken = broken.at[1].set(whole[1])
    np.testing.assert_array_equal(broken, whole)


def test_a_prompt_forces_its_own_tokens_and_no_others():
    """Forcing what would be drawn anyway changes nothing; a forced token changes only what comes after it."""
    cfg = gpt.Config(vocab=17, length=8, layers=1, heads=2, width=16)
    params, keys = perturbed(cfg), jax.random.split(jax.random.key(0), 64)
    text = generate(cfg, params, keys=keys)
    run = jax.jit(lambda prompt: generate(cfg, params, keys=keys, prompt=prompt))
    free = np.random.default_rng(0).random(text.shape) < 0.5
    np.testing.assert_array_equal(run(jnp.where(free, -1, text)), text)
    other = (text[:, 3] + 1) % cfg.vocab
    changed = run(jnp.full_like(text, -1).at[:, 3].set(other))
    np.testing.assert_array_equal(changed[:, :3], text[:, :3])
    np.testing.assert_array_equal(changed[:, 3], other)
    assert (changed[:, 4:] != text[:, 4:]).any(-1).mean() > 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": 3}, "heads=3"),
        ({"length": 0}, "length=0"),
        ({"dtype": "float16"}, "dtype='float16'"),
        ({"heads": 4, "kv_heads": 3}, "kv_heads=3"),
        ({"window": 0}, "window=0"),
        ({"accumulate": 0}, "accumulate=0"),
        ({"global_every": 2}, "set window"),
        ({"global_every": 2, "window": 4, "scan": True}, "scan=False"),
        ({"init": "zero"}, "tied=False"),
        ({"norm": "batch"}, "norm='batch'"),
        ({"chunk": 4, "trained": 8}, "positions='rope'"),
        ({"positions": "rope", "chunk": 8, "trained": 8}, "chunk=8"),
        ({"positions": "rope", "scaling": rope.Scaling("yarn", 4.0)}, "scaling.original=0"),
        ({"positions": "rope", "scaling": rope.Scaling("half", 4.0)}, "scaling.kind='half'"),
        ({"positions": "rope", "scaling": rope.Scaling("ntk", 0.5)}, "scaling.factor=0.5"),
        ({"shape": (8, 8, 1), "length": 63}, "length=63"),
        ({"shape": (8, 8, 1), "vocab": 257}, "vocab=257"),
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"top_k": 257}, "top_k=257"),
        ({"min_p": 1.5}, "min_p=1.5"),
        ({"stop": 256}, "stop=256"),
        ({"stop": (1, 256)}, "stop=1, 256"),
        ({"stop": ()}, "stop="),
        ({"head_dim": 0}, "head_dim=0"),
        ({"head_dim": 5, "positions": "rope"}, "head_dim"),
        ({"positions": "rope", "scaling": rope.Scaling("llama3", 8.0, 0, 4.0)}, "scaling.original=0"),
        ({"positions": "rope", "scaling": rope.Scaling("llama3", 8.0, 64, 1.0)}, "scaling.slow=1.0"),
        ({"positions": "rope", "width": 12, "heads": 4}, "odd"),
    ],
)
def test_a_bad_config_is_one_clear_error(change, message):
    with pytest.raises(ValueError, match=message):
        gpt.algorithm(gpt.Config(**change), batch_size=8)


def test_a_diverged_model_completes_nothing():
    cfg = gpt.Config(vocab=5, length=16, layers=1, heads=1, width=8)
    params = jax.tree.map(lambda p: p * jnp.nan, perturbed(cfg))
    with pytest.raises(ValueError, match="2 of 2 samples hold tokens that no probabilities were given for"):
        complete(cfg, params, [[1, 2]], 3, jax.random.key(0), samples=2)


def test_bad_prompts_are_refused_before_anything_compiles():
    cfg = gpt.Config(vocab=5, length=8)
    run = lambda *prompts, new=2: complete(cfg, None, prompts, new, jax.random.key(0))  # noqa: E731
    with pytest.raises(ValueError, match="vocab=5"):
        run([1, 5])
    with pytest.raises(ValueError, match="vocab=5"):
        run([1, -1])
    with pytest.raises(ValueError, match="length=8"):
        run([1] * 7)
    with pytest.raises(ValueError, match="new=0"):
        run([1], new=0)


def test_labels_that_are_missing_or_too_many_are_named():
    tokens, label = jnp.zeros((2, 8), jnp.int32), jnp.zeros(2, jnp.int32)
    plain, conditional = gpt.Config(length=8), gpt.Config(length=8, classes=3)
    with pytest.raises(ValueError, match="unconditional"):
        gpt.log_prob(plain, None, tokens, label)
    with pytest.raises(ValueError, match="classes=3.*label"):
        gpt.log_prob(conditional, None, tokens)
    for wrong in (label + 3, label - 1):
        with pytest.raises(ValueError, match="classes=3"):
            gpt.log_prob(conditional, None, tokens, wrong)
    with pytest.raises(ValueError, match=r"label has shape \(1,\)"):
        gpt.log_prob(conditional, None, tokens, label[:1])
    with pytest.raises(ValueError, match="classes=3.*label"):
        gpt.decoding_step(conditional, None)


def test_tokens_and_positions_that_a_lookup_would_clip_are_refused():
    """Tokens outside the vocabulary, where they are known; positions past the length, compiled or not."""
    cfg = gpt.Config(vocab=5, length=8)
    whole, params = jnp.zeros((2, 8), jnp.int32), jax.eval_shape(lambda: perturbed(cfg))
    for wrong in (whole + 5, whole - 1):
        with pytest.raises(ValueError, match="vocab=5"):
            gpt.logits(cfg, None, wrong)
        with pytest.raises(ValueError, match="vocab=5"):
            gpt.prefill(cfg, None, None, wrong, 2)
    longer = jax.ShapeDtypeStruct((2, 9), jnp.int32)
    with pytest.raises(ValueError, match="9 tokens, but length=8"):
        jax.eval_shape(partial(gpt.log_prob, cfg), params, longer)
    with pytest.raises(ValueError, match="9 tokens, but length=8"):
        gpt.empty_cache(cfg, 2, 9)
    with pytest.raises(ValueError, match="9 tokens, but length=8"):
        jax.eval_shape(partial(gpt.prefill, cfg), params, gpt.empty_cache(cfg, 2), longer, 9)
    with pytest.raises(ValueError, match="tokens has shape"):
        gpt.logits(cfg, None, whole[0])
    with pytest.raises(ValueError, match="segments has shape"):
        gpt.logits(cfg, None, whole, None, whole[:, :4])
    with pytest.raises(ValueError, match="tokens are float32"):
        jax.eval_shape(partial(gpt.log_prob, cfg), params, jnp.zeros((2, 8)))


@pytest.mark.parametrize(
    ("law", "value"),
    [("temperature", 0.0), ("top_k", 0), ("top_k", 6), ("top_p", 0.0), ("top_p", 1.5), ("min_p", 2.0), ("min_p", 0.0)],
)
def test_laws_that_leave_no_token_are_refused(law, value):
    with pytest.raises(ValueError, match=f"{law}={value}"):
        getattr(decoding, law)(jnp.zeros(5), value)


def test_decode_wants_exactly_one_source_of_noise():
    with pytest.raises(ValueError, match="exactly one"):
        decoding.decode(lambda *_: None, None, 4)
    with pytest.raises(ValueError, match="does not fit"):
        decoding.decode(lambda *_: None, None, 4, noise=jnp.zeros((1, 4, 3)), prompt=jnp.zeros((1, 5), jnp.int32))
