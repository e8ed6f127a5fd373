"""Continue a prompt with a GPT trained on text.

    python experiments/complete.py runs/gpt_pydoc "The yield statement" --new 40 --temperature 0.8
    python experiments/complete.py runs/rope "The yield statement" --new 400 --length 512 --top-p 0.95 --samples 3

Prompt and continuation together are at most the length the model was trained at. With rotary positions, --length reads
further, by dual chunk attention (experiments/long_context.py measures that).
"""

import argparse
import dataclasses
from pathlib import Path

import jax

from genmap_jax import runs
from genmap_jax.samplers import decoding
from genmap_jax.tractable.completion import complete


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("prompt", nargs="?", default="", help="default: nothing, the model begins")
    parser.add_argument("--new", type=int, default=40, metavar="N", help="tokens to draw (default: 40)")
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="continuations (default: 1)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--top-k", type=int)
    parser.add_argument("--top-p", type=float)
    parser.add_argument("--min-p", type=float)
    parser.add_argument("--length", type=int, help="of prompt and continuation, beyond that of the training")
    args = parser.parse_args()
    if args.temperature <= 0:
        parser.error(f"--temperature {args.temperature}: more than 0; for the most likely token take --top-k 1")

    def adjust(logits):
        logits = decoding.temperature(logits, args.temperature)
        for law, value in ((decoding.top_k, args.top_k), (decoding.top_p, args.top_p), (decoding.min_p, args.min_p)):
            logits = logits if value is None else law(logits, value)
        return logits

    try:
        run = runs.open_run(args.run, Path(__file__).parent)
        cfg, tokenizer = run.config.model, run.sources["test"].tokenizer
        if tokenizer is None:
            raise ValueError(f"{args.run} was not trained on text")
        if args.length is not None and args.length > cfg.length:
            if cfg.positions != "rope":
                raise ValueError(f"--length {args.length}: positions={cfg.positions!r} end at {cfg.length}; train rope")
            cfg = dataclasses.replace(cfg, length=args.length, chunk=3 * cfg.length // 4, trained=cfg.length)
        prompt = tokenizer.encode([args.prompt])[0]
        key = jax.random.key(args.seed)
        (texts,) = complete(cfg, run.state.averaged, [prompt], args.new, key, samples=args.samples, adjust=adjust)
    except (ValueError, FileNotFoundError) as error:
        parser.error(str(error))
    for text in texts:
        print(f"{args.prompt}{tokenizer.decode(text)}\n")


if __name__ == "__main__":
    main()
