"""GPT weights in and out of Hugging Face folders: config.json and safetensors. Nothing is ever unpickled.

    cfg, params = from_huggingface(folder)      GPT-2, Qwen2 and Llama
    to_huggingface(folder, cfg, params)

A folder written here is read by `transformers` and by the engines that serve its format. Our models predict the first
token too, from a start vector; in that format it is the embedding of a token that begins a text (`bos_token_id`):

    reading   the embedding of the folder's first token becomes the start vector: logits(x)[t] are what the model says
              after the first token and x_1..x_t
    writing   the start vector becomes the embedding of one more token, number `vocab`, which config.json names as the
              first and generation_config.json forbids to draw

Nothing is read in silence as what it is not: every field of a configuration is honoured, or known to be without effect,
or refused by its name, and so is every tensor.

    configuration   the fields of config.json, what they may be, and what they mean
    tensors         the names of the tensors, and their layout
    folders         the folder as a whole, read and written
"""

from genmap_jax.interop.huggingface.folders import from_huggingface, to_huggingface

__all__ = ["from_huggingface", "to_huggingface"]
