"""Records: JSON of any shape → flat rows, one a vector. Exports and interfaces nest theirs in many ways."""

import json
from collections.abc import Iterator
from typing import Any

from invlib.sources.cells import Problem, is_vector

ACTIONS = {"index", "create", "update", "delete"}  # what stands on a line before each document, in bulk files
NAMED = 4  # more vectors side by side than this are rows under their ids, not kinds of vectors under their names
LOOK = 64  # entries of a list that are looked at


class Rows:
    """Rows from values that come one after the other; a line of an action names the row behind it."""

    def __init__(self):
        self._id: Any = None

    def of_line(self, line: str) -> Iterator[dict | Problem]:
        """The rows of one line of text: a `Problem` where it is no JSON."""
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            yield Problem(f"is not JSON: {line.strip()[:40]!r}")
            return
        if isinstance(value, dict) and value and set(value) <= ACTIONS:
            inner = next(iter(value.values()))
            self._id = inner.get("_id") if isinstance(inner, dict) else None
            return
        for row in rows_of(value, by_line=True):
            yield row if self._id is None else {"_id": self._id, **row}
        self._id = None


def rows_of(value: Any, *, by_line: bool = False) -> Iterator[dict]:
    """The rows of one value. by_line: it is one of many, so an object is rather one row than a table."""
    if isinstance(value, list) and not (value and _is_number(value[0])):
        for one in value:
            yield from rows_of(one)
    elif not isinstance(value, dict):
        yield {"vector": value}
    elif isinstance(value.get("columns"), list) and isinstance(value.get("data"), list):  # pandas, orient="split"
        yield from (dict(zip(value["columns"], row, strict=False)) for row in value["data"])
    elif (size := _rows_by_column(value)) == 1:
        yield _flat(value)
    elif size:
        whole = [(key, one) for key, one in value.items() if isinstance(one, list) and len(one) == size]
        yield from ({key: one[row] for key, one in whole} for row in range(size))
    elif len(value) > NAMED and not by_line and all(map(_is_plain, value.values())):
        yield from ({"id": key, "vector": one} for key, one in value.items())
    elif any(map(_is_plain, value.values())) or not _holds_vector(value):
        yield _flat(value)
    else:
        yield from _inside(value, by_line)


def _inside(value: dict, by_line: bool) -> Iterator[dict]:
    """The rows of an object with vectors deeper inside; what stands beside them goes with each."""
    inside = {key: one for key, one in value.items() if _holds_vector(one)}
    beside = {key: one for key, one in value.items() if not isinstance(one, dict | list)}
    named = [one for one in inside.values() if isinstance(one, dict) and all(map(_is_plain, one.values()))]
    if any(len(one) <= NAMED or by_line for one in named):
        yield _flat(value)
        return
    for one in inside.values():
        if isinstance(one, dict) and all(isinstance(each, dict) for each in one.values()) and len(one) > 1:
            yield from ({"id": key, **beside, **row} for key, each in one.items() for row in rows_of(each))
        else:
            yield from ({**beside, **row} for row in rows_of(one, by_line=by_line))


def _rows_by_column(value: dict) -> int:
    """How many rows an object holds that is a table by columns, 1 for a row of several vectors; 0 for neither."""
    lists = {key: one for key, one in value.items() if isinstance(one, list) and len(one) > 1}
    vectors = {key for key, one in lists.items() if isinstance(one[0], list | str) and all(map(_is_plain, one[:2]))}
    if not vectors:
        return 0
    size = len(lists[min(vectors)])
    is_one_row = "id" in value and not any(len(one) == size for key, one in lists.items() if key not in vectors)
    return 1 if is_one_row else size  # several vectors of one text, one a token


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, int | float)


def _is_plain(value: Any) -> bool:
    """A vector as a list or text, not somewhere in an object."""
    if isinstance(value, list) and value and not isinstance(value[0], list):
        return is_vector(value) and not isinstance(value[0], dict)
    return not isinstance(value, dict) and is_vector(value)


def _holds_vector(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_holds_vector, value.values()))
    if isinstance(value, list) and value and not _is_number(value[0]):
        return any(map(_holds_vector, value[:LOOK]))
    return is_vector(value)


def _flat(value: dict) -> dict:
    """Fields of inner objects as fields of their own, `outer.inner`, where they hold vectors."""
    row = {}
    for key, one in value.items():
        if isinstance(one, dict) and any(map(_is_plain, one.values())):
            row |= {f"{key}.{name}": inner for name, inner in one.items()}
        else:
            row[key] = one
    return row
