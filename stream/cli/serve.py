"""`gpen-stream serve`: the cameras of a file, and the dashboard, until they are told to end."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()


@app.command()
def serve(
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Cameras, as in config/cameras.yaml; kept up to date.")
    ] = None,
    host: Annotated[
        str | None, typer.Option(help="Address to listen on; any but 127.0.0.1 needs a token.")
    ] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="TCP port; 0: a free one.")] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Folder for recordings, files and the token.")
    ] = None,
    on: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Ray cluster whose machines run the cameras: ray://HOST:PORT, HOST:PORT, auto or ray.",
        ),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Folder of the cluster's state, which all its machines see."),
    ] = None,
    end: Annotated[bool, typer.Option("--end", help="End the cameras that run on the cluster.")] = False,
) -> None:
    """Restore many cameras, with a dashboard in the browser.

    Without --config the cameras are those of cameras.yaml in the data folder. It need not exist yet.

    With --on the cameras run on the machines of a cluster, and go on when this command ends.
    """
    from stream.server.camera_config import CamerasFile, ServerSettings, load_cameras
    from stream.server.dashboard.serving import end_fleet, run

    folders = {"data": data, "state": state}
    given = {"host": host, "port": port, "on": on}
    given |= {key: str(folder) if folder is not None else None for key, folder in folders.items()}
    update = {key: value for key, value in given.items() if value is not None}
    if config is None:
        config = ServerSettings().model_copy(update=update).data_folder / "cameras.yaml"
        file = load_cameras(config) if config.exists() else CamerasFile()
    else:
        file = load_cameras(config)
    server = file.server.model_copy(update=update)
    if end:
        end_fleet(server)
    else:
        run(file, config, server)
