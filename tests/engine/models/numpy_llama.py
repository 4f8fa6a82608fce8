"""The llama architecture once more, in float64 and plain numpy, read with the reference reader."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGUFReader, dequantize

Array = npt.NDArray[np.float64]


class NumpyLlama:
    """Computes a whole context at once, without a cache. `weights` may be looked into."""

    def __init__(self, path: Path) -> None:
        reader = GGUFReader(path)
        self.weights: dict[str, Array] = {
            tensor.name: dequantize(tensor.data, tensor.tensor_type).astype(np.float64)
            for tensor in reader.tensors
        }
        self._fields = {name: field.contents() for name, field in reader.fields.items()}

    def key(self, name: str, default: Any = None) -> Any:
        return self._fields.get(f"llama.{name}", default)

    def logits(self, ids: list[int]) -> Array:
        """[len(ids), vocab]."""
        weights = self.weights
        x = weights["token_embd.weight"][ids]
        for layer in range(self.key("block_count")):
            x = x + self._attention(self._norm(x, f"blk.{layer}.attn_norm"), f"blk.{layer}")
            h = self._norm(x, f"blk.{layer}.ffn_norm")
            gate = self._linear(h, f"blk.{layer}.ffn_gate")
            gate = gate / (1 + np.exp(-gate)) * self._linear(h, f"blk.{layer}.ffn_up")
            x = x + self._linear(gate, f"blk.{layer}.ffn_down")
        output = weights.get("output.weight", weights["token_embd.weight"])
        logits: Array = self._norm(x, "output_norm") @ output.T
        return logits

    def log_likelihoods(self, ids: list[int], first: int) -> Array:
        logits = self.logits(ids)[first - 1 : -1]
        shifted = logits - logits.max(-1, keepdims=True)
        logs: Array = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
        return logs[np.arange(len(logs)), ids[first:]]

    def _linear(self, x: Array, name: str) -> Array:
        y: Array = x @ self.weights[f"{name}.weight"].T
        return y + self.weights[f"{name}.bias"] if f"{name}.bias" in self.weights else y

    def _norm(self, x: Array, name: str) -> Array:
        epsilon = float(self.key("attention.layer_norm_rms_epsilon"))
        y: Array = x / np.sqrt((x * x).mean(-1, keepdims=True) + epsilon)
        return y * self.weights[f"{name}.weight"]

    def _attention(self, x: Array, at: str) -> Array:
        count = len(x)
        heads, shared = self.key("attention.head_count"), self.key("attention.head_count_kv")
        q = self._rotate(self._linear(x, f"{at}.attn_q").reshape(count, heads, -1))
        k = self._rotate(self._linear(x, f"{at}.attn_k").reshape(count, shared, -1))
        v = self._linear(x, f"{at}.attn_v").reshape(count, shared, -1)
        out = np.zeros((count, heads, v.shape[-1]))
        for row in range(count):
            for head in range(heads):
                group = head // (heads // shared)
                scores = k[: row + 1, group] @ q[row, head] / math.sqrt(q.shape[-1])
                odds = np.exp(scores - scores.max())
                out[row, head] = odds / odds.sum() @ v[: row + 1, group]
        return self._linear(out.reshape(count, -1), f"{at}.attn_output")

    def _rotate(self, x: Array) -> Array:
        turned = int(self.key("rope.dimension_count", x.shape[-1]))
        out = x.copy()
        for pair in range(turned // 2):
            for position in range(len(x)):
                angle, magnitude = self._angle(position, pair, turned)
                c, s = math.cos(angle) * magnitude, math.sin(angle) * magnitude
                a, b = x[position, :, 2 * pair], x[position, :, 2 * pair + 1]
                out[position, :, 2 * pair] = a * c - b * s
                out[position, :, 2 * pair + 1] = a * s + b * c
        return out

    def _angle(self, position: int, pair: int, turned: int) -> tuple[float, float]:
        base = float(self.key("rope.freq_base", 10000.0))
        angle = position * base ** (-2 * pair / turned)
        if "rope_freqs.weight" in self.weights:
            angle /= self.weights["rope_freqs.weight"][pair]
        scaling, factor = self.key("rope.scaling.type"), float(self.key("rope.scaling.factor", 1.0))
        if scaling == "linear":
            return angle / factor, 1.0
        if scaling == "yarn":
            return yarn_angle(
                angle, pair, turned, base, factor, self.key("rope.scaling.original_context_length")
            )
        return angle, 1.0


def yarn_angle(
    extrapolated: float,
    pair: int,
    turned: int,
    base: float,
    factor: float,
    original: int,
    *,
    beta_fast: float = 32.0,
    beta_slow: float = 1.0,
    attention_factor: float = 1.0,
) -> tuple[float, float]:
    """ggml's `rope_yarn` with `ggml_rope_yarn_corr_dims`: the angle and the magnitude."""

    def correction(rotations: float) -> float:
        return turned * math.log(original / (rotations * 2 * math.pi)) / (2 * math.log(base))

    low = max(0.0, math.floor(correction(beta_fast)))
    high = min(turned - 1.0, math.ceil(correction(beta_slow)))
    ramp = 1 - min(1.0, max(0.0, (pair - low) / max(0.001, high - low)))
    interpolated = extrapolated / factor
    angle = interpolated * (1 - ramp) + extrapolated * ramp
    return angle, attention_factor * (1 + 0.1 * math.log(factor))
