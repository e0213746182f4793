"""ReToM written again from its definition, one token and one pair at a time: the oracle.

Nothing here is shared with the package: windows are lists of token numbers, similarities are
pairwise cosines in float64, and plans are dictionaries.
"""

import math

import torch


def windows_of(height, width, window):
    """Windows in raster order, each a list of token numbers in raster order."""
    tall, wide = window
    return [
        [
            row * width + column
            for row in range(top, min(top + tall, height))
            for column in range(left, min(left + wide, width))
        ]
        for top in range(0, height, tall)
        for left in range(0, width, wide)
    ]


def cosine(a, b):
    """Exactly symmetric, unlike a vectorised dot product: fsum rounds once."""
    norm = math.hypot(*a) * math.hypot(*b)
    return math.fsum(x * y for x, y in zip(a, b, strict=True)) / norm if norm else 0.0


def in_steps(similarity):
    """Rounded, so that equal ones are equal whatever they were computed with."""
    return round(similarity * 65536) / 65536


def representative_of(tokens, members):
    """The member with the highest mean cosine similarity to the members."""
    means = [
        in_steps(
            sum(1.0 if i == k else cosine(tokens[i], tokens[k]) for k in members) / len(members)
        )
        for i in members
    ]
    return members[means.index(max(means))]


def retom(
    tokens,
    height,
    width,
    *,
    ratio,
    window=(2, 2),
    allocation="similarity",
    reach=0,
    elect=representative_of,
):
    """Which tokens go where: ``{removed token: the token that stands for it}``."""
    tokens = tokens.double().tolist()
    windows = windows_of(height, width, window)
    representatives = [elect(tokens, members) for members in windows]
    across = -(-width // window[1])

    def candidates(number):
        row, column = divmod(number, across)
        around = [
            other
            for other in range(len(windows))
            if abs(other // across - row) <= reach and abs(other % across - column) <= reach
        ]
        return [number, *[other for other in around if other != number]]

    joins, similarity, home = {}, {}, {}
    for number, members in enumerate(windows):
        for token in members:
            home[token] = number
            if token == representatives[number]:
                continue
            scores = {
                other: in_steps(cosine(tokens[token], tokens[representatives[other]]))
                for other in candidates(number)
            }
            best = max(scores, key=lambda other: scores[other])  # the first of equals
            joins[token], similarity[token] = representatives[best], scores[best]

    budget = math.floor(round(ratio * height * width, 9))
    if allocation == "similarity":
        order = sorted(joins, key=lambda token: (-similarity[token], token))
        return {token: joins[token] for token in order[:budget]}
    by_window = [[token for token in members if token in joins] for members in windows]
    if allocation == "coherence":
        means = {
            number: sum(similarity[token] for token in members) / len(members)
            for number, members in enumerate(by_window)
            if members
        }
        ranked = sorted(means, key=lambda number: (-means[number], number))
        order = [
            token
            for number in ranked
            for token in sorted(by_window[number], key=lambda token: (-similarity[token], token))
        ]
        return {token: joins[token] for token in order[:budget]}
    gone, before, total = {}, 0, sum(len(members) for members in by_window)
    for members in by_window:
        after = before + len(members)
        quota = after * budget // max(1, total) - before * budget // max(1, total)
        before = after
        for token in sorted(members, key=lambda token: (-similarity[token], token))[:quota]:
            gone[token] = joins[token]
    return gone


def assignment_of(plan, item=0):
    """A plan in the form of :func:`retom`."""
    kept = plan.kept[item].tolist()
    stands_for = [kept[slot] for slot in plan.slot[item].tolist()]
    return {token: other for token, other in enumerate(stands_for) if other != token}


def merged(tokens, gone, mode):
    """Merged tokens (K, C) in raster order of the kept tokens, in float64."""
    tokens = tokens.double()
    rows = []
    for token in range(len(tokens)):
        if token in gone:
            continue
        members = [token, *[other for other, target in gone.items() if target == token]]
        if mode == "representative":
            rows.append(tokens[token])
            continue
        mean = sum(tokens[i] for i in members) / len(members)
        if mode == "norm_mean":
            length = sum(math.sqrt(float(tokens[i] @ tokens[i])) for i in members) / len(members)
            shrunk = math.sqrt(float(mean @ mean))
            mean = mean * (length / shrunk) if shrunk else mean
        rows.append(mean)
    return torch.stack(rows)
