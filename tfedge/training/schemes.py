"""How tfmot quantises a network in training, where its own scheme leaves something out."""

from __future__ import annotations

from typing import Any

from tensorflow_model_optimization.experimental import combine
from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
    default_8bit_quantize_configs,
    default_8bit_quantize_scheme,
)

from tfedge.networks.backend import keras

_KERNELS = (keras.layers.Conv2D, keras.layers.DepthwiseConv2D, keras.layers.Dense)


class Scheme:
    """tfmot's scheme, but with the weights of every layer in 8 bits.

    tfmot fuses a ReLU layer with the convolution or dense layer before it, so that nothing is
    quantised between the two.  To that end it gives the layer before a config that quantises
    nothing at all: its weights are trained in float, and zeros that pruning made are lost.

    Args:
      sparse: Whether zeros are kept.
    """

    def __init__(self, *, sparse: bool) -> None:
        schemes = (
            default_8bit_quantize_scheme.Default8BitQuantizeScheme,
            combine.Default8BitPrunePreserveQuantizeScheme,
        )
        self._scheme = schemes[sparse]()

    def get_layout_transformer(self) -> Scheme:
        return self

    def get_quantize_registry(self) -> Any:
        return self._scheme.get_quantize_registry()

    def apply(self, model: keras.Model, configs: dict[str, Any]) -> tuple[keras.Model, Any]:
        """Fuse layers as tfmot does; return the model, and by layer how it is quantised."""
        model, configs = self._scheme.get_layout_transformer().apply(model, configs)
        for layer in model.layers:
            of_layer = configs.get(layer.name, {})
            nothing = isinstance(
                of_layer.get("quantize_config"), default_8bit_quantize_configs.NoOpQuantizeConfig
            )
            if nothing and isinstance(layer, _KERNELS):
                of_layer["quantize_config"] = self._weights_only(layer)
        return model, configs

    def _weights_only(self, layer: keras.layers.Layer) -> Any:
        config = self.get_quantize_registry().get_quantize_config(layer)
        config.activation_attrs = []
        config.quantize_output = False
        return config
