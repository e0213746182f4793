"""ReToM for ComfyUI: token merging as two nodes that patch a MODEL.

ComfyUI loads this folder from ``custom_nodes`` and reads the mappings below.
"""

from .nodes import ReToMAdvancedNode, ReToMNode

NODE_CLASS_MAPPINGS = {"ReToM": ReToMNode, "ReToMAdvanced": ReToMAdvancedNode}
NODE_DISPLAY_NAME_MAPPINGS = {"ReToM": "ReToM", "ReToMAdvanced": "ReToM (advanced)"}

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
