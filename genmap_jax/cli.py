"""The `genmap` command."""

import argparse
import sys

BAD_INPUT = 2


def main(argv: list[str] | None = None) -> None:
    """Parse and run; bad input is one line on stderr and exit code 2."""
    parser = argparse.ArgumentParser(prog="genmap", description="The map of generative models in JAX.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    command = commands.add_parser("prepare", help="put a dataset on disk, once", description=_prepare.__doc__)
    command.add_argument("name", metavar="NAME", help="digits, glyphs, pydoc, or a TFDS name such as mnist")
    command.add_argument("--data-dir", metavar="D", help="default: $GENMAP_DATA or ~/.cache/genmap_jax/data")
    command.add_argument("--raw", metavar="FOLDER", help="original files of an MNIST or CIFAR name, already on disk")
    command.set_defaults(run=_prepare)

    args = parser.parse_args(argv)
    try:
        args.run(args)
    except (ValueError, OSError, ImportError) as error:
        print(f"genmap: error: {error}", file=sys.stderr)
        sys.exit(BAD_INPUT)


def _prepare(args: argparse.Namespace) -> None:
    """Put a dataset on disk and print its folder. digits, glyphs and pydoc need no network; nor do the MNIST and CIFAR
    names with --raw; other TFDS names are downloaded, which takes the extra `tf`."""
    from genmap_jax import data

    print(data.prepare(args.name, args.data_dir, args.raw))


if __name__ == "__main__":
    main()
