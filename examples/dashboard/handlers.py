"""The dashboard's three routes."""

from notebook_rpc import runtime
from notebook_rpc.runtime import http, sql


def regions(request):
    return http.json(
        200, sql.query("select region, sum(amount) as total from sale group by all order by all")
    )


def sales(request):
    rows = sql.query(
        "select day, amount from sale where region = $1 order by day desc, amount limit 20",
        [request.path_param("region")],
    )
    return http.json(200, rows)


def add(request):
    sale = request.json()
    try:
        values = [sale["region"], sale["amount"]]
        added = sql.query("insert into sale values (current_date, $1, $2) returning *", values)
    except (TypeError, KeyError, runtime.SqlError) as exc:
        raise runtime.BadRequest("a sale has a region and an amount") from exc
    return http.json(201, added[0])
