# pyright: basic
"""A small causal language model, made without a download."""

from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast


def save_language_model(folder: Path, words: Sequence[str]) -> Path:
    """Save a Llama of two layers with random weights, and its tokenizer of these words."""
    vocabulary = {word: number for number, word in enumerate(("[UNK]", "[BOS]", *words))}
    tokens = Tokenizer(WordLevel(vocabulary, unk_token="[UNK]"))  # noqa: S106 - no password
    tokens.pre_tokenizer = Whitespace()
    tokens.post_processor = TemplateProcessing(
        single="[BOS] $A", special_tokens=[("[BOS]", vocabulary["[BOS]"])]
    )
    names = {"unk_token": "[UNK]", "bos_token": "[BOS]"}
    PreTrainedTokenizerFast(tokenizer_object=tokens, **names).save_pretrained(folder)
    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.5,
        bos_token_id=vocabulary["[BOS]"],
        eos_token_id=None,
    )
    LlamaForCausalLM(shape).save_pretrained(folder)
    return folder
