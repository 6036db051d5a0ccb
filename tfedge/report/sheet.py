"""Pictures of a data set side by side."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

_SIDE = 64
_GAP = 4


def drawn(rows: Sequence[Sequence[np.ndarray]]) -> bytes:
    """Draw rows of pictures, as PNG; the same pictures make the same bytes.

    Args:
      rows: Of uint8 [height, width, 1 or 3], all of one shape.  A row may be empty.
    """
    widest = max((len(row) for row in rows), default=0) or 1
    step = _SIDE + _GAP
    sheet = Image.new("RGB", (widest * step + _GAP, len(rows) * step + _GAP), "white")
    for down, row in enumerate(rows):
        for across, picture in enumerate(row):
            shown = picture[..., 0] if picture.shape[-1] == 1 else picture
            image = Image.fromarray(np.ascontiguousarray(shown)).convert("RGB")
            image = image.resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
            sheet.paste(image, (_GAP + across * step, _GAP + down * step))
    out = io.BytesIO()
    sheet.save(out, format="PNG")
    return out.getvalue()
