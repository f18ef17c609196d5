"""`crmkit lab`: JupyterLab on loopback, opened on a notebook whose app is already running.

On every start, cold or warm, the same road: start the server, start the notebook's session, run its cells in
that kernel, put the outputs into the file, sign it as trusted, and only then let the browser look.
"""

from __future__ import annotations

import contextlib
import getpass
import html
import importlib
import json
import os
import queue
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from crmkit.errors import NotFound, Unsupported

HOST = "127.0.0.1"
START_SECONDS = 60
CELL_SECONDS = 120
SHIPPED = {"home.ipynb": "00_start_here.ipynb", "01_customers.ipynb": "", "02_analysis.ipynb": ""}
SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {"fetchNews": "false", "checkForUpdates": False},
    "@jupyter-widgets/jupyterlab-manager:plugin": {"saveState": False},  # widget state must not reach the file
}
OPTIONS = (
    "--no-browser",
    f"--ServerApp.ip={HOST}",
    "--ServerApp.port_retries=0",
    "--KernelManager.transport=ipc",  # kernels listen on sockets in a private folder, not on ports
    "--LabApp.news_url=None",
    "--LabApp.extension_manager=readonly",
    "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate",
)


class Lab:
    """A JupyterLab that `launch` started.

    Attributes:
        url: Where the notebook is, without the token.
        token: What the server asks for; it goes by environment and file, never by command line.
    """

    def __init__(self, workspace: Path, notebook: str, port: int | None = None, options: tuple[str, ...] = ()) -> None:
        self.workspace = workspace
        self.notebook = notebook
        self.port = port or free_port()
        self.token = secrets.token_hex(24)
        self._folder = Path(tempfile.mkdtemp(prefix="crmkit-lab-"))
        self._process = self._start(options)

    @property
    def url(self) -> str:
        """Where the notebook is."""
        return f"http://{HOST}:{self.port}/lab/tree/{self.notebook}?reset"

    @property
    def file(self) -> Path:
        """The notebook on disk."""
        return self.workspace / "notebooks" / self.notebook

    def wait(self) -> None:
        """Return when the server has ended."""
        self._process.wait()

    def stop(self) -> None:
        """End the server, and with it its kernels; calling it again does nothing."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(20)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def api(self, path: str, body: Any = None) -> Any:
        """Ask the server; a body makes it a POST."""
        request = urllib.request.Request(  # our own server on loopback
            f"http://{HOST}:{self.port}/api/{path}",
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"token {self.token}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  # as above
            return json.loads(answer.read())

    def open_browser(self) -> None:
        """Open the notebook in the user's browser, by a private file, since command lines can be read by others."""
        page = self._folder / "open.html"
        target = html.escape(f"{self.url}&token={self.token}")
        page.touch(mode=0o600)
        page.write_text(f'<!doctype html><meta http-equiv="refresh" content="0; url={target}">')
        webbrowser.open(page.as_uri())

    # ------------------------------------------------------------- starting

    def _start(self, options: tuple[str, ...]) -> subprocess.Popen[bytes]:
        config = self._folder / "labconfig" / "default_setting_overrides.json"
        config.parent.mkdir()
        config.write_text(json.dumps(SETTINGS))
        paths = [str(self._folder), *filter(None, [os.environ.get("JUPYTER_CONFIG_PATH")])]
        env = {
            **os.environ,
            "JUPYTER_TOKEN": self.token,
            "JUPYTER_CONFIG_PATH": os.pathsep.join(paths),
            "CRMKIT_WORKSPACE": str(self.workspace),
        }
        command = [
            *(sys.executable, "-m", "jupyterlab", *OPTIONS, *options),
            f"--ServerApp.port={self.port}",
            f"--ServerApp.root_dir={self.workspace / 'notebooks'}",
            *(["--allow-root"] if os.geteuid() == 0 else []),
        ]
        with (self._folder / "server.log").open("wb") as log:
            # a session of its own, or Ctrl-C would reach the server first, which then asks a question
            return subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)

    def await_server(self) -> None:
        """Return when the server answers.

        Raises:
            Unsupported: It does not; the message ends with its last words.
        """
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end and self._process.poll() is None:
            try:
                self.api("status")
            except OSError:
                time.sleep(0.1)
            else:
                return
        words = (self._folder / "server.log").read_text("utf-8", "replace").strip().splitlines()
        self.stop()
        raise Unsupported(f"JupyterLab did not start: {words[-1] if words else 'it said nothing'}")

    def run_notebook(self) -> None:
        """Run the notebook's cells in the session that the browser will find, and save their outputs, trusted."""
        nbformat: Any = importlib.import_module("nbformat")  # heavy, and its functions carry no types
        notary: Any = importlib.import_module("nbformat.sign").NotebookNotary()

        book = nbformat.read(self.file, as_version=4)
        session = self.api(
            "sessions",
            {"path": self.notebook, "name": self.notebook, "type": "notebook", "kernel": {"name": "python3"}},
        )
        with _client(session["kernel"]["id"]) as client:
            for number, cell in enumerate((cell for cell in book.cells if cell.cell_type == "code"), 1):
                cell.outputs, cell.execution_count = _run(client, cell), number
        nbformat.write(book, self.file)
        notary.sign(book)


def launch(
    workspace: Path,
    *,
    browser: bool = True,
    notebook: str = "home.ipynb",
    port: int | None = None,
    options: tuple[str, ...] = (),
) -> Lab:
    """Start JupyterLab on a workspace, with the app of its home notebook running.

    Args:
        workspace: The workspace folder.
        browser: Open the user's browser on it.
        notebook: Which of the workspace's notebooks.
        port: The port on loopback; a free one when left out.
        options: Further options of JupyterLab.

    Raises:
        NotFound: There is no such notebook.
        Unsupported: JupyterLab does not start.
    """
    _require_screens()
    place_notebooks(workspace)
    if not (workspace / "notebooks" / notebook).is_file():
        raise NotFound(f"no notebook {notebook} in {workspace / 'notebooks'}")
    lab = Lab(workspace, _own(workspace / "notebooks", notebook), port, options)
    try:
        lab.await_server()
        lab.run_notebook()
        if browser:
            lab.open_browser()
    except BaseException:
        lab.stop()
        raise
    return lab


def _require_screens() -> None:
    """Raise `Unsupported` where JupyterLab would show the notebook without its widgets."""
    from jupyter_core.paths import jupyter_path

    for extension in ("anywidget", "@jupyter-widgets/jupyterlab-manager"):
        if not any((Path(place) / extension).is_dir() for place in jupyter_path("labextensions")):
            raise Unsupported(f"JupyterLab lacks {extension}: install anywidget and ipywidgets beside it")


def place_notebooks(workspace: Path) -> None:
    """Copy the shipped notebooks into a workspace, as far as they are not there."""
    folder = workspace / "notebooks"
    folder.mkdir(exist_ok=True)
    for name, source in SHIPPED.items():
        if not (folder / name).exists():
            shutil.copyfile(shipped_notebooks() / (source or name), folder / name)


def _own(folder: Path, name: str) -> str:
    """Return the name of this user's notebook: starting writes into it, and a colleague may have it open.

    A notebook that another system user made is left to that user; a copy as shipped takes its place.
    """
    path = folder / name
    if name not in SHIPPED or path.stat().st_uid == os.getuid():
        return name
    own = path.with_stem(f"{path.stem}-{getpass.getuser()}")
    if not own.exists():
        shutil.copyfile(shipped_notebooks() / (SHIPPED[name] or name), own)
    return own.name


def shipped_notebooks() -> Path:
    """Return the folder of the notebooks that come with crmkit: in the package, or beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / "notebooks"
    return inside if inside.is_dir() else package.parent / "notebooks"


def free_port() -> int:
    """Return a port of loopback that nobody uses now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def _client(kernel: str) -> Iterator[Any]:
    """Join the kernel that the server has started."""
    from jupyter_client.blocking.client import BlockingKernelClient
    from jupyter_core.paths import jupyter_runtime_dir

    connection = Path(jupyter_runtime_dir()) / f"kernel-{kernel}.json"
    client = BlockingKernelClient(connection_file=str(connection))
    client.load_connection_file()
    client.start_channels(stdin=False, hb=False)  # the heartbeat gives up after a second, which a busy machine needs
    try:
        _await_kernel(client)
        yield client
    finally:
        client.stop_channels()


def _await_kernel(client: Any) -> None:
    """Return when the kernel answers and we hear what it says to everybody."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        client.kernel_info()
        with contextlib.suppress(queue.Empty):
            client.get_shell_msg(timeout=1)
            client.get_iopub_msg(timeout=0.5)
            return
    raise Unsupported("the notebook's kernel did not start; does `jupyter kernelspec list` show python3?")


def _run(client: Any, cell: Any) -> list[Any]:
    """Run one cell as the notebook page would, and return its outputs."""
    output_from_msg: Any = importlib.import_module("nbformat.v4").output_from_msg
    content = {"code": cell.source, "silent": False, "store_history": True, "stop_on_error": True}
    message = client.session.msg("execute_request", content, metadata={"cellId": cell.get("id", "")})
    client.shell_channel.send(message)
    outputs = []
    end = time.monotonic() + CELL_SECONDS
    while time.monotonic() < end:
        heard = client.get_iopub_msg(timeout=max(0.1, end - time.monotonic()))
        if heard["parent_header"].get("msg_id") != message["header"]["msg_id"]:
            continue
        if heard["msg_type"] == "status" and heard["content"]["execution_state"] == "idle":
            break
        if heard["msg_type"] in ("display_data", "execute_result", "stream", "error"):
            outputs.append(output_from_msg(heard))
    return outputs
