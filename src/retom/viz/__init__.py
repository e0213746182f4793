"""Pictures of merging: what merged where, in which layer and step, and what it cost.

```python
from retom import viz

with viz.record(handle) as recording:
    picture = pipe("a red apple", num_inference_steps=20).images[0]
look = recording.look(layer=0)
viz.to_picture(viz.drawn(look, "groups"), picture).save("groups.png")
```

Needs the extra ``cli``.
"""

from retom.viz.maps import MAPS, Map, drawn
from retom.viz.page import Cell, animation, grid_of, page
from retom.viz.raster import to_picture
from retom.viz.recording import Look, Recording, record
from retom.viz.vector import to_svg

__all__ = [
    "MAPS",
    "Cell",
    "Look",
    "Map",
    "Recording",
    "animation",
    "drawn",
    "grid_of",
    "page",
    "record",
    "to_picture",
    "to_svg",
]
