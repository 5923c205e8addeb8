"""What Amazon MWAA needs: a slim requirements file and plugins.zip."""
