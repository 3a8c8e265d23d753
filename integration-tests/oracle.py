"""Answers queries with DuckDB, for tests/suite/duckdb.rs.

Standard input: `{"files": {TABLE: {"path": ..., "columns": {NAME: TYPE}}}, "queries": [SQL, ...]}`.
Standard output: one line per query, an array of rows as JSON objects.
"""

import datetime
import decimal
import json
import sys

import duckdb


def plain(value):
    if isinstance(value, datetime.datetime):
        return value.strftime("%Y-%m-%d %H:%M:%S.%f")
    if isinstance(value, datetime.date):
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return float(value)
    return value


request = json.load(sys.stdin)
connection = duckdb.connect()
connection.execute("SET TimeZone = 'UTC'")
for name, file in request["files"].items():
    columns = ", ".join(f"{column}: '{type_}'" for column, type_ in file["columns"].items())
    connection.execute(f"CREATE TABLE {name} AS SELECT * FROM read_json('{file['path']}', columns = {{{columns}}}, format = 'newline_delimited')")
for query in request["queries"]:
    cursor = connection.execute(query)
    names = [column[0] for column in cursor.description]
    print(json.dumps([dict(zip(names, map(plain, row))) for row in cursor.fetchall()]))
