"""Features of a row of a table in plain Python: the hash, then one kind at a time."""

import datetime
import re
from collections import Counter

MASK = 2**64 - 1
UTC = datetime.UTC


def fmix64(h):
    h = (h ^ h >> 33) * 0xFF51AFD7ED558CCD & MASK
    h = (h ^ h >> 33) * 0xC4CEB9FE1A85EC53 & MASK
    return h ^ h >> 33


def fnv(text, h=0xCBF29CE484222325):
    for byte in text.encode("utf-8", "surrogatepass"):
        h = (h ^ byte) * 0x100000001B3 & MASK
    return h


def string_hash(text):
    return fmix64(fnv(text))


def seed(*names):
    return string_hash("\x1f".join(names))


def feature(h, s, num_features):
    return (fmix64(h ^ s) >> 32) * num_features >> 32


def ngram_feature(ngram, s, num_features):
    return (
        fmix64(fnv(ngram, 0xCBF29CE484222325 ^ fmix64(s))) >> 32
    ) * num_features >> 32


def missing(name, num_features):
    return feature(0, seed(name, "missing"), num_features)


def value_hash(text):
    return seed("missing") if text is None else string_hash(text)


def categorical(name, text, num_features):
    return Counter({feature(value_hash(text), seed(name), num_features): 1})


def cross(name, texts, num_features):
    h = value_hash(texts[0])
    for text in texts[1:]:
        h = fmix64((h * 0x9E3779B97F4A7C15 + value_hash(text)) & MASK)
    return Counter({feature(h, seed(name), num_features): 1})


def numerical(name, x, mean, deviation, edges, bins, num_features):
    """``x`` is None where it is missing."""
    if x is None:
        return Counter({missing(name, num_features): 1})
    weight = max(-5.0, min(5.0, (x - mean) / deviation))
    found = Counter({feature(0, seed(name, "weight"), num_features): weight})
    if bins:
        bin = sum(edge <= x for edge in edges)
        found[feature(bin, seed(name, "bin"), num_features)] += 1
    return found


def words(text, max_n):
    lower = "".join(c.lower() if c.isascii() else c for c in text)
    found = re.findall(r"[0-9a-z\x80-\U0010ffff]+", lower)
    for n in range(1, max_n + 1):
        for i in range(len(found) + 1 - n):
            yield " ".join(found[i : i + n])


def chars(text, min_n, max_n):
    points = f"\x02{text}\x03"
    for n in range(min_n, max_n + 1):
        for i in range(len(points) + 1 - n):
            if text and not (n == 1 and i in (0, len(points) - 1)):
                yield points[i : i + n]


def text(name, value, ngrams, normalize, num_features):
    if value is None:
        return Counter({missing(name, num_features): 1})
    counts = Counter(ngram_feature(g, seed(name), num_features) for g in ngrams(value))
    length = sum(c**2 for c in counts.values()) ** 0.5 if normalize else 1
    return Counter({i: c / length for i, c in counts.items()})


def bag(name, values, num_features):
    if values is None:
        return Counter({missing(name, num_features): 1})
    return Counter(feature(string_hash(v), seed(name), num_features) for v in values)


def timestamp(name, when, parts, num_features):
    if when is None:
        return Counter({missing(name, num_features): 1})
    when = when.astimezone(UTC) if when.tzinfo else when
    numbers = {
        "hour": when.hour,
        "weekday": when.weekday(),
        "day": when.day,
        "month": when.month,
        "year": when.year,
    }
    return Counter(
        feature(numbers[part], seed(name, part), num_features) for part in parts
    )


def seen_items(rows, last):
    """What each ``(user, time, items)`` sees; how many are late.

    By the rule itself, one row after the other: all that is recorded is kept.
    """
    recorded, newest, views, num_late = {}, {}, [], 0
    for user, time, items in rows:
        if user is None or time is None:
            views.append([])
            continue
        clock = max(time, newest.get(user, time))
        log = recorded.setdefault(user, [])
        older = [entry for entry in log if entry[0] < clock]
        older.sort(key=lambda entry: entry[0])
        views.append([item for t, item in older[-last:] if t < time])
        if time < clock:
            num_late += 1
            continue
        newest[user] = clock
        log += [(time, item) for item in items]
    return views, num_late
