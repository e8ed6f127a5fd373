"""The `genmap` command."""

import argparse
import sys
from pathlib import Path
from typing import Annotated, Any

from genmap_jax import places
from genmap_jax.commands.bad_input import Parser, number, refuse_empty, told
from genmap_jax.options import Count, Positive, Range

MOST = 1_000_000
"""Samples in one file."""
SEED = Annotated[int, Range(0, 2**31 - 1)]
OF_TRAINING = (
    "data",
    "budget",
    "seeds",
    "only",
    "executor",
    "experiments",
    "data_dir",
    "samples",
    "features",
    "weights",
)
"""Flags of `genmap map` that draw nothing."""
OF_MAP = (
    *("workdir", "budget", "seed", "data", "features", "measured-samples", "weights", "data-dir"),
    *("ablation", "variant", "seeds", "executor", "dry-run"),
)
"""Flags of an experiment that `genmap map` gives itself, or under which nothing is trained."""
CHANGES = "--model.FIELD VALUE changes what a sampler may change after training, as the family declares it."


def main(argv: list[str] | None = None) -> None:
    """Parse and run; bad input is one line on stderr and exit code 2."""
    with told("genmap"):
        code = _run(sys.argv[1:] if argv is None else argv)
    if code:
        sys.exit(code)


def _run(argv: list[str]) -> int:
    refuse_empty(argv)
    parser = Parser(prog="genmap", description="The map of generative models in JAX.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name, function, help):
        command = commands.add_parser(name, help=help, description=function.__doc__)
        command.set_defaults(run=function, default_of=command.get_default)
        return command

    command = add("map", _map, "train, measure and draw every family on one dataset")
    command.add_argument("runs", nargs="*", type=Path, metavar="RUN", help="draw these run folders; train nothing")
    command.add_argument("--data", default="digits", help="digits, glyphs, toy, toy/rings ..., pydoc (default: digits)")
    command.add_argument(
        "--budget",
        type=number(Positive),
        metavar="MINUTES",
        help="of the whole map (default: 15, or 3 for each run if that is more)",
    )
    command.add_argument("--seeds", type=number(Count), default=1, metavar="N", help="runs of every family")
    command.add_argument("--only", metavar="A,B", help="these families")
    command.add_argument("--workdir", type=Path, help="default: runs/map/DATA")
    command.add_argument("--executor", default="local", choices=["local", "slurm", "ray"], help="where the runs go")
    _measuring(command)
    command.epilog = "Flags after -- go to the experiments: genmap map --data digits -- --steps 200"

    command = add("evaluate", _evaluate, "measure finished or unfinished runs: likelihood, quality, memorisation")
    command.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    _measuring(command)
    command.epilog = CHANGES

    command = add("sample", _sample, "draw samples from a run")
    command.add_argument("run_folder", type=Path, metavar="RUN")
    few = Annotated[int, Range(1, MOST, hint="for more, draw again with another --seed and --out")]
    command.add_argument("-n", type=number(few), help=f"how many (default: 64, or a whole folder; at most {MOST:,})")
    command.add_argument("--seed", type=number(SEED), default=0)
    command.add_argument("--label", type=number(SEED), metavar="L", help="of all samples; default: labels of test data")
    command.add_argument("--from", dest="given", metavar="FOLDER_OR_SPLIT", help="images to translate (default: test)")
    command.add_argument("--direction", choices=["ab", "ba"], help="of a translation; short for --model.direction")
    command.add_argument("--out", type=Path, metavar="FOLDER", help="default: RUN/drawn")
    _places(command)
    command.epilog = f"{CHANGES} For example: genmap sample RUN --model.sampler heun --model.guidance 2 --label 3"

    command = add("fit", _fit, "whether an experiment fits a TPU slice, and how fast it can be there")
    command.add_argument("experiment", metavar="EXPERIMENT", help="a script, or its name: vae_cifar10")
    command.add_argument("--target", required=True, metavar="SLICE", help="such as v5e:2x4, v5p:2x2x1 or v6e:4x4")
    command.add_argument("--fsdp", action="store_true", help="parameters are sharded over the devices")
    command.add_argument("--no-search", action="store_true", help="the largest batch is not looked for")
    command.add_argument("--json", action="store_true", help="print JSON instead of a table")
    command.add_argument("--experiments", type=Path, metavar="FOLDER", help="of the experiment scripts")
    command.epilog = "Flags of the experiment change it: genmap fit vae_cifar10 --target v5e:4x4 --batch_size 256"

    command = add("compare", _compare, "two evaluated runs side by side, test example by test example")
    command.add_argument("a", type=Path, metavar="RUN_A")
    command.add_argument("b", type=Path, metavar="RUN_B")

    command = add("list", _list, "the runs below a folder and how far they are")
    command.add_argument("folder", nargs="?", type=Path, default=Path("runs"), metavar="FOLDER")

    command = add("prepare", _prepare, "put a dataset on disk, once; also your own files")
    command.add_argument(
        "name", metavar="NAME", help="digits, glyphs, colours, fonts, pydoc, a TFDS name such as mnist, or one of yours"
    )
    command.add_argument("--data-dir", metavar="D", help="default: $GENMAP_DATA or ~/.cache/genmap_jax/data")
    command.add_argument(
        "--raw",
        metavar="FOLDER",
        help="the original files, or your own: images (.png .jpg .webp; two or more subfolders are labels), arrays "
        "(.npy .npz), JSON lines or text",
    )
    command.add_argument("--size", help="images are brought to this size: 64, or height and width as 48x64")
    command.add_argument("--crop", action="store_true", help="cut out the centre of each image before resizing")

    end = argv.index("--") if "--" in argv else len(argv)
    args, rest = parser.parse_known_args(argv[:end])
    args.training = argv[end + 1 :]
    if args.training and (args.run is not _map or args.runs):
        parser.error(f"-- {' '.join(args.training)}: flags after -- go to the experiments that genmap map trains")
    if args.training and (given := [flag for flag in OF_MAP if _names(args.training, flag)]):
        parser.error(f"--{given[0]} after --: genmap map says that to the experiments itself")
    args.changes = rest
    if rest and args.run is not _fit and (args.run not in (_sample, _evaluate) or not rest[0].startswith("--model.")):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return args.run(args)


def _names(line: list[str], flag: str) -> bool:
    """Whether a command line has this flag, however it is spelt."""
    return any(word.split("=")[0].replace("_", "-") == f"--{flag}" for word in line)


def _places(command: argparse.ArgumentParser) -> None:
    command.add_argument("--experiments", type=Path, metavar="FOLDER", help="of the experiment scripts")
    command.add_argument("--data-dir", type=Path, metavar="D", help="default: $GENMAP_DATA or ~/.cache/genmap_jax/data")


def _measuring(command: argparse.ArgumentParser) -> None:
    _places(command)
    command.add_argument("--samples", type=int, default=1000, metavar="N", help="to measure, at most (default: 1000)")
    command.add_argument("--features", default="own", help="own, efficientnet, inception, dinov2 or clip; for images")
    command.add_argument("--weights", type=Path, metavar="FILE", help="of inception, dinov2 or clip")


def _map(args: argparse.Namespace) -> int:
    """Train every family on one dataset, each with the same budget, measure them and write one page; or draw the run
    folders given. The same command goes on where it was stopped."""
    from genmap_jax.commands import map as mapping
    from genmap_jax.evaluate import features
    from genmap_jax.report.page import write_page
    from genmap_jax.run.runs import experiments_folder

    if args.runs:
        for name in OF_TRAINING:
            if getattr(args, name) != args.default_of(name):
                raise ValueError(f"--{name.replace('_', '-')} is for training: to draw the RUN folders, leave it out")
        workdir = places.writable(args.workdir or args.runs[0], "--workdir")
        print(f"\nThe map: {write_page(mapping.evaluated(args.runs), workdir / 'map.html')}")
        return 0
    features.check(args.features, args.weights)
    experiments = experiments_folder(args.experiments)
    data_dir = ["--data-dir", str(places.local(args.data_dir, "--data-dir"))] if args.data_dir else []
    weights = ["--weights", str(args.weights.absolute())] if args.weights else []
    return mapping.make_map(
        mapping.members(experiments, args.data, args.only),
        places.writable(args.workdir or Path("runs/map") / args.data.replace("/", "-"), "--workdir"),
        data=args.data,
        budget=args.budget,
        seeds=args.seeds,
        samples=args.samples,
        features=args.features,
        executor=args.executor,
        flags=[*data_dir, *weights, *args.training],
    )


def _evaluate(args: argparse.Namespace) -> int:
    """Measure runs at their newest checkpoint and write RUN/evaluation/card.json with samples and pictures."""
    from genmap_jax.commands.evaluate import evaluate_run, in_words
    from genmap_jax.commands.measure import check_samples
    from genmap_jax.evaluate import features
    from genmap_jax.run import opening
    from genmap_jax.run.runs import experiments_folder

    experiments = experiments_folder(args.experiments)
    check_samples(args.samples)
    features.check(args.features, args.weights)
    changes = [_changes(args.changes, folder, experiments) for folder in args.runs]
    for folder, each in zip(args.runs, changes, strict=True):  # of all, before the first is measured
        opening.check(folder, experiments, each)
        places.writable(folder / "evaluation", "RUN")
    for folder, each in zip(args.runs, changes, strict=True):
        out = evaluate_run(
            folder,
            experiments,
            samples=args.samples,
            features=args.features,
            weights=args.weights,
            data_dir=args.data_dir,
            changes=each,
        )
        print(f"{in_words(out)}\nThe card: {out / 'card.json'}", flush=True)
    return 0


def _sample(args: argparse.Namespace) -> int:
    """Draw samples from the newest checkpoint of a run: samples.npz, as a batch holds them, and a picture or text. A
    family that translates images is given them with --from."""
    from genmap_jax.commands.sample import sample
    from genmap_jax.run.runs import experiments_folder

    experiments = experiments_folder(args.experiments)
    words = args.changes + (["--model.direction", args.direction] if args.direction else [])
    changes = _changes(words, args.run_folder, experiments)
    asked = {"n": args.n, "seed": args.seed, "label": args.label, "given": args.given}
    print(sample(args.run_folder, experiments, **asked, changes=changes, out=args.out, data_dir=args.data_dir))
    return 0


def _changes(words: list[str], folder: Path, experiments: Path) -> dict[str, Any]:
    """`--model.FIELD VALUE ...` of a command line as fields that differ from those of the run."""
    if not words:
        return {}
    from genmap_jax.commands.sample import parsed_changes

    return parsed_changes(words, folder, experiments)


def _fit(args: argparse.Namespace) -> int:
    """Compile the train step, sampler and likelihood of an experiment for a TPU slice, on a machine without one: what
    they hold on each device, compute and send, the least time they take, and the largest batch that fits. It takes the
    package libtpu, in the version of the extra `tpu`."""
    import json

    import jax

    from genmap_jax.commands import fit
    from genmap_jax.run.runs import experiments_folder, read_experiment

    jax.config.update("jax_platforms", "cpu")  # with libtpu installed JAX would look for a TPU
    path = Path(args.experiment)
    if path.suffix != ".py":
        path = experiments_folder(args.experiments) / f"{args.experiment}.py"
    script = read_experiment(path)
    cfg = fit.changed(script.config, args.changes)
    values = fit.report(cfg, script.family, fit.target(args.target), fsdp=args.fsdp, search=not args.no_search)
    print(json.dumps(values, indent=2) if args.json else fit.in_words(values))
    return 0


def _compare(args: argparse.Namespace) -> int:
    """Compare two evaluated runs: difference in likelihood, paired by test example, and every number they share."""
    from genmap_jax.commands.compare import compare

    print(compare(args.a, args.b))
    return 0


def _list(args: argparse.Namespace) -> int:
    """List the runs below a folder: how far each is, and whether it has been evaluated; examples a second and TFLOP/s
    on each device, the use made of the device's peak where that is known, and the share of wall time that was lost to
    steps made again after a restart."""
    from genmap_jax.run import runs

    if not args.folder.is_dir():
        raise FileNotFoundError(f"{args.folder} is not a folder")
    rows, damaged = [], []
    for folder in runs.find_runs(args.folder):
        try:
            rows.append(runs.progress(folder))
        except (ValueError, OSError) as error:  # one damaged run must not hide the others
            damaged.append(str(error))
    for reason in damaged:
        print(f"damaged: {reason}", file=sys.stderr)
    if not rows:
        print(f"no run below {args.folder.absolute()}")
        return 0
    about = f"{'examples/s':>10s} {'TFLOP/s':>8s} {'use':>5s} {'lost':>5s}"
    print(f"{'experiment':18s} {'data':16s} {'seed':>4s} {'step':>16s} {about}  {'state':20s} run")
    for row in rows:
        state = "finished" if row["finished"] else "unfinished"
        state += ", evaluated" if row["evaluated"] else ""
        steps, speed, time = f"{row['step']}/{row['steps']}", row["speed"], row["time"]
        about = f"{speed['examples_per_second']:10,.0f} {speed['tflops_per_device']:8.3g}" if speed else f"{'':19s}"
        about += f" {100 * speed['utilisation']:4.1f}%" if "utilisation" in speed else f"{'':6s}"
        about += f" {100 * time['lost'] / sum(time.values()):4.1f}%" if time else f"{'':6s}"
        who = f"{row['experiment']:18s} {row['data']:16s} {row['seed']:4d} {steps:>16s}"
        print(f"{who} {about}  {state:20s} {row['run']}")
    print(f"{len(rows)} run(s) below {args.folder.absolute()}")
    return 0


def _prepare(args: argparse.Namespace) -> int:
    """Put a dataset on disk and print its folder. Embedded sets need no network; nor does any name with
    --raw, which takes original files of the MNIST and CIFAR names, tiny_shakespeare and openwebtext, or a folder of
    your own. Other TFDS names are downloaded, which takes the extra `tf`."""
    from genmap_jax import data

    print(data.prepare(args.name, args.data_dir, args.raw, args.size, args.crop))
    return 0


if __name__ == "__main__":
    main()
