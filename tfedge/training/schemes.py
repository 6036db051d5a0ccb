"""How tfmot quantises a network in training, where its own scheme leaves something out."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import tensorflow as tf
from tensorflow_model_optimization.python.core.quantization.keras import quant_ops
from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
    default_8bit_quantize_configs,
    default_8bit_quantize_scheme,
    default_8bit_quantizers,
)

from tfedge.networks.backend import keras

_KERNELS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)


class Scheme:
    """tfmot's scheme, but with the weights of every layer in 8 bits, and clusters kept.

    tfmot fuses a ReLU layer with the convolution or dense layer before it, so that nothing is
    quantised between the two.  To that end it gives the layer before a config that quantises
    nothing at all: its weights are trained in float.

    tfmot gives each channel of a convolution a range of its own.  Channels that share 16 values
    would have 16 others each in int8, so a clustered convolution gets one range for them all.

    Args:
      clustered: Names of the layers that are.
    """

    def __init__(self, clustered: Collection[str]) -> None:
        self._clustered = clustered
        self._scheme = default_8bit_quantize_scheme.Default8BitQuantizeScheme()

    def get_layout_transformer(self) -> Scheme:
        return self

    def get_quantize_registry(self) -> Any:
        return self._scheme.get_quantize_registry()

    def apply(self, model: keras.Model, configs: dict[str, Any]) -> tuple[keras.Model, Any]:
        """Fuse layers as tfmot does; return the model, and by layer how it is quantised."""
        model, configs = self._scheme.get_layout_transformer().apply(model, configs)
        for layer in model.layers:
            if isinstance(layer, _KERNELS) and layer.name in configs:
                config = self._config(layer, configs[layer.name].get("quantize_config"))
                configs[layer.name]["quantize_config"] = config
        return model, configs

    def _config(self, layer: keras.layers.Layer, given: Any) -> Any:
        """Return how a layer with a kernel is quantised, where tfmot says `given`."""
        config = given or self.get_quantize_registry().get_quantize_config(layer)
        if isinstance(given, default_8bit_quantize_configs.NoOpQuantizeConfig):
            config = self._weights_only(layer)
        by_channel = default_8bit_quantizers.Default8BitConvWeightsQuantizer
        quantizer = getattr(config, "weight_quantizer", None)
        if layer.name in self._clustered and isinstance(quantizer, by_channel):
            config.weight_quantizer = _OneRange()
        return config

    def _weights_only(self, layer: keras.layers.Layer) -> Any:
        config = self.get_quantize_registry().get_quantize_config(layer)
        config.activation_attrs = []
        config.quantize_output = False
        return config


class _OneRange(default_8bit_quantizers.Default8BitConvWeightsQuantizer):
    """tfmot's quantizer of a convolution, with the same range for every channel.

    The rounding of so few values costs nothing beside the clustering itself.
    """

    def __call__(
        self, inputs: tf.Tensor, training: bool, weights: dict[str, tf.Variable], **_: Any
    ) -> tf.Tensor:
        low, high = weights["min_var"], weights["max_var"]
        if training:
            largest = tf.reduce_max(tf.abs(inputs))
            low.assign(tf.fill(low.shape, -largest))
            high.assign(tf.fill(high.shape, largest))
        return quant_ops.LastValueQuantize(
            inputs,
            low,
            high,
            is_training=False,
            num_bits=self.num_bits,
            per_channel=True,
            symmetric=self.symmetric,
            narrow_range=self.narrow_range,
        )
