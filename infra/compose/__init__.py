"""The daily batch on the containers of docker-compose.yaml, run from outside as a user would."""
