"""A whole Flux pipeline of a few thousand weights, with both its text encoders."""

import diffusers
import tiny
import tiny_transformers
import torch
import transformers


def flux_pipeline():
    """Flux with a CLIP encoder for its pooled state and a T5 for its tokens."""
    torch.manual_seed(0)
    t5 = transformers.T5EncoderModel(
        transformers.T5Config(
            vocab_size=64,
            d_model=tiny_transformers.WIDTH,
            d_kv=8,
            d_ff=16,
            num_layers=1,
            num_heads=2,
            relative_attention_num_buckets=8,
        )
    )
    pipe = diffusers.FluxPipeline(
        transformer=tiny_transformers.flux(pooled_projection_dim=tiny.TEXT_WIDTH),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
        vae=diffusers.AutoencoderKL(
            block_out_channels=(8, 8),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=1,
            norm_num_groups=2,
            use_quant_conv=False,
            use_post_quant_conv=False,
            scaling_factor=1.5,
            shift_factor=0.06,
        ).eval(),
        text_encoder=tiny.text_encoder(),
        text_encoder_2=t5.eval(),
        tokenizer=tiny.tokenizer(),
        tokenizer_2=transformers.T5Tokenizer(extra_ids=4, model_max_length=16),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe
