"""Transformers of the zoo.

Dropout of attention probabilities, on by default in BERT and GPT-2, is an argument of the one attention operator: it is not
counted.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class _Attention(nn.Module):
    """timm's attention: query, key and value from one layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        parts = self.qkv(x).reshape(batch, tokens, 3, self.heads, width // self.heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        x = functional.scaled_dot_product_attention(query, key, value)
        return self.proj(x.transpose(1, 2).reshape(batch, tokens, width))


class _Mlp(nn.Module):
    """timm's MLP."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class _VitBlock(nn.Module):
    """A pre-norm block."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.attn = nn.LayerNorm(width), _Attention(width, heads)
        self.norm2, self.mlp = nn.LayerNorm(width), _Mlp(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class _PatchEmbed(nn.Module):
    """Patches as tokens."""

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """timm's VisionTransformer, by default ViT-B/16: class token, one qkv layer per attention, pre-norm, no dropout."""

    def __init__(
        self,
        image: int = 224,
        patch: int = 16,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        hidden: int = 3072,
        classes: int = 1000,
    ) -> None:
        """Make the layers."""
        super().__init__()
        self.patch_embed = _PatchEmbed(patch, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, (image // patch) ** 2 + 1, width))
        self.blocks = nn.Sequential(*(_VitBlock(width, heads, hidden) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the scores of the classes."""
        x = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])


class _BertEmbeddings(nn.Module):
    def __init__(self, vocabulary: int, positions: int, width: int) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(vocabulary, width)
        self.position_embeddings = nn.Embedding(positions, width)
        self.token_type_embeddings = nn.Embedding(2, width)
        self.LayerNorm, self.dropout = nn.LayerNorm(width), nn.Dropout(0.1)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        x = self.word_embeddings(input_ids) + self.token_type_embeddings(token_type_ids)
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        return self.dropout(self.LayerNorm(x + self.position_embeddings(places)))


class _BertSelfAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            layer(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        x = functional.scaled_dot_product_attention(query, key, value, dropout_p=0.1)
        return x.transpose(1, 2).flatten(2)


class _BertOutput(nn.Module):
    """What ends both halves of a layer: linear, dropout, short cut, norm."""

    def __init__(self, inputs: int, width: int) -> None:
        super().__init__()
        self.dense, self.LayerNorm, self.dropout = nn.Linear(inputs, width), nn.LayerNorm(width), nn.Dropout(0.1)

    def forward(self, x: Tensor, start: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense(x)) + start)


class _BertIntermediate(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.dense, self.intermediate_act_fn = nn.Linear(width, hidden), nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        return self.intermediate_act_fn(self.dense(x))


class _BertAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.self, self.output = _BertSelfAttention(width, heads), _BertOutput(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.output(self.self(x), x)


class _BertLayer(nn.Module):
    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.attention, self.intermediate = _BertAttention(width, heads), _BertIntermediate(width, hidden)
        self.output = _BertOutput(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attention(x)
        return self.output(self.intermediate(x), x)


class _BertEncoder(nn.Module):
    def __init__(self, depth: int, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.layer = nn.ModuleList(_BertLayer(width, heads, hidden) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layer:
            x = layer(x)
        return x


class _BertPooler(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.dense, self.activation = nn.Linear(width, width), nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.dense(x[:, 0]))


class _BertModel(nn.Module):
    def __init__(self, vocabulary: int, positions: int, depth: int, width: int, heads: int) -> None:
        super().__init__()
        self.embeddings = _BertEmbeddings(vocabulary, positions, width)
        self.encoder, self.pooler = _BertEncoder(depth, width, heads, 4 * width), _BertPooler(width)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        return self.pooler(self.encoder(self.embeddings(input_ids, token_type_ids)))


class Bert(nn.Module):
    """Hugging Face's BertForSequenceClassification, by default uncased base with two classes."""

    def __init__(
        self,
        vocabulary: int = 30522,
        positions: int = 512,
        depth: int = 12,
        width: int = 768,
        heads: int = 12,
        classes: int = 2,
    ) -> None:
        """Make the layers."""
        super().__init__()
        self.bert = _BertModel(vocabulary, positions, depth, width, heads)
        self.dropout, self.classifier = nn.Dropout(0.1), nn.Linear(width, classes)

    def forward(self, input_ids: Tensor, token_type_ids: Tensor) -> Tensor:
        """Return the scores of the classes."""
        return self.classifier(self.dropout(self.bert(input_ids, token_type_ids)))


class _GptAttention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.c_attn, self.c_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.resid_dropout = nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.c_attn(x).chunk(3, dim=-1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        x = functional.scaled_dot_product_attention(query, key, value, dropout_p=0.1, is_causal=True)
        return self.resid_dropout(self.c_proj(x.transpose(1, 2).flatten(2)))


class _GptMlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.c_fc, self.act = nn.Linear(width, 4 * width), nn.GELU(approximate="tanh")
        self.c_proj, self.dropout = nn.Linear(4 * width, width), nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(self.c_proj(self.act(self.c_fc(x))))


class _GptBlock(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.ln_1, self.attn = nn.LayerNorm(width), _GptAttention(width, heads)
        self.ln_2, self.mlp = nn.LayerNorm(width), _GptMlp(width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attn(self.ln_1(x)) + x
        return x + self.mlp(self.ln_2(x))


class _GptModel(nn.Module):
    def __init__(self, vocabulary: int, positions: int, depth: int, width: int, heads: int) -> None:
        super().__init__()
        self.wte, self.wpe = nn.Embedding(vocabulary, width), nn.Embedding(positions, width)
        self.drop = nn.Dropout(0.1)
        self.h = nn.ModuleList(_GptBlock(width, heads) for _ in range(depth))
        self.ln_f = nn.LayerNorm(width)

    def forward(self, input_ids: Tensor) -> Tensor:
        places = torch.arange(input_ids.shape[1], device=input_ids.device)
        x = self.drop(self.wte(input_ids) + self.wpe(places))
        for block in self.h:
            x = block(x)
        return self.ln_f(x)


class GPT2(nn.Module):
    """Hugging Face's GPT2LMHeadModel, by default small; the head's weight is the token embedding's."""

    def __init__(
        self, vocabulary: int = 50257, positions: int = 1024, depth: int = 12, width: int = 768, heads: int = 12
    ) -> None:
        """Make the layers."""
        super().__init__()
        self.transformer = _GptModel(vocabulary, positions, depth, width, heads)
        self.lm_head = nn.Linear(width, vocabulary, bias=False)
        self.lm_head.weight = self.transformer.wte.weight

    def forward(self, input_ids: Tensor) -> Tensor:
        """Return the scores of the next token at each place."""
        return self.lm_head(self.transformer(input_ids))
