"""Tokenizers made from a few words, for small text encoders: CLIP, T5, Qwen, Gemma, Llama, BERT. No download."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    BertTokenizer,
    CLIPTokenizer,
    GemmaTokenizer,
    PreTrainedTokenizerFast,
    Qwen2AudioProcessor,
    Qwen2Tokenizer,
    T5Tokenizer,
    WhisperFeatureExtractor,
)

LETTERS = "abcdefghijklmnopqrstuvwxyz"
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "<|im_start|>assistant\n"
)
MESSAGES = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'][0]['text'] }}<|im_end|>\n"
    "{% endfor %}"
)
SOUND = ("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
QWEN_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
BEGIN, END = "<|begin_of_text|>", "<|eot_id|>"  # of Llama


def clip(words: Sequence[str], length: int) -> CLIPTokenizer:
    """A CLIP tokenizer in which each of `words` is one token and every other text falls to bytes; `length` tokens at most."""
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    letters, last = sorted(set("".join(words))), sorted({word[-1] for word in words})
    first = [*letters, *(f"{letter}</w>" for letter in last)]  # numbered here: the trainer numbers endings in a random order
    trainer = trainers.BpeTrainer(end_of_word_suffix="</w>", show_progress=False, special_tokens=first)
    learner.train_from_iterator(list(words), trainer)
    merges = _merges(learner)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [*alphabet, *(letter + "</w>" for letter in alphabet), *("".join(merge) for merge in merges)]
    tokens += ["<|startoftext|>", "<|endoftext|>"]  # end is the highest id, as CLIP's pooling expects
    return CLIPTokenizer(vocab=_numbered(tokens), merges=merges, model_max_length=length)


def t5(words: Sequence[str], length: int) -> T5Tokenizer:
    """A T5 tokenizer in which each of `words` is one token and other words are spelled in letters."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]  # T5's fixed ids 0, 1, 2
    pieces += [(f"\u2581{word}", -2.0) for word in words]
    known = {piece for piece, _ in pieces}
    singles = ["\u2581", *(f"\u2581{letter}" for letter in LETTERS), *LETTERS, *"0123456789.,-'"]
    pieces += [(single, -8.0) for single in singles if single not in known]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=length)


def qwen(texts: Sequence[str], length: int, marks: Sequence[str] = ()) -> Qwen2Tokenizer:
    """A Qwen tokenizer in which the words of `texts` are one token each and every other text falls to bytes.

    Each of `marks` is a special token besides Qwen's own.
    """
    words = [spelled for text in texts for word in text.split() for spelled in (word, f" {word}")]
    merges = _learned(words, pre_tokenizers.ByteLevel(add_prefix_space=False))
    pieces = [*sorted(pre_tokenizers.ByteLevel.alphabet()), *("".join(merge) for merge in merges), *QWEN_SPECIAL]
    tokenizer = Qwen2Tokenizer(vocab=_numbered(pieces), merges=merges, model_max_length=length)
    for special in filter(None, (QWEN_SPECIAL[1:], marks)):
        tokenizer.add_special_tokens({"additional_special_tokens": list(special)})
    tokenizer.chat_template = CHAT
    return tokenizer


def qwen_processor(texts: Sequence[str], length: int, marks: Sequence[str] = ()) -> Qwen2AudioProcessor:
    """The same tokenizer in a processor of texts and sound: that of texts and pictures needs torchvision. Its chat template
    takes messages of one text each, and begins no answer.
    """
    tokenizer = qwen(texts, length, [*marks, *SOUND])
    return Qwen2AudioProcessor(WhisperFeatureExtractor(), tokenizer, chat_template=MESSAGES)


def gemma(texts: Sequence[str], length: int) -> GemmaTokenizer:
    """A Gemma tokenizer in which the words of `texts` are one token each and every other text falls to bytes."""
    words = [f"\u2581{word}" for text in texts for word in text.split()]
    merges = _learned(words, pre_tokenizers.WhitespaceSplit())
    letters = sorted({letter for word in words for letter in word})
    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += [*letters, *("".join(merge) for merge in merges)]
    return GemmaTokenizer(vocab=_numbered(pieces), merges=merges, model_max_length=length)


def llama(words: Sequence[str], length: int) -> PreTrainedTokenizerFast:
    """A Llama 3 tokenizer in which each of `words` is one token and every other text falls to bytes."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    spelled = [text for word in words for text in (word, f" {word}")]
    trainer = trainers.BpeTrainer(
        show_progress=False,
        vocab_size=4096,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[BEGIN, END],
    )
    tokenizer.train_from_iterator(spelled * 2, trainer)
    begin = (BEGIN, tokenizer.token_to_id(BEGIN))
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{BEGIN} $A", special_tokens=[begin])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=BEGIN, eos_token=END, pad_token=END, model_max_length=length
    )


def bert(words: Sequence[str], length: int) -> BertTokenizer:
    """A BERT tokenizer in which each of `words` is one token and other words are spelled in letters."""
    letters = f"{LETTERS}0123456789"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words, *letters, *(f"##{letter}" for letter in letters)]
    return BertTokenizer(vocab=_numbered(pieces), model_max_length=length)


TOKENIZERS: dict[str, Callable[..., Any]] = {
    learn.__name__: learn for learn in (clip, t5, qwen, qwen_processor, gemma, llama, bert)
}


def _learned(words: Sequence[str], splitter: pre_tokenizers.PreTokenizer) -> list[tuple[str, ...]]:
    """The merges that make each of these words one token."""
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = splitter
    learner.train_from_iterator([*words, *words], trainers.BpeTrainer(show_progress=False, vocab_size=4096))
    return _merges(learner)


def _merges(learner: Tokenizer) -> list[tuple[str, ...]]:
    """The merges that a byte-pair tokenizer has learned."""
    return [tuple(merge) for merge in json.loads(learner.to_str())["model"]["merges"]]


def _numbered(pieces: Sequence[str]) -> dict[str, int]:
    """A vocabulary: each piece's number, of pieces that come twice the first place."""
    return {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
