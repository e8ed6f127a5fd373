"""Write a trained GPT as a Hugging Face folder, with the tokenizer of its text, for `transformers` and serving engines.

    python experiments/export.py runs/gpt_pydoc exported/pydoc

Which architectures the format has: genmap_jax/tractable/huggingface.py.
"""

import argparse
from pathlib import Path

from genmap_jax import runs
from genmap_jax.tractable import gpt
from genmap_jax.tractable.huggingface import to_huggingface


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    try:
        run = runs.open_run(args.run, Path(__file__).parent)
        if not isinstance(run.config.model, gpt.Config):
            raise ValueError(f"{args.run} is a {run.config.model.system}; the format is for GPTs")
        tokenizer = run.sources["test"].tokenizer
        print(to_huggingface(args.folder, run.config.model, run.state.averaged, tokenizer))
    except (ValueError, FileNotFoundError, ImportError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
