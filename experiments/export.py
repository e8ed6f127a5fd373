"""Write a trained GPT as a Hugging Face folder, with the tokenizer of its text, for `transformers` and serving engines.

    python experiments/export.py runs/gpt_pydoc exported/pydoc

A model that the folder holds already is replaced. genmap_jax/interop/huggingface/ says which architectures the format
has.
"""

import argparse
from pathlib import Path

from genmap_jax.algorithm import averaged
from genmap_jax.commands.bad_input import Parser
from genmap_jax.interop.huggingface import to_huggingface
from genmap_jax.run import opening
from genmap_jax.tractable import gpt


def main() -> None:
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    try:
        run = opening.open_run(args.run, Path(__file__).parent)
        if not isinstance(run.config.model, gpt.Config):
            raise ValueError(f"{args.run} is not a GPT; the format is for GPTs")
        tokenizer = run.sources["test"].tokenizer
        print(to_huggingface(args.folder, run.config.model, averaged(run.state), tokenizer))
    except (ValueError, OSError, ImportError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
