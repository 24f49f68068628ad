"""A tiny random HiDream-I1 pipeline: two CLIPs, T5 and a Llama."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from interp.models import components
from interp.models.catalog import Defaults

TEXT_TOKENS = 8
PATCH = 16  # the pipeline always generates 128 x 128 latents: 8 x 8 tokens
BEGIN, END = "<|begin_of_text|>", "<|eot_id|>"


def hidream(
    *, blocks: int = 2, single_blocks: int = 2, heads: int = 2, head_width: int = 16, experts: int = 4
) -> tuple[Any, Defaults]:
    """A tiny HiDream-I1 pipeline. It generates 128 x 128 pixels, one per latent; without `experts` the image's MLP is plain."""
    from diffusers import FlowMatchEulerDiscreteScheduler, HiDreamImagePipeline, HiDreamImageTransformer2DModel

    clip = components.clip_tokenizer(components.WORDS, TEXT_TOKENS)
    t5 = components.t5_tokenizer(components.WORDS, TEXT_TOKENS)
    llama = _llama_tokenizer(components.WORDS, 512)
    encoders = [components.clip_text_encoder(clip, width=16, projection=16) for _ in range(2)]
    layers = 3
    transformer = HiDreamImageTransformer2DModel(
        patch_size=PATCH,
        in_channels=4,
        out_channels=4,
        num_layers=blocks,
        num_single_layers=single_blocks,
        num_attention_heads=heads,
        attention_head_dim=head_width,
        caption_channels=[32, 24],
        text_emb_dim=32,
        num_routed_experts=experts,
        axes_dims_rope=(head_width // 2, head_width // 4, head_width // 4),
        max_resolution=(128, 128),
        llama_layers=[min(block, layers - 1) for block in range(blocks + single_blocks)],
    )
    pipe = HiDreamImagePipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=components.vae(latent_channels=4, width=8, levels=1),
        text_encoder=encoders[0],
        tokenizer=clip,
        text_encoder_2=encoders[1],
        tokenizer_2=clip,
        text_encoder_3=components.t5_text_encoder(t5, width=32),
        tokenizer_3=t5,
        text_encoder_4=_llama(llama, width=24, layers=layers),
        tokenizer_4=llama,
        transformer=transformer.eval(),
    )
    return pipe, Defaults(steps=4, settings={"max_sequence_length": TEXT_TOKENS})


def _llama_tokenizer(words: Sequence[str], length: int) -> PreTrainedTokenizerFast:
    """A Llama 3 tokenizer in which each of `words` is one token and other text is split into bytes."""
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


def _llama(tokenizer: Any, *, width: int, layers: int) -> LlamaForCausalLM:
    """A Llama language model, `width` wide, random weights."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attn_implementation="eager",  # the pipeline requests its attentions
    )
    return LlamaForCausalLM(config).eval()
