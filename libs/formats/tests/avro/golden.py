"""Writes golden.json beside this file: records as fastavro, an independent implementation, encodes them.

    pip install fastavro==1.13.1 && python golden.py > golden.json
"""

import datetime as dt
import decimal
import io
import json
import sys
import uuid

import fastavro

UTC = dt.timezone.utc


def encode(schema, record):
    out = io.BytesIO()
    # A copy: parsing adds to what it is given.
    fastavro.schemaless_writer(out, fastavro.parse_schema(json.loads(json.dumps(schema))), record)
    return out.getvalue().hex()


def record(*fields, name="R"):
    return {"type": "record", "name": name, "fields": [{"name": n, "type": t} for n, t in fields]}


def logical(base, kind, **more):
    return {"type": base, "logicalType": kind, **more}


CASES = {}


def case(name, schema, *records):
    CASES[name] = {"schema": schema, "records": [encode(schema, r) for r in records]}


case(
    "scalars",
    record(
        ("b", "boolean"), ("i", "int"), ("l", "long"), ("f", "float"), ("d", "double"), ("s", "string"), ("y", "bytes"),
        ("e", {"type": "enum", "name": "E", "symbols": ["RED", "GREEN"]}), ("x", {"type": "fixed", "name": "X", "size": 3}),
    ),
    dict(b=True, i=-1, l=2**63 - 1, f=1.5, d=-2.25, s="grün", y=b"\x00\xff", e="GREEN", x=b"abc"),
    dict(b=False, i=2**31 - 1, l=-(2**63), f=-0.5, d=1e300, s="", y=b"", e="RED", x=b"\x00\x01\x02"),
)
case(
    "logical",
    record(
        ("d", logical("int", "date")),
        ("tm", logical("int", "time-millis")),
        ("tu", logical("long", "time-micros")),
        ("tsm", logical("long", "timestamp-millis")),
        ("tsu", logical("long", "timestamp-micros")),
        ("lsm", logical("long", "local-timestamp-millis")),
        ("lsu", logical("long", "local-timestamp-micros")),
        ("db", logical("bytes", "decimal", precision=10, scale=2)),
        ("df", {"type": "fixed", "name": "D", "size": 6, "logicalType": "decimal", "precision": 12, "scale": 3}),
        ("u", logical("string", "uuid")),
    ),
    dict(
        d=dt.date(2020, 2, 29), tm=dt.time(23, 59, 59, 123000), tu=dt.time(0, 0, 1, 1),
        tsm=dt.datetime(2020, 1, 31, 23, 59, 59, 123000, UTC), tsu=dt.datetime(1969, 12, 31, 23, 59, 59, 999999, UTC),
        lsm=dt.datetime(2020, 1, 31, 23, 59, 59, 123000), lsu=dt.datetime(1, 1, 1, 0, 0, 0, 1),
        db=decimal.Decimal("-12345678.90"), df=decimal.Decimal("123456.789"),
        u=uuid.UUID("12345678-9abc-def0-1234-56789abcdef0"),
    ),
)
case("nanos", record(("n", logical("long", "timestamp-nanos")), ("ln", logical("long", "local-timestamp-nanos"))),
     dict(n=1_580_515_199_123_456_789, ln=-1))
case(
    "nested",
    record(
        ("a", {"type": "array", "items": ["null", "int"]}),
        ("m", {"type": "map", "values": "double"}),
        ("r", record(("x", "string"), ("skipped", {"type": "array", "items": "string"}), ("y", ["null", "long"]), name="In")),
        ("rs", {"type": "array", "items": "In"}),
    ),
    dict(a=[1, None, -3], m={"k": 1.5, "l": 2.5}, r=dict(x="a", skipped=["p", "q"], y=7),
         rs=[dict(x="b", skipped=[], y=None), dict(x="c", skipped=["z"], y=-1)]),
    dict(a=[], m={}, r=dict(x="", skipped=[], y=None), rs=[]),
)
case("unions", record(("a", ["null", "string"]), ("b", ["long", "null"]), ("c", ["string"]), ("d", "null"), ("z", "int")),
     dict(a=None, b=5, c="one", d=None, z=1), dict(a="t", b=None, c="", d=None, z=2))
case("promotions", record(("i", "int"), ("l", "long"), ("f", "float"), ("s", "string"), ("y", "bytes")),
     dict(i=2**31 - 1, l=2**53 + 1, f=0.1, s="text", y="bytes".encode()))
# What no column needs: every type, also a recursive one.
LIST = {"type": "record", "name": "List", "fields": [{"name": "v", "type": "int"}, {"name": "next", "type": ["null", "List"]}]}
case(
    "skipped",
    record(
        ("n0", "null"), ("b", "boolean"), ("i", "int"), ("l", "long"), ("f", "float"), ("d", "double"), ("y", "bytes"),
        ("s", "string"), ("x", {"type": "fixed", "name": "X", "size": 5}), ("e", {"type": "enum", "name": "E", "symbols": ["A"]}),
        ("ar", {"type": "array", "items": "null"}), ("m", {"type": "map", "values": {"type": "array", "items": "long"}}),
        ("u", ["null", "string", "int", LIST]), ("list", "List"), ("id", "long"),
    ),
    dict(n0=None, b=True, i=1, l=-300, f=1.0, d=2.0, y=b"abc", s="def", x=b"12345", e="A", ar=[None] * 1000,
         m={"a": [1, 2], "b": []}, u=dict(v=1, next=dict(v=2, next=None)), list=dict(v=9, next=dict(v=8, next=None)), id=42),
)
# As our encoder derives it from columns; the records are compared byte by byte.
case(
    "derived",
    {"type": "record", "name": "my_table", "fields": [
        {"name": "b", "type": "boolean"},
        {"name": "t", "type": ["null", "int"], "default": None},
        {"name": "i", "type": "int"},
        {"name": "l", "type": "long"},
        {"name": "f", "type": "float"},
        {"name": "d", "type": "double"},
        {"name": "s", "type": ["null", "string"], "default": None},
        {"name": "y", "type": "bytes"},
        {"name": "n", "type": logical("bytes", "decimal", precision=10, scale=2)},
        {"name": "day", "type": logical("int", "date")},
        {"name": "tm", "type": logical("long", "time-micros")},
        {"name": "ts", "type": logical("long", "local-timestamp-millis")},
        {"name": "tz", "type": ["null", logical("long", "timestamp-micros")], "default": None},
        {"name": "a", "type": {"type": "array", "items": ["null", "int"]}},
        {"name": "m", "type": {"type": "map", "values": ["null", "long"]}},
        {"name": "r", "type": ["null", record(("x", "int"), name="my_table_r")], "default": None},
    ]},
    dict(b=True, t=-7, i=300, l=-(2**40), f=0.5, d=0.1, s="ü", y=b"\x01", n=decimal.Decimal("1.28"), day=dt.date(1970, 1, 2),
         tm=dt.time(1, 2, 3, 4), ts=dt.datetime(2020, 1, 31, 23, 59, 59, 123000),
         tz=dt.datetime(2020, 1, 31, 23, 59, 59, 123456, UTC), a=[1, None], m={"k": 5, "n": None}, r=dict(x=-1)),
    dict(b=False, t=None, i=0, l=0, f=0.0, d=0.0, s=None, y=b"", n=decimal.Decimal("-1.30"), day=dt.date(1969, 12, 31),
         tm=dt.time(0), ts=dt.datetime(1969, 12, 31, 23, 59, 59, 999000), tz=None, a=[], m={}, r=None),
)

json.dump(CASES, sys.stdout, indent=1)
print()
