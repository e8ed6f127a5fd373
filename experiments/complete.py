"""Continue a prompt with a GPT trained on text.

    python experiments/complete.py runs/gpt_pydoc "The yield statement" --new 40 --temperature 0.8
    python experiments/complete.py runs/gpt_pydoc "The yield statement" --stop . --stop ";"
    python experiments/complete.py runs/rope "The yield statement" --new 400 --length 512 --top-p 0.95 --samples 3

Prompt and continuation together are at most as long as the model was trained for. With rotary positions, --length
allows more, by dual chunk attention (experiments/long_context.py measures how well). Sampling options that are not
given are those of the run's configuration.
"""

import argparse
import dataclasses
from pathlib import Path

import jax
import numpy as np

from genmap_jax.algorithm import averaged
from genmap_jax.commands.bad_input import Parser
from genmap_jax.data.text import Tokenizer
from genmap_jax.run import opening
from genmap_jax.tractable import gpt
from genmap_jax.tractable.completion import complete


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("prompt", nargs="?", default="", help="default: nothing, the model begins")
    parser.add_argument("--new", type=int, default=40, metavar="N", help="tokens to draw (default: 40)")
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="continuations (default: 1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--temperature", type=float, metavar="T", help="draw from p^(1/T)")
    parser.add_argument("--top-k", type=int, metavar="K", help="draw from the K most likely tokens")
    parser.add_argument("--top-p", type=float, metavar="P", help="draw from the fewest tokens of together P")
    parser.add_argument("--min-p", type=float, metavar="P", help="draw from tokens P times as likely as the best")
    parser.add_argument(
        "--stop", action="append", metavar="TOKEN", help="end at this token, the text of one or its number; repeatable"
    )
    parser.add_argument("--label", type=int, help="of a conditional model")
    parser.add_argument("--length", type=int, help="of prompt and continuation, beyond that of the training")
    args = parser.parse_args()
    try:
        run = opening.open_run(args.run, Path(__file__).parent)
        tokenizer = run.sources["test"].tokenizer
        if not isinstance(run.config.model, gpt.Config) or tokenizer is None:
            raise ValueError(f"{args.run} is not a GPT trained on text")
        if not 0 <= args.seed < 2**32:
            raise ValueError(f"--seed {args.seed}: give a whole number, 0 to 2^32 - 1")
        cfg = longer(run.config.model, args.length)
        changes = {name: getattr(args, name) for name in ("temperature", "top_k", "top_p", "min_p")}
        changes["stop"] = None if args.stop is None else tuple(token_of(tokenizer, text) for text in args.stop)
        cfg = dataclasses.replace(cfg, **{name: value for name, value in changes.items() if value is not None})
        gpt.check(cfg)
        texts = continuations(cfg, averaged(run.state), tokenizer, args)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    for text in texts:
        print(f"{args.prompt}{text}\n")


def longer(cfg: gpt.Config, length: int | None) -> gpt.Config:
    """The model at more than its trained length, by dual chunk attention.

    Raises ValueError for a length that it has already, or without rotary positions.
    """
    if length is None:
        return cfg
    if length <= cfg.length:
        raise ValueError(f"--length {length}: the model reads {cfg.length} tokens already; give more, or leave it out")
    if cfg.positions != "rope":
        raise ValueError(f"--length {length}: positions={cfg.positions!r} end at {cfg.length}; train rope")
    return dataclasses.replace(cfg, length=length, chunk=3 * cfg.length // 4, trained=cfg.length)


def token_of(tokenizer: Tokenizer, text: str) -> int:
    """The token that spells this text, or stands between documents as this text, or has this number.

    Raises ValueError where there is no such token, or more than one.
    """
    between = list(tokenizer.between)
    tokens = between if tokenizer.decode(np.array(between)) == text else tokenizer.encode([text])[0].tolist()
    if len(tokens) == 1:
        return tokens[0]
    if text.isascii() and text.isdecimal() and int(text) < tokenizer.vocab:
        return int(text)
    raise ValueError(f"--stop {text!r} is {len(tokens)} tokens: give the text of one, or its number")


def continuations(cfg: gpt.Config, params, tokenizer: Tokenizer, args: argparse.Namespace) -> list[str]:
    """The text of every sample, up to its first stop token and without it."""
    prompt, key = tokenizer.encode([args.prompt])[0], jax.random.key(args.seed)
    label = None if args.label is None else np.array([args.label], np.int32)
    (drawn,) = complete(cfg, params, [prompt], args.new, key, samples=args.samples, label=label)
    ended = np.isin(drawn, cfg.stops or ())
    sizes = np.where(ended.any(1), ended.argmax(1), args.new)
    return [tokenizer.decode(tokens[:size]) for tokens, size in zip(drawn, sizes, strict=True)]


if __name__ == "__main__":
    main()
