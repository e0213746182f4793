"""A schedule for a speed or a closeness that somebody asks for.

Settings → what one picture's steps are → candidates → seconds of each level (costs) and damage of
each level and stretch of noise → a solver over both → a configuration → a check on other prompts.
"""
