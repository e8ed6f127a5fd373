"""The page says what the cards say: kinds apart, findings from the numbers, every number kept, nothing executed."""

import csv
import json
import math
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pyarrow.parquet
import pytest
from evaluated_runs import SPACES, density, interval, make_ablation, make_run, quality
from PIL import Image

from genmap_jax.report import map_picture, page, pictures
from genmap_jax.report.comparison import bodies, likelihood_cell
from genmap_jax.report.findings import findings, headline
from genmap_jax.report.map_layout import PLACE, Box, layout
from genmap_jax.report.numbers import Quantity, digits, plus_minus
from genmap_jax.report.rows import read
from genmap_jax.report.tables import COLUMNS, long_rows
from genmap_jax.spaces import images, vectors

VAE = dict(system="VAE", continent="approximate", objective="ELBO")
EBM = dict(system="EBM", continent="approximate", objective="contrastive divergence")
GPT = dict(system="GPT", continent="tractable", objective="exact likelihood")
FLOW = dict(system="Flow", continent="tractable", objective="exact likelihood")


def four_families(root, drawn=False):
    """One of each kind, the bound and the estimate with fewer bits than the exact number."""
    bound, exact, estimate = density("lower_bound", 1.2), density("exact", 1.7), density("estimate", 1.1)
    return [
        make_run(root, "gan_digits", metrics=quality(1.3), drawn=drawn),
        make_run(root, "vae_digits", likelihood=bound, metrics=quality(2.4), drawn=drawn, **VAE),
        make_run(root, "gpt_digits", likelihood=exact, metrics=quality(1.1), drawn=drawn, **GPT),
        make_run(root, "ebm_digits", likelihood=estimate, metrics=quality(1.9), drawn=drawn, **EBM),
    ]


def said(folders, topic=""):
    """All findings of the first data set whose topic holds `topic`, as one text."""
    groups = next(iter(read(folders).fields.values()))
    return " ".join(finding.text for finding in findings(groups) if topic in finding.topic)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(page text, its path, folders) of four families, seeds, text, points, an ablation and an unfinished run."""
    root = tmp_path_factory.mktemp("runs")
    toy = {"energy": interval(0.012, 0.004, null=0.001, null_sd=0.002, n=(2000, 2000))}
    folders = four_families(root, drawn=True) + [
        make_run(root, "vae_digits", seed=1, likelihood=density("lower_bound", 1.3), metrics=quality(2.6), **VAE),
        make_run(root, "gpt_pydoc", field="tokens", data="pydoc", likelihood=density("exact", 2.2), drawn=True, **GPT),
        make_run(root, "ebm_toy", field="x", data="toy/moons", metrics=toy, drawn=True, **EBM),
        make_ablation(root, "vae_digits"),
        root / "score_digits_0",
    ]
    (root / "score_digits_0").mkdir()
    path = page.write_page(folders, root / "page" / "map.html")
    return path.read_text(encoding="utf-8"), path, folders


# ---- kinds of likelihood ---------------------------------------------------------------------------------------------


def test_a_gan_has_no_likelihood(whole):
    text, path, folders = whole
    gan = next(g for g in read(folders).groups if g.label == "GAN")
    assert likelihood_cell(gan).text == "none"
    assert "no density" in map_picture.describe([gan])
    with path.with_name("numbers.csv").open() as file:
        quantities = {row["quantity"] for row in csv.DictReader(file) if row["system"] == "GAN"}
    assert "FD-own64" in quantities and not any("likelihood" in q or "log-prob" in q for q in quantities)


def test_sorting_never_puts_a_bound_or_an_estimate_among_exact_numbers(tmp_path):
    groups = read(four_families(tmp_path)).groups
    cells = {g.label: likelihood_cell(g) for g in groups}
    order = sorted(cells, key=lambda label: (cells[label].rank, cells[label].value or math.inf))
    assert order == ["GPT", "VAE", "EBM", "GAN"]  # by bits alone EBM would be first, and VAE before GPT
    assert len({cell.rank for cell in cells.values()}) == 4


def test_findings_rank_within_a_kind_only(tmp_path):
    folders = four_families(tmp_path)
    assert said(folders, "Best exact") == said(folders, "bound on") == said(folders, "estimate of") == ""
    folders.append(make_run(tmp_path, "flow_digits", likelihood=density("exact", 2.1), **FLOW))
    best = said(folders, "likelihood")
    assert "GPT gives held-out data the most probability: 1.700 bits/dim" in best and "Flow follows" in best
    assert "VAE" not in best and "EBM" not in best
    assert "VAE ≤ 1.200 bits/dim" in said(folders, "Not comparable")


def test_an_upper_bound_on_log_p_is_never_best(tmp_path):
    folders = [
        make_run(tmp_path, "vae_digits", likelihood=density("upper_bound", 1.2), **VAE),
        make_run(tmp_path, "ebm_digits", likelihood=density("upper_bound", 1.9), **EBM),
    ]
    assert said(folders, "likelihood") == ""


def test_the_other_bound_stands_beside_an_estimate(tmp_path):
    likelihood = density("estimate", 1.9, upper=density("upper_bound", 1.8))
    report = read([make_run(tmp_path, "ebm_digits", likelihood=likelihood, **EBM)])
    cell = likelihood_cell(report.groups[0])
    assert cell.text == "≈ 1.900 bits/dim" and "≥ 1.800 bits/dim, upper bound on log p" in cell.notes
    assert any("upper bound" in name and "≥ 1.800" in value for name, value, *_ in page.numbers(report.groups[0]))


def test_likelihoods_in_different_units_are_not_ranked(tmp_path):
    folders = [
        make_run(tmp_path, "gpt_digits", likelihood=density("exact", 1.7), **GPT),
        make_run(tmp_path, "flow_digits", likelihood=density("exact", 80.0, unit="nats"), **FLOW),
    ]
    assert said(folders, "Best") == said(folders[:1], "Best") or "likelihood" not in said(folders, "Best exact")
    assert said(folders, "Best exact") == ""
    assert "exact in nats: Flow 80.000 nats" in said(folders, "Not comparable")


# ---- findings follow the numbers -------------------------------------------------------------------------------------


def two(root, first, second, **common):
    """A GAN and a VAE whose cards take `first` and `second`."""
    return [make_run(root, "gan_digits", **(common | first)), make_run(root, "vae_digits", **(common | VAE | second))]


def test_the_sentence_swaps_with_the_numbers(tmp_path):
    good = {"metrics": quality(1.1), "samples_per_second": 10.0, "train_seconds": 200.0}
    fast = {"metrics": quality(2.4), "samples_per_second": 900.0, "train_seconds": 20.0}
    one = said(two(tmp_path / "1", good, fast))
    other = said(two(tmp_path / "2", fast, good))
    assert "GAN comes nearest to the data: FD-own64 1.10" in one and "VAE follows with 2.40" in one
    assert "VAE draws 900 samples/s" in one and "90.0 times slower" in one
    swapped = {"GAN": "VAE", "VAE": "GAN"}
    best = said(two(tmp_path / "3", good, fast), "Best samples")
    assert re.sub("GAN|VAE", lambda m: swapped[m[0]], best) in other


def test_overlapping_intervals_give_no_winner(tmp_path):
    text = said(two(tmp_path, {"metrics": quality(1.1, 0.3)}, {"metrics": quality(1.5, 0.3)}), "Best samples")
    assert "cannot be told apart" in text and "nearest" not in text and "follows" not in text


def test_likelihoods_that_overlap_give_no_winner(tmp_path):
    folders = [
        make_run(tmp_path, "gpt_digits", likelihood=density("exact", 1.70, 0.05), **GPT),
        make_run(tmp_path, "flow_digits", likelihood=density("exact", 1.75, 0.05), **FLOW),
    ]
    text = said(folders, "Best exact")
    assert "cannot be told apart" in text and "most probability" not in text


def test_a_number_without_interval_wins_nothing(tmp_path):
    bare = {name: m | {"low": None, "high": None} for name, m in quality(0.1).items()}
    assert said(two(tmp_path, {"metrics": bare}, {"metrics": quality(2.4)}), "Best samples") == ""


def test_small_differences_in_speed_are_not_called(tmp_path):
    assert said(two(tmp_path / "1", {"samples_per_second": 100.0}, {"samples_per_second": 115.0}), "Fastest") == ""
    assert "VAE" in said(two(tmp_path / "2", {"samples_per_second": 100.0}, {"samples_per_second": 200.0}), "Fastest")


def test_samplers_of_one_speed_share_the_first_place(tmp_path):
    speeds = {"gan_digits": (1000.0, 1.2), "vae_digits": (900.0, 2.4), "ebm_digits": (10.0, 1.3)}
    folders = [make_run(tmp_path, e, samples_per_second=s, metrics=quality(fd)) for e, (s, fd) in speeds.items()]
    text = said(folders, "Fastest")
    assert "GAN (1,000 samples/s) and VAE (900 samples/s) are about equally fast; EBM follows" in text
    assert "No sampler here has clearly better samples than GAN by FD-own64" in text


def test_points_are_judged_by_more_than_mean_and_covariance(tmp_path):
    numbers = {"FD-xy": interval(0.01, 0.005), "KD-xy": interval(0.01, 0.005), "energy": interval(0.2, 0.1)}
    assert headline(read([make_run(tmp_path, "vae_toy", field="x", metrics=numbers)]).groups) == "energy"


def test_the_price_of_quality_is_only_claimed_against_clearly_worse_samples(tmp_path):
    """The best quality is tied: of the tie only who is clearly better than the fastest is named."""
    folders = [
        make_run(tmp_path, "gan_digits", metrics=quality(1.8, 0.2), samples_per_second=1000.0),
        make_run(tmp_path, "ebm_digits", metrics=quality(1.5, 0.2), samples_per_second=100.0, **EBM),
        make_run(tmp_path, "vae_digits", metrics=quality(1.2, 0.2), samples_per_second=10.0, **VAE),
    ]
    text = said(folders, "Fastest")
    assert "VAE, better by FD-own64" in text and "EBM, better" not in text


def test_training_front(tmp_path):
    costs = {"gan_digits": (20, 2.4), "vae_digits": (100, 1.2), "ebm_digits": (300, 2.0)}
    folders = [make_run(tmp_path, e, train_seconds=float(s), metrics=quality(fd)) for e, (s, fd) in costs.items()]
    text = said(folders, "Training cost")
    assert "along GAN (20.0 s, FD-own64 2.40) → VAE (100 s, FD-own64 1.20)" in text
    assert "EBM did not" in text


def test_coverage_against_precision(tmp_path):
    sharp, broad = quality(1.3, precision=0.97, coverage=0.6), quality(1.3, precision=0.8, coverage=0.94)
    text = said(two(tmp_path, {"metrics": sharp}, {"metrics": broad}), "Coverage against")
    assert "GAN has the highest precision (0.970" in text and "VAE the highest coverage (0.940" in text
    missed = said(two(tmp_path / "2", {"metrics": sharp}, {"metrics": broad}), "missed")
    assert "GAN 0.600" in missed and "VAE" not in missed
    assert said(two(tmp_path / "3", {"metrics": sharp}, {"metrics": broad}), "off the data").endswith(
        "for VAE 0.800 [0.780, 0.820]."
    )


def test_memorisation_is_said_with_its_reason(tmp_path):
    flag = {"memorises": True, "memorises_why": "C_T z = -4.1", "metrics": quality(0.9, 0.1)}
    folders = two(tmp_path, flag, {"metrics": quality(2.4)})
    assert said(folders, "Memorisation") == "GAN is flagged as repeating training data: C_T z = -4.1."
    assert "GAN is flagged" in said(folders, "Best samples")


def test_other_extractors_and_sizes_are_not_compared(tmp_path):
    other = {"name": "own64", "hash": "another", "fit": "train split", "accuracy": 0.9}
    folders = two(tmp_path, {"metrics": quality(1.1)}, {"metrics": quality(2.4), "extractor": other})
    assert "nearest" not in said(folders, "Best samples")
    assert "different extractors" in said(folders, "Not comparable")
    assert len(bodies(read(folders).groups)) == 2
    small = {name: m | {"n": [50, 50]} for name, m in quality(2.4).items()}
    assert "nearest" not in said(two(tmp_path / "2", {"metrics": quality(1.1)}, {"metrics": small}), "Best samples")


def test_data_sets_are_not_compared(tmp_path):
    folders = two(tmp_path, {"metrics": quality(1.1)}, {"metrics": quality(2.4), "data": "glyphs"})
    for groups in read(folders).fields.values():
        assert not any("nearest" in f.text or "Fastest" in f.topic for f in findings(groups))


def test_one_run_is_described_and_not_compared(tmp_path):
    topics = {
        f.topic for f in findings(read([make_run(tmp_path, "gan_digits", metrics=quality(1.3, coverage=0.94))]).groups)
    }
    assert topics == {"Sample quality", "Memorisation"}
    poor = make_run(tmp_path, "vae_digits", metrics={}, memorises=None, samples_per_second=None, extractor=None)
    assert findings(read([poor]).groups) == []


def test_scores_are_costs_and_need_an_interval_and_a_direction():
    assert Quantity(2.0, 1.0, 3.0).score == (2.0, 1.0, 3.0)
    assert Quantity(2.0, 1.0, 3.0, better="higher").score == (-2.0, -3.0, -1.0)
    assert Quantity(2.0).score is None and Quantity(58.0, 57.0, 59.0, null=60.0, better="null").score is None


# ---- rows ------------------------------------------------------------------------------------------------------------


def test_seeds_are_aggregated(tmp_path):
    values = {0: 1.87, 1: 1.86, 2: 1.88}
    folders = [
        make_run(tmp_path, "vae_digits", seed=s, likelihood=density("lower_bound", v, 0.004), **VAE)
        for s, v in values.items()
    ]
    (group,) = read(folders[::-1]).groups
    number = group.likelihood
    assert number.value == pytest.approx(1.87) and number.stderr == pytest.approx(0.01 / math.sqrt(3))
    assert number.seeds == tuple(values.items()) and number.kind == "lower_bound"
    half = math.hypot(4.302653 * number.stderr, 0.004)  # Student's t with two degrees of freedom, and the cards' own
    assert (number.low, number.high) == pytest.approx((1.87 - half, 1.87 + half))
    assert group.metrics["FD-own64"].half_width == pytest.approx(0.15)  # seeds agree: never narrower than one card
    assert group.metrics["AuthPct"].low is not None and group.metrics["AuthPct"].stderr == 0


def test_one_seed_keeps_the_interval_of_its_card(tmp_path):
    (group,) = read([make_run(tmp_path, "vae_digits", likelihood=density("lower_bound", 1.87, 0.03), **VAE)]).groups
    number = group.likelihood
    assert (number.low, number.high, number.stderr) == (pytest.approx(1.84), pytest.approx(1.90), None)


def test_another_config_is_another_row(tmp_path):
    one = make_run(tmp_path / "1", "vae_digits", config={"model": {"latent": 16}}, **VAE)
    two = make_run(tmp_path / "2", "vae_digits", config={"model": {"latent": 2}}, seed=1, name="latent2", **VAE)
    assert [g.label for g in read([one, two]).groups] == ["VAE (vae_digits)", "VAE (latent2)"]


def test_one_seed_given_twice_is_an_error(tmp_path):
    folders = [make_run(tmp_path / "1", "vae_digits", **VAE), make_run(tmp_path / "2", "vae_digits", **VAE)]
    with pytest.raises(ValueError, match="one experiment with one seed, 0"):
        read(folders)


def test_digits_follow_the_interval():
    assert Quantity(1.8703, 1.838, 1.902, unit="bits/dim", kind="lower_bound").text == "≤ 1.870 bits/dim"
    assert digits(13764.3, 150.0) == "13,764" and digits(-0.5, 0.02) == "−0.500" and digits(0.0) == "0.00"
    assert digits(34.6487) == "34.6"


def test_a_multiple_needs_a_null_that_is_not_zero():
    assert Quantity(1.2, 1.0, 1.4, null=0.9, null_sd=0.1).floor == "1.33 × floor"
    assert Quantity(0.02, 0.01, 0.03, null=0.001, null_sd=0.004).multiple is None


# ---- files -----------------------------------------------------------------------------------------------------------


def test_csv_and_parquet_hold_every_number(whole):
    _, path, folders = whole
    table = pyarrow.parquet.read_table(path.with_name("numbers.parquet"))
    assert table.column_names == list(COLUMNS)
    rows = table.to_pylist()
    with path.with_name("numbers.csv").open() as file:
        read_back = list(csv.DictReader(file))
    assert len(rows) == len(read_back)
    for one, other in zip(rows, read_back, strict=True):
        for name, kind in COLUMNS.items():
            assert one[name] == (kind(other[name]) if other[name] != "" else None) or (one[name] == other[name] == "")
    found = {(r["experiment"], r["seed"], r["quantity"]): r for r in rows}
    for folder in folders:
        if not (folder / "evaluation").exists():
            continue
        card = json.loads((folder / "evaluation" / "card.json").read_text())
        key = card["experiment"], card["seed"]
        for name, metric in card["metrics"].items():
            row = found[*key, name]
            assert [row[k] for k in ("value", "low", "high", "null", "null_sd")] == [
                metric[k] for k in ("value", "low", "high", "null", "null_sd")
            ]
            assert [row["n_real"], row["n_generated"]] == metric["n"]
            hashed = card["extractor"]["hash"] if name.endswith("-own64") else None
            assert row["extractor_hash"] == hashed
        if card["likelihood"]:
            row = found[*key, "likelihood"]
            assert (row["value"], row["kind"]) == (card["likelihood"]["value"], card["likelihood"]["kind"])
        for name in ("parameters", "train_seconds", "samples_per_second", "evaluations"):
            assert found[*key, name]["value"] == card[name]
    assert found["vae_digits:latent_2", 1, "likelihood"]["value"] == 2.297
    assert found["vae_digits:latent_2", 1, "likelihood"]["kind"] == "lower_bound"


def test_the_page_refers_to_nothing_outside(whole):
    text, path, _ = whole
    for source in (text, path.with_name("map.svg").read_text()):
        without_names = re.sub(r'xmlns(:\w+)?="[^"]*"', "", source.replace("https://arxiv.org/abs/1406.2661", ""))
        assert not re.search(r"https?:|//\w+\.\w", re.sub(r"base64,[^\"]*", "", without_names))
    assert "default-src 'none'" in text
    assert len(text.encode()) < 3_000_000


def test_ids_are_unique_and_references_lead_somewhere(whole):
    text, _, _ = whole
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert len(ids) == len(set(ids))
    for reference in re.findall(
        r'href="#([^"]*)"|aria-(?:labelledby|describedby|controls)="([^"]*)"|url\(#([^)]*)\)', text
    ):
        assert "".join(reference) in ids  # fmt: skip


def test_unfinished_runs_are_named_and_ablations_shown(whole):
    text, _, _ = whole
    assert "Not finished" in text and "score_digits_0" in text
    assert "python experiments/vae_digits.py --ablation all --seeds 3" in text
    assert "2.3027 ± 0.0038" in text and "+0.4340 ± 0.0015" in text
    assert "model.latent=2" in text and "0.0021" in text  # what a variant changes, and what real data scores


def test_an_ablation_says_where_a_number_is_missing(tmp_path):
    folder = make_ablation(tmp_path, "vae_digits")
    said = json.loads((folder / "ablation.json").read_text())
    said["table"]["latent_2"] = {"likelihood": [math.nan, 2.297, 2.310], "energy": [math.nan] * 3}
    (folder / "ablation.json").write_text(json.dumps(said))
    report = read([folder])
    rows = {name: cells for name, _, cells in report.ablations[0].rows}
    assert rows["latent_2"] == ["none for 1 of 3 seeds", "", "none", ""]
    assert rows["beta_4"][1].startswith("+0.09333 ±") and rows["real data"] == ["", "", "0.0021", ""]
    assert sum(row["experiment"] == "vae_digits:latent_2" for row in long_rows(report)) == 2


def test_a_growing_page_names_what_is_to_come_and_draws_nothing_beside_it(whole, tmp_path):
    run = make_run(tmp_path, "gan_digits")
    (tmp_path / "vae_digits").mkdir()
    path = tmp_path / "page" / "map.html"
    page.write_page([run, tmp_path / "vae_digits"], path, waiting=["vae_digits", "gpt_digits"], remaining_seconds=340)
    text = path.read_text()
    assert "To come: vae_digits, gpt_digits, in about 6 minutes." in text
    assert "Not finished" not in text and "numbers.csv" not in text and 'id="run-1-gan-digits"' in text
    assert list(path.parent.iterdir()) == [path]
    text, path, _ = whole
    beside = {file.name for file in path.parent.iterdir()}
    assert beside == {"map.html", "map.svg", "map.png", "numbers.csv", "numbers.parquet"}
    assert "To come" not in text and all(f'href="{name}"' in text for name in beside - {"map.html"})


def test_a_page_before_the_first_run(tmp_path):
    text = page.write_page([], tmp_path / "map.html", waiting=["gan_digits"]).read_text()
    assert "Nothing has been measured yet." in text and "To come: gan_digits. Load" in text


@pytest.mark.parametrize("damage", [{"continent": "hybrid"}, {"citation": None}])
def test_a_card_without_its_family_is_refused(tmp_path, damage):
    run = make_run(tmp_path, "gan_digits", **damage)
    path = run / "evaluation" / "card.json"
    card = {key: value for key, value in json.loads(path.read_text()).items() if value is not None or key != "citation"}
    path.write_text(json.dumps(card))
    with pytest.raises(ValueError, match="card.json has (no citation|the continent 'hybrid'); measure the run again"):
        read([run])


def test_reading_needs_neither_jax_nor_what_runs_and_measures():
    code = (
        "import sys, genmap_jax.report.page, genmap_jax.report.pictures; "
        "print([m for m in sys.modules if m == 'jax' or m.startswith('genmap_jax.') and '.report' not in m])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "['genmap_jax.files']"


def test_a_page_of_unfinished_runs_only(tmp_path):
    (tmp_path / "vae_digits").mkdir()
    text = page.write_page([tmp_path / "vae_digits"], tmp_path / "map.html").read_text()
    assert "vae_digits" in text and "<svg" not in text


def test_hostile_text_stays_text(tmp_path):
    evil = '<script>alert("x")</script><img src=x onerror=alert(1)>$\\frac'
    run = make_run(tmp_path, "gpt_x", field="tokens", name=evil, system=evil, objective=evil, data=evil,
                   memorises=True, memorises_why=evil, command=evil, citation=evil, drawn=True)  # fmt: skip
    (run / "evaluation" / "samples.txt").write_text("</pre>" + evil)
    broken = tmp_path / "<script>alert(2)<"
    broken.mkdir()
    text = page.write_page([run, broken], tmp_path / "map.html", waiting=[evil]).read_text()
    assert text.count("<script") == 1 and "onerror=alert(1)>" not in text and "<img src=x" not in text
    assert "&lt;script&gt;" in text
    pictures = re.findall("<svg.*?</svg>", text, re.DOTALL)
    assert len(pictures) == 3 and all(ElementTree.fromstring(picture) is not None for picture in pictures)


def test_both_schemes_have_enough_contrast():
    """WCAG 2 AA: 4.5 for text."""
    style = (map_picture.Path(page.__file__).parent / "page.css").read_text()
    for scheme in re.findall(r":root \{([^}]*)\}", style):
        colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", scheme))
        for paper in ("paper", "card"):
            for ink in ("ink", "soft", "accent", "warn"):
                assert contrast(colours[ink], colours[paper]) >= 4.5, (ink, paper)
        assert contrast(colours["paper"], colours["accent"]) >= 4.5  # the Play button
    for land in map_picture.LAND.values():
        assert contrast(map_picture.SOFT, land) >= 4.5
    assert min(contrast(map_picture.DEEP, water) for water in map_picture.OCEAN) >= 4.5


def contrast(one, other):
    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


# ---- pictures --------------------------------------------------------------------------------------------------------


def test_the_map_has_every_family_and_no_other(whole):
    _, path, folders = whole
    text = path.with_name("map.svg").read_text()
    root = ElementTree.fromstring(text)
    words = {child.tag.split("}")[1]: child.text for child in root if child.tag.endswith(("title", "desc"))}
    assert words["title"] == "The measured map of generative models"
    for part in ("Tractable density: GPT", "VAE, ELBO · digits, ≤ 1.2", "Implicit density: GAN"):
        assert part in words["desc"]
    assert "Score" not in words["desc"]
    with Image.open(path.with_name("map.png")) as picture:
        assert picture.size[0] > 1000


@pytest.mark.parametrize("portrait", [False, True])
@pytest.mark.parametrize("count", [1, 2, 5, 13])
def test_places_keep_apart_and_inside(tmp_path, count, portrait):
    lands = ("tractable", "approximate", "implicit")
    folders = [make_run(tmp_path, f"family{i}_digits", continent=lands[i % 3]) for i in range(count)]
    plan = layout(read(folders).groups, portrait)
    regions, width, height = plan.regions, plan.width, plan.height
    boxes = [box for region in regions for box in (region.label, *region.places)]
    assert len(boxes) == count + len(regions)
    for i, a in enumerate(boxes):
        assert 20 <= a.x and a.x + a.width <= width - 20 and 100 <= a.y and a.y + a.height <= height - 60
        for b in boxes[i + 1 :]:
            assert a.x + a.width <= b.x or b.x + b.width <= a.x or a.y + a.height <= b.y or b.y + b.height <= a.y


def test_texts_of_the_map_stay_in_their_room(tmp_path):
    long = "A generative model with an exceptionally long name that goes on"
    groups = read([make_run(tmp_path, "long_digits", system=long, objective=long, data="a/long/data_set")]).groups
    plan = layout(groups, portrait=False)
    figure = map_picture.draw(groups, plan)
    figure.canvas.draw()
    place = plan.regions[0].places[0]
    to_units = figure.axes[0].transData.inverted()
    for text in figure.axes[0].texts:
        box = text.get_window_extent()
        left, right = to_units.transform([(box.x0, box.y0), (box.x1, box.y1)])[:, 0]
        if left > place.x + map_picture.THUMBNAIL and text.get_fontsize() < 23:
            assert right <= place.x + place.width + 8, text.get_text()
    assert any(text.get_text().endswith("… · a/long/data_set") for text in figure.axes[0].texts)


def test_coasts_hold_their_places():
    """A land is where its distance is below zero; no corner of a place may be in the water."""
    box = Box(100, 100, *PLACE)
    x, y = np.meshgrid(np.arange(0, 2000, 4.0), np.arange(0, 1500, 4.0))
    roughest = map_picture._roughness(x, y).max()
    corners = np.array([(box.x, box.y), (box.x + box.width, box.y + box.height)])
    assert map_picture._distance(*corners.T, box, map_picture.MARGIN).max() + roughest < 0


@pytest.mark.parametrize("count", [1, 8, 200])
def test_an_animation_lasts_four_seconds_and_ends_on_its_last_frame(tmp_path, count):
    frames = np.random.default_rng(0).integers(0, 17, (count, 20, 8, 8, 1)).astype(np.uint8)
    path = pictures.animation(frames, tmp_path / "sampler.gif", images(8, 8, 1, levels=17))
    with Image.open(path) as picture:
        assert picture.n_frames == min(count, 40)
        times = []
        for i in range(picture.n_frames):
            picture.seek(i)
            times.append(picture.info.get("duration"))
        last = np.asarray(picture.convert("L"))
    expected = np.asarray(pictures.image_grid(frames[-1][:16], 17))
    assert np.abs(last.astype(int) - expected).max() <= 1
    if count > 1:
        assert times[-1] == 1500 and 3500 <= sum(times) <= 4500


def test_animations_of_points_and_of_nothing_else(tmp_path):
    frames = np.random.default_rng(0).normal(size=(5, 100, 2)).astype(np.float32)
    frames[0, 0] = np.nan
    with Image.open(pictures.animation(frames, tmp_path / "a.gif", vectors(2))) as picture:
        assert picture.n_frames == len(frames)
        first = np.asarray(picture.convert("L"))
        picture.seek(len(frames) - 1)
        assert (np.asarray(picture.convert("L")) != first).any()
    with pytest.raises(ValueError, match=r"frames of shape \(5, 100, 2\): expected \[T, n, \*\(3,\)\]"):
        pictures.animation(frames, tmp_path / "b.gif", vectors(3))


def test_text_needs_its_decoder(tmp_path):
    batch = {"tokens": np.zeros((2, 6), np.int32)}
    with pytest.raises(ValueError, match="decode=None"):
        pictures.save(batch, tmp_path / "samples", SPACES["tokens"])


def test_plus_minus_has_two_digits_of_the_error():
    assert plus_minus([1.870, 1.861, 1.875]) == "1.8687 ± 0.0041" and plus_minus([0.5]) == "0.5000"
    assert plus_minus([-1.0, -3.0], sign="+") == "−2.0 ± 1.0" and plus_minus([2.0, 2.0], sign="+") == "+2.0000 ± 0.0000"
    assert "nan" in plus_minus([1.0, math.nan])
