"""`launch tunnel`: a port of a host on this machine."""

from __future__ import annotations

import threading

import click

from launcher.app import App
from launcher.options import json_option
from launcher.output import Output


@click.command("tunnel")
@click.argument("host")
@click.argument("port", type=click.IntRange(1, 65535), default=6006)
@click.option("--local-port", type=click.IntRange(0, 65535), help="Port here (PORT otherwise; 0: any free one).")
@json_option
@click.pass_obj
def command(app: App, host: str, port: int, local_port: int | None, as_json: bool) -> None:
    """Open a PORT of a host (6006 of TensorBoard otherwise) on this machine, until Ctrl-C.

    Example: launch tunnel box 6006
    """
    from remote.ssh.tunnel import Tunnel

    output, there = Output(as_json=as_json), app.ssh_host(host)
    there.connect()
    wanted = port if local_port is None else local_port
    tunnel = Tunnel(there, port, local_port=wanted, on_trouble=app.questions.tell)
    try:
        said = f"http://127.0.0.1:{tunnel.local_port} leads to port {port} of {host} (Ctrl-C ends it)"
        data = {"host": host, "port": port, "local_port": tunnel.local_port}
        output.show(data, lambda console: console.print(said, soft_wrap=True))
        threading.Event().wait()
    except KeyboardInterrupt:
        app.questions.tell("closed")
    finally:
        tunnel.close()
