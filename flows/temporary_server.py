"""Prefect's temporary server, in a process of ours that ends with this one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from prefect.server.api.server import SubprocessASGIServer
from prefect.settings import get_current_settings

from tasks import server_process

HOME = Path(server_process.__file__).parent.parent
"""Where the packages of sp-data lie."""


class TemporaryServer(SubprocessASGIServer):
    """Prefect's own, in a process of ours (tasks/server_process.py)."""

    def _run_uvicorn_command(self) -> subprocess.Popen[Any]:
        settings = get_current_settings().to_environment_variables(exclude_unset=True)
        own = {
            "PREFECT_UI_ENABLED": "0",
            # The run's own level would print each migration and each round of the server's services.
            "PREFECT_LOGGING_ROOT_LEVEL": "WARNING",
            "PREFECT_LOGGING_EXTRA_LOGGERS": "",
            "PREFECT__SERVER_EPHEMERAL": "1",
            "PREFECT__SERVER_FINAL": "1",
            # It has no page, so that no origin but its own has any business with it; Prefect's default is all of them.
            "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": self.address,
        }
        command = [sys.executable, "-P", "-m", server_process.__name__, str(os.getpid()), str(self.port)]
        # Where the command runs may be another package called tasks: -P leaves that folder out.
        path = os.pathsep.join([str(HOME), *filter(None, [os.environ.get("PYTHONPATH")])])
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, env={**os.environ, **settings, **own, "PYTHONPATH": path}
        )
