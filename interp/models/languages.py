"""Tiny random language models and their tokenizers, as text encoders of pipelines: Qwen, Gemma, UMT5, BERT. No download."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    Gemma2Config,
    Gemma2Model,
    GemmaTokenizer,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3Config,
    Qwen3ForCausalLM,
    UMT5Config,
    UMT5EncoderModel,
)

from interp.models.components import merges_of

CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)
QWEN_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


def qwen_tokenizer(texts: Sequence[str], length: int) -> Qwen2Tokenizer:
    """A Qwen tokenizer in which the words of `texts` are one token each and other text is split into bytes."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    words = [spelled for text in texts for word in text.split() for spelled in (word, f" {word}")]
    learner.train_from_iterator(words * 2, trainers.BpeTrainer(show_progress=False, vocab_size=4096))
    merges = [tuple(merge) for merge in merges_of(learner)]
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(merge) for merge in merges), *QWEN_SPECIAL]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=merges, model_max_length=length)
    tokenizer.add_special_tokens({"additional_special_tokens": list(QWEN_SPECIAL[1:])})
    tokenizer.chat_template = CHAT
    return tokenizer


def gemma_tokenizer(texts: Sequence[str], length: int) -> GemmaTokenizer:
    """A Gemma tokenizer in which the words of `texts` are one token each and other text is split into bytes."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words = [f"\u2581{word}" for text in texts for word in text.split()]
    learner.train_from_iterator(words * 2, trainers.BpeTrainer(show_progress=False, vocab_size=4096))
    merges = [tuple(merge) for merge in merges_of(learner)]
    letters = sorted({letter for word in words for letter in word})
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += [*letters, *("".join(merge) for merge in merges)]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    return GemmaTokenizer(vocab=vocabulary, merges=merges, model_max_length=length)


def qwen3(tokenizer: Any, *, width: int, layers: int) -> Qwen3ForCausalLM:
    """A Qwen3 language model, `width` wide, random weights."""
    return Qwen3ForCausalLM(Qwen3Config(**_sizes(tokenizer, width, layers), head_dim=width // 2)).eval()


def qwen_vl(tokenizer: Any, *, width: int, layers: int = 2) -> Qwen2_5_VLForConditionalGeneration:
    """A Qwen2.5-VL model, `width` wide, random weights, with a minimal vision tower."""
    half = width // 2 // 2  # of a head
    sections = [half - 2 * (half // 3), half // 3, half // 3]
    text = {**_sizes(tokenizer, width, layers), "rope_scaling": {"type": "mrope", "mrope_section": sections}}
    eyes = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": width}
    marks = dict.fromkeys(("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id"), 0)
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=eyes, **marks)).eval()


def gemma2(tokenizer: Any, *, width: int, layers: int = 2) -> Gemma2Model:
    """A Gemma 2 model, `width` wide, random weights."""
    sizes = _sizes(tokenizer, width, layers)
    return Gemma2Model(Gemma2Config(**sizes, head_dim=width // 2, query_pre_attn_scalar=width // 2)).eval()


def umt5(tokenizer: Any, *, width: int, layers: int = 2, heads: int = 2) -> UMT5EncoderModel:
    """A UMT5 encoder, `width` wide, random weights."""
    config = UMT5Config(
        vocab_size=len(tokenizer),
        d_model=width,
        d_kv=width // heads,
        d_ff=2 * width,
        num_layers=layers,
        num_heads=heads,
        dropout_rate=0.0,
    )
    return UMT5EncoderModel(config).eval()


def bert_tokenizer(words: Sequence[str], length: int) -> BertTokenizer:
    """A BERT tokenizer in which each of `words` is one token and other words are split into letters."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *letters, *(f"##{letter}" for letter in letters)]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    return BertTokenizer(vocab=vocabulary, model_max_length=length)


def bert(tokenizer: Any, *, width: int, layers: int = 2, heads: int = 2) -> BertModel:
    """A BERT encoder, `width` wide, random weights."""
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        max_position_embeddings=tokenizer.model_max_length,
    )
    return BertModel(config).eval()


def _sizes(tokenizer: Any, width: int, layers: int) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": width,
        "intermediate_size": 2 * width,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 2048,
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }
