"""Drawing pictures with a diffusers pipeline, for the command line: needs the extra ``cli``.

Nothing is imported here, so that each part loads only what it needs.
"""
