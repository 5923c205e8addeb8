"""Pages that a task instance links to in the Airflow UI."""
