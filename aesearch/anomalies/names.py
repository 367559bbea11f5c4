"""Names of the scores, of their parts, and why an image is odd by each."""

from __future__ import annotations

SCORES = ("combined", "patches", "reconstruction", "nap", "neighbours")
NEIGHBOURS = 5
# What ``combined`` puts together, and why an image is odd by each; of facts one of `facts.FACTS` says it.
PARTS = ("neighbours", "pixels", "shapes", "places", "texture", "fine_texture", "whole", "details", "facts")
SCALES = ("weights", "handicaps", "scales", "sums", "of_kinds")  # how the parts are put together
OF_PLACES = ("places", "texture", "fine_texture")  # those that look for a place that is odd
OF_PATCHES = (*OF_PLACES, "whole", "details")  # those that ``patches`` puts together
IN_DETAIL = ("fine_texture", "details")  # those that small images have not
OF_KINDS = ("neighbours", "shapes")  # those that tell a new kind
REASONS = (
    "far from its neighbours",
    "unusual pixels",
    "unusual shapes",
    "a place looks faulty",
    "unusual texture",
    "unusual fine texture",
    "unusual as a whole",
    "unusual in detail",
)
