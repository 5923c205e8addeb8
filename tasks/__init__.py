"""The body of every task as plain functions: reads, encoders, graph, cost, learning; no Airflow."""
