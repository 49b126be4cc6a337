"""Architectures with random weights, tiny, and the groups that a person who knows them expects, written by hand.

An expectation is the list of group sizes: residual streams, then for each layer heads, query-key channels, value
channels, feed-forward channels and so on.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn


@dataclass(frozen=True)
class Architecture:
    name: str
    family: str
    build: Callable[[], nn.Module]
    inputs: Callable[[], Any]
    expected: list[int]
    outputs: Callable[[Any], Any] | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)


def tokens() -> dict[str, torch.Tensor]:
    return {"input_ids": torch.randint(5, 90, (2, 7))}


def pair() -> dict[str, torch.Tensor]:
    return {**tokens(), "decoder_input_ids": torch.randint(5, 90, (2, 4))}


def pixels() -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.randn(2, 3, 32, 32)}


def image() -> torch.Tensor:
    return torch.randn(2, 3, 16, 16)


def _logits(out: Any) -> Any:
    return out.logits if "logits" in out else out.logits_per_image


SMALL = {"vocab_size": 99, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
         "intermediate_size": 36, "max_position_embeddings": 64}  # fmt: skip
WIDE = {**SMALL, "hidden_size": 32}
GQA = {**SMALL, "num_key_value_heads": 2}
VISION = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 36,
          "image_size": 32, "patch_size": 8}  # fmt: skip
FULL = [4, 6, 6, 36]  # heads, query-key, value, feed-forward
ROTARY_GQA = [2, 2, 6, 36]  # key heads, query heads within each, value, feed-forward


def hugging_face() -> list[Architecture]:
    """Models of `transformers`, from configurations, without a download."""
    import transformers as t

    t.logging.set_verbosity_error()

    def model(name: str, config: str, options: dict[str, Any], inputs: Any, expected: list[int]) -> Architecture:
        def build() -> nn.Module:
            made = getattr(t, name)(getattr(t, config)(**options))
            if hasattr(made.config, "use_cache"):
                made.config.use_cache = False
            if hasattr(made, "set_experts_implementation"):
                made.set_experts_implementation("batched_mm")
            return made.eval()  # type: ignore[no-any-return]

        label = name.removesuffix("ForCausalLM").removesuffix("ForImageClassification").removesuffix("LMHeadModel")
        label = label.removesuffix("ForMaskedLM").removesuffix("ForConditionalGeneration").removesuffix("ForCTC")
        return Architecture(label, "transformers", build, inputs, expected, _logits)

    def causal(stem: str, options: dict[str, Any], expected: list[int]) -> Architecture:
        return model(f"{stem}ForCausalLM", f"{stem}Config", options, tokens, expected)

    def masked(stem: str, options: dict[str, Any], expected: list[int]) -> Architecture:
        return model(f"{stem}ForMaskedLM", f"{stem}Config", options, tokens, expected)

    def vision(stem: str, options: dict[str, Any], expected: list[int]) -> Architecture:
        return model(f"{stem}ForImageClassification", f"{stem}Config", options, pixels, expected)

    seq2seq = {"vocab_size": 99, "d_model": 24, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4,
               "decoder_attention_heads": 4, "encoder_ffn_dim": 36, "decoder_ffn_dim": 36}  # fmt: skip
    decoder_layer = [4, 6, 6, 4, 6, 6, 36]
    clip_part = {"hidden_size": 24, "intermediate_size": 36, "num_hidden_layers": 2, "num_attention_heads": 4,
                 "projection_dim": 12}  # fmt: skip
    rotary = [24, *2 * ROTARY_GQA]
    return [
        model("GPT2LMHeadModel", "GPT2Config", {"vocab_size": 99, "n_embd": 24, "n_layer": 2, "n_head": 4,
              "n_positions": 32}, tokens, [24, *2 * [4, 6, 6, 96]]),
        causal("GPTNeo", {"vocab_size": 99, "hidden_size": 24, "num_layers": 2, "num_heads": 4, "window_size": 4,
               "attention_types": [[["global", "local"], 1]], "max_position_embeddings": 32}, [24, *2 * [4, 6, 6, 96]]),
        # partly rotary: two channels of a head are rotated and stay, six are not
        causal("GPTNeoX", WIDE, [32, *2 * [4, 6, 8, 36]]),
        causal("GPTJ", {"vocab_size": 99, "n_embd": 32, "n_layer": 2, "n_head": 2, "rotary_dim": 8, "n_positions": 32},
               [32, *2 * [2, 8, 16, 128]]),
        causal("OPT", {"vocab_size": 99, "hidden_size": 24, "num_hidden_layers": 2, "ffn_dim": 36,
               "num_attention_heads": 4, "max_position_embeddings": 32, "word_embed_proj_dim": 24}, [24, *2 * FULL]),
        # ALiBi gives each head a slope of its own, so that heads stay
        causal("Bloom", {"vocab_size": 99, "hidden_size": 24, "n_layer": 2, "n_head": 4}, [24, *2 * [6, 6, 96]]),
        causal("Falcon", {"vocab_size": 99, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4},
               [24, *2 * [4, 6, 96]]),
        causal("Llama", GQA, rotary),
        causal("Mistral", GQA, rotary),
        causal("Qwen2", GQA, rotary),
        causal("Qwen3", {**GQA, "head_dim": 6}, rotary),
        causal("Gemma", {**GQA, "num_key_value_heads": 1, "head_dim": 6}, [24, *2 * [4, 6, 36]]),
        causal("Gemma2", {**GQA, "head_dim": 6}, rotary),
        causal("Phi", WIDE, [32, *2 * [4, 4, 8, 36]]),
        causal("Phi3", {**GQA, "pad_token_id": 0}, rotary),
        causal("StableLm", {**WIDE, "num_key_value_heads": 2}, [32, *2 * [2, 2, 6, 8, 36]]),
        causal("Olmo", GQA, rotary),
        causal("Olmo2", GQA, rotary),
        causal("Granite", GQA, rotary),
        causal("Cohere", GQA, rotary),
        causal("Starcoder2", GQA, rotary),
        causal("Mixtral", {**GQA, "num_local_experts": 4}, [24, *2 * [2, 2, 6, 4, 36]]),
        causal("Qwen2Moe", {**GQA, "num_experts": 4, "moe_intermediate_size": 20,
               "shared_expert_intermediate_size": 28}, [24, *2 * [2, 2, 6, 4, 20, 28]]),
        causal("Mamba", {"vocab_size": 99, "hidden_size": 24, "num_hidden_layers": 2, "state_size": 4},
               [24, *2 * [48, 2, 4]]),
        masked("Bert", SMALL, [24, *2 * FULL]),
        masked("Roberta", SMALL, [24, *2 * FULL]),
        masked("DistilBert", {"vocab_size": 99, "dim": 24, "n_layers": 2, "n_heads": 4, "hidden_dim": 36,
               "max_position_embeddings": 32}, [24, *2 * FULL]),
        masked("Albert", {**SMALL, "embedding_size": 16}, [16, 24, *FULL]),
        masked("Electra", {**SMALL, "embedding_size": 16}, [16, 24, *2 * FULL]),
        masked("DebertaV2", {**SMALL, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}, [24, 24, *2 * FULL]),
        # one table of relative positions serves both layers, and with it the heads of both move together
        masked("MPNet", SMALL, [24, 4, *2 * [6, 6, 36]]),
        masked("ModernBert", {**SMALL, "pad_token_id": 0, "attn_implementation": "sdpa"}, [24, *2 * [4, 6, 36]]),
        model("T5ForConditionalGeneration", "T5Config", {"vocab_size": 99, "d_model": 24, "d_kv": 6, "d_ff": 36,
              "num_layers": 2, "num_heads": 4}, pair, [24, 4, 4, *2 * [6, 6, 36], *2 * [6, 6, 4, 6, 6, 36]]),
        model("BartForConditionalGeneration", "BartConfig", {**seq2seq, "max_position_embeddings": 32}, pair,
              [24, *2 * FULL, *2 * decoder_layer]),
        model("WhisperForConditionalGeneration", "WhisperConfig", {**seq2seq, "num_mel_bins": 8,
              "max_source_positions": 16, "max_target_positions": 16, "pad_token_id": 0, "bos_token_id": 1,
              "eos_token_id": 2, "decoder_start_token_id": 1},
              lambda: {"input_features": torch.randn(2, 8, 32), "decoder_input_ids": torch.randint(5, 90, (2, 4))},
              [24, 24, 24, *2 * FULL, *2 * decoder_layer]),
        vision("ViT", VISION, [24, *2 * FULL]),
        vision("DeiT", VISION, [24, *2 * FULL]),
        vision("Dinov2", {**VISION, "mlp_ratio": 2}, [24, *2 * [4, 6, 6, 48]]),
        vision("Swin", {"image_size": 32, "patch_size": 4, "embed_dim": 12, "depths": [1, 2], "num_heads": [2, 4],
               "window_size": 4}, [12, 2, 6, 6, 48, 24, *2 * [4, 6, 6, 96]]),
        vision("ConvNext", {"hidden_sizes": [8, 16], "depths": [1, 2], "num_stages": 2, "patch_size": 4},
               [8, 32, 16, 64, 64]),
        vision("ConvNextV2", {"hidden_sizes": [8, 16], "depths": [1, 2], "num_stages": 2, "patch_size": 4},
               [8, 32, 16, 64, 64]),
        vision("ResNet", {"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [1, 2], "layer_type": "bottleneck"},
               [8, 16, 4, 4, 32, *2 * [8, 8]]),
        # grouped 3x3 convolutions: groups, channels in, channels out, and a squeeze of a quarter of the input
        vision("RegNet", {"embedding_size": 8, "hidden_sizes": [16, 32], "depths": [1, 2], "groups_width": 8},
               [8, 16, 2, 8, 8, 2, 32, 4, 8, 8, 4, 4, 8, 8, 8]),
        vision("Segformer", {"num_encoder_blocks": 2, "depths": [1, 1], "sr_ratios": [2, 1], "hidden_sizes": [8, 16],
               "patch_sizes": [7, 3], "strides": [4, 2], "num_attention_heads": [1, 2], "mlp_ratios": [2, 2],
               "decoder_hidden_size": 12}, [8, 16, 8, 8, 8, 16, 2, 8, 8, 32]),
        model("CLIPModel", "CLIPConfig", {"text_config": {**clip_part, "vocab_size": 99, "max_position_embeddings": 16},
              "vision_config": {**clip_part, "image_size": 32, "patch_size": 8}, "projection_dim": 12},
              lambda: {**tokens(), **pixels()}, [12, 24, *2 * FULL, 24, *2 * FULL]),
        # the positional convolution has four groups of six channels, in and out of the same stream
        model("Wav2Vec2ForCTC", "Wav2Vec2Config", {"vocab_size": 32, "hidden_size": 24, "num_hidden_layers": 2,
              "num_attention_heads": 4, "intermediate_size": 36, "conv_dim": (8, 8), "conv_stride": (4, 2),
              "conv_kernel": (8, 4), "num_feat_extract_layers": 2, "num_conv_pos_embeddings": 8,
              "num_conv_pos_embedding_groups": 4}, lambda: {"input_values": torch.randn(2, 400)},
              [8, 8, 4, 6, *2 * FULL]),
    ]  # fmt: skip


class Net(nn.Module):
    """A network from named parts and a function of them."""

    def __init__(self, function: Callable[..., Any], **parts: nn.Module | nn.Parameter) -> None:
        super().__init__()
        for name, part in parts.items():
            setattr(self, name, part)
        self.function = function

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.function(self, *inputs)


def _conv(inputs: int, outputs: int, size: int = 3, stride: int = 1, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False), nn.BatchNorm2d(outputs)
    )


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, inner: list[int], stride: int = 1, pad: bool = False) -> None:
        super().__init__()
        widths = [inputs, *inner, outputs]
        self.path = nn.ModuleList(
            _conv(a, b, 3, stride if i == 0 else 1) for i, (a, b) in enumerate(itertools.pairwise(widths))
        )
        self.short = _conv(inputs, outputs, 1, stride) if stride > 1 and not pad else nn.Identity()
        self.pad = (outputs - inputs) if pad else 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = x
        for i, layer in enumerate(self.path):
            h = layer(F.relu(h) if i else h)
        x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.pad)) if self.pad else self.short(x)
        return F.relu(x + h)


def _head(width: int) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 5))


def _inverted(m: Net, x: torch.Tensor) -> torch.Tensor:
    h = F.silu(m.depth(F.silu(m.expand(m.stem(x)))))
    if hasattr(m, "squeeze"):
        h = h * m.excite(F.silu(m.squeeze(h.mean((2, 3), keepdim=True)))).sigmoid()
    return m.head(m.stem(x) + m.project(h))


def _dense(m: Net, x: torch.Tensor) -> torch.Tensor:
    h = m.stem(x)
    for i in range(3):
        h = torch.cat([h, getattr(m, f"layer{i}")(F.relu(getattr(m, f"norm{i}")(h)))], 1)
    return m.head(F.relu(h))


def _shuffle(m: Net, x: torch.Tensor) -> torch.Tensor:
    first, second = m.stem(x).chunk(2, 1)
    h = torch.cat([first, F.relu(m.conv(second))], 1)
    return m.head(F.relu(h))


def _unet(m: Net, x: torch.Tensor) -> torch.Tensor:
    a = F.relu(m.down1(x))
    b = F.relu(m.down2(F.max_pool2d(a, 2)))
    c = F.relu(m.middle(F.max_pool2d(b, 2)))
    d = F.relu(m.merge2(torch.cat([m.up2(c), b], 1)))
    return m.out(F.relu(m.merge1(torch.cat([m.up1(d), a], 1))))


class _Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patch = nn.Conv2d(3, 12, 4, 4)
        self.norms = nn.ModuleList(nn.LayerNorm(12) for _ in range(3))
        self.tokens = nn.Sequential(nn.Linear(16, 20), nn.GELU(), nn.Linear(20, 16))
        self.channels = nn.Sequential(nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 12))
        self.head = nn.Linear(12, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.patch(x).flatten(2).transpose(1, 2)
        h = h + self.tokens(self.norms[0](h).transpose(1, 2)).transpose(1, 2)
        h = h + self.channels(self.norms[1](h))
        return self.head(self.norms[2](h).mean(1))  # type: ignore[no-any-return]


class _DiTBlock(nn.Module):
    """A transformer block whose norms are set by a condition."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.condition = nn.Linear(6, 12), nn.Linear(4, 10)
        self.modulate = nn.Linear(10, 3 * 12)
        self.norm = nn.LayerNorm(12, elementwise_affine=False)
        self.attention = nn.MultiheadAttention(12, 3, batch_first=True)
        self.out = nn.Linear(12, 6)

    def forward(self, x: torch.Tensor, c: torch.Tensor) -> torch.Tensor:
        h = self.embed(x)
        shift, scale, gate = self.modulate(F.silu(self.condition(c)))[:, None].chunk(3, -1)
        y = self.norm(h) * (1 + scale) + shift
        return self.out(h + gate * self.attention(y, y, y, need_weights=False)[0])  # type: ignore[no-any-return]


def own() -> list[Architecture]:
    """Networks written in plain PyTorch."""

    def net(name: str, build: Callable[[], nn.Module], inputs: Any, expected: list[int]) -> Architecture:
        return Architecture(name, "PyTorch", build, inputs, expected)

    return [
        net("MLP", lambda: nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 3)),
            lambda: torch.randn(4, 6), [16, 12]),
        net("VGG with batch norm", lambda: nn.Sequential(
            _conv(3, 8), nn.ReLU(), _conv(8, 8), nn.ReLU(), nn.MaxPool2d(2), _conv(8, 12), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(12 * 16, 20), nn.ReLU(), nn.Dropout(), nn.Linear(20, 5)), image, [8, 8, 12, 20]),
        net("ResNet-20-like", lambda: nn.Sequential(_conv(3, 8), nn.ReLU(), _Residual(8, 8, [8]), _Residual(8, 8, [8]),
            _Residual(8, 16, [16], 2), _Residual(16, 16, [16]), _head(16)), image, [8, 8, 8, 16, 16, 16]),
        # zero-padded shortcuts: the 16 channels are the 8 of the stream before and 8 more
        net("ResNet, padded shortcuts", lambda: nn.Sequential(_conv(3, 8), nn.ReLU(), _Residual(8, 8, [8]),
            _Residual(8, 16, [16], 2, pad=True), _head(16)), image, [8, 8, 8, 16]),
        net("MobileNet block", lambda: Net(_inverted, stem=_conv(3, 8), expand=_conv(8, 24, 1),
            depth=_conv(24, 24, groups=24), project=_conv(24, 8, 1), head=_head(8)), image, [8, 24]),
        net("EfficientNet block", lambda: Net(_inverted, stem=_conv(3, 8), expand=_conv(8, 24, 1),
            depth=_conv(24, 24, groups=24), squeeze=nn.Conv2d(24, 6, 1), excite=nn.Conv2d(6, 24, 1),
            project=_conv(24, 8, 1), head=_head(8)), image, [8, 24, 6]),
        net("DenseNet block", lambda: Net(_dense, stem=nn.Conv2d(3, 8, 3), norm0=nn.BatchNorm2d(8),
            norm1=nn.BatchNorm2d(12), norm2=nn.BatchNorm2d(16), layer0=nn.Conv2d(8, 4, 3, padding=1),
            layer1=nn.Conv2d(12, 4, 3, padding=1), layer2=nn.Conv2d(16, 4, 3, padding=1), head=_head(20)), image,
            [8, 4, 4, 4]),
        net("ShuffleNet-like", lambda: Net(_shuffle, stem=_conv(3, 12), conv=_conv(6, 6), head=_head(12)), image,
            [6, 6, 6]),
        net("U-Net", lambda: Net(_unet, down1=nn.Conv2d(3, 6, 3, padding=1), down2=nn.Conv2d(6, 8, 3, padding=1),
            middle=nn.Conv2d(8, 10, 3, padding=1), up2=nn.ConvTranspose2d(10, 5, 2, 2),
            merge2=nn.Conv2d(13, 7, 3, padding=1), up1=nn.ConvTranspose2d(7, 4, 2, 2),
            merge1=nn.Conv2d(10, 9, 3, padding=1), out=nn.Conv2d(9, 2, 1)), image, [6, 8, 10, 5, 7, 4, 9]),
        net("MLP-Mixer", _Mixer, image, [12, 20, 24]),
        net("adaLN transformer", _DiTBlock, lambda: (torch.randn(2, 5, 6), torch.randn(2, 4)), [12, 10, 3, 4, 4]),
        net("nn.Transformer", lambda: nn.Transformer(12, 3, 1, 1, 20, batch_first=True),
            lambda: (torch.randn(2, 5, 12), torch.randn(2, 4, 12)), [3, 4, 4, 20, 3, 4, 4, 3, 4, 4, 20]),
        net("LSTM tagger", lambda: Net(lambda m, x: m.head(m.rnn(m.embed(x))[0]), embed=nn.Embedding(20, 8),
            rnn=nn.LSTM(8, 10, 2, bidirectional=True, batch_first=True), head=nn.Linear(20, 4)),
            lambda: torch.randint(20, (3, 6)), [8, 10, 10, 10, 10]),
        net("GRU classifier", lambda: Net(lambda m, x: m.head(m.rnn(x)[1][-1]), rnn=nn.GRU(5, 9, 2),
            head=nn.Linear(9, 4)), lambda: torch.randn(6, 3, 5), [9, 9]),
        net("PointNet", lambda: Net(lambda m, x: m.head(F.relu(m.b(F.relu(m.a(x)))).amax(2)), a=nn.Conv1d(3, 8, 1),
            b=nn.Conv1d(8, 16, 1), head=nn.Linear(16, 4)), lambda: torch.randn(2, 3, 7), [8, 16]),
        net("variational autoencoder", lambda: Net(
            lambda m, x: m.decode(m.split(F.relu(m.encode(x))).chunk(2, -1)[0] + m.split(F.relu(m.encode(x))).chunk(2, -1)[1].exp()),
            encode=nn.Linear(8, 12), split=nn.Linear(12, 10),
            decode=nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 8))), lambda: torch.randn(3, 8), [12, 5, 12]),
        net("generator of images", lambda: nn.Sequential(nn.Linear(6, 4 * 8 * 8), nn.Unflatten(1, (64, 2, 2)),
            nn.ConvTranspose2d(64, 10, 4, 2, 1), nn.BatchNorm2d(10), nn.ReLU(), nn.ConvTranspose2d(10, 3, 4, 2, 1)),
            lambda: torch.randn(3, 6), [64, 10]),
        net("NeRF with a skip", lambda: Net(
            lambda m, x: m.c(F.relu(m.b(torch.cat([F.relu(m.a(torch.cat([x.sin(), x.cos()], -1))), x], -1)))),
            a=nn.Linear(6, 14), b=nn.Linear(17, 12), c=nn.Linear(12, 4)), lambda: torch.randn(5, 3), [14, 12]),
    ]  # fmt: skip


def graphs() -> list[Architecture]:
    """Graph networks of PyTorch Geometric."""
    from torch_geometric import nn as g

    edges = torch.tensor([[0, 1, 2, 3, 4, 0, 2, 5], [1, 2, 3, 4, 5, 2, 0, 0]])

    def inputs() -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randn(6, 5), edges

    def net(name: str, make: Callable[[int, int], nn.Module], expected: list[int], between: int = 8) -> Architecture:
        def build() -> nn.Module:
            return Net(lambda m, x, e: m.b(F.relu(m.a(x, e)), e), a=make(5, 8), b=make(between, 3))

        return Architecture(name, "PyTorch Geometric", build, inputs, expected)

    def mlp(a: int, b: int) -> nn.Module:
        return nn.Sequential(nn.Linear(a, 7), nn.ReLU(), nn.Linear(7, b))

    degree = torch.tensor([0, 2, 3, 1])
    return [
        net("GCN", g.GCNConv, [8]),
        net("GraphSAGE", g.SAGEConv, [8]),
        net("GIN", lambda a, b: g.GINConv(mlp(a, b)), [8, 7, 7]),
        # the first layer concatenates two heads of eight channels, the second has two heads of three, averaged
        net("GAT", lambda a, b: g.GATConv(a, b, heads=2, concat=a == 5), [2, 8, 2], between=16),
        net("PNA", lambda a, b: g.PNAConv(a, b, ["mean", "max", "std"], ["identity", "amplification"], degree),
            [5, 8, 8, 8, 3]),
        net("graph transformer", lambda a, b: g.TransformerConv(a, b, heads=2, concat=a == 5), [2, 8, 8, 2, 3], between=16),
    ]  # fmt: skip


def this_library() -> list[Architecture]:
    """Systems of this library."""
    from commutant.sequences import ParaGRU
    from commutant.sets import LCMAggregation

    def sets() -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randn(7, 4), torch.tensor([0, 0, 0, 1, 1, 1, 1])

    return [
        Architecture("ParaGRU", "commutant", lambda: Net(lambda m, x: m.head(m.rnn(x)[0]), rnn=ParaGRU(5, 8),
                     head=nn.Linear(8, 3)), lambda: torch.randn(6, 2, 5), [8]),
        Architecture("LCM aggregation", "commutant", lambda: Net(lambda m, x, i: m.head(m.pool(m.embed(x).tanh(), i)),
                     embed=nn.Linear(4, 6), pool=LCMAggregation(6, 6), head=nn.Linear(6, 2)), sets, [6, 6]),
    ]  # fmt: skip


def everything() -> list[Architecture]:
    return [*own(), *hugging_face(), *graphs(), *this_library()]
