"""A dashboard over DuckDB: one page, three routes, and a live query.

notebook-rpc serve --routes examples/dashboard/setup.py
"""

from notebook_rpc.runtime import http, sql

sql.query("create table if not exists sale (day date, region text, amount decimal(10, 2))")
if sql.query("select count(*) as n from sale")[0]["n"] == 0:
    sql.query(
        "insert into sale select date '2026-01-01' + (n // 4)::int,"
        " ['North', 'South', 'East', 'West'][1 + n % 4], 100 + n * 37 % 251 from range(120) r(n)"
    )

http.static("/", "./page")
http.get("/api/regions", "handlers.regions")
http.get("/api/sales/{region}", "handlers.sales")
http.post("/api/sales", "handlers.add")
