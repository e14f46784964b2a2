"""The cases of the built-in suite `chinese-reviews`: thirteen categories of about a hundred, in simplified Chinese.

Puts phrases together by a seed: what is said stands in `suite_domains` and `suite_phrases`, how a text is changed in
`suite_noise`.  About half of every category with both labels is positive, so that always saying the same does not pay.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping, Sequence

from jobs import suite_noise as noise
from jobs import suite_phrases as phrases
from jobs.suite import CALM, DIRECTION, INVARIANCE, MINIMUM, NEGATIVE, POSITIVE, Case
from jobs.suite_domains import Aspect, Domain, domains
from jobs.suite_noise import Draw, Noise

LABELS = (POSITIVE, NEGATIVE)
EACH = 50
"""Cases of each label in a category that is made by the seed."""
LONG_CHARS = 2000
_DOMAINS = domains()
_EMOJI_WAYS = (noise.emoji_for_marks, noise.emoji_between, noise.emoji_at_the_end)


def cases() -> tuple[Case, ...]:
    """All of them, category by category; ids come from the contents: a case that stays as it is keeps its own."""
    made = {
        "short positive": _short(POSITIVE),
        "short negative": _short(NEGATIVE),
        "irony": _irony(),
        "stacked negation": _negation(),
        "internet slang": _slang(),
        "typos": _typos(),
        "mixed long": _mixed(),
        "ultra-long": _ultra_long(),
        "emoji": _emoji(),
        "empty and symbols": _empty(),
        "traditional and simplified": _traditional(),
        "width": _width(),
        "punctuation loss": _punctuation(),
    }
    return tuple(_numbered(category, case) for category, some in made.items() for case in some)


def _numbered(category: str, case: Case) -> Case:
    contents = "\0".join((case.test, case.text, case.original or ""))
    name = f"{category.replace(' ', '-')}-{hashlib.sha256(contents.encode()).hexdigest()[:8]}"
    return Case(name, category, case.test, case.text, case.label, case.original, case.direction)


def _minimum(text: str, label: str) -> Case:
    return Case("", "", MINIMUM, text, label)


def _unchanged(original: str, text: str, label: str) -> Case:
    return Case("", "", INVARIANCE, text, label, original)


def _turned(original: str, text: str, label: str) -> Case:
    return Case("", "", DIRECTION, text, label, original, 1 if label == POSITIVE else -1)


def _short(label: str) -> Iterator[Case]:
    alone = phrases.SHORT_GOOD if label == POSITIVE else phrases.SHORT_BAD
    of_domains = (text for one in _DOMAINS for text in (one.short_good if label == POSITIVE else one.short_bad))
    return (_minimum(text, label) for text in dict.fromkeys((*alone, *of_domains)))


def _irony() -> Iterator[Case]:
    """Praise that is blame, and complaints that are praise."""
    draw = Draw("irony")
    for domain in _DOMAINS:
        yield from (_minimum(text, POSITIVE) for text in domain.surplus)
    yield from (_minimum(text, NEGATIVE) for text in phrases.IRONY_BAD)
    facts = [(domain, fact) for domain in _DOMAINS for fact in domain.facts]
    for number, (domain, fact) in enumerate(draw.some(facts, EACH)):
        pattern = phrases.IRONY_PATTERNS[number % len(phrases.IRONY_PATTERNS)]
        yield _minimum(_filled(pattern, domain, draw, fact=fact), NEGATIVE)


def _negation() -> Iterator[Case]:
    draw = Draw("stacked negation")
    for label, patterns in zip(LABELS, (phrases.STACKED_GOOD, phrases.STACKED_BAD), strict=True):
        yield from (_minimum(text, label) for text in _of_patterns(patterns, draw, 30))
    for label, turns in zip(LABELS, (phrases.TURNED_GOOD, phrases.TURNED_BAD), strict=True):
        pairs = [(domain, number) for domain in _DOMAINS for number in range(len(domain.predicates))]
        for number, (domain, place) in enumerate(draw.some(pairs, 30)):
            before, after = turns[number % len(turns)]
            words = vars(domain.predicates[place]) | {"thing": domain.thing}
            yield _turned(before.format(**words), after.format(**words), label)


def _slang() -> Iterator[Case]:
    draw = Draw("internet slang")
    for label, patterns in zip(LABELS, (phrases.SLANG_GOOD, phrases.SLANG_BAD), strict=True):
        yield from (_minimum(text, label) for text in _of_patterns(patterns, draw, EACH))


def _typos() -> Iterator[Case]:
    return _changed("typos", _alike(noise.homophone, noise.look_alike, noise.swapped, noise.dropped))


def _mixed() -> Iterator[Case]:
    """Good and bad points, and a verdict: its label, and what another verdict under the same points does."""
    draw = Draw("mixed long")
    ends = {POSITIVE: phrases.MIXED_GOOD, NEGATIVE: phrases.MIXED_BAD}
    for number in range(2 * EACH):
        label, other = LABELS[number % 2], LABELS[1 - number % 2]
        if number < EACH:
            points = _both_sides(draw, {label: 3, other: 2})
            yield _minimum(f"{points}{draw.one(ends[label])}。", label)
        else:
            points = _both_sides(draw, dict.fromkeys(LABELS, 2 + draw.below(2)))
            yield _turned(f"{points}{draw.one(ends[other])}。", f"{points}{draw.one(ends[label])}。", label)


def _both_sides(draw: Draw, counts: Mapping[str, int]) -> str:
    """An opening, so many points of each label, all about different aspects; either label's first."""
    domain, mark = draw.one(_DOMAINS), draw.one("，；")
    sides = draw.some(domain.aspects, sum(counts.values()))
    good = mark.join(draw.one(one.good) for one in sides[: counts[POSITIVE]])
    bad = mark.join(draw.one(one.bad) for one in sides[counts[POSITIVE] :])
    points = (
        f"{draw.one(phrases.LEADS_GOOD)}{good}。{draw.one(phrases.THEN_BAD)}{bad}。",
        f"{draw.one(phrases.LEADS_BAD)}{bad}。{draw.one(phrases.THEN_GOOD)}{good}。",
    )
    detail = f"{draw.one(domain.details)}。" if draw.below(2) else ""
    return f"{draw.one(domain.openers)}。{detail}{draw.one(points)}"


def _ultra_long() -> Iterator[Case]:
    """Thousands of characters: what is thought stands at the start, at the end, or all over the text."""
    draw = Draw("ultra-long")
    for number in range(2 * EACH):
        label = LABELS[number % 2]
        yield _minimum(_long(label, ("start", "end", "throughout")[number // 2 % 3], draw), label)


def _long(label: str, where: str, draw: Draw) -> str:
    domain = draw.one(_DOMAINS)
    start = draw.one(phrases.LONG_START_GOOD if label == POSITIVE else phrases.LONG_START_BAD)
    points = [draw.one(_side(one, label)) for one in draw.some(domain.aspects, 6)]
    said = f"{'，'.join(points[:3])}。{'，'.join(points[3:])}。{_verdict(domain, label, draw)}。"
    parts = [f"{draw.one(domain.openers)}。{draw.one(domain.details)}。"]
    story = draw.some(phrases.FILLER, len(phrases.FILLER))
    length = LONG_CHARS + draw.below(LONG_CHARS)
    while sum(map(len, parts)) < length:
        parts += [f"{story.pop()}。" if story and not draw.below(6) else _scene(draw) for _ in range(6)]
        if where == "throughout":
            parts.append("，".join(draw.one(_side(one, label)) for one in draw.some(domain.aspects, 3)) + "。")
    told = "".join(parts)
    return {"start": f"{start}。{said}{told}", "end": f"{told}{said}", "throughout": f"{start}。{told}{said}"}[where]


def _scene(draw: Draw) -> str:
    """A sentence that has nothing to do with what is reviewed."""
    return f"{draw.one(phrases.WHEN)}，{draw.one(phrases.WHO)}{draw.one(phrases.DID)}。"


def _emoji() -> Iterator[Case]:
    """Emoji that say it, and emoji in a review that says it anyway."""
    draw = Draw("emoji")
    for label, patterns in zip(LABELS, (phrases.EMOJI_GOOD, phrases.EMOJI_BAD), strict=True):
        yield from (_minimum(text, label) for text in _of_patterns(patterns, draw, 20))
    ways = {
        label: [functools.partial(way, emoji=emoji) for way in _EMOJI_WAYS for emoji in (fitting, phrases.ANY)]
        for label, fitting in ((POSITIVE, phrases.GLAD), (NEGATIVE, phrases.ANGRY))
    }
    yield from _changed("emoji", ways, 36)


def _empty() -> Iterator[Case]:
    """Nothing, symbols, and what says nothing: no answer to these is one to be sure of."""
    draw = Draw("empty and symbols")
    runs = [mark * count for mark in phrases.SYMBOLS for count in (1, 3)]
    mixes = ["".join(draw.one(phrases.SYMBOLS) for _ in range(4 + draw.below(12))) for _ in range(12)]
    texts = dict.fromkeys((*phrases.EMPTY, *draw.some(runs, 40), *mixes, *phrases.WITHOUT_OPINION))
    return (Case("", "", CALM, text) for text in texts)


def _traditional() -> Iterator[Case]:
    for label, texts in zip(LABELS, (phrases.TRADITIONAL_GOOD, phrases.TRADITIONAL_BAD), strict=True):
        yield from (_minimum(text, label) for text in texts)
    yield from _changed("traditional and simplified", _alike(noise.in_traditional, noise.in_traditional_by_halves), 40)


def _width() -> Iterator[Case]:
    return _changed("width", _alike(noise.full_width, noise.half_width, noise.full_and_spaced), with_details=True)


def _punctuation() -> Iterator[Case]:
    marks = (noise.without_marks, noise.marks_to_spaces, noise.marks_to_lines)
    return _changed("punctuation loss", _alike(*marks, noise.commas_only, noise.doubled_marks, noise.ends_only))


def _alike(*ways: Noise) -> dict[str, Sequence[Noise]]:
    return dict.fromkeys(LABELS, ways)


def _changed(
    seed: str, ways: Mapping[str, Sequence[Noise]], each: int = EACH, *, with_details: bool = False
) -> Iterator[Case]:
    """Reviews and what the ways for their label, in turn, make of them; `each` of every label."""
    draw = Draw(f"changed: {seed}")
    seen: set[str] = set()
    for number in range(2 * each):
        label = LABELS[number % 2]
        way = ways[label][number // 2 % len(ways[label])]
        original = text = _review(label, draw, with_details)
        while text == original or original in seen:
            original = _review(label, draw, with_details)
            text = way(original, draw)
        seen.add(original)
        yield _unchanged(original, text, label)


def _review(label: str, draw: Draw, with_details: bool) -> str:
    """A review of three to five clauses that leaves no doubt, in one of five shapes."""
    domain = draw.one(_DOMAINS)
    a, b, c = (draw.one(_side(one, label)) for one in draw.some(domain.aspects, 3))
    opener, verdict = draw.one(domain.openers), _verdict(domain, label, draw)
    also = draw.one(phrases.PRAISE if label == POSITIVE else phrases.COMPLAINT)
    detail = f"{draw.one(domain.details)}。" if with_details else ""
    shapes = (
        f"{opener}，{a}，{b}。{detail}{verdict}！",
        f"{a}，{b}。{detail}{c}，{verdict}。",
        f"{verdict}。{detail}{a}；{b}。",
        f"{opener}。{detail}{a}，{b}……{also}",
        f"{also}！{opener}，{b}，{c}。{detail}",
    )
    return draw.one(shapes)


def _side(aspect: Aspect, label: str) -> tuple[str, ...]:
    return aspect.good if label == POSITIVE else aspect.bad


def _verdict(domain: Domain, label: str, draw: Draw) -> str:
    """One of the domain's own, or one that fits everything."""
    own, general = (domain.praise, phrases.PRAISE) if label == POSITIVE else (domain.complaint, phrases.COMPLAINT)
    return draw.one(draw.one((own, general)))


def _of_patterns(patterns: Sequence[str], draw: Draw, count: int) -> list[str]:
    """`count` different texts, the patterns in turn, domains by chance."""
    texts: dict[str, None] = {}
    turn = 0
    while len(texts) < count:
        texts[_filled(patterns[turn % len(patterns)], draw.one(_DOMAINS), draw)] = None
        turn += 1
    return list(texts)


def _filled(pattern: str, domain: Domain, draw: Draw, fact: str = "") -> str:
    predicate = draw.one(domain.predicates)
    return pattern.format(thing=domain.thing, thing_bare=domain.thing[2:], ad=domain.ad, fact=fact, **vars(predicate))
