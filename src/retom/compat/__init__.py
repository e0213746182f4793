"""The interfaces of other libraries, for a change of one import line."""
