"""A client generated from the document, as a stranger would use it: submits a bounded job, waits for its end, reads its view, meets errors."""

import sys

from highwater_client import Client
from highwater_client.api.jobs import create_job
from highwater_client.api.runs import get_run
from highwater_client.api.views import get_view_rows
from highwater_client.models import CreateJob, CreatedJob, Problem, Run, RunState, ViewRows

url, sql, name, view = sys.argv[1:]
client = Client(base_url=url, raise_on_unexpected_status=True, timeout=60)

created = create_job.sync(client=client, body=CreateJob(name=name, sql=sql), idempotency_key=name)
assert isinstance(created, CreatedJob), created
run = created.run
assert isinstance(run, Run), run
while run.state != RunState.FINISHED:
    assert run.state not in (RunState.FAILED, RunState.CANCELLED), run
    run = get_run.sync(run.id, client=client, wait="10s")
    assert isinstance(run, Run), run

rows = get_view_rows.sync(view, client=client, order_by=["total desc"], limit=2)
assert isinstance(rows, ViewRows), rows
assert [row.to_dict() for row in rows.rows] == [{"auction": 2, "total": 400}, {"auction": 1, "total": 60}], rows

taken = create_job.sync_detailed(client=client, body=CreateJob(name=name, sql=sql, start=False))
assert taken.status_code == 409, taken
assert isinstance(taken.parsed, Problem) and taken.parsed.code == "name_taken", taken.parsed

wrong = create_job.sync(client=client, body=CreateJob(name=name + "-2", sql="SELEC"))
assert isinstance(wrong, Problem) and wrong.errors[0].line == 1, wrong
print("ok")
